//! UDP, and ICMP echo by ping sockets: a connected socket per probe, so that the kernel hands it the ICMP errors.

use alloc::vec::Vec;
use core::net::SocketAddr;

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{self, RecvFlags, SendFlags, SocketType, ipproto};

use super::echo::{ECHO_HEADER, echo_request};
use super::{Stop, classify, local_address, open_socket, payload};
use crate::clock::monotonic_us;
use crate::protocol::{Open, Outcome, Probe, Transport};
use crate::sys::messages::{QueuedError, receive_error};

/// Opens and connects the socket; nothing is sent yet.
pub(crate) fn open(request: &Probe) -> Result<(OwnedFd, Option<SocketAddr>), Stop> {
    let protocol = match (request.transport, request.to) {
        (Transport::Icmp, SocketAddr::V4(_)) => ipproto::ICMP,
        (Transport::Icmp, SocketAddr::V6(_)) => ipproto::ICMPV6,
        (Transport::Tcp | Transport::Udp, _) => ipproto::UDP,
    };
    let socket = open_socket(request, SocketType::DGRAM, Some(protocol))?;
    net::connect(&socket, &request.to).map_err(|errno| Stop::Ended(classify::not_sent(errno)))?;
    let local = local_address(&socket);
    Ok((socket, local))
}

/// Sends the datagram (again).
pub(super) fn send(socket: &OwnedFd, request: &Probe) -> Option<Outcome> {
    send_content(socket, request.transport, &content(request))
}

/// The same with another content than a probe's.
pub(super) fn send_content(socket: &OwnedFd, transport: Transport, content: &[u8]) -> Option<Outcome> {
    match net::send(socket, content, SendFlags::NOSIGNAL) {
        // A full queue is not the network's answer; it is sent again in a while.
        Ok(_) | Err(Errno::AGAIN | Errno::NOBUFS | Errno::INTR) => None,
        Err(errno) => Some(match receive_error(socket) {
            // The answer to an earlier datagram came between.
            Ok(queued) if queued.icmp.is_some() => classify::reported(transport, queued),
            _ if errno == Errno::CONNREFUSED => Outcome::Refused { icmp: None },
            _ => classify::not_sent(errno),
        }),
    }
}

/// Reads what came back; says how it ended, if it did.
pub(super) fn advance(socket: &OwnedFd, request: &Probe, sent: u64) -> Option<Outcome> {
    if let Ok(queued) = receive_error(socket) {
        return Some(classify::reported(request.transport, queued));
    }
    let mut buffer = [0; 2048];
    loop {
        match net::recv(socket, &mut buffer, RecvFlags::empty()) {
            Ok((length, _)) => {
                let received = buffer.get(..length).unwrap_or_default();
                if let Some(open) = read(request, received, monotonic_us() - sent) {
                    return Some(Outcome::Open(open));
                }
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return None,
            Err(errno) => {
                let error = QueuedError { errno: errno.raw_os_error(), icmp: None };
                return Some(classify::reported(request.transport, error));
            }
        }
    }
}

fn content(request: &Probe) -> Vec<u8> {
    match request.transport {
        // The kernel puts its own identifier and checksum into a ping socket's requests.
        Transport::Icmp => echo_request(request.to.is_ipv6(), 0, 1, request.nonce),
        Transport::Tcp | Transport::Udp => payload::datagram(request),
    }
}

fn read(request: &Probe, received: &[u8], rtt_us: u64) -> Option<Open> {
    match request.transport {
        Transport::Icmp => {
            let nonce = received.get(ECHO_HEADER..).and_then(payload::nonce);
            (nonce == Some(request.nonce)).then(|| Open { rtt_us, ..Open::default() })
        }
        Transport::Tcp | Transport::Udp => payload::read_datagram(request, received, rtt_us),
    }
}
