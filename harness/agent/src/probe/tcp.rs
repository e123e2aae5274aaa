//! TCP: connect, then read who it is.

use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{self, RecvFlags, SendFlags, SocketType, ipproto, sockopt};

use super::{Stop, classify, local_address, open_socket, payload};
use crate::clock::monotonic_us;
use crate::protocol::{Identify, Open, Outcome, Probe, Transport};
use crate::sys::messages::{QueuedError, receive_error};

/// A banner or HTTP answer is shorter than this; whoever says more is cut short.
const LONGEST_ANSWER: usize = 4096;

/// How far a connection is.
pub(super) enum Stage {
    /// SYN sent.
    Handshake,
    /// Connected; waiting for what the peer says of itself.
    Answer { rtt_us: u64, received: Vec<u8> },
}

/// Sends the SYN.
pub(crate) fn open(request: &Probe) -> Result<(OwnedFd, Option<SocketAddr>), Stop> {
    let socket = open_socket(request, SocketType::STREAM, Some(ipproto::TCP))?;
    // Closing resets the connection: thousands of probes per second would otherwise leave no free port (TIME_WAIT).
    sockopt::set_socket_linger(&socket, Some(Duration::ZERO))
        .map_err(|errno| Stop::Ended(classify::failed("set SO_LINGER", errno)))?;
    match net::connect(&socket, &request.to) {
        Ok(()) | Err(Errno::INPROGRESS) => {
            let local = local_address(&socket);
            Ok((socket, local))
        }
        Err(errno) => Err(Stop::Ended(classify::not_sent(errno))),
    }
}

/// Goes on after the socket became ready; says how it ended, if it did.
pub(super) fn advance(
    socket: &OwnedFd,
    stage: &mut Stage,
    request: &Probe,
    started: u64,
    local: &mut Option<SocketAddr>,
) -> Option<Outcome> {
    if matches!(stage, Stage::Handshake) {
        let rtt_us = monotonic_us() - started;
        match handshake(socket) {
            Handshake::Pending => return None,
            Handshake::Failed(outcome) => return Some(outcome),
            Handshake::Done => {}
        }
        *local = local_address(socket);
        if request.identify == Identify::None {
            return Some(Outcome::Open(Open { rtt_us, ..Open::default() }));
        }
        if request.identify == Identify::Agnhost
            && let Err(errno) = net::send(socket, payload::HTTP_HOSTNAME, SendFlags::NOSIGNAL)
        {
            return Some(classify::reported(Transport::Tcp, QueuedError { errno: errno.raw_os_error(), icmp: None }));
        }
        *stage = Stage::Answer { rtt_us, received: Vec::new() };
    }
    let Stage::Answer { rtt_us, received } = stage else { return None };
    let mut buffer = [0; 1024];
    loop {
        let over = match net::recv(socket, &mut buffer, RecvFlags::empty()) {
            Ok((0, _)) => true,
            Ok((length, _)) => {
                received.extend_from_slice(buffer.get(..length).unwrap_or_default());
                received.len() >= LONGEST_ANSWER || payload::is_complete(request.identify, received)
            }
            Err(Errno::AGAIN | Errno::INTR) => return None,
            Err(Errno::CONNRESET) if received.is_empty() => return Some(Outcome::Reset),
            Err(_) => true,
        };
        if over {
            return Some(Outcome::Open(payload::read_stream(request.identify, received, *rtt_us)));
        }
    }
}

/// The timeout is over. Whoever completed the handshake was reached, though it did not say who it is.
pub(super) fn out_of_time(stage: &Stage) -> Outcome {
    match stage {
        Stage::Handshake => Outcome::TimedOut,
        Stage::Answer { rtt_us, .. } => Outcome::Open(Open { rtt_us: *rtt_us, ..Open::default() }),
    }
}

/// What became of a handshake.
pub(crate) enum Handshake {
    /// Nothing yet, whatever made the socket ready.
    Pending,
    /// There is a connection.
    Done,
    /// There will be none.
    Failed(Outcome),
}

/// How the handshake of a socket that became ready ended.
///
/// That there is no error does not mean that there is a connection: for an ICMP message the kernel first queues what it quotes,
/// which wakes us, and notes the error a moment later, perhaps on another processor.
pub(crate) fn handshake(socket: &OwnedFd) -> Handshake {
    let error = pending_error(socket);
    if error.is_none() && !matches!(net::getpeername(socket), Err(Errno::NOTCONN)) {
        return Handshake::Done;
    }
    let Some(errno) = error.or_else(|| pending_error(socket)) else { return Handshake::Pending };
    let queued = receive_error(socket).ok().filter(|queued| queued.icmp.is_some());
    Handshake::Failed(classify::reported(Transport::Tcp, queued.unwrap_or(QueuedError { errno, icmp: None })))
}

fn pending_error(socket: &OwnedFd) -> Option<i32> {
    match sockopt::socket_error(socket) {
        Ok(Ok(())) => None,
        Ok(Err(errno)) | Err(errno) => Some(errno.raw_os_error()),
    }
}
