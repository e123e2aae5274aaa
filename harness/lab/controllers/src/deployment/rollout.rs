//! A deployment with its replica sets, sorted into the new one and the old ones.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, ReplicaSet, ReplicaSetSpec};
use kube::ResourceExt;
use kube::api::ObjectMeta;

use super::revision::{self, HASH};
use super::rolling::{Bounds, Share};
use super::status::Progress;
use crate::owners::managed_by;
use crate::replicaset::replicas;

/// A deployment and its replica sets while it is reconciled.
pub(super) struct Rollout {
    pub(super) deployment: Arc<Deployment>,
    pub(super) spec: DeploymentSpec,
    pub(super) wanted: i32,
    /// `None`: the strategy is Recreate.
    pub(super) bounds: Option<Bounds>,
    pub(super) new: Option<Arc<ReplicaSet>>,
    /// Oldest first.
    pub(super) old: Vec<Arc<ReplicaSet>>,
    pub(super) progress: Progress,
}

impl Rollout {
    pub(super) fn new(
        deployment: Arc<Deployment>,
        spec: DeploymentSpec,
        mut sets: Vec<Arc<ReplicaSet>>,
        hash: &str,
    ) -> Self {
        sets.sort_by_key(|set| (set.metadata.creation_timestamp.clone(), set.name_any()));
        let is_new = |set: &Arc<ReplicaSet>| {
            set.labels().get(HASH).is_some_and(|label| label == hash)
                || set
                    .spec
                    .as_ref()
                    .and_then(|set| set.template.as_ref())
                    .is_some_and(|template| revision::same_template(template, &spec.template))
        };
        let new = sets.iter().position(is_new).map(|index| sets.remove(index));
        let wanted = spec.replicas.unwrap_or(1);
        let strategy = spec.strategy.as_ref();
        let bounds = (strategy.and_then(|strategy| strategy.type_.as_deref()) != Some("Recreate")).then(|| {
            let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
            Bounds::resolve(
                rolling.and_then(|rolling| rolling.max_surge.as_ref()),
                rolling.and_then(|rolling| rolling.max_unavailable.as_ref()),
                wanted,
            )
        });
        Self { deployment, spec, wanted, bounds, new, old: sets, progress: Progress::Nothing }
    }

    /// All sets, the old ones first.
    pub(super) fn all(&self) -> Vec<Arc<ReplicaSet>> {
        self.old.iter().chain(self.new.iter()).cloned().collect()
    }

    /// Pods allowed in total.
    pub(super) fn allowed(&self) -> i32 {
        self.wanted + self.bounds.map_or(0, |bounds| if self.wanted > 0 { bounds.surge } else { 0 })
    }

    /// Somebody scaled the deployment since its sets were scaled last.
    pub(super) fn was_scaled(&self) -> bool {
        self.all()
            .iter()
            .filter(|set| replicas(set) > 0)
            .any(|set| revision::wanted_before(set).is_some_and(|before| before != self.wanted))
    }
}

/// What the arithmetic needs to know of a set.
pub(super) fn share(set: &ReplicaSet) -> Share {
    let available = set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0);
    Share { replicas: replicas(set), available: available.min(replicas(set)) }
}

impl Rollout {
    /// Takes over a set as it is after a write.
    pub(super) fn replace(&mut self, set: Arc<ReplicaSet>) {
        if self.new.as_ref().is_some_and(|new| new.uid() == set.uid()) {
            self.new = Some(set);
        } else if let Some(old) = self.old.iter_mut().find(|old| old.uid() == set.uid()) {
            *old = set;
        }
    }
}

/// Whether pausing or resuming is to be noted.
pub(super) fn pause_progress(deployment: &Deployment, paused: bool) -> Progress {
    let reason = deployment
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten())
        .find(|condition| condition.type_ == "Progressing")
        .and_then(|condition| condition.reason.as_deref());
    match (paused, reason) {
        (true, Some("DeploymentPaused")) => Progress::Nothing,
        (true, Some("ProgressDeadlineExceeded")) => Progress::Nothing,
        (true, _) => Progress::Paused,
        (false, Some("DeploymentPaused")) => Progress::Resumed,
        (false, _) => Progress::Nothing,
    }
}

/// The replica set for the present template.
pub(super) fn new_set(rollout: &Rollout, hash: &str, size: i32, number: i64) -> ReplicaSet {
    let deployment = &rollout.deployment;
    let hash_label = || [(HASH.to_owned(), hash.to_owned())];
    let mut template = rollout.spec.template.clone();
    template.metadata.get_or_insert_default().labels.get_or_insert_default().extend(hash_label());
    let mut selector = rollout.spec.selector.clone();
    selector.match_labels.get_or_insert_default().extend(hash_label());
    let mut annotations = BTreeMap::new();
    revision::annotate(&mut annotations, deployment, number);
    revision::note_scale(&mut annotations, rollout.wanted, rollout.allowed());
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", deployment.name_any())),
            namespace: deployment.namespace(),
            labels: template.metadata.as_ref().and_then(|meta| meta.labels.clone()),
            annotations: Some(annotations),
            owner_references: Some(vec![managed_by(deployment.as_ref())]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(size),
            min_ready_seconds: rollout.spec.min_ready_seconds,
            selector,
            template: Some(template),
        }),
        status: None,
    }
}
