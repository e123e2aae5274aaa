//! Pods' annotations: what they ask for, and what the network answers.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use udn_api::names;

use crate::address::Mac;
use crate::naming::DEFAULT_NETWORK;

/// A network's role in one pod.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Role {
    Primary,
    Secondary,
    InfrastructureLocked,
}

/// One attachment of a pod, complete.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Attachment {
    /// `default` or `<namespace>/<name>`.
    pub(crate) nad: String,
    pub(crate) network: String,
    pub(crate) interface: String,
    pub(crate) role: Role,
    pub(crate) mac: Mac,
    pub(crate) addresses: Vec<IpNet>,
    pub(crate) gateways: Vec<IpAddr>,
    pub(crate) routes: Vec<(IpNet, IpAddr)>,
    /// Where router advertisements come from (Layer2 with IPv6).
    pub(crate) link_local_gateway: Option<Ipv6Addr>,
    pub(crate) mtu: u32,
    /// The logical switch port.
    pub(crate) port: String,
    /// The virtual machine (`<namespace>/<name>`) whose guest has MAC and addresses: the pod has neither addresses nor
    /// routes on this interface, and OVN answers the guest's DHCP.
    pub(crate) guest: Option<String>,
    /// Who holds the addresses when the pod is gone.
    pub(crate) claim: Option<ClaimRef>,
}

/// An IPAMClaim.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct ClaimRef {
    /// `<namespace>/<name>`.
    pub(crate) key: String,
    pub(crate) uid: String,
}

impl Attachment {
    pub(crate) fn ips(&self) -> Vec<IpAddr> {
        self.addresses.iter().map(IpNet::addr).collect()
    }
}

/// An entry of `k8s.ovn.org/pod-networks`, in OVN-Kubernetes' order of fields.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct PodNetwork {
    #[serde(default)]
    pub(crate) ip_addresses: Vec<IpNet>,
    #[serde(default)]
    pub(crate) mac_address: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    gateway_ips: Vec<IpAddr>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    routes: Vec<Route>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ip_address: Option<IpNet>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gateway_ip: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ipv6_lla_gateway_ip: Option<Ipv6Addr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    role: Option<Role>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Route {
    dest: IpNet,
    #[serde(rename = "nextHop")]
    next_hop: IpAddr,
}

/// The value of `k8s.ovn.org/pod-networks`. Where two attachments share a definition the second has `/1` after its key.
pub(crate) fn pod_networks(attachments: &[Attachment]) -> String {
    let mut entries: BTreeMap<String, PodNetwork> = BTreeMap::new();
    for attachment in attachments {
        let taken = entries
            .keys()
            .filter(|key| **key == attachment.nad || key.starts_with(&format!("{}/", attachment.nad)))
            .count();
        let key = if taken == 0 { attachment.nad.clone() } else { format!("{}/{taken}", attachment.nad) };
        let single = attachment.addresses.len() == 1;
        entries.insert(
            key,
            PodNetwork {
                ip_addresses: attachment.addresses.clone(),
                mac_address: attachment.mac.to_string(),
                gateway_ips: attachment.gateways.clone(),
                routes: attachment
                    .routes
                    .iter()
                    .map(|(dest, next_hop)| Route { dest: *dest, next_hop: *next_hop })
                    .collect(),
                ip_address: attachment.addresses.first().copied().filter(|_| single),
                gateway_ip: attachment.gateways.first().copied().filter(|_| single && attachment.gateways.len() == 1),
                ipv6_lla_gateway_ip: attachment.link_local_gateway,
                role: Some(attachment.role),
            },
        );
    }
    serde_json::to_string(&entries).unwrap_or_default()
}

/// Reads `k8s.ovn.org/pod-networks`; nothing if it is absent or unreadable.
pub(crate) fn read_pod_networks(annotations: &BTreeMap<String, String>) -> BTreeMap<String, PodNetwork> {
    annotations.get(names::POD_NETWORKS).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

/// The value of `k8s.v1.cni.cncf.io/network-status`.
pub(crate) fn network_status(attachments: &[Attachment]) -> Value {
    let has_primary =
        attachments.iter().any(|attachment| attachment.nad != DEFAULT_NETWORK && attachment.role == Role::Primary);
    let entries = attachments.iter().map(|attachment| {
        let is_default_network = attachment.nad == DEFAULT_NETWORK;
        let name = if is_default_network { "ovn-kubernetes" } else { &attachment.nad };
        let is_default = if is_default_network { !has_primary } else { attachment.role == Role::Primary };
        let mut entry = json!({
            "name": name, "interface": attachment.interface, "ips": attachment.ips(), "mac": attachment.mac.to_string(),
            "mtu": attachment.mtu, "dns": {},
        });
        if is_default || is_default_network {
            entry["default"] = is_default.into();
        }
        if !attachment.gateways.is_empty() {
            entry["gateway"] = json!(attachment.gateways);
        }
        entry
    });
    Value::Array(entries.collect())
}

/// An attachment that a pod asks for.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(default)]
pub(crate) struct Selection {
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) ips: Vec<String>,
    pub(crate) mac: String,
    pub(crate) interface: String,
    #[serde(rename = "default-route")]
    pub(crate) default_route: Vec<IpAddr>,
    #[serde(rename = "ipam-claim-reference")]
    pub(crate) ipam_claim: String,
}

impl Selection {
    /// `<namespace>/<name>` of the attachment definition.
    pub(crate) fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// Requested addresses, with or without prefix length.
    pub(crate) fn addresses(&self) -> Result<Vec<IpAddr>, String> {
        let parse = |text: &String| {
            text.parse::<IpNet>()
                .map(|net| net.addr())
                .or_else(|_| text.parse::<IpAddr>())
                .map_err(|_| format!("invalid IP {text:?} requested"))
        };
        self.ips.iter().map(parse).collect()
    }

    /// The requested MAC, if any.
    pub(crate) fn mac(&self) -> Result<Option<Mac>, String> {
        if self.mac.is_empty() { Ok(None) } else { self.mac.parse().map(Some) }
    }
}

/// Secondary attachments that a pod asks for: JSON, or `[namespace/]name[@interface]` separated by commas.
pub(crate) fn selections(annotations: &BTreeMap<String, String>, namespace: &str) -> Result<Vec<Selection>, String> {
    let Some(text) = annotations.get(names::NETWORKS).map(|text| text.trim()).filter(|text| !text.is_empty()) else {
        return Ok(Vec::new());
    };
    let mut selections: Vec<Selection> = if text.starts_with('[') {
        serde_json::from_str(text)
            .map_err(|error| format!("failed to parse annotation {}: {error}", names::NETWORKS))?
    } else {
        text.split(',').map(|item| short_selection(item.trim())).collect()
    };
    for selection in &mut selections {
        if selection.namespace.is_empty() {
            namespace.clone_into(&mut selection.namespace);
        }
        if selection.name.is_empty() {
            return Err(format!("annotation {} names no network", names::NETWORKS));
        }
    }
    Ok(selections)
}

fn short_selection(text: &str) -> Selection {
    let (path, interface) = text.split_once('@').unwrap_or((text, ""));
    let (namespace, name) = path.split_once('/').unwrap_or(("", path));
    Selection { name: name.into(), namespace: namespace.into(), interface: interface.into(), ..Selection::default() }
}

/// What a pod asks of its primary attachment.
pub(crate) fn primary_request(annotations: &BTreeMap<String, String>) -> Result<Option<Selection>, String> {
    let Some(text) = annotations.get(names::DEFAULT_NETWORK).map(|text| text.trim()) else { return Ok(None) };
    if !text.starts_with('[') {
        return Ok(Some(short_selection(text)));
    }
    let selections: Vec<Selection> = serde_json::from_str(text)
        .map_err(|error| format!("failed to parse annotation {}: {error}", names::DEFAULT_NETWORK))?;
    match <[Selection; 1]>::try_from(selections) {
        Ok([selection]) => Ok(Some(selection)),
        Err(_) => Err(format!("annotation {} must have exactly one element", names::DEFAULT_NETWORK)),
    }
}

/// The name of the IPAMClaim that a pod asks for on its primary network. OVN-Kubernetes' own annotation is deprecated and
/// counts where the other does not say.
pub(crate) fn claim_name(annotations: &BTreeMap<String, String>) -> Option<String> {
    let new = primary_request(annotations).ok().flatten().map(|request| request.ipam_claim);
    let old = || annotations.get(names::PRIMARY_IPAM_CLAIM).cloned();
    new.filter(|name| !name.is_empty()).or_else(old).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attachment(nad: &str, interface: &str, role: Role, addresses: &[&str]) -> Attachment {
        let addresses: Vec<IpNet> = addresses.iter().map(|text| text.parse().unwrap()).collect();
        Attachment {
            nad: nad.into(),
            network: nad.into(),
            interface: interface.into(),
            role,
            mac: Mac::of_first(addresses.iter().map(IpNet::addr)).unwrap(),
            gateways: vec!["203.203.2.1".parse().unwrap()],
            routes: vec![("10.96.0.0/16".parse().unwrap(), "203.203.2.1".parse().unwrap())],
            addresses,
            link_local_gateway: None,
            mtu: 1400,
            port: "p".into(),
            guest: None,
            claim: None,
        }
    }

    #[test]
    fn one_address_has_singular_fields_two_have_none() {
        let one = pod_networks(&[attachment("green/n", "ovn-udn1", Role::Primary, &["203.203.2.5/24"])]);
        assert_eq!(
            one,
            r#"{"green/n":{"ip_addresses":["203.203.2.5/24"],"mac_address":"0a:58:cb:cb:02:05","gateway_ips":["203.203.2.1"],"routes":[{"dest":"10.96.0.0/16","nextHop":"203.203.2.1"}],"ip_address":"203.203.2.5/24","gateway_ip":"203.203.2.1","role":"primary"}}"#
        );
        let two = pod_networks(&[attachment(
            "green/n",
            "ovn-udn1",
            Role::InfrastructureLocked,
            &["203.203.2.5/24", "fd00::5/64"],
        )]);
        assert!(
            !two.contains("ip_address\"") && !two.contains("gateway_ip\"") && two.contains("infrastructure-locked"),
            "{two}"
        );
    }

    #[test]
    fn status_says_which_interface_is_the_default() {
        let locked = attachment("default", "eth0", Role::InfrastructureLocked, &["10.244.2.5/24"]);
        let primary = attachment("green/n", "ovn-udn1", Role::Primary, &["203.203.2.5/24"]);
        let secondary = attachment("green/s", "net1", Role::Secondary, &["10.9.9.5/24"]);
        let status = network_status(&[locked, primary, secondary]);
        assert_eq!((&status[0]["name"], &status[0]["default"]), (&json!("ovn-kubernetes"), &json!(false)));
        assert_eq!((&status[1]["interface"], &status[1]["default"]), (&json!("ovn-udn1"), &json!(true)));
        assert!(status[2].get("default").is_none());
    }

    #[test]
    fn the_newer_way_to_name_a_claim_wins() {
        let old = (names::PRIMARY_IPAM_CLAIM.to_owned(), "old".to_owned());
        let new = |text: &str| (names::DEFAULT_NETWORK.to_owned(), text.to_owned());
        assert_eq!(claim_name(&BTreeMap::new()), None);
        assert_eq!(claim_name(&BTreeMap::from([old.clone()])).as_deref(), Some("old"));
        let both = [old.clone(), new(r#"[{"name":"default","ipam-claim-reference":"new"}]"#)];
        assert_eq!(claim_name(&BTreeMap::from(both)).as_deref(), Some("new"));
        let silent = [old, new(r#"[{"name":"default","mac":"02:00:00:00:00:01"}]"#)];
        assert_eq!(claim_name(&BTreeMap::from(silent)).as_deref(), Some("old"));
    }

    #[test]
    fn requests_are_read_in_both_notations() {
        let annotate = |text: &str| BTreeMap::from([(names::NETWORKS.to_owned(), text.to_owned())]);
        let short = selections(&annotate("a, other/b@net7"), "ns").unwrap();
        assert_eq!(
            (short[0].key(), short[1].key(), short[1].interface.as_str()),
            ("ns/a".into(), "other/b".into(), "net7")
        );
        let long =
            selections(&annotate(r#"[{"name":"a","ips":["10.0.0.5/24"],"mac":"02:00:00:00:00:01"}]"#), "ns").unwrap();
        assert_eq!(long[0].addresses().unwrap()[0].to_string(), "10.0.0.5");
        assert_eq!(long[0].mac().unwrap().unwrap().to_string(), "02:00:00:00:00:01");
        assert!(selections(&annotate("[{"), "ns").is_err());
        assert!(selections(&BTreeMap::new(), "ns").unwrap().is_empty());
    }
}
