//! Frames made and taken apart by hand: what a guest asks when it boots, and what it hears.

#![allow(unsafe_code)] // an address of AF_PACKET, which no crate of ours makes

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::libc::{AF_PACKET, ETH_P_ALL, sockaddr, sockaddr_ll};
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrLike, bind, recv, send, setsockopt,
    socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use udn_lab_sys::netns::Netns;

/// All frames of one interface.
pub(crate) struct Wire {
    socket: OwnedFd,
}

impl Wire {
    pub(crate) fn open(netns: &Netns, interface: &str) -> Result<Self> {
        let opened = netns.run(|| {
            let socket =
                socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, Some(SockProtocol::EthAll))?;
            let address = sockaddr_ll {
                sll_family: u16::try_from(AF_PACKET).unwrap_or_default(),
                sll_protocol: u16::try_from(ETH_P_ALL).unwrap_or_default().to_be(),
                sll_ifindex: i32::try_from(if_nametoindex(interface)?).unwrap_or_default(),
                sll_hatype: 0,
                sll_pkttype: 0,
                sll_halen: 6,
                sll_addr: [0; 8],
            };
            let length = u32::try_from(size_of::<sockaddr_ll>()).unwrap_or_default();
            // SAFETY: the pointer is to a whole sockaddr_ll of that length, which is copied before this returns.
            let address = unsafe { LinkAddr::from_raw((&raw const address).cast::<sockaddr>(), Some(length)) };
            bind(socket.as_raw_fd(), &address.ok_or(io::ErrorKind::InvalidInput)?)?;
            setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::milliseconds(50))?;
            io::Result::Ok(socket)
        })?;
        Ok(Self { socket: opened? })
    }

    pub(crate) fn send(&self, frame: &[u8]) -> Result<()> {
        send(self.socket.as_raw_fd(), frame, MsgFlags::empty())?;
        Ok(())
    }

    /// The first frame of which `read` makes something, in time.
    pub(crate) fn find<T>(&self, within: Duration, read: impl Fn(&[u8]) -> Option<T>) -> Option<T> {
        let end = Instant::now() + within;
        let mut buffer = [0; 2048];
        while Instant::now() < end {
            if let Ok(length) = recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty())
                && let Some(found) = read(&buffer[..length])
            {
                return Some(found);
            }
        }
        None
    }

    /// Asks, three times at most.
    pub(crate) fn ask<T>(&self, frame: &[u8], what: &str, read: impl Fn(&[u8]) -> Option<T>) -> Result<T> {
        for _ in 0..3 {
            self.send(frame)?;
            if let Some(found) = self.find(Duration::from_secs(2), &read) {
                return Ok(found);
            }
        }
        anyhow::bail!("nobody answered the {what}")
    }
}

fn sum(bytes: impl IntoIterator<Item = u8>) -> u16 {
    let bytes: Vec<u8> = bytes.into_iter().collect();
    let pairs = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = pairs.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or_default()
}

fn link_local(mac: [u8; 6]) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac;
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

fn ipv6(mac: [u8; 6], group: Ipv6Addr, next: u8, hops: u8, mut payload: Vec<u8>, checksum_at: usize) -> Vec<u8> {
    let (source, length) = (link_local(mac), u32::try_from(payload.len()).unwrap_or_default());
    let pseudo = source.octets().into_iter().chain(group.octets()).chain(length.to_be_bytes()).chain([0, 0, 0, next]);
    let checksum = sum(pseudo.chain(payload.iter().copied()));
    payload[checksum_at..checksum_at + 2].copy_from_slice(&checksum.to_be_bytes());
    let mut frame = vec![0x33, 0x33];
    frame.extend(&group.octets()[12..]);
    frame.extend(mac);
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
    frame.extend(u16::try_from(payload.len()).unwrap_or_default().to_be_bytes());
    frame.extend([next, hops]);
    frame.extend(source.octets());
    frame.extend(group.octets());
    frame.extend(payload);
    frame
}

/// RFC 2131: a DISCOVER.
pub(crate) fn discover(mac: [u8; 6]) -> Vec<u8> {
    let mut dhcp = vec![1, 1, 6, 0, 0xca, 0xfe, 0, 1, 0, 0, 0, 0];
    dhcp.resize(28, 0);
    dhcp.extend(mac);
    dhcp.resize(236, 0);
    dhcp.extend([99, 130, 83, 99, 53, 1, 1, 55, 6, 1, 3, 6, 12, 26, 51, 255]);
    let udp_length = u16::try_from(dhcp.len() + 8).unwrap_or_default();
    let mut ip = vec![0x45, 0];
    ip.extend((udp_length + 20).to_be_bytes());
    ip.extend([0, 0, 0, 0, 64, 17, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255]);
    let checksum = sum(ip.iter().copied());
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    let mut frame = vec![0xff; 6];
    frame.extend(mac);
    frame.extend([8, 0]);
    frame.extend(ip);
    frame.extend([0, 68, 0, 67]);
    frame.extend(udp_length.to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(dhcp);
    frame
}

/// What a DHCPv4 server offers.
#[derive(Debug)]
pub(crate) struct Offer {
    pub(crate) server_mac: [u8; 6],
    pub(crate) address: Ipv4Addr,
    options: Vec<(u8, Vec<u8>)>,
}

impl Offer {
    pub(crate) fn read(frame: &[u8]) -> Option<Self> {
        (frame.get(12..14)? == [8, 0] && frame.get(34..36)? == [0, 67]).then_some(())?;
        let dhcp = frame.get(42..)?;
        let address = Ipv4Addr::from(<[u8; 4]>::try_from(dhcp.get(16..20)?).ok()?);
        let (mut rest, mut options) = (dhcp.get(240..)?, Vec::new());
        while let [code, length, after @ ..] = rest {
            if *code == 255 {
                break;
            }
            let (value, next) = after.split_at_checked(usize::from(*length))?;
            options.push((*code, value.to_vec()));
            rest = next;
        }
        Some(Self { server_mac: frame.get(6..12)?.try_into().ok()?, address, options })
    }

    pub(crate) fn option(&self, code: u8) -> Result<&[u8]> {
        let found = self.options.iter().find(|(other, _)| *other == code);
        found.map(|(_, value)| value.as_slice()).with_context(|| format!("no option {code} in {self:?}"))
    }
}

/// RFC 8415: a SOLICIT for an address.
pub(crate) fn solicit(mac: [u8; 6]) -> Vec<u8> {
    let mut dhcp = vec![1, 0, 0, 7, 0, 1, 0, 10, 0, 3, 0, 1];
    dhcp.extend(mac);
    dhcp.extend([0, 3, 0, 12, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    dhcp.extend([0, 6, 0, 4, 0, 23, 0, 39]);
    // Who does not send a name (RFC 4704) is not told one.
    dhcp.extend([0, 39, 0, 1, 0]);
    let mut udp = vec![2, 34, 2, 35];
    udp.extend(u16::try_from(dhcp.len() + 8).unwrap_or_default().to_be_bytes());
    udp.extend([0, 0]);
    udp.extend(dhcp);
    ipv6(mac, Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2), 17, 64, udp, 6)
}

/// Options of a DHCPv6 ADVERTISE, by number.
pub(crate) fn advertised(frame: &[u8]) -> Option<Vec<(u16, Vec<u8>)>> {
    (frame.get(12..14)? == [0x86, 0xdd] && frame.get(54..56)? == [2, 35] && *frame.get(62)? == 2).then_some(())?;
    options(frame.get(66..)?)
}

/// DHCPv6 options, one after the other.
pub(crate) fn options(mut rest: &[u8]) -> Option<Vec<(u16, Vec<u8>)>> {
    let mut options = Vec::new();
    while let [a, b, c, d, after @ ..] = rest {
        let (value, next) = after.split_at_checked(usize::from(u16::from_be_bytes([*c, *d])))?;
        options.push((u16::from_be_bytes([*a, *b]), value.to_vec()));
        rest = next;
    }
    Some(options)
}

/// RFC 4861: a router solicitation.
pub(crate) fn router_solicitation(mac: [u8; 6]) -> Vec<u8> {
    let mut message = vec![133, 0, 0, 0, 0, 0, 0, 0, 1, 1];
    message.extend(mac);
    ipv6(mac, Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2), 58, 255, message, 2)
}

/// A router advertisement.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Advertisement {
    pub(crate) router: Ipv6Addr,
    pub(crate) flags: u8,
    pub(crate) lifetime: u16,
    pub(crate) mtu: Option<u32>,
}

impl Advertisement {
    pub(crate) fn read(frame: &[u8]) -> Option<Self> {
        (frame.get(12..14)? == [0x86, 0xdd] && *frame.get(20)? == 58 && *frame.get(54)? == 134).then_some(())?;
        let router = Ipv6Addr::from(<[u8; 16]>::try_from(frame.get(22..38)?).ok()?);
        let lifetime = u16::from_be_bytes(frame.get(60..62)?.try_into().ok()?);
        let (mut rest, mut mtu) = (frame.get(70..)?, None);
        while let [kind, length, ..] = rest {
            let (option, next) = rest.split_at_checked(usize::from(*length) * 8)?;
            if *kind == 5 {
                mtu = option.get(4..8).and_then(|bytes| Some(u32::from_be_bytes(bytes.try_into().ok()?)));
            }
            if option.is_empty() {
                break;
            }
            rest = next;
        }
        Some(Self { router, flags: *frame.get(59)?, lifetime, mtu })
    }
}

/// Of a gratuitous ARP: operation, MAC and address.
pub(crate) fn gratuitous(frame: &[u8]) -> Option<(u8, [u8; 6], Ipv4Addr)> {
    (frame.get(12..14)? == [8, 6] && frame.get(28..32)? == frame.get(38..42)?).then_some(())?;
    let address = Ipv4Addr::from(<[u8; 4]>::try_from(frame.get(28..32)?).ok()?);
    Some((*frame.get(21)?, frame.get(22..28)?.try_into().ok()?, address))
}
