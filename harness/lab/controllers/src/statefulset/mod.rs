//! Stateful sets: pods with stable names, started in order.

mod plan;
mod pod;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetSpec, StatefulSetStatus};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::{Api, DeleteParams, PostParams};
use kube::{Client, ResourceExt};

use crate::Error;
use crate::cache::Key;
use crate::error::status_code;
use crate::events::{Recorder, Severity};
use crate::objects::{Objects, failed};
use crate::owners::{claim_all, wake_owners, wake_self};
use crate::pods;
use crate::queue::{Queue, drive};
use crate::revisions::{self, History, Template, label};
use plan::{Member, Step, Wish, plan};

/// Requests in flight for one set with parallel pods.
const IN_FLIGHT: usize = 16;

#[derive(Clone)]
pub(crate) struct StatefulSets {
    pub(crate) client: Client,
    pub(crate) sets: Objects<StatefulSet>,
    pub(crate) pods: Objects<Pod>,
    pub(crate) revisions: Objects<ControllerRevision>,
    pub(crate) events: Recorder,
}

impl StatefulSets {
    pub(crate) async fn run(self) {
        let queue = Queue::new();
        wake_self(&self.sets, &queue);
        wake_owners(&self.sets, &self.pods, &queue, |set| set.spec.as_ref().map(|spec| spec.selector.clone()));
        self.sets.cache.synced().await;
        self.pods.cache.synced().await;
        self.revisions.cache.synced().await;
        drive("statefulset", queue, 8, move |key| self.clone().reconcile(key)).await;
    }

    async fn reconcile(self, key: Key) -> Result<Option<Duration>, Error> {
        let Some(set) = self.sets.get(&key) else { return Ok(None) };
        let Some(spec) = set.spec.as_ref() else { return Ok(None) };
        let name = set.name_any();
        let mut owned = claim_all(set.as_ref(), &spec.selector, &self.pods, &self.sets, |pod| {
            pod::ordinal(&name, &pod.name_any()).is_some()
        })
        .await?;
        if set.metadata.deletion_timestamp.is_some() {
            return Ok(None);
        }
        let collisions = set.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0);
        let template = Template { selector: &spec.selector, template: &spec.template, collisions };
        let Some(history) = revisions::sync(set.as_ref(), template, &self.sets, &self.revisions).await? else {
            let mut status = set.status.clone().unwrap_or_default();
            status.collision_count = Some(collisions + 1);
            self.sets.update_status(set.as_ref(), set.status.as_ref(), &status).await?;
            return Ok(Some(Duration::ZERO));
        };
        let wish = wish(&set, spec, &history);
        let (members, again) = members(&set, spec, &owned);
        let outcome = self.act(&set, &history, plan(&wish, &members), &mut owned).await;
        // The status counts what is there after acting.
        let (members, _) = self::members(&set, spec, &owned);
        let status = status(&set, &wish, &members);
        self.sets.update_status(set.as_ref(), set.status.as_ref(), &status).await?;
        outcome?;
        let mut in_use: HashSet<String> = owned.iter().map(|pod| label(pod.labels()).to_owned()).collect();
        in_use.extend([status.current_revision, status.update_revision].into_iter().flatten());
        revisions::forget(&history, &in_use, spec.revision_history_limit, &self.revisions).await?;
        Ok(again)
    }

    async fn act(
        &self,
        set: &StatefulSet,
        history: &History,
        steps: Vec<Step>,
        owned: &mut Vec<Arc<Pod>>,
    ) -> Result<(), Error> {
        let name = set.name_any();
        let work = steps.into_iter().map(|step| {
            let pod = match &step {
                Step::Delete(ordinal) => {
                    owned.iter().find(|pod| pod::ordinal(&name, &pod.name_any()) == Some(*ordinal)).cloned()
                }
                Step::Create(..) => None,
            };
            async move {
                match (step, pod) {
                    (Step::Create(ordinal, revision), _) => {
                        self.create(set, history, ordinal, &revision).await.map(Some)
                    }
                    (Step::Delete(_), Some(pod)) => self.delete(set, &pod).await.map(|()| None),
                    (Step::Delete(_), None) => Ok(None),
                }
            }
        });
        let work: Vec<_> = work.collect();
        let done: Vec<_> = futures::stream::iter(work).buffer_unordered(IN_FLIGHT).collect().await;
        let mut failure = None;
        for result in done {
            match result {
                Ok(Some(pod)) => owned.push(pod),
                Ok(None) => {}
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        for pod in owned.iter_mut() {
            if let Some(now) = self.pods.get(&Key::of(pod.as_ref())) {
                *pod = now;
            }
        }
        failure.map_or(Ok(()), Err)
    }

    async fn create(
        &self,
        set: &StatefulSet,
        history: &History,
        ordinal: i32,
        revision: &str,
    ) -> Result<Arc<Pod>, Error> {
        let known = history.all.iter().find(|known| known.name_any() == revision).unwrap_or(&history.update);
        let template = revisions::template(known)
            .or_else(|| set.spec.as_ref().map(|spec| spec.template.clone()))
            .unwrap_or_default();
        let pod = pod::new_pod(set, &template, &known.name_any(), ordinal);
        let tell = |severity, reason, verdict: &str| {
            let message = format!("create Pod {} in StatefulSet {} {verdict}", pod.name_any(), set.name_any());
            self.events.record(set, severity, reason, &message);
        };
        let made = match self.create_claims(set, ordinal).await {
            Ok(()) => self.pods.create(&set.namespace().unwrap_or_default(), &pod).await,
            Err(error) => Err(error),
        };
        match &made {
            Ok(_) => tell(Severity::Normal, "SuccessfulCreate", "successful"),
            // The watch lags behind: the pod's predecessor is still there, or the pod itself already.
            Err(error) if error.is_conflict() => {}
            Err(error) => {
                let verdict = format!("failed error: {}", error.server_message());
                tell(Severity::Warning, "FailedCreate", &verdict);
            }
        }
        made
    }

    async fn create_claims(&self, set: &StatefulSet, ordinal: i32) -> Result<(), Error> {
        let namespace = set.namespace().unwrap_or_default();
        for claim in pod::claims(set, ordinal) {
            let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &namespace);
            match api.create(&PostParams::default(), &claim.object(set)).await {
                Err(error) if status_code(&error) != Some(409) => {
                    return Err(failed::<PersistentVolumeClaim>("create", &Key::new(&namespace, &claim.name), error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    async fn delete(&self, set: &StatefulSet, pod: &Pod) -> Result<(), Error> {
        if pods::is_finished(pod) {
            let word = pods::phase(pod).to_lowercase();
            let message = format!(
                "StatefulSet {}/{} is recreating {word} Pod {}",
                set.namespace().unwrap_or_default(),
                set.name_any(),
                pod.name_any()
            );
            self.events.record(set, Severity::Warning, "RecreatingFailedPod", &message);
        }
        self.pods.delete(pod, DeleteParams::background()).await?;
        let message = format!("delete Pod {} in StatefulSet {} successful", pod.name_any(), set.name_any());
        self.events.record(set, Severity::Normal, "SuccessfulDelete", &message);
        Ok(())
    }
}

fn wish(set: &StatefulSet, spec: &StatefulSetSpec, history: &History) -> Wish {
    let strategy = spec.update_strategy.as_ref();
    let update = history.update.name_any();
    let current = set
        .status
        .as_ref()
        .and_then(|status| status.current_revision.clone())
        .filter(|name| history.all.iter().any(|known| known.name_any() == *name))
        .unwrap_or_else(|| update.clone());
    Wish {
        start: spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or(0),
        replicas: spec.replicas.unwrap_or(1).max(0),
        ordered: spec.pod_management_policy.as_deref() != Some("Parallel"),
        rolling: strategy.and_then(|strategy| strategy.type_.as_deref()) != Some("OnDelete"),
        partition: strategy.and_then(|s| s.rolling_update.as_ref()).and_then(|rolling| rolling.partition).unwrap_or(0),
        current,
        update,
    }
}

/// The pods as the plan wants to know them, and when one of them becomes available by waiting.
fn members(set: &StatefulSet, spec: &StatefulSetSpec, owned: &[Arc<Pod>]) -> (Vec<Member>, Option<Duration>) {
    let name = set.name_any();
    let now = Timestamp::now();
    let mut again = None;
    let members = owned
        .iter()
        .filter_map(|pod| {
            let available = pods::is_available(pod, spec.min_ready_seconds.unwrap_or(0), now);
            if let Err(left) = available {
                again = pods::sooner(again, left);
            }
            let running = pods::phase(pod) == "Running";
            Some(Member {
                ordinal: pod::ordinal(&name, &pod.name_any())?,
                revision: label(pod.labels()).to_owned(),
                finished: pods::is_finished(pod),
                terminating: pods::is_terminating(pod),
                ready: running && pods::is_ready(pod),
                available: running && available.is_ok(),
            })
        })
        .collect();
    (members, again)
}

fn status(set: &StatefulSet, wish: &Wish, members: &[Member]) -> StatefulSetStatus {
    let before = set.status.clone().unwrap_or_default();
    let count =
        |matches: &dyn Fn(&Member) -> bool| pods::count(members.iter().filter(|member| matches(member)).count());
    let mut status = StatefulSetStatus {
        observed_generation: set.metadata.generation,
        replicas: pods::count(members.len()),
        ready_replicas: Some(count(&|member| member.ready)),
        available_replicas: Some(count(&|member| member.available)),
        current_replicas: Some(count(&|member| !member.terminating && member.revision == wish.current)),
        updated_replicas: Some(count(&|member| !member.terminating && member.revision == wish.update)),
        current_revision: Some(wish.current.clone()),
        update_revision: Some(wish.update.clone()),
        collision_count: Some(before.collision_count.unwrap_or(0)),
        conditions: before.conditions,
    };
    let all = Some(wish.replicas);
    if wish.rolling
        && status.updated_replicas == all
        && status.ready_replicas == all
        && status.replicas == wish.replicas
    {
        status.current_replicas = status.updated_replicas;
        status.current_revision = status.update_revision.clone();
    }
    status
}
