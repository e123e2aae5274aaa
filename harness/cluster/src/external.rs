//! The vantage point outside of the cluster: a pod that whoever runs the cluster has placed on an external host.

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use udn_agent::protocol::Facts;
use udn_model::words::Family;
use udn_runner::cluster::NodeAddresses;

use crate::world::Station;

/// Its agent, which also listens: the external server.
pub(crate) struct External {
    pub(crate) station: Arc<Station>,
    /// Where it listens.
    pub(crate) addresses: NodeAddresses,
}

/// The addresses under which a pod's host is reached: those that its status names and its interfaces have; where these
/// contradict each other (the pod is on a host network that its cluster does not know of), those of its interfaces.
pub(crate) fn addresses(pod: &Pod, facts: &Facts) -> Vec<IpAddr> {
    let up = facts.interfaces.iter().filter(|interface| interface.up);
    let own: Vec<IpAddr> = up
        .flat_map(|interface| &interface.addresses)
        .map(|address| address.address)
        .filter(|address| !address.is_loopback() && !is_link_local(*address))
        .collect();
    let told = pod.status.iter().filter_map(|status| status.pod_ips.as_ref()).flatten();
    let told: Vec<IpAddr> = told.filter_map(|ip| ip.ip.parse().ok()).filter(|ip| own.contains(ip)).collect();
    let among = if told.is_empty() { own } else { told };
    let first = |family| among.iter().copied().find(|address| Family::of(*address) == family);
    Family::ALL.into_iter().filter_map(first).collect()
}

const fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn facts() -> Facts {
        let address = |address: &str| json!({ "address": address, "prefix": 64 });
        let interface = |index: u32, name: &str, addresses: Vec<serde_json::Value>| json!({ "index": index, "name": name, "up": true, "running": true, "mtu": 1500, "mac": "", "addresses": addresses });
        serde_json::from_value(json!({
            "hostname": "outside", "routes": [], "neighbours": [],
            "resolvers": { "nameservers": [], "search": [], "options": [] },
            "interfaces": [
                interface(1, "lo", vec![address("127.0.0.1"), address("::1")]),
                interface(2, "eth0", vec![address("172.18.0.100"), address("fe80::1"), address("fd00::100")]),
                interface(3, "eth1", vec![address("192.0.2.1")]),
            ] }))
        .unwrap()
    }

    fn pod(ips: &[&str]) -> Pod {
        let ips: Vec<_> = ips.iter().map(|ip| json!({ "ip": ip })).collect();
        serde_json::from_value(json!({ "metadata": {}, "status": { "podIPs": ips } })).unwrap()
    }

    #[test]
    fn status_decides_among_the_interfaces_and_only_among_them() {
        let texts = |pod: &Pod| addresses(pod, &facts()).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(texts(&pod(&["192.0.2.1"])), ["192.0.2.1"]);
        assert_eq!(texts(&pod(&["172.18.0.2"])), ["172.18.0.100", "fd00::100"]);
        assert_eq!(texts(&pod(&[])), ["172.18.0.100", "fd00::100"]);
    }
}
