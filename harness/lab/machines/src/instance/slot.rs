//! An instance as it runs: its machine, and its status, which several tasks write.

use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tokio::sync::{Mutex, watch};
use udn_api::kubevirt::VirtualMachineInstance;

use crate::error::Error;
use crate::objects::{difference, moment};
use crate::emulator::machine::Machine;

/// What is known of a running instance.
pub(crate) struct Slot {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    /// Its sockets and its memory.
    pub(crate) folder: PathBuf,
    /// The machine that is the guest now.
    pub(crate) machine: watch::Sender<Option<Arc<Machine>>>,
    /// Held by the one migration that runs.
    pub(crate) migrating: Mutex<()>,
    client: Client,
    status: Mutex<Value>,
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Slot").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Slot {
    pub(crate) fn new(client: Client, instance: &VirtualMachineInstance, folder: PathBuf) -> Self {
        let status = instance.status.as_ref().and_then(|status| serde_json::to_value(status).ok());
        Self {
            namespace: instance.namespace().unwrap_or_default(),
            name: instance.name_any(),
            uid: instance.uid().unwrap_or_default(),
            folder,
            machine: watch::Sender::new(None),
            migrating: Mutex::new(()),
            client,
            status: Mutex::new(status.unwrap_or_else(|| json!({}))),
        }
    }

    pub(crate) fn api(&self) -> Api<VirtualMachineInstance> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The machine that is the guest now.
    pub(crate) fn current(&self) -> Option<Arc<Machine>> {
        self.machine.borrow().clone()
    }

    /// Changes the status. Writers take turns.
    pub(crate) async fn update(&self, change: impl FnOnce(&mut Value)) -> Result<(), Error> {
        let mut status = self.status.lock().await;
        let mut next = status.clone();
        change(&mut next);
        let Some(patch) = difference(&status, &next) else { return Ok(()) };
        let patch = Patch::Merge(json!({"metadata": {"uid": self.uid}, "status": patch}));
        let written = self.api().patch_status(&self.name, &PatchParams::default(), &patch).await;
        written.map_err(Error::request(format!("write the status of instance {}/{}", self.namespace, self.name)))?;
        *status = next;
        Ok(())
    }

    /// What the status says under a key.
    pub(crate) async fn told(&self, key: &str) -> Value {
        self.status.lock().await[key].clone()
    }

    /// Writes a phase, with its time.
    pub(crate) async fn phase(&self, phase: &str) -> Result<(), Error> {
        self.update(|status| set_phase(status, phase)).await
    }
}

/// Sets a phase and notes when.
pub(crate) fn set_phase(status: &mut Value, phase: &str) {
    if status["phase"] == phase {
        return;
    }
    status["phase"] = phase.into();
    let step = json!({"phase": phase, "phaseTransitionTimestamp": moment(Timestamp::now())});
    match status["phaseTransitionTimestamps"].as_array_mut() {
        Some(steps) => steps.push(step),
        None => status["phaseTransitionTimestamps"] = json!([step]),
    }
}

/// Sets a condition; its time changes with its status only.
pub(crate) fn set_condition(status: &mut Value, kind: &str, holds: bool, reason: &str, message: &str) {
    let now = moment(Timestamp::now());
    let word = if holds { "True" } else { "False" };
    let mut condition = json!({"type": kind, "status": word, "lastProbeTime": null, "lastTransitionTime": now});
    if !reason.is_empty() {
        condition["reason"] = reason.into();
    }
    if !message.is_empty() {
        condition["message"] = message.into();
    }
    if !status["conditions"].is_array() {
        status["conditions"] = json!([]);
    }
    let Some(all) = status["conditions"].as_array_mut() else { return };
    match all.iter_mut().find(|one| one["type"] == kind) {
        Some(old) => {
            if old["status"] == word {
                condition["lastTransitionTime"] = old["lastTransitionTime"].clone();
            }
            *old = condition;
        }
        None => all.push(condition),
    }
}

/// Takes a condition away.
pub(crate) fn remove_condition(status: &mut Value, kind: &str) {
    if let Some(all) = status["conditions"].as_array_mut() {
        all.retain(|one| one["type"] != kind);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_keeps_its_time_while_its_status_stays() {
        let mut status = json!({"conditions": [
            {"type": "Ready", "status": "False", "reason": "A", "lastTransitionTime": "then"},
        ]});
        set_condition(&mut status, "Ready", false, "B", "why");
        assert_eq!(status["conditions"][0]["lastTransitionTime"], "then");
        assert_eq!(status["conditions"][0]["reason"], "B");
        set_condition(&mut status, "Ready", true, "", "");
        assert_ne!(status["conditions"][0]["lastTransitionTime"], "then");
        assert_eq!(status["conditions"].as_array().unwrap().len(), 1);
        remove_condition(&mut status, "Ready");
        assert_eq!(status["conditions"], json!([]));
    }
}
