//! Replica sets: keeps the number of pods right.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use kube::api::DeleteParams;

use crate::Error;
use crate::cache::Key;
use crate::events::{Recorder, Severity};
use crate::objects::Objects;
use crate::owners::{claim_all, managed_by, wake_owners, wake_self};
use crate::pods;
use crate::queue::{Queue, drive};

/// Requests in flight for one set.
const IN_FLIGHT: usize = 16;

#[derive(Clone)]
pub(crate) struct ReplicaSets {
    pub(crate) sets: Objects<ReplicaSet>,
    pub(crate) pods: Objects<Pod>,
    pub(crate) events: Recorder,
}

impl ReplicaSets {
    pub(crate) async fn run(self) {
        let queue = Queue::new();
        wake_self(&self.sets, &queue);
        wake_owners(&self.sets, &self.pods, &queue, |set| set.spec.as_ref().map(|spec| spec.selector.clone()));
        self.sets.cache.synced().await;
        self.pods.cache.synced().await;
        drive("replicaset", queue, 8, move |key| self.clone().reconcile(key)).await;
    }

    async fn reconcile(self, key: Key) -> Result<Option<Duration>, Error> {
        let Some(set) = self.sets.get(&key) else { return Ok(None) };
        let Some(spec) = set.spec.as_ref() else { return Ok(None) };
        let mut owned =
            claim_all(set.as_ref(), &spec.selector, &self.pods, &self.sets, |pod| !pods::is_finished(pod)).await?;
        owned.retain(|pod| !pods::is_finished(pod));
        let mut active: Vec<Arc<Pod>> = owned.iter().filter(|pod| pods::is_active(pod)).cloned().collect();
        let outcome =
            if set.metadata.deletion_timestamp.is_none() { self.scale(&set, &mut active).await } else { Ok(()) };
        let (status, again) = status(&set, &active, outcome.as_ref().err(), Timestamp::now());
        self.sets.update_status(set.as_ref(), set.status.as_ref(), &status).await?;
        outcome?;
        Ok(again)
    }

    /// Creates or deletes pods until the number is right; `active` follows.
    async fn scale(&self, set: &ReplicaSet, active: &mut Vec<Arc<Pod>>) -> Result<(), Error> {
        let wanted = usize::try_from(replicas(set)).unwrap_or(0);
        if active.len() < wanted {
            let made = self.create(set, wanted - active.len()).await;
            let mut failure = None;
            for pod in made {
                match pod {
                    Ok(pod) => active.push(pod),
                    Err(error) => failure = failure.or(Some(error)),
                }
            }
            return failure.map_or(Ok(()), Err);
        }
        if active.len() > wanted {
            pods::in_order_of_deletion(active);
            let surplus: Vec<Arc<Pod>> = active.drain(..active.len() - wanted).collect();
            for pod in surplus {
                self.pods.delete(pod.as_ref(), DeleteParams::background()).await?;
                let message = format!("Deleted pod: {}", pod.name_any());
                self.events.record(set, Severity::Normal, "SuccessfulDelete", &message);
            }
        }
        Ok(())
    }

    /// Creates pods in growing batches, so that a set whose pods are refused fails once and not a hundred times.
    async fn create(&self, set: &ReplicaSet, missing: usize) -> Vec<Result<Arc<Pod>, Error>> {
        let template = set.spec.as_ref().and_then(|spec| spec.template.clone()).unwrap_or_default();
        let namespace = set.namespace().unwrap_or_default();
        let mut pod = pods::from_template(&template, &namespace, managed_by(set));
        pod.metadata.generate_name = Some(pods::generate_name(&set.name_any()));
        let mut made = Vec::new();
        let mut batch = 1;
        while made.len() < missing {
            let size = batch.min(missing - made.len());
            let requests = (0..size).map(|_| self.pods.create(&namespace, &pod));
            let answers: Vec<_> = futures::stream::iter(requests).buffer_unordered(IN_FLIGHT).collect().await;
            let mut failed = false;
            for answer in answers {
                match &answer {
                    Ok(pod) => {
                        let message = format!("Created pod: {}", pod.name_any());
                        self.events.record(set, Severity::Normal, "SuccessfulCreate", &message);
                    }
                    Err(error) => {
                        failed = true;
                        let message = format!("Error creating: {}", error.server_message());
                        self.events.record(set, Severity::Warning, "FailedCreate", &message);
                    }
                }
                made.push(answer);
            }
            if failed {
                break;
            }
            batch *= 2;
        }
        made
    }
}

/// How many replicas a set wants; one if it does not say.
pub(crate) fn replicas(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

fn status(
    set: &ReplicaSet,
    active: &[Arc<Pod>],
    failure: Option<&Error>,
    now: Timestamp,
) -> (ReplicaSetStatus, Option<Duration>) {
    let spec = set.spec.as_ref();
    let template_labels =
        spec.and_then(|spec| spec.template.as_ref()?.metadata.as_ref()?.labels.clone()).unwrap_or_default();
    let fully_labelled = active
        .iter()
        .filter(|pod| template_labels.iter().all(|(name, value)| pod.labels().get(name) == Some(value)))
        .count();
    let ready = active.iter().filter(|pod| pods::is_ready(pod)).count();
    let min_ready = spec.and_then(|spec| spec.min_ready_seconds).unwrap_or(0);
    let (available, again) = pods::count_available(active.iter().map(AsRef::as_ref), min_ready, now);
    let before = set.status.as_ref().and_then(|status| status.conditions.as_ref());
    let failing = before.and_then(|conditions| conditions.iter().find(|c| c.type_ == "ReplicaFailure").cloned());
    let conditions = failure.map(|error| {
        let condition = ReplicaSetCondition {
            type_: "ReplicaFailure".to_owned(),
            status: "True".to_owned(),
            reason: Some("FailedCreate".to_owned()),
            message: Some(error.server_message()),
            last_transition_time: Some(Time(now)),
        };
        vec![match failing {
            Some(old) if old.message == condition.message => old,
            _ => condition,
        }]
    });
    let some = |n: i32| (n > 0).then_some(n);
    let status = ReplicaSetStatus {
        replicas: pods::count(active.len()),
        fully_labeled_replicas: some(pods::count(fully_labelled)),
        ready_replicas: some(pods::count(ready)),
        available_replicas: some(available),
        observed_generation: set.metadata.generation,
        conditions,
        terminating_replicas: set.status.as_ref().and_then(|status| status.terminating_replicas),
    };
    (status, again)
}
