//! Start, stop, restart and migrate: written into objects, for the controllers to act on.

use kube::ResourceExt;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use udn_api::kubevirt::machine::StateChange;
use udn_api::kubevirt::{
    InstancePhase, RunStrategy, VirtualMachine, VirtualMachineInstance, VirtualMachineInstanceMigration,
    VirtualMachineInstanceMigrationSpec,
};

use super::Task;
use super::kinds::MACHINES;
use super::refusal::Refusal;

/// Who writes it.
const MANAGER: &str = "virt-api";
/// How often a change is tried where others change the machine at the same time.
const TRIES: usize = 10;
const NOT_RUNNING: &str = "VM is not running";

/// What is written into a machine.
#[derive(Debug, PartialEq)]
pub(super) enum Change {
    /// Into its spec: that it runs, or does not.
    Runs(bool),
    /// Into its status: what its controller shall do, in this order.
    Requests(Vec<StateChange>),
}

/// What a machine and its instance, if it has one, need to be changed; or why they cannot.
type Decision = fn(&VirtualMachine, Option<&VirtualMachineInstance>) -> Result<Change, &'static str>;

pub(super) fn start(
    machine: &VirtualMachine,
    instance: Option<&VirtualMachineInstance>,
) -> Result<Change, &'static str> {
    let live = instance.is_some_and(|one| !one.is_final());
    match machine.spec.strategy() {
        RunStrategy::Always => Err("Always does not support manual start requests"),
        _ if live => Err("VM is already running"),
        RunStrategy::Halted => Ok(Change::Runs(true)),
        _ => request(machine, vec![begin()]),
    }
}

pub(super) fn stop(
    machine: &VirtualMachine,
    instance: Option<&VirtualMachineInstance>,
) -> Result<Change, &'static str> {
    match (machine.spec.strategy(), instance) {
        (RunStrategy::Halted, None) => Err(NOT_RUNNING),
        (RunStrategy::Halted | RunStrategy::Always, _) => Ok(Change::Runs(false)),
        (_, None) => Err(NOT_RUNNING),
        (_, Some(instance)) => request(machine, vec![end(instance)]),
    }
}

pub(super) fn restart(
    machine: &VirtualMachine,
    instance: Option<&VirtualMachineInstance>,
) -> Result<Change, &'static str> {
    let instance = instance.ok_or(NOT_RUNNING)?;
    match machine.spec.strategy() {
        RunStrategy::Halted => Err("Halted does not support manual restart requests"),
        _ => request(machine, vec![end(instance), begin()]),
    }
}

fn request(machine: &VirtualMachine, requests: Vec<StateChange>) -> Result<Change, &'static str> {
    let underway = machine.status.as_ref().is_some_and(|status| !status.state_change_requests.is_empty());
    if underway {
        Err("unable to complete request: stop/start already underway")
    } else {
        Ok(Change::Requests(requests))
    }
}

fn begin() -> StateChange {
    StateChange { action: "Start".into(), uid: None }
}

fn end(instance: &VirtualMachineInstance) -> StateChange {
    StateChange { action: "Stop".into(), uid: instance.uid() }
}

/// Changes the machine as decided; decides anew where it was changed meanwhile.
pub(super) async fn change(task: &Task, decide: Decision) -> Result<(), Refusal> {
    let mut tries = 1;
    loop {
        let (machine, instance) = (task.machine().await?, task.instance().await?);
        let change = decide(&machine, instance.as_ref()).map_err(|why| Refusal::conflict(MACHINES, &task.name, why))?;
        match write(task, &machine, &change).await {
            Err(kube::Error::Api(status)) if status.code == 409 && tries < TRIES => tries += 1,
            result => return Ok(result?),
        }
    }
}

async fn write(task: &Task, machine: &VirtualMachine, change: &Change) -> Result<(), kube::Error> {
    let api = Api::<VirtualMachine>::namespaced(task.context.client.clone(), &task.namespace);
    let parameters = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
    // It is the machine that was decided about.
    let patch = |field: &str, value: Value| {
        Patch::Merge(json!({
            "metadata": {"uid": machine.uid(), "resourceVersion": machine.resource_version()}, field: value,
        }))
    };
    match change {
        Change::Runs(runs) => {
            let spec = match machine.spec.running {
                Some(_) => json!({"running": runs}),
                None => json!({"runStrategy": if *runs { RunStrategy::Always } else { RunStrategy::Halted }}),
            };
            api.patch(&task.name, &parameters, &patch("spec", spec)).await.map(drop)
        }
        Change::Requests(requests) => {
            let status = json!({"stateChangeRequests": requests});
            api.patch_status(&task.name, &parameters, &patch("status", status)).await.map(drop)
        }
    }
}

/// Wishes that the instance runs on another node.
pub(super) async fn migrate(task: &Task) -> Result<(), Refusal> {
    task.machine().await?;
    if task.instance().await?.is_none_or(|instance| instance.phase() != InstancePhase::Running) {
        return Err(Refusal::conflict(MACHINES, &task.name, NOT_RUNNING));
    }
    let spec = VirtualMachineInstanceMigrationSpec { vmi_name: Some(task.name.clone()), ..Default::default() };
    let mut migration = VirtualMachineInstanceMigration::new("", spec);
    migration.metadata = ObjectMeta { generate_name: Some("kubevirt-migrate-vm-".into()), ..ObjectMeta::default() };
    let api = Api::namespaced(task.context.client.clone(), &task.namespace);
    let parameters = PostParams { field_manager: Some(MANAGER.into()), ..PostParams::default() };
    Ok(api.create(&parameters, &migration).await.map(drop)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(strategy: &str) -> VirtualMachine {
        let spec = json!({"runStrategy": strategy, "template": {"spec": {"domain": {"devices": {}}}}});
        serde_json::from_value(json!({"metadata": {"name": "db"}, "spec": spec})).unwrap()
    }

    fn instance(phase: &str) -> VirtualMachineInstance {
        serde_json::from_value(json!({
            "metadata": {"name": "db", "uid": "u"}, "spec": {"domain": {"devices": {}}}, "status": {"phase": phase},
        }))
        .unwrap()
    }

    /// A decision in short.
    fn told(decide: Decision, strategy: &str, phase: Option<&str>) -> String {
        let instance = phase.map(instance);
        match decide(&machine(strategy), instance.as_ref()) {
            Ok(Change::Runs(runs)) => format!("runs: {runs}"),
            Ok(Change::Requests(requests)) => serde_json::to_string(&requests).unwrap(),
            Err(why) => why.to_owned(),
        }
    }

    #[test]
    fn what_is_asked_for_depends_on_the_strategy() {
        const STOP: &str = r#"{"action":"Stop","uid":"u"}"#;
        const START: &str = r#"{"action":"Start"}"#;
        let (stops, starts, both) = (format!("[{STOP}]"), format!("[{START}]"), format!("[{STOP},{START}]"));
        let running = Some("Running");
        let always = "Always does not support manual start requests";
        for (decide, strategy, phase, expected) in [
            (start as Decision, "Always", None, always),
            (start, "Halted", None, "runs: true"),
            (start, "Halted", running, "VM is already running"),
            (start, "Manual", None, &*starts),
            (start, "Manual", Some("Scheduling"), "VM is already running"),
            (start, "Manual", Some("Succeeded"), &*starts),
            (start, "RerunOnFailure", Some("Failed"), &*starts),
            (stop, "Halted", None, NOT_RUNNING),
            (stop, "Halted", running, "runs: false"),
            (stop, "Always", None, "runs: false"),
            (stop, "Always", running, "runs: false"),
            (stop, "Manual", None, NOT_RUNNING),
            (stop, "Manual", running, &*stops),
            (restart, "Always", None, NOT_RUNNING),
            (restart, "Always", running, &*both),
            (restart, "Manual", running, &*both),
            (restart, "Halted", running, "Halted does not support manual restart requests"),
        ] {
            assert_eq!(told(decide, strategy, phase), expected, "{strategy} {phase:?}");
        }
    }

    #[test]
    fn one_request_waits_for_the_other() {
        let mut machine = machine("Manual");
        machine.status = serde_json::from_value(json!({"stateChangeRequests": [{"action": "Start"}]})).unwrap();
        let why = "unable to complete request: stop/start already underway";
        assert_eq!(start(&machine, None), Err(why));
        assert_eq!(restart(&machine, Some(&instance("Running"))), Err(why));
    }
}
