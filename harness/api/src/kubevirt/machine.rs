//! `VirtualMachine` (`vm`): a machine that shall be there, running or not.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::CustomResource;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::instance::InstanceSpec;

/// When a machine runs.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum RunStrategy {
    /// Always.
    Always,
    /// Never.
    Halted,
    /// As told by start and stop.
    Manual,
    /// Until it ends well.
    RerunOnFailure,
    /// Until it ends.
    Once,
}

/// A machine.
#[derive(Clone, CustomResource, Debug, Deserialize, PartialEq, Serialize)]
#[kube(
    group = "kubevirt.io",
    version = "v1",
    kind = "VirtualMachine",
    plural = "virtualmachines",
    namespaced,
    status = "VirtualMachineStatus",
    schema = "disabled"
)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachineSpec {
    /// When it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_strategy: Option<RunStrategy>,
    /// The older way to say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<bool>,
    /// What its instances are like.
    pub template: Template,
}

/// What a machine's instances are like.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Template {
    /// Labels and annotations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<ObjectMeta>,
    /// The instance.
    #[serde(default)]
    pub spec: InstanceSpec,
}

/// How a machine is.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachineStatus {
    /// There is an instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<bool>,
    /// The instance is ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<bool>,
    /// In a word, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub printable_status: Option<String>,
    /// `Ready`, `LiveMigratable` and what the instance says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Value>,
    /// What start, stop and restart asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub state_change_requests: Vec<StateChange>,
    /// The generation that was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// When it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_strategy: Option<RunStrategy>,
}

/// Something to do with a machine.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct StateChange {
    /// `Start` or `Stop`.
    pub action: String,
    /// Of the instance to stop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
}

impl VirtualMachineSpec {
    /// When it runs, whichever field says so.
    #[must_use]
    pub fn strategy(&self) -> RunStrategy {
        self.run_strategy.unwrap_or(match self.running {
            Some(true) => RunStrategy::Always,
            _ => RunStrategy::Halted,
        })
    }
}
