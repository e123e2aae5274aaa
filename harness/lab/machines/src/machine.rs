//! Machines: each has an instance or none, as its run strategy and what was asked say. Level-triggered: every change of a
//! machine or an instance has all machines looked at.

use std::collections::HashMap;
use std::time::Duration;

use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::time::Instant;
use udn_api::kubevirt::{InstancePhase, RunStrategy, VirtualMachine, VirtualMachineInstance, names};
use udn_lab_controllers::Severity;

use crate::context::Context;
use crate::error::Error;
use crate::instance::claims;
use crate::instance::slot::{remove_condition, set_condition};
use crate::objects::{difference, finalize, is_deleted};

/// Pause before a machine whose instance never ran is tried again; doubles.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// How soon a failed request is tried again.
const RETRY: Duration = Duration::from_millis(200);

/// Looks after all machines, for ever.
pub(crate) async fn run(context: Context) {
    let (mut machines, mut instances) = (context.vms.changes(), context.instances.changes());
    let mut failures = Failures::default();
    loop {
        machines.mark_unchanged();
        instances.mark_unchanged();
        let mut again: Option<Duration> = None;
        for machine in context.vms.all() {
            let pause = match reconcile(&context, &machine, &mut failures).await {
                Ok(pause) => pause,
                Err(error) => {
                    tracing::debug!(machine = machine.name_any(), %error, "trying again");
                    Some(RETRY)
                }
            };
            again = again.into_iter().chain(pause).min();
        }
        let due = async {
            match again {
                Some(pause) => tokio::time::sleep(pause).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = machines.changed() => if changed.is_err() { return },
            changed = instances.changed() => if changed.is_err() { return },
            () = due => {}
        }
    }
}

/// Machines whose instances failed before they ran: how often, and when to try again.
#[derive(Default)]
struct Failures(HashMap<String, (u32, Instant, String)>);

impl Failures {
    /// Notes that an instance never ran; once per instance.
    fn note(&mut self, machine: &str, instance: &str) {
        let now = Instant::now();
        let entry = self.0.entry(machine.to_owned()).or_insert((0, now, String::new()));
        if entry.2 != instance {
            let pause = FIRST_PAUSE.saturating_mul(1 << entry.0.min(8)).min(LONGEST_PAUSE);
            *entry = (entry.0 + 1, now + pause, instance.to_owned());
        }
    }

    fn forget(&mut self, machine: &str) {
        self.0.remove(machine);
    }

    /// How long to wait yet.
    fn pause(&self, machine: &str) -> Option<Duration> {
        let (_, due, _) = self.0.get(machine)?;
        due.checked_duration_since(Instant::now()).filter(|pause| !pause.is_zero())
    }
}

async fn reconcile(
    context: &Context,
    machine: &VirtualMachine,
    failures: &mut Failures,
) -> Result<Option<Duration>, Error> {
    let (namespace, name, uid) =
        (machine.namespace().unwrap_or_default(), machine.name_any(), machine.uid().unwrap_or_default());
    let found = context.instances.get(&namespace, &name);
    let instance = found.filter(|one| one.owner_references().iter().any(|owner| owner.uid == uid));
    if is_deleted(machine) {
        failures.forget(&uid);
        match &instance {
            Some(instance) => delete(context, instance).await?,
            None => {
                claims::release(context, &namespace, &name).await?;
                finalize(&context.client, machine, names::MACHINE_FINALIZER, false).await?;
            }
        }
        write_status(context, machine, instance.as_deref(), None, false).await?;
        return Ok(None);
    }
    finalize(&context.client, machine, names::MACHINE_FINALIZER, true).await?;
    let strategy = machine.spec.strategy();
    let requests = machine.status.as_ref().map(|status| status.state_change_requests.as_slice()).unwrap_or_default();
    let mut done = 0;
    let mut wanted = match strategy {
        RunStrategy::Always | RunStrategy::RerunOnFailure => true,
        RunStrategy::Halted => false,
        RunStrategy::Manual | RunStrategy::Once => instance.is_some(),
    };
    if let Some(request) = requests.first() {
        let theirs = instance.as_ref().filter(|one| request.uid.is_none() || one.uid() == request.uid);
        match (request.action.as_str(), theirs) {
            ("Stop", Some(_)) => wanted = false,
            ("Start", None) => wanted = true,
            // It is as asked.
            _ => done = 1,
        }
    }
    let mut waiting = false;
    match &instance {
        Some(instance) if instance.is_final() && !is_deleted(instance.as_ref()) => {
            if instance.phase() == InstancePhase::Failed && !ran(instance) {
                failures.note(&uid, &instance.uid().unwrap_or_default());
            } else {
                failures.forget(&uid);
            }
            // What ended well under another strategy than Always stays to be looked at.
            let restarts = strategy == RunStrategy::Always || instance.phase() == InstancePhase::Failed;
            if !wanted || restarts {
                delete(context, instance).await?;
            }
        }
        Some(instance) if !wanted => delete(context, instance).await?,
        Some(instance) if instance.phase() == InstancePhase::Running => failures.forget(&uid),
        Some(_) => {}
        None if wanted => {
            waiting = failures.pause(&uid).is_some();
            if !waiting {
                create(context, machine).await?;
                done = usize::from(requests.first().is_some_and(|request| request.action == "Start"));
            }
        }
        None => {}
    }
    write_status(context, machine, instance.as_deref(), (done > 0).then_some(done), waiting).await?;
    Ok(failures.pause(&uid))
}

/// Whether an instance came to run at all.
fn ran(instance: &VirtualMachineInstance) -> bool {
    let steps = instance.status.as_ref().and_then(|status| status.other.get("phaseTransitionTimestamps")?.as_array());
    steps.is_some_and(|steps| steps.iter().any(|step| step["phase"] == "Running"))
}

async fn delete(context: &Context, instance: &VirtualMachineInstance) -> Result<(), Error> {
    if is_deleted(instance) {
        return Ok(());
    }
    let (namespace, name) = (instance.namespace().unwrap_or_default(), instance.name_any());
    let api = Api::<VirtualMachineInstance>::namespaced(context.client.clone(), &namespace);
    let parameters = DeleteParams {
        preconditions: Some(kube::api::Preconditions { uid: instance.uid(), resource_version: None }),
        ..DeleteParams::default()
    };
    match api.delete(&name, &parameters).await {
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        result => result.map(drop).map_err(Error::request(format!("delete instance {namespace}/{name}"))),
    }
}

async fn create(context: &Context, machine: &VirtualMachine) -> Result<(), Error> {
    let (namespace, name) = (machine.namespace().unwrap_or_default(), machine.name_any());
    let template = machine.spec.template.clone();
    let metadata = template.metadata.unwrap_or_default();
    let mut annotations = metadata.annotations.unwrap_or_default();
    // Some say it of the machine, some of its instances.
    for key in [names::ADDRESSES, names::LAB_MIGRATION, names::LAB_BOOT] {
        if let Some(value) = machine.annotations().get(key) {
            annotations.entry(key.into()).or_insert_with(|| value.clone());
        }
    }
    let mut instance = VirtualMachineInstance::new(&name, template.spec);
    instance.metadata = ObjectMeta {
        name: Some(name.clone()),
        namespace: Some(namespace.clone()),
        labels: metadata.labels,
        annotations: Some(annotations),
        finalizers: Some(vec![names::INSTANCE_FINALIZER.into()]),
        owner_references: Some(vec![k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference {
            api_version: "kubevirt.io/v1".into(),
            kind: "VirtualMachine".into(),
            name: name.clone(),
            uid: machine.uid().unwrap_or_default(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        }]),
        ..ObjectMeta::default()
    };
    let api = Api::<VirtualMachineInstance>::namespaced(context.client.clone(), &namespace);
    match api.create(&PostParams::default(), &instance).await {
        // The watch lags behind.
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        Err(error) => Err(Error::request(format!("create instance {namespace}/{name}"))(error)),
        Ok(_) => {
            let message = format!("Started the virtual machine by creating the new virtual machine instance {name}");
            context.events.record(machine, Severity::Normal, "SuccessfulCreate", &message);
            Ok(())
        }
    }
}

async fn write_status(
    context: &Context,
    machine: &VirtualMachine,
    instance: Option<&VirtualMachineInstance>,
    done: Option<usize>,
    waiting: bool,
) -> Result<(), Error> {
    let old = machine.status.as_ref().and_then(|status| serde_json::to_value(status).ok()).unwrap_or_else(|| json!({}));
    let mut new = old.clone();
    if let (Some(done), Some(requests)) = (done, new["stateChangeRequests"].as_array_mut()) {
        requests.drain(..done.min(requests.len()));
    }
    let ready = instance.is_some_and(|instance| instance.has("Ready"));
    new["created"] = instance.is_some().into();
    new["ready"] = ready.into();
    new["printableStatus"] = printable(machine, instance, waiting).into();
    new["observedGeneration"] = machine.metadata.generation.into();
    new["runStrategy"] = serde_json::to_value(machine.spec.strategy()).unwrap_or_default();
    let (reason, message) = match instance {
        None => ("VMINotExists", "VMI does not exist"),
        Some(_) if !ready => ("GuestNotRunning", "Guest VM is not reported as running"),
        Some(_) => ("", ""),
    };
    set_condition(&mut new, "Ready", ready, reason, message);
    let conditions = instance.and_then(|instance| instance.status.as_ref()).map(|status| status.conditions.clone());
    for kind in ["LiveMigratable", "Paused", "Synchronized", "PodScheduled"] {
        match conditions.iter().flatten().find(|one| one["type"] == kind) {
            Some(one) => {
                let text = |key: &str| one[key].as_str().unwrap_or_default();
                set_condition(&mut new, kind, one["status"] == "True", text("reason"), text("message"));
            }
            None => remove_condition(&mut new, kind),
        }
    }
    let Some(patch) = difference(&old, &new) else { return Ok(()) };
    let (namespace, name) = (machine.namespace().unwrap_or_default(), machine.name_any());
    let api = Api::<VirtualMachine>::namespaced(context.client.clone(), &namespace);
    // Requests that came meanwhile shall not be lost.
    let metadata = json!({"uid": machine.uid(), "resourceVersion": done.and(machine.resource_version())});
    let patch = Patch::Merge(json!({"metadata": metadata, "status": patch}));
    match api
        .patch_status(&name, &PatchParams::default(), &patch)
        .await
        .map_err(Error::request(format!("write the status of machine {namespace}/{name}")))
    {
        Err(error) if error.is_gone() && done.is_none() => Ok(()),
        result => result.map(drop),
    }
}

fn printable(machine: &VirtualMachine, instance: Option<&VirtualMachineInstance>, waiting: bool) -> &'static str {
    if is_deleted(machine) {
        return "Terminating";
    }
    let Some(instance) = instance else {
        return if waiting { "CrashLoopBackOff" } else { "Stopped" };
    };
    if is_deleted(instance) {
        return "Stopping";
    }
    let state = instance.status.as_ref();
    let unschedulable = state.is_some_and(|status| {
        status.conditions.iter().any(|one: &Value| one["type"] == "PodScheduled" && one["status"] == "False")
    });
    let migrates = state.and_then(|status| status.migration_state.as_ref()).is_some_and(|state| {
        state.start_timestamp.is_some() && state.completed != Some(true) && state.failed != Some(true)
    });
    match instance.phase() {
        _ if unschedulable => "ErrorUnschedulable",
        InstancePhase::Running if instance.has("Paused") => "Paused",
        InstancePhase::Running if migrates => "Migrating",
        InstancePhase::Running => "Running",
        InstancePhase::Succeeded | InstancePhase::Failed => "Stopped",
        InstancePhase::Pending | InstancePhase::Scheduling | InstancePhase::Scheduled => "Starting",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_wait_longer_each_time_and_count_an_instance_once() {
        let mut failures = Failures::default();
        failures.note("m", "i1");
        let first = failures.pause("m").unwrap();
        failures.note("m", "i1");
        assert!(failures.pause("m").unwrap() <= first, "it was counted twice");
        failures.note("m", "i2");
        assert!(failures.pause("m").unwrap() > FIRST_PAUSE);
        failures.forget("m");
        assert_eq!(failures.pause("m"), None);
    }

    #[test]
    fn status_in_a_word() {
        let machine: VirtualMachine = serde_json::from_value(json!({
            "metadata": {"name": "m"}, "spec": {"runStrategy": "Always", "template": {"spec": {"domain": {"devices": {}}}}},
        }))
        .unwrap();
        let instance = |status: Value| -> VirtualMachineInstance {
            serde_json::from_value(
                json!({"metadata": {"name": "m"}, "spec": {"domain": {"devices": {}}}, "status": status}),
            )
            .unwrap()
        };
        assert_eq!(printable(&machine, None, false), "Stopped");
        assert_eq!(printable(&machine, None, true), "CrashLoopBackOff");
        assert_eq!(printable(&machine, Some(&instance(json!({"phase": "Scheduling"}))), false), "Starting");
        let migrating = json!({"phase": "Running", "migrationState": {"startTimestamp": "then"}});
        assert_eq!(printable(&machine, Some(&instance(migrating)), false), "Migrating");
    }
}
