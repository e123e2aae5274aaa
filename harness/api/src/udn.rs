//! `UserDefinedNetwork` (`udn`): a namespace's own network.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::layer2::Layer2Config;
use crate::layer3::Layer3Config;
use crate::shared::{NetworkRole, NetworkStatus};

/// Topologies of a UDN.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum Topology {
    /// One switch for all nodes.
    Layer2,
    /// A switch per node, routed.
    Layer3,
}

/// A network for one namespace.
#[derive(Clone, CustomResource, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[kube(
    group = "k8s.ovn.org",
    version = "v1",
    kind = "UserDefinedNetwork",
    plural = "userdefinednetworks",
    singular = "userdefinednetwork",
    shortname = "udn",
    namespaced,
    status = "NetworkStatus",
    printcolumn = r#"{"name":"Topology", "type":"string", "jsonPath":".spec.topology"}"#,
    printcolumn = r#"{"name":"Created", "type":"string", "jsonPath":".status.conditions[?(@.type==\"NetworkCreated\")].status"}"#,
    printcolumn = r#"{"name":"Age", "type":"date", "jsonPath":".metadata.creationTimestamp"}"#
)]
#[x_kube(
    validation = Rule::new("has(self.topology) && self.topology == 'Layer3' ? has(self.layer3): !has(self.layer3)").message("spec.layer3 is required when topology is Layer3 and forbidden otherwise"),
    validation = Rule::new("has(self.topology) && self.topology == 'Layer2' ? has(self.layer2): !has(self.layer2)").message("spec.layer2 is required when topology is Layer2 and forbidden otherwise"),
)]
pub struct UserDefinedNetworkSpec {
    /// Which of the two following is set.
    #[x_kube(validation = Rule::new("self == oldSelf").message("Topology is immutable"))]
    pub topology: Topology,
    /// Set if the topology is Layer3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer3: Option<Layer3Config>,
    /// Set if the topology is Layer2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self == oldSelf").message("Layer2 is immutable"))]
    pub layer2: Option<Layer2Config>,
}

impl UserDefinedNetworkSpec {
    /// A Layer2 network.
    #[must_use]
    pub fn layer2(config: Layer2Config) -> Self {
        Self { topology: Topology::Layer2, layer3: None, layer2: Some(config) }
    }

    /// A Layer3 network.
    #[must_use]
    pub fn layer3(config: Layer3Config) -> Self {
        Self { topology: Topology::Layer3, layer3: Some(config), layer2: None }
    }

    /// The role, whichever topology says it.
    #[must_use]
    pub fn role(&self) -> Option<NetworkRole> {
        self.layer2.as_ref().map(|layer2| layer2.role).or_else(|| self.layer3.as_ref().map(|layer3| layer3.role))
    }
}
