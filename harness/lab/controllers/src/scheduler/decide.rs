//! Chooses a node for a pod, or says why none will do. Pure: the same world gives the same answer.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ContainerPort, Pod};
use kube::ResourceExt;

use super::quantity::{requests, thousandths};
use super::world::{NodeView, World};
use super::{affinity, spread};
use crate::owners::controller_of;
use crate::placement::{affinity_accepts, term_accepts, tolerates, untolerated};

/// The node for a pod, or the text of its `FailedScheduling` event.
pub(super) fn decide(pod: &Pod, world: &World) -> Result<String, String> {
    if world.nodes.is_empty() {
        return Err("no nodes available to schedule pods".to_owned());
    }
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    let mut feasible = Vec::new();
    for node in &world.nodes {
        match check(pod, node, world) {
            Ok(()) => feasible.push(node),
            Err(reason) => *reasons.entry(reason).or_insert(0) += 1,
        }
    }
    if feasible.is_empty() {
        let mut reasons: Vec<String> = reasons.iter().map(|(reason, nodes)| format!("{nodes} {reason}")).collect();
        reasons.sort();
        return Err(format!("0/{} nodes are available: {}.", world.nodes.len(), reasons.join(", ")));
    }
    Ok(best(pod, &feasible, world))
}

/// Why the pod cannot be on the node.
fn check(pod: &Pod, view: &NodeView, world: &World) -> Result<(), String> {
    let spec = pod.spec.clone().unwrap_or_default();
    let node = &view.node;
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    if let Some(taint) = untolerated(&view.taints, tolerations, &["NoSchedule", "NoExecute"]) {
        if taint.key == crate::placement::UNSCHEDULABLE {
            return Err("node(s) were unschedulable".to_owned());
        }
        let value = taint.value.as_deref().unwrap_or_default();
        return Err(format!("node(s) had untolerated taint {{{}: {value}}}", taint.key));
    }
    if !affinity_accepts(&spec, node) {
        return Err("node(s) didn't match Pod's node affinity/selector".to_owned());
    }
    let taken = view.pods.iter().flat_map(|other| host_ports(other));
    if taken.into_iter().any(|theirs| host_ports(pod).iter().any(|ours| clash(ours, &theirs))) {
        return Err("node(s) didn't have free ports for the requested pod ports".to_owned());
    }
    resources(pod, view)?;
    affinity::check(pod, view, world)?;
    spread::check(pod, view, world)?;
    Ok(())
}

fn host_ports(pod: &Pod) -> Vec<ContainerPort> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    ports.filter(|port| port.host_port.is_some_and(|port| port > 0)).cloned().collect()
}

fn clash(a: &ContainerPort, b: &ContainerPort) -> bool {
    let protocol = |port: &ContainerPort| port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
    let any = |ip: &Option<String>| ip.as_deref().is_none_or(|ip| matches!(ip, "" | "0.0.0.0" | "::"));
    a.host_port == b.host_port
        && protocol(a) == protocol(b)
        && (any(&a.host_ip) || any(&b.host_ip) || a.host_ip == b.host_ip)
}

/// Resources that the node does not declare are not limited.
fn resources(pod: &Pod, view: &NodeView) -> Result<(), String> {
    let Some(allocatable) = view.node.status.as_ref().and_then(|status| status.allocatable.as_ref()) else {
        return Ok(());
    };
    let room = |name: &str| allocatable.get(name).map(thousandths);
    let pods = i128::try_from(view.pods.len() + 1).unwrap_or(i128::MAX) * 1000;
    if room("pods").is_some_and(|room| room < pods) {
        return Err("Too many pods".to_owned());
    }
    for (name, wanted) in requests(pod).into_iter().filter(|(_, wanted)| *wanted > 0) {
        let used: i128 = view.pods.iter().map(|other| requests(other).get(&name).copied().unwrap_or(0)).sum();
        let standard = matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage");
        match room(&name) {
            Some(room) if used + wanted <= room => {}
            None if standard => {}
            _ => return Err(format!("Insufficient {name}")),
        }
    }
    Ok(())
}

/// The best of the possible nodes: weights as kube-scheduler's defaults, ties by fewer pods, then by name.
fn best(pod: &Pod, feasible: &[&NodeView], world: &World) -> String {
    let terms: [(i64, Vec<i64>); 6] = [
        (3, scale(feasible, |node| -soft_taints(pod, node))),
        (2, scale(feasible, |node| node_preference(pod, node))),
        (2, scale(feasible, |node| affinity::preference(pod, node, world))),
        (2, scale(feasible, |node| -spread::crowd(pod, node, world))),
        (2, scale(feasible, |node| -siblings(pod, node))),
        (1, scale(feasible, |node| -number(node.pods.len()))),
    ];
    let score = |index: usize| terms.iter().map(|(weight, scores)| weight * scores[index]).sum::<i64>();
    let order = |index: &usize| {
        let view = feasible[*index];
        (-score(*index), view.pods.len(), view.node.name_any())
    };
    (0..feasible.len()).min_by_key(order).map(|index| feasible[index].node.name_any()).unwrap_or_default()
}

/// Brings a measure of all nodes to 0..100.
fn scale(nodes: &[&NodeView], measure: impl Fn(&NodeView) -> i64) -> Vec<i64> {
    let raw: Vec<i64> = nodes.iter().map(|node| measure(node)).collect();
    let (low, high) = (raw.iter().min().copied().unwrap_or(0), raw.iter().max().copied().unwrap_or(0));
    if low == high {
        return vec![0; raw.len()];
    }
    raw.iter().map(|value| (value - low) * 100 / (high - low)).collect()
}

fn number(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn soft_taints(pod: &Pod, node: &NodeView) -> i64 {
    let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
    let soft = node.taints.iter().filter(|taint| taint.effect == "PreferNoSchedule");
    number(soft.filter(|taint| !tolerations.iter().any(|toleration| tolerates(toleration, taint))).count())
}

fn node_preference(pod: &Pod, view: &NodeView) -> i64 {
    let affinity = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref()?.node_affinity.as_ref());
    let terms = affinity.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_deref());
    let matching = terms.into_iter().flatten().filter(|term| term_accepts(&term.preference, &view.node));
    matching.map(|term| i64::from(term.weight)).sum()
}

/// Replicas of the same owner on the node.
fn siblings(pod: &Pod, node: &NodeView) -> i64 {
    let Some(owner) = controller_of(pod) else { return 0 };
    let same = |other: &Pod| controller_of(other).is_some_and(|theirs| theirs.uid == owner.uid);
    number(node.pods.iter().filter(|other| same(other)).count())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use k8s_openapi::api::core::v1::{Node, NodeCondition, PodSpec, Taint};
    use serde_json::{Value, json};

    use super::*;
    use crate::placement::taint;
    use crate::placement::tests::node;

    fn ready(mut node: Node) -> Arc<Node> {
        node.status.get_or_insert_default().conditions =
            Some(vec![NodeCondition { type_: "Ready".into(), status: "True".into(), ..NodeCondition::default() }]);
        Arc::new(node)
    }

    /// The lab's three nodes.
    fn nodes() -> Vec<Arc<Node>> {
        let control_plane: Taint = taint("node-role.kubernetes.io/control-plane", "NoSchedule");
        vec![
            ready(node("ovn-control-plane", &[], &[control_plane])),
            ready(node("ovn-worker", &[("disk", "ssd")], &[])),
            ready(node("ovn-worker2", &[], &[])),
        ]
    }

    fn pod(name: &str, app: &str, node: &str, spec: Value) -> Pod {
        let mut spec: PodSpec = serde_json::from_value(spec_with_containers(spec)).unwrap();
        spec.node_name = (!node.is_empty()).then(|| node.to_owned());
        let mut pod = crate::pods::tests::pod(name, node, "Running", None);
        pod.spec = Some(spec);
        pod.labels_mut().insert("app".into(), app.into());
        pod
    }

    fn spec_with_containers(mut spec: Value) -> Value {
        if spec.get("containers").is_none() {
            spec["containers"] = json!([]);
        }
        spec
    }

    fn world(nodes: Vec<Arc<Node>>, pods: Vec<Pod>) -> World {
        let pods: Vec<_> = pods.into_iter().map(Arc::new).collect();
        World::new(nodes, &pods, &HashMap::new(), &[])
    }

    fn choose(pod: &Pod, pods: Vec<Pod>) -> Result<String, String> {
        decide(pod, &world(nodes(), pods))
    }

    fn owned(mut pod: Pod, owner: &str) -> Pod {
        let mut set = k8s_openapi::api::apps::v1::ReplicaSet::default();
        set.metadata.uid = Some(owner.into());
        pod.metadata.owner_references = Some(vec![crate::owners::managed_by(&set)]);
        pod
    }

    #[test]
    fn replicas_of_one_owner_go_to_different_workers() {
        let new = owned(pod("b", "x", "", json!({})), "o");
        let first = owned(pod("a", "x", "ovn-worker", json!({})), "o");
        assert_eq!(choose(&new, vec![first.clone()]).as_deref(), Ok("ovn-worker2"));
        // Even if the other worker is crowded with pods of others.
        let mut others: Vec<Pod> = (0..9).map(|n| pod(&format!("c{n}"), "y", "ovn-worker2", json!({}))).collect();
        others.push(first);
        assert_eq!(choose(&new, others).as_deref(), Ok("ovn-worker2"));
    }

    #[test]
    fn the_control_plane_is_for_those_who_tolerate_it() {
        let anywhere = json!({"tolerations": [{"operator": "Exists"}]});
        let busy = vec![pod("a", "x", "ovn-worker", json!({})), pod("b", "x", "ovn-worker2", json!({}))];
        assert_eq!(choose(&pod("c", "x", "", anywhere), busy).as_deref(), Ok("ovn-control-plane"));
        let error = choose(&pod("c", "x", "", json!({"nodeSelector": {"disk": "tape"}})), vec![]).unwrap_err();
        assert_eq!(
            error,
            "0/3 nodes are available: 1 node(s) had untolerated taint {node-role.kubernetes.io/control-plane: }, \
             2 node(s) didn't match Pod's node affinity/selector."
        );
    }

    #[test]
    fn selector_and_preference_choose_the_node() {
        let selected = pod("a", "x", "", json!({"nodeSelector": {"disk": "ssd"}}));
        assert_eq!(choose(&selected, vec![pod("b", "y", "ovn-worker", json!({}))]).as_deref(), Ok("ovn-worker"));
        let preferring = pod(
            "a",
            "x",
            "",
            json!({"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 50, "preference": {"matchExpressions": [{"key": "disk", "operator": "DoesNotExist"}]}}
            ]}}}),
        );
        assert_eq!(choose(&preferring, vec![]).as_deref(), Ok("ovn-worker2"));
    }

    #[test]
    fn anti_affinity_separates_and_is_respected_in_both_directions() {
        let away = json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
            {"labelSelector": {"matchLabels": {"app": "x"}}, "topologyKey": "kubernetes.io/hostname"}
        ]}}});
        let existing = pod("a", "x", "ovn-worker", away.clone());
        assert_eq!(choose(&pod("b", "x", "", away.clone()), vec![existing.clone()]).as_deref(), Ok("ovn-worker2"));
        // The new pod says nothing, the existing one refuses it.
        let plain = pod("b", "x", "", json!({"nodeSelector": {"disk": "ssd"}}));
        assert!(choose(&plain, vec![existing.clone()]).unwrap_err().contains("existing pods anti-affinity"));
        let second = pod("c", "x", "ovn-worker2", away.clone());
        assert!(
            choose(&pod("b", "x", "", away), vec![existing, second])
                .unwrap_err()
                .contains("2 node(s) didn't match pod anti-affinity rules")
        );
    }

    #[test]
    fn affinity_joins_and_the_first_of_a_group_may_start() {
        let near = json!({"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
            {"labelSelector": {"matchLabels": {"app": "x"}}, "topologyKey": "kubernetes.io/hostname"}
        ]}}});
        let target = pod("a", "x", "ovn-worker2", json!({}));
        assert_eq!(choose(&pod("b", "y", "", near.clone()), vec![target]).as_deref(), Ok("ovn-worker2"));
        assert!(choose(&pod("b", "y", "", near.clone()), vec![]).is_err());
        assert!(choose(&pod("b", "x", "", near), vec![]).is_ok());
    }

    #[test]
    fn preferred_anti_affinity_only_prefers() {
        let away = json!({"affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 100, "podAffinityTerm": {"labelSelector": {"matchLabels": {"app": "x"}}, "topologyKey": "kubernetes.io/hostname"}}
        ]}}});
        let pods = vec![pod("a", "x", "ovn-worker", json!({})), pod("b", "y", "ovn-worker2", json!({}))];
        assert_eq!(choose(&pod("c", "x", "", away), pods).as_deref(), Ok("ovn-worker2"));
    }

    #[test]
    fn spread_constraints_bound_the_skew() {
        let spread = json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "x"}},
            "nodeTaintsPolicy": "Honor"}]});
        let pods = vec![pod("a", "x", "ovn-worker", json!({}))];
        assert_eq!(choose(&pod("b", "x", "", spread.clone()), pods.clone()).as_deref(), Ok("ovn-worker2"));
        let mut stuck = pod("b", "x", "", spread);
        stuck.spec.get_or_insert_default().node_selector = Some([("disk".to_owned(), "ssd".to_owned())].into());
        // Only one domain is left for it, which makes its own the smallest.
        assert_eq!(choose(&stuck, pods).as_deref(), Ok("ovn-worker"));
    }

    #[test]
    fn resources_ports_and_pod_count_are_limits() {
        let full = |allocatable: Value| {
            let mut node = Node::clone(&ready(node("n", &[], &[])));
            node.status.get_or_insert_default().allocatable = serde_json::from_value(allocatable).unwrap();
            vec![Arc::new(node)]
        };
        let wants = |cpu: &str| json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]});
        let there = pod("a", "x", "n", wants("600m"));
        let room = |new: Value, allocatable: Value| {
            decide(&pod("b", "x", "", new), &world(full(allocatable), vec![there.clone()]))
        };
        assert!(room(wants("400m"), json!({"cpu": "1"})).is_ok());
        assert_eq!(
            room(wants("401m"), json!({"cpu": "1"})).unwrap_err(),
            "0/1 nodes are available: 1 Insufficient cpu."
        );
        assert_eq!(room(json!({}), json!({"pods": "1"})).unwrap_err(), "0/1 nodes are available: 1 Too many pods.");
        let port = json!({"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80}]}]});
        let taken = world(full(json!({})), vec![pod("a", "x", "n", port.clone())]);
        assert!(decide(&pod("b", "x", "", port), &taken).unwrap_err().contains("free ports"));
    }

    #[test]
    fn nodes_that_are_not_ready_or_cordoned_get_nothing() {
        let mut cordoned = Node::clone(&ready(node("a", &[], &[])));
        cordoned.spec.get_or_insert_default().unschedulable = Some(true);
        let world = world(vec![Arc::new(cordoned), Arc::new(node("b", &[], &[]))], vec![]);
        let error = decide(&pod("p", "x", "", json!({})), &world).unwrap_err();
        assert_eq!(
            error,
            "0/2 nodes are available: 1 node(s) had untolerated taint {node.kubernetes.io/not-ready: }, \
             1 node(s) were unschedulable."
        );
    }

    #[test]
    fn pods_being_bound_count() {
        let new = owned(pod("b", "x", "", json!({})), "o");
        let pending = Arc::new(owned(pod("a", "x", "", json!({})), "o"));
        let assumed = HashMap::from([("uid-a".to_owned(), "ovn-worker".to_owned())]);
        assert_eq!(decide(&new, &World::new(nodes(), &[pending], &assumed, &[])).as_deref(), Ok("ovn-worker2"));
    }
}
