//! A pod as its annotations and its agent show it. Pure.

use ipnet::IpNet;
use serde_json::Value;
use udn_agent::protocol::Facts;
use udn_model::fact::{Interface, PodView, Route, StatusEntry};
use udn_model::words::Family;

use crate::addresses::{NETWORK_STATUS, POD_NETWORKS, annotation};

/// What the annotations say.
///
/// # Errors
/// An annotation that cannot be read.
pub(crate) fn outside(pod: &Value) -> Result<PodView, String> {
    let pod_networks = match annotation(pod, POD_NETWORKS) {
        Some(text) => PodView::read_pod_networks(text)?,
        None => return Err(format!("the pod has no annotation {POD_NETWORKS}")),
    };
    let network_status = match annotation(pod, NETWORK_STATUS) {
        Some(text) => {
            serde_json::from_str::<Vec<StatusEntry>>(text).map_err(|error| format!("{NETWORK_STATUS}: {error}"))?
        }
        None => Vec::new(),
    };
    Ok(PodView { pod_networks, network_status, ..PodView::default() })
}

/// Adds what the agent saw inside.
pub(crate) fn inside(view: &mut PodView, facts: &Facts) {
    let name_of = |index: u32| {
        let found = facts.interfaces.iter().find(|interface| interface.index == index);
        found.map_or_else(|| format!("#{index}"), |interface| interface.name.clone())
    };
    view.interfaces = facts
        .interfaces
        .iter()
        .filter(|interface| interface.name != "lo")
        .map(|interface| Interface {
            name: interface.name.clone(),
            mac: interface.mac.to_lowercase(),
            mtu: interface.mtu,
            addresses: interface.addresses.iter().filter_map(|a| IpNet::new(a.address, a.prefix).ok()).collect(),
            up: interface.up,
        })
        .collect();
    view.routes = facts
        .routes
        .iter()
        .filter(|route| route.kind == "unicast")
        .flat_map(|route| {
            let to = (route.prefix > 0).then(|| IpNet::new(route.destination, route.prefix).ok()).flatten();
            let family = Family::of(route.destination);
            route.next_hops.iter().map(move |hop| (family, to, hop))
        })
        .map(|(family, to, hop)| Route { family, to, via: hop.gateway, dev: name_of(hop.interface) })
        .collect();
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use udn_agent::protocol::{self, InterfaceAddress, NextHop};

    use super::*;

    #[test]
    fn facts_become_a_view() {
        let interface = |index, name: &str, address: &str, prefix| protocol::Interface {
            index,
            name: name.into(),
            up: true,
            running: true,
            mtu: 1400,
            mac: "0A:58:0a:00:00:05".into(),
            addresses: vec![InterfaceAddress { address: address.parse().unwrap(), prefix, tentative: false }],
        };
        let route = |destination: &str, prefix, kind: &str, gateway: Option<&str>, interface| protocol::Route {
            destination: destination.parse().unwrap(),
            prefix,
            kind: kind.into(),
            next_hops: vec![NextHop { gateway: gateway.map(|g| g.parse().unwrap()), interface }],
            metric: 0,
            source: None,
            mtu: None,
        };
        let facts = Facts {
            interfaces: vec![interface(1, "lo", "127.0.0.1", 8), interface(3, "ovn-udn1", "10.0.0.5", 16)],
            routes: vec![
                route("0.0.0.0", 0, "unicast", Some("10.0.0.1"), 3),
                route("10.0.0.0", 16, "unicast", None, 3),
                route("::", 0, "unreachable", None, 1),
            ],
            ..Facts::default()
        };
        let mut view = PodView::default();
        inside(&mut view, &facts);
        assert_eq!(view.interfaces.len(), 1);
        assert_eq!(view.interfaces[0].mac, "0a:58:0a:00:00:05");
        assert_eq!(view.interfaces[0].addresses, ["10.0.0.5/16".parse::<IpNet>().unwrap()]);
        let default =
            Route { family: Family::V4, to: None, via: Some("10.0.0.1".parse().unwrap()), dev: "ovn-udn1".into() };
        let direct =
            Route { family: Family::V4, to: Some("10.0.0.0/16".parse().unwrap()), via: None, dev: "ovn-udn1".into() };
        assert_eq!(view.routes, [default, direct]);
    }

    #[test]
    fn annotations_that_cannot_be_read_are_said() {
        assert!(outside(&json!({})).unwrap_err().contains("no annotation k8s.ovn.org/pod-networks"));
        let broken = json!({ "metadata": { "annotations": { POD_NETWORKS: "{}", NETWORK_STATUS: "[{" } } });
        assert!(outside(&broken).unwrap_err().starts_with("k8s.v1.cni.cncf.io/network-status: "));
    }
}
