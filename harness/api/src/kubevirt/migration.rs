//! `VirtualMachineInstanceMigration` (`vmim`): the wish that an instance runs on another node.

use std::collections::BTreeMap;

use kube::CustomResource;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::instance::MigrationState;

/// Whom to move.
#[derive(Clone, CustomResource, Debug, Default, Deserialize, PartialEq, Serialize)]
#[kube(
    group = "kubevirt.io",
    version = "v1",
    kind = "VirtualMachineInstanceMigration",
    plural = "virtualmachineinstancemigrations",
    namespaced,
    status = "MigrationStatus",
    schema = "disabled"
)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachineInstanceMigrationSpec {
    /// Name of the instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vmi_name: Option<String>,
    /// Labels that the target's node must have besides those that the instance asks for, whose own values count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub added_node_selector: Option<BTreeMap<String, String>>,
}

/// How far a migration is.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum MigrationPhase {
    /// It waits for its turn.
    #[default]
    #[serde(rename = "", alias = "Unset")]
    Unset,
    /// It was seen.
    Pending,
    /// The target's pod has no node yet.
    Scheduling,
    /// The target's pod has one.
    Scheduled,
    /// The target is made ready.
    PreparingTarget,
    /// The target waits for the guest.
    TargetReady,
    /// The guest is on its way.
    Running,
    /// The guest runs at the target.
    Succeeded,
    /// The guest runs where it was.
    Failed,
}

/// How a migration is.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MigrationStatus {
    /// How far it is.
    #[serde(default)]
    pub phase: MigrationPhase,
    /// Why it does not go on, or did not succeed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Value>,
    /// When it came to each phase.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub phase_transition_timestamps: Vec<Value>,
    /// As its instance tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migration_state: Option<MigrationState>,
}

impl VirtualMachineInstanceMigration {
    /// How far it is.
    #[must_use]
    pub fn phase(&self) -> MigrationPhase {
        self.status.as_ref().map(|status| status.phase).unwrap_or_default()
    }

    /// Whether it is over.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self.phase(), MigrationPhase::Succeeded | MigrationPhase::Failed)
    }
}
