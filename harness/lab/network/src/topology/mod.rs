//! Networks as rows of OVN's northbound database: pure functions from a [`Layout`] to a [`Transaction`].
//!
//! * [`switches`]: switches, the router between them
//! * [`gateways`]: what leads outside: join switch, gateway routers, external switches
//! * [`isolation`]: what keeps the default-network address of a pod with another primary network closed
//! * [`services`]: groups of load balancers, variables of templates
//! * [`ports`]: what pods are plugged into; [`dhcp`]: what virtual machines are answered

pub(crate) mod dhcp;
pub(crate) mod gateways;
pub(crate) mod isolation;
pub(crate) mod ports;
pub(crate) mod services;
pub(crate) mod switches;

use serde_json::{Value, json};

use self::services::Groups;
use crate::layout::Layout;
use crate::ovsdb::Transaction;
use crate::ovsdb::transaction::map;

/// Everything of a network but its pods. `groups` are those of its load balancers, if it has services.
pub(crate) fn create(layout: &Layout, groups: Option<&Groups>) -> Result<Transaction, String> {
    let mut transaction = Transaction::default();
    let mut router = switches::create(&mut transaction, layout, groups)?;
    if layout.has_gateways() {
        gateways::create(&mut transaction, layout, &mut router, groups)?;
    }
    router.finish(&mut transaction);
    Ok(transaction)
}

/// Removes whatever OVN has of a network, pods' ports included.
pub(crate) fn delete(network: &str) -> Transaction {
    let mut transaction = Transaction::default();
    for table in ["Logical_Switch", "Logical_Router", "Address_Set", "Port_Group", "DHCP_Options"] {
        transaction.delete_where(table, "external_ids", "includes", map([("k8s.ovn.org/network", network)]));
    }
    transaction
}

/// What marks a row as a network's.
pub(crate) fn marks(layout: &Layout) -> Value {
    let topology = match layout.definition.topology {
        crate::definition::Topology::Layer2 => "layer2",
        crate::definition::Topology::Layer3 => "layer3",
        crate::definition::Topology::Localnet => "localnet",
    };
    let role = if layout.definition.primary { "primary" } else { "secondary" };
    map([("k8s.ovn.org/network", layout.name()), ("k8s.ovn.org/role", role), ("k8s.ovn.org/topology", topology)])
}

/// A router under construction: its rows are inserted with it.
#[derive(Debug, Default)]
pub(crate) struct Router {
    name: Option<String>,
    ports: Vec<Value>,
    routes: Vec<Value>,
    policies: Vec<Value>,
    nat: Vec<Value>,
    groups: Value,
    options: Vec<(String, String)>,
    marks: Value,
}

impl Router {
    pub(crate) fn new(name: String, layout: &Layout) -> Self {
        Self { name: Some(name), marks: marks(layout), groups: json!(["set", []]), ..Self::default() }
    }

    fn finish(self, transaction: &mut Transaction) {
        use crate::ovsdb::transaction::set;
        let Some(name) = self.name else { return };
        transaction.insert(
            "Logical_Router",
            json!({
                "name": name, "ports": set(self.ports), "static_routes": set(self.routes), "policies": set(self.policies),
                "nat": set(self.nat), "load_balancer_group": self.groups, "options": map(self.options),
                "external_ids": self.marks,
            }),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::tests::{LAYER2, LAYER3, layout, nodes};

    fn rows<'a>(operations: &'a [Value], table: &str) -> Vec<&'a Value> {
        operations.iter().filter(|operation| operation["table"] == table).map(|operation| &operation["row"]).collect()
    }

    fn names(operations: &[Value], table: &str) -> Vec<String> {
        let mut names: Vec<String> =
            rows(operations, table).iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn layer3_reads_as_in_ovn_kubernetes() {
        let operations = create(&layout(LAYER3, 1), None).unwrap().into_operations();
        let switches = names(&operations, "Logical_Switch");
        assert!(switches.contains(&"blue_blue.network_ovn-worker".to_owned()), "{switches:?}");
        assert!(switches.contains(&"blue_blue.network_join".to_owned()));
        assert!(switches.contains(&"blue_blue.network_ext_ovn-worker2".to_owned()));
        assert_eq!(switches.len(), 7);
        let routers = names(&operations, "Logical_Router");
        assert!(routers.contains(&"blue_blue.network_ovn_cluster_router".to_owned()));
        assert!(routers.contains(&"GR_blue_blue.network_ovn-worker".to_owned()));
        assert_eq!(routers.len(), 4);
        let nat = rows(&operations, "NAT");
        assert!(
            nat.iter().any(|row| row["external_ip"] == "169.254.0.11" && row["logical_ip"] == "103.103.0.0/16"),
            "{nat:?}"
        );
    }

    #[test]
    fn gateway_routers_are_reached_by_host_routes() {
        let operations = create(&layout(LAYER3, 1), None).unwrap().into_operations();
        let routes = rows(&operations, "Logical_Router_Static_Route");
        for prefix in ["100.65.0.2/32", "fd99::3/128"] {
            assert!(routes.iter().any(|row| row["ip_prefix"] == prefix), "no route to {prefix}");
        }
        assert!(routes.iter().any(|row| row["policy"] == "src-ip"
            && row["ip_prefix"] == "103.103.1.0/24"
            && row["nexthop"] == "100.65.0.3"));
    }

    #[test]
    fn layer2_is_one_switch_with_policies_per_node() {
        let operations = create(&layout(LAYER2, 1), None).unwrap().into_operations();
        assert!(names(&operations, "Logical_Switch").contains(&"blue_blue.network_ovn_layer2_switch".to_owned()));
        let policies = rows(&operations, "Logical_Router_Policy");
        assert_eq!(policies.len(), 6);
        assert!(policies.iter().all(|row| row["match"].as_str().unwrap().contains("100.65.0.0/16")
            || row["match"].as_str().unwrap().contains("fd99::/64")));
        assert_eq!(names(&operations, "Address_Set").len(), 6);
    }

    #[test]
    fn secondary_networks_lead_nowhere() {
        let operations = create(&layout(&LAYER3.replace("primary", "secondary"), 1), None).unwrap().into_operations();
        assert_eq!(names(&operations, "Logical_Router"), ["blue_blue.network_ovn_cluster_router"]);
        assert!(rows(&operations, "NAT").is_empty());
        let operations = create(&layout(&LAYER2.replace("primary", "secondary"), 1), None).unwrap().into_operations();
        assert!(names(&operations, "Logical_Router").is_empty());
    }

    #[test]
    fn the_default_network_has_no_prefix() {
        let layout = Layout::default_network(nodes());
        let operations = create(&layout, None).unwrap().into_operations();
        assert!(names(&operations, "Logical_Switch").contains(&"ovn-worker".to_owned()));
        assert!(names(&operations, "Logical_Router").contains(&"GR_ovn-worker".to_owned()));
        let nat = rows(&operations, "NAT");
        assert!(nat.iter().any(|row| row["external_ip"] == "172.18.0.3"));
    }

    #[test]
    fn switches_and_gateway_routers_have_their_groups() {
        let layout = layout(LAYER3, 1);
        let groups = Groups::created(&layout, (0..5).map(|it| it.to_string()).collect());
        let operations = create(&layout, Some(&groups)).unwrap().into_operations();
        let with = |table: &str, name: &str| {
            let row = rows(&operations, table).into_iter().find(|row| row["name"] == name).unwrap();
            row["load_balancer_group"].clone()
        };
        assert_eq!(with("Logical_Switch", "blue_blue.network_ovn-worker"), groups.of_switches());
        assert_eq!(with("Logical_Router", "GR_blue_blue.network_ovn-worker"), groups.of_router("ovn-worker"));
        assert_eq!(with("Logical_Router", "blue_blue.network_ovn_cluster_router"), json!(["set", []]));
    }

    #[test]
    fn single_stack_networks_have_nothing_of_the_other_family() {
        let text = LAYER3.replace(",2014:100:200::/60", "");
        let operations = create(&layout(&text, 1), None).unwrap().into_operations();
        assert!(
            rows(&operations, "Logical_Router_Static_Route")
                .iter()
                .all(|row| !row["ip_prefix"].as_str().unwrap().contains(':'))
        );
    }
}
