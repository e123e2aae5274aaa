//! Routes of the main table, and neighbours.

use alloc::string::ToString;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rustix::io::Errno;

use crate::netlink::{Attributes, address, dump, mac, u16_at, u32_at};
use crate::protocol::{Neighbour, NextHop, Route};

// `linux/rtnetlink.h`, `linux/neighbour.h`.
const RTM_GETROUTE: u16 = 26;
const RTM_GETNEIGH: u16 = 30;
const RTMSG: usize = 12;
const NDMSG: usize = 12;
const RTNEXTHOP: usize = 8;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_METRICS: u16 = 8;
const RTA_MULTIPATH: u16 = 9;
const RTA_TABLE: u16 = 15;
const RTA_VIA: u16 = 18;
const RTAX_MTU: u16 = 2;
const TABLE_MAIN: u32 = 254;
const CLONED: u32 = 0x200;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;

pub(super) fn routes() -> Result<Vec<Route>, Errno> {
    let mut routes = Vec::new();
    for family in [libc::AF_INET as u8, libc::AF_INET6 as u8] {
        dump(RTM_GETROUTE, family, RTMSG, |header, attributes| {
            routes.extend(read_route(family, header, attributes));
        })?;
    }
    Ok(routes)
}

/// struct rtmsg: family, destination length, source length, tos, table, protocol, scope, type, flags.
fn read_route(family: u8, header: &[u8], attributes: Attributes<'_>) -> Option<Route> {
    let &[_, prefix, _, _, table, _, _, kind, ..] = header else { return None };
    let unspecified = if family == libc::AF_INET as u8 {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED)
    } else {
        IpAddr::V6(Ipv6Addr::UNSPECIFIED)
    };
    let mut table = u32::from(table);
    let mut route = Route {
        destination: unspecified,
        prefix,
        kind: kind_name(kind).to_string(),
        next_hops: Vec::new(),
        metric: 0,
        source: None,
        mtu: None,
    };
    let (mut gateway, mut interface) = (None, None);
    for (attribute, value) in attributes {
        match attribute {
            RTA_TABLE => table = u32_at(value, 0)?,
            RTA_DST => route.destination = address(value)?,
            RTA_GATEWAY => gateway = address(value),
            RTA_VIA => gateway = value.get(2..).and_then(address),
            RTA_OIF => interface = u32_at(value, 0),
            RTA_PRIORITY => route.metric = u32_at(value, 0)?,
            RTA_PREFSRC => route.source = address(value),
            RTA_METRICS => {
                route.mtu = Attributes(value).find(|(kind, _)| *kind == RTAX_MTU).and_then(|(_, mtu)| u32_at(mtu, 0));
            }
            RTA_MULTIPATH => route.next_hops = read_next_hops(value),
            _ => {}
        }
    }
    if let Some(interface) = interface {
        route.next_hops.push(NextHop { gateway, interface });
    }
    let is_cache = u32_at(header, 8)? & CLONED != 0;
    (table == TABLE_MAIN && !is_cache).then_some(route)
}

/// struct rtnexthop: length, flags, hops, interface; then attributes.
fn read_next_hops(mut bytes: &[u8]) -> Vec<NextHop> {
    let mut hops = Vec::new();
    while let Some(length) = u16_at(bytes, 0).map(usize::from).filter(|length| *length >= RTNEXTHOP) {
        let (Some(interface), Some(attributes)) = (u32_at(bytes, 4), bytes.get(RTNEXTHOP..length)) else { break };
        let gateway = Attributes(attributes).find_map(|(kind, value)| match kind {
            RTA_GATEWAY => address(value),
            RTA_VIA => value.get(2..).and_then(address),
            _ => None,
        });
        hops.push(NextHop { gateway, interface });
        bytes = bytes.get((length + 3) & !3..).unwrap_or_default();
    }
    hops
}

fn kind_name(kind: u8) -> &'static str {
    match kind {
        1 => "unicast",
        2 => "local",
        3 => "broadcast",
        4 => "anycast",
        5 => "multicast",
        6 => "blackhole",
        7 => "unreachable",
        8 => "prohibit",
        _ => "other",
    }
}

pub(super) fn neighbours() -> Result<Vec<Neighbour>, Errno> {
    let mut neighbours = Vec::new();
    dump(RTM_GETNEIGH, 0, NDMSG, |header, attributes| {
        // struct ndmsg: family, pad, interface, state, flags, type.
        let (Some(interface), Some(state)) = (u32_at(header, 4), u16_at(header, 8)) else { return };
        let (mut found, mut link) = (None, None);
        for (kind, value) in attributes {
            match kind {
                NDA_DST => found = address(value),
                NDA_LLADDR => link = Some(mac(value)),
                _ => {}
            }
        }
        if let Some(address) = found.filter(is_unicast) {
            let (mac, state) = (link.unwrap_or_default(), state_name(state).to_string());
            neighbours.push(Neighbour { address, interface, mac, state });
        }
    })?;
    Ok(neighbours)
}

/// The kernel also keeps entries for groups and for itself.
fn is_unicast(address: &IpAddr) -> bool {
    !(address.is_multicast() || address.is_loopback() || address.is_unspecified())
}

fn state_name(state: u16) -> &'static str {
    match state {
        0x01 => "incomplete",
        0x02 => "reachable",
        0x04 => "stale",
        0x08 => "delay",
        0x10 => "probe",
        0x20 => "failed",
        0x40 => "noarp",
        0x80 => "permanent",
        _ => "none",
    }
}
