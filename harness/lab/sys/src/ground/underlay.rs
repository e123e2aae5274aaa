//! The wire between nodes: a bridge with the router's addresses, and the external host.
//!
//! The router forwards, but knows no other network, so that it answers "network unreachable" for everything beyond: what
//! a node sends outside by mistake is seen to fail at once.

use std::fs;
use std::io;

use super::links::Links;
use crate::error::Error;
use crate::netns::Netns;
use crate::offload::disable_tx_checksum;
use crate::site::{EXTERNAL_V4, EXTERNAL_V6, ROUTER_V4, ROUTER_V6, UNDERLAY_PREFIX_V4, UNDERLAY_PREFIX_V6};

const ROUTER_MAC: [u8; 6] = [0x02, 0x42, 0xac, 0x12, 0x00, 0x01];
const EXTERNAL_MAC: [u8; 6] = [0x02, 0x42, 0xac, 0x12, 0x00, 0x64];

/// Settings of every namespace of the ground: no address detection delay, no address from a router, no guess by
/// reverse path, whatever the host's own settings are (IPv4's are inherited).
const COMMON: [(&str, &str); 8] = [
    ("ipv6/conf/all/accept_dad", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv6/conf/all/accept_ra", "0"),
    ("ipv6/conf/default/accept_ra", "0"),
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv4/ip_forward", "0"),
    ("ipv4/ping_group_range", "0 2147483647"),
];
/// No rate limit of ICMP, on nodes and in pods: it would make the manner of a failure depend on how many probes went
/// before.
const ICMP: [(&str, &str); 4] = [
    ("ipv4/icmp_ratelimit", "0"),
    ("ipv6/icmp/ratelimit", "0"),
    ("ipv4/icmp_msgs_per_sec", "1000000"),
    ("ipv4/icmp_msgs_burst", "100000"),
];
/// Older kernels have one limit for all namespaces, which is the host's business.
const SINCE_LATER_KERNELS: [&str; 2] = ["ipv4/icmp_msgs_per_sec", "ipv4/icmp_msgs_burst"];
const ROUTER: [(&str, &str); 2] = [("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")];

/// Makes a namespace with the ground's settings and `lo` up.
///
/// # Errors
/// The kernel's.
pub async fn namespace(name: &str) -> Result<Netns, Error> {
    let netns = Netns::create(name).map_err(Error::sandbox(format!("make network namespace {name}")))?;
    set(&netns, &COMMON)?;
    lift_icmp_limits(&netns)?;
    let links = Links::open(&netns)?;
    links.set_up(1).await?;
    Ok(netns)
}

/// Lets a namespace send as many ICMP errors as there is cause for.
///
/// # Errors
/// The kernel's.
pub fn lift_icmp_limits(netns: &Netns) -> Result<(), Error> {
    set(netns, &ICMP)
}

/// Writes settings below `/proc/sys/net`. A user namespace may set only some of them, so a refused value that is
/// already there is no error.
pub(super) fn set(netns: &Netns, settings: &[(&str, &str)]) -> Result<(), Error> {
    let write = || {
        for (name, value) in settings {
            let path = format!("/proc/sys/net/{name}");
            let written = fs::write(&path, value);
            if written.is_err()
                && fs::read_to_string(&path).is_ok_and(|now| now.split_whitespace().eq(value.split_whitespace()))
            {
                continue;
            }
            match written {
                // ping's range of groups cannot name groups that a user namespace does not map.
                Err(_) if name.ends_with("ping_group_range") => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound && SINCE_LATER_KERNELS.contains(name) => {}
                Err(error) => return Err(Error::file("set", path)(error)),
                Ok(()) => {}
            }
        }
        Ok(())
    };
    netns
        .run(write)
        .map_err(|error: io::Error| Error::sandbox(format!("enter network namespace {}", netns.name()))(error))?
}

/// The underlay's and the external host's namespaces, wired up.
pub(super) async fn make() -> Result<(Netns, Netns, u32), Error> {
    let underlay = namespace("underlay").await?;
    let external = namespace("external").await?;
    set(&underlay, &ROUTER)?;
    let links = Links::open(&underlay)?;
    let bridge = links.add_bridge("br0", ROUTER_MAC).await?;
    links.add_address(bridge, ROUTER_V4, UNDERLAY_PREFIX_V4).await?;
    links.add_address(bridge, ROUTER_V6, UNDERLAY_PREFIX_V6).await?;
    links.add_pair("external", bridge, &external, "eth0", EXTERNAL_MAC).await?;
    disable_tx_checksum(&underlay, "br0").map_err(Error::sandbox("turn checksum offload of br0 off"))?;
    disable_tx_checksum(&external, "eth0").map_err(Error::sandbox("turn checksum offload of the external host off"))?;
    let outside = Links::open(&external)?;
    let eth0 = outside.index("eth0").await?;
    outside.set_up(eth0).await?;
    outside.add_address(eth0, EXTERNAL_V4, UNDERLAY_PREFIX_V4).await?;
    outside.add_address(eth0, EXTERNAL_V6, UNDERLAY_PREFIX_V6).await?;
    outside.add_default_routes(eth0, ROUTER_V4, ROUTER_V6).await?;
    Ok((underlay, external, bridge))
}
