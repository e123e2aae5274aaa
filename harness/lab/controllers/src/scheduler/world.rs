//! What the scheduler sees: the nodes and the pods on them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Taint};
use kube::ResourceExt;

use crate::placement::{taint, taints};
use crate::pods;

/// A node and its pods.
pub(super) struct NodeView {
    pub(super) node: Arc<Node>,
    pub(super) taints: Vec<Taint>,
    /// Bound or about to be bound, not finished.
    pub(super) pods: Vec<Arc<Pod>>,
}

/// All nodes, and the labels of the namespaces.
pub(super) struct World {
    pub(super) nodes: Vec<NodeView>,
    pub(super) namespaces: HashMap<String, BTreeMap<String, String>>,
}

impl World {
    /// `assumed` maps the uids of pods being bound to their nodes.
    pub(super) fn new(
        nodes: Vec<Arc<Node>>,
        all: &[Arc<Pod>],
        assumed: &HashMap<String, String>,
        namespaces: &[Arc<Namespace>],
    ) -> Self {
        let mut by_node: HashMap<&str, Vec<Arc<Pod>>> = HashMap::new();
        for pod in all.iter().filter(|pod| !pods::is_finished(pod)) {
            let bound = pods::node_name(pod);
            let node = if bound.is_empty() {
                pod.metadata.uid.as_ref().and_then(|uid| assumed.get(uid)).map_or("", String::as_str)
            } else {
                bound
            };
            if !node.is_empty() {
                by_node.entry(node).or_default().push(Arc::clone(pod));
            }
        }
        let nodes = nodes
            .into_iter()
            .map(|node| NodeView {
                pods: by_node.remove(node.name_any().as_str()).unwrap_or_default(),
                taints: all_taints(&node),
                node,
            })
            .collect();
        let namespaces = namespaces.iter().map(|ns| (ns.name_any(), ns.labels().clone())).collect();
        Self { nodes, namespaces }
    }
}

/// The node's taints, and the one that a node gets while it is not ready, in case nobody wrote it yet.
fn all_taints(node: &Node) -> Vec<Taint> {
    let mut taints = taints(node);
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let unready = conditions.iter().find(|condition| condition.type_ == "Ready").map(|ready| ready.status.as_str());
    let key = match unready {
        Some("True") => return taints,
        Some("Unknown") => "node.kubernetes.io/unreachable",
        _ => "node.kubernetes.io/not-ready",
    };
    if !taints.iter().any(|taint| taint.key == key && taint.effect == "NoSchedule") {
        taints.push(taint(key, "NoSchedule"));
    }
    taints
}
