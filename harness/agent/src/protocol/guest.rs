//! What the network told a VM whose first process is the agent.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// Routers whose last advertisement is kept at most.
pub const ROUTERS_KEPT: usize = 8;

/// What the network told a VM whose first process is the agent. What the kernel made of it is in [`super::Facts`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guest {
    /// By DHCPv4; none: no answer (yet), or the lease ran out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dhcpv4: Option<Dhcpv4Lease>,
    /// By DHCPv6, which is asked only once a router said so; none: no answer (yet), or the lease ran out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dhcpv6: Option<Dhcpv6Lease>,
    /// The last advertisement of each router, at most [`ROUTERS_KEPT`], in the order of first appearance.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routers: Vec<RouterAdvertisement>,
    /// What went wrong while the VM was set up, at most 16 lines: a module that could not be loaded, an address that the
    /// kernel refused …
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub troubles: Vec<String>,
}

/// What a DHCPv4 server granted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dhcpv4Lease {
    /// The address.
    pub address: Ipv4Addr,
    /// Prefix length from the subnet mask, bits.
    pub prefix: u8,
    /// Server identifier.
    pub server: Ipv4Addr,
    /// Seconds that the lease lasts; [`u32::MAX`]: for ever.
    pub lease_s: u32,
    /// Routers, in the server's order; the first is the default gateway.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routers: Vec<Ipv4Addr>,
    /// DNS servers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resolvers: Vec<Ipv4Addr>,
    /// Interface MTU, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// Host name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Domain name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// When it was granted (last), microseconds since 1970.
    pub granted_us: u64,
    /// How often it was granted again since.
    #[serde(default)]
    pub renewals: u32,
}

/// What a DHCPv6 server granted or, where routers say that only the rest is to be had there, told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dhcpv6Lease {
    /// The address; its prefix length is 128. None: asked for the rest only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Ipv6Addr>,
    /// The server's DUID, hexadecimal.
    pub server: String,
    /// Seconds that the address is valid; [`u32::MAX`]: for ever.
    pub valid_s: u32,
    /// DNS servers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resolvers: Vec<Ipv6Addr>,
    /// Domain search list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    /// Fully qualified domain name of the client, as far as the server gives one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// When it was granted (last), microseconds since 1970.
    pub granted_us: u64,
    /// How often it was granted again since.
    #[serde(default)]
    pub renewals: u32,
}

/// What a router advertised last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouterAdvertisement {
    /// Its link-local address.
    pub router: Ipv6Addr,
    /// Source link-layer address option; empty where there is none.
    pub mac: String,
    /// Seconds that it is a default router; 0: it is none (any more).
    pub lifetime_s: u16,
    /// Addresses are to be had by DHCPv6 (M).
    pub managed: bool,
    /// Other configuration is to be had by DHCPv6 (O).
    pub other: bool,
    /// MTU option, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Prefix information options.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prefixes: Vec<AdvertisedPrefix>,
    /// Recursive DNS servers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resolvers: Vec<Ipv6Addr>,
    /// When it came, microseconds since 1970.
    pub at_us: u64,
    /// Advertisements that this router has sent so far.
    pub count: u64,
}

/// A prefix information option.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdvertisedPrefix {
    /// The prefix.
    pub prefix: Ipv6Addr,
    /// Its length, bits.
    pub length: u8,
    /// Its addresses are on this link (L).
    pub on_link: bool,
    /// Addresses may be formed from it (A).
    pub autonomous: bool,
    /// Seconds that it is valid.
    pub valid_s: u32,
}
