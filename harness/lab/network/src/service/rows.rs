//! Load balancers of a service, named and spread as OVN-Kubernetes does.
//!
//! What every switch and gateway router treats alike is one load balancer in the network's common group. What depends on
//! the node is a template on switches (a Layer2 network has one switch for all nodes) and a load balancer of its own on
//! each gateway router.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use super::facts::{Endpoint, Facts, Port, Protocol};
use crate::layout::{HOST_MASQUERADE, Layout, Node, identifier};
use crate::naming;

/// Source of a connection that a pod makes to itself by way of a service.
const HAIRPIN: &str = "169.254.0.5 fd69::5";

/// A row of `Load_Balancer`, and the groups that it is in.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct LoadBalancer {
    pub(crate) protocol: Protocol,
    pub(crate) vips: BTreeMap<String, String>,
    pub(crate) options: BTreeMap<&'static str, &'static str>,
    pub(crate) affinity: bool,
    pub(crate) groups: BTreeSet<String>,
}

/// Everything that OVN has of a service.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Rows {
    /// By name.
    pub(crate) load_balancers: BTreeMap<String, LoadBalancer>,
    /// Variables of templates, by chassis.
    pub(crate) variables: BTreeMap<String, BTreeMap<String, String>>,
}

/// The variable that is a node's own address on its chassis.
pub(crate) fn node_variable(ipv6: bool) -> &'static str {
    if ipv6 { "NODEIP_IPv6_0" } else { "NODEIP_IPv4_0" }
}

/// Who uses a load balancer.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Scope {
    /// Switches and gateway routers.
    Cluster,
    /// Switches.
    Switch,
    /// Switches, with what is different on each chassis.
    SwitchTemplate { ipv6: bool },
    /// Switches and gateway routers, the node's own address standing for each chassis.
    MergedTemplate { ipv6: bool },
    /// Switches of other networks.
    ForeignTemplate,
    /// The gateway router of a node.
    Router(String),
    /// The gateway router of a node; the client's address is kept.
    LocalRouter(String),
}

impl Scope {
    fn name(&self) -> String {
        let family = |ipv6: bool| if ipv6 { "IPv6" } else { "IPv4" };
        match self {
            Self::Cluster => "cluster".into(),
            Self::Switch => "node_switch".into(),
            Self::SwitchTemplate { ipv6 } => format!("node_switch_template_{}", family(*ipv6)),
            Self::MergedTemplate { ipv6 } => format!("node_switch_template_{}_merged", family(*ipv6)),
            Self::ForeignTemplate => "node_switch_foreign_template_IPv6".into(),
            Self::Router(node) => format!("node_router_{node}"),
            Self::LocalRouter(node) => format!("node_local_router_{node}"),
        }
    }

    fn groups(&self, network: &Layout, foreign: &[Layout]) -> BTreeSet<String> {
        match self {
            Self::Cluster | Self::MergedTemplate { .. } => BTreeSet::from([network.cluster_group()]),
            Self::Switch | Self::SwitchTemplate { .. } => BTreeSet::from([network.switch_group()]),
            Self::ForeignTemplate => foreign.iter().map(Layout::switch_group).collect(),
            Self::Router(node) | Self::LocalRouter(node) => BTreeSet::from([network.router_group(node)]),
        }
    }

    fn options(&self) -> BTreeMap<&'static str, &'static str> {
        let mut options = BTreeMap::from([("reject", "true"), ("event", "false"), ("hairpin_snat_ip", HAIRPIN)]);
        match self {
            Self::SwitchTemplate { ipv6 } | Self::MergedTemplate { ipv6 } => {
                options.extend([("template", "true"), ("address-family", if *ipv6 { "ipv6" } else { "ipv4" })]);
            }
            Self::ForeignTemplate => options.extend([("template", "true"), ("address-family", "ipv6")]),
            Self::LocalRouter(_) => options.extend([("skip_snat", "true")]),
            Self::Cluster | Self::Switch | Self::Router(_) => {}
        }
        options
    }
}

/// The load balancers of a service of `network`. `foreign` are the other primary networks.
pub(crate) fn rows(facts: &Facts, network: &Layout, foreign: &[Layout]) -> Rows {
    let mut building = Building { facts, network, vips: BTreeMap::new(), variables: BTreeMap::new() };
    for port in &facts.ports {
        building.port(port);
    }
    if !network.is_default() && foreign.iter().any(|other| other.has_family(true)) {
        building.foreign();
    }
    let load_balancers = building.vips.into_iter().map(|((protocol, scope, rejecting), vips)| {
        let mut options = scope.options();
        if rejecting {
            options.insert("skip_snat", "true");
        }
        if protocol == Protocol::Udp {
            // Who goes on asking from the same port would otherwise be sent to an endpoint that is gone.
            options.insert("ct_flush", "true");
        }
        let suffix = if rejecting { "_rejecting" } else { "" };
        let groups = scope.groups(network, foreign);
        let load_balancer = LoadBalancer { protocol, vips, options, affinity: facts.affinity, groups };
        let prefix = naming::prefix(network.name());
        (format!("{prefix}Service_{}_{}_{}{suffix}", facts.key, protocol.upper(), scope.name()), load_balancer)
    });
    Rows { load_balancers: load_balancers.collect(), variables: building.variables }
}

struct Building<'a> {
    facts: &'a Facts,
    network: &'a Layout,
    /// By whether it only rejects, too: then a gateway router must leave the source alone, or the rejection has another.
    vips: BTreeMap<(Protocol, Scope, bool), BTreeMap<String, String>>,
    variables: BTreeMap<String, BTreeMap<String, String>>,
}

impl Building<'_> {
    fn vip(&mut self, protocol: Protocol, scope: Scope, vip: String, backends: String) {
        let rejecting = backends.is_empty() && !matches!(scope, Scope::LocalRouter(_));
        self.vips.entry((protocol, scope, rejecting)).or_default().insert(vip, backends);
    }

    fn port(&mut self, port: &Port) {
        for ipv6 in [false, true] {
            let mut cluster_ips = self.facts.cluster_ips.iter().filter(|address| address.is_ipv6() == ipv6);
            let Some(cluster_ip) = cluster_ips.next() else { continue };
            let family: Vec<&Endpoint> = port.endpoints.iter().filter(|it| it.address.is_ipv6() == ipv6).collect();
            let external: Vec<IpAddr> =
                self.facts.external.iter().filter(|address| address.is_ipv6() == ipv6).copied().collect();
            if self.facts.internal_local {
                self.internal_local(port, *cluster_ip, &family);
            } else {
                self.everywhere(port, &[*cluster_ip], &family);
            }
            if self.facts.external_local {
                self.external_local(port, &external, &family);
            } else {
                self.everywhere(port, &external, &family);
            }
            if let Some(node_port) = port.node_port {
                self.node_port(port, node_port, ipv6, &family);
            }
        }
    }

    /// Endpoints that a gateway router cannot reach by their own address: the router of their node has it, too.
    fn differs_by_router(&self, endpoints: &[&Endpoint]) -> bool {
        let nodes = &self.network.nodes;
        self.network.is_default()
            && endpoints.iter().any(|it| nodes.iter().any(|node| node.addresses.contains(&it.address.ip())))
    }

    /// Addresses that lead to all endpoints from everywhere.
    fn everywhere(&mut self, port: &Port, addresses: &[IpAddr], endpoints: &[&Endpoint]) {
        let differs = self.differs_by_router(endpoints);
        for address in addresses {
            let vip = SocketAddr::new(*address, port.number).to_string();
            if !differs {
                self.vip(port.protocol, Scope::Cluster, vip, join(endpoints));
                continue;
            }
            self.vip(port.protocol, Scope::Switch, vip.clone(), join(endpoints));
            for node in self.network.nodes.iter() {
                let scope = Scope::Router(node.name.clone());
                self.vip(port.protocol, scope, vip.clone(), for_router(node, endpoints));
            }
        }
    }

    /// Each node's address leads to all endpoints, or from outside to those of the node.
    fn node_port(&mut self, port: &Port, node_port: u16, ipv6: bool, endpoints: &[&Endpoint]) {
        let template = format!("^{}:{node_port}", node_variable(ipv6));
        if !self.facts.external_local && !self.differs_by_router(endpoints) {
            return self.vip(port.protocol, Scope::MergedTemplate { ipv6 }, template, join(endpoints));
        }
        // Whoever is inside of the network gets all endpoints whatever the policy says.
        self.vip(port.protocol, Scope::SwitchTemplate { ipv6 }, template, join(endpoints));
        for node in self.network.nodes.iter() {
            let vip = SocketAddr::new(node.addresses[usize::from(ipv6)], node_port).to_string();
            if self.facts.external_local {
                let backends = for_router(node, &of(node, endpoints));
                self.vip(port.protocol, Scope::LocalRouter(node.name.clone()), vip, backends);
            } else {
                self.vip(port.protocol, Scope::Router(node.name.clone()), vip, for_router(node, endpoints));
            }
        }
    }

    fn external_local(&mut self, port: &Port, addresses: &[IpAddr], endpoints: &[&Endpoint]) {
        for address in addresses {
            let vip = SocketAddr::new(*address, port.number).to_string();
            self.vip(port.protocol, Scope::Switch, vip.clone(), join(endpoints));
            for node in self.network.nodes.iter() {
                let backends = for_router(node, &of(node, endpoints));
                self.vip(port.protocol, Scope::LocalRouter(node.name.clone()), vip.clone(), backends);
            }
        }
    }

    /// Pods reach endpoints of their own node. A template cannot say "no endpoints", so that nodes with and without have
    /// variables of their own for the same address: on each chassis one of them is an address that nobody has.
    fn internal_local(&mut self, port: &Port, cluster_ip: IpAddr, endpoints: &[&Endpoint]) {
        let ipv6 = cluster_ip.is_ipv6();
        let name = |what: &str| {
            let text =
                format!("{}/{}/{}/{}/{what}", self.network.name(), self.facts.key, port.protocol.lower(), port.number);
            format!("{}_{}", identifier(&text), if ipv6 { "IPv6" } else { "IPv4" })
        };
        let (filled, empty, backends) = (name("filled"), name("empty"), name("backends"));
        let scope = || Scope::SwitchTemplate { ipv6 };
        let mut some = BTreeSet::new();
        for node in self.network.nodes.iter() {
            let own = of(node, endpoints);
            let variables = self.variables.entry(node.name.clone()).or_default();
            let (nobody, endpoint) = if ipv6 { ("100::", "[100::]:1") } else { ("0.0.0.1", "0.0.0.1:1") };
            let address = cluster_ip.to_string();
            let (with, without) = if own.is_empty() { (nobody, &*address) } else { (&*address, nobody) };
            variables.insert(filled.clone(), with.to_owned());
            variables.insert(empty.clone(), without.to_owned());
            variables.insert(backends.clone(), if own.is_empty() { endpoint.to_owned() } else { join(&own) });
            some.insert(own.is_empty());
            if self.network.is_default() {
                let vip = SocketAddr::new(cluster_ip, port.number).to_string();
                self.vip(port.protocol, Scope::Router(node.name.clone()), vip, for_router(node, &own));
            }
        }
        if some.contains(&false) {
            self.vip(port.protocol, scope(), format!("^{filled}:{}", port.number), format!("^{backends}"));
        }
        if some.contains(&true) {
            self.vip(port.protocol, scope(), format!("^{empty}:{}", port.number), String::new());
        }
    }

    /// Pods of other primary networks reach IPv6 node ports of their own node, which their own gateway router would take
    /// for its own: they are sent to the masquerade address of the network that has the port. OVN-Kubernetes does so for
    /// IPv6 only (its issue 5419).
    fn foreign(&mut self) {
        if !self.facts.has_family(true) {
            return;
        }
        let Some(node) = self.network.nodes.first() else { return };
        for port in &self.facts.ports {
            let Some(node_port) = port.node_port else { continue };
            let vip = format!("^{}:{node_port}", node_variable(true));
            let backend = SocketAddr::new(self.network.egress_address(node, true), node_port).to_string();
            self.vip(port.protocol, Scope::ForeignTemplate, vip, backend);
        }
    }
}

fn join(endpoints: &[&Endpoint]) -> String {
    endpoints.iter().map(|endpoint| endpoint.address.to_string()).collect::<Vec<_>>().join(",")
}

fn of<'a>(node: &Node, endpoints: &[&'a Endpoint]) -> Vec<&'a Endpoint> {
    endpoints.iter().filter(|endpoint| endpoint.node.as_deref() == Some(node.name.as_str())).copied().collect()
}

/// … as the gateway router of `node` reaches them: the node itself, whose address it has, under the masquerade address.
fn for_router(node: &Node, endpoints: &[&Endpoint]) -> String {
    let masquerade = [IpAddr::from(HOST_MASQUERADE.0), IpAddr::from(HOST_MASQUERADE.1)];
    let reached = endpoints.iter().map(|endpoint| {
        let mut address = endpoint.address;
        if node.addresses.contains(&address.ip()) {
            address.set_ip(masquerade[usize::from(address.is_ipv6())]);
        }
        address.to_string()
    });
    reached.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests;
