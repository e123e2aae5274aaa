//! Kubernetes objects, and what is promised of them.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::words::Family;
use crate::world::PodRef;

/// A Kubernetes object, by the names of the world (the harness makes them unique per run).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectRef {
    /// `v1`, `k8s.ovn.org/v1` …
    pub api_version: String,
    /// `Pod`, `UserDefinedNetwork` …
    pub kind: String,
    /// `None` for cluster-scoped kinds.
    pub namespace: Option<String>,
    /// The object's name.
    pub name: String,
}

impl ObjectRef {
    /// A namespaced object.
    #[must_use]
    pub fn namespaced(api_version: &str, kind: &str, namespace: &str, name: &str) -> Self {
        Self {
            api_version: api_version.into(),
            kind: kind.into(),
            namespace: Some(namespace.into()),
            name: name.into(),
        }
    }

    /// A cluster-scoped object.
    #[must_use]
    pub fn cluster(api_version: &str, kind: &str, name: &str) -> Self {
        Self { api_version: api_version.into(), kind: kind.into(), namespace: None, name: name.into() }
    }

    /// The object of a manifest.
    #[must_use]
    pub fn of(manifest: &Value) -> Self {
        let text = |pointer: &str| manifest.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        Self {
            api_version: text("/apiVersion").unwrap_or_default(),
            kind: text("/kind").unwrap_or_default(),
            namespace: text("/metadata/namespace"),
            name: text("/metadata/name").unwrap_or_default(),
        }
    }

    /// A VM.
    #[must_use]
    pub fn vm(vm: &PodRef) -> Self {
        Self::namespaced("kubevirt.io/v1", "VirtualMachine", &vm.namespace, &vm.name)
    }

    /// A pod.
    #[must_use]
    pub fn pod(pod: &PodRef) -> Self {
        Self::namespaced("v1", "Pod", &pod.namespace, &pod.name)
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match &self.namespace {
            Some(namespace) => format!("{}.{namespace}.{}", self.kind.to_lowercase(), self.name),
            None => format!("{}.{}", self.kind.to_lowercase(), self.name),
        };
        f.pad(&name)
    }
}

/// What is promised of an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Claim {
    /// It exists.
    Exists,
    /// It does not exist (any more).
    Gone,
    /// It is being deleted, but a finalizer holds it.
    HeldByFinalizer {
        /// The finalizer.
        finalizer: String,
    },
    /// It has a status condition.
    Condition {
        /// The condition's type; of several names (older releases differ) the first that is there.
        any_of: Vec<String>,
        /// `True` or `False`.
        status: String,
        /// The reason, where one is promised.
        reason: Option<String>,
        /// Texts that the message must contain. Names of the world in `{braces}` stand for the run's real names.
        message_contains: Vec<String>,
    },
    /// It does not have this condition with status `True`.
    NotTrue {
        /// The condition's type.
        condition: String,
    },
    /// An event was raised about it.
    Event {
        /// `Warning` or `Normal`.
        kind: String,
        /// The event's reason.
        reason: String,
        /// Texts that the message must contain.
        message_contains: Vec<String>,
    },
    /// A pod is Ready and none of its containers was restarted: the kubelet's probes reach it.
    ReadyWithoutRestart,
    /// A pod stays Pending: it waits for something.
    PodWaits,
    /// The phase's action on this object was refused by the API server.
    Refused {
        /// Texts that the answer must contain.
        message_contains: Vec<String>,
    },
    /// The phase's action on this object was accepted by the API server.
    Accepted,
    /// A pod's annotation `k8s.ovn.org/pod-networks` has exactly these keys.
    PodNetworks {
        /// `default`, or `<namespace>/<name>` in `{braces}` where names are the world's.
        keys: Vec<String>,
    },
    /// A service's endpoints of a family are mirrored with their addresses on the namespace's primary network: these
    /// pods' as ready ones, and nobody else's.
    Mirrored {
        /// The family.
        family: Family,
        /// Its ready backends.
        backends: Vec<PodRef>,
    },
    /// A service, whether it is there or not, has no mirrored endpoints.
    NotMirrored,
    /// A service has no ClusterIP: it is headless.
    NoClusterIp,
}

/// A short, stable word for cell ids.
impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exists => f.pad("exists"),
            Self::Gone => f.pad("gone"),
            Self::HeldByFinalizer { .. } => f.pad("held-by-finalizer"),
            Self::Condition { any_of, status, .. } => {
                f.pad(&format!("{}-{status}", any_of.first().map_or("condition", String::as_str)))
            }
            Self::NotTrue { condition } => f.pad(&format!("{condition}-not-true")),
            Self::Event { reason, .. } => f.pad(&format!("event-{reason}")),
            Self::ReadyWithoutRestart => f.pad("ready-without-restart"),
            Self::PodWaits => f.pad("pod-waits"),
            Self::Refused { .. } => f.pad("refused"),
            Self::Accepted => f.pad("accepted"),
            Self::PodNetworks { .. } => f.pad("pod-networks"),
            Self::Mirrored { family, .. } => f.pad(&format!("mirrored-{family}")),
            Self::NotMirrored => f.pad("not-mirrored"),
            Self::NoClusterIp => f.pad("no-cluster-ip"),
        }
    }
}
