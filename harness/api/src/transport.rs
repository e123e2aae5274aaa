//! Transports other than the overlay: accepted and validated here, not carried by the lab.

use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// Transport between nodes. Unset: the overlay (Geneve).
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum Transport {
    /// Routed by the underlay.
    NoOverlay,
    /// EVPN over VXLAN.
    #[serde(rename = "EVPN")]
    Evpn,
}

/// An option that is on or off.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum Switch {
    /// On.
    Enabled,
    /// Off.
    Disabled,
}

/// Who manages the underlay's routes.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum Routing {
    /// OVN-Kubernetes.
    Managed,
    /// The user.
    Unmanaged,
}

/// A network without overlay.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct NoOverlayConfig {
    /// Whether pods' outbound traffic is SNATed.
    #[serde(rename = "outboundSNAT")]
    pub outbound_snat: Switch,
    /// Who manages routes.
    pub routing: Routing,
}

/// A network over EVPN.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[x_kube(
    validation = Rule::new("has(self.macVRF) || has(self.ipVRF)").message("at least one of macVRF or ipVRF must be specified"),
    validation = Rule::new("!has(self.macVRF) || !has(self.ipVRF) || self.macVRF.vni != self.ipVRF.vni").message("macVRF and ipVRF must use different VNIs"),
)]
pub struct EvpnConfig {
    /// Name of the VTEP object.
    #[schemars(length(min = 1))]
    pub vtep: String,
    /// Layer 2 VRF.
    #[serde(default, rename = "macVRF", skip_serializing_if = "Option::is_none")]
    pub mac_vrf: Option<VrfConfig>,
    /// Layer 3 VRF.
    #[serde(default, rename = "ipVRF", skip_serializing_if = "Option::is_none")]
    pub ip_vrf: Option<VrfConfig>,
}

/// One VRF of an EVPN network.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VrfConfig {
    /// VXLAN network identifier, 24 bits.
    #[schemars(range(min = 1, max = 16_777_215))]
    pub vni: i32,
    /// Route target. Unset: `<AS>:<VNI>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "route_target")]
    pub route_target: Option<String>,
}

fn route_target(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 21,
        "x-kubernetes-validations": [
            {"rule": "self.split(':').size() == 2", "message": "RT must contain exactly one colon"},
            {
                "rule": "self.split(':').size() != 2 || (self.startsWith('*:') || isIP(self.split(':')[0]) || self.split(':')[0].matches('^[0-9]+$'))",
                "message": "RT global administrator must be either '*', an IPv4 address, or a number",
            },
            {
                "rule": "self.split(':').size() != 2 || self.split(':')[1].matches('^[0-9]+$')",
                "message": "RT local administrator must be a number",
            },
            {
                "rule": "self.split(':').size() != 2 || !self.startsWith('*:') || (self.split(':')[1].matches('^[0-9]+$') && uint(self.split(':')[1]) <= 4294967295u)",
                "message": "RT with wildcard global administrator must have format *:OPQR where OPQR <= 4294967295",
            },
            {
                "rule": "self.split(':').size() != 2 || !self.split(':')[0].contains('.') || (self.split(':')[1].matches('^[0-9]+$') && uint(self.split(':')[1]) <= 65535u)",
                "message": "RT with IPv4 global administrator must have format A.B.C.D:MN where MN <= 65535",
            },
            {
                "rule": "self.split(':').size() != 2 || self.startsWith('*:') || self.split(':')[0].contains('.') || !self.split(':')[0].matches('^[0-9]+$') || !self.split(':')[1].matches('^[0-9]+$') || uint(self.split(':')[0]) <= 65535u || uint(self.split(':')[1]) <= 65535u",
                "message": "RT with 4-byte ASN global administrator must have format GHJK:MN where GHJK <= 4294967295 and MN <= 65535",
            },
            {
                "rule": "self.split(':').size() != 2 || self.startsWith('*:') || self.split(':')[0].contains('.') || !self.split(':')[0].matches('^[0-9]+$') || !self.split(':')[1].matches('^[0-9]+$') || uint(self.split(':')[0]) > 65535u || uint(self.split(':')[1]) <= 4294967295u",
                "message": "RT with 2-byte ASN global administrator must have format EF:OPQR where EF <= 65535 and OPQR <= 4294967295",
            },
        ],
    })
}
