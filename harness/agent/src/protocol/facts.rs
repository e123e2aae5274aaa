//! The agent's view of its network.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

use serde::{Deserialize, Serialize};

#[cfg(doc)]
use super::Arrival;
use super::Guest;

/// The agent's view of its network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// `/proc/sys/kernel/hostname`.
    pub hostname: String,
    /// Every interface.
    pub interfaces: Vec<Interface>,
    /// Every route of the main table, both families.
    pub routes: Vec<Route>,
    /// Neighbour entries (ARP, ND) except those of `lo` and of multicast addresses.
    pub neighbours: Vec<Neighbour>,
    /// What `/etc/resolv.conf` says.
    pub resolvers: Resolvers,
    /// What the network told a VM whose first process is the agent; none elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest: Option<Guest>,
}

/// A network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Index, as in [`Arrival::interface`].
    pub index: u32,
    /// Name.
    pub name: String,
    /// Administratively up.
    pub up: bool,
    /// Has a carrier and can send (operational state up, or unknown as for `lo`).
    pub running: bool,
    /// Bytes.
    pub mtu: u32,
    /// `0a:58:0a:f4:00:05`; empty where there is none.
    pub mac: String,
    /// Addresses of both families.
    pub addresses: Vec<InterfaceAddress>,
}

/// An address of an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceAddress {
    /// Address.
    pub address: IpAddr,
    /// Prefix length, bits.
    pub prefix: u8,
    /// IPv6 duplicate address detection is not over yet (or failed): the address cannot be used.
    #[serde(default)]
    pub tentative: bool,
}

/// A route of the main table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Destination; `0.0.0.0` or `::` with prefix 0 is the default route.
    pub destination: IpAddr,
    /// Prefix length of the destination, bits.
    pub prefix: u8,
    /// `unicast`, `blackhole`, `unreachable`, `prohibit` …
    pub kind: String,
    /// Next hops: gateway and interface index.
    pub next_hops: Vec<NextHop>,
    /// Priority; lower wins.
    pub metric: u32,
    /// Preferred source address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<IpAddr>,
    /// MTU locked to the route, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
}

/// One next hop of a route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextHop {
    /// Gateway; none if the destination is on the link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// Interface index.
    pub interface: u32,
}

/// A neighbour entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neighbour {
    /// Address.
    pub address: IpAddr,
    /// Interface index.
    pub interface: u32,
    /// MAC; empty while unresolved.
    pub mac: String,
    /// `reachable`, `stale`, `delay`, `probe`, `failed`, `incomplete`, `permanent`, `noarp`.
    pub state: String,
}

/// `/etc/resolv.conf`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolvers {
    /// `nameserver` lines.
    pub nameservers: Vec<String>,
    /// `search` domains.
    pub search: Vec<String>,
    /// `options`.
    pub options: Vec<String>,
}
