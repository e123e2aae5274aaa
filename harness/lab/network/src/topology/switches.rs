//! Switches, and the router between them.

use ipnet::IpNet;
use serde_json::{Value, json};

use super::services::Groups;
use super::{Router, marks};
use crate::address::Mac;
use crate::definition::Topology;
use crate::layout::{Layout, Node};
use crate::ovsdb::Transaction;
use crate::ovsdb::transaction::{map, row, set, texts};
use crate::service::NODE_PORTS;

pub(crate) fn create(
    transaction: &mut Transaction,
    layout: &Layout,
    groups: Option<&Groups>,
) -> Result<Router, String> {
    let groups = groups.map_or_else(|| set([]), Groups::of_switches);
    match layout.definition.topology {
        Topology::Layer3 => layer3(transaction, layout, &groups),
        Topology::Layer2 => Ok(layer2(transaction, layout, &groups)),
        Topology::Localnet => Ok(localnet(transaction, layout)),
    }
}

fn layer3(transaction: &mut Transaction, layout: &Layout, groups: &Value) -> Result<Router, String> {
    let mut router = Router::new(layout.router(), layout);
    router.options.push(("always_learn_from_arp_request".into(), "false".into()));
    for node in layout.nodes.iter() {
        // A node without subnet has no part in the network; its pods are refused, the others work.
        let Ok(subnets) = layout.subnets(node) else { continue };
        let switch = layout.switch(&node.name);
        let mut ports = vec![between(transaction, layout, &mut router, &switch, &subnets)];
        if layout.is_default() {
            ports.push(management(transaction, layout, node, &subnets));
            own_node_by_management(transaction, layout, &mut router, node, &subnets);
        }
        let acls = own_node_closed(transaction, layout, node, None);
        let config = subnets.iter().find(|subnet| subnet.addr().is_ipv4()).map(|subnet| ("subnet", subnet.to_string()));
        transaction.insert(
            "Logical_Switch",
            json!({
                "name": switch, "ports": set(ports), "acls": set(acls), "other_config": map(config),
                "load_balancer_group": groups, "external_ids": marks(layout),
            }),
        );
    }
    if router.ports.is_empty() {
        return Err(format!("network {} has a subnet on no node", layout.name()));
    }
    Ok(router)
}

fn layer2(transaction: &mut Transaction, layout: &Layout, groups: &Value) -> Router {
    let switch = layout.switch("");
    let mut router = if layout.has_gateways() { Router::new(layout.router(), layout) } else { Router::default() };
    let mut ports = Vec::new();
    let mut acls = Vec::new();
    if layout.has_gateways() {
        router.options.push(("always_learn_from_arp_request".into(), "false".into()));
        let subnets: Vec<IpNet> = layout.definition.ranges.iter().map(|range| range.net).collect();
        ports.push(between(transaction, layout, &mut router, &switch, &subnets));
        for node in layout.nodes.iter() {
            acls.extend(own_node_closed(transaction, layout, node, Some(node)));
            if layout.has_management_ports() {
                ports.push(speaker(transaction, layout, node));
            }
        }
    }
    transaction.insert(
        "Logical_Switch",
        json!({
            "name": switch, "ports": set(ports), "acls": set(acls), "load_balancer_group": groups,
            "external_ids": marks(layout),
        }),
    );
    router
}

fn localnet(transaction: &mut Transaction, layout: &Layout) -> Router {
    let name = format!("{}ovn_localnet_port", crate::naming::prefix(layout.name()));
    let physical = layout.definition.physical_network.as_deref().unwrap_or(layout.name());
    let port = transaction.insert(
        "Logical_Switch_Port",
        row(json!({
            "name": name, "type": "localnet", "addresses": texts(["unknown"]),
            "options": map([("network_name", physical)]), "tag_request": layout.definition.vlan,
        })),
    );
    transaction.insert(
        "Logical_Switch",
        json!({"name": layout.switch(""), "ports": set([port]), "external_ids": marks(layout)}),
    );
    Router::default()
}

/// A router's port on a switch, and the switch's port to it; returns the latter.
fn between(
    transaction: &mut Transaction,
    layout: &Layout,
    router: &mut Router,
    switch: &str,
    subnets: &[IpNet],
) -> Value {
    let networks: Vec<IpNet> =
        subnets.iter().filter_map(|subnet| IpNet::new(layout.gateway(*subnet)?, subnet.prefix_len()).ok()).collect();
    let to_switch = if layout.definition.topology == Topology::Layer2 { "trtos" } else { "rtos" };
    let (router_port, switch_port) = (format!("{to_switch}-{switch}"), format!("stor-{switch}"));
    let advertisements = map(advertised(layout));
    connect_advertised(transaction, router, &router_port, &switch_port, &networks, None, advertisements)
}

/// What routers of Layer2 networks tell guests of virtual machines, as OVN-Kubernetes says it: addresses come by DHCPv6, every
/// 5 to 15 minutes, and not to be preferred to what pods have as static gateway.
fn advertised(layout: &Layout) -> Vec<(&'static str, String)> {
    if layout.definition.topology != Topology::Layer2 || !layout.has_gateways() || !layout.has_family(true) {
        return Vec::new();
    }
    let constant = [
        ("address_mode", "dhcpv6_stateful"),
        ("send_periodic", "true"),
        ("max_interval", "900"),
        ("min_interval", "300"),
        ("router_preference", "LOW"),
    ];
    let mtu = ("mtu", layout.definition.mtu.to_string());
    constant.into_iter().map(|(key, value)| (key, value.to_owned())).chain([mtu]).collect()
}

/// Connects a router to a switch by a pair of ports; returns the switch's. `mac`: not derived from the address.
pub(super) fn connect(
    transaction: &mut Transaction,
    router: &mut Router,
    router_port: &str,
    switch_port: &str,
    networks: &[IpNet],
    mac: Option<Mac>,
) -> Value {
    let silent = map::<&str, &str>([]);
    connect_advertised(transaction, router, router_port, switch_port, networks, mac, silent)
}

/// … with router advertisements of this configuration.
fn connect_advertised(
    transaction: &mut Transaction,
    router: &mut Router,
    router_port: &str,
    switch_port: &str,
    networks: &[IpNet],
    mac: Option<Mac>,
    advertisements: Value,
) -> Value {
    let derived = Mac::of_first(networks.iter().map(IpNet::addr)).unwrap_or(Mac([0x0a, 0x58, 0, 0, 0, 1]));
    let mac = mac.unwrap_or(derived).to_string();
    let port = transaction.insert(
        "Logical_Router_Port",
        json!({
            "name": router_port, "mac": mac, "networks": texts(networks.iter().map(ToString::to_string)),
            "ipv6_ra_configs": advertisements,
        }),
    );
    router.ports.push(port);
    transaction.insert(
        "Logical_Switch_Port",
        json!({
            "name": switch_port, "type": "router", "addresses": texts(["router"]),
            "options": map([("router-port", router_port)]),
        }),
    )
}

/// The node's own port on its switch of the default network: how host and pods reach each other.
fn management(transaction: &mut Transaction, layout: &Layout, node: &Node, subnets: &[IpNet]) -> Value {
    let (mac, addresses) = management_addresses(layout, subnets);
    let addresses =
        format!("{mac} {}", addresses.iter().map(|net| net.addr().to_string()).collect::<Vec<_>>().join(" "));
    transaction.insert(
        "Logical_Switch_Port",
        json!({
            "name": format!("k8s-{}", node.name), "addresses": texts([addresses]),
            "options": map([("requested-chassis", node.name.as_str())]),
        }),
    )
}

/// A node's own port on a network that keeps addresses, from which it tells virtual machines where their gateway is. It has
/// no addresses: those of all nodes would be the same, and nobody is to reach the host by it.
fn speaker(transaction: &mut Transaction, layout: &Layout, node: &Node) -> Value {
    transaction.insert(
        "Logical_Switch_Port",
        json!({
            "name": layout.management_port(&node.name), "addresses": set([]),
            "options": map([("requested-chassis", node.name.as_str())]),
        }),
    )
}

/// MAC and addresses of a node's management port, probe addresses last.
pub(crate) fn management_addresses(layout: &Layout, subnets: &[IpNet]) -> (Mac, Vec<IpNet>) {
    let with_length = |subnet: &IpNet, address| IpNet::new(address, subnet.prefix_len()).ok();
    let own = subnets.iter().filter_map(|subnet| with_length(subnet, layout.management(*subnet)?));
    let probes = subnets.iter().filter_map(|subnet| with_length(subnet, crate::layout::probe_address(*subnet)?));
    let addresses: Vec<IpNet> = own.chain(probes).collect();
    (Mac::of_first(addresses.iter().take(1).map(IpNet::addr)).unwrap_or(Mac([0x0a, 0x58, 0, 0, 0, 2])), addresses)
}

/// Default-network pods reach their own node by its management port: the gateway router has the node's addresses itself
/// and would take the packets for its own.
fn own_node_by_management(
    transaction: &mut Transaction,
    layout: &Layout,
    router: &mut Router,
    node: &Node,
    subnets: &[IpNet],
) {
    for subnet in subnets {
        let ipv6 = subnet.addr().is_ipv6();
        let (Some(next_hop), version) = (layout.management(*subnet), if ipv6 { "ip6" } else { "ip4" }) else {
            continue;
        };
        let expression = format!(
            "inport == \"rtos-{}\" && {version}.dst == {} /* {} */",
            layout.switch(&node.name),
            node.addresses[usize::from(ipv6)],
            node.name
        );
        router.policies.push(transaction.insert(
            "Logical_Router_Policy",
            json!({"priority": 1004, "match": expression, "action": "reroute", "nexthops": texts([next_hop.to_string()])}),
        ));
    }
}

/// Pods of a UDN get a quick refusal from their own node's ports; with IPv6 not from node ports, which lead to the networks
/// that have them. Default-network pods reach their node, but no node port of another network there. Rules look at packets
/// after load balancing: a network's own node ports are endpoints by then.
fn own_node_closed(
    transaction: &mut Transaction,
    layout: &Layout,
    node: &Node,
    only_pods_of: Option<&Node>,
) -> Vec<Value> {
    if !layout.has_gateways() {
        return Vec::new();
    }
    let any = |term: &dyn Fn(&str) -> String| ["tcp", "udp", "sctp"].map(term).join(" || ");
    let (first, last) = (NODE_PORTS.start(), NODE_PORTS.end());
    let within = any(&|protocol| format!("{first} <= {protocol}.dst <= {last}"));
    // Not the negation of the former: OVN would want a packet to be of all three protocols.
    let outside = any(&|protocol| format!("{protocol}.dst < {first} || {protocol}.dst > {last}"));
    let families = layout.join().into_iter().map(|join| join.addr().is_ipv6());
    families
        .map(|ipv6| {
            let version = if ipv6 { "ip6" } else { "ip4" };
            let from = only_pods_of
                .map(|node| format!("{version}.src == ${} && ", layout.address_set(&node.name, ipv6)))
                .unwrap_or_default();
            let to = format!("{version}.dst == {}", node.addresses[usize::from(ipv6)]);
            let (action, name, what) = match (layout.is_default(), ipv6) {
                (true, _) => ("drop", "OwnNodePorts", within.as_str()),
                (false, false) => ("reject", "OwnNodeHostPorts", "tcp || udp || sctp"),
                (false, true) => ("reject", "OwnNodeHostPorts", outside.as_str()),
            };
            transaction.insert(
                "ACL",
                json!({
                    "direction": "from-lport", "priority": 1100, "action": action,
                    "match": format!("{from}{to} && ({what})"), "options": map([("apply-after-lb", "true")]),
                    "external_ids": map([("k8s.ovn.org/name", name), ("k8s.ovn.org/network", layout.name())]),
                }),
            )
        })
        .collect()
}
