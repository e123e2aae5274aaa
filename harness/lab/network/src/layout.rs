//! Where everything of a network is: node subnets, gateways, addresses inside OVN. Pure arithmetic on a [`Definition`],
//! the network's number and the nodes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;
use udn_lab_sys::site::NodeSite;

use crate::address::{Mac, subnet};
use crate::definition::{Definition, Range, Topology};
use crate::naming;

/// Pod ranges of the default network.
pub(crate) const POD_RANGES: [&str; 2] = ["10.244.0.0/16", "fd00:10:244::/48"];
/// ClusterIPs.
pub(crate) const SERVICE_RANGES: [&str; 2] = ["10.96.0.0/16", "fd00:10:96::/112"];
/// Join subnets of the default network.
pub(crate) const DEFAULT_JOIN: [&str; 2] = ["100.64.0.0/16", "fd98::/64"];
/// Addresses on br-ex that stand for the host and for each network's gateway routers.
pub(crate) const MASQUERADE: (Ipv4Addr, Ipv6Addr) =
    (Ipv4Addr::new(169, 254, 0, 0), Ipv6Addr::new(0xfd69, 0, 0, 0, 0, 0, 0, 0));
/// The host, as gateway routers see it.
pub(crate) const HOST_MASQUERADE: (Ipv4Addr, Ipv6Addr) =
    (Ipv4Addr::new(169, 254, 0, 2), Ipv6Addr::new(0xfd69, 0, 0, 0, 0, 0, 0, 2));

/// What stands on br-ex for user defined networks.
pub(crate) fn masquerade(ipv6: bool) -> &'static str {
    if ipv6 { "fd69::/112" } else { "169.254.0.0/17" }
}

/// What the host's routes to gateway routers lead to. Nobody has this address: br-ex takes the packets on their way out.
pub(crate) fn masquerade_next_hop(ipv6: bool) -> Option<IpAddr> {
    masquerade(ipv6).parse().ok().and_then(|range| subnet::nth(range, 1))
}

/// A node, as far as the network needs it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) index: u8,
    pub(crate) addresses: [IpAddr; 2],
    pub(crate) mac: Mac,
}

impl From<&NodeSite> for Node {
    fn from(site: &NodeSite) -> Self {
        Self {
            name: site.name.clone(),
            index: site.index,
            addresses: [site.ipv4.into(), site.ipv6.into()],
            mac: Mac(site.mac),
        }
    }
}

impl Node {
    pub(crate) fn is_control_plane(&self) -> bool {
        self.index == 1
    }
}

/// A network laid over the nodes.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub(crate) definition: Arc<Definition>,
    /// The network's number: 0 is the default network.
    pub(crate) id: u32,
    pub(crate) nodes: Arc<Vec<Node>>,
}

impl Layout {
    /// The cluster default network.
    pub(crate) fn default_network(nodes: Arc<Vec<Node>>) -> Self {
        let net = |text: &&str| text.parse::<IpNet>().ok();
        let definition = Definition {
            name: naming::DEFAULT_NETWORK.into(),
            topology: Topology::Layer3,
            primary: true,
            ranges: POD_RANGES
                .iter()
                .filter_map(net)
                .map(|net| Range { net, host_length: if net.addr().is_ipv4() { 24 } else { 64 } })
                .collect(),
            join: DEFAULT_JOIN.iter().filter_map(net).collect(),
            mtu: udn_lab_sys::site::OVERLAY_MTU,
            excluded: Vec::new(),
            reserved: Vec::new(),
            infrastructure: Vec::new(),
            gateways: Vec::new(),
            persistent: false,
            physical_network: None,
            vlan: None,
        };
        Self { definition: Arc::new(definition), id: 0, nodes }
    }

    pub(crate) fn is_default(&self) -> bool {
        self.id == 0
    }

    pub(crate) fn name(&self) -> &str {
        &self.definition.name
    }

    pub(crate) fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.name == name)
    }

    /// Whether a gateway router per node leads outside.
    pub(crate) fn has_gateways(&self) -> bool {
        self.definition.primary && self.definition.topology != Topology::Localnet && !self.definition.ranges.is_empty()
    }

    /// The subnets of pods on `node`, one per family that the network has. An error if a family's ranges are used up.
    pub(crate) fn subnets(&self, node: &Node) -> Result<Vec<IpNet>, String> {
        let ranges = &self.definition.ranges;
        if self.definition.topology != Topology::Layer3 {
            return Ok(ranges.iter().map(|range| range.net).collect());
        }
        // The default network counts nodes from 1, as the addresses in the documents do; the others use every piece.
        let piece = u128::from(node.index) - u128::from(!self.is_default());
        let mut subnets = Vec::new();
        for ipv6 in [false, true] {
            let family: Vec<&Range> = ranges.iter().filter(|range| range.net.addr().is_ipv6() == ipv6).collect();
            if family.is_empty() {
                continue;
            }
            let mut left = piece;
            let found = family.iter().find_map(|range| {
                let pieces = subnet::pieces(range.net, range.host_length);
                if left < pieces {
                    return subnet::cut(range.net, range.host_length, left);
                }
                left -= pieces;
                None
            });
            subnets.push(found.ok_or_else(|| {
                format!("error allocating network {} for node {}: no subnets available", self.name(), node.name)
            })?);
        }
        Ok(subnets)
    }

    /// The gateway's address in `subnet`.
    pub(crate) fn gateway(&self, of: IpNet) -> Option<IpAddr> {
        let configured = self.definition.gateways.iter().find(|gateway| of.contains(*gateway));
        configured.copied().or_else(|| subnet::nth(of, 1))
    }

    /// The management port's address in `subnet`: the second, or the first where that is the gateway's; inside the
    /// infrastructure subnets where there are any.
    pub(crate) fn management(&self, of: IpNet) -> Option<IpAddr> {
        let gateway = self.gateway(of);
        let infrastructure = self.definition.infrastructure.iter().filter(|range| of.contains(*range));
        let inside = infrastructure.flat_map(|range| (0..4).filter_map(|offset| subnet::nth(*range, offset)));
        let plain = [2, 1].into_iter().filter_map(|offset| subnet::nth(of, offset));
        inside.filter(|address| *address != of.network()).chain(plain).find(|address| Some(*address) != gateway)
    }

    /// What no pod is ever given in `subnet`.
    pub(crate) fn never_given(&self, of: IpNet) -> Vec<IpNet> {
        let definition = &self.definition;
        let mut ranges: Vec<IpNet> = definition.infrastructure.iter().chain(&definition.excluded).copied().collect();
        if definition.primary {
            ranges.extend([self.gateway(of), self.management(of)].into_iter().flatten().map(IpNet::from));
        } else if definition.topology == Topology::Layer3 {
            ranges.extend(self.gateway(of).map(IpNet::from));
        }
        if self.is_default() {
            ranges.extend(probe_address(of).map(IpNet::from));
        }
        ranges
    }

    /// The switch of `node`.
    pub(crate) fn switch(&self, node: &str) -> String {
        let prefix = naming::prefix(self.name());
        match self.definition.topology {
            Topology::Layer3 => format!("{prefix}{node}"),
            Topology::Layer2 => format!("{prefix}ovn_layer2_switch"),
            Topology::Localnet => format!("{prefix}ovn_localnet_switch"),
        }
    }

    /// A node's own port on a switch that all nodes share.
    pub(crate) fn management_port(&self, node: &str) -> String {
        management_port(self.name(), node)
    }

    /// Whether nodes have such ports: where virtual machines may come to them by live migration.
    pub(crate) fn has_management_ports(&self) -> bool {
        self.has_gateways() && self.definition.topology == Topology::Layer2 && self.definition.persistent
    }

    /// The router between nodes.
    pub(crate) fn router(&self) -> String {
        let prefix = naming::prefix(self.name());
        match self.definition.topology {
            Topology::Layer2 => format!("{prefix}transit_router"),
            _ => format!("{prefix}{}", naming::CLUSTER_ROUTER),
        }
    }

    pub(crate) fn join_switch(&self) -> String {
        format!("{}{}", naming::prefix(self.name()), naming::JOIN_SWITCH)
    }

    pub(crate) fn gateway_router(&self, node: &str) -> String {
        format!("GR_{}{node}", naming::prefix(self.name()))
    }

    pub(crate) fn external_switch(&self, node: &str) -> String {
        format!("{}ext_{node}", naming::prefix(self.name()))
    }

    /// The external switch's port on br-ex.
    pub(crate) fn external_port(&self, node: &str) -> String {
        format!("br-ex_{}{node}", naming::prefix(self.name()))
    }

    /// Load balancers that switches and gateway routers share.
    pub(crate) fn cluster_group(&self) -> String {
        format!("{}clusterLBGroup", naming::prefix(self.name()))
    }

    /// Load balancers of switches.
    pub(crate) fn switch_group(&self) -> String {
        format!("{}clusterSwitchLBGroup", naming::prefix(self.name()))
    }

    /// Load balancers of a node's gateway router.
    pub(crate) fn router_group(&self, node: &str) -> String {
        format!("{}routerLBGroup_{node}", naming::prefix(self.name()))
    }

    /// Whether pods have addresses of the family.
    pub(crate) fn has_family(&self, ipv6: bool) -> bool {
        self.definition.ranges.iter().any(|range| range.net.addr().is_ipv6() == ipv6)
    }

    /// Join subnets of the families that the network has.
    pub(crate) fn join(&self) -> Vec<IpNet> {
        self.definition.join.iter().copied().filter(|join| self.has_family(join.addr().is_ipv6())).collect()
    }

    /// The cluster router's addresses on the join switch.
    pub(crate) fn router_join(&self) -> Vec<IpNet> {
        self.on_join(1)
    }

    /// A gateway router's addresses on the join switch.
    pub(crate) fn gateway_join(&self, node: &Node) -> Vec<IpNet> {
        self.on_join(u128::from(node.index) + 1)
    }

    fn on_join(&self, offset: u128) -> Vec<IpNet> {
        let address = |join: IpNet| IpNet::new(subnet::nth(join, offset)?, join.prefix_len()).ok();
        self.join().into_iter().filter_map(address).collect()
    }

    /// What the network's pods look like to br-ex: an address of its own per network, so that overlapping networks
    /// egress side by side. The default network uses the node's address.
    pub(crate) fn egress_address(&self, node: &Node, ipv6: bool) -> IpAddr {
        if self.is_default() {
            return node.addresses[usize::from(ipv6)];
        }
        let offset = 10 + 2 * self.id - 1;
        match ipv6 {
            false => IpAddr::V4(Ipv4Addr::from(u32::from(MASQUERADE.0) + offset)),
            true => IpAddr::V6(Ipv6Addr::from(u128::from(MASQUERADE.1) + u128::from(offset))),
        }
    }

    /// The name of the set of a node's pod addresses (Layer2): what steers them to the node's gateway router.
    pub(crate) fn address_set(&self, node: &str, ipv6: bool) -> String {
        identifier(&format!("{}:{node}:{}", self.name(), if ipv6 { "v6" } else { "v4" }))
    }
}

/// A node's own port on a network's switch.
pub(crate) fn management_port(network: &str, node: &str) -> String {
    format!("{}k8s-{node}", naming::prefix(network))
}

/// The node's address from which the kubelet probes pods: the one before the last of its subnet. Nothing else on the
/// node uses it, so that the kubelet can be told from other host processes.
pub(crate) fn probe_address(of: IpNet) -> Option<IpAddr> {
    subnet::nth(of, 254)
}

/// A name that OVN's expressions take: `a` and digits, as OVN-Kubernetes hashes them.
pub(crate) fn identifier(text: &str) -> String {
    format!("a{}", naming::hash(text))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::definition;

    pub(crate) fn nodes() -> Arc<Vec<Node>> {
        let node = |name: &str, index: u8| Node {
            name: name.into(),
            index,
            addresses: [
                Ipv4Addr::new(172, 18, 0, index + 1).into(),
                format!("fc00:f853:ccd:e793::{}", index + 1).parse().unwrap(),
            ],
            mac: Mac([2, 0, 0, 0, 0, index]),
        };
        Arc::new(vec![node("ovn-control-plane", 1), node("ovn-worker", 2), node("ovn-worker2", 3)])
    }

    pub(crate) fn layout(config: &str, id: u32) -> Layout {
        let definition = definition::parse("blue/blue-network", config).unwrap().unwrap();
        Layout { definition: Arc::new(definition), id, nodes: nodes() }
    }

    pub(crate) const LAYER3: &str = r#"{"type":"ovn-k8s-cni-overlay","name":"blue_blue-network","netAttachDefName":"blue/blue-network",
        "topology":"layer3","role":"primary","subnets":"103.103.0.0/16/24,2014:100:200::/60"}"#;
    pub(crate) const LAYER2: &str = r#"{"type":"ovn-k8s-cni-overlay","name":"blue_blue-network","netAttachDefName":"blue/blue-network",
        "topology":"layer2","role":"primary","subnets":"172.16.0.0/16,2014:100:200::/60","defaultGatewayIPs":"172.16.0.2,2014:100:200::2"}"#;

    #[test]
    fn every_node_has_its_subnet() {
        let layout = layout(LAYER3, 1);
        let subnets = layout.subnets(&layout.nodes[2]).unwrap();
        assert_eq!(
            subnets.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["103.103.2.0/24", "2014:100:200:2::/64"]
        );
        let default = Layout::default_network(nodes());
        assert_eq!(default.subnets(&default.nodes[0]).unwrap()[0].to_string(), "10.244.1.0/24");
        assert_eq!(default.subnets(&default.nodes[2]).unwrap()[1].to_string(), "fd00:10:244:3::/64");
    }

    #[test]
    fn a_small_range_does_not_reach_the_third_node() {
        let layout = layout(&LAYER3.replace("103.103.0.0/16/24", "10.0.0.0/24/25"), 1);
        assert!(layout.subnets(&layout.nodes[1]).is_ok());
        assert!(layout.subnets(&layout.nodes[2]).unwrap_err().contains("error allocating network"));
    }

    #[test]
    fn a_configured_gateway_moves_the_management_port() {
        let layout = layout(LAYER2, 1);
        let subnets = layout.subnets(&layout.nodes[0]).unwrap();
        assert_eq!(layout.gateway(subnets[0]).unwrap().to_string(), "172.16.0.2");
        assert_eq!(layout.management(subnets[0]).unwrap().to_string(), "172.16.0.1");
    }

    #[test]
    fn egress_addresses_are_those_of_ovn_kubernetes() {
        let layout = layout(LAYER3, 1);
        assert_eq!(layout.egress_address(&layout.nodes[0], false).to_string(), "169.254.0.11");
        assert_eq!(layout.egress_address(&layout.nodes[0], true).to_string(), "fd69::b");
        assert_eq!(layout.gateway_join(&layout.nodes[1])[0].to_string(), "100.65.0.3/16");
    }
}
