//! Pods' ports.

use std::net::IpAddr;

use serde_json::json;

use super::isolation;
use crate::address::Mac;
use crate::definition::Topology;
use crate::layout::Layout;
use crate::ovsdb::Transaction;
use crate::ovsdb::transaction::{map, set, texts};

/// A pod's port on one network.
#[derive(Clone, Debug)]
pub(crate) struct PodPort<'a> {
    pub(crate) name: &'a str,
    pub(crate) namespace: &'a str,
    pub(crate) uid: &'a str,
    pub(crate) node: &'a str,
    /// `default` or `<namespace>/<name>`.
    pub(crate) nad: &'a str,
    pub(crate) mac: Mac,
    pub(crate) addresses: &'a [IpAddr],
    /// The pod's primary network is another: only the kubelet may come in here.
    pub(crate) locked: bool,
    /// Whether packets pass. If not it has no addresses either: those are another port's now.
    pub(crate) plugged: bool,
}

/// Adds a port. The first UUID of the result is the port's.
pub(crate) fn add(transaction: &mut Transaction, layout: &Layout, port: &PodPort<'_>) {
    let secured = text(port.mac, port.addresses);
    let addresses = Some(secured.clone()).filter(|_| port.plugged);
    let enabled = if port.plugged { set([]) } else { set([json!(false)]) };
    let row = transaction.insert(
        "Logical_Switch_Port",
        json!({
            "name": port.name, "addresses": texts(addresses), "port_security": texts([secured]), "enabled": enabled,
            "options": map([("requested-chassis", port.node), ("iface-id-ver", port.uid)]),
            "external_ids": map([
                ("namespace", port.namespace), ("pod", "true"), ("k8s.ovn.org/nad", port.nad),
                ("k8s.ovn.org/network", layout.name()), ("k8s.ovn.org/topology", topology(layout)),
            ]),
        }),
    );
    transaction.add("Logical_Switch", &layout.switch(port.node), "ports", set([row.clone()]));
    if port.locked {
        // In the same transaction: there is no moment in which the address is open.
        transaction.add("Port_Group", &isolation::port_group(), "ports", set([row]));
    }
    if port.plugged {
        for (set_name, addresses) in steered(layout, port.node, port.addresses) {
            transaction.add("Address_Set", &set_name, "addresses", texts(addresses));
        }
    }
}

/// Lets packets pass at a port that is there, and sends what is for these addresses to it.
pub(crate) fn plug(transaction: &mut Transaction, layout: &Layout, node: &str, uuid: &str, mac: Mac, ips: &[IpAddr]) {
    update(transaction, uuid, json!({"enabled": set([json!(true)]), "addresses": texts([text(mac, ips)])}));
    for (set_name, addresses) in steered(layout, node, ips) {
        transaction.add("Address_Set", &set_name, "addresses", texts(addresses));
    }
}

/// The opposite.
pub(crate) fn unplug(transaction: &mut Transaction, layout: &Layout, node: &str, uuid: &str, ips: &[IpAddr]) {
    update(transaction, uuid, json!({"enabled": set([json!(false)]), "addresses": set([])}));
    for (set_name, addresses) in steered(layout, node, ips) {
        transaction.remove("Address_Set", &set_name, "addresses", texts(addresses));
    }
}

fn update(transaction: &mut Transaction, uuid: &str, row: serde_json::Value) {
    transaction.push(json!({
        "op": "update", "table": "Logical_Switch_Port", "where": [["_uuid", "==", ["uuid", uuid]]], "row": row,
    }));
}

fn text(mac: Mac, ips: &[IpAddr]) -> String {
    ips.iter().fold(mac.to_string(), |text, ip| format!("{text} {ip}"))
}

/// Removes the port with this UUID.
pub(crate) fn remove(transaction: &mut Transaction, layout: &Layout, node: &str, uuid: &str, addresses: &[IpAddr]) {
    transaction.remove("Logical_Switch", &layout.switch(node), "ports", set([json!(["uuid", uuid])]));
    for (set_name, addresses) in steered(layout, node, addresses) {
        transaction.remove("Address_Set", &set_name, "addresses", texts(addresses));
    }
}

fn steered(layout: &Layout, node: &str, addresses: &[IpAddr]) -> Vec<(String, Vec<String>)> {
    if layout.definition.topology != Topology::Layer2 || !layout.has_gateways() {
        return Vec::new();
    }
    let of = |ipv6: bool| {
        addresses.iter().filter(move |address| address.is_ipv6() == ipv6).map(ToString::to_string).collect()
    };
    [false, true]
        .into_iter()
        .map(|ipv6| (layout.address_set(node, ipv6), of(ipv6)))
        .filter(|(_, addresses): &(String, Vec<String>)| !addresses.is_empty())
        .collect()
}

fn topology(layout: &Layout) -> &'static str {
    match layout.definition.topology {
        Topology::Layer2 => "layer2",
        Topology::Layer3 => "layer3",
        Topology::Localnet => "localnet",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::tests::{LAYER2, layout, nodes};

    #[test]
    fn a_locked_port_is_never_open() {
        let layout = Layout::default_network(nodes());
        let addresses = ["10.244.2.3".parse().unwrap()];
        let port = PodPort {
            name: "blue_p",
            namespace: "blue",
            uid: "u",
            node: "ovn-worker",
            nad: "default",
            mac: Mac::of(addresses[0]),
            addresses: &addresses,
            locked: true,
            plugged: true,
        };
        let mut transaction = Transaction::default();
        add(&mut transaction, &layout, &port);
        let operations = transaction.into_operations();
        assert!(operations.iter().any(|operation| operation["table"] == "Port_Group" && operation["op"] == "mutate"));
        assert_eq!(operations[0]["row"]["port_security"], json!(["set", ["0a:58:0a:f4:02:03 10.244.2.3"]]));
    }

    #[test]
    fn a_port_that_waits_has_neither_packets_nor_addresses() {
        let layout = layout(LAYER2, 1);
        let addresses = ["172.16.0.5".parse().unwrap()];
        let (mac, node) = (Mac::of(addresses[0]), "ovn-worker");
        let port = PodPort {
            name: "p",
            namespace: "blue",
            uid: "u",
            node,
            nad: "blue/net",
            mac,
            addresses: &addresses,
            locked: false,
            plugged: false,
        };
        let mut transaction = Transaction::default();
        add(&mut transaction, &layout, &port);
        let operations = transaction.into_operations();
        assert_eq!(operations[0]["row"]["enabled"], json!(["set", [false]]));
        assert_eq!(operations[0]["row"]["addresses"], json!(["set", []]));
        assert_eq!(operations[0]["row"]["port_security"], json!(["set", ["0a:58:ac:10:00:05 172.16.0.5"]]));
        assert!(operations.iter().all(|operation| operation["table"] != "Address_Set"));
        let mut transaction = Transaction::default();
        unplug(&mut transaction, &layout, "ovn-worker2", "old", &addresses);
        plug(&mut transaction, &layout, node, "new", mac, &addresses);
        let operations = transaction.into_operations();
        assert_eq!(operations[0]["row"], json!({"enabled": ["set", [false]], "addresses": ["set", []]}));
        assert_eq!(operations[2]["row"]["addresses"], json!(["set", ["0a:58:ac:10:00:05 172.16.0.5"]]));
        let steering = [&operations[1]["mutations"][0][1], &operations[3]["mutations"][0][1]];
        assert_eq!(steering, ["delete", "insert"]);
    }

    #[test]
    fn layer2_pods_are_steered_to_their_node() {
        let layout = layout(LAYER2, 1);
        let addresses = ["172.16.0.5".parse().unwrap(), "2014:100:200::5".parse().unwrap()];
        let mut transaction = Transaction::default();
        remove(&mut transaction, &layout, "ovn-worker2", "uuid", &addresses);
        assert_eq!(transaction.into_operations().len(), 3);
    }
}
