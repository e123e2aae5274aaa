//! Deployments: one replica set per template, replicas moved from the old sets to the new one.

mod revision;
pub(crate) mod rolling;
mod rollout;
mod status;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::DeleteParams;
use serde_json::json;

use crate::Error;
use crate::cache::{Change, Key};
use crate::events::{Recorder, Severity};
use crate::hash::short_hash;
use crate::objects::Objects;
use crate::owners::{claim_all, controller_key, wake_owners, wake_self};
use crate::pods;
use crate::queue::{Queue, drive};
use crate::replicaset::replicas;
use revision::REVISION;
use rolling::{Bounds, Share, new_replicas, old_replicas, proportional};
use rollout::{Rollout, new_set, pause_progress, share};
use status::Progress;

/// The API's default, for servers that do not fill it in.
const HISTORY_LIMIT: i32 = 10;

#[derive(Clone)]
pub(crate) struct Deployments {
    pub(crate) deployments: Objects<Deployment>,
    pub(crate) sets: Objects<ReplicaSet>,
    pub(crate) pods: Objects<Pod>,
    pub(crate) events: Recorder,
}

impl Deployments {
    pub(crate) async fn run(self) {
        let queue = Queue::new();
        wake_self(&self.deployments, &queue);
        wake_owners(&self.deployments, &self.sets, &queue, |d| d.spec.as_ref().map(|spec| spec.selector.clone()));
        // Recreate waits until the last old pod is gone.
        let (sets, gone) = (self.sets.clone(), queue.clone());
        self.pods.cache.on_change(move |change| {
            if let Change::Gone(pod) = change
                && let Some(set) = controller_key::<ReplicaSet, Pod>(pod.as_ref()).and_then(|key| sets.get(&key))
                && let Some(deployment) = controller_key::<Deployment, ReplicaSet>(set.as_ref())
            {
                gone.add(deployment);
            }
        });
        self.deployments.cache.synced().await;
        self.sets.cache.synced().await;
        self.pods.cache.synced().await;
        drive("deployment", queue, 8, move |key| self.clone().reconcile(key)).await;
    }

    async fn reconcile(self, key: Key) -> Result<Option<Duration>, Error> {
        let Some(deployment) = self.deployments.get(&key) else { return Ok(None) };
        let Some(spec) = deployment.spec.clone() else { return Ok(None) };
        let collisions = deployment.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0);
        let hash = short_hash(&spec.template, collisions)
            .map_err(|source| Error::Encode { object: key.to_string(), source })?;
        let sets = claim_all(deployment.as_ref(), &spec.selector, &self.sets, &self.deployments, |_| true).await?;
        let paused = spec.paused == Some(true);
        let mut rollout = Rollout::new(deployment, spec, sets, &hash);
        if rollout.deployment.metadata.deletion_timestamp.is_some() {
            return self.write_status(&rollout).await;
        }
        rollout.progress = pause_progress(&rollout.deployment, paused);
        if paused || rollout.was_scaled() {
            self.note_revision(&mut rollout).await?;
            self.spread(&mut rollout).await?;
            if paused {
                self.forget_history(&rollout).await?;
            }
            return self.write_status(&rollout).await;
        }
        match rollout.bounds {
            None => self.recreate(&mut rollout, &hash).await?,
            Some(bounds) => self.roll(&mut rollout, &hash, bounds).await?,
        }
        self.forget_history(&rollout).await?;
        self.write_status(&rollout).await
    }

    async fn write_status(&self, rollout: &Rollout) -> Result<Option<Duration>, Error> {
        let deployment = &rollout.deployment;
        let (status, again) = status::compute(
            deployment,
            rollout.new.as_ref(),
            &rollout.all(),
            rollout.wanted,
            rollout.bounds,
            &rollout.progress,
            Timestamp::now(),
        );
        self.deployments.update_status(deployment.as_ref(), deployment.status.as_ref(), &status).await?;
        Ok(again)
    }

    async fn roll(&self, rollout: &mut Rollout, hash: &str, bounds: Bounds) -> Result<(), Error> {
        self.ensure_new(rollout, hash).await?;
        let Some(new) = rollout.new.clone() else { return Ok(()) };
        let old_total: i32 = rollout.old.iter().map(|set| replicas(set)).sum();
        let target = new_replicas(replicas(&new), old_total, rollout.wanted, bounds);
        let new = self.scale(rollout, &new, target).await?;
        rollout.new = Some(Arc::clone(&new));
        let shares: Vec<Share> = rollout.old.iter().map(|set| share(set)).collect();
        let keep = old_replicas(&shares, share(&new), rollout.wanted, bounds);
        self.scale_old(rollout, &keep).await
    }

    async fn recreate(&self, rollout: &mut Rollout, hash: &str) -> Result<(), Error> {
        let none = vec![0; rollout.old.len()];
        self.scale_old(rollout, &none).await?;
        let old: Vec<_> = rollout.old.iter().filter_map(|set| set.uid()).collect();
        let still_there = self.pods.cache.in_namespace(&rollout.deployment.namespace().unwrap_or_default());
        let waiting = still_there.iter().any(|pod| {
            !pods::is_finished(pod)
                && crate::owners::controller_of(pod.as_ref()).is_some_and(|owner| old.contains(&owner.uid))
        });
        if waiting {
            return Ok(());
        }
        self.ensure_new(rollout, hash).await?;
        if let Some(new) = rollout.new.clone() {
            let wanted = rollout.wanted;
            rollout.new = Some(self.scale(rollout, &new, wanted).await?);
        }
        Ok(())
    }

    /// Spreads a new number of replicas over the sets without starting or continuing a rollout.
    async fn spread(&self, rollout: &mut Rollout) -> Result<(), Error> {
        let wanted = rollout.wanted;
        let active: Vec<usize> =
            rollout.old.iter().enumerate().filter(|(_, set)| replicas(set) > 0).map(|(index, _)| index).collect();
        let new_active = rollout.new.as_ref().is_some_and(|set| replicas(set) > 0);
        // The only set with pods, or the latest one, takes it all.
        let single = match (active.len(), new_active) {
            (0, _) => rollout.new.clone().or_else(|| rollout.old.last().cloned()),
            (1, false) => Some(Arc::clone(&rollout.old[active[0]])),
            _ => None,
        };
        if let Some(set) = single {
            let scaled = self.scale(rollout, &set, wanted).await?;
            rollout.replace(scaled);
            return Ok(());
        }
        let saturated = rollout.new.as_ref().is_some_and(|set| {
            replicas(set) == wanted && revision::wanted_before(set) == Some(wanted) && share(set).available == wanted
        });
        if saturated {
            let none = vec![0; rollout.old.len()];
            return self.scale_old(rollout, &none).await;
        }
        if rollout.bounds.is_some() {
            let all = rollout.all();
            let sizes: Vec<i32> = all.iter().map(|set| replicas(set)).collect();
            let before: Vec<i32> =
                all.iter().map(|set| revision::allowed_before(set).unwrap_or_else(|| rollout.allowed())).collect();
            let targets = proportional(&sizes, &before, rollout.allowed());
            for (set, target) in all.iter().zip(targets) {
                let scaled = self.scale(rollout, set, target).await?;
                rollout.replace(scaled);
            }
        }
        Ok(())
    }

    async fn scale_old(&self, rollout: &mut Rollout, keep: &[i32]) -> Result<(), Error> {
        for (set, keep) in rollout.old.clone().iter().zip(keep) {
            if replicas(set) != *keep {
                let scaled = self.scale(rollout, set, *keep).await?;
                rollout.replace(scaled);
            }
        }
        Ok(())
    }

    /// Sets a replica set's size and notes on it what the deployment wants.
    async fn scale(&self, rollout: &Rollout, set: &Arc<ReplicaSet>, target: i32) -> Result<Arc<ReplicaSet>, Error> {
        let before = replicas(set);
        let mut changed = ReplicaSet::clone(set);
        changed.spec.get_or_insert_default().replicas = Some(target);
        revision::note_scale(changed.annotations_mut(), rollout.wanted, rollout.allowed());
        let scaled = self.sets.update(set.as_ref(), &changed).await?.unwrap_or_else(|| Arc::clone(set));
        if before != target {
            self.tell_scaled(rollout, &scaled.name_any(), before, target);
        }
        Ok(scaled)
    }

    fn tell_scaled(&self, rollout: &Rollout, set: &str, before: i32, target: i32) {
        let direction = if target > before { "up" } else { "down" };
        let message = format!("Scaled {direction} replica set {set} from {before} to {target}");
        self.events.record(rollout.deployment.as_ref(), Severity::Normal, "ScalingReplicaSet", &message);
    }

    /// Finds or makes the set for the current template.
    async fn ensure_new(&self, rollout: &mut Rollout, hash: &str) -> Result<(), Error> {
        if rollout.new.is_some() {
            return self.note_revision(rollout).await;
        }
        let deployment = Arc::clone(&rollout.deployment);
        let namespace = deployment.namespace().unwrap_or_default();
        let old_total: i32 = rollout.old.iter().map(|set| replicas(set)).sum();
        let size = match rollout.bounds {
            Some(bounds) => new_replicas(0, old_total, rollout.wanted, bounds),
            None => rollout.wanted,
        };
        let number = revision::next(&rollout.old);
        let set = new_set(rollout, hash, size, number);
        match self.sets.create(&namespace, &set).await {
            Ok(created) => {
                self.tell_scaled(rollout, &created.name_any(), 0, size);
                rollout.progress = Progress::Created(created.name_any());
                rollout.new = Some(created);
            }
            Err(error) if error.is_conflict() => {
                // The name is taken by a set of another template: let the next hash differ.
                let taken = self.sets.fetch(&Key::new(&namespace, &set.name_any())).await?;
                let ours = taken.is_some_and(|taken| {
                    crate::owners::controller_of(&taken).map(|owner| &owner.uid) == deployment.metadata.uid.as_ref()
                });
                if !ours {
                    let mut status = deployment.status.clone().unwrap_or_default();
                    status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
                    self.deployments.update_status(deployment.as_ref(), deployment.status.as_ref(), &status).await?;
                }
                return Err(error);
            }
            Err(error) => {
                let message =
                    format!("Failed to create new replica set {:?}: {}", set.name_any(), error.server_message());
                self.events.record(deployment.as_ref(), Severity::Warning, "ReplicaSetCreateError", &message);
                return Err(error);
            }
        }
        self.note_revision(rollout).await
    }

    /// Keeps the revision number of the new set above all others, and shows it on the deployment.
    async fn note_revision(&self, rollout: &mut Rollout) -> Result<(), Error> {
        let Some(new) = rollout.new.clone() else { return Ok(()) };
        let mut changed = ReplicaSet::clone(&new);
        revision::annotate(changed.annotations_mut(), &rollout.deployment, revision::next(&rollout.old));
        if let Some(spec) = changed.spec.as_mut() {
            spec.min_ready_seconds = rollout.spec.min_ready_seconds.or(spec.min_ready_seconds);
        }
        let new = self.sets.update(new.as_ref(), &changed).await?.unwrap_or(new);
        let number = revision::revision(&new).to_string();
        if rollout.deployment.annotations().get(REVISION) != Some(&number) {
            let patch = json!({ "metadata": { "annotations": { REVISION: number } } });
            rollout.deployment = self.deployments.merge(&Key::of(rollout.deployment.as_ref()), patch).await?;
        }
        let conditions = rollout.deployment.status.as_ref().and_then(|status| status.conditions.as_ref());
        let known = conditions.is_some_and(|conditions| conditions.iter().any(|c| c.type_ == "Progressing"));
        if !known && matches!(rollout.progress, Progress::Nothing) {
            rollout.progress = Progress::Found(new.name_any());
        }
        rollout.new = Some(new);
        Ok(())
    }

    /// Deletes the oldest empty sets beyond the history limit.
    async fn forget_history(&self, rollout: &Rollout) -> Result<(), Error> {
        let limit = usize::try_from(rollout.spec.revision_history_limit.unwrap_or(HISTORY_LIMIT)).unwrap_or(0);
        let mut old: Vec<_> = rollout.old.iter().filter(|set| set.metadata.deletion_timestamp.is_none()).collect();
        if old.len() <= limit {
            return Ok(());
        }
        old.sort_by_key(|set| revision::revision(set));
        for set in &old[..old.len() - limit] {
            let empty = replicas(set) == 0 && set.status.as_ref().is_none_or(|status| status.replicas == 0);
            if empty && set.status.as_ref().and_then(|s| s.observed_generation) >= set.metadata.generation {
                self.sets.delete(set.as_ref(), DeleteParams::background()).await?;
            }
        }
        Ok(())
    }
}
