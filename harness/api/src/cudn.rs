//! `ClusterUserDefinedNetwork` (`cudn`): one network for all namespaces that a selector picks.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::layer2::Layer2Config;
use crate::layer3::Layer3Config;
use crate::localnet::LocalnetConfig;
use crate::shared::{NetworkRole, NetworkStatus, label_selector};
use crate::transport::{EvpnConfig, NoOverlayConfig, Transport};

/// Topologies of a CUDN.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum NetworkTopology {
    /// One switch for all nodes.
    Layer2,
    /// A switch per node, routed.
    Layer3,
    /// A switch joined to a physical network.
    Localnet,
}

/// A network and the namespaces that share it.
#[derive(Clone, CustomResource, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "k8s.ovn.org",
    version = "v1",
    kind = "ClusterUserDefinedNetwork",
    plural = "clusteruserdefinednetworks",
    singular = "clusteruserdefinednetwork",
    shortname = "cudn",
    status = "NetworkStatus",
    printcolumn = r#"{"name":"Topology", "type":"string", "jsonPath":".spec.network.topology"}"#,
    printcolumn = r#"{"name":"Created", "type":"string", "jsonPath":".status.conditions[?(@.type==\"NetworkCreated\")].status"}"#,
    printcolumn = r#"{"name":"Age", "type":"date", "jsonPath":".metadata.creationTimestamp"}"#
)]
#[x_kube(
    validation = Rule::new("!has(self.uplinks) || ((self.network.topology == 'Layer2' && has(self.network.layer2) && self.network.layer2.role == 'Primary') || (self.network.topology == 'Layer3' && has(self.network.layer3) && self.network.layer3.role == 'Primary'))").message("spec.uplinks is supported only for primary Layer2 and Layer3 networks"),
    validation = Rule::new("!has(self.uplinks) || !has(self.network.transport) || self.network.transport != 'EVPN'").message("spec.uplinks is not supported with EVPN transport"),
)]
pub struct ClusterUserDefinedNetworkSpec {
    /// Namespaces that share the network.
    #[schemars(schema_with = "label_selector")]
    pub namespace_selector: LabelSelector,
    /// Uplink objects for external traffic; the lab has none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "uplinks")]
    pub uplinks: Vec<String>,
    /// The network.
    pub network: NetworkSpec,
}

/// The network of a CUDN.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.topology) && self.topology == 'Layer3' ? has(self.layer3): !has(self.layer3)").message("spec.layer3 is required when topology is Layer3 and forbidden otherwise"),
    validation = Rule::new("has(self.topology) && self.topology == 'Layer2' ? has(self.layer2): !has(self.layer2)").message("spec.layer2 is required when topology is Layer2 and forbidden otherwise"),
    validation = Rule::new("has(self.topology) && self.topology == 'Localnet' ? has(self.localnet): !has(self.localnet)").message("spec.localnet is required when topology is Localnet and forbidden otherwise"),
    validation = Rule::new("!has(self.transport) || self.transport != 'NoOverlay' || (self.topology == 'Layer3' && has(self.layer3) && self.layer3.role == 'Primary')").message("transport 'NoOverlay' is only supported for Layer3 primary networks"),
    validation = Rule::new("!has(self.transport) || self.transport != 'NoOverlay' || has(self.noOverlay)").message("spec.noOverlay is required when type transport is 'NoOverlay'"),
    validation = Rule::new("(has(self.transport) && self.transport == 'NoOverlay') || !has(self.noOverlay)").message("spec.noOverlay is forbidden when transport type is not 'NoOverlay'"),
    validation = Rule::new("!has(self.transport) || self.transport != 'EVPN' || ((self.topology == 'Layer2' && has(self.layer2) && self.layer2.role == 'Primary') || (self.topology == 'Layer3' && has(self.layer3) && self.layer3.role == 'Primary'))").message("transport 'EVPN' is only supported for Layer2 or Layer3 primary networks"),
    validation = Rule::new("!has(self.transport) || self.transport != 'EVPN' || has(self.evpn)").message("spec.evpn field is required when transport is 'EVPN'"),
    validation = Rule::new("(has(self.transport) && self.transport == 'EVPN') || !has(self.evpn)").message("spec.evpn field is forbidden when transport is not 'EVPN'"),
    validation = Rule::new("!has(self.transport) || self.transport != 'EVPN' || self.topology != 'Layer2' || (has(self.evpn) && has(self.evpn.macVRF))").message("spec.evpn.macVRF field is required for Layer2 topology when transport is 'EVPN'"),
    validation = Rule::new("!has(self.transport) || self.transport != 'EVPN' || self.topology != 'Layer3' || (has(self.evpn) && has(self.evpn.ipVRF))").message("spec.evpn.ipVRF field is required for Layer3 topology when transport is 'EVPN'"),
    validation = Rule::new("!has(self.transport) || self.transport != 'EVPN' || self.topology != 'Layer3' || !has(self.evpn) || !has(self.evpn.macVRF)").message("spec.evpn.macVRF field is forbidden for Layer3 topology when transport is 'EVPN'"),
)]
pub struct NetworkSpec {
    /// Which of the three following is set.
    #[x_kube(validation = Rule::new("self == oldSelf").message("Topology is immutable"))]
    pub topology: NetworkTopology,
    /// Set if the topology is Layer3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer3: Option<Layer3Config>,
    /// Set if the topology is Layer2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self == oldSelf").message("Layer2 is immutable"))]
    pub layer2: Option<Layer2Config>,
    /// Set if the topology is Localnet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self == oldSelf").message("Localnet is immutable"))]
    pub localnet: Option<LocalnetConfig>,
    /// Unset: the overlay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self == oldSelf").message("Transport is immutable"))]
    pub transport: Option<Transport>,
    /// Set if the transport is NoOverlay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self == oldSelf").message("NoOverlay is immutable"))]
    pub no_overlay: Option<NoOverlayConfig>,
    /// Set if the transport is EVPN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evpn: Option<EvpnConfig>,
}

impl NetworkSpec {
    /// A Layer2 network.
    #[must_use]
    pub fn layer2(config: Layer2Config) -> Self {
        Self { layer2: Some(config), ..Self::empty(NetworkTopology::Layer2) }
    }

    /// A Layer3 network.
    #[must_use]
    pub fn layer3(config: Layer3Config) -> Self {
        Self { layer3: Some(config), ..Self::empty(NetworkTopology::Layer3) }
    }

    fn empty(topology: NetworkTopology) -> Self {
        Self { topology, layer3: None, layer2: None, localnet: None, transport: None, no_overlay: None, evpn: None }
    }

    /// The role, whichever topology says it.
    #[must_use]
    pub fn role(&self) -> Option<NetworkRole> {
        self.layer2
            .as_ref()
            .map(|layer2| layer2.role)
            .or_else(|| self.layer3.as_ref().map(|layer3| layer3.role))
            .or_else(|| self.localnet.as_ref().map(|_| NetworkRole::Secondary))
    }
}

fn uplinks(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "items": {"type": "string", "minLength": 1, "maxLength": 253, "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"},
        "minItems": 1,
        "maxItems": 1,
        "x-kubernetes-list-type": "atomic",
        "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "uplinks is immutable"}],
    })
}
