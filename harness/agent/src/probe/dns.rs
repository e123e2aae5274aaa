//! Questions to DNS servers: probes whose payload is a question, and whose peer says more than who it is.

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{self, RecvFlags, SendFlags};

use super::classify;
use super::message::{self, Reading};
use super::tcp::{self, Handshake, Stage};
use crate::clock::{MILLISECOND, monotonic_us, wall_us};
use crate::facts;
use crate::protocol::{Failure, Identify, Outcome, Probe, Resolution, Resolve, Resolved, Transport};
use crate::sys::messages::{QueuedError, receive_error};

/// The port of name servers.
const PORT: u16 = 53;
/// Largest datagram, and longest answer over TCP: its length has two bytes.
const LARGEST: usize = 4096;
const LENGTH: usize = 2;

/// A question that is under way.
pub(super) struct Question {
    request: Resolve,
    id: u16,
    query: Vec<u8>,
    /// Who is asked now, and who next.
    server: SocketAddr,
    next: Vec<SocketAddr>,
    asked: u32,
    /// Somebody answered another question than this.
    strange: bool,
    started_us: u64,
    /// Monotonic, as is the following.
    started: u64,
    deadline: u64,
}

impl Question {
    /// Prepares a question.
    ///
    /// # Errors
    /// Its result, where nothing can be asked.
    pub(super) fn new(request: Resolve) -> Result<Box<Self>, Box<Resolved>> {
        let (started_us, started) = (wall_us(), monotonic_us());
        let cannot = |attempted: String| {
            let outcome = Resolution::Unanswered(Outcome::AgentFailed(Failure { attempted, errno: 0 }));
            Box::new(Resolved { outcome, server: request.server, local: None, started_us, took_us: 0, asked: 0 })
        };
        if request.transport == Transport::Icmp {
            return Err(cannot("ask a DNS server over ICMP".to_string()));
        }
        let id = (crate::agent::random() >> 24) as u16;
        let query = message::question(id, &request.name, request.record).map_err(cannot)?;
        let configured = || {
            let named = facts::name_servers().into_iter();
            named.filter_map(|server| server.parse::<IpAddr>().ok()).map(|ip| SocketAddr::new(ip, PORT)).collect()
        };
        let mut servers: Vec<SocketAddr> = request.server.map_or_else(configured, |server| Vec::from([server]));
        if servers.is_empty() {
            return Err(cannot("ask anybody: /etc/resolv.conf names no server".to_string()));
        }
        let server = servers.remove(0);
        let deadline = started + u64::from(request.timeout_ms) * MILLISECOND;
        let next = servers;
        Ok(Box::new(Self { request, id, query, server, next, asked: 0, strange: false, started_us, started, deadline }))
    }

    /// The probe that carries it to the server whose turn it is; the time that is left is shared by those that are left.
    pub(super) fn probe(&self) -> Probe {
        let left = self.deadline.saturating_sub(monotonic_us()) / MILLISECOND / (self.next.len() as u64 + 1);
        Probe {
            transport: self.request.transport,
            to: self.server,
            from: None,
            source_port: self.request.source_port,
            timeout_ms: left as u32,
            identify: Identify::None,
            nonce: 0,
        }
    }

    /// What to send in a datagram.
    pub(super) fn datagram(&mut self) -> &[u8] {
        self.asked += 1;
        &self.query
    }

    /// Reads what came back in datagrams.
    pub(super) fn advance_datagram(&mut self, socket: &OwnedFd, sent: u64) -> Option<Resolution> {
        if let Ok(queued) = receive_error(socket) {
            return Some(Resolution::Unanswered(classify::reported(Transport::Udp, queued)));
        }
        let mut buffer = [0; LARGEST];
        loop {
            match net::recv(socket, &mut buffer, RecvFlags::empty()) {
                Ok((length, _)) => {
                    let received = buffer.get(..length).unwrap_or_default();
                    match self.read(received, monotonic_us() - sent) {
                        Some(resolution) => return Some(resolution),
                        // The answer to an earlier question from this port, or somebody's guess.
                        None => self.strange = true,
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return None,
                Err(errno) => {
                    let error = QueuedError { errno: errno.raw_os_error(), icmp: None };
                    return Some(Resolution::Unanswered(classify::reported(Transport::Udp, error)));
                }
            }
        }
    }

    /// Goes on after the connection became ready.
    pub(super) fn advance_stream(
        &mut self,
        socket: &OwnedFd,
        stage: &mut Stage,
        started: u64,
        local: &mut Option<SocketAddr>,
    ) -> Option<Resolution> {
        if matches!(stage, Stage::Handshake) {
            match tcp::handshake(socket) {
                Handshake::Pending => return None,
                Handshake::Failed(error) => return Some(Resolution::Unanswered(error)),
                Handshake::Done => {}
            }
            let rtt_us = monotonic_us() - started;
            *local = super::local_address(socket);
            let mut framed = (self.query.len() as u16).to_be_bytes().to_vec();
            framed.extend_from_slice(&self.query);
            self.asked += 1;
            // A fresh connection's send buffer has room for it.
            if let Err(errno) = net::send(socket, &framed, SendFlags::NOSIGNAL) {
                let error = QueuedError { errno: errno.raw_os_error(), icmp: None };
                return Some(Resolution::Unanswered(classify::reported(Transport::Tcp, error)));
            }
            *stage = Stage::Answer { rtt_us, received: Vec::new() };
        }
        let Stage::Answer { received, .. } = stage else { return None };
        let mut buffer = [0; 1024];
        loop {
            match net::recv(socket, &mut buffer, RecvFlags::empty()) {
                Ok((0, _)) => return Some(garbled("the connection was accepted and closed without a whole answer")),
                Ok((length, _)) => received.extend_from_slice(buffer.get(..length).unwrap_or_default()),
                Err(Errno::AGAIN | Errno::INTR) => return None,
                Err(_) => return Some(garbled("the connection was accepted and reset without a whole answer")),
            }
            let length = received.first_chunk::<LENGTH>().map(|length| usize::from(u16::from_be_bytes(*length)));
            if let Some(whole) = length.and_then(|length| received.get(LENGTH..LENGTH + length)) {
                let read = self.read(whole, monotonic_us() - started);
                return Some(read.unwrap_or_else(|| garbled("the answer has another number than the question")));
            }
        }
    }

    fn read(&self, received: &[u8], rtt_us: u64) -> Option<Resolution> {
        match message::read(received, self.id, &self.request.name, self.request.record) {
            Reading::Answer(mut answer) => {
                answer.rtt_us = rtt_us;
                Some(Resolution::Answered(answer))
            }
            Reading::Garbled(why) => Some(Resolution::Garbled { why }),
            Reading::Another => None,
        }
    }

    /// The time of the server whose turn it is has passed.
    pub(super) fn out_of_time(&self, stage: Option<&Stage>) -> Resolution {
        match stage {
            Some(Stage::Answer { .. }) => garbled("the connection was accepted, but no answer came"),
            _ if self.strange => garbled("only answers to other questions came"),
            _ => Resolution::Unanswered(Outcome::TimedOut),
        }
    }

    /// Turns to the next server, where this one did not answer and there is another and time for it.
    pub(super) fn turn(mut self: Box<Self>, end: &Resolution) -> Result<Box<Self>, Box<Self>> {
        if matches!(end, Resolution::Answered(_)) || self.next.is_empty() || monotonic_us() >= self.deadline {
            return Err(self);
        }
        self.server = self.next.remove(0);
        self.strange = false;
        Ok(self)
    }

    /// What came of it.
    pub(super) fn result(&self, outcome: Resolution, local: Option<SocketAddr>) -> Resolved {
        let took_us = monotonic_us() - self.started;
        Resolved { outcome, server: Some(self.server), local, started_us: self.started_us, took_us, asked: self.asked }
    }
}

fn garbled(why: &str) -> Resolution {
    Resolution::Garbled { why: why.to_string() }
}
