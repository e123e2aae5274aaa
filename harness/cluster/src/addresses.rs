//! Who has which address, from annotations and status. Pure.

use std::net::IpAddr;

use serde_json::Value;
use udn_model::fact::{PodView, StatusEntry};
use udn_model::naming::Naming;
use udn_model::world::{NetworkId, PodRef, World as Declared};
use udn_runner::cluster::PodAddresses;

/// The annotation that the network plugin writes.
pub(crate) const POD_NETWORKS: &str = "k8s.ovn.org/pod-networks";
/// The annotation that says what the pod really got.
pub(crate) const NETWORK_STATUS: &str = "k8s.v1.cni.cncf.io/network-status";

/// An annotation of an object.
pub(crate) fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object["metadata"]["annotations"][key].as_str()
}

/// A pod's addresses. Before its annotation is there, what its status says.
pub(crate) fn of_pod(pod: &Value, name: &PodRef, declared: &Declared, naming: &Naming) -> PodAddresses {
    let mut addresses = PodAddresses { network: network_of(name, declared), ..PodAddresses::default() };
    let entries =
        annotation(pod, POD_NETWORKS).and_then(|text| PodView::read_pod_networks(text).ok()).unwrap_or_default();
    for (key, entry) in entries {
        let ips: Vec<IpAddr> = entry.ips.iter().map(|ip| ip.addr()).collect();
        if key == "default" {
            addresses.default = ips;
        } else if entry.role.as_deref() == Some("primary") {
            addresses.primary = ips;
        } else if let Some(network) = network_by_key(&key, name, declared, naming) {
            addresses.add(network, &addresses.network.clone(), ips);
        }
    }
    // Networks of other plugins are known to network-status only.
    for entry in annotation(pod, NETWORK_STATUS)
        .and_then(|text| serde_json::from_str::<Vec<StatusEntry>>(text).ok())
        .unwrap_or_default()
    {
        if let Some(network) = network_by_key(&entry.name, name, declared, naming) {
            let known = addresses.secondary.contains_key(&network) || addresses.network.as_ref() == Some(&network);
            if !known && !entry.ips.is_empty() {
                addresses.secondary.insert(network, entry.ips);
            }
        }
    }
    if addresses.default.is_empty() {
        addresses.default = status_ips(pod);
    }
    addresses
}

trait Add {
    fn add(&mut self, network: NetworkId, primary: &Option<NetworkId>, ips: Vec<IpAddr>);
}

impl Add for PodAddresses {
    /// Older releases name no role: the declared primary network is primary.
    fn add(&mut self, network: NetworkId, primary: &Option<NetworkId>, ips: Vec<IpAddr>) {
        if primary.as_ref() == Some(&network) {
            self.primary = ips;
        } else {
            self.secondary.insert(network, ips);
        }
    }
}

/// `status.podIPs`.
pub(crate) fn status_ips(pod: &Value) -> Vec<IpAddr> {
    let listed = pod["status"]["podIPs"].as_array().into_iter().flatten().filter_map(|entry| entry["ip"].as_str());
    let ips: Vec<IpAddr> = listed.filter_map(|ip| ip.parse().ok()).collect();
    if ips.is_empty() {
        pod["status"]["podIP"].as_str().and_then(|ip| ip.parse().ok()).into_iter().collect()
    } else {
        ips
    }
}

fn network_of(name: &PodRef, declared: &Declared) -> Option<NetworkId> {
    match declared.pod(name) {
        Some(pod) => pod.primary.clone(),
        None => declared.primary_of(&name.namespace).map(|network| network.id.clone()),
    }
}

/// The network whose attachment in the pod's namespace, or in another, has this key.
fn network_by_key(key: &str, name: &PodRef, declared: &Declared, naming: &Naming) -> Option<NetworkId> {
    let (namespace, attachment) = key.split_once('/')?;
    let namespace = naming.world(namespace).unwrap_or(&name.namespace);
    let network = declared.networks.iter().find(|network| {
        naming.attachment(network.id.name()) == attachment
            && network.namespaces.iter().any(|member| member == namespace)
    })?;
    Some(network.id.clone())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn manifests() -> Vec<Value> {
        vec![
            json!({ "kind": "Namespace", "metadata": { "name": "blue", "labels": { "k8s.ovn.org/primary-user-defined-network": "" } } }),
            json!({ "apiVersion": "k8s.ovn.org/v1", "kind": "UserDefinedNetwork", "metadata": { "name": "net", "namespace": "blue" },
                "spec": { "topology": "Layer2", "layer2": { "role": "Primary", "subnets": ["10.0.0.0/16"] } } }),
            json!({ "apiVersion": "k8s.ovn.org/v1", "kind": "ClusterUserDefinedNetwork", "metadata": { "name": "storage" },
                "spec": { "namespaceSelector": {}, "network": { "topology": "Layer2", "layer2": { "role": "Secondary", "subnets": ["10.9.0.0/16"] } } } }),
        ]
    }

    fn read(annotations: Value) -> PodAddresses {
        let declared = Declared::from_manifests(&manifests()).unwrap();
        let naming = Naming::new("k3v9a").knowing(&manifests());
        let pod =
            json!({ "metadata": { "annotations": annotations }, "status": { "podIPs": [{ "ip": "10.244.0.9" }] } });
        of_pod(&pod, &PodRef::new("blue", "a"), &declared, &naming)
    }

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn every_network_is_found_in_singular_and_plural() {
        let networks = json!({
            "default": { "ip_address": "10.244.0.6/24", "ip_addresses": ["10.244.0.6/24", "fd00::6/64"], "role": "infrastructure-locked" },
            "k3v9a-blue/net": { "ip_address": "10.0.0.5/16", "role": "primary" },
            "k3v9a-blue/k3v9a-storage": { "ip_addresses": ["10.9.0.5/16"], "role": "secondary" } });
        let addresses = read(json!({ POD_NETWORKS: networks.to_string() }));
        assert_eq!(addresses.default, ips(&["10.244.0.6", "fd00::6"]));
        assert_eq!(addresses.primary, ips(&["10.0.0.5"]));
        assert_eq!(addresses.secondary[&NetworkId::Cudn { name: "storage".into() }], ips(&["10.9.0.5"]));
        assert_eq!(addresses.network, Some(NetworkId::Udn { namespace: "blue".into(), name: "net".into() }));
    }

    #[test]
    fn without_roles_the_declared_primary_is_primary() {
        let networks = json!({ "k3v9a-blue/net": { "ip_address": "10.0.0.5/16" } });
        assert_eq!(read(json!({ POD_NETWORKS: networks.to_string() })).primary, ips(&["10.0.0.5"]));
    }

    #[test]
    fn secondary_networks_may_be_known_to_network_status_only() {
        let status = json!([
            { "name": "ovn-kubernetes", "interface": "eth0", "ips": ["10.244.0.6"] },
            { "name": "k3v9a-blue/k3v9a-storage", "interface": "net1", "ips": ["10.9.0.7"] } ]);
        let addresses = read(json!({ NETWORK_STATUS: status.to_string() }));
        assert_eq!(addresses.secondary[&NetworkId::Cudn { name: "storage".into() }], ips(&["10.9.0.7"]));
    }

    #[test]
    fn status_is_the_last_resort() {
        assert_eq!(read(json!({})).default, ips(&["10.244.0.9"]));
        assert!(read(json!({ POD_NETWORKS: "{" })).primary.is_empty());
    }
}
