//! Layer2: one switch for all nodes.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::shared::{Cidr, Ip, IpamConfig, IpamLifecycle, IpamMode, NetworkRole};
use crate::shared::{cidr_list, dual_stack_cidrs, dual_stack_ips};

/// A Layer2 network. Immutable as a whole.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.ipam) && has(self.ipam.mode) && self.ipam.mode != 'Enabled' || has(self.subnets)").message("Subnets is required with ipam.mode is Enabled or unset"),
    validation = Rule::new("!has(self.ipam) || !has(self.ipam.mode) || self.ipam.mode != 'Disabled' || !has(self.subnets)").message("Subnets must be unset when ipam.mode is Disabled"),
    validation = Rule::new("!has(self.ipam) || !has(self.ipam.mode) || self.ipam.mode != 'Disabled' || self.role == 'Secondary'").message("Disabled ipam.mode is only supported for Secondary network"),
    validation = Rule::new("!has(self.joinSubnets) || has(self.role) && self.role == 'Primary'").message("JoinSubnets is only supported for Primary network"),
    validation = Rule::new("!has(self.subnets) || !has(self.mtu) || !self.subnets.exists_one(i, isCIDR(i) && cidr(i).ip().family() == 6) || self.mtu >= 1280").message("MTU should be greater than or equal to 1280 when IPv6 subnet is used"),
    validation = Rule::new("!has(self.defaultGatewayIPs) || has(self.role) && self.role == 'Primary'").message("defaultGatewayIPs is only supported for Primary network"),
    validation = Rule::new("!has(self.defaultGatewayIPs) || self.defaultGatewayIPs.all(ip, self.subnets.exists(subnet, cidr(subnet).containsIP(ip)))").message("defaultGatewayIPs must belong to one of the subnets specified in the subnets field"),
    validation = Rule::new("!has(self.defaultGatewayIPs) || size(self.defaultGatewayIPs) == size(self.subnets)").message("defaultGatewayIPs must be specified for all IP families"),
    validation = Rule::new("!has(self.reservedSubnets) || has(self.subnets)").message("reservedSubnets must be unset when subnets is unset"),
    validation = Rule::new("!has(self.reservedSubnets) || has(self.role) && self.role == 'Primary'").message("reservedSubnets is only supported for Primary network"),
    validation = Rule::new("!has(self.infrastructureSubnets) || has(self.subnets)").message("infrastructureSubnets must be unset when subnets is unset"),
    validation = Rule::new("!has(self.infrastructureSubnets) || has(self.role) && self.role == 'Primary'").message("infrastructureSubnets is only supported for Primary network"),
    validation = Rule::new("!has(self.infrastructureSubnets) || !has(self.defaultGatewayIPs) || self.defaultGatewayIPs.all(ip, self.infrastructureSubnets.exists(subnet, cidr(subnet).containsIP(ip)))").message("defaultGatewayIPs have to belong to infrastructureSubnets"),
    validation = Rule::new("!has(self.reservedSubnets) || self.reservedSubnets.all(e, self.subnets.exists(s, cidr(s).containsCIDR(cidr(e))))").message("reservedSubnets must be subnetworks of the networks specified in the subnets field").field_path(".reservedSubnets"),
    validation = Rule::new("!has(self.infrastructureSubnets) || self.infrastructureSubnets.all(e, self.subnets.exists(s, cidr(s).containsCIDR(cidr(e))))").message("infrastructureSubnets must be subnetworks of the networks specified in the subnets field").field_path(".infrastructureSubnets"),
    validation = Rule::new("!has(self.infrastructureSubnets) || !has(self.reservedSubnets) || self.infrastructureSubnets.all(infra, !self.reservedSubnets.exists(reserved, cidr(infra).containsCIDR(reserved) || cidr(reserved).containsCIDR(infra)))").message("infrastructureSubnets and reservedSubnets must not overlap"),
    validation = Rule::new("!has(self.infrastructureSubnets) || self.infrastructureSubnets.all(s, isCIDR(s) && cidr(s) == cidr(s).masked())").message("infrastructureSubnets must be a masked network address (no host bits set)"),
    validation = Rule::new("!has(self.reservedSubnets) || self.reservedSubnets.all(s, isCIDR(s) && cidr(s) == cidr(s).masked())").message("reservedSubnets must be a masked network address (no host bits set)"),
)]
pub struct Layer2Config {
    /// The network's role in the pod.
    pub role: NetworkRole,
    /// Maximum transmission unit, bytes. Unset: the overlay's (1400).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 576, max = 65536))]
    pub mtu: Option<i32>,
    /// One subnet per family. Empty only if `ipam.mode` is Disabled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "dual_stack_cidrs")]
    pub subnets: Vec<Cidr>,
    /// Ranges kept for static requests: never given automatically.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "cidr_list::<25>")]
    pub reserved_subnets: Vec<Cidr>,
    /// Ranges for the network's own use: never given to a workload.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "cidr_list::<4>")]
    pub infrastructure_subnets: Vec<Cidr>,
    /// The gateway's address per family. Unset: the subnet's first.
    #[serde(default, rename = "defaultGatewayIPs", skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "dual_stack_ips")]
    pub default_gateway_ips: Vec<Ip>,
    /// Subnets inside the network's own routing. Unset: 100.65.0.0/16 and fd99::/64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "dual_stack_cidrs")]
    pub join_subnets: Vec<Cidr>,
    /// Address management. Unset: Enabled, not persistent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipam: Option<IpamConfig>,
}

impl Layer2Config {
    /// A network of this role over `subnets`, everything else by default.
    #[must_use]
    pub fn new(role: NetworkRole, subnets: &[&str]) -> Self {
        Self {
            role,
            mtu: None,
            subnets: subnets.iter().map(|text| Cidr::from(*text)).collect(),
            reserved_subnets: Vec::new(),
            infrastructure_subnets: Vec::new(),
            default_gateway_ips: Vec::new(),
            join_subnets: Vec::new(),
            ipam: None,
        }
    }

    /// Whether the network gives addresses to pods.
    #[must_use]
    pub fn gives_addresses(&self) -> bool {
        self.ipam.as_ref().and_then(|ipam| ipam.mode) != Some(IpamMode::Disabled)
    }

    /// Whether addresses outlive pods by IPAMClaims.
    #[must_use]
    pub fn persistent(&self) -> bool {
        self.ipam.as_ref().and_then(|ipam| ipam.lifecycle) == Some(IpamLifecycle::Persistent)
    }
}
