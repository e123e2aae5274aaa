//! The status of a deployment, as `kubectl rollout status` and `kubectl wait` read it.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use super::rolling::Bounds;
use crate::replicaset::replicas;

/// The API's default, for servers that do not fill it in.
const PROGRESS_DEADLINE: i32 = 600;

/// Why a rollout is said to progress.
pub(super) enum Progress {
    /// A set was made for the template.
    Created(String),
    /// The template has a set already.
    Found(String),
    /// The deployment was paused or resumed.
    Paused,
    /// It goes on after a pause.
    Resumed,
    /// Nothing of that.
    Nothing,
}

/// The sums over replica sets.
fn sum(sets: &[Arc<ReplicaSet>], of: impl Fn(&ReplicaSet) -> i32) -> i32 {
    sets.iter().map(|set| of(set)).sum()
}

fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0)
}

/// Computes the status, and when to look again because a deadline may pass.
pub(super) fn compute(
    deployment: &Deployment,
    new: Option<&Arc<ReplicaSet>>,
    all: &[Arc<ReplicaSet>],
    wanted: i32,
    bounds: Option<Bounds>,
    progress: &Progress,
    now: Timestamp,
) -> (DeploymentStatus, Option<Duration>) {
    let before = deployment.status.clone().unwrap_or_default();
    let some = |n: i32| (n > 0).then_some(n);
    let total = sum(all, replicas);
    let is_available = sum(all, available);
    let mut status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: some(sum(all, |set| set.status.as_ref().map_or(0, |status| status.replicas))),
        updated_replicas: some(new.and_then(|set| set.status.as_ref()).map_or(0, |status| status.replicas)),
        ready_replicas: some(sum(all, |set| set.status.as_ref().and_then(|s| s.ready_replicas).unwrap_or(0))),
        available_replicas: some(is_available),
        unavailable_replicas: some((total - is_available).max(0)),
        collision_count: before.collision_count,
        conditions: before.conditions.clone(),
        terminating_replicas: before.terminating_replicas,
    };
    let enough = is_available >= wanted - bounds.map_or(0, |bounds| bounds.unavailable);
    let (value, reason, message) = if enough {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    set_condition(&mut status, "Available", value, reason, message, now);
    let again = note_progress(deployment, &before, &mut status, new, wanted, progress, now);
    let failure = all.iter().find_map(|set| {
        let conditions = set.status.as_ref()?.conditions.as_ref()?;
        conditions.iter().find(|condition| condition.type_ == "ReplicaFailure" && condition.status == "True").cloned()
    });
    match failure {
        Some(failure) => {
            let reason = failure.reason.unwrap_or_default();
            set_condition(&mut status, "ReplicaFailure", "True", &reason, &failure.message.unwrap_or_default(), now);
        }
        None => status.conditions.get_or_insert_default().retain(|condition| condition.type_ != "ReplicaFailure"),
    }
    (status, again)
}

fn note_progress(
    deployment: &Deployment,
    before: &DeploymentStatus,
    status: &mut DeploymentStatus,
    new: Option<&Arc<ReplicaSet>>,
    wanted: i32,
    progress: &Progress,
    now: Timestamp,
) -> Option<Duration> {
    let name = match new {
        Some(set) => format!("ReplicaSet \"{}\"", set.name_any()),
        None => format!("Deployment \"{}\"", deployment.name_any()),
    };
    let mut set = |value, reason, message: &str| set_condition(status, "Progressing", value, reason, message, now);
    match progress {
        Progress::Created(set_name) => {
            set("True", "NewReplicaSetCreated", &format!("Created new replica set \"{set_name}\""));
        }
        Progress::Found(set_name) => {
            set("True", "FoundNewReplicaSet", &format!("Found new replica set \"{set_name}\""));
        }
        Progress::Paused => {
            set("Unknown", "DeploymentPaused", "Deployment is paused");
            return None;
        }
        Progress::Resumed => set("Unknown", "DeploymentResumed", "Deployment is resumed"),
        Progress::Nothing => {}
    }
    let of = |status: &DeploymentStatus, kind: &str| {
        status.conditions.iter().flatten().find(|condition| condition.type_ == kind).cloned()
    };
    let number = |n: Option<i32>| n.unwrap_or(0);
    let current = of(status, "Progressing");
    let reason = current.as_ref().and_then(|condition| condition.reason.clone()).unwrap_or_default();
    let settled = number(status.replicas) == number(status.updated_replicas) && reason == "NewReplicaSetAvailable";
    if settled {
        return None;
    }
    let complete = number(status.updated_replicas) == wanted
        && number(status.replicas) == wanted
        && number(status.available_replicas) == wanted;
    let moved = number(status.updated_replicas) > number(before.updated_replicas)
        || number(status.replicas) - number(status.updated_replicas)
            < number(before.replicas) - number(before.updated_replicas)
        || number(status.ready_replicas) > number(before.ready_replicas)
        || number(status.available_replicas) > number(before.available_replicas);
    let deadline =
        deployment.spec.as_ref().and_then(|spec| spec.progress_deadline_seconds).unwrap_or(PROGRESS_DEADLINE);
    let mut set = |value, reason, message: &str| set_condition(status, "Progressing", value, reason, message, now);
    if complete && new.is_some() {
        set("True", "NewReplicaSetAvailable", &format!("{name} has successfully progressed."));
        return None;
    }
    if moved {
        set("True", "ReplicaSetUpdated", &format!("{name} is progressing."));
        touch(status, now);
        return Some(seconds(deadline));
    }
    let Some(current) = current else { return Some(seconds(deadline)) };
    if reason == "ProgressDeadlineExceeded" {
        return None;
    }
    let since = current.last_update_time.map_or(now, |time| time.0);
    let left = i64::from(deadline) - (now.as_second() - since.as_second());
    if left > 0 {
        return Some(Duration::from_secs(left.unsigned_abs()));
    }
    set("False", "ProgressDeadlineExceeded", &format!("{name} has timed out progressing."));
    None
}

fn seconds(n: i32) -> Duration {
    Duration::from_secs(n.unsigned_abs().into())
}

/// Renews the time from which the progress deadline counts.
fn touch(status: &mut DeploymentStatus, now: Timestamp) {
    for condition in status.conditions.iter_mut().flatten().filter(|condition| condition.type_ == "Progressing") {
        condition.last_update_time = Some(Time(now));
    }
}

fn set_condition(status: &mut DeploymentStatus, kind: &str, value: &str, reason: &str, message: &str, now: Timestamp) {
    let conditions = status.conditions.get_or_insert_default();
    let old = conditions.iter_mut().find(|condition| condition.type_ == kind);
    match old {
        Some(old) if old.status == value && old.reason.as_deref() == Some(reason) => {
            if old.message.as_deref() != Some(message) {
                old.message = Some(message.to_owned());
                old.last_update_time = Some(Time(now));
            }
        }
        Some(old) => {
            if old.status != value {
                old.last_transition_time = Some(Time(now));
            }
            old.status = value.to_owned();
            old.reason = Some(reason.to_owned());
            old.message = Some(message.to_owned());
            old.last_update_time = Some(Time(now));
        }
        None => conditions.push(DeploymentCondition {
            type_: kind.to_owned(),
            status: value.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_transition_time: Some(Time(now)),
            last_update_time: Some(Time(now)),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::apps::v1::{DeploymentSpec, ReplicaSetSpec, ReplicaSetStatus};

    fn set(replicas: i32, available: i32) -> Arc<ReplicaSet> {
        Arc::new(ReplicaSet {
            spec: Some(ReplicaSetSpec { replicas: Some(replicas), ..ReplicaSetSpec::default() }),
            status: Some(ReplicaSetStatus {
                replicas,
                available_replicas: Some(available),
                ready_replicas: Some(available),
                ..ReplicaSetStatus::default()
            }),
            ..ReplicaSet::default()
        })
    }

    fn condition(status: &DeploymentStatus, kind: &str) -> (String, String) {
        let found = status.conditions.iter().flatten().find(|c| c.type_ == kind).unwrap();
        (found.status.clone(), found.reason.clone().unwrap())
    }

    #[test]
    fn progress_from_creation_to_availability_and_a_missed_deadline() {
        let bounds = Some(Bounds { surge: 1, unavailable: 0 });
        let mut deployment = Deployment {
            spec: Some(DeploymentSpec { progress_deadline_seconds: Some(10), ..DeploymentSpec::default() }),
            ..Deployment::default()
        };
        let start = Timestamp::from_second(1000).unwrap();
        let new = set(2, 0);
        let all = [Arc::clone(&new)];
        let (status, _) = compute(&deployment, Some(&new), &all, 2, bounds, &Progress::Created("x".into()), start);
        assert_eq!(condition(&status, "Available"), ("False".into(), "MinimumReplicasUnavailable".into()));
        assert_eq!(condition(&status, "Progressing"), ("True".into(), "ReplicaSetUpdated".into()));
        assert_eq!(status.unavailable_replicas, Some(2));
        deployment.status = Some(status);
        let late = Timestamp::from_second(1020).unwrap();
        let (status, _) = compute(&deployment, Some(&new), &all, 2, bounds, &Progress::Nothing, late);
        assert_eq!(condition(&status, "Progressing"), ("False".into(), "ProgressDeadlineExceeded".into()));
        deployment.status = Some(status);
        let new = set(2, 2);
        let all = [Arc::clone(&new)];
        let (status, again) = compute(&deployment, Some(&new), &all, 2, bounds, &Progress::Nothing, late);
        assert_eq!(condition(&status, "Available"), ("True".into(), "MinimumReplicasAvailable".into()));
        assert_eq!(condition(&status, "Progressing"), ("True".into(), "NewReplicaSetAvailable".into()));
        assert_eq!(status.unavailable_replicas, None);
        assert_eq!(again, None);
    }

    #[test]
    fn a_status_that_settled_does_not_change_any_more() {
        let new = set(2, 2);
        let all = [Arc::clone(&new)];
        let mut deployment = Deployment::default();
        let now = Timestamp::from_second(1000).unwrap();
        deployment.status = Some(compute(&deployment, Some(&new), &all, 2, None, &Progress::Nothing, now).0);
        let later = Timestamp::from_second(5000).unwrap();
        let (status, _) = compute(&deployment, Some(&new), &all, 2, None, &Progress::Nothing, later);
        assert_eq!(Some(status), deployment.status);
    }
}
