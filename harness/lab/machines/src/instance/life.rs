//! One instance's way: Pending, Scheduling, Scheduled, Running, and its end.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use udn_api::kubevirt::{VirtualMachineInstance, names};
use udn_lab_controllers::Severity;
use udn_lab_sys::netns::Netns;
use udn_lab_sys::packages::{Machines, Progress};

use super::slot::{Slot, remove_condition, set_condition, set_phase};
use super::{claims, launcher};
use crate::context::Context;
use crate::emulator::command::{Guest, arguments};
use crate::emulator::machine::{Ended, Machine, Place, Start};
use crate::emulator::network::Card;
use crate::emulator::{memory, network};
use crate::error::Error;
use crate::objects::{finalize, is_deleted};
use crate::watching::Watched;

/// Pause before something that failed for a reason outside of the instance is tried again.
const AGAIN: Duration = Duration::from_secs(15);
/// Pause before what is left of an instance is cleared away once more.
const SOON: Duration = Duration::from_secs(1);

/// Why an instance comes to its end.
enum End {
    /// Somebody deleted it.
    Deleted,
    /// Its guest or its pod ended.
    Over(Ended),
}

/// Follows an instance until nothing of it is left.
pub(crate) async fn run(context: Context, instance: Arc<VirtualMachineInstance>) {
    let folder = context.folder.join(instance.uid().unwrap_or_default().split('-').next().unwrap_or_default());
    let slot = Arc::new(Slot::new(context.client.clone(), &instance, folder));
    context.remember(&slot);
    let life = Life { context: context.clone(), slot: slot.clone(), instance };
    life.all().await;
    let _ = tokio::fs::remove_dir_all(&slot.folder).await;
    context.forget(&slot.uid);
}

struct Life {
    context: Context,
    slot: Arc<Slot>,
    instance: Arc<VirtualMachineInstance>,
}

impl Life {
    async fn all(&self) {
        if !self.instance.is_final() && !is_deleted(self.instance.as_ref()) {
            let lived = match self.live().await {
                // Its object or its namespace went in between.
                Err(error) if error.is_gone() => Ok(()),
                Err(error) => self.over(&Ended { well: false, how: error.to_string() }).await,
                Ok(()) => Ok(()),
            };
            if let Err(error) = lived {
                tracing::warn!(instance = self.slot.name, %error, "cannot say how an instance ended");
            }
        }
        self.deleted().await;
        while let Err(error) = self.clear().await {
            tracing::warn!(instance = self.slot.name, %error, "an instance that was deleted is not cleared away yet");
            tokio::time::sleep(SOON).await;
        }
    }

    /// Until the guest is no more, or somebody wants that.
    async fn live(&self) -> Result<(), Error> {
        finalize(&self.context.client, self.instance.as_ref(), names::INSTANCE_FINALIZER, true).await?;
        let end = tokio::select! {
            () = self.deleted() => End::Deleted,
            end = self.until_end() => end?,
        };
        match end {
            End::Over(ended) => self.over(&ended).await,
            End::Deleted => Ok(()),
        }
    }

    fn tell(&self, severity: Severity, reason: &str, message: &str) {
        self.context.events.record(self.instance.as_ref(), severity, reason, message);
    }

    async fn deleted(&self) {
        deleted(&self.context, &self.slot).await;
    }

    /// The pod as last seen; none once it is gone.
    fn pod(&self, name: &str) -> Option<Arc<Pod>> {
        self.context.pods.get(&self.slot.namespace, name)
    }

    async fn until_end(&self) -> Result<End, Error> {
        self.slot
            .update(|status| {
                set_phase(status, "Pending");
                set_condition(status, "Ready", false, "GuestNotRunning", "Guest VM is not reported as running");
            })
            .await?;
        if let Err(error) = launcher::check(&self.instance).and_then(|()| is_copy(self.instance.as_ref()).map(drop)) {
            return Ok(End::Over(Ended { well: false, how: error.to_string() }));
        }
        self.prepare().await?;
        let annotations = claims::ensure(&self.context, &self.instance).await?;
        let pod = launcher::create(&self.context, &self.instance, &annotations, None).await?;
        self.tell(Severity::Normal, "SuccessfulCreate", &format!("Created virtual machine pod {}", pod.name_any()));
        self.slot.phase("Scheduling").await?;
        let place = match self.scheduled(&pod).await? {
            Ok(place) => place,
            Err(ended) => return Ok(End::Over(ended)),
        };
        let machine = match self.start(&place).await {
            Ok(machine) => Arc::new(machine),
            Err(error) => {
                self.tell(Severity::Warning, "SyncFailed", &error.to_string());
                return Ok(End::Over(Ended { well: false, how: error.to_string() }));
            }
        };
        self.slot.machine.send_replace(Some(machine.clone()));
        self.running(&machine).await?;
        self.tell(Severity::Normal, "Started", "VirtualMachineInstance started.");
        Ok(self.until_over().await)
    }

    /// Fetches packages unless they are there; tries again for as long as the instance is wanted.
    async fn prepare(&self) -> Result<(), Error> {
        loop {
            let (events, about) = (self.context.events.clone(), udn_lab_controllers::reference(self.instance.as_ref()));
            let progress = move |progress: Progress| {
                tracing::info!(?progress, "packages for virtual machines");
                // One event for what takes long, not one a package.
                let text = match &progress {
                    Progress::Listing { origin } => {
                        format!("Listing packages of {origin} for QEMU and the guest's kernel")
                    }
                    Progress::Fetching { number: 1, of, bytes, .. } => {
                        format!("Fetching {of} packages, {} MB", bytes / 1_000_000)
                    }
                    Progress::Unpacking { number: 1, of } => format!("Unpacking {of} packages"),
                    Progress::WaitingForOther => "Waiting for another program that fetches packages".into(),
                    _ => return,
                };
                events.record_reference(about.clone(), Severity::Normal, "Preparing", &text);
            };
            match self.context.packages(progress).await {
                Ok(_) => {
                    return self.slot.update(|status| remove_condition(status, "Synchronized")).await;
                }
                Err(error) => {
                    let message = error.to_string();
                    self.tell(Severity::Warning, "FailedPrepare", &message);
                    self.slot
                        .update(|status| set_condition(status, "Synchronized", false, "FailedPrepare", &message))
                        .await?;
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }

    /// Waits until the launcher pod runs.
    async fn scheduled(&self, pod: &Pod) -> Result<Result<Place, Ended>, Error> {
        let name = pod.name_any();
        let mut told = None;
        loop {
            let look = |_: &_| match self.pod(&name) {
                Some(pod) => step(&pod, told.as_deref()),
                // Not seen yet, or gone: which of the two the API server knows.
                None => None,
            };
            match self.context.pods.until(look).await {
                Step::Runs(node) => {
                    let place = Place { node, pod: name, pod_uid: pod.uid().unwrap_or_default() };
                    self.assigned(&place).await?;
                    return Ok(Ok(place));
                }
                Step::Unschedulable(message) => {
                    self.slot
                        .update(|status| set_condition(status, "PodScheduled", false, "Unschedulable", &message))
                        .await?;
                    told = Some(message);
                }
                Step::Over(how) => return Ok(Err(Ended { well: false, how })),
            }
        }
    }

    async fn assigned(&self, place: &Place) -> Result<(), Error> {
        let patch = json!({"metadata": {"uid": self.slot.uid, "labels": {names::NODE_NAME: place.node}}});
        let labelled =
            self.slot.api().patch_metadata(&self.slot.name, &PatchParams::default(), &Patch::Merge(patch)).await;
        labelled.map_err(Error::request(format!("label instance {}/{}", self.slot.namespace, self.slot.name)))?;
        self.slot
            .update(|status| {
                set_phase(status, "Scheduled");
                remove_condition(status, "PodScheduled");
                status["nodeName"] = place.node.clone().into();
                status["activePods"] = json!({&place.pod_uid: place.node});
            })
            .await
    }

    async fn start(&self, place: &Place) -> Result<Machine, Error> {
        let (machines, image) = self.context.packages(|_| {}).await?;
        let slot = &self.slot;
        tokio::fs::create_dir_all(&slot.folder)
            .await
            .map_err(Error::file(format!("create {}", slot.folder.display())))?;
        let domain = &self.instance.spec.domain;
        let memory_mib = launcher::memory_mib(&self.instance);
        memory::check(memory_mib, &slot.folder)?;
        let words = domain.firmware.as_ref().and_then(|firmware| firmware.kernel_boot.as_ref()?.kernel_args.as_deref());
        let guest = Guest {
            name: format!("{}_{}", slot.namespace, slot.name),
            cores: domain.cpu.as_ref().and_then(|cpu| cpu.cores).unwrap_or(1).max(1),
            memory_mib,
            memory: slot.folder.join("memory"),
            kernel: image.kernel.clone(),
            initramfs: image.initramfs.clone(),
            arguments: arguments(words.unwrap_or_default()),
        };
        let netns = netns(&self.context, place)?;
        let card = network::plug(&netns, None, false).await?;
        let snapshot = if is_copy(self.instance.as_ref())? {
            let snapshot = self.context.snapshots.of(machines, &guest, card.mtu, &self.context.folder).await;
            let tell = |why: &Arc<str>| {
                self.tell(Severity::Warning, "SnapshotFailed", &format!("The guest boots from its kernel: {why}"));
            };
            snapshot.inspect_err(tell).ok()
        } else {
            None
        };
        let Some(snapshot) = snapshot else {
            return self.emulator(machines, guest, place, card, &netns, false).await;
        };
        snapshot.give_memory(&guest.memory).await?;
        let machine = self.emulator(machines, guest, place, card, &netns, true).await?;
        snapshot.go_on(&machine).await?;
        self.tell(Severity::Normal, "FromSnapshot", "The guest goes on from a copy of one that has booted.");
        Ok(machine)
    }

    async fn emulator(
        &self,
        machines: &Machines,
        guest: Guest,
        place: &Place,
        card: Card,
        netns: &Netns,
        incoming: bool,
    ) -> Result<Machine, Error> {
        let folder = &self.slot.folder;
        Start { machines, guest, place: place.clone(), card, netns: Some(netns), folder, incoming }.run().await
    }

    async fn running(&self, machine: &Machine) -> Result<(), Error> {
        let interfaces = interfaces(&self.context, &self.instance, machine);
        let migratable = migratable(&self.instance);
        self.slot
            .update(|status| {
                set_phase(status, "Running");
                set_condition(status, "Ready", true, "", "");
                match &migratable {
                    Ok(()) => set_condition(status, "LiveMigratable", true, "", ""),
                    Err(why) => set_condition(status, "LiveMigratable", false, "InterfaceNotLiveMigratable", why),
                }
                status["interfaces"] = interfaces;
                let memory = format!("{}Mi", machine.guest.memory_mib);
                status["memory"] = json!({"guestAtBoot": memory, "guestCurrent": memory, "guestRequested": memory});
                status["migrationMethod"] = "LiveMigration".into();
                status["currentCPUTopology"] = json!({"cores": machine.guest.cores, "sockets": 1, "threads": 1});
                status["machine"] = json!({"type": "q35"});
            })
            .await
    }

    /// Until the guest, or the pod that stands for it, is no more; wherever it has moved meanwhile.
    async fn until_over(&self) -> End {
        let mut current = self.slot.machine.subscribe();
        loop {
            let Some(machine) = current.borrow_and_update().clone() else {
                return End::Over(Ended { well: false, how: "the machine is gone".into() });
            };
            let lost = async {
                let gone = |_: &_| {
                    let pod = self.pod(&machine.place.pod);
                    pod.is_none_or(|pod| is_deleted(pod.as_ref()) || is_over(&pod)).then_some(())
                };
                self.context.pods.until(gone).await;
            };
            tokio::select! {
                biased;
                _ = current.changed() => {}
                ended = machine.ended() => {
                    // A migration that is about to tell where the guest is now has the word.
                    let _migration = self.slot.migrating.lock().await;
                    if !current.has_changed().unwrap_or(false) {
                        return End::Over(ended);
                    }
                }
                () = lost => {
                    let how = format!("launcher pod {} is gone", machine.place.pod);
                    return End::Over(Ended { well: false, how });
                }
            }
        }
    }

    async fn over(&self, ended: &Ended) -> Result<(), Error> {
        self.kill().await;
        for pod in self.launchers() {
            if let Some(node) = pod.spec.as_ref().and_then(|spec| self.context.nodes.get(spec.node_name.as_deref()?)) {
                node.end(&pod.uid().unwrap_or_default(), ended.well);
            }
        }
        let (phase, reason, severity) = if ended.well {
            ("Succeeded", "Stopped", Severity::Normal)
        } else {
            ("Failed", "Stopped", Severity::Warning)
        };
        let message = if ended.well { "The VirtualMachineInstance was shut down." } else { ended.how.as_str() };
        self.tell(severity, reason, message);
        self.slot
            .update(|status| {
                set_phase(status, phase);
                set_condition(
                    status,
                    "Ready",
                    false,
                    if ended.well { "PodTerminating" } else { "GuestNotRunning" },
                    message,
                );
                status["reason"] = if ended.well { Value::Null } else { ended.how.clone().into() };
            })
            .await
    }

    fn launchers(&self) -> Vec<Arc<Pod>> {
        let mine = |pod: &Arc<Pod>| pod.labels().get(names::CREATED_BY) == Some(&self.slot.uid);
        self.context.pods.all().into_iter().filter(mine).collect()
    }

    /// After the instance was deleted: guest, pods, claims, and then the object.
    async fn clear(&self) -> Result<(), Error> {
        self.kill().await;
        // A migration that is under way hears of the deletion and ends; one that comes now finds no guest.
        let _migration = self.slot.migrating.lock().await;
        self.kill().await;
        let mut changes = self.context.pods.changes();
        loop {
            changes.mark_unchanged();
            let left = self.launchers();
            if left.is_empty() {
                break;
            }
            for pod in left.iter().filter(|pod| !is_deleted(pod.as_ref())) {
                launcher::delete(&self.context, &self.slot.namespace, &pod.name_any()).await?;
            }
            changes.changed().await.map_err(|_| Error::Stopped("the watch of pods ended".into()))?;
        }
        if self.instance.owner_references().is_empty() {
            claims::release(&self.context, &self.slot.namespace, &self.slot.name).await?;
        }
        finalize(&self.context.client, self.instance.as_ref(), names::INSTANCE_FINALIZER, false).await
    }

    /// Ends the guest, wherever it is now.
    async fn kill(&self) {
        if let Some(machine) = self.slot.machine.send_replace(None) {
            machine.kill().await;
        }
    }
}

/// Waits for the wish to delete an instance, or for its disappearance.
pub(crate) async fn deleted(context: &Context, slot: &Slot) {
    let look = |all: &Watched<VirtualMachineInstance>| {
        let now = all.get(&slot.namespace, &slot.name);
        now.is_none_or(|now| now.uid().as_ref() != Some(&slot.uid) || is_deleted(now.as_ref())).then_some(())
    };
    context.instances.until(look).await;
}

/// What a launcher pod has come to.
pub(crate) enum Step {
    Runs(String),
    Unschedulable(String),
    Over(String),
}

/// The next thing to know of a launcher pod; `told`: what is known already.
pub(crate) fn step(pod: &Pod, told: Option<&str>) -> Option<Step> {
    let name = pod.name_any();
    if is_deleted(pod) {
        return Some(Step::Over(format!("launcher pod {name} was deleted")));
    }
    if is_over(pod) {
        return Some(Step::Over(format!("launcher pod {name} has ended")));
    }
    let status = pod.status.as_ref()?;
    if status.phase.as_deref() == Some("Running") {
        return Some(Step::Runs(pod.spec.as_ref()?.node_name.clone()?));
    }
    let conditions = status.conditions.as_deref().unwrap_or_default();
    let scheduled = conditions.iter().find(|one| one.type_ == "PodScheduled" && one.status == "False")?;
    let message = scheduled.message.clone().unwrap_or_default();
    (told != Some(message.as_str())).then_some(Step::Unschedulable(message))
}

/// Whether a guest goes on from a copy of one that has booted.
///
/// # Errors
/// When something else is asked for that there is not.
fn is_copy(instance: &impl ResourceExt) -> Result<bool, Error> {
    match instance.annotations().get(names::LAB_BOOT).map(String::as_str) {
        None | Some("snapshot") => Ok(true),
        Some("kernel") => Ok(false),
        Some(word) => Err(Error::Unsupported {
            asked: format!("{} is {word:?}", names::LAB_BOOT),
            has: "the ways `snapshot` and `kernel`",
        }),
    }
}

/// Whether a pod's containers have ended for good.
pub(crate) fn is_over(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// The network namespace of a launcher pod.
pub(crate) fn netns(context: &Context, place: &Place) -> Result<Netns, Error> {
    let found = context.nodes.get(&place.node).and_then(|node| node.netns(&place.pod_uid));
    found.ok_or_else(|| Error::Network {
        action: "enter the network namespace".into(),
        pod: place.pod.clone(),
        reason: format!("node {} has no such pod", place.node),
    })
}

/// `status.interfaces`: what the network gave the launcher pod, which is the guest's.
pub(crate) fn interfaces(context: &Context, instance: &VirtualMachineInstance, machine: &Machine) -> Value {
    let pod = context.pods.get(&instance.namespace().unwrap_or_default(), &machine.place.pod);
    let networks = pod.as_ref().and_then(|pod| pod.annotations().get(udn_api::names::POD_NETWORKS).cloned());
    let networks: Value = networks.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    let primary = networks.as_object().and_then(|all| all.values().find(|network| network["role"] == "primary"));
    let addresses: Vec<&str> = primary
        .and_then(|network| network["ip_addresses"].as_array())
        .into_iter()
        .flatten()
        .filter_map(|address| address.as_str()?.split('/').next())
        .collect();
    let name = claims::pod_interface(instance).map_or("default", |interface| interface.name.as_str());
    let mut interface = json!({
        "name": name, "mac": machine.card.mac, "podInterfaceName": machine.card.interface, "infoSource": "domain",
        "queueCount": 1, "linkState": "up",
    });
    if let Some(first) = addresses.first() {
        interface["ipAddress"] = (*first).into();
        interface["ipAddresses"] = json!(addresses);
    }
    json!([interface])
}

/// Whether the guest can move: bound to the pod's network in a way that the network follows.
fn migratable(instance: &VirtualMachineInstance) -> Result<(), String> {
    let stuck = instance.spec.domain.devices.interfaces.iter().find(|interface| interface.other.contains_key("bridge"));
    match stuck {
        Some(interface) => Err(format!(
            "cannot migrate VMI which does not use masquerade, bridge with kubevirt.io/allow-pod-bridge-network-live-migration VM \
             annotation or a migratable plugin to connect to the pod network (interface {})",
            interface.name
        )),
        None => Ok(()),
    }
}
