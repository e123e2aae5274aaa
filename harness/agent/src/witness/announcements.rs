//! Who says where an address is: ARP, RARP, neighbour and router advertisements. Nothing is captured before somebody asks.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, Protocol, SocketFlags, SocketType};

use crate::clock::{monotonic_us, wall_us};
use crate::netlink::mac;
use crate::protocol::{
    ANNOUNCEMENTS_KEPT, ANNOUNCEMENTS_PER_ANSWER, Announcement, AnnouncementKind, Announcements, Failure,
};
use crate::reactor::{Kind, Reactor, Ready, Token};
use crate::slab::Key;
use crate::sys::messages::receive_captured;
use crate::sys::options::{self, Instruction};

/// Bytes of a frame that are looked at: an advertisement with its options.
const SNAP: usize = 512;

/// Frames read before others get their turn.
const TURN: usize = 256;

/// What the kernel may queue meanwhile, bytes.
const QUEUE: usize = 1 << 20;

const ETHERNET: usize = 14;
const ARP: u16 = 0x0806;
const RARP: u16 = 0x8035;
const IPV6: u16 = 0x86dd;
const IPV6_HEADER: usize = 40;
const ICMPV6: u8 = 58;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;

/// What was announced since somebody asked.
pub(crate) struct AnnouncementLog {
    /// None: nobody asked.
    sockets: Vec<OwnedFd>,
    interfaces: Vec<u32>,
    recent: VecDeque<Announcement>,
    /// Announcements ever kept: the cursor behind the newest.
    total: u64,
    drops: u64,
}

impl AnnouncementLog {
    pub(crate) const fn new() -> Self {
        Self { sockets: Vec::new(), interfaces: Vec::new(), recent: VecDeque::new(), total: 0, drops: 0 }
    }

    /// Keeps what comes in by these interfaces from now on.
    pub(crate) fn watch(&mut self, reactor: &Reactor, interfaces: Vec<u32>) -> Result<(), Failure> {
        if interfaces.is_empty() {
            self.sockets.clear();
        } else if self.sockets.is_empty() {
            self.sockets = open(reactor)
                .map_err(|errno| Failure { attempted: "capture announcements".into(), errno: errno.raw_os_error() })?;
        }
        self.interfaces = interfaces;
        Ok(())
    }

    /// A capture socket became ready.
    pub(crate) fn ready(&mut self, socket: Key) {
        self.read(socket as usize, TURN);
    }

    fn read(&mut self, socket: usize, limit: usize) {
        let mut buffer = [0; SNAP];
        for _ in 0..limit {
            let Some(file) = self.sockets.get(socket) else { return };
            match receive_captured(file, &mut buffer) {
                Ok(captured) if self.interfaces.contains(&captured.interface) => {
                    if let Some(mut seen) = parse(buffer.get(..captured.length).unwrap_or_default()) {
                        seen.interface = captured.interface;
                        seen.at_us = wall_us();
                        seen.monotonic_us = monotonic_us();
                        self.keep(seen);
                    }
                }
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }

    fn keep(&mut self, seen: Announcement) {
        if self.recent.len() == ANNOUNCEMENTS_KEPT {
            self.recent.pop_front();
        }
        self.recent.push_back(seen);
        self.total += 1;
    }

    /// Everything after a cursor, as much as an answer holds; reads first what the kernel has queued.
    pub(crate) fn tell(&mut self, after: u64) -> Announcements {
        for socket in 0..self.sockets.len() {
            self.read(socket, QUEUE / SNAP);
        }
        self.drops +=
            self.sockets.iter().map(|socket| u64::from(options::capture_drops(socket).unwrap_or(0))).sum::<u64>();
        let oldest = self.total - self.recent.len() as u64;
        let after = after.min(self.total);
        let start = after.max(oldest);
        let list: Vec<_> =
            self.recent.iter().skip((start - oldest) as usize).take(ANNOUNCEMENTS_PER_ANSWER).cloned().collect();
        let cursor = start + list.len() as u64;
        let (more, overwritten) = (cursor < self.total, start - after);
        Announcements { cursor, more, overwritten, capture_drops: self.drops, list }
    }
}

/// A socket per protocol: they see what comes in, and not what goes out.
fn open(reactor: &Reactor) -> Result<Vec<OwnedFd>, Errno> {
    let mut sockets = Vec::new();
    for (key, ethertype) in (0..).zip([ARP, RARP, IPV6]) {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let protocol = core::num::NonZeroU32::new(u32::from(ethertype.to_be())).map(Protocol::from_raw);
        let socket = net::socket_with(AddressFamily::PACKET, SocketType::RAW, flags, protocol)?;
        if ethertype == IPV6 {
            options::attach_filter(&socket, ADVERTISEMENTS)?;
        }
        options::enlarge_queue(&socket, QUEUE);
        reactor.watch(&socket, Token::new(Kind::Herald, key), Ready::IN)?;
        sockets.push(socket);
    }
    Ok(sockets)
}

/// Classic packet filter: router and neighbour advertisements, from offset 0 of the Ethernet header.
const ADVERTISEMENTS: &[Instruction] = &[
    (0x30, 0, 0, 14 + 6),
    (0x15, 0, 4, ICMPV6 as u32),
    (0x30, 0, 0, 14 + 40),
    (0x15, 1, 0, ROUTER_ADVERTISEMENT as u32),
    (0x15, 0, 1, NEIGHBOUR_ADVERTISEMENT as u32),
    (0x06, 0, 0, SNAP as u32),
    (0x06, 0, 0, 0),
];

/// Reads a frame; none if it announces nothing. The time and the interface are to be filled in.
fn parse(frame: &[u8]) -> Option<Announcement> {
    let (header, content) = frame.split_at_checked(ETHERNET)?;
    let ethertype = u16::from_be_bytes(header.get(12..)?.try_into().ok()?);
    let mut announcement = match ethertype {
        ARP => arp(content)?,
        RARP => rarp(content)?,
        IPV6 => advertisement(content)?,
        _ => return None,
    };
    announcement.destination = mac(header.get(..6)?);
    announcement.source = mac(header.get(6..12)?);
    Some(announcement)
}

fn blank(kind: AnnouncementKind) -> Announcement {
    Announcement {
        at_us: 0,
        monotonic_us: 0,
        interface: 0,
        kind,
        unsolicited: false,
        source: String::new(),
        destination: String::new(),
        mac: String::new(),
        sender: None,
        target: None,
        lifetime_s: None,
    }
}

/// Hardware and protocol type and lengths of Ethernet and IPv4, then the operation.
fn operation(message: &[u8]) -> Option<u16> {
    let operation = message.strip_prefix(&[0, 1, 8, 0, 6, 4])?;
    operation.get(..2)?.try_into().ok().map(u16::from_be_bytes)
}

fn arp(message: &[u8]) -> Option<Announcement> {
    let kind = match operation(message)? {
        1 => AnnouncementKind::ArpRequest,
        2 => AnnouncementKind::ArpReply,
        _ => return None,
    };
    let (sender, target) = (ipv4(message.get(14..18)?), ipv4(message.get(24..28)?));
    let unsolicited = sender == target && sender.is_some();
    Some(Announcement { unsolicited, mac: mac(message.get(8..14)?), sender, target, ..blank(kind) })
}

fn rarp(message: &[u8]) -> Option<Announcement> {
    let kind = match operation(message)? {
        3 => AnnouncementKind::RarpRequest,
        4 => AnnouncementKind::RarpReply,
        _ => return None,
    };
    let (sender, target) = (ipv4(message.get(14..18)?), ipv4(message.get(24..28)?));
    Some(Announcement { unsolicited: true, mac: mac(message.get(18..24)?), sender, target, ..blank(kind) })
}

/// An IPv6 packet with a neighbour or router advertisement that was sent on this link.
fn advertisement(packet: &[u8]) -> Option<Announcement> {
    let (header, message) = packet.split_at_checked(IPV6_HEADER)?;
    if header.get(6) != Some(&ICMPV6) || header.get(7) != Some(&255) {
        return None;
    }
    // What pads the frame does not belong to it.
    let length = usize::from(u16::from_be_bytes(header.get(4..6)?.try_into().ok()?));
    let message = message.get(..length.min(message.len()))?;
    let sender = Some(ipv6(header.get(8..24)?)?);
    match *message.first()? {
        NEIGHBOUR_ADVERTISEMENT => {
            let unsolicited = message.get(4)? & 0x40 == 0;
            let target = Some(ipv6(message.get(8..24)?)?);
            let mac = link_layer(message.get(24..)?, 2);
            let kind = AnnouncementKind::NeighbourAdvertisement;
            Some(Announcement { unsolicited, mac, sender, target, ..blank(kind) })
        }
        ROUTER_ADVERTISEMENT => {
            let lifetime_s = Some(u16::from_be_bytes(message.get(6..8)?.try_into().ok()?));
            let mac = link_layer(message.get(16..)?, 1);
            let kind = AnnouncementKind::RouterAdvertisement;
            Some(Announcement { unsolicited: true, mac, sender, lifetime_s, ..blank(kind) })
        }
        _ => None,
    }
}

/// The link-layer address option of this kind; empty where there is none.
fn link_layer(mut options: &[u8], wanted: u8) -> String {
    while let [kind, length, ..] = *options
        && length > 0
    {
        if kind == wanted {
            return options.get(2..8).map(mac).unwrap_or_default();
        }
        options = options.get(usize::from(length) * 8..).unwrap_or_default();
    }
    String::new()
}

/// None: unspecified.
fn ipv4(bytes: &[u8]) -> Option<IpAddr> {
    let address = Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?);
    (!address.is_unspecified()).then_some(IpAddr::V4(address))
}

fn ipv6(bytes: &[u8]) -> Option<IpAddr> {
    Some(IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GATEWAY: [u8; 6] = [0x0a, 0x58, 10, 0, 0, 1];

    fn frame(ethertype: u16, content: &[u8]) -> Vec<u8> {
        let mut frame = vec![0xff; 6];
        frame.extend(GATEWAY);
        frame.extend(ethertype.to_be_bytes());
        frame.extend(content);
        // Short frames are padded.
        frame.resize(frame.len().max(60), 0);
        frame
    }

    fn arp(operation: u8, sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
        let mut message = vec![0, 1, 8, 0, 6, 4, 0, operation];
        message.extend(GATEWAY);
        message.extend(sender);
        message.extend(GATEWAY);
        message.extend(target);
        message
    }

    fn advertisement(message: &[u8], hops: u8) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, message.len() as u8, 58, hops, 0xfe, 0x80];
        packet.resize(23, 0);
        packet.extend([1, 0xff, 2]);
        packet.resize(40, 0);
        packet.extend(message);
        frame(IPV6, &packet)
    }

    fn neighbour(flags: u8) -> Vec<u8> {
        let mut message = vec![136, 0, 0, 0, flags, 0, 0, 0, 0xfd, 0];
        message.resize(23, 0);
        message.extend([5, 2, 1, 0x0a, 0x58, 10, 0, 0, 5]);
        message
    }

    fn router(lifetime: u8) -> Vec<u8> {
        let mut message = vec![134, 0, 0, 0, 64, 0, 0, lifetime];
        message.resize(16, 0);
        message.extend([5, 1, 0, 0, 0, 0, 5, 120, 1, 1]);
        message.extend(GATEWAY);
        message
    }

    #[test]
    fn announcements_are_told_from_questions_and_answers() {
        let seen = |frame: &[u8]| parse(frame).expect("an announcement");
        let gratuitous = seen(&frame(ARP, &arp(1, [10, 0, 0, 1], [10, 0, 0, 1])));
        assert_eq!((gratuitous.kind, gratuitous.unsolicited), (AnnouncementKind::ArpRequest, true));
        assert_eq!(
            (gratuitous.mac.as_str(), gratuitous.destination.as_str()),
            ("0a:58:0a:00:00:01", "ff:ff:ff:ff:ff:ff")
        );
        let answer = seen(&frame(ARP, &arp(2, [10, 0, 0, 1], [10, 0, 0, 9])));
        assert_eq!((answer.kind, answer.unsolicited), (AnnouncementKind::ArpReply, false));
        let moved = seen(&frame(RARP, &arp(3, [0; 4], [0; 4])));
        assert_eq!((moved.kind, moved.unsolicited, moved.sender), (AnnouncementKind::RarpRequest, true, None));

        let unsolicited = seen(&advertisement(&neighbour(0x20), 255));
        assert_eq!((unsolicited.unsolicited, unsolicited.mac.as_str()), (true, "0a:58:0a:00:00:05"));
        assert_eq!(unsolicited.target, "fd00::5".parse().ok());
        assert!(!seen(&advertisement(&neighbour(0x60), 255)).unsolicited);
        let withdrawn = seen(&advertisement(&router(0), 255));
        assert_eq!((withdrawn.lifetime_s, withdrawn.mac.as_str()), (Some(0), "0a:58:0a:00:00:01"));
        assert_eq!(withdrawn.sender, "fe80::1".parse().ok());
        assert_eq!(parse(&advertisement(&router(9), 64)), None, "it came from elsewhere");
    }

    #[test]
    fn hostile_frames_are_read_without_harm() {
        let frames = [
            frame(ARP, &arp(1, [10, 0, 0, 1], [10, 0, 0, 1])),
            advertisement(&neighbour(0x20), 255),
            advertisement(&router(9), 255),
        ];
        for whole in frames {
            for length in 0..whole.len() {
                let _ = parse(&whole[..length]);
            }
            for at in 0..whole.len() {
                for value in 0..=255 {
                    let mut changed = whole.clone();
                    changed[at] = value;
                    let _ = parse(&changed);
                }
            }
        }
    }

    #[test]
    fn only_the_newest_are_kept_and_what_is_lost_is_told() {
        let mut log = AnnouncementLog::new();
        for _ in 0..ANNOUNCEMENTS_KEPT + 5 {
            log.keep(blank(AnnouncementKind::ArpReply));
        }
        let first = log.tell(0);
        assert_eq!((first.overwritten, first.list.len(), first.more), (5, ANNOUNCEMENTS_PER_ANSWER, true));
        assert_eq!(log.tell(u64::MAX).cursor, (ANNOUNCEMENTS_KEPT + 5) as u64);
    }
}
