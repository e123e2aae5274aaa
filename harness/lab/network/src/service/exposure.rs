//! What br-ex lets in, and for whom: node ports and external addresses lead to the gateway router of the service's
//! network. Flows are text for `ovs-ofctl`; whose packet is whose afterwards, `node::flows` tells by conntrack marks.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use sha2::{Digest, Sha256};
use udn_lab_sys::site::{
    EXTERNAL_V4, EXTERNAL_V6, NodeSite, ROUTER_V4, ROUTER_V6, UNDERLAY_PREFIX_V4, UNDERLAY_PREFIX_V6,
};

use super::facts::{Facts, Protocol};
use crate::layout::{HOST_MASQUERADE, Layout, Node, masquerade};
use crate::naming;
use crate::node::flows::{BETWEEN, FROM_GATEWAY, OUTSIDE, again};

/// One way into a network.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Exposure {
    /// The network's name.
    pub(crate) network: String,
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
    pub(crate) at: At,
}

/// Where it is.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum At {
    /// Every node's own address.
    Nodes { ipv6: bool },
    /// An address of the underlay that the named node announces, if any does.
    External { address: IpAddr, announcer: Option<String> },
    /// A ClusterIP of the default network that pods of user defined networks may use.
    Allowed { address: IpAddr },
}

/// All that br-ex has to know of networks and services.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Exposures {
    /// Primary networks by name, with the IPv6 address that stands for them on br-ex if they have that family.
    pub(crate) networks: BTreeMap<String, Option<IpAddr>>,
    /// By service.
    pub(crate) services: BTreeMap<String, Vec<Exposure>>,
}

impl Exposures {
    /// External addresses of the default network, which hosts reach as its services and not over the underlay.
    pub(crate) fn for_hosts(&self) -> BTreeSet<IpAddr> {
        let default = self.services.values().flatten().filter(|it| it.network == naming::DEFAULT_NETWORK);
        let external = default.filter_map(|it| match &it.at {
            At::External { address, announcer } => announcer.as_ref().map(|_| *address),
            _ => None,
        });
        external.collect()
    }
}

/// The exposures of a service of `network`. `allowed`: pods of all networks may use its ClusterIPs.
pub(crate) fn of(facts: &Facts, network: &Layout, allowed: bool) -> Vec<Exposure> {
    let mut found = Vec::new();
    let announcer = announcer(facts, &network.nodes);
    for port in &facts.ports {
        let mut add = |port_number: u16, at: At| {
            let network = network.name().to_owned();
            found.push(Exposure { network, protocol: port.protocol, port: port_number, at });
        };
        for ipv6 in [false, true] {
            if let Some(number) = port.node_port.filter(|_| facts.has_family(ipv6)) {
                add(number, At::Nodes { ipv6 });
            }
        }
        for address in &facts.external {
            let announcer = announcer.filter(|_| is_announced(&network.nodes, *address)).map(str::to_owned);
            add(port.number, At::External { address: *address, announcer });
        }
        if allowed && network.is_default() {
            facts.cluster_ips.iter().for_each(|address| add(port.number, At::Allowed { address: *address }));
        }
    }
    found
}

/// The node that answers for a service's addresses: always the same one for the same first address, so that nobody's
/// neighbour table goes stale; of those with an endpoint where only they have something to say.
pub(crate) fn announcer<'a>(facts: &Facts, nodes: &'a [Node]) -> Option<&'a str> {
    let first = facts.external.iter().find(|address| is_announced(nodes, **address))?;
    let serving = facts.nodes();
    let candidates = nodes.iter().map(|node| node.name.as_str());
    candidates
        .filter(|node| !facts.external_local || serving.contains(node))
        .min_by_key(|node| Sha256::digest(format!("{node}#{first}")))
}

/// Whether somebody answers for an address: it is one of the underlay and nobody else's. Others lead nowhere outside.
fn is_announced(nodes: &[Node], address: IpAddr) -> bool {
    let (router, length) = match address {
        IpAddr::V4(_) => (IpAddr::from(ROUTER_V4), UNDERLAY_PREFIX_V4),
        IpAddr::V6(_) => (IpAddr::from(ROUTER_V6), UNDERLAY_PREFIX_V6),
    };
    let others = [router, EXTERNAL_V4.into(), EXTERNAL_V6.into()];
    let is_taken = others.contains(&address) || nodes.iter().any(|node| node.addresses.contains(&address));
    !is_taken && IpNet::new(router, length).is_ok_and(|underlay| underlay.contains(&address))
}

/// The flows of a node. `ports` are the OpenFlow ports of networks' gateway routers, by network; networks that have none
/// yet have no flows yet.
pub(crate) fn flows(node: &NodeSite, exposures: &Exposures, ports: &BTreeMap<String, u32>) -> Vec<String> {
    let mut flows = BTreeSet::new();
    let default = ports.get(naming::DEFAULT_NETWORK).copied();
    for exposure in exposures.services.values().flatten() {
        let Some(port) = ports.get(&exposure.network).copied() else { continue };
        let context = Context { node, default: exposure.network == naming::DEFAULT_NETWORK, exposure, port };
        context.flows(&mut flows);
    }
    if let Some(default) = default {
        default_services(node, default, &mut flows);
    }
    for (network, address) in &exposures.networks {
        if let (Some(address), Some(port)) = (address, ports.get(network).copied()) {
            between_networks(node, *address, port, &mut flows);
        }
    }
    flows.into_iter().collect()
}

struct Context<'a> {
    node: &'a NodeSite,
    exposure: &'a Exposure,
    /// Whether it is the default network's.
    default: bool,
    /// The gateway router's port.
    port: u32,
}

impl Context<'_> {
    fn flows(&self, flows: &mut BTreeSet<String>) {
        match &self.exposure.at {
            At::Nodes { ipv6 } => self.address(own(self.node, *ipv6), flows),
            At::External { address, announcer } => {
                self.address(*address, flows);
                self.external(*address, announcer.as_deref() == Some(self.node.name.as_str()), flows);
            }
            At::Allowed { address } => {
                let (any, again, number) = (Match::of(*address), again(self.node, self.port), self.exposure.port);
                let (protocol, field, range) = (self.protocol(*address), any.field, masquerade(address.is_ipv6()));
                flows.insert(format!(
                    "table=0,priority=230,{protocol},{field}_src={range},{field}_dst={address},tp_dst={number},actions=\
                     ct(commit,zone={BETWEEN},exec({FROM_GATEWAY})),{again}"
                ));
            }
        }
    }

    fn protocol(&self, address: IpAddr) -> String {
        format!("{}{}", self.exposure.protocol.lower(), if address.is_ipv6() { "6" } else { "" })
    }

    /// Connections to the address and port, from the wire and from the host.
    fn address(&self, address: IpAddr, flows: &mut BTreeSet<String>) {
        let (any, port, protocol, number) = (Match::of(address), self.port, self.protocol(address), self.exposure.port);
        let field = any.field;
        let mark = 0x1_0000 | port;
        flows.insert(format!(
            "table=1,priority=90,ct_state=+trk+new,{protocol},{field}_dst={address},tp_dst={number},actions=\
             ct(commit,zone={OUTSIDE},exec(load:{mark:#x}->NXM_NX_CT_MARK[])),output:{port}"
        ));
        if self.default {
            // The host reaches services of the default network on its own node, under its masquerade address: gateway
            // router and host have the same one.
            let (own, host) = (own(self.node, address.is_ipv6()), host(address.is_ipv6()));
            let again = again(self.node, port);
            flows.insert(format!(
                "table=0,priority=216,in_port=LOCAL,{protocol},{field}_src={own},{field}_dst={address},tp_dst={number},\
                 actions=ct(commit,zone={BETWEEN},nat(src={host}),exec({FROM_GATEWAY})),{again}"
            ));
        }
    }

    /// Who has the address, and that it may leave.
    fn external(&self, address: IpAddr, announces: bool, flows: &mut BTreeSet<String>) {
        let (any, port) = (Match::of(address), self.port);
        if [self.node.ipv4.into(), IpAddr::from(self.node.ipv6)].contains(&address) {
            return;
        }
        flows.insert(format!(
            "table=0,priority=195,{},{}_src={address},actions=\
             ct(commit,zone={OUTSIDE},exec({FROM_GATEWAY})),output:eth0",
            any.protocol, any.field
        ));
        let asks = any.asks(address);
        if announces {
            flows.insert(format!("table=0,priority=260,in_port=eth0,{asks},actions=output:{port}"));
        }
        if self.default {
            flows.insert(format!(
                "table=0,priority=217,{},{}_src={address},{}_dst={},actions=ct(zone={BETWEEN},nat,table=3)",
                any.protocol,
                any.field,
                any.field,
                host(address.is_ipv6())
            ));
        }
    }
}

/// The host's connections to services of the default network, and replies to it and to other networks.
fn default_services(node: &NodeSite, default: u32, flows: &mut BTreeSet<String>) {
    for (ipv6, range) in [false, true].into_iter().zip(crate::layout::SERVICE_RANGES) {
        let Match { protocol, field } = Match::family(ipv6);
        let (own, host, networks, again) = (own(node, ipv6), host(ipv6), masquerade(ipv6), again(node, default));
        flows.insert(format!(
            "table=0,priority=229,in_port=LOCAL,{protocol},{field}_src={own},{field}_dst={range},actions=\
             ct(commit,zone={BETWEEN},nat(src={host}),exec({FROM_GATEWAY})),{again}"
        ));
        flows.insert(format!(
            "table=0,priority=229,in_port={default},{protocol},{field}_src={range},{field}_dst={networks},actions=\
             ct(zone={BETWEEN},nat,table=3)"
        ));
    }
}

/// From a gateway router to that of another network on the same node, which is meant by its masquerade address.
fn between_networks(node: &NodeSite, address: IpAddr, port: u32, flows: &mut BTreeSet<String>) {
    let (any, range, own) = (Match::of(address), masquerade(address.is_ipv6()), own(node, address.is_ipv6()));
    let again = again(node, port);
    flows.insert(format!(
        "table=0,priority=219,{},{}_src={range},{}_dst={address},actions=\
         ct(commit,zone={BETWEEN},nat(dst={own}),exec({FROM_GATEWAY})),{again}",
        any.protocol, any.field, any.field
    ));
}

fn own(node: &NodeSite, ipv6: bool) -> IpAddr {
    if ipv6 { node.ipv6.into() } else { node.ipv4.into() }
}

fn host(ipv6: bool) -> IpAddr {
    if ipv6 { HOST_MASQUERADE.1.into() } else { HOST_MASQUERADE.0.into() }
}

/// How Open vSwitch names a family.
struct Match {
    protocol: &'static str,
    field: &'static str,
}

impl Match {
    fn family(ipv6: bool) -> Self {
        if ipv6 { Self { protocol: "ipv6", field: "ipv6" } } else { Self { protocol: "ip", field: "nw" } }
    }

    fn of(address: IpAddr) -> Self {
        Self::family(address.is_ipv6())
    }

    /// Somebody asks who has the address.
    fn asks(&self, address: IpAddr) -> String {
        match address {
            IpAddr::V4(_) => format!("arp,arp_op=1,arp_tpa={address}"),
            IpAddr::V6(_) => format!("icmp6,icmp_type=135,nd_target={address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::tests::{LAYER3, layout, nodes};
    use crate::service::facts::{Endpoint, Port};

    fn facts() -> Facts {
        Facts {
            key: "blue/web".into(),
            cluster_ips: vec!["10.96.1.1".parse().unwrap()],
            external: vec!["172.18.255.200".parse().unwrap()],
            ports: vec![Port {
                protocol: Protocol::Tcp,
                number: 80,
                node_port: Some(30080),
                endpoints: vec![Endpoint {
                    address: "103.103.1.3:8080".parse().unwrap(),
                    node: Some("ovn-worker".into()),
                }],
            }],
            external_local: false,
            internal_local: false,
            affinity: false,
        }
    }

    #[test]
    fn one_node_announces_an_address() {
        let nodes = nodes();
        let at = |text: &str| {
            let facts = Facts { external: vec![text.parse().unwrap()], ..facts() };
            announcer(&facts, &nodes).map(str::to_owned)
        };
        assert!(at("172.18.255.200").is_some());
        assert_eq!(at("172.18.255.200"), at("172.18.255.200"));
        let all: BTreeSet<_> = (200..250).filter_map(|last| at(&format!("172.18.255.{last}"))).collect();
        assert_eq!(all.len(), 3, "addresses spread over nodes");
        for nowhere in ["172.18.0.2", "172.18.0.1", "172.18.0.100", "192.0.2.1", "2001:db8::1"] {
            assert_eq!(at(nowhere), None, "{nowhere}");
        }
    }

    #[test]
    fn local_traffic_is_announced_where_it_is_served() {
        let mut facts = Facts { external_local: true, ..facts() };
        assert_eq!(announcer(&facts, &nodes()), Some("ovn-worker"));
        facts.ports[0].endpoints.clear();
        assert_eq!(announcer(&facts, &nodes()), None);
    }

    #[test]
    fn only_the_default_network_has_services_for_all() {
        let allowed =
            |network: &Layout| of(&facts(), network, true).iter().any(|it| matches!(it.at, At::Allowed { .. }));
        assert!(allowed(&Layout::default_network(nodes())));
        assert!(!allowed(&layout(LAYER3, 1)));
    }
}
