//! What leads outside: a join switch, and per node a gateway router and an external switch on br-ex.

use ipnet::IpNet;
use serde_json::json;
use udn_lab_sys::site::{ROUTER_V4, ROUTER_V6, UNDERLAY_PREFIX_V4, UNDERLAY_PREFIX_V6};

use super::services::Groups;
use super::switches::connect;
use super::{Router, marks};
use crate::definition::Topology;
use crate::layout::{Layout, Node};
use crate::ovsdb::Transaction;
use crate::ovsdb::transaction::{map, set, texts};

pub(crate) fn create(
    transaction: &mut Transaction,
    layout: &Layout,
    router: &mut Router,
    groups: Option<&Groups>,
) -> Result<(), String> {
    let name = layout.router();
    let networks = layout.router_join();
    let mut join_ports =
        vec![connect(transaction, router, &format!("rtoj-{name}"), &format!("jtor-{name}"), &networks, None)];
    for node in layout.nodes.iter() {
        let Ok(subnets) = layout.subnets(node) else { continue };
        let mut gateway = Router::new(layout.gateway_router(&node.name), layout);
        if let Some(groups) = groups {
            gateway.groups = groups.of_router(&node.name);
        }
        join_ports.push(gateway_router(transaction, layout, node, gateway));
        to_gateway(transaction, layout, router, node, &subnets);
    }
    if layout.definition.topology == Topology::Layer2 {
        defaults(transaction, layout, router);
    }
    transaction.insert(
        "Logical_Switch",
        json!({"name": layout.join_switch(), "ports": set(join_ports), "external_ids": marks(layout)}),
    );
    Ok(())
}

/// The gateway router of `node` with its external switch; returns the join switch's port to it.
fn gateway_router(
    transaction: &mut Transaction,
    layout: &Layout,
    node: &Node,
    mut gateway: Router,
) -> serde_json::Value {
    let name = layout.gateway_router(&node.name);
    gateway.options.extend(
        [
            ("chassis", node.name.as_str()),
            ("always_learn_from_arp_request", "false"),
            ("dynamic_neigh_routers", "true"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned())),
    );
    let join = layout.gateway_join(node);
    // Replies of load-balanced connections come back to the router that balanced them. The default network's use one address
    // for all ports: what leaves by br-ex again must not have the node's. The others name no address: so that OVN does not
    // drop what is for the node's own, which is nobody's but a template's.
    let addresses: Vec<String> = join.iter().map(|net| net.addr().to_string()).collect();
    let source = if layout.is_default() { addresses.join(" ") } else { "router_ip".to_owned() };
    gateway.options.push(("lb_force_snat_ip".into(), source));
    let join_port = connect(transaction, &mut gateway, &format!("rtoj-{name}"), &format!("jtor-{name}"), &join, None);

    // Node and gateway routers share address and MAC: br-ex tells by its conntrack marks whose a reply is.
    let lengths = [UNDERLAY_PREFIX_V4, UNDERLAY_PREFIX_V6];
    let external: Vec<IpNet> =
        node.addresses.iter().zip(lengths).filter_map(|(address, length)| IpNet::new(*address, length).ok()).collect();
    let to_external =
        connect(transaction, &mut gateway, &format!("rtoe-{name}"), &format!("etor-{name}"), &external, Some(node.mac));
    let localnet = transaction.insert(
        "Logical_Switch_Port",
        json!({
            "name": layout.external_port(&node.name), "type": "localnet", "addresses": texts(["unknown"]),
            "options": map([("network_name", "physnet")]),
        }),
    );
    transaction.insert(
        "Logical_Switch",
        json!({
            "name": layout.external_switch(&node.name), "ports": set([to_external, localnet]), "external_ids": marks(layout),
        }),
    );

    let upstream = |ipv6: bool| if ipv6 { ROUTER_V6.to_string() } else { ROUTER_V4.to_string() };
    for join in layout.router_join() {
        let ipv6 = join.addr().is_ipv6();
        let everything = if ipv6 { "::/0" } else { "0.0.0.0/0" };
        gateway.routes.push(transaction.insert(
            "Logical_Router_Static_Route",
            json!({"ip_prefix": everything, "nexthop": upstream(ipv6), "output_port": format!("rtoe-{name}")}),
        ));
        for range in layout.definition.ranges.iter().filter(|range| range.net.addr().is_ipv6() == ipv6) {
            let subnet = range.net.to_string();
            gateway.routes.push(transaction.insert(
                "Logical_Router_Static_Route",
                json!({"ip_prefix": subnet, "nexthop": join.addr().to_string()}),
            ));
            gateway.nat.push(transaction.insert(
                "NAT",
                json!({
                    "type": "snat", "external_ip": layout.egress_address(node, ipv6).to_string(), "logical_ip": subnet,
                    "options": map([("stateless", "false")]),
                }),
            ));
        }
    }
    gateway.finish(transaction);
    join_port
}

/// How the router between nodes finds the gateway router of a pod's own node.
fn to_gateway(transaction: &mut Transaction, layout: &Layout, router: &mut Router, node: &Node, subnets: &[IpNet]) {
    for join in layout.gateway_join(node) {
        let (address, ipv6) = (join.addr(), join.addr().is_ipv6());
        // Without a host route the longer source routes win over the join subnet, and replies go to the wrong router.
        router.routes.push(transaction.insert(
            "Logical_Router_Static_Route",
            json!({"ip_prefix": IpNet::from(address).to_string(), "nexthop": address.to_string()}),
        ));
        match layout.definition.topology {
            Topology::Layer2 => steer(transaction, layout, router, node, ipv6, &address.to_string()),
            _ => {
                for subnet in subnets.iter().filter(|subnet| subnet.addr().is_ipv6() == ipv6) {
                    router.routes.push(transaction.insert(
                        "Logical_Router_Static_Route",
                        json!({"policy": "src-ip", "ip_prefix": subnet.to_string(), "nexthop": address.to_string()}),
                    ));
                }
            }
        }
    }
}

/// Layer2: pods of all nodes share a subnet, so a set of the node's addresses says whose gateway router is meant.
fn steer(transaction: &mut Transaction, layout: &Layout, router: &mut Router, node: &Node, ipv6: bool, next_hop: &str) {
    let addresses = layout.address_set(&node.name, ipv6);
    let family = if ipv6 { "v6" } else { "v4" };
    transaction.insert(
        "Address_Set",
        json!({
            "name": addresses,
            "external_ids": map([("k8s.ovn.org/network", layout.name()), ("node", &node.name), ("ip-family", family)]),
        }),
    );
    let inside = layout.definition.ranges.iter().map(|range| range.net).chain(layout.join());
    let inside: Vec<String> = inside.filter(|net| net.addr().is_ipv6() == ipv6).map(|net| net.to_string()).collect();
    let version = if ipv6 { "ip6" } else { "ip4" };
    let expression = format!("{version}.src == ${addresses} && {version}.dst != {{{}}}", inside.join(", "));
    router.policies.push(transaction.insert(
        "Logical_Router_Policy",
        json!({"priority": 1004, "match": expression, "action": "reroute", "nexthops": texts([next_hop])}),
    ));
}

/// Layer2: some route must match, else a packet is dropped before the policies are asked.
fn defaults(transaction: &mut Transaction, layout: &Layout, router: &mut Router) {
    let Some(node) = layout.nodes.first() else { return };
    for join in layout.gateway_join(node) {
        let everything = if join.addr().is_ipv6() { "::/0" } else { "0.0.0.0/0" };
        router.routes.push(transaction.insert(
            "Logical_Router_Static_Route",
            json!({"ip_prefix": everything, "nexthop": join.addr().to_string()}),
        ));
    }
}
