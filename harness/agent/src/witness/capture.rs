//! Raw capture: what the link layer addressed to this machine, on every interface, before any firewall or listener.

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, Protocol, SocketFlags, SocketType};

use super::packet;
use crate::clock::wall_us;
use crate::protocol::Arrival;
use crate::reactor::{Kind, Reactor, Ready, Token};
use crate::slab::Key;
use crate::sys::messages::receive_captured;
use crate::sys::options::{self, Instruction};

/// Bytes of a packet that are looked at: the longest headers, and a probe's payload.
const SNAP: usize = 256;

/// Packets read before others get their turn.
const TURN: usize = 512;

/// What the kernel may queue while the agent does something else, bytes.
const QUEUE: usize = 4 << 20;

/// A capture socket per family.
pub(super) struct Capture {
    sockets: [(OwnedFd, bool); 2],
    drops: u64,
}

impl Capture {
    /// # Errors
    /// EPERM without CAP_NET_RAW.
    pub(super) fn open(reactor: &Reactor) -> Result<Self, Errno> {
        let sockets = [(open(libc::ETH_P_IP, FILTER_V4)?, false), (open(libc::ETH_P_IPV6, FILTER_V6)?, true)];
        for (key, (socket, _)) in (0..).zip(&sockets) {
            reactor.watch(socket, Token::new(Kind::Capture, key), Ready::IN)?;
        }
        Ok(Self { sockets, drops: 0 })
    }

    /// Reads a turn's worth of packets from a socket that became ready.
    pub(super) fn read(&self, socket: Key, saw: &mut dyn FnMut(Arrival)) {
        if let Some((socket, v6)) = self.sockets.get(socket as usize) {
            read(socket, *v6, TURN, saw);
        }
    }

    /// Reads all that is queued now.
    pub(super) fn drain(&self, saw: &mut dyn FnMut(Arrival)) {
        for (socket, v6) in &self.sockets {
            // No more than a full queue of the shortest packets: others may go on sending.
            read(socket, *v6, QUEUE / SNAP, saw);
        }
    }

    /// Packets that the kernel could not queue, ever.
    pub(super) fn drops(&mut self) -> u64 {
        for (socket, _) in &self.sockets {
            self.drops += u64::from(options::capture_drops(socket).unwrap_or(0));
        }
        self.drops
    }
}

fn read(socket: &OwnedFd, v6: bool, limit: usize, saw: &mut dyn FnMut(Arrival)) {
    let mut buffer = [0; SNAP];
    for _ in 0..limit {
        match receive_captured(socket, &mut buffer) {
            Ok(captured) if captured.to_us => {
                let bytes = buffer.get(..captured.length).unwrap_or_default();
                if let Some(seen) = packet::parse(v6, bytes) {
                    saw(Arrival {
                        at_us: wall_us(),
                        transport: seen.transport,
                        source: seen.source,
                        destination: seen.destination,
                        interface: captured.interface,
                        nonce: seen.nonce,
                    });
                }
            }
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

/// Opens a capture socket that sees what comes in (not what goes out) of one family.
fn open(ethertype: i32, filter: &[Instruction]) -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let protocol = core::num::NonZeroU32::new(u32::from((ethertype as u16).to_be())).map(Protocol::from_raw);
    let socket = net::socket_with(AddressFamily::PACKET, SocketType::DGRAM, flags, protocol)?;
    options::attach_filter(&socket, filter)?;
    options::enlarge_queue(&socket, QUEUE);
    Ok(socket)
}

// Classic packet filters (`linux/filter.h`). Operations used:
/// Load the byte at a constant offset.
const LOAD: u16 = 0x30;
/// Load the byte at the index register plus a constant offset.
const LOAD_INDEXED: u16 = 0x50;
/// Index register = length of the IPv4 header at offset 0.
const HEADER_LENGTH: u16 = 0xb1;
/// And with a constant.
const AND: u16 = 0x54;
/// Jump if equal to a constant.
const EQUAL: u16 = 0x15;
/// End: bytes of the packet to keep.
const RETURN: u16 = 0x06;

const SNAP_BYTES: u32 = SNAP as u32;
const TCP: u32 = 6;
const UDP: u32 = 17;
const ICMP: u32 = 1;
const ICMPV6: u32 = 58;
/// Offset of the flags in a TCP header; SYN and ACK among them.
const TCP_FLAGS: u32 = 13;
const SYN: u32 = 0x02;
const SYN_ACK_MASK: u32 = 0x12;

/// SYNs, UDP, echo requests; from offset 0 of the IPv4 header. Jumps count instructions to skip.
const FILTER_V4: &[Instruction] = &[
    (HEADER_LENGTH, 0, 0, 0),
    (LOAD, 0, 0, 9),
    (EQUAL, 7, 0, UDP), // -> accept
    (EQUAL, 0, 3, TCP), // else -> ICMP?
    (LOAD_INDEXED, 0, 0, TCP_FLAGS),
    (AND, 0, 0, SYN_ACK_MASK),
    (EQUAL, 3, 4, SYN),  // -> accept, else -> refuse
    (EQUAL, 0, 3, ICMP), // else -> refuse
    (LOAD_INDEXED, 0, 0, 0),
    (EQUAL, 0, 1, 8), // echo request
    (RETURN, 0, 0, SNAP_BYTES),
    (RETURN, 0, 0, 0),
];

/// The same for IPv6; probes have no extension headers.
const FILTER_V6: &[Instruction] = &[
    (LOAD, 0, 0, 6),
    (EQUAL, 7, 0, UDP), // -> accept
    (EQUAL, 0, 3, TCP), // else -> ICMPv6?
    (LOAD, 0, 0, 40 + TCP_FLAGS),
    (AND, 0, 0, SYN_ACK_MASK),
    (EQUAL, 3, 4, SYN),    // -> accept, else -> refuse
    (EQUAL, 0, 3, ICMPV6), // else -> refuse
    (LOAD, 0, 0, 40),
    (EQUAL, 0, 1, 128), // echo request
    (RETURN, 0, 0, SNAP_BYTES),
    (RETURN, 0, 0, 0),
];
