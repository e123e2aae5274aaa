//! VMs: KubeVirt's objects, the agent in the guest, and what is done to both.
//!
//! For everybody else a VM is a pod of its name: this folder knows which launcher pod that is right now.
//!
//! * this file: which VMs there are, their launcher pods, and waiting until a guest answers
//! * `act`: migrations, restarts
//! * `course`: a migration's course from what its objects say; pure
//! * `guest`: the inside of a guest as facts see it
//! * `heard`: announcements

pub(crate) mod act;
mod course;
pub(crate) mod guest;
mod heard;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub(crate) use self::course::TARGET_READY;
pub(crate) use self::heard::Ear;
use kube::api::DynamicObject;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout_at};
use udn_agent::protocol::Transport as Wire;
use udn_model::fact::Identity;
use udn_model::migration::Migration;
use udn_model::words::Transport;
use udn_model::world::{LISTENS_ANNOTATION, PodRef, VM_KIND, VM_NAME_LABEL, listens};

use crate::claims::pod_state;
use crate::error::Error;
use crate::objects::Real;
use crate::world::KubeWorld;

/// `apiVersion` of VMs, their instances and migrations.
pub(crate) const KUBEVIRT: &str = "kubevirt.io/v1";
/// The kind of a VM that runs.
pub(crate) const INSTANCE_KIND: &str = "VirtualMachineInstance";
/// The kind of a migration.
pub(crate) const MIGRATION_KIND: &str = "VirtualMachineInstanceMigration";
/// The image that guests are started from where nothing else is said.
pub const GUEST_IMAGE: &str = "udn-conformance.local/guest";
/// What a pod says that cannot have its image.
const NO_IMAGE: [&str; 4] = ["ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName"];
/// How long is waited for whoever starts a VM beyond a pod's time: a guest has to boot, emulated at worst.
const BOOT_EXTRA: Duration = Duration::from_secs(60);
/// How long a guest that answers may take to be configured by DHCP and router advertisements.
const CONFIGURED: Duration = Duration::from_secs(30);
/// How often it is asked.
const POLL: Duration = Duration::from_millis(200);

/// What is known of the VMs of a world.
#[derive(Debug, Default)]
pub(crate) struct Vms {
    known: Mutex<BTreeMap<PodRef, Known>>,
    /// Migrations that nobody has asked about yet.
    migrations: Mutex<Vec<Migration>>,
    /// When each VM last began to run elsewhere, microseconds since the Unix epoch.
    switched: Mutex<BTreeMap<PodRef, i64>>,
    /// What was first seen of each guest.
    identities: Mutex<BTreeMap<PodRef, Identity>>,
    count: Mutex<u32>,
}

/// A VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    /// What its agent listens on.
    pub(crate) ports: Vec<(Wire, u16)>,
    /// The name of its IPAMClaim.
    pub(crate) claim: String,
}

impl Vms {
    /// Takes note of a VM by its manifest.
    pub(crate) fn note(&self, vm: PodRef, manifest: &Value) {
        let template = &manifest["spec"]["template"];
        let said = template["metadata"]["annotations"][LISTENS_ANNOTATION].as_str().unwrap_or_default();
        let wire = |(transport, port)| match transport {
            Transport::Tcp => Some((Wire::Tcp, port)),
            Transport::Udp => Some((Wire::Udp, port)),
            Transport::Sctp | Transport::Icmp => None,
        };
        let ports = listens(said).unwrap_or_default().into_iter().filter_map(wire).collect();
        let networks = template["spec"]["networks"].as_array();
        let own = networks.into_iter().flatten().find(|network| network["pod"].is_object());
        let interface = own.and_then(|network| network["name"].as_str()).unwrap_or("default");
        let claim = format!("{}.{interface}", vm.name);
        lock(&self.known).insert(vm, Known { ports, claim });
    }

    pub(crate) fn get(&self, vm: &PodRef) -> Option<Known> {
        lock(&self.known).get(vm).cloned()
    }

    pub(crate) fn forget(&self, vm: &PodRef) {
        lock(&self.known).remove(vm);
        lock(&self.identities).remove(vm);
    }

    /// The migrations since the last such question.
    pub(crate) fn migrations(&self) -> Vec<Migration> {
        std::mem::take(&mut lock(&self.migrations))
    }

    fn migrated(&self, migration: Migration) {
        if let (true, Some(at)) = (migration.succeeded, migration.switched_us()) {
            lock(&self.switched).insert(migration.vm.clone(), at);
        }
        lock(&self.migrations).push(migration);
    }

    fn next_number(&self) -> u32 {
        let mut count = lock(&self.count);
        *count += 1;
        *count
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whose launcher pod this is.
pub(crate) fn owner(pod: &Value) -> Option<&str> {
    pod["metadata"]["labels"][VM_NAME_LABEL].as_str()
}

/// Whether a pod's containers have ended.
pub(crate) fn has_ended(pod: &Value) -> bool {
    matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))
}

/// The instance of a VM: an object of its name.
pub(crate) fn instance(world: &KubeWorld, vm: &PodRef) -> Real {
    Real {
        api_version: KUBEVIRT.into(),
        kind: INSTANCE_KIND.into(),
        namespace: Some(world.naming.real(&vm.namespace)),
        name: vm.name.clone(),
    }
}

/// The VM itself.
pub(crate) fn machine(world: &KubeWorld, vm: &PodRef) -> Real {
    Real { kind: VM_KIND.into(), ..instance(world, vm) }
}

/// Launcher pods of a VM that have not ended, the eldest first.
pub(crate) fn launchers(world: &KubeWorld, vm: &PodRef) -> Vec<Arc<Value>> {
    let namespace = world.naming.real(&vm.namespace);
    let mut pods: Vec<Arc<Value>> = world
        .pods
        .all()
        .into_iter()
        .filter(|((of, _), pod)| *of == namespace && owner(pod) == Some(&vm.name) && !has_ended(pod))
        .map(|(_, pod)| pod)
        .collect();
    pods.sort_by_key(|pod| pod["metadata"]["creationTimestamp"].as_str().unwrap_or_default().to_owned());
    pods
}

/// Waits until VMs run, on the nodes that they were placed on, and their guests answer and are configured.
///
/// # Errors
/// Which one does not in time, with what its objects say.
pub(crate) async fn wait(world: &KubeWorld, vms: &[PodRef]) -> Result<(), Error> {
    futures::future::try_join_all(vms.iter().map(|vm| wait_one(world, vm))).await.map(drop)
}

async fn wait_one(world: &KubeWorld, vm: &PodRef) -> Result<(), Error> {
    runs(world, vm).await?;
    world.attach(vm).await.map_err(|error| answered(world, vm, error))?;
    configured(world, vm).await
}

/// That an agent does not answer may be said better by its VM's objects.
fn answered(world: &KubeWorld, vm: &PodRef, error: Error) -> Error {
    match error {
        Error::Agent { pod, source } => {
            let state = launchers(world, vm).last().map_or_else(|| "no launcher pod".into(), |pod| pod_state(pod));
            let told = format!("{source}; its launcher pod: {state}");
            Error::Guest { vm: pod, why: told }
        }
        other => other,
    }
}

/// How long a VM may take to run, and after that its guest to answer.
pub(crate) fn boots_within(world: &KubeWorld) -> Duration {
    world.ready_deadline + BOOT_EXTRA
}

/// Waits until an instance runs.
async fn runs(world: &KubeWorld, vm: &PodRef) -> Result<(), Error> {
    let real = instance(world, vm);
    let deadline = boots_within(world);
    let running = |object: Option<&DynamicObject>| object.is_some_and(|it| it.data["status"]["phase"] == "Running");
    let wait = world
        .objects
        .wait(&real, "to run", deadline, running, |last| last.map_or_else(|| "it is not there".into(), tell));
    let error = tokio::select! {
        waited = wait => match waited {
            Ok(()) => return Ok(()),
            Err(error) => error,
        },
        failed = hopeless(world, vm) => failed,
    };
    let Error::Deadline { awaited, after, last } = error else { return Err(error) };
    let last = format!("{last}; {}", describe(world, vm).await);
    Err(Error::Deadline { awaited, after, last })
}

/// Returns when a launcher pod of the VM cannot have its image: nothing will change about that.
async fn hopeless(world: &KubeWorld, vm: &PodRef) -> Error {
    loop {
        for pod in launchers(world, vm) {
            if let Some((image, why)) = missing_image(&pod) {
                return Error::GuestImage { vm: vm.to_string(), image, why };
            }
        }
        sleep(POLL).await;
    }
}

fn missing_image(pod: &Value) -> Option<(String, String)> {
    let of = |key: &str| pod["status"][key].as_array().into_iter().flatten().collect::<Vec<_>>();
    of("containerStatuses").into_iter().chain(of("initContainerStatuses")).find_map(|status| {
        let waiting = &status["state"]["waiting"];
        let reason = waiting["reason"].as_str().filter(|reason| NO_IMAGE.contains(reason))?;
        let image = status["image"].as_str().unwrap_or_default().to_owned();
        Some((image, format!("{reason} {}", waiting["message"].as_str().unwrap_or_default())))
    })
}

/// An instance in one line.
fn tell(instance: &Value) -> String {
    let phase = instance["status"]["phase"].as_str().unwrap_or("no phase yet");
    let conditions = instance["status"]["conditions"].as_array().into_iter().flatten();
    let told: Vec<String> = conditions
        .filter(|condition| condition["status"] != "True")
        .map(|condition| {
            let text = |key: &str| condition[key].as_str().unwrap_or_default().to_owned();
            format!("{} {} {}", text("type"), text("reason"), text("message"))
        })
        .collect();
    if told.is_empty() { format!("phase {phase}") } else { format!("phase {phase}; {}", told.join("; ")) }
}

/// What objects say of a VM: its own conditions, its launcher pods.
pub(crate) async fn describe(world: &KubeWorld, vm: &PodRef) -> String {
    let mut parts = Vec::new();
    if let Ok(Some(object)) = world.objects.get(&machine(world, vm)).await {
        let status = object["status"]["printableStatus"].as_str().unwrap_or("no status");
        parts.push(format!("the VM says {status}"));
    }
    let pods = launchers(world, vm);
    if pods.is_empty() {
        parts.push("it has no launcher pod".into());
    }
    for pod in pods {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        parts.push(format!("pod {name}: {}", pod_state(&pod)));
    }
    parts.join("; ")
}

/// Waits until the guest has what its network gives it.
async fn configured(world: &KubeWorld, vm: &PodRef) -> Result<(), Error> {
    let until = Instant::now() + CONFIGURED;
    loop {
        let asked = timeout_at(until, world.view_of(vm, true)).await;
        let lacking = match asked {
            Ok(Ok(view)) => match guest::lacks(&view) {
                None => return Ok(()),
                Some(lacking) => lacking,
            },
            Ok(Err(why)) => why,
            Err(_) => "the guest does not answer".into(),
        };
        if Instant::now() >= until {
            let awaited = format!("the guest of VM {vm} to be configured by DHCP and router advertisements");
            // It is for the matrix to say that this is wrong: facts and probes show it.
            tracing::debug!(awaited, lacking, "not configured");
            return Ok(());
        }
        sleep(POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_without_its_image_says_which() {
        let pod = json!({ "status": { "initContainerStatuses": [{ "name": "kernel-boot", "image": "udn-conformance.local/guest:latest",
            "state": { "waiting": { "reason": "ErrImagePull", "message": "no such host" } } }] } });
        let (image, why) = missing_image(&pod).unwrap();
        assert_eq!((image.as_str(), why.as_str()), ("udn-conformance.local/guest:latest", "ErrImagePull no such host"));
        assert_eq!(missing_image(&json!({ "status": { "phase": "Pending" } })), None);
    }

    #[test]
    fn an_instance_in_one_line() {
        let vmi = json!({ "status": { "phase": "Scheduling", "conditions": [
            { "type": "Ready", "status": "False", "reason": "GuestNotRunning", "message": "Guest VM is not reported as running" },
            { "type": "LiveMigratable", "status": "True" }] } });
        assert_eq!(tell(&vmi), "phase Scheduling; Ready GuestNotRunning Guest VM is not reported as running");
    }

    #[test]
    fn a_vm_is_known_by_its_manifest() {
        let vms = Vms::default();
        let vm = PodRef::new("red", "db");
        vms.note(
            vm.clone(),
            &json!({ "spec": { "template": {
            "metadata": { "annotations": { LISTENS_ANNOTATION: "7007/TCP,8080/UDP" } },
            "spec": { "networks": [{ "name": "happy", "pod": {} }] } } } }),
        );
        let known = vms.get(&vm).unwrap();
        assert_eq!(known, Known { ports: vec![(Wire::Tcp, 7007), (Wire::Udp, 8080)], claim: "db.happy".into() });
    }
}
