//! Node lifecycle: a node whose lease is stale is not ready, gets taints, and its pods are not ready either; pods of a
//! node that is gone are deleted. Pods are not evicted from a node that only went silent.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod, PodCondition, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use kube::api::DeleteParams;
use tokio::time::Instant;

use crate::Error;
use crate::cache::{Change, Key};
use crate::events::{Recorder, Severity};
use crate::objects::Objects;
use crate::owners::wake_self;
use crate::placement::{UNSCHEDULABLE, taint};
use crate::pods;
use crate::queue::{Queue, drive};

/// Namespace of the nodes' leases.
pub(crate) const LEASES: &str = "kube-node-lease";
const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// Taints that this controller writes and removes.
const OURS: [(&str, &str); 5] = [
    (NOT_READY, "NoSchedule"),
    (NOT_READY, "NoExecute"),
    (UNREACHABLE, "NoSchedule"),
    (UNREACHABLE, "NoExecute"),
    (UNSCHEDULABLE, "NoSchedule"),
];

#[derive(Clone)]
pub(crate) struct Nodes {
    pub(crate) nodes: Objects<Node>,
    pub(crate) leases: Objects<Lease>,
    pub(crate) pods: Objects<Pod>,
    pub(crate) events: Recorder,
    /// A lease not renewed for so long is stale.
    pub(crate) grace: Duration,
    /// When each node was last heard, by our own clock: the nodes' clocks may differ.
    pub(crate) heard: Arc<Mutex<HashMap<String, Instant>>>,
}

impl Nodes {
    pub(crate) async fn run(self) {
        let queue = Queue::new();
        wake_self(&self.nodes, &queue);
        let (heard, wake) = (Arc::clone(&self.heard), queue.clone());
        self.leases.cache.on_change(move |change| {
            let name = change.object().name_any();
            if let Change::Set { old, new } = change
                && old.is_none_or(|old| renewed(old) != renewed(new))
            {
                let before = heard.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), Instant::now());
                // Known nodes have a timer; a renewal only matters to one that was silent.
                if before.is_none_or(|before| before.elapsed() > Duration::from_secs(15)) {
                    wake.add(Key::new("", &name));
                }
            }
        });
        // A kubelet that writes its status is as alive as one that renews its lease.
        let heard = Arc::clone(&self.heard);
        self.nodes.cache.on_change(move |change| {
            if let Change::Set { old: Some(old), new } = change
                && heartbeat(old) != heartbeat(new)
            {
                heard.lock().unwrap_or_else(PoisonError::into_inner).insert(new.name_any(), Instant::now());
            }
        });
        let (wake, nodes) = (queue.clone(), self.nodes.clone());
        self.pods.cache.on_change(move |change| {
            let node = pods::node_name(change.object());
            let key = Key::new("", node);
            if matches!(change, Change::Set { .. }) && !node.is_empty() && nodes.get(&key).is_none() {
                wake.add(key);
            }
        });
        self.nodes.cache.synced().await;
        self.leases.cache.synced().await;
        self.pods.cache.synced().await;
        drive("node", queue, 2, move |key| self.clone().reconcile(key)).await;
    }

    async fn reconcile(self, key: Key) -> Result<Option<Duration>, Error> {
        let Some(node) = self.nodes.get(&key) else { return self.collect(&key).await };
        let silent = self.silence(&node);
        let mut node = node;
        if silent >= self.grace && ready(&node).is_none_or(|ready| ready.status != "Unknown") {
            node = self.lose(&node).await?;
        }
        let wanted = wanted_taints(&node, Timestamp::now());
        let present = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
        if present != wanted {
            let mut changed = Node::clone(&node);
            changed.spec.get_or_insert_default().taints = (!wanted.is_empty()).then_some(wanted);
            self.nodes.update(node.as_ref(), &changed).await?;
        }
        if ready(&node).is_some_and(|ready| ready.status != "True") {
            self.mark_pods(&node).await?;
        }
        Ok((silent < self.grace).then(|| self.grace - silent))
    }

    /// How long nothing was heard from a node. A node without a lease is as old as we know it.
    fn silence(&self, node: &Node) -> Duration {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.entry(node.name_any()).or_insert_with(Instant::now).elapsed()
    }

    /// Everything that the node said of itself is unknown now.
    async fn lose(&self, node: &Arc<Node>) -> Result<Arc<Node>, Error> {
        let now = Time(Timestamp::now());
        let mut status = node.status.clone().unwrap_or_default();
        let conditions = status.conditions.get_or_insert_default();
        if !conditions.iter().any(|condition| condition.type_ == "Ready") {
            conditions.push(NodeCondition { type_: "Ready".to_owned(), ..NodeCondition::default() });
        }
        for condition in conditions.iter_mut().filter(|condition| condition.status != "Unknown") {
            condition.status = "Unknown".to_owned();
            condition.reason = Some("NodeStatusUnknown".to_owned());
            condition.message = Some("Kubelet stopped posting node status.".to_owned());
            condition.last_transition_time = Some(now.clone());
        }
        let name = node.name_any();
        let message = format!("Node {name} status is now: NodeNotReady");
        self.events.record(node.as_ref(), Severity::Normal, "NodeNotReady", &message);
        let changed = self.nodes.update_status(node.as_ref(), node.status.as_ref(), &status).await?;
        Ok(changed.unwrap_or_else(|| Arc::clone(node)))
    }

    /// Pods of a node that is not ready are not ready.
    async fn mark_pods(&self, node: &Node) -> Result<(), Error> {
        let name = node.name_any();
        for pod in self.pods.cache.all().iter().filter(|pod| pods::node_name(pod) == name && pods::is_ready(pod)) {
            let mut status = pod.status.clone().unwrap_or_default();
            for condition in status.conditions.iter_mut().flatten().filter(|condition| condition.type_ == "Ready") {
                *condition = PodCondition {
                    status: "False".to_owned(),
                    reason: Some("NodeNotReady".to_owned()),
                    last_transition_time: Some(Time(Timestamp::now())),
                    ..condition.clone()
                };
            }
            match self.pods.update_status(pod.as_ref(), pod.status.as_ref(), &status).await {
                Err(error) if error.is_not_found() => {}
                other => drop(other?),
            }
            self.events.record(pod.as_ref(), Severity::Warning, "NodeNotReady", "Node is not ready");
        }
        Ok(())
    }

    /// Deletes the pods of a node that does not exist, since nobody else will.
    async fn collect(&self, key: &Key) -> Result<Option<Duration>, Error> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).remove(&key.name);
        let orphans: Vec<_> =
            self.pods.cache.all().into_iter().filter(|pod| pods::node_name(pod) == key.name).collect();
        if orphans.is_empty() || self.nodes.fetch(key).await?.is_some() {
            return Ok(None);
        }
        for pod in orphans {
            self.pods.delete(pod.as_ref(), DeleteParams::default().grace_period(0)).await?;
        }
        Ok(None)
    }
}

fn renewed(lease: &Lease) -> Option<Timestamp> {
    lease.spec.as_ref()?.renew_time.as_ref().map(|time| time.0)
}

fn heartbeat(node: &Node) -> Option<Time> {
    ready(node)?.last_heartbeat_time.clone()
}

fn ready(node: &Node) -> Option<&NodeCondition> {
    node.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == "Ready")
}

/// The taints that a node is to have: others' as they are, ours by its condition and whether it is cordoned.
fn wanted_taints(node: &Node, now: Timestamp) -> Vec<Taint> {
    let present = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let is_ours = |taint: &&Taint| OURS.contains(&(taint.key.as_str(), taint.effect.as_str()));
    let mut wanted: Vec<Taint> = present.iter().filter(|taint| !is_ours(taint)).cloned().collect();
    let silent = match ready(node).map(|ready| ready.status.as_str()) {
        Some("True") => None,
        Some("Unknown") => Some(UNREACHABLE),
        _ => Some(NOT_READY),
    };
    let cordoned = node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true);
    let ours = silent
        .into_iter()
        .flat_map(|key| [(key, "NoSchedule"), (key, "NoExecute")])
        .chain(cordoned.then_some((UNSCHEDULABLE, "NoSchedule")));
    for (key, effect) in ours {
        let old = present.iter().find(|taint| taint.key == key && taint.effect == effect).cloned();
        wanted.push(old.unwrap_or_else(|| Taint { time_added: Some(Time(now)), ..taint(key, effect) }));
    }
    // Keep the order of what was there, so that nothing is written when nothing changed.
    wanted.sort_by_key(|taint| {
        let position = present.iter().position(|old| old.key == taint.key && old.effect == taint.effect);
        position.unwrap_or(usize::MAX)
    });
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(ready: Option<&str>, taints: &[Taint]) -> Node {
        let mut node = crate::placement::tests::node("n", &[], taints);
        node.status.get_or_insert_default().conditions = Some(
            ready
                .map(|status| NodeCondition {
                    type_: "Ready".into(),
                    status: status.into(),
                    ..NodeCondition::default()
                })
                .into_iter()
                .collect(),
        );
        node
    }

    fn keys(node: &Node) -> Vec<String> {
        wanted_taints(node, Timestamp::now()).iter().map(|taint| format!("{}:{}", taint.key, taint.effect)).collect()
    }

    #[test]
    fn taints_follow_the_condition_and_leave_others_alone() {
        let control_plane = taint("node-role.kubernetes.io/control-plane", "NoSchedule");
        let stale = [control_plane.clone(), taint(UNREACHABLE, "NoSchedule"), taint(UNREACHABLE, "NoExecute")];
        assert_eq!(keys(&node(Some("True"), &stale)), ["node-role.kubernetes.io/control-plane:NoSchedule"]);
        assert_eq!(wanted_taints(&node(Some("Unknown"), &stale), Timestamp::now()), stale);
        assert_eq!(
            keys(&node(Some("False"), &[])),
            [format!("{NOT_READY}:NoSchedule"), format!("{NOT_READY}:NoExecute")]
        );
        let mut cordoned = node(Some("True"), &[]);
        cordoned.spec.get_or_insert_default().unschedulable = Some(true);
        assert_eq!(keys(&cordoned), [format!("{UNSCHEDULABLE}:NoSchedule")]);
    }
}
