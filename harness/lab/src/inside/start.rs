//! What the parent says first: one message, after the descriptors of listeners on the host's loopback.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use udn_lab_sys::packages::Versions;

use crate::existing::ApiServer;

/// Everything that the lab is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Start {
    /// Name of the lab.
    pub(crate) name: String,
    /// Root of the tools as seen inside.
    pub(crate) tools: PathBuf,
    /// Their versions.
    pub(crate) versions: Versions,
    /// Which API server.
    pub(crate) api: ApiSide,
    /// Socket of the process that fetches packages for virtual machines.
    pub(crate) courier: PathBuf,
    /// Services of the default network for pods of all networks.
    pub(crate) udn_allowed_default_services: Option<Vec<String>>,
}

/// The API server, and what the listeners are for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum ApiSide {
    /// The lab's own; one listener, for it.
    Own {
        /// The listener's port.
        port: u16,
    },
    /// One that was there before; a listener for each node agent, and one for the machines' API.
    Joined {
        /// How to speak to it.
        server: Box<ApiServer>,
        /// Socket of the process that reaches it.
        relay: PathBuf,
        /// The listeners' ports, in the order of the nodes; last that of the machines' API.
        ports: Vec<u16>,
    },
}

impl ApiSide {
    /// Where the host finds it.
    pub(crate) fn url(&self) -> String {
        match self {
            Self::Own { port } => format!("https://127.0.0.1:{port}"),
            Self::Joined { server, .. } => server.url.clone(),
        }
    }
}
