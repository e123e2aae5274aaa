//! What the parent says first: one message, beside the descriptor of a listener on the host's loopback.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use udn_lab_sys::packages::Versions;

/// Everything that the lab is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Start {
    /// Name of the lab.
    pub(crate) name: String,
    /// Root of the tools as seen inside.
    pub(crate) tools: PathBuf,
    /// Their versions.
    pub(crate) versions: Versions,
    /// Port of the listener on the host's loopback.
    pub(crate) port: u16,
    /// Socket of the process that fetches packages for virtual machines.
    pub(crate) courier: PathBuf,
    /// Services of the default network for pods of all networks.
    pub(crate) udn_allowed_default_services: Option<Vec<String>>,
}
