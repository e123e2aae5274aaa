//! Jobs: runs pods until enough have succeeded. Indexed completion and pod failure policies are not supported.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use kube::api::DeleteParams;

use crate::Error;
use crate::cache::Key;
use crate::events::{Recorder, Severity};
use crate::objects::Objects;
use crate::owners::{controller_of, managed_by, wake_owners, wake_self};
use crate::pods;
use crate::queue::{Queue, drive};

/// The API's default, for servers that do not fill it in.
const BACKOFF_LIMIT: i32 = 6;
/// Pause after the first failed pod; doubles, up to six minutes.
const PAUSE: i64 = 10;

#[derive(Clone)]
pub(crate) struct Jobs {
    pub(crate) jobs: Objects<Job>,
    pub(crate) pods: Objects<Pod>,
    pub(crate) events: Recorder,
}

/// Pods of a job, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    active: i32,
    ready: i32,
    succeeded: i32,
    failed: i32,
}

/// What to do with a job.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Have so many pods active.
    Run(i32),
    /// Enough pods succeeded.
    Complete,
    /// Reason and message of the failure.
    Fail(&'static str, &'static str),
}

fn judge(spec: &JobSpec, tally: Tally, expired: bool) -> Verdict {
    let parallelism = spec.parallelism.unwrap_or(1).max(0);
    if tally.failed > spec.backoff_limit.unwrap_or(BACKOFF_LIMIT) {
        return Verdict::Fail("BackoffLimitExceeded", "Job has reached the specified backoff limit");
    }
    if expired {
        return Verdict::Fail("DeadlineExceeded", "Job was active longer than specified deadline");
    }
    match spec.completions {
        // A work queue: once one pod succeeded no new ones start, the others end by themselves.
        None if tally.succeeded > 0 && tally.active == 0 => Verdict::Complete,
        None if tally.succeeded > 0 => Verdict::Run(tally.active),
        None => Verdict::Run(parallelism),
        Some(completions) if tally.succeeded >= completions => Verdict::Complete,
        Some(completions) => Verdict::Run(parallelism.min(completions - tally.succeeded)),
    }
}

impl Jobs {
    pub(crate) async fn run(self) {
        let queue = Queue::new();
        wake_self(&self.jobs, &queue);
        wake_owners(&self.jobs, &self.pods, &queue, |_| None);
        self.jobs.cache.synced().await;
        self.pods.cache.synced().await;
        drive("job", queue, 4, move |key| self.clone().reconcile(key)).await;
    }

    async fn reconcile(self, key: Key) -> Result<Option<Duration>, Error> {
        let Some(job) = self.jobs.get(&key) else { return Ok(None) };
        let Some(spec) = job.spec.as_ref() else { return Ok(None) };
        if job.metadata.deletion_timestamp.is_some() {
            return Ok(None);
        }
        let now = Timestamp::now();
        if let Some(finished) = finished_at(&job) {
            return self.expire(&job, spec, finished, now).await;
        }
        let owned: Vec<Arc<Pod>> = self
            .pods
            .cache
            .in_namespace(&key.namespace)
            .into_iter()
            .filter(|pod| controller_of(pod.as_ref()).map(|owner| &owner.uid) == job.metadata.uid.as_ref())
            .collect();
        let mut tally = tally(&owned, job.status.as_ref());
        let mut status = job.status.clone().unwrap_or_default();
        let suspended = spec.suspend == Some(true);
        let mut again = None;
        let mut outcome = Ok(());
        if suspended {
            outcome = self.shrink(&job, &owned, 0).await;
            status.start_time = None;
        } else {
            let start = status.start_time.get_or_insert(Time(now)).0;
            let left = spec.active_deadline_seconds.map(|limit| limit - (now.as_second() - start.as_second()));
            match judge(spec, tally, left.is_some_and(|left| left <= 0)) {
                Verdict::Complete => {
                    self.shrink(&job, &owned, 0).await?;
                    if tally.active == 0 {
                        finish(
                            &mut status,
                            "SuccessCriteriaMet",
                            "Complete",
                            "CompletionsReached",
                            "Reached expected number of succeeded pods",
                            now,
                        );
                        self.events.record(job.as_ref(), Severity::Normal, "Completed", "Job completed");
                    }
                }
                Verdict::Fail(reason, message) => {
                    self.shrink(&job, &owned, 0).await?;
                    if tally.active == 0 {
                        finish(&mut status, "FailureTarget", "Failed", reason, message, now);
                        self.events.record(job.as_ref(), Severity::Warning, reason, message);
                    }
                }
                Verdict::Run(wanted) if wanted > tally.active => match pause(&owned, now) {
                    Some(left) => again = Some(left),
                    None => match self.grow(&job, spec, wanted - tally.active).await {
                        Ok(made) => tally.active += made,
                        Err(error) => outcome = Err(error),
                    },
                },
                Verdict::Run(wanted) => outcome = self.shrink(&job, &owned, wanted).await,
            }
            if let Some(left) = left.filter(|left| *left > 0) {
                again = pods::sooner(again, Some(Duration::from_secs(left.unsigned_abs())));
            }
        }
        note_suspension(&mut status, suspended, now);
        let some = |n: i32| (n > 0).then_some(n);
        status.active = some(tally.active);
        status.ready = Some(tally.ready);
        status.succeeded = some(tally.succeeded);
        status.failed = some(tally.failed);
        self.jobs.update_status(job.as_ref(), job.status.as_ref(), &status).await?;
        outcome?;
        Ok(again)
    }

    async fn grow(&self, job: &Job, spec: &JobSpec, missing: i32) -> Result<i32, Error> {
        let namespace = job.namespace().unwrap_or_default();
        let (name, uid) = (job.name_any(), job.uid().unwrap_or_default());
        let mut pod = pods::from_template(&spec.template, &namespace, managed_by(job));
        pod.metadata.generate_name = Some(pods::generate_name(&name));
        let labels = pod.metadata.labels.get_or_insert_default();
        for prefix in ["", "batch.kubernetes.io/"] {
            labels.insert(format!("{prefix}job-name"), name.clone());
            labels.insert(format!("{prefix}controller-uid"), uid.clone());
        }
        let policy = &mut pod.spec.get_or_insert_default().restart_policy;
        if policy.as_deref().is_none_or(|policy| policy == "Always") {
            *policy = Some("Never".to_owned());
        }
        for made in 0..missing {
            match self.pods.create(&namespace, &pod).await {
                Ok(pod) => {
                    let message = format!("Created pod: {}", pod.name_any());
                    self.events.record(job, Severity::Normal, "SuccessfulCreate", &message);
                }
                Err(error) => {
                    let message = format!("Error creating: {}", error.server_message());
                    self.events.record(job, Severity::Warning, "FailedCreate", &message);
                    return if made > 0 { Ok(made) } else { Err(error) };
                }
            }
        }
        Ok(missing)
    }

    async fn shrink(&self, job: &Job, owned: &[Arc<Pod>], keep: i32) -> Result<(), Error> {
        let mut active: Vec<Arc<Pod>> = owned.iter().filter(|pod| pods::is_active(pod)).cloned().collect();
        pods::in_order_of_deletion(&mut active);
        let surplus = active.len().saturating_sub(usize::try_from(keep).unwrap_or(0));
        for pod in active.drain(..surplus) {
            self.pods.delete(pod.as_ref(), DeleteParams::background()).await?;
            let message = format!("Deleted pod: {}", pod.name_any());
            self.events.record(job, Severity::Normal, "SuccessfulDelete", &message);
        }
        Ok(())
    }

    /// Deletes a finished job after its time to live.
    async fn expire(
        &self,
        job: &Job,
        spec: &JobSpec,
        finished: Timestamp,
        now: Timestamp,
    ) -> Result<Option<Duration>, Error> {
        let Some(ttl) = spec.ttl_seconds_after_finished else { return Ok(None) };
        let left = i64::from(ttl) - (now.as_second() - finished.as_second());
        if left > 0 {
            return Ok(Some(Duration::from_secs(left.unsigned_abs())));
        }
        self.jobs.delete(job, DeleteParams::background()).await?;
        Ok(None)
    }
}

/// Counts pods. What succeeded or failed once stays counted after its pod was deleted.
fn tally(owned: &[Arc<Pod>], before: Option<&JobStatus>) -> Tally {
    let count = |matches: &dyn Fn(&Pod) -> bool| pods::count(owned.iter().filter(|pod| matches(pod)).count());
    let failed = |pod: &Pod| pods::phase(pod) == "Failed";
    Tally {
        active: count(&pods::is_active),
        ready: count(&|pod| pods::is_active(pod) && pods::is_ready(pod)),
        succeeded: count(&|pod| pods::phase(pod) == "Succeeded").max(before.and_then(|s| s.succeeded).unwrap_or(0)),
        failed: count(&failed).max(before.and_then(|s| s.failed).unwrap_or(0)),
    }
}

/// How long to wait before the next pod after failures.
fn pause(owned: &[Arc<Pod>], now: Timestamp) -> Option<Duration> {
    let failed: Vec<_> = owned.iter().filter(|pod| pods::phase(pod) == "Failed").collect();
    let last = failed.iter().filter_map(|pod| ended_at(pod)).max()?;
    let exponent = u32::try_from(failed.len().saturating_sub(1)).unwrap_or(0).min(6);
    let due = (PAUSE << exponent).min(360) * 1000;
    let left = due - (now.as_millisecond() - last.as_millisecond());
    (left > 0).then(|| Duration::from_millis(left.unsigned_abs()))
}

fn ended_at(pod: &Pod) -> Option<Timestamp> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    statuses
        .iter()
        .filter_map(|status| status.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref().map(|time| time.0))
        .max()
}

fn finished_at(job: &Job) -> Option<Timestamp> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    let end = conditions.iter().find(|c| matches!(c.type_.as_str(), "Complete" | "Failed") && c.status == "True")?;
    Some(end.last_transition_time.as_ref().map_or_else(Timestamp::now, |time| time.0))
}

fn finish(status: &mut JobStatus, first: &str, last: &str, reason: &str, message: &str, now: Timestamp) {
    for kind in [first, last] {
        status.conditions.get_or_insert_default().push(JobCondition {
            type_: kind.to_owned(),
            status: "True".to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_probe_time: Some(Time(now)),
            last_transition_time: Some(Time(now)),
        });
    }
    if last == "Complete" {
        status.completion_time = Some(Time(now));
    }
}

fn note_suspension(status: &mut JobStatus, suspended: bool, now: Timestamp) {
    let conditions = status.conditions.get_or_insert_default();
    let value = if suspended { "True" } else { "False" };
    let (reason, message) = if suspended { ("JobSuspended", "Job suspended") } else { ("JobResumed", "Job resumed") };
    match conditions.iter_mut().find(|condition| condition.type_ == "Suspended") {
        Some(old) if old.status == value => {}
        None if !suspended => {}
        old => {
            let condition = JobCondition {
                type_: "Suspended".to_owned(),
                status: value.to_owned(),
                reason: Some(reason.to_owned()),
                message: Some(message.to_owned()),
                last_probe_time: Some(Time(now)),
                last_transition_time: Some(Time(now)),
            };
            match old {
                Some(old) => *old = condition,
                None => conditions.push(condition),
            }
        }
    }
    if conditions.is_empty() {
        status.conditions = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(completions: Option<i32>, parallelism: i32) -> JobSpec {
        JobSpec { completions, parallelism: Some(parallelism), backoff_limit: Some(1), ..JobSpec::default() }
    }

    fn tally(active: i32, succeeded: i32, failed: i32) -> Tally {
        Tally { active, succeeded, failed, ..Tally::default() }
    }

    #[test]
    fn pods_run_until_enough_succeeded() {
        let spec3 = spec(Some(3), 2);
        assert_eq!(judge(&spec3, tally(0, 0, 0), false), Verdict::Run(2));
        assert_eq!(judge(&spec3, tally(0, 2, 0), false), Verdict::Run(1));
        assert_eq!(judge(&spec3, tally(0, 3, 0), false), Verdict::Complete);
        let queue = spec(None, 2);
        assert_eq!(judge(&queue, tally(1, 1, 0), false), Verdict::Run(1));
        assert_eq!(judge(&queue, tally(0, 1, 0), false), Verdict::Complete);
    }

    #[test]
    fn too_many_failures_or_too_much_time_end_it() {
        assert_eq!(judge(&spec(Some(1), 1), tally(0, 0, 1), false), Verdict::Run(1));
        assert!(matches!(judge(&spec(Some(1), 1), tally(0, 0, 2), false), Verdict::Fail("BackoffLimitExceeded", _)));
        assert!(matches!(judge(&spec(Some(1), 1), tally(1, 0, 0), true), Verdict::Fail("DeadlineExceeded", _)));
    }
}
