//! Topology spread constraints: as many pods in every domain, give or take the skew.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, TopologySpreadConstraint};
use kube::ResourceExt;

use super::world::{NodeView, World};
use crate::owners::selects;
use crate::placement::{affinity_accepts, untolerated};
use crate::pods::is_terminating;

fn constraints<'a>(pod: &'a Pod, mode: &'a str) -> impl Iterator<Item = &'a TopologySpreadConstraint> {
    let all = pod.spec.as_ref().and_then(|spec| spec.topology_spread_constraints.as_deref()).unwrap_or_default();
    all.iter().filter(move |constraint| constraint.when_unsatisfiable == mode)
}

/// Whether a constraint counts `other`.
fn counts(constraint: &TopologySpreadConstraint, pod: &Pod, other: &Pod) -> bool {
    other.namespace() == pod.namespace()
        && selects(constraint.label_selector.as_ref(), other.labels())
        && constraint
            .match_label_keys
            .iter()
            .flatten()
            .all(|key| pod.labels().get(key).is_none_or(|value| other.labels().get(key) == Some(value)))
}

/// Pods per domain, among the nodes that the pod could use.
fn domains<'a>(constraint: &TopologySpreadConstraint, pod: &Pod, world: &'a World) -> BTreeMap<&'a str, i32> {
    let spec = pod.spec.clone().unwrap_or_default();
    let mut domains = BTreeMap::new();
    for view in &world.nodes {
        let Some(domain) = view.node.labels().get(&constraint.topology_key) else { continue };
        let suits = constraint.node_affinity_policy.as_deref() == Some("Ignore") || affinity_accepts(&spec, &view.node);
        let tolerations = spec.tolerations.as_deref().unwrap_or_default();
        let clean = constraint.node_taints_policy.as_deref() != Some("Honor")
            || untolerated(&view.taints, tolerations, &["NoSchedule", "NoExecute"]).is_none();
        if suits && clean {
            let matching = view.pods.iter().filter(|other| !is_terminating(other) && counts(constraint, pod, other));
            *domains.entry(domain.as_str()).or_insert(0) += crate::pods::count(matching.count());
        }
    }
    domains
}

/// Why a required constraint refuses the node.
pub(super) fn check(pod: &Pod, node: &NodeView, world: &World) -> Result<(), &'static str> {
    for constraint in constraints(pod, "DoNotSchedule") {
        let Some(domain) = node.node.labels().get(&constraint.topology_key) else {
            return Err("node(s) didn't match pod topology spread constraints (missing required label)");
        };
        let domains = domains(constraint, pod, world);
        let few = constraint.min_domains.is_some_and(|least| crate::pods::count(domains.len()) < least);
        let fewest = if few { 0 } else { domains.values().min().copied().unwrap_or(0) };
        let here = domains.get(domain.as_str()).copied().unwrap_or(0) + i32::from(counts(constraint, pod, pod));
        if here - fewest > constraint.max_skew {
            return Err("node(s) didn't match pod topology spread constraints");
        }
    }
    Ok(())
}

/// How many pods the preferred constraints count in the node's domains: fewer is better.
pub(super) fn crowd(pod: &Pod, node: &NodeView, world: &World) -> i64 {
    constraints(pod, "ScheduleAnyway")
        .map(|constraint| {
            let domains = domains(constraint, pod, world);
            let domain = node.node.labels().get(&constraint.topology_key);
            // A node outside of all domains is as bad as the most crowded one.
            let here = domain.and_then(|domain| domains.get(domain.as_str())).or_else(|| domains.values().max());
            i64::from(here.copied().unwrap_or(0))
        })
        .sum()
}
