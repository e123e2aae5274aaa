//! A migration's status, as the object says it.

use std::sync::Arc;

use jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::sync::Mutex;
use udn_api::kubevirt::{VirtualMachineInstanceMigration, names};

use super::handover::Moments;
use crate::context::Context;
use crate::error::Error;
use crate::instance::slot::{remove_condition, set_condition, set_phase};
use crate::objects::{difference, precise};

/// Condition of a migration whose target has no node.
const UNSCHEDULABLE: &str = "TargetPodScheduled";

/// Writes what happens to a migration into its object.
pub(super) struct Record {
    context: Context,
    pub(super) migration: Arc<VirtualMachineInstanceMigration>,
    status: Mutex<Value>,
}

impl Record {
    pub(super) fn new(context: Context, migration: Arc<VirtualMachineInstanceMigration>) -> Self {
        let status = migration.status.as_ref().and_then(|status| serde_json::to_value(status).ok());
        Self { context, migration, status: Mutex::new(status.unwrap_or_else(|| json!({}))) }
    }

    fn api(&self) -> Api<VirtualMachineInstanceMigration> {
        Api::namespaced(self.context.client.clone(), &self.migration.namespace().unwrap_or_default())
    }

    fn action(&self, what: &str) -> String {
        format!("{what} migration {}/{}", self.migration.namespace().unwrap_or_default(), self.migration.name_any())
    }

    async fn update(&self, change: impl FnOnce(&mut Value)) -> Result<(), Error> {
        let mut status = self.status.lock().await;
        let mut next = status.clone();
        change(&mut next);
        let Some(patch) = difference(&status, &next) else { return Ok(()) };
        let patch = Patch::Merge(json!({"metadata": {"uid": self.migration.uid()}, "status": patch}));
        let name = self.migration.name_any();
        let written = self.api().patch_status(&name, &PatchParams::default(), &patch).await;
        written.map_err(Error::request(self.action("write the status of")))?;
        *status = next;
        Ok(())
    }

    pub(super) async fn phase(&self, phase: &str) -> Result<(), Error> {
        self.update(|status| {
            set_phase(status, phase);
            if phase == "Scheduled" {
                remove_condition(status, UNSCHEDULABLE);
            }
        })
        .await
    }

    /// Says that no node takes the target.
    pub(super) async fn unschedulable(&self, message: &str) -> Result<(), Error> {
        self.update(|status| set_condition(status, UNSCHEDULABLE, false, "Unschedulable", message)).await
    }

    /// The last phase, with what the instance says of it all.
    pub(super) async fn over(&self, phase: &str, state: Option<Value>, why: Option<&str>) -> Result<(), Error> {
        self.update(|status| {
            set_phase(status, phase);
            remove_condition(status, UNSCHEDULABLE);
            if let Some(state) = state {
                status["migrationState"] = state;
            }
            if let Some(why) = why {
                set_condition(status, "Failed", true, "MigrationFailed", why);
            }
        })
        .await
    }

    /// Writes the precise moments, which KubeVirt does not tell.
    pub(super) async fn moments(&self, moments: &Moments, total_ms: Option<u64>) -> Result<(), Error> {
        let annotations = json!({
            names::LAB_STOPPED: moments.stopped.map(precise),
            names::LAB_RESUMED: precise(moments.resumed),
            names::LAB_TOTAL_MS: total_ms.map(|time| time.to_string()),
        });
        let patch = Patch::Merge(json!({"metadata": {"uid": self.migration.uid(), "annotations": annotations}}));
        let written = self.api().patch_metadata(&self.migration.name_any(), &PatchParams::default(), &patch).await;
        written.map(drop).map_err(Error::request(self.action("annotate")))
    }

    /// Makes the object findable by its instance.
    pub(super) async fn label(&self, instance: &str) -> Result<(), Error> {
        let patch = Patch::Merge(json!({"metadata": {"uid": self.migration.uid(), "labels": {"kubevirt.io/vmi-name": instance}}}));
        let written = self.api().patch_metadata(&self.migration.name_any(), &PatchParams::default(), &patch).await;
        written.map(drop).map_err(Error::request(self.action("label")))
    }
}

/// Now, as Kubernetes writes it.
pub(super) fn now() -> String {
    crate::objects::moment(Timestamp::now())
}
