//! The node component, `ovnkube-node`: one pod a node. What it stands for, ovn-controller and the node's part of the network,
//! runs while the pod does: whoever deletes the pod restarts it, as with OVN-Kubernetes.

use std::collections::HashMap;
use std::sync::Arc;

use futures::{StreamExt, pin_mut};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::wait::Condition;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio::sync::mpsc::UnboundedSender;
use udn_lab_network::Network;
use udn_lab_sys::ground::Ground;
use udn_lab_sys::site::OVN_NAMESPACE;

use super::objects::{create_json, until};
use crate::error::Error;

const NAME: &str = "ovnkube-node";

/// Creates the daemon set.
pub(super) async fn create(client: &Client) -> Result<(), Error> {
    let labels = json!({"app": NAME, "component": "network"});
    let set = json!({
        "metadata": {"name": NAME, "labels": labels},
        "spec": {
            "selector": {"matchLabels": {"app": NAME}},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "hostNetwork": true, "tolerations": [{"operator": "Exists"}], "enableServiceLinks": false,
                    "terminationGracePeriodSeconds": 0,
                    "containers": [{"name": "ovn-controller", "image": "udn-conformance.local/ovn"}],
                },
            },
        },
    });
    create_json::<DaemonSet>(client, OVN_NAMESPACE, set).await
}

/// Waits until there is one on each of so many nodes.
pub(super) async fn ready(client: &Client, nodes: usize) -> Result<(), Error> {
    let sets = Api::<DaemonSet>::namespaced(client.clone(), OVN_NAMESPACE);
    until(&sets, NAME, on_all(nodes), format!("daemon set {OVN_NAMESPACE}/{NAME} to be ready on {nodes} nodes")).await
}

fn on_all(nodes: usize) -> impl Condition<DaemonSet> {
    move |set: Option<&DaemonSet>| {
        let ready = set.and_then(|set| set.status.as_ref()).map(|status| status.number_ready);
        ready.and_then(|ready| usize::try_from(ready).ok()).is_some_and(|ready| ready >= nodes)
    }
}

/// Follows the pods for ever. Problems go to `report`.
pub(super) async fn follow(client: Client, ground: Arc<Ground>, network: Network, report: UnboundedSender<String>) {
    let pods = Api::<Pod>::namespaced(client, OVN_NAMESPACE);
    let events = watcher::watcher(pods, watcher::Config::default().labels(&format!("app={NAME}")));
    let mut component = Component { ground, network, report, lives: HashMap::new() };
    pin_mut!(events);
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::InitApply(pod) | Event::Apply(pod)) => component.seen(&pod).await,
            Ok(Event::Delete(pod)) => component.ended(&pod).await,
            Ok(Event::Init | Event::InitDone) => {}
            Err(error) => tracing::debug!(%error, "the watch of node components was interrupted"),
        }
    }
}

struct Component {
    ground: Arc<Ground>,
    network: Network,
    report: UnboundedSender<String>,
    /// Which life of the pod's container the component of a node lives with: the pod's uid and the container's start.
    lives: HashMap<String, Life>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Life {
    pod: String,
    container: String,
}

impl Component {
    /// The pod as last told: its container runs, or does not.
    async fn seen(&mut self, pod: &Pod) {
        let Some(node) = node_of(pod) else { return };
        match life(pod) {
            Some(life) if self.lives.get(&node) == Some(&life) => {}
            Some(life) => {
                // The first that is seen is the one that the lab came up with; another is a successor, of whose
                // predecessor's end nobody told.
                if self.lives.insert(node.clone(), life).is_some() {
                    self.stop(&node).await;
                }
                self.start(&node);
            }
            None => self.ended(pod).await,
        }
    }

    async fn ended(&mut self, pod: &Pod) {
        let Some(node) = node_of(pod) else { return };
        let uid = pod.uid().unwrap_or_default();
        if self.lives.get(&node).is_some_and(|life| life.pod == uid) {
            self.lives.remove(&node);
            self.stop(&node).await;
        }
    }

    async fn stop(&self, node: &str) {
        tracing::info!(node, "the node component ends");
        self.network.stop_node(node);
        let result = self.ground.stop_controller(node).await;
        self.tell(result);
    }

    fn start(&self, node: &str) {
        tracing::info!(node, "the node component starts");
        let result = self.ground.start_controller(node);
        self.tell(result);
        self.network.start_node(node);
    }

    fn tell(&self, result: Result<(), udn_lab_sys::error::Error>) {
        if let Err(error) = result {
            // Nobody listens once the lab ends.
            let _ = self.report.send(error.to_string());
        }
    }
}

fn node_of(pod: &Pod) -> Option<String> {
    pod.spec.as_ref()?.node_name.clone()
}

/// The life of a pod's container; `None` while it does not run, or is to end.
fn life(pod: &Pod) -> Option<Life> {
    if pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    let status = statuses.first()?;
    status.state.as_ref()?.running.as_ref()?;
    Some(Life { pod: pod.uid()?, container: status.container_id.clone().unwrap_or_default() })
}
