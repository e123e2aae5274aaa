//! Rows as tables.

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
