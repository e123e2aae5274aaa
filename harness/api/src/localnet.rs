//! Localnet: a switch joined to a physical network.

use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::shared::{Cidr, IpamConfig, cidr_list, dual_stack_cidrs};

macro_rules! single_value {
    ($(#[$doc:meta])* $type:ident, $(#[$value_doc:meta])* $value:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
        pub enum $type {
            $(#[$value_doc])*
            #[default]
            $value,
        }

        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({"type": "string", "enum": [stringify!($value)]})
            }
        }
    };
}

single_value!(
    /// A localnet network's role.
    LocalnetRole,
    /// The only one possible.
    Secondary
);
single_value!(
    /// How a localnet network uses VLANs.
    VlanMode,
    /// One VLAN, untagged at the pod.
    Access
);

/// A Localnet network. Immutable as a whole.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.ipam) || !has(self.ipam.mode) || self.ipam.mode == 'Enabled' ? has(self.subnets) : !has(self.subnets)").message("Subnets is required with ipam.mode is Enabled or unset, and forbidden otherwise"),
    validation = Rule::new("!has(self.excludeSubnets) || has(self.subnets)").message("excludeSubnets must be unset when subnets is unset"),
    validation = Rule::new("!has(self.subnets) || !has(self.mtu) || !self.subnets.exists_one(i, isCIDR(i) && cidr(i).ip().family() == 6) || self.mtu >= 1280").message("MTU should be greater than or equal to 1280 when an IPv6 subnet is used"),
)]
pub struct LocalnetConfig {
    /// Always Secondary.
    pub role: LocalnetRole,
    /// The bridge mapping's network name on the nodes.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[^,:]+$')").message("physicalNetworkName cannot contain `,` or `:` characters"))]
    pub physical_network_name: String,
    /// One subnet per family, or none if addresses come from elsewhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "dual_stack_cidrs")]
    pub subnets: Vec<Cidr>,
    /// Ranges of `subnets` never given to a pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "cidr_list::<25>")]
    pub exclude_subnets: Vec<Cidr>,
    /// Address management.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipam: Option<IpamConfig>,
    /// Maximum transmission unit, bytes. Unset: 1500.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 576, max = 65536))]
    pub mtu: Option<i32>,
    /// VLAN of the network's port on the physical network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<VlanConfig>,
}

/// The VLAN of a localnet network.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[x_kube(validation = Rule::new("has(self.mode) && self.mode == 'Access' ? has(self.access): !has(self.access)").message("vlan access config is required when vlan mode is 'Access', and forbidden otherwise"))]
pub struct VlanConfig {
    /// Always Access.
    pub mode: VlanMode,
    /// The VLAN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<AccessVlan>,
}

/// A VLAN in access mode.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct AccessVlan {
    /// VLAN id, 1 to 4094.
    #[schemars(range(min = 1, max = 4094))]
    pub id: i32,
}
