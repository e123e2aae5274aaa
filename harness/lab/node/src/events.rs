//! Events about pods, written one after the other; what repeats is counted instead of written again.

use std::collections::HashMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Client, Resource, ResourceExt};
use serde_json::json;
use tokio::sync::mpsc;

/// Events waiting to be written; more are dropped, as an overloaded kubelet drops them.
const QUEUE: usize = 1024;
/// Distinct events remembered for counting.
const REMEMBERED: usize = 512;

/// Where to hand events in.
#[derive(Clone)]
pub(crate) struct Events {
    sender: mpsc::Sender<Happening>,
}

struct Happening {
    about: ObjectReference,
    kind: &'static str,
    reason: &'static str,
    message: String,
}

impl Events {
    /// The handle, and the task that writes; it ends with the last handle.
    pub(crate) fn new(client: Client, node: String) -> (Self, impl Future<Output = ()> + Send) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (Self { sender }, write(client, node, receiver))
    }

    /// Something ordinary.
    pub(crate) fn normal(&self, about: ObjectReference, reason: &'static str, message: impl Into<String>) {
        self.hand_in(Happening { about, kind: "Normal", reason, message: message.into() });
    }

    /// Something that a user should look at.
    pub(crate) fn warning(&self, about: ObjectReference, reason: &'static str, message: impl Into<String>) {
        self.hand_in(Happening { about, kind: "Warning", reason, message: message.into() });
    }

    fn hand_in(&self, happening: Happening) {
        if self.sender.try_send(happening).is_err() {
            tracing::debug!("an event was dropped");
        }
    }
}

/// A reference to a pod, or to one of its containers.
pub(crate) fn about(pod: &Pod, container: Option<&str>) -> ObjectReference {
    let mut reference = pod.object_ref(&());
    reference.field_path = container.map(|name| format!("spec.containers{{{name}}}"));
    reference
}

async fn write(client: Client, node: String, mut receiver: mpsc::Receiver<Happening>) {
    let mut written: HashMap<String, (String, i32)> = HashMap::new();
    while let Some(happening) = receiver.recv().await {
        let namespace = happening.about.namespace.clone().unwrap_or_else(|| "default".into());
        let events: Api<Event> = Api::namespaced(client.clone(), &namespace);
        let key = key(&happening);
        let now = Timestamp::now();
        if let Some((name, count)) = written.get_mut(&key) {
            *count += 1;
            let patch = json!({ "count": *count, "lastTimestamp": Time(now) });
            if events.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.is_ok() {
                continue;
            }
        }
        let event = event(&node, &namespace, happening, now);
        match events.create(&PostParams::default(), &event).await {
            Ok(_) => {
                if written.len() >= REMEMBERED {
                    written.clear();
                }
                written.insert(key, (event.name_any(), 1));
            }
            // A namespace that is being deleted takes no events; nothing depends on one.
            Err(error) => tracing::debug!(%error, event = event.name_any(), "cannot write an event"),
        }
    }
}

fn key(happening: &Happening) -> String {
    let Happening { about, kind, reason, message } = happening;
    format!("{:?}/{:?}/{kind}/{reason}/{message}", about.uid, about.field_path)
}

fn event(node: &str, namespace: &str, happening: Happening, now: Timestamp) -> Event {
    let name = format!("{}.{:016x}", happening.about.name.as_deref().unwrap_or("unknown"), rand::random::<u64>());
    Event {
        metadata: ObjectMeta { name: Some(name), namespace: Some(namespace.into()), ..ObjectMeta::default() },
        involved_object: happening.about,
        type_: Some(happening.kind.into()),
        reason: Some(happening.reason.into()),
        message: Some(happening.message),
        count: Some(1),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        source: Some(EventSource { component: Some("kubelet".into()), host: Some(node.into()) }),
        reporting_component: Some("kubelet".into()),
        reporting_instance: Some(node.into()),
        ..Event::default()
    }
}
