//! Layer3: a switch and a subnet per node, routed.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::shared::{Cidr, NetworkRole, immutable_join_subnets};

/// A Layer3 network. Primary networks may be given more subnets later.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.role != 'Secondary' || self.subnets == oldSelf.subnets").message("Subnets is immutable for Secondary role"),
    validation = Rule::new("self.role != 'Secondary' || !has(self.subnets) || self.subnets.size() <= 2").message("Secondary networks may define at most 2 subnets"),
    validation = Rule::new("self.role != 'Secondary' || size(self.subnets) != 2 || !isCIDR(self.subnets[0].cidr) || !isCIDR(self.subnets[1].cidr) || cidr(self.subnets[0].cidr).ip().family() != cidr(self.subnets[1].cidr).ip().family()").message("When 2 CIDRs are set for Secondary networks, they must be from different IP families"),
    validation = Rule::new("!has(self.joinSubnets) || has(self.role) && self.role == 'Primary'").message("JoinSubnets is only supported for Primary network"),
    validation = Rule::new("!has(self.subnets) || !has(self.mtu) || !self.subnets.exists_one(i, isCIDR(i.cidr) && cidr(i.cidr).ip().family() == 6) || self.mtu >= 1280").message("MTU should be greater than or equal to 1280 when IPv6 subnet is used"),
    validation = Rule::new("!has(oldSelf.subnets) || oldSelf.subnets.all(old, self.subnets.exists(new, new.cidr == old.cidr))").message("Removing existing subnets is not allowed"),
    validation = Rule::new("!has(self.subnets) || self.subnets.size() == 1 || !self.subnets.exists(i, self.subnets.exists(j, i != j && cidr(i.cidr).containsCIDR(j.cidr)))").message("Subnets must not overlap or contain each other"),
    validation = Rule::new("!has(self.subnets) || self.subnets.size() == 1 || !self.subnets.exists(i, self.subnets.filter(j, j.cidr == i.cidr).size() > 1)").message("Subnets with same CIDR are not allowed"),
    validation = Rule::new("!has(oldSelf.subnets) || oldSelf.subnets.all(old, self.subnets.exists(new, new.cidr == old.cidr && (!has(old.hostSubnet) && !has(new.hostSubnet) || has(old.hostSubnet) && has(new.hostSubnet) && old.hostSubnet == new.hostSubnet)))").message("hostSubnet is immutable"),
    validation = Rule::new("!has(self.subnets) || self.subnets.size() == 1 || self.subnets.all(i, self.subnets.all(j, cidr(i.cidr).ip().family() != cidr(j.cidr).ip().family() || (has(i.hostSubnet) == has(j.hostSubnet) && (!has(i.hostSubnet) || i.hostSubnet == j.hostSubnet))))").message("Subnets from the same IP family must use the same hostSubnet value"),
)]
pub struct Layer3Config {
    /// The network's role in the pod.
    #[x_kube(validation = Rule::new("self == oldSelf").message("role is immutable"))]
    pub role: NetworkRole,
    /// Maximum transmission unit, bytes. Unset: the overlay's (1400).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 576, max = 65536))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("mtu is immutable"))]
    pub mtu: Option<i32>,
    /// What node subnets are cut from; several per family if primary.
    #[schemars(length(min = 1, max = 400), extend("x-kubernetes-list-type" = "atomic"))]
    pub subnets: Vec<Layer3Subnet>,
    /// Subnets inside the network's own routing. Unset: 100.65.0.0/16 and fd99::/64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "immutable_join_subnets")]
    pub join_subnets: Vec<Cidr>,
}

/// One range of a Layer3 network and how it is cut.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.hostSubnet) || !isCIDR(self.cidr) || self.hostSubnet > cidr(self.cidr).prefixLength()").message("HostSubnet must be smaller than CIDR subnet"),
    validation = Rule::new("!has(self.hostSubnet) || !isCIDR(self.cidr) || (cidr(self.cidr).ip().family() != 4 || self.hostSubnet < 32)").message("HostSubnet must < 32 for ipv4 CIDR"),
)]
pub struct Layer3Subnet {
    /// The range.
    pub cidr: Cidr,
    /// Prefix length of a node's subnet. Unset: 24 for IPv4, 64 for IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 127))]
    pub host_subnet: Option<i32>,
}

impl Layer3Config {
    /// A network of this role over `subnets`, cut by default.
    #[must_use]
    pub fn new(role: NetworkRole, subnets: &[&str]) -> Self {
        let subnets = subnets.iter().map(|text| Layer3Subnet { cidr: Cidr::from(*text), host_subnet: None }).collect();
        Self { role, mtu: None, subnets, join_subnets: Vec::new() }
    }
}
