//! What the node agent asks of the network for a pod's sandbox.

use std::net::IpAddr;

use async_trait::async_trait;

use crate::netns::Netns;

/// A pod's network namespace, made by the node agent and still empty (`lo` only).
#[derive(Clone, Debug)]
pub struct Sandbox {
    /// Kubernetes namespace.
    pub namespace: String,
    /// Pod name.
    pub pod: String,
    /// Pod UID: tells two pods of one name apart.
    pub uid: String,
    /// The node's name.
    pub node: String,
    /// The pod's network namespace.
    pub netns: Netns,
}

/// What a pod got.
#[derive(Clone, Debug)]
pub struct Attached {
    /// Default-network addresses, the first family first: `status.podIPs`.
    pub ips: Vec<IpAddr>,
    /// Value of the `k8s.v1.cni.cncf.io/network-status` annotation: a list of interfaces.
    pub network_status: serde_json::Value,
}

/// Why a pod could not be attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// Not yet: a network or annotation is missing; the node agent tries again.
    #[error("pod {pod} has to wait: {reason}")]
    Pending {
        /// `<namespace>/<name>`.
        pod: String,
        /// What it waits for.
        reason: String,
    },
    /// Never, until an object changes.
    #[error("cannot attach pod {pod}: {reason}")]
    Refused {
        /// `<namespace>/<name>`.
        pod: String,
        /// What was refused and why.
        reason: String,
    },
}

/// Attaches pods to their networks: the lab's CNI.
#[async_trait]
pub trait PodNetwork: Send + Sync {
    /// Gives the sandbox its interfaces, addresses and routes; returns when packets flow.
    ///
    /// # Errors
    /// [`AttachError::Pending`] when an object that it needs is not there yet.
    async fn attach(&self, sandbox: &Sandbox) -> Result<Attached, AttachError>;

    /// Takes away what [`PodNetwork::attach`] gave. Idempotent.
    async fn detach(&self, sandbox: &Sandbox);
}
