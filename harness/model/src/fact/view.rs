//! A pod as seen from inside, and what the cluster says of it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::words::Family;

/// A pod as seen from inside, and what the cluster says of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodView {
    /// The annotation `k8s.ovn.org/pod-networks`: `default` and `<namespace>/<attachment>`, by the run's names.
    pub pod_networks: BTreeMap<String, NetworkEntry>,
    /// The annotation `k8s.v1.cni.cncf.io/network-status`.
    pub network_status: Vec<StatusEntry>,
    /// Interfaces, `lo` left out.
    pub interfaces: Vec<Interface>,
    /// Routes of the main tables.
    pub routes: Vec<Route>,
    /// What was said there to all, as far as it is kept: address resolution and router advertisements.
    #[serde(default)]
    pub heard: Vec<Announcement>,
    /// What concerns guests only.
    #[serde(default)]
    pub guest: Option<Box<Guest>>,
}

/// What concerns guests only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guest {
    /// How it calls itself.
    pub hostname: Option<String>,
    /// DNS servers that it asks.
    pub resolvers: Vec<IpAddr>,
    /// Whom it knows by which MAC, with the state that its kernel gives the entry.
    pub neighbours: Vec<(IpAddr, String)>,
    /// ClusterIPs of the cluster's DNS service.
    pub dns: Vec<IpAddr>,
    /// MTU that the cluster's default network has, where it is known.
    pub default_mtu: Option<u32>,
    /// What its IPAMClaim says; `None`: there is none.
    pub claim: Option<Vec<IpNet>>,
    /// What was first seen of it.
    pub before: Option<Identity>,
    /// When its last migration made it run elsewhere, microseconds since the Unix epoch by the harness' clock.
    pub switched_us: Option<i64>,
}

/// What must stay the same of a guest, whatever happens to its VM.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Addresses of its interface, link-local ones left out, sorted.
    pub addresses: Vec<IpNet>,
    /// Its MAC.
    pub mac: String,
    /// Its MTU, bytes.
    pub mtu: u32,
    /// Its routes, as text, sorted.
    pub routes: Vec<String>,
    /// Its DNS servers.
    pub resolvers: Vec<IpAddr>,
    /// Its name.
    pub hostname: Option<String>,
    /// What its IPAMClaim says.
    pub claim: Option<Vec<IpNet>>,
}

/// Something that was said to all, or about a gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// When it was heard, microseconds since the Unix epoch by the harness' clock.
    pub at_us: i64,
    /// What it was.
    pub said: Said,
    /// The MAC that it is about.
    pub mac: String,
    /// The address that it is about; a reverse request has none.
    pub address: Option<IpAddr>,
}

/// Kinds of announcements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Said {
    /// A reverse request, as hypervisors send them after a migration.
    Rarp,
    /// An ARP request or reply about oneself.
    Arp,
    /// An unsolicited neighbour advertisement.
    NeighbourAdvertisement,
    /// A router advertisement.
    RouterAdvertisement,
}

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Rarp => "RARP",
            Self::Arp => "gratuitous ARP",
            Self::NeighbourAdvertisement => "neighbour advertisement",
            Self::RouterAdvertisement => "router advertisement",
        })
    }
}

/// One entry of `pod-networks`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkEntry {
    /// Addresses with prefix length.
    pub ips: Vec<IpNet>,
    /// MAC address.
    pub mac: String,
    /// Gateways.
    pub gateways: Vec<IpAddr>,
    /// `primary`, `secondary`, `infrastructure-locked`; older releases leave it out.
    pub role: Option<String>,
}

/// One entry of `network-status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusEntry {
    /// `ovn-kubernetes` or `<namespace>/<attachment>`.
    pub name: String,
    /// Interface in the pod.
    #[serde(default)]
    pub interface: String,
    /// Addresses.
    #[serde(default)]
    pub ips: Vec<IpAddr>,
    /// MAC address.
    #[serde(default)]
    pub mac: String,
    /// Whether it carries the default route.
    #[serde(default)]
    pub default: bool,
}

/// An interface in the pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Name.
    pub name: String,
    /// MAC address, lower case, colons.
    pub mac: String,
    /// MTU, bytes.
    pub mtu: u32,
    /// Addresses with prefix length, link-local ones included.
    pub addresses: Vec<IpNet>,
    /// Whether it is administratively up.
    pub up: bool,
}

/// A route in the pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Family.
    pub family: Family,
    /// Destination; `None` for the default route.
    pub to: Option<IpNet>,
    /// Next hop.
    pub via: Option<IpAddr>,
    /// Interface.
    pub dev: String,
}

impl PodView {
    /// Reads the annotation `k8s.ovn.org/pod-networks`, singular and plural forms alike.
    ///
    /// # Errors
    /// What cannot be read, with its place.
    pub fn read_pod_networks(text: &str) -> Result<BTreeMap<String, NetworkEntry>, String> {
        let Ok(Value::Object(entries)) = serde_json::from_str::<Value>(text) else {
            return Err("k8s.ovn.org/pod-networks is not a JSON object".into());
        };
        let mut read = BTreeMap::new();
        for (key, value) in entries {
            let texts = |plural: &str, singular: &str| -> Vec<String> {
                let list: Vec<_> = value[plural].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
                let list = if list.is_empty() { value[singular].as_str().into_iter().collect() } else { list };
                list.into_iter().map(str::to_owned).collect()
            };
            let bad = |what: &str| format!("k8s.ovn.org/pod-networks: `{what}` of {key} is not an address");
            let ips = texts("ip_addresses", "ip_address")
                .iter()
                .map(|ip| ip.parse().map_err(|_| bad(ip)))
                .collect::<Result<_, _>>()?;
            let gateways = texts("gateway_ips", "gateway_ip")
                .iter()
                .map(|ip| ip.parse().map_err(|_| bad(ip)))
                .collect::<Result<_, _>>()?;
            let mac = value["mac_address"].as_str().unwrap_or_default().to_lowercase();
            let role = value["role"].as_str().map(str::to_owned);
            read.insert(key, NetworkEntry { ips, mac, gateways, role });
        }
        Ok(read)
    }

    pub(super) fn interface(&self, name: &str) -> Result<&Interface, String> {
        let found = self.interfaces.iter().find(|interface| interface.name == name);
        found.ok_or_else(|| {
            let names: Vec<_> = self.interfaces.iter().map(|interface| interface.name.as_str()).collect();
            format!("no interface {name}; there are {}", names.join(", "))
        })
    }

    pub(super) fn entry(&self, key: &str) -> Result<&NetworkEntry, String> {
        let found = self.pod_networks.get(key);
        found.ok_or_else(|| {
            let keys: Vec<_> = self.pod_networks.keys().map(String::as_str).collect();
            format!("no entry {key} in pod-networks; there are {}", keys.join(", "))
        })
    }

    /// The default routes of a family.
    pub(super) fn defaults(&self, family: Family) -> impl Iterator<Item = &Route> {
        self.routes.iter().filter(move |route| route.family == family && route.to.is_none())
    }
}
