//! Stops a guest's processor, and lets it go on.

use serde_json::json;

use super::Task;
use super::kinds::INSTANCES;
use super::refusal::Refusal;
use crate::error::Error;
use crate::instance::slot::{remove_condition, set_condition};

/// Lets the guest run, or stand still.
pub(super) async fn switch(task: &Task, run: bool) -> Result<(), Refusal> {
    let slot = task.slot().await?;
    let conflict = |why: &str| Refusal::conflict(INSTANCES, &task.name, why);
    let failed = |error: Error| Refusal::internal(&error);
    // A guest on its way is neither stopped nor started.
    let _migration = slot.migrating.try_lock().map_err(|_| conflict("the guest migrates"))?;
    let machine = slot.current().ok_or_else(|| task.ended())?;
    let (runs, _) = machine.qmp.status().await.map_err(failed)?;
    if runs == run {
        return Err(conflict(if runs { "VMI is not paused" } else { "VMI is already paused" }));
    }
    machine.qmp.run(if run { "cont" } else { "stop" }, json!({})).await.map_err(failed)?;
    let update = slot.update(|status| match run {
        true => remove_condition(status, "Paused"),
        false => set_condition(status, "Paused", true, "PausedByUser", "VMI was paused by user"),
    });
    update.await.map_err(failed)
}
