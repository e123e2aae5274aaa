//! What load balancers of services need before there is any: groups by which switches and gateway routers have them, and
//! what templates say on each chassis.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::layout::{HOST_MASQUERADE, Layout};
use crate::ovsdb::Transaction;
use crate::ovsdb::transaction::{map, set};
use crate::service::rows::node_variable;

/// The API server's port on the control plane's address.
const API_PORT: u16 = 6443;

/// UUIDs of a network's groups of load balancers.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Groups {
    cluster: String,
    switch: String,
    /// By node.
    routers: BTreeMap<String, String>,
}

impl Groups {
    /// Inserts a network's groups. `common` are load balancers that all its switches have.
    pub(crate) fn create(layout: &Layout, common: &[String]) -> Transaction {
        let mut transaction = Transaction::default();
        let switch = layout.switch_group();
        for name in Self::names(layout) {
            let members = if name == switch { common } else { &[] };
            let members = set(members.iter().map(|uuid| json!(["uuid", uuid])));
            transaction.insert("Load_Balancer_Group", json!({"name": name, "load_balancer": members}));
        }
        transaction
    }

    /// What [`Groups::create`] inserted.
    pub(crate) fn created(layout: &Layout, uuids: Vec<String>) -> Self {
        let mut uuids = uuids.into_iter();
        let (cluster, switch) = (uuids.next().unwrap_or_default(), uuids.next().unwrap_or_default());
        let routers = layout.nodes.iter().map(|node| node.name.clone()).zip(uuids).collect();
        Self { cluster, switch, routers }
    }

    /// Deletes a network's groups; no switch and router may have them any more.
    pub(crate) fn delete(transaction: &mut Transaction, layout: &Layout) {
        Self::names(layout).iter().for_each(|name| transaction.delete("Load_Balancer_Group", name));
    }

    fn names(layout: &Layout) -> Vec<String> {
        let routers = layout.nodes.iter().map(|node| layout.router_group(&node.name));
        [layout.cluster_group(), layout.switch_group()].into_iter().chain(routers).collect()
    }

    /// The groups of the network's switches.
    pub(crate) fn of_switches(&self) -> Value {
        set([&self.cluster, &self.switch].into_iter().map(|uuid| json!(["uuid", uuid])))
    }

    /// The groups of a node's gateway router.
    pub(crate) fn of_router(&self, node: &str) -> Value {
        set([Some(&self.cluster), self.routers.get(node)].into_iter().flatten().map(|uuid| json!(["uuid", uuid])))
    }
}

/// Replaces whatever a former life left of services: what is wanted follows from the objects.
pub(crate) fn forget() -> Transaction {
    let mut transaction = Transaction::default();
    for table in ["Logical_Switch", "Logical_Router"] {
        transaction.push(json!({"op": "update", "table": table, "where": [], "row": {"load_balancer_group": set([])}}));
    }
    for table in ["Load_Balancer", "Load_Balancer_Group", "Chassis_Template_Var"] {
        transaction.push(json!({"op": "delete", "table": table, "where": []}));
    }
    transaction
}

/// Variables of all chassis, and load balancers that the switches of every user defined network have: pods on the control
/// plane reach the API server on their own node, whose address their gateway router has, under its masquerade address.
pub(crate) fn common(layout: &Layout) -> Transaction {
    let mut transaction = Transaction::default();
    let families = [(false, "ipv4", HOST_MASQUERADE.0.to_string()), (true, "ipv6", format!("[{}]", HOST_MASQUERADE.1))];
    for (ipv6, family, host) in families {
        let vips = map([(format!("^{}:{API_PORT}", api_variable(ipv6)), format!("{host}:{API_PORT}"))]);
        transaction.insert(
            "Load_Balancer",
            json!({
                "name": format!("Service_default/kubernetes_TCP_endpoint_template_{}", family.replace("ip", "IP")),
                "protocol": "tcp", "vips": vips,
                "options": map([("template", "true"), ("address-family", family), ("reject", "true"), ("event", "false")]),
            }),
        );
    }
    for node in layout.nodes.iter() {
        let mut variables = Vec::new();
        for ipv6 in [false, true] {
            let address = node.addresses[usize::from(ipv6)].to_string();
            variables.push((node_variable(ipv6), address.clone()));
            // Elsewhere an address that nobody has: a template without a value is a warning in ovn-controller's log.
            let nobody = if ipv6 { "100::" } else { "0.0.0.1" };
            let api_server = if node.is_control_plane() { address } else { nobody.to_owned() };
            variables.push((api_variable(ipv6), api_server));
        }
        transaction.insert("Chassis_Template_Var", json!({"chassis": node.name, "variables": map(variables)}));
    }
    transaction
}

fn api_variable(ipv6: bool) -> &'static str {
    if ipv6 { "APISERVER_IPv6" } else { "APISERVER_IPv4" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::tests::{LAYER3, layout, nodes};

    #[test]
    fn groups_are_found_by_their_order() {
        let layout = layout(LAYER3, 1);
        let operations = Groups::create(&layout, &["u".into()]).into_operations();
        let names: Vec<&str> = operations.iter().map(|it| it["row"]["name"].as_str().unwrap()).collect();
        assert_eq!(names[..2], ["blue_blue.network_clusterLBGroup", "blue_blue.network_clusterSwitchLBGroup"]);
        assert_eq!(operations[1]["row"]["load_balancer"], json!(["set", [["uuid", "u"]]]));
        assert_eq!(operations[2]["row"]["load_balancer"], json!(["set", []]));
        let groups = Groups::created(&layout, (0..5).map(|it| it.to_string()).collect());
        assert_eq!(groups.of_switches(), json!(["set", [["uuid", "0"], ["uuid", "1"]]]));
        assert_eq!(groups.of_router("ovn-worker2"), json!(["set", [["uuid", "0"], ["uuid", "4"]]]));
    }

    #[test]
    fn only_the_control_plane_has_the_api_server() {
        let operations = common(&Layout::default_network(nodes())).into_operations();
        let with_api =
            |it: &&&Value| it["row"]["variables"].to_string().contains("[\"APISERVER_IPv4\",\"172.18.0.2\"]");
        let chassis: Vec<&Value> = operations.iter().filter(|it| it["table"] == "Chassis_Template_Var").collect();
        assert_eq!(chassis.len(), 3);
        assert_eq!(chassis.iter().filter(|it| with_api(it)).count(), 1);
    }
}
