//! Router advertisements (RFC 4861, 8106). The kernel acts on them by itself; here they are read for the rest.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::{Ipv6Addr, SocketAddr};

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType, ipproto};

use crate::netlink::mac;
use crate::protocol::{AdvertisedPrefix, ROUTERS_KEPT, RouterAdvertisement};
use crate::sys::messages::receive_with_hops;
use crate::sys::options;

/// ICMPv6 type of a router advertisement.
pub(crate) const ADVERTISEMENT: u8 = 134;

const HEADER: usize = 16;
const MANAGED: u8 = 0x80;
const OTHER: u8 = 0x40;
const SOURCE_LINK_LAYER: u8 = 1;
const PREFIX: u8 = 3;
const MTU: u8 = 5;
const RESOLVERS: u8 = 25;

/// A socket that reads the router advertisements of every interface.
pub(super) fn open() -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = net::socket_with(AddressFamily::INET6, SocketType::RAW, flags, Some(ipproto::ICMPV6))?;
    // A bit per type, set to keep it out (`linux/icmpv6.h`: option 1).
    let mut filter = [u32::MAX; 8];
    filter[usize::from(ADVERTISEMENT >> 5)] &= !(1 << (ADVERTISEMENT & 31));
    let mut bytes = [0; 32];
    for (slot, word) in bytes.chunks_exact_mut(4).zip(filter) {
        slot.copy_from_slice(&word.to_ne_bytes());
    }
    options::set_bytes(&socket, libc::IPPROTO_ICMPV6, 1, bytes)?;
    options::set_int(&socket, libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT, 1)?;
    Ok(socket)
}

/// The next advertisement; none when all are read. Those that a router on this link cannot have sent are skipped.
pub(super) fn receive(socket: &OwnedFd, wall: u64) -> Option<RouterAdvertisement> {
    let mut buffer = [0; 2048];
    loop {
        match receive_with_hops(socket, &mut buffer) {
            Ok((length, Some(SocketAddr::V6(source)), Some(255))) if source.ip().is_unicast_link_local() => {
                let message = buffer.get(..length).unwrap_or_default();
                if let Some(advertisement) = read(message, *source.ip(), wall) {
                    return Some(advertisement);
                }
            }
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return None,
        }
    }
}

/// Reads an advertisement.
pub(crate) fn read(message: &[u8], router: Ipv6Addr, wall: u64) -> Option<RouterAdvertisement> {
    let (header, mut options) = message.split_at_checked(HEADER)?;
    if header.first() != Some(&ADVERTISEMENT) {
        return None;
    }
    let flags = *header.get(5)?;
    let mut advertisement = RouterAdvertisement {
        router,
        mac: String::new(),
        lifetime_s: u16::from_be_bytes(header.get(6..8)?.try_into().ok()?),
        managed: flags & MANAGED != 0,
        other: flags & OTHER != 0,
        mtu: None,
        prefixes: Vec::new(),
        resolvers: Vec::new(),
        at_us: wall,
        count: 1,
    };
    // Length in units of eight bytes.
    while let [kind, length, ..] = *options
        && length > 0
    {
        let Some((option, rest)) = options.split_at_checked(usize::from(length) * 8) else { break };
        take(&mut advertisement, kind, option);
        options = rest;
    }
    Some(advertisement)
}

fn take(advertisement: &mut RouterAdvertisement, kind: u8, option: &[u8]) {
    match kind {
        SOURCE_LINK_LAYER => advertisement.mac = option.get(2..8).map(mac).unwrap_or_default(),
        MTU => advertisement.mtu = word(option, 4),
        PREFIX => advertisement.prefixes.extend(prefix(option)),
        // Lifetime 0: not any more.
        RESOLVERS if word(option, 4).is_some_and(|lifetime| lifetime > 0) => {
            let addresses = option.get(8..).unwrap_or_default().chunks_exact(16);
            advertisement.resolvers.extend(addresses.filter_map(address));
        }
        _ => {}
    }
}

fn prefix(option: &[u8]) -> Option<AdvertisedPrefix> {
    let (length, flags) = (*option.get(2)?, *option.get(3)?);
    let (prefix, valid_s) = (address(option.get(16..32)?)?, word(option, 4)?);
    Some(AdvertisedPrefix { prefix, length, on_link: flags & 0x80 != 0, autonomous: flags & 0x40 != 0, valid_s })
}

fn word(option: &[u8], at: usize) -> Option<u32> {
    option.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes)
}

fn address(bytes: &[u8]) -> Option<Ipv6Addr> {
    <[u8; 16]>::try_from(bytes).ok().map(Ipv6Addr::from)
}

/// The last advertisement of each router.
#[derive(Debug, Default)]
pub(super) struct Routers {
    list: Vec<RouterAdvertisement>,
}

impl Routers {
    pub(super) fn heard(&mut self, mut advertisement: RouterAdvertisement) {
        if let Some(known) = self.list.iter_mut().find(|known| known.router == advertisement.router) {
            advertisement.count = known.count + 1;
            *known = advertisement;
        } else if self.list.len() < ROUTERS_KEPT {
            self.list.push(advertisement);
        }
    }

    pub(super) fn list(&self) -> &[RouterAdvertisement] {
        &self.list
    }

    /// DNS servers that routers name; not link-local ones, which would need their interface.
    pub(super) fn resolvers(&self) -> impl Iterator<Item = String> {
        let resolvers = self.list.iter().flat_map(|router| &router.resolvers);
        resolvers.filter(|resolver| !resolver.is_unicast_link_local()).map(ToString::to_string)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// M flag, lifetime 1800 s, MTU 1400, fd00::/64 on the link, a resolver.
    fn whole() -> Vec<u8> {
        let mut message = vec![134, 0, 0, 0, 64, 0x80, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
        message.extend([1, 1, 0x0a, 0x58, 10, 0, 0, 1, 5, 1, 0, 0, 0, 0, 5, 120]);
        message.extend([3, 4, 64, 0x80, 0, 0, 14, 16, 0, 0, 14, 16, 0, 0, 0, 0, 0xfd, 0]);
        message.resize(message.len() + 14, 0);
        message.extend([25, 3, 0, 0, 0, 0, 0, 9, 0xfd, 0]);
        message.resize(message.len() + 13, 0);
        message.push(0xa);
        message
    }

    fn router() -> Ipv6Addr {
        "fe80::1".parse().expect("an address")
    }

    #[test]
    fn an_advertisement_is_read() {
        let read = read(&whole(), router(), 5).expect("an advertisement");
        assert_eq!((read.lifetime_s, read.managed, read.other, read.mtu), (1800, true, false, Some(1400)));
        assert_eq!(read.mac, "0a:58:0a:00:00:01");
        assert_eq!(read.resolvers, ["fd00::a".parse::<Ipv6Addr>().expect("an address")]);
        let [prefix] = &read.prefixes[..] else { panic!("{read:?}") };
        assert_eq!((prefix.length, prefix.on_link, prefix.autonomous, prefix.valid_s), (64, true, false, 3600));
    }

    #[test]
    fn hostile_advertisements_are_read_without_harm() {
        let whole = whole();
        for length in 0..whole.len() {
            let _ = read(&whole[..length], router(), 0);
        }
        for at in 0..whole.len() {
            for value in 0..=255 {
                let mut changed = whole.clone();
                changed[at] = value;
                let _ = read(&changed, router(), 0);
            }
        }
    }

    #[test]
    fn each_router_counts_its_advertisements() {
        let mut routers = Routers::default();
        for _ in 0..3 {
            routers.heard(read(&whole(), router(), 0).expect("an advertisement"));
        }
        for other in 0..20 {
            let other = Ipv6Addr::from(u128::from(router()) + 1 + other);
            routers.heard(read(&whole(), other, 0).expect("an advertisement"));
        }
        assert_eq!((routers.list().len(), routers.list()[0].count), (ROUTERS_KEPT, 3));
    }
}
