//! ICMP echo by raw sockets: one per family and source address for all probes, because every raw socket is handed
//! every answer.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use pnet_packet::Packet;
use pnet_packet::ipv4::Ipv4Packet;
use pnet_packet::ipv6::Ipv6Packet;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto};

use super::{Stop, classify, payload};
use crate::protocol::{IcmpError, IcmpMeans, Outcome, Probe};
use crate::reactor::{Kind, Reactor, Ready, Token};
use crate::slab::Key;
use crate::sys::options;

/// Bytes before the payload of an echo request or reply: type, code, checksum, identifier, sequence number.
pub(crate) const ECHO_HEADER: usize = 8;

/// Answers that may wait for being read, bytes.
const QUEUE: usize = 1 << 20;

/// ICMP types let through: echo reply, destination unreachable, time exceeded, parameter problem.
const TYPES_V4: [u8; 4] = [0, 3, 11, 12];
/// ICMPv6 types let through: destination unreachable, time exceeded, parameter problem, echo reply.
const TYPES_V6: [u8; 4] = [1, 3, 4, 129];

/// How ICMP echo can be sent here.
pub(crate) fn means() -> IcmpMeans {
    let opens = |kind| net::socket_with(AddressFamily::INET, kind, SocketFlags::CLOEXEC, Some(ipproto::ICMP)).is_ok();
    if opens(SocketType::RAW) {
        IcmpMeans::Raw
    } else if opens(SocketType::DGRAM) {
        IcmpMeans::Ping
    } else {
        IcmpMeans::Missing
    }
}

/// What came in for a probe.
pub(super) enum Reply {
    /// An echo reply.
    Answer { from: IpAddr, nonce: Option<u64> },
    /// An ICMP error about the echo request that was sent to `about`.
    Error { error: IcmpError, about: IpAddr },
}

/// The shared sockets.
pub(super) struct Echo {
    sockets: Vec<Shared>,
}

struct Shared {
    socket: OwnedFd,
    v6: bool,
    from: Option<IpAddr>,
    watched: bool,
    next: u16,
    /// Who waits for which sequence number, and the identifier that goes with it.
    waiting: BTreeMap<u16, (Key, u16)>,
}

impl Echo {
    pub(super) fn new() -> Self {
        Self { sockets: Vec::new() }
    }

    /// Number of the socket for this probe.
    pub(super) fn socket(&mut self, request: &Probe) -> Result<usize, Stop> {
        let v6 = request.to.is_ipv6();
        if let Some(number) = self.sockets.iter().position(|shared| shared.v6 == v6 && shared.from == request.from) {
            return Ok(number);
        }
        let socket = open(v6, request.from).map_err(|errno| match errno {
            Errno::MFILE | Errno::NFILE => Stop::OutOfFiles,
            errno => Stop::Ended(classify::failed("open a raw ICMP socket", errno)),
        })?;
        let from = request.from;
        self.sockets.push(Shared { socket, v6, from, watched: false, next: 0, waiting: BTreeMap::new() });
        Ok(self.sockets.len() - 1)
    }

    /// Reserves a sequence number for a probe.
    pub(super) fn enlist(
        &mut self,
        reactor: &Reactor,
        socket: usize,
        probe: Key,
        request: &Probe,
    ) -> Result<u16, Errno> {
        let shared = self.sockets.get_mut(socket).ok_or(Errno::BADF)?;
        if !shared.watched {
            reactor.watch(&shared.socket, Token::new(Kind::Echo, socket as Key), Ready::IN)?;
            shared.watched = true;
        }
        // Far fewer probes run than there are numbers, so this ends.
        while shared.waiting.contains_key(&shared.next) {
            shared.next = shared.next.wrapping_add(1);
        }
        let sequence = shared.next;
        shared.next = shared.next.wrapping_add(1);
        shared.waiting.insert(sequence, (probe, identifier(request)));
        Ok(sequence)
    }

    /// Nobody waits for this number any more.
    pub(super) fn dismiss(&mut self, socket: usize, sequence: u16) {
        if let Some(shared) = self.sockets.get_mut(socket) {
            shared.waiting.remove(&sequence);
        }
    }

    /// Sends a request (again).
    pub(super) fn send(&self, socket: usize, sequence: u16, request: &Probe) -> Option<Outcome> {
        let shared = self.sockets.get(socket)?;
        let packet = echo_request(shared.v6, identifier(request), sequence, request.nonce);
        let mut to = request.to;
        // For a raw socket the port would be a protocol number.
        to.set_port(0);
        match net::sendto(&shared.socket, &packet, SendFlags::NOSIGNAL, &to) {
            Ok(_) | Err(Errno::AGAIN | Errno::NOBUFS | Errno::INTR) => None,
            Err(errno) => Some(classify::not_sent(errno)),
        }
    }

    /// Reads all that a socket has, for the probes that wait for it.
    pub(super) fn receive(&mut self, socket: usize) -> Vec<(Key, Reply)> {
        let Some(shared) = self.sockets.get_mut(socket) else { return Vec::new() };
        let mut replies = Vec::new();
        let mut buffer = [0; 2048];
        loop {
            match net::recvfrom(&shared.socket, &mut buffer, RecvFlags::empty()) {
                Ok((length, _, source)) => {
                    let packet = buffer.get(..length).unwrap_or_default();
                    let source = source.and_then(|source| SocketAddr::try_from(source).ok());
                    let parsed = source.and_then(|source| parse(shared.v6, source.ip(), packet));
                    if let Some((identifier, sequence, reply)) = parsed
                        && let Some(&(probe, own)) = shared.waiting.get(&sequence)
                        && own == identifier
                    {
                        replies.push((probe, reply));
                    }
                }
                Err(Errno::INTR) => {}
                Err(_) => return replies,
            }
        }
    }
}

/// Opens a raw socket that echo replies, and errors about what was sent, come to.
pub(crate) fn open(v6: bool, from: Option<IpAddr>) -> Result<OwnedFd, Errno> {
    let (family, protocol) =
        if v6 { (AddressFamily::INET6, ipproto::ICMPV6) } else { (AddressFamily::INET, ipproto::ICMP) };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = net::socket_with(family, SocketType::RAW, flags, Some(protocol))?;
    // Both filters have a bit per type, set to keep it out (`linux/icmp.h`, `linux/icmpv6.h`: option 1).
    if v6 {
        let mut filter = [u32::MAX; 8];
        for kind in TYPES_V6 {
            filter[usize::from(kind >> 5)] &= !(1 << (kind & 31));
        }
        let mut bytes = [0; 32];
        for (place, word) in bytes.chunks_exact_mut(4).zip(filter) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        options::set_bytes(&socket, libc::IPPROTO_ICMPV6, 1, bytes)?;
    } else {
        let filter = TYPES_V4.iter().fold(u32::MAX, |filter, kind| filter & !(1 << kind));
        options::set_bytes(&socket, libc::SOL_RAW, 1, filter.to_ne_bytes())?;
    }
    options::enlarge_queue(&socket, QUEUE);
    if let Some(from) = from {
        net::bind(&socket, &SocketAddr::new(from, 0))?;
    }
    Ok(socket)
}

/// An echo request with the nonce in its payload.
pub(super) fn echo_request(v6: bool, identifier: u16, sequence: u16, nonce: u64) -> Vec<u8> {
    echo_request_with(v6, identifier, sequence, &payload::with_nonce(nonce))
}

/// An echo request with this payload.
pub(crate) fn echo_request_with(v6: bool, identifier: u16, sequence: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = alloc::vec![if v6 { 128 } else { 8 }, 0, 0, 0];
    packet.extend(identifier.to_be_bytes());
    packet.extend(sequence.to_be_bytes());
    packet.extend(payload);
    if !v6 {
        // The kernel computes ICMPv6's checksum, which covers addresses that only it knows.
        let checksum = pnet_packet::util::checksum(&packet, 1).to_be_bytes();
        packet[2..4].copy_from_slice(&checksum);
    }
    packet
}

/// Identifier and sequence number that an incoming message is about, and what it says.
fn parse(v6: bool, source: IpAddr, packet: &[u8]) -> Option<(u16, u16, Reply)> {
    let outer;
    let message = if v6 {
        packet
    } else {
        outer = Ipv4Packet::new(packet)?;
        packet.get(usize::from(outer.get_header_length()) * 4..)?
    };
    let (kind, code) = (*message.first()?, *message.get(1)?);
    if kind == if v6 { 129 } else { 0 } {
        let (identifier, sequence) = numbers_of(message)?;
        return Some((
            identifier,
            sequence,
            Reply::Answer { from: source, nonce: payload::nonce(message.get(ECHO_HEADER..)?) },
        ));
    }
    let quoted = message.get(ECHO_HEADER..)?;
    let error = IcmpError { kind, code, from: Some(source) };
    if v6 {
        let inner = Ipv6Packet::new(quoted)?;
        let (identifier, sequence) = numbers_of(inner.payload())?;
        Some((identifier, sequence, Reply::Error { error, about: inner.get_destination().octets().into() }))
    } else {
        let inner = Ipv4Packet::new(quoted)?;
        let echo = quoted.get(usize::from(inner.get_header_length()) * 4..)?;
        let (identifier, sequence) = numbers_of(echo)?;
        Some((identifier, sequence, Reply::Error { error, about: inner.get_destination().octets().into() }))
    }
}

/// An identifier per probe: to connection trackers each is a conversation of its own. One for all would make every later
/// probe a part of the first, which new rules may let pass; and one that other agents have too, such as a process id in a pod,
/// would be theirs once a node translates both to its own address.
fn identifier(request: &Probe) -> u16 {
    request.source_port.unwrap_or(request.nonce as u16)
}

/// Identifier and sequence number of an echo message.
fn numbers_of(echo: &[u8]) -> Option<(u16, u16)> {
    let &[a, b, c, d] = echo.get(4..8)? else { return None };
    Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An IPv4 header (protocol ICMP) from 10.0.0.9 to 10.0.0.1 before a message.
    fn in_ipv4(message: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 1, 0, 0, 10, 0, 0, 9, 10, 0, 0, 1];
        packet[3] = (20 + message.len()) as u8;
        packet.extend(message);
        packet
    }

    #[test]
    fn an_answer_is_told_by_identifier_sequence_and_nonce() {
        let mut reply = echo_request(false, 7, 300, 99);
        reply[0] = 0;
        let source = IpAddr::from([10, 0, 0, 9]);
        let (identifier, sequence, answer) = parse(false, source, &in_ipv4(&reply)).expect("a reply");
        assert_eq!((identifier, sequence), (7, 300));
        assert!(matches!(answer, Reply::Answer { from, nonce: Some(99) } if from == source));
    }

    #[test]
    fn an_error_quotes_the_request_it_is_about() {
        let mut error = vec![3, 13, 0, 0, 0, 0, 0, 0];
        error.extend(in_ipv4(&echo_request(false, 7, 301, 99)));
        let (identifier, sequence, reply) =
            parse(false, IpAddr::from([10, 0, 0, 254]), &in_ipv4(&error)).expect("an error about a request");
        assert_eq!((identifier, sequence), (7, 301));
        let Reply::Error { error, about } = reply else { panic!("an error") };
        assert_eq!((error.kind, error.code, about), (3, 13, IpAddr::from([10, 0, 0, 1])));
    }

    #[test]
    fn nonsense_is_ignored() {
        for length in 0..40 {
            assert!(parse(false, IpAddr::from([1, 1, 1, 1]), &vec![0x45; length]).is_none_or(|_| length > 28));
            parse(true, IpAddr::from([0; 16]), &vec![1; length]);
        }
    }
}
