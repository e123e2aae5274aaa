//! The API server's ClusterIP. Other services are rows like these, attached to the same switches and routers.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use serde_json::json;

use crate::address::subnet;
use crate::layout::{HOST_MASQUERADE, Layout, Node, SERVICE_RANGES};
use crate::ovsdb::Transaction;
use crate::ovsdb::transaction::{map, set};

/// The API server's port on the control plane's address.
pub(crate) const API_PORT: u16 = 6443;
/// The port of its service.
const SERVICE_PORT: u16 = 443;

/// Load balancers for the gateway routers of user defined networks, one per node, in order: pods reach the API server
/// through their own node. On the control plane the gateway router has the server's address itself, so that there the
/// host is reached under its masquerade address.
pub(crate) fn for_gateways(layout: &Layout) -> Transaction {
    let mut transaction = Transaction::default();
    for node in layout.nodes.iter() {
        let name = format!("Service_default/kubernetes_TCP_node_router_{}", node.name);
        insert(&mut transaction, &name, vips(layout, node.is_control_plane()));
    }
    transaction
}

/// The load balancer of the default network's switches.
pub(crate) fn for_switches(layout: &Layout) -> Transaction {
    let mut transaction = Transaction::default();
    let load_balancer = insert(&mut transaction, "Service_default/kubernetes_TCP_cluster", vips(layout, false));
    for node in layout.nodes.iter() {
        transaction.add("Logical_Switch", &layout.switch(&node.name), "load_balancer", set([load_balancer.clone()]));
    }
    transaction
}

/// The names of all load balancers above, to find them again.
pub(crate) const NAMES: &str = "Service_default/kubernetes";

fn insert(transaction: &mut Transaction, name: &str, vips: Vec<(String, String)>) -> serde_json::Value {
    transaction.insert(
        "Load_Balancer",
        json!({
            "name": name, "protocol": "tcp", "vips": map(vips),
            "options": map([("reject", "true"), ("event", "false")]),
            "external_ids": map([("k8s.ovn.org/kind", "Service"), ("k8s.ovn.org/owner", "default/kubernetes")]),
        }),
    )
}

fn vips(layout: &Layout, on_control_plane: bool) -> Vec<(String, String)> {
    let Some(control_plane) = layout.nodes.iter().find(|node: &&Node| node.is_control_plane()) else {
        return Vec::new();
    };
    let masquerade = [IpAddr::from(HOST_MASQUERADE.0), IpAddr::from(HOST_MASQUERADE.1)];
    let mut vips = Vec::new();
    for (range, (address, host)) in SERVICE_RANGES.iter().zip(control_plane.addresses.into_iter().zip(masquerade)) {
        let Some(service) = range.parse::<IpNet>().ok().and_then(|range| subnet::nth(range, 1)) else { continue };
        let backend = SocketAddr::new(if on_control_plane { host } else { address }, API_PORT).to_string();
        vips.push((SocketAddr::new(service, SERVICE_PORT).to_string(), backend.clone()));
        if on_control_plane {
            vips.push((SocketAddr::new(address, API_PORT).to_string(), backend));
        }
    }
    vips
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::tests::nodes;

    #[test]
    fn the_api_server_is_reached_in_both_families() {
        let layout = Layout::default_network(nodes());
        let vips = vips(&layout, false);
        assert_eq!(vips[0], ("10.96.0.1:443".to_owned(), "172.18.0.2:6443".to_owned()));
        assert_eq!(vips[1].0, "[fd00:10:96::1]:443");
        assert!(
            super::vips(&layout, true)
                .iter()
                .all(|(_, backend)| backend.contains("169.254.0.2") || backend.contains("fd69::2"))
        );
    }
}
