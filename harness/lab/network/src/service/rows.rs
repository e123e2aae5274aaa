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
mod tests {
    use super::*;
    use crate::layout::tests::{LAYER2, LAYER3, layout, nodes};

    fn facts() -> Facts {
        let endpoint = |text: &str, node: &str| Endpoint { address: text.parse().unwrap(), node: Some(node.into()) };
        Facts {
            key: "blue/web".into(),
            cluster_ips: vec!["10.96.1.1".parse().unwrap(), "fd00:10:96::11".parse().unwrap()],
            external: vec!["172.18.255.200".parse().unwrap()],
            ports: vec![Port {
                protocol: Protocol::Tcp,
                number: 80,
                node_port: Some(30080),
                endpoints: vec![
                    endpoint("103.103.0.3:8080", "ovn-control-plane"),
                    endpoint("103.103.1.3:8080", "ovn-worker"),
                    endpoint("[2014:100:200:1::3]:8080", "ovn-worker"),
                ],
            }],
            external_local: false,
            internal_local: false,
            affinity: false,
        }
    }

    /// Rows as text: scope, VIP, backends; sorted.
    fn table(rows: &Rows) -> Vec<String> {
        let mut lines = Vec::new();
        for (name, row) in &rows.load_balancers {
            let scope = name.split("_TCP_").nth(1).unwrap();
            lines.extend(row.vips.iter().map(|(vip, backends)| format!("{scope} {vip} -> {backends}")));
        }
        lines
    }

    #[test]
    fn what_is_alike_everywhere_is_one_row() {
        let rows = rows(&facts(), &layout(LAYER3, 1), &[]);
        assert_eq!(
            table(&rows),
            [
                "cluster 10.96.1.1:80 -> 103.103.0.3:8080,103.103.1.3:8080",
                "cluster 172.18.255.200:80 -> 103.103.0.3:8080,103.103.1.3:8080",
                "cluster [fd00:10:96::11]:80 -> [2014:100:200:1::3]:8080",
                "node_switch_template_IPv4_merged ^NODEIP_IPv4_0:30080 -> 103.103.0.3:8080,103.103.1.3:8080",
                "node_switch_template_IPv6_merged ^NODEIP_IPv6_0:30080 -> [2014:100:200:1::3]:8080",
            ]
        );
        let cluster = &rows.load_balancers["blue_blue.network_Service_blue/web_TCP_cluster"];
        assert_eq!(cluster.groups, BTreeSet::from(["blue_blue.network_clusterLBGroup".to_owned()]));
        assert_eq!(cluster.options["reject"], "true");
    }

    #[test]
    fn external_traffic_stays_on_the_node_and_keeps_its_source() {
        let mut facts = facts();
        facts.external_local = true;
        let rows = rows(&facts, &layout(LAYER3, 1), &[]);
        let lines = table(&rows);
        for line in [
            "node_local_router_ovn-worker 172.18.0.3:30080 -> 103.103.1.3:8080",
            "node_local_router_ovn-worker2 172.18.0.4:30080 -> ",
            "node_local_router_ovn-worker2 172.18.255.200:80 -> ",
            "node_switch 172.18.255.200:80 -> 103.103.0.3:8080,103.103.1.3:8080",
            "node_switch_template_IPv4 ^NODEIP_IPv4_0:30080 -> 103.103.0.3:8080,103.103.1.3:8080",
        ] {
            assert!(lines.contains(&line.to_owned()), "{line}\n{}", lines.join("\n"));
        }
        let local = &rows.load_balancers["blue_blue.network_Service_blue/web_TCP_node_local_router_ovn-worker"];
        assert_eq!(local.options["skip_snat"], "true");
        assert!(local.groups.contains("blue_blue.network_routerLBGroup_ovn-worker"));
    }

    #[test]
    fn internal_traffic_stays_on_the_node_or_is_rejected() {
        let mut facts = facts();
        (facts.internal_local, facts.ports[0].node_port) = (true, None);
        facts.external.clear();
        let rows = rows(&facts, &layout(LAYER2, 1), &[]);
        // Per family: an address for nodes with endpoints, and one for nodes without.
        let lines = table(&rows);
        assert_eq!(lines.len(), 4, "{lines:?}");
        assert_eq!(lines.iter().filter(|line| line.ends_with("-> ")).count(), 2);
        for (node, own) in [("ovn-worker", Some("103.103.1.3:8080")), ("ovn-worker2", None)] {
            let variables = &rows.variables[node];
            let v4: BTreeSet<&str> =
                variables.iter().filter(|(name, _)| name.ends_with("IPv4")).map(|(_, value)| value.as_str()).collect();
            assert_eq!(v4, BTreeSet::from(["10.96.1.1", "0.0.0.1", own.unwrap_or("0.0.0.1:1")]), "{node}");
        }
    }

    #[test]
    fn host_endpoints_are_reached_under_the_masquerade_address_on_their_own_node() {
        let mut facts = facts();
        facts.ports[0].endpoints = vec![Endpoint { address: "172.18.0.2:6443".parse().unwrap(), node: None }];
        facts.ports[0].node_port = None;
        facts.external.clear();
        let lines = table(&rows(&facts, &Layout::default_network(nodes()), &[]));
        for line in [
            "node_router_ovn-control-plane 10.96.1.1:80 -> 169.254.0.2:6443",
            "node_router_ovn-worker 10.96.1.1:80 -> 172.18.0.2:6443",
            "node_switch 10.96.1.1:80 -> 172.18.0.2:6443",
        ] {
            assert!(lines.contains(&line.to_owned()), "{line}\n{}", lines.join("\n"));
        }
    }

    #[test]
    fn a_service_without_endpoints_keeps_its_addresses_and_rejects() {
        let mut facts = facts();
        facts.ports[0].endpoints.clear();
        let rows = rows(&facts, &layout(LAYER3, 1), &[]);
        let lines = table(&rows);
        assert_eq!(lines.len(), 5);
        assert!(lines.iter().all(|line| line.ends_with("-> ")), "{lines:?}");
        // A gateway router that changed the source of a rejection would send it in nobody's name.
        assert!(rows.load_balancers.values().all(|row| row.options["skip_snat"] == "true"));
    }

    #[test]
    fn other_networks_reach_ipv6_node_ports_of_their_own_node() {
        let other = layout(&LAYER3.replace("blue_blue-network", "green_green-network"), 2);
        let rows = rows(&facts(), &layout(LAYER3, 1), &[other]);
        let name = "blue_blue.network_Service_blue/web_TCP_node_switch_foreign_template_IPv6";
        let foreign = &rows.load_balancers[name];
        assert_eq!(foreign.vips["^NODEIP_IPv6_0:30080"], "[fd69::b]:30080");
        assert_eq!(foreign.groups, BTreeSet::from(["green_green.network_clusterSwitchLBGroup".to_owned()]));
    }
}
