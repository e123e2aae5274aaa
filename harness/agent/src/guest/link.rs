//! Interfaces, addresses and routes as the kernel is told of them.

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr};

use rustix::io::Errno;

use crate::facts::links;
use crate::netlink::Change;

// `linux/rtnetlink.h`, `linux/if_link.h`, `linux/if_addr.h`.
const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
const CREATE_OR_REPLACE: u16 = 0x400 | 0x100;
const IFF_UP: u32 = 1;
const IFLA_ADDRESS: u16 = 1;
const IFLA_MTU: u16 = 4;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_F_NODAD: u8 = 2;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const TABLE_MAIN: u8 = 254;
const PROTOCOL_DHCP: u8 = 16;
const UNICAST: u8 = 1;
const ONLINK: u32 = 4;

/// Index of the loopback interface in every network namespace.
pub(super) const LOOPBACK: u32 = 1;

/// An Ethernet interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) mac: [u8; 6],
}

/// The first Ethernet interface, if there is one.
pub(super) fn find() -> Option<Link> {
    let links = links::collect().ok()?;
    let mut named = links.iter().filter(|link| link.index != LOOPBACK && link.name.starts_with("eth"));
    named.find_map(|link| Some(Link { index: link.index, mac: mac(&link.mac)? }))
}

/// A MAC as it is written.
pub(super) fn mac(text: &str) -> Option<[u8; 6]> {
    let bytes: Vec<u8> = text.split(':').filter_map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    bytes.try_into().ok()
}

/// Makes an interface carry packets.
pub(super) fn set_up(index: u32) -> Result<(), Errno> {
    Change::new(RTM_NEWLINK, 0, &interface(index, IFF_UP)).make()
}

/// Sets an interface's MTU, bytes.
pub(super) fn set_mtu(index: u32, mtu: u32) -> Result<(), Errno> {
    Change::new(RTM_NEWLINK, 0, &interface(index, 0)).with(IFLA_MTU, &mtu.to_ne_bytes()).make()
}

/// Gives an interface another MAC; its device hears of it.
pub(super) fn set_mac(index: u32, mac: [u8; 6]) -> Result<(), Errno> {
    Change::new(RTM_NEWLINK, 0, &interface(index, 0)).with(IFLA_ADDRESS, &mac).make()
}

/// struct ifinfomsg: family, pad, type, index, flags, which of these change.
fn interface(index: u32, flags: u32) -> Vec<u8> {
    [0, index, flags, flags].iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// Gives an interface an address.
pub(super) fn add_address(index: u32, address: IpAddr, prefix: u8) -> Result<(), Errno> {
    let change = Change::new(RTM_NEWADDR, CREATE_OR_REPLACE, &address_structure(index, address, prefix));
    match address {
        IpAddr::V4(v4) => {
            let host_bits = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
            let broadcast = Ipv4Addr::from_bits(v4.to_bits() | host_bits);
            let octets = v4.octets();
            change.with(IFA_LOCAL, &octets).with(IFA_ADDRESS, &octets).with(IFA_BROADCAST, &broadcast.octets()).make()
        }
        IpAddr::V6(v6) => change.with(IFA_ADDRESS, &v6.octets()).make(),
    }
}

/// Takes an address from an interface, and the routes through it.
pub(super) fn remove_address(index: u32, address: IpAddr, prefix: u8) -> Result<(), Errno> {
    let change = Change::new(RTM_DELADDR, 0, &address_structure(index, address, prefix));
    match address {
        IpAddr::V4(v4) => change.with(IFA_LOCAL, &v4.octets()).make(),
        IpAddr::V6(v6) => change.with(IFA_ADDRESS, &v6.octets()).make(),
    }
}

/// struct ifaddrmsg: family, prefix length, flags, scope, index.
fn address_structure(index: u32, address: IpAddr, prefix: u8) -> Vec<u8> {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 } as u8;
    let flags = if address.is_ipv4() { 0 } else { IFA_F_NODAD };
    let mut structure = alloc::vec![family, prefix, flags, 0];
    structure.extend(index.to_ne_bytes());
    structure
}

/// Makes a router on this link the way to everywhere else, whether or not its address is in the own prefix.
pub(super) fn set_default_route(index: u32, gateway: Ipv4Addr) -> Result<(), Errno> {
    // struct rtmsg: family, destination length, source length, tos, table, protocol, scope, type, flags.
    let mut structure = alloc::vec![libc::AF_INET as u8, 0, 0, 0, TABLE_MAIN, PROTOCOL_DHCP, 0, UNICAST];
    structure.extend(ONLINK.to_ne_bytes());
    Change::new(RTM_NEWROUTE, CREATE_OR_REPLACE, &structure)
        .with(RTA_GATEWAY, &gateway.octets())
        .with(RTA_OIF, &index.to_ne_bytes())
        .make()
}
