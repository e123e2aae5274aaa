//! What controllers ask about pods, and pods made from templates.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::ObjectMeta;

/// The pod's phase; a new pod is `Pending`.
pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending")
}

pub(crate) fn is_finished(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

pub(crate) fn is_terminating(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Neither finished nor being deleted: counts as a replica.
pub(crate) fn is_active(pod: &Pod) -> bool {
    !is_finished(pod) && !is_terminating(pod)
}

pub(crate) fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == kind)
}

pub(crate) fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|ready| ready.status == "True")
}

/// Ready, and since at least `min_ready_seconds`; `Err` says how long it still takes (`None`: it is not ready).
pub(crate) fn is_available(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> Result<(), Option<Duration>> {
    let ready = condition(pod, "Ready").filter(|ready| ready.status == "True").ok_or(None)?;
    if min_ready_seconds <= 0 {
        return Ok(());
    }
    let since = ready.last_transition_time.as_ref().ok_or(None)?.0;
    let elapsed = now.as_millisecond() - since.as_millisecond();
    let left = i64::from(min_ready_seconds) * 1000 - elapsed;
    if left <= 0 { Ok(()) } else { Err(Some(Duration::from_millis(left.unsigned_abs()))) }
}

/// How many of some pods are available, and when to look again for those that will become so by waiting.
pub(crate) fn count_available<'a>(
    pods: impl IntoIterator<Item = &'a Pod>,
    min_ready_seconds: i32,
    now: Timestamp,
) -> (i32, Option<Duration>) {
    let mut available = 0;
    let mut again: Option<Duration> = None;
    for pod in pods {
        match is_available(pod, min_ready_seconds, now) {
            Ok(()) => available += 1,
            Err(Some(left)) => again = Some(again.map_or(left, |soonest| soonest.min(left))),
            Err(None) => {}
        }
    }
    (available, again)
}

/// The earlier of two times to look again.
pub(crate) fn sooner(a: Option<Duration>, b: Option<Duration>) -> Option<Duration> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// Number of objects as the API counts them.
pub(crate) fn count(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

/// Orders pods by who is to be deleted first, as the replica set controller does: unassigned, pending, not ready, on
/// crowded nodes, ready for a shorter time, restarted more often, younger.
pub(crate) fn in_order_of_deletion(pods: &mut [Arc<Pod>]) {
    let mut crowd = std::collections::HashMap::new();
    for pod in pods.iter() {
        *crowd.entry(node_name(pod).to_owned()).or_insert(0_i32) += 1;
    }
    pods.sort_by_cached_key(|pod| {
        let running = match phase(pod) {
            "Pending" => 0,
            "Unknown" => 1,
            _ => 2,
        };
        let ready_since = condition(pod, "Ready").and_then(|ready| ready.last_transition_time.clone());
        let restarts = pod
            .status
            .as_ref()
            .and_then(|status| status.container_statuses.as_ref())
            .map_or(0, |statuses| statuses.iter().map(|status| status.restart_count).max().unwrap_or(0));
        (
            !node_name(pod).is_empty(),
            running,
            is_ready(pod),
            Reverse(crowd.get(node_name(pod)).copied().unwrap_or(0)),
            Reverse(ready_since),
            Reverse(restarts),
            Reverse(pod.metadata.creation_timestamp.clone()),
            pod.metadata.name.clone(),
        )
    });
}

/// The node a pod is bound to, or an empty string.
pub(crate) fn node_name(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
}

/// A pod made from a template; the caller names it.
pub(crate) fn from_template(template: &PodTemplateSpec, namespace: &str, owner: OwnerReference) -> Pod {
    let meta = template.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            namespace: Some(namespace.to_owned()),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// The prefix of generated pod names: the owner's name, shortened so that name and suffix fit into a host name.
pub(crate) fn generate_name(owner: &str) -> String {
    // 63 characters of a DNS label, less five random ones and the dash.
    let mut prefix: String = owner.chars().take(57).collect();
    prefix.push('-');
    prefix
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{PodSpec, PodStatus};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    /// A pod for tests: on a node (or unassigned), with a phase, ready since some seconds ago or not.
    pub(crate) fn pod(name: &str, node: &str, phase: &str, ready_for: Option<i64>) -> Pod {
        let now = Timestamp::now();
        let ready = ready_for.map(|seconds| PodCondition {
            type_: "Ready".into(),
            status: "True".into(),
            last_transition_time: Some(Time(Timestamp::from_second(now.as_second() - seconds).unwrap())),
            ..PodCondition::default()
        });
        Pod {
            metadata: ObjectMeta {
                name: Some(name.into()),
                namespace: Some("a".into()),
                uid: Some(format!("uid-{name}")),
                ..ObjectMeta::default()
            },
            spec: Some(PodSpec { node_name: (!node.is_empty()).then(|| node.into()), ..PodSpec::default() }),
            status: Some(PodStatus {
                phase: Some(phase.into()),
                conditions: Some(ready.into_iter().collect()),
                ..PodStatus::default()
            }),
        }
    }

    #[test]
    fn available_after_min_ready_seconds() {
        let now = Timestamp::now();
        assert_eq!(is_available(&pod("p", "n", "Running", Some(3)), 0, now), Ok(()));
        assert_eq!(is_available(&pod("p", "n", "Running", Some(30)), 10, now), Ok(()));
        let left = is_available(&pod("p", "n", "Running", Some(3)), 10, now).unwrap_err().unwrap();
        assert!((6..=7).contains(&left.as_secs()), "{left:?}");
        assert_eq!(is_available(&pod("p", "n", "Running", None), 10, now), Err(None));
    }

    #[test]
    fn the_least_useful_pod_is_deleted_first() {
        let mut pods: Vec<Arc<Pod>> = [
            pod("old-ready", "n1", "Running", Some(100)),
            pod("young-ready", "n2", "Running", Some(1)),
            pod("not-ready", "n3", "Running", None),
            pod("pending", "n4", "Pending", None),
            pod("unassigned", "", "Pending", None),
        ]
        .map(Arc::new)
        .to_vec();
        in_order_of_deletion(&mut pods);
        let names: Vec<_> = pods.iter().filter_map(|pod| pod.metadata.name.as_deref()).collect();
        assert_eq!(names, ["unassigned", "pending", "not-ready", "young-ready", "old-ready"]);
    }

    #[test]
    fn the_crowded_node_loses_a_pod_first() {
        let mut pods: Vec<Arc<Pod>> = [
            pod("alone", "n1", "Running", Some(10)),
            pod("together-1", "n2", "Running", Some(10)),
            pod("together-2", "n2", "Running", Some(10)),
        ]
        .map(Arc::new)
        .to_vec();
        in_order_of_deletion(&mut pods);
        assert_eq!(pods[2].metadata.name.as_deref(), Some("alone"));
    }
}
