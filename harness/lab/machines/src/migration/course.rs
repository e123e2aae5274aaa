//! One migration's way: Pending, Scheduling, Scheduled, PreparingTarget, TargetReady, Running, and how it ended.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use udn_api::kubevirt::{InstancePhase, VirtualMachineInstance, VirtualMachineInstanceMigration, names};
use udn_lab_controllers::Severity;

use super::fault::{self, Fault};
use super::handover::{self, Memory, Moments};
use super::record::{Record, now};
use crate::context::Context;
use crate::emulator::machine::{Machine, Place, Start};
use crate::emulator::{memory, network};
use crate::error::Error;
use crate::instance::life::{self, Step, interfaces, netns, step};
use crate::instance::slot::Slot;
use crate::instance::{claims, launcher};
use crate::objects::{finalize, is_deleted, precise};

/// How long a target may be without a node: KubeVirt's default for pending migrations.
const UNSCHEDULED: Duration = Duration::from_secs(300);

/// Follows a migration until its object is gone.
pub(crate) async fn run(context: Context, migration: Arc<VirtualMachineInstanceMigration>) {
    let record = Record::new(context.clone(), migration.clone());
    let course = Course { context, migration, record };
    if let Err(error) = course.all().await {
        tracing::debug!(migration = course.migration.name_any(), %error, "a migration's way ended early");
    }
}

struct Course {
    context: Context,
    migration: Arc<VirtualMachineInstanceMigration>,
    record: Record,
}

/// Everything that a journey needs.
struct Journey<'a> {
    instance: Arc<VirtualMachineInstance>,
    slot: &'a Slot,
    source: Arc<Machine>,
    memory: Memory,
    /// What the migration asks for; else, once it has a target, what the target's node does.
    fault: Option<Fault>,
}

impl Course {
    async fn all(&self) -> Result<(), Error> {
        if !is_deleted(self.migration.as_ref()) {
            finalize(&self.context.client, self.migration.as_ref(), names::MIGRATION_FINALIZER, true).await?;
            if !self.migration.is_final()
                && let Err(error) = self.go().await
            {
                tracing::warn!(migration = self.migration.name_any(), %error, "cannot say how a migration went");
            }
        }
        self.deleted().await;
        finalize(&self.context.client, self.migration.as_ref(), names::MIGRATION_FINALIZER, false).await
    }

    fn namespace(&self) -> String {
        self.migration.namespace().unwrap_or_default()
    }

    fn tell(&self, severity: Severity, reason: &str, message: &str) {
        self.context.events.record(self.migration.as_ref(), severity, reason, message);
    }

    /// Waits for the wish to delete the migration, or for its disappearance.
    async fn deleted(&self) {
        let (namespace, name, uid) = (self.namespace(), self.migration.name_any(), self.migration.uid());
        let look = |all: &crate::watching::Watched<VirtualMachineInstanceMigration>| {
            let now = all.get(&namespace, &name);
            now.is_none_or(|now| now.uid() != uid || is_deleted(now.as_ref())).then_some(())
        };
        self.context.migrations.until(look).await;
    }

    async fn go(&self) -> Result<(), Error> {
        let name = self.migration.spec.vmi_name.clone().unwrap_or_default();
        self.record.label(&name).await?;
        self.record.phase("Pending").await?;
        // Until the guest is on its way, deleting the migration ends it at once.
        let ready = tokio::select! {
            instance = self.instance(&name) => instance,
            () = self.deleted() => return Ok(()),
        };
        let (instance, slot) = match ready {
            Ok(found) => found,
            Err(error) => return self.record.over("Failed", None, Some(&error.to_string())).await,
        };
        // One after the other; those who wait are pending.
        let _turn = tokio::select! {
            turn = slot.migrating.lock() => turn,
            () = self.deleted() => return Ok(()),
        };
        match self.journey(instance, &slot).await {
            Ok(mut journey) => {
                let prepared = tokio::select! {
                    prepared = self.prepare(&mut journey) => prepared,
                    () = self.deleted() => Err(Error::Migration("it was called off".into())),
                    () = life::deleted(&self.context, &slot) => Err(Error::Migration("the instance is being deleted".into())),
                };
                match prepared {
                    Ok(target) => self.travel(&journey, target).await,
                    Err(error) => self.failed(&journey, None, &error).await,
                }
            }
            Err(error) => self.record.over("Failed", None, Some(&error.to_string())).await,
        }
    }

    /// The instance, once it runs.
    async fn instance(&self, name: &str) -> Result<(Arc<VirtualMachineInstance>, Arc<Slot>), Error> {
        let namespace = self.namespace();
        let gone = || Error::Migration(format!("there is no instance {namespace}/{name} that runs"));
        let look = |all: &crate::watching::Watched<VirtualMachineInstance>| match all.get(&namespace, name) {
            None => Some(Err(gone())),
            Some(one) if one.is_final() || is_deleted(one.as_ref()) => Some(Err(gone())),
            Some(one) if one.phase() == InstancePhase::Running => {
                let slot = self.context.slot(&one.uid().unwrap_or_default())?;
                Some(Ok((one, slot)))
            }
            Some(_) => None,
        };
        self.context.instances.until(look).await
    }

    async fn journey<'a>(&self, instance: Arc<VirtualMachineInstance>, slot: &'a Slot) -> Result<Journey<'a>, Error> {
        let source = slot.current().ok_or_else(|| Error::Migration("the guest has ended".into()))?;
        if !instance.has("LiveMigratable") {
            return Err(Error::Migration("the instance is not live migratable".into()));
        }
        if instance.has("Paused") {
            return Err(Error::Migration("the instance is paused".into()));
        }
        let word = self
            .migration
            .annotations()
            .get(names::LAB_MIGRATION)
            .or_else(|| instance.annotations().get(names::LAB_MIGRATION));
        let (machines, _) = self.context.packages(|_| {}).await?;
        let memory = Memory::asked(word.map(String::as_str), machines.qemu)?;
        let fault = fault::of(self.migration.as_ref())?;
        Ok(Journey { instance, slot, source, memory, fault })
    }

    /// Makes the target: its pod, and an emulator in it that waits for the guest.
    async fn prepare(&self, journey: &mut Journey<'_>) -> Result<Arc<Machine>, Error> {
        let annotations = claims::ensure(&self.context, &journey.instance).await?;
        let pod = launcher::create(&self.context, &journey.instance, &annotations, Some(&self.migration)).await?;
        let created = format!("Created migration target pod {}/{}", self.namespace(), pod.name_any());
        self.tell(Severity::Normal, "SuccessfulCreate", &created);
        self.record.phase("Scheduling").await?;
        let waited = tokio::time::timeout(UNSCHEDULED, self.scheduled(&pod)).await;
        let place = waited.map_err(|_| Error::Deadline {
            what: format!("a node for target pod {}", pod.name_any()),
            seconds: UNSCHEDULED.as_secs(),
        })??;
        self.record.phase("Scheduled").await?;
        if journey.fault.is_none() {
            journey.fault = self.fault_at(&place.node).await?;
        }
        self.record.phase("PreparingTarget").await?;
        self.announce(journey, &place).await?;
        let (machines, _) = self.context.packages(|_| {}).await?;
        let slot = journey.slot;
        let mut guest = journey.source.guest.clone();
        if journey.memory == Memory::Copied {
            memory::check(guest.memory_mib, &slot.folder)?;
            guest.memory = slot.folder.join(format!("memory-{}", place.pod_uid));
        }
        let netns = netns(&self.context, &place)?;
        let lost = journey.fault == Some(Fault::WrongBridge);
        let card = network::plug(&netns, Some(&journey.source.card.mac), lost).await?;
        let start = Start { machines, guest, place, card, netns: Some(&netns), folder: &slot.folder, incoming: true };
        let target = Arc::new(start.run().await?);
        handover::receive(&target, journey.memory, journey.fault).await?;
        self.record.phase("TargetReady").await?;
        Ok(target)
    }

    async fn scheduled(&self, pod: &Pod) -> Result<Place, Error> {
        let (namespace, name) = (self.namespace(), pod.name_any());
        let mut told = None;
        loop {
            let look =
                |pods: &crate::watching::Watched<Pod>| step(pods.get(&namespace, &name)?.as_ref(), told.as_deref());
            match self.context.pods.until(look).await {
                Step::Runs(node) => return Ok(Place { node, pod: name, pod_uid: pod.uid().unwrap_or_default() }),
                Step::Unschedulable(message) => {
                    self.record.unschedulable(&message).await?;
                    self.tell(Severity::Warning, "migrationTargetPodUnschedulable", &message);
                    told = Some(message);
                }
                Step::Over(how) => return Err(Error::Migration(how)),
            }
        }
    }

    /// What goes wrong with every migration to a node.
    async fn fault_at(&self, node: &str) -> Result<Option<Fault>, Error> {
        let nodes = Api::<Node>::all(self.context.client.clone());
        fault::of(&nodes.get_metadata(node).await.map_err(Error::request(format!("look at node {node}")))?)
    }

    /// Says on the instance who goes where.
    async fn announce(&self, journey: &Journey<'_>, place: &Place) -> Result<(), Error> {
        let state = json!({
            "migrationUid": self.migration.uid(), "mode": "PreCopy",
            "sourceNode": journey.source.place.node, "sourcePod": journey.source.place.pod,
            "targetNode": place.node, "targetPod": place.pod,
        });
        journey
            .slot
            .update(|status| {
                status["migrationState"] = state;
                status["activePods"][&place.pod_uid] = place.node.clone().into();
            })
            .await
    }

    /// Sends the guest, and says how that went.
    async fn travel(&self, journey: &Journey<'_>, target: Arc<Machine>) -> Result<(), Error> {
        self.record.phase("Running").await?;
        journey.slot.update(|status| status["migrationState"]["startTimestamp"] = now().into()).await?;
        let source = &journey.source;
        let mut sending = std::pin::pin!(handover::send(source, &target, journey.memory, journey.fault));
        let sent = tokio::select! {
            sent = &mut sending => sent,
            () = self.deleted() => {
                // It may be too late for that: then the guest has moved.
                let _ = source.qmp.run("migrate_cancel", json!({})).await;
                sending.await
            }
        };
        match sent {
            Ok(moments) => self.arrived(journey, target.clone(), &moments).await,
            Err(error) => self.failed(journey, Some(&target), &error).await,
        }
    }

    /// The guest runs at the target: the network is told at once, everybody else after that.
    async fn arrived(&self, journey: &Journey<'_>, target: Arc<Machine>, moments: &Moments) -> Result<(), Error> {
        let place = target.place.clone();
        let patch = json!({"metadata": {"annotations": {names::TARGET_READY: precise(moments.resumed)}}});
        let pods = Api::<Pod>::namespaced(self.context.client.clone(), &self.namespace());
        let told = pods.patch_metadata(&place.pod, &PatchParams::default(), &Patch::Merge(patch)).await;
        journey.slot.machine.send_replace(Some(target.clone()));
        let total = journey.source.qmp.migration().await.ok().and_then(|migration| migration.total_time);
        let found = interfaces(&self.context, &journey.instance, &target);
        let written = journey
            .slot
            .update(|status| {
                status["nodeName"] = place.node.clone().into();
                status["interfaces"] = found;
                let state = &mut status["migrationState"];
                state["targetNodeDomainReadyTimestamp"] = crate::objects::moment(moments.resumed).into();
                state["targetNodeDomainDetected"] = true.into();
                state["endTimestamp"] = now().into();
                state["completed"] = true.into();
            })
            .await;
        self.label(journey, &place).await?;
        self.leave(journey, &target).await;
        told.map_err(Error::request(format!("say on pod {} that the guest runs there", place.pod)))?;
        written?;
        let source_uid = &journey.source.place.pod_uid;
        journey
            .slot
            .update(|status| {
                if let Some(pods) = status["activePods"].as_object_mut() {
                    pods.remove(source_uid);
                }
            })
            .await?;
        self.record.moments(moments, total).await?;
        let message = format!("Source node {} reported migration succeeded", journey.source.place.node);
        self.context.events.record(
            journey.instance.as_ref(),
            Severity::Normal,
            "Migrated",
            &format!("The VirtualMachineInstance migrated to node {}.", place.node),
        );
        self.tell(Severity::Normal, "SuccessfulMigration", &message);
        self.record.over("Succeeded", self.state(journey).await, None).await
    }

    async fn label(&self, journey: &Journey<'_>, place: &Place) -> Result<(), Error> {
        let labels = json!({names::NODE_NAME: place.node, "kubevirt.io/migrationTargetNodeName": place.node});
        let patch = Patch::Merge(json!({"metadata": {"uid": journey.slot.uid, "labels": labels}}));
        let labelled = journey.slot.api().patch_metadata(&journey.slot.name, &PatchParams::default(), &patch).await;
        labelled
            .map(drop)
            .map_err(Error::request(format!("label instance {}/{}", journey.slot.namespace, journey.slot.name)))
    }

    /// Ends what is left at the source.
    async fn leave(&self, journey: &Journey<'_>, target: &Machine) {
        let source = &journey.source;
        source.kill().await;
        if source.guest.memory != target.guest.memory {
            let _ = tokio::fs::remove_file(&source.guest.memory).await;
        }
        if let Some(node) = self.context.nodes.get(&source.place.node) {
            node.end(&source.place.pod_uid, true);
        }
    }

    /// The guest runs where it was, if it runs at all: nothing is left at the target.
    async fn failed(&self, journey: &Journey<'_>, target: Option<&Machine>, error: &Error) -> Result<(), Error> {
        let why = error.to_string();
        let source = &journey.source;
        if target.is_some() && !handover::stays(source).await {
            // A guest that runs nowhere is no guest.
            source.kill().await;
        }
        if let Some(target) = target {
            target.kill().await;
            if target.guest.memory != source.guest.memory {
                let _ = tokio::fs::remove_file(&target.guest.memory).await;
            }
        }
        let uids = self.clear(target.is_some()).await?;
        let called_off = self.is_deleted();
        journey
            .slot
            .update(|status| {
                if let Some(pods) = status["activePods"].as_object_mut() {
                    pods.retain(|uid, _| !uids.contains(uid));
                }
                if status["migrationState"]["migrationUid"] != json!(self.migration.uid()) {
                    return;
                }
                let state = &mut status["migrationState"];
                state["endTimestamp"] = now().into();
                state["completed"] = true.into();
                state["failed"] = true.into();
                state["failureReason"] = why.clone().into();
                if called_off || journey.fault == Some(Fault::Aborted) {
                    state["abortRequested"] = true.into();
                    state["abortStatus"] = "Succeeded".into();
                }
            })
            .await?;
        self.tell(Severity::Warning, "FailedMigration", &why);
        self.record.over("Failed", self.state(journey).await, Some(&why)).await
    }

    /// Ends the target's pods, of which there may be one that nobody remembers creating; their UIDs. `begun`: the guest was on
    /// its way to it, so that it ends like a container that failed; else it is deleted.
    async fn clear(&self, begun: bool) -> Result<Vec<String>, Error> {
        let (namespace, uid) = (self.namespace(), self.migration.uid().unwrap_or_default());
        let pods = Api::<Pod>::namespaced(self.context.client.clone(), &namespace);
        let mine = ListParams::default().labels(&format!("{}={uid}", names::MIGRATION_JOB));
        let mine = pods.list(&mine).await.map_err(Error::request(format!("list target pods in {namespace}")))?;
        for pod in &mine {
            let node = pod.spec.as_ref().and_then(|spec| self.context.nodes.get(spec.node_name.as_deref()?));
            match node {
                Some(node) if begun => node.end(&pod.uid().unwrap_or_default(), false),
                _ => launcher::delete(&self.context, &namespace, &pod.name_any()).await?,
            }
        }
        Ok(mine.iter().filter_map(ResourceExt::uid).collect())
    }

    fn is_deleted(&self) -> bool {
        let now = self.context.migrations.get(&self.namespace(), &self.migration.name_any());
        now.is_none_or(|now| is_deleted(now.as_ref()))
    }

    /// What the instance says of this migration.
    async fn state(&self, journey: &Journey<'_>) -> Option<Value> {
        let state = journey.slot.told("migrationState").await;
        (state["migrationUid"] == json!(self.migration.uid())).then_some(state)
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    #[test]
    fn ready_timestamps_are_precise() {
        let at: Timestamp = "2026-01-02T03:04:05.000678Z".parse().unwrap();
        assert_eq!(precise(at), "2026-01-02T03:04:05.000678Z");
    }
}
