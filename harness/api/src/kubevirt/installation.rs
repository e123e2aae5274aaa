//! `KubeVirt` (`kv`): that a cluster has virtual machines, and of which version.

use kube::CustomResource;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::devices::Other;

/// How it is installed.
#[derive(Clone, CustomResource, Debug, Default, Deserialize, PartialEq, Serialize)]
#[kube(
    group = "kubevirt.io",
    version = "v1",
    kind = "KubeVirt",
    plural = "kubevirts",
    namespaced,
    status = "KubeVirtStatus",
    schema = "disabled"
)]
pub struct KubeVirtSpec {
    /// Everything.
    #[serde(flatten)]
    pub other: Other,
}

/// How the installation is.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KubeVirtStatus {
    /// `Deployed` once it works.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// What is installed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_kube_virt_version: Option<String>,
    /// `Available` and others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Value>,
}
