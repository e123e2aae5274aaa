//! Pods that want to be near to, or away from, other pods.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, PodAffinityTerm};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use kube::ResourceExt;

use super::world::{NodeView, World};
use crate::owners::selects;

/// Whether a term of `owner` means `other`.
fn means(term: &PodAffinityTerm, owner: &Pod, other: &Pod, world: &World) -> bool {
    let namespace = other.namespace().unwrap_or_default();
    let listed = term.namespaces.as_deref().unwrap_or_default();
    let right_namespace = if listed.is_empty() && term.namespace_selector.is_none() {
        owner.namespace().unwrap_or_default() == namespace
    } else {
        listed.contains(&namespace)
            || term.namespace_selector.as_ref().is_some_and(|selector| {
                selects(Some(selector), world.namespaces.get(&namespace).unwrap_or(&BTreeMap::new()))
            })
    };
    right_namespace && selects(with_own_labels(term, owner).as_ref(), other.labels())
}

/// The term's selector, narrowed to the owner's own values of `matchLabelKeys`.
fn with_own_labels(term: &PodAffinityTerm, owner: &Pod) -> Option<LabelSelector> {
    let mut selector = term.label_selector.clone()?;
    let keys = |keys: &Option<Vec<String>>, operator: &str| {
        let labels = owner.labels();
        keys.iter()
            .flatten()
            .filter_map(|key| Some((key, labels.get(key)?)))
            .map(|(key, value)| LabelSelectorRequirement {
                key: key.clone(),
                operator: operator.to_owned(),
                values: Some(vec![value.clone()]),
            })
            .collect::<Vec<_>>()
    };
    let expressions = selector.match_expressions.get_or_insert_default();
    expressions.extend(keys(&term.match_label_keys, "In"));
    expressions.extend(keys(&term.mismatch_label_keys, "NotIn"));
    Some(selector)
}

fn required(pod: &Pod) -> &[PodAffinityTerm] {
    let affinity = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref()?.pod_affinity.as_ref());
    affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_deref()).unwrap_or_default()
}

fn required_away(pod: &Pod) -> &[PodAffinityTerm] {
    let affinity = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref()?.pod_anti_affinity.as_ref());
    affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_deref()).unwrap_or_default()
}

/// Whether two nodes are in the same domain of a topology key.
fn together(key: &str, a: &NodeView, b: &NodeView) -> bool {
    let value = a.node.labels().get(key);
    value.is_some() && value == b.node.labels().get(key)
}

/// Why the pod cannot be on the node because of other pods.
pub(super) fn check(pod: &Pod, node: &NodeView, world: &World) -> Result<(), &'static str> {
    let near = required(pod);
    if !near.is_empty() {
        let companion = |other: &Pod| near.iter().all(|term| means(term, pod, other, world));
        let fits = near.iter().all(|term| {
            world.nodes.iter().any(|place| {
                together(&term.topology_key, place, node) && place.pods.iter().any(|other| companion(other))
            })
        });
        // The first of a group that wants to be together may start anywhere.
        let labelled = near.iter().all(|term| node.node.labels().contains_key(&term.topology_key));
        let first = || companion(pod) && !world.nodes.iter().any(|n| n.pods.iter().any(|other| companion(other)));
        if !(fits || labelled && first()) {
            return Err("node(s) didn't match pod affinity rules");
        }
    }
    for term in required_away(pod) {
        let taken = world.nodes.iter().any(|place| {
            together(&term.topology_key, place, node) && place.pods.iter().any(|other| means(term, pod, other, world))
        });
        if taken {
            return Err("node(s) didn't match pod anti-affinity rules");
        }
    }
    for place in &world.nodes {
        let refused = place.pods.iter().any(|other| {
            required_away(other)
                .iter()
                .any(|term| together(&term.topology_key, place, node) && means(term, other, pod, world))
        });
        if refused {
            return Err("node(s) didn't satisfy existing pods anti-affinity rules");
        }
    }
    Ok(())
}

/// Sum of the weights of the preferences that the node fulfils, less those it violates.
pub(super) fn preference(pod: &Pod, node: &NodeView, world: &World) -> i64 {
    let Some(affinity) = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref()) else { return 0 };
    let near = affinity.pod_affinity.as_ref();
    let away = affinity.pod_anti_affinity.as_ref();
    let near = near.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_deref()).unwrap_or_default();
    let away = away.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_deref()).unwrap_or_default();
    let count = |term: &PodAffinityTerm| -> i64 {
        let places = world.nodes.iter().filter(|place| together(&term.topology_key, place, node));
        let matching = places.map(|place| place.pods.iter().filter(|other| means(term, pod, other, world)).count());
        i64::try_from(matching.sum::<usize>()).unwrap_or(i64::MAX)
    };
    near.iter().map(|term| i64::from(term.weight) * count(&term.pod_affinity_term)).sum::<i64>()
        - away.iter().map(|term| i64::from(term.weight) * count(&term.pod_affinity_term)).sum::<i64>()
}
