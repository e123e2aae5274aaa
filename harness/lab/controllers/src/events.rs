//! Events about objects, as `kubectl describe` and `kubectl get events` show them. A repeat of an event raises the
//! count of the first one instead of adding another.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Client, Resource, ResourceExt};
use serde_json::json;
use tokio::sync::mpsc;

/// Events waiting to be written; more than that are dropped, never waited for.
const WAITING: usize = 1024;
/// How many different events are remembered for counting repeats.
const REMEMBERED: usize = 4096;

/// `Normal` or `Warning`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Severity {
    /// Things go as they should.
    Normal,
    /// Somebody should look at this.
    Warning,
}

impl Severity {
    fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// Writes events in the background. Cloning is cheap; all clones share the counts.
#[derive(Clone, Debug)]
pub struct Recorder {
    sender: mpsc::Sender<Note>,
    component: &'static str,
    host: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Identity {
    component: &'static str,
    host: Option<String>,
    uid: String,
    namespace: String,
    name: String,
    severity: Severity,
    reason: String,
    message: String,
}

#[derive(Debug)]
struct Note {
    identity: Identity,
    about: ObjectReference,
}

impl Recorder {
    /// A recorder and the task that writes its events; the task ends when the last clone is dropped.
    ///
    /// `component` is the source of the events, such as `default-scheduler`.
    pub fn new(client: Client, component: &'static str) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (Self { sender, component, host: None }, write(client, receiver))
    }

    /// The same recorder under another component's name.
    #[must_use]
    pub fn named(&self, component: &'static str) -> Self {
        Self { sender: self.sender.clone(), component, host: self.host.clone() }
    }

    /// The same recorder for a component of one node, as a kubelet.
    #[must_use]
    pub fn on_host(&self, host: &str) -> Self {
        Self { host: Some(host.to_owned()), ..self.clone() }
    }

    /// Records an event about an object of a kind known at compile time.
    pub fn record<K: Resource<DynamicType = ()>>(&self, about: &K, severity: Severity, reason: &str, message: &str) {
        self.record_reference(reference(about), severity, reason, message);
    }

    /// Records an event about a referenced object. Never blocks: with more than 1024 events waiting it is dropped.
    pub fn record_reference(&self, about: ObjectReference, severity: Severity, reason: &str, message: &str) {
        let identity = Identity {
            component: self.component,
            host: self.host.clone(),
            uid: about.uid.clone().unwrap_or_default(),
            namespace: about.namespace.clone().unwrap_or_else(|| "default".to_owned()),
            name: about.name.clone().unwrap_or_default(),
            severity,
            reason: reason.to_owned(),
            message: message.to_owned(),
        };
        if let Err(error) = self.sender.try_send(Note { identity, about }) {
            tracing::debug!(%error, reason, "event dropped");
        }
    }
}

/// A reference to an object, as events and endpoints carry it.
#[must_use]
pub fn reference<K: Resource<DynamicType = ()>>(object: &K) -> ObjectReference {
    let meta = object.meta();
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        name: meta.name.clone(),
        namespace: meta.namespace.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: None,
    }
}

struct Written {
    name: String,
    count: i32,
}

async fn write(client: Client, mut receiver: mpsc::Receiver<Note>) {
    let mut written: HashMap<Identity, Written> = HashMap::new();
    while let Some(note) = receiver.recv().await {
        let api: Api<Event> = Api::namespaced(client.clone(), &note.identity.namespace);
        let now = Time(jiff::Timestamp::now());
        if let Some(before) = written.get_mut(&note.identity) {
            before.count += 1;
            let repeat = Patch::Merge(json!({ "count": before.count, "lastTimestamp": now }));
            match api.patch(&before.name, &PatchParams::default(), &repeat).await {
                Ok(_) => continue,
                Err(error) => tracing::debug!(%error, "event gone, writing it anew"),
            }
        }
        let event = first(&note, now);
        let name = event.name_any();
        match api.create(&PostParams::default(), &event).await {
            Ok(_) => {
                if written.len() >= REMEMBERED {
                    written.clear();
                }
                written.insert(note.identity, Written { name, count: 1 });
            }
            // Typically a namespace that is going away.
            Err(error) => {
                written.remove(&note.identity);
                tracing::debug!(%error, reason = note.identity.reason, "event not written");
            }
        }
    }
}

fn first(note: &Note, now: Time) -> Event {
    let identity = &note.identity;
    let unique = jiff::Timestamp::now().as_nanosecond() as u64;
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{}.{unique:x}", identity.name)),
            namespace: Some(identity.namespace.clone()),
            ..ObjectMeta::default()
        },
        involved_object: note.about.clone(),
        type_: Some(identity.severity.as_str().to_owned()),
        reason: Some(identity.reason.clone()),
        message: Some(identity.message.clone()),
        count: Some(1),
        first_timestamp: Some(now.clone()),
        last_timestamp: Some(now),
        source: Some(EventSource { component: Some(identity.component.to_owned()), host: identity.host.clone() }),
        reporting_component: Some(identity.component.to_owned()),
        reporting_instance: Some(identity.host.clone().unwrap_or_default()),
        ..Event::default()
    }
}
