//! The network plugin's node component, `ovnkube-node`: a pod on each node.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, ListParams};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch_objects};
use kube::{Client, ResourceExt};
use tokio::time::timeout;

use crate::error::Error;
use crate::world::KubeWorld;

/// Where upstream's and OpenShift's manifests put it.
const NAMESPACES: [&str; 2] = ["ovn-kubernetes", "openshift-ovn-kubernetes"];
const LABEL: &str = "app=ovnkube-node";
/// How long a successor may take to be Ready: it starts a handful of containers, and its images are there.
const READY_DEADLINE: Duration = Duration::from_secs(180);

/// Whether there are such pods, and they may be deleted; asked in a dry run.
pub(crate) async fn may_be_restarted(client: &Client) -> bool {
    let params = DeleteParams { dry_run: true, ..DeleteParams::default() };
    for namespace in NAMESPACES {
        let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
        let Ok(pods) = api.list(&ListParams::default().labels(LABEL)).await else { continue };
        if let Some(pod) = pods.items.first() {
            return api.delete(&pod.name_any(), &params).await.is_ok();
        }
    }
    false
}

/// Deletes the pods of the node in a slot, and waits until others are Ready there.
///
/// # Errors
/// No such node or pods, a refusal, or no successor in time.
pub(crate) async fn restart(world: &KubeWorld, slot: u8) -> Result<(), Error> {
    let node = world.node_name(slot).ok_or(Error::NoNodes)?;
    let awaited = |what: &str| format!("the pod {LABEL} on node {node} {what}");
    for namespace in NAMESPACES {
        let api: Api<Pod> = Api::namespaced(world.objects.client.clone(), namespace);
        let listed = api.list(&ListParams::default().labels(LABEL).fields(&format!("spec.nodeName={node}"))).await;
        let pods = match listed {
            Ok(pods) => pods.items,
            Err(error) => return Err(Error::api(format!("list pods {LABEL} in {namespace}"), error)),
        };
        if pods.is_empty() {
            continue;
        }
        let before: BTreeSet<String> = pods.iter().filter_map(ResourceExt::uid).collect();
        for pod in &pods {
            let name = pod.name_any();
            match api.delete(&name, &DeleteParams::default()).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(Error::api(format!("delete Pod {namespace}/{name}"), error)),
            }
        }
        return match timeout(READY_DEADLINE, successors(api, &node, &before)).await {
            Ok(()) => Ok(()),
            Err(_) => Err(Error::Deadline {
                awaited: awaited("to be succeeded by one that is Ready"),
                after: READY_DEADLINE,
                last: "none was".into(),
            }),
        };
    }
    Err(Error::Deadline { awaited: awaited("to be there"), after: Duration::ZERO, last: "there is none".into() })
}

/// Returns when as many others as there were are Ready on the node.
async fn successors(api: Api<Pod>, node: &str, before: &BTreeSet<String>) {
    let config = watcher::Config::default().labels(LABEL).fields(&format!("spec.nodeName={node}"));
    let mut events = std::pin::pin!(watch_objects(api, config).default_backoff());
    let mut ready = BTreeSet::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::InitApply(pod) | Event::Apply(pod)) => {
                let uid = pod.uid().unwrap_or_default();
                if !before.contains(&uid) && is_ready(&pod) {
                    ready.insert(uid);
                }
                if ready.len() >= before.len() {
                    return;
                }
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "watching node components"),
        }
    }
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let ready = conditions.into_iter().flatten().any(|it| it.type_ == "Ready" && it.status == "True");
    ready && pod.metadata.deletion_timestamp.is_none()
}
