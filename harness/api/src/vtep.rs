//! `VTEP`: the tunnel endpoints of EVPN networks. Validated here, not carried by the lab.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::shared::{Cidr, conditions, network_cidr};

/// Who gives nodes their endpoint addresses.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum VtepMode {
    /// OVN-Kubernetes, in the order of the ranges.
    #[default]
    Managed,
    /// Somebody else: addresses are looked for on the nodes.
    Unmanaged,
}

/// Ranges of endpoint addresses.
#[derive(Clone, CustomResource, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[kube(
    group = "k8s.ovn.org",
    version = "v1",
    kind = "VTEP",
    root = "Vtep",
    plural = "vteps",
    singular = "vtep",
    status = "VtepStatus",
    printcolumn = r#"{"name":"Accepted", "type":"string", "jsonPath":".status.conditions[?(@.type==\"Accepted\")].status"}"#,
    printcolumn = r#"{"name":"Reason", "type":"string", "jsonPath":".status.conditions[?(@.type==\"Accepted\")].reason"}"#
)]
// Twenty positions, as many as there may be ranges: CEL counts no further than a list that is there.
#[x_kube(
    validation = Rule::new("self.mode != 'Managed' || size(self.cidrs) >= size(oldSelf.cidrs)").message("CIDRs cannot be removed in managed mode; only appending new CIDRs or expanding the existing CIDRs is allowed"),
    validation = Rule::new("self.mode != 'Managed' || [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19].all(i, i >= size(self.cidrs) || i >= size(oldSelf.cidrs) || cidr(self.cidrs[i]).containsCIDR(oldSelf.cidrs[i]))").message("In managed mode, existing CIDRs must remain at the same position and can only be expanded to a wider mask; shrinking the mask or reordering is not allowed"),
)]
pub struct VtepSpec {
    /// 1 to 20 ranges; while managed they may only be widened, and others put behind them.
    #[schemars(schema_with = "ranges")]
    pub cidrs: Vec<Cidr>,
    /// Who gives addresses.
    #[serde(default)]
    pub mode: VtepMode,
}

/// What the network's controllers say of it.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VtepStatus {
    /// `Accepted`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
}

/// Each range overlaps itself and no other.
fn ranges(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "items": network_cidr(generator),
        "minItems": 1,
        "maxItems": 20,
        "x-kubernetes-list-type": "atomic",
        "x-kubernetes-validations": [{
            "rule": "self.all(a, self.filter(b, cidr(a).containsIP(cidr(b).ip()) || cidr(b).containsIP(cidr(a).ip())).size() == 1)",
            "message": "CIDRs must not overlap with each other",
        }],
    })
}
