//! Virtual machines and the pods that run them: which of them is the one that the network leads to. Pure.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use super::pods::takes_part;

/// Label of pods that run a virtual machine, and its value.
const LAUNCHER: (&str, &str) = ("kubevirt.io", "virt-launcher");
/// The virtual machine's name; KubeVirt has it as annotation (never cut off), and as label.
const DOMAIN: &str = "kubevirt.io/domain";
/// Label: the same name.
const VM_NAME: &str = "vm.kubevirt.io/name";
/// Label of a live migration's target: which migration it is for.
const MIGRATION_JOB: &str = "kubevirt.io/migrationJobUID";
/// Annotation of a live migration's target, written as soon as the guest runs there.
const TARGET_READY: &str = "kubevirt.io/migration-target-ready-timestamp";

/// What a pod's port is to its virtual machine.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Standing {
    /// Its guest runs here, as do pods that are no virtual machine's.
    #[default]
    Active,
    /// A migration's target before the guest runs there: the port is disabled.
    Waiting,
    /// A migration's source after that: the port is disabled and has no addresses.
    Left,
}

/// The name of the virtual machine that a pod runs.
pub(crate) fn vm_of(pod: &Pod) -> Option<String> {
    if pod.labels().get(LAUNCHER.0).map(String::as_str) != Some(LAUNCHER.1) {
        return None;
    }
    let name = pod.annotations().get(DOMAIN).or_else(|| pod.labels().get(VM_NAME)).or_else(|| pod.labels().get(DOMAIN));
    name.filter(|name| !name.is_empty()).cloned()
}

/// Whether the guest has come to run in a migration's target.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    pod.annotations().get(TARGET_READY).is_some_and(|time| !time.is_empty())
}

/// The standing of each of the pods of one virtual machine, those that have ended left out. `decision` tells the order of
/// pods that were created within one second.
///
/// The youngest pod whose guest has come to run there is the one; if there is none, no migration has got that far, and it is
/// the eldest. So a target that fails before leaves everything as it was, and one that fails afterwards gives it back.
pub(crate) fn standings<'a>(
    pods: &'a [std::sync::Arc<Pod>],
    decision: impl Fn(&Pod) -> u64,
) -> Vec<(&'a Pod, Standing)> {
    let mut living: Vec<&Pod> = pods.iter().map(AsRef::as_ref).filter(|pod| takes_part(pod)).collect();
    living.sort_by_key(|pod| {
        let created = pod.creation_timestamp().map(|time| time.0);
        (created, pod.labels().contains_key(MIGRATION_JOB), decision(pod), pod.name_any())
    });
    let active = living.iter().rposition(|pod| is_ready(pod)).unwrap_or(0);
    let standing = |position: usize| match position.cmp(&active) {
        std::cmp::Ordering::Less => Standing::Left,
        std::cmp::Ordering::Equal => Standing::Active,
        std::cmp::Ordering::Greater => Standing::Waiting,
    };
    living.into_iter().enumerate().map(|(position, pod)| (pod, standing(position))).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    fn pod(name: &str, second: u32, ready: bool, phase: &str) -> Arc<Pod> {
        let annotations = if ready { json!({TARGET_READY: "2026-01-01T00:00:00Z"}) } else { json!({}) };
        let pod = json!({
            "metadata": {"name": name, "namespace": "red", "creationTimestamp": format!("2026-01-01T00:00:{second:02}Z"),
                "labels": {"kubevirt.io": "virt-launcher", "vm.kubevirt.io/name": "db"}, "annotations": annotations},
            "spec": {"nodeName": "n", "containers": []}, "status": {"phase": phase},
        });
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn told(pods: &[Arc<Pod>]) -> Vec<(String, Standing)> {
        standings(pods, |_| 0).into_iter().map(|(pod, standing)| (pod.name_any(), standing)).collect()
    }

    fn expect(pods: &[Arc<Pod>], wanted: &[(&str, Standing)]) {
        let wanted: Vec<(String, Standing)> = wanted.iter().map(|(name, it)| ((*name).to_owned(), *it)).collect();
        assert_eq!(told(pods), wanted);
    }

    #[test]
    fn names_come_from_the_annotation_before_the_labels() {
        let mut one = Pod::clone(&pod("a", 0, false, "Running"));
        assert_eq!(vm_of(&one).as_deref(), Some("db"));
        one.annotations_mut().insert(DOMAIN.into(), "a-very-long-name".into());
        assert_eq!(vm_of(&one).as_deref(), Some("a-very-long-name"));
        one.labels_mut().remove("kubevirt.io");
        assert_eq!(vm_of(&one), None);
    }

    #[test]
    fn the_target_waits_until_the_guest_runs_there() {
        use Standing::{Active, Left, Waiting};
        let source = pod("source", 1, false, "Running");
        expect(&[source.clone()], &[("source", Active)]);
        expect(&[pod("target", 2, false, "Pending"), source.clone()], &[("source", Active), ("target", Waiting)]);
        expect(&[pod("target", 2, true, "Running"), source], &[("source", Left), ("target", Active)]);
    }

    #[test]
    fn failed_targets_change_nothing_and_give_back() {
        use Standing::{Active, Waiting};
        let source = pod("source", 1, false, "Running");
        for ready in [false, true] {
            expect(&[source.clone(), pod("failed", 2, ready, "Failed")], &[("source", Active)]);
        }
        let again = [source, pod("failing", 2, false, "Running"), pod("next", 3, false, "Pending")];
        expect(&again, &[("source", Active), ("failing", Waiting), ("next", Waiting)]);
    }

    #[test]
    fn migrations_follow_each_other() {
        use Standing::{Active, Left, Waiting};
        let pods =
            [pod("first", 1, false, "Running"), pod("second", 2, true, "Running"), pod("third", 3, false, "Pending")];
        expect(&pods, &[("first", Left), ("second", Active), ("third", Waiting)]);
        let pods = [pod("second", 2, true, "Succeeded"), pod("third", 3, false, "Running")];
        expect(&pods, &[("third", Active)]);
    }

    #[test]
    fn twins_are_told_apart_by_who_came_first() {
        let pods = [pod("b", 1, false, "Running"), pod("a", 1, false, "Running")];
        let order = |pod: &Pod| u64::from(pod.name_any() == "a");
        let told: Vec<String> = standings(&pods, order).into_iter().map(|(pod, _)| pod.name_any()).collect();
        assert_eq!(told, ["b", "a"]);
    }
}
