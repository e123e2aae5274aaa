//! Probes: attempts to reach a target, thousands at once, each classified from its socket.
//!
//! * [`tcp`]: connect, then the banner
//! * [`datagram`]: UDP, and ICMP echo by ping sockets
//! * [`echo`]: ICMP echo by raw sockets that all probes share
//! * [`dns`]: questions to DNS servers, over TCP and UDP
//! * [`message`]: DNS messages
//! * [`classify`]: from error numbers and ICMP messages to outcomes
//! * [`payload`]: what probes send, and how answers are read

pub(crate) mod classify;
pub(crate) mod datagram;
mod dns;
pub(crate) mod echo;
mod message;
pub(crate) mod payload;
pub(crate) mod tcp;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::net::SocketAddr;

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{self, SocketFlags, SocketType, sockopt};

use self::classify::failed;
use self::dns::Question;
use self::echo::Echo;
use crate::clock::{MILLISECOND, monotonic_us, wall_us};
use crate::protocol::{Body, IcmpMeans, Open, Outcome, Probe, ProbeResult, RESEND_MS, Resolution, Resolve, Transport};
use crate::reactor::{Kind, Reactor, Ready, Token};
use crate::slab::{Key, Slab};
use crate::sys::options;

/// Probes started before others get their turn: answers to a larger burst would overflow the queues of their sockets.
const TURN: usize = 64;

/// Why a step of a probe did not go on: how it ended, or that it has to be tried again later.
pub(crate) enum Stop {
    Ended(Outcome),
    OutOfFiles,
}

/// A probe that is under way.
struct Running {
    id: u64,
    request: Probe,
    /// What it asks, where it is a question.
    question: Option<Box<Question>>,
    means: Means,
    /// Wall clock, for the report.
    started_us: u64,
    /// Monotonic, as are the following.
    started: u64,
    sent: u64,
    deadline: u64,
    timer: u64,
    local: Option<SocketAddr>,
}

/// How a probe ended.
enum End {
    Saw(Outcome),
    /// Of a question: what was answered.
    Said(Resolution),
}

/// A probe whose turn has not come.
struct Waiting {
    id: u64,
    request: Probe,
    question: Option<Box<Question>>,
}

/// The socket of a probe, and how far it is.
enum Means {
    Tcp {
        socket: OwnedFd,
        stage: tcp::Stage,
    },
    Datagram {
        socket: OwnedFd,
    },
    /// Shared raw socket: its number, and the echo sequence number of this probe.
    Echo {
        socket: usize,
        sequence: u16,
    },
}

/// All probes.
pub(crate) struct Probes {
    running: Slab<Running>,
    /// Those whose turn has not come, or that have no socket yet because the limit of open files is reached.
    waiting: VecDeque<Waiting>,
    limit: usize,
    icmp: IcmpMeans,
    echo: Echo,
    ended: Vec<(u64, Body)>,
}

impl Probes {
    /// `limit`: sockets that may be open at once.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            running: Slab::new(),
            waiting: VecDeque::new(),
            limit,
            icmp: echo::means(),
            echo: Echo::new(),
            ended: Vec::new(),
        }
    }

    pub(crate) const fn limit(&self) -> usize {
        self.limit
    }

    pub(crate) const fn icmp(&self) -> IcmpMeans {
        self.icmp
    }

    /// Takes a probe on.
    pub(crate) fn take(&mut self, id: u64, request: Probe) {
        self.waiting.push_back(Waiting { id, request, question: None });
    }

    /// Takes a question on.
    pub(crate) fn take_question(&mut self, id: u64, request: Resolve) {
        match Question::new(request) {
            Ok(question) => self.waiting.push_back(Waiting { id, request: question.probe(), question: Some(question) }),
            Err(result) => self.ended.push((id, Body::Resolved(*result))),
        }
    }

    /// Is there a probe that could be started at once?
    pub(crate) fn can_start(&self) -> bool {
        !self.waiting.is_empty() && self.running.len() < self.limit
    }

    /// Starts some of the probes that wait.
    pub(crate) fn start_some(&mut self, reactor: &mut Reactor) {
        for _ in 0..TURN {
            if self.running.len() >= self.limit {
                return;
            }
            let Some(waiting) = self.waiting.pop_front() else { return };
            self.start(reactor, waiting);
        }
    }

    fn start(&mut self, reactor: &mut Reactor, waiting: Waiting) {
        let Waiting { id, request, question } = waiting;
        let (started_us, started) = (wall_us(), monotonic_us());
        let deadline = started + u64::from(request.timeout_ms) * MILLISECOND;
        match self.open(&request) {
            Ok((means, local)) => {
                let sent = started;
                let probe =
                    Running { id, request, question, means, started_us, started, sent, deadline, timer: 0, local };
                let key = self.running.insert(probe);
                if let Some(outcome) = self.launch(reactor, key) {
                    self.end(reactor, key, End::Saw(outcome));
                }
            }
            Err(Stop::OutOfFiles) if self.running.len() > 0 => {
                self.limit = self.running.len();
                self.waiting.push_front(Waiting { id, request, question });
            }
            Err(stop) => {
                let outcome = match stop {
                    Stop::Ended(outcome) => outcome,
                    Stop::OutOfFiles => failed("open a socket", Errno::MFILE),
                };
                match question {
                    Some(question) => self.answered(id, question, Resolution::Unanswered(outcome), None),
                    None => {
                        let (took_us, nonce) = (monotonic_us() - started, request.nonce);
                        let result = ProbeResult { outcome, started_us, took_us, local: None, nonce };
                        self.ended.push((id, Body::Probe(result)));
                    }
                }
            }
        }
    }

    /// Opens what the probe needs, up to the point where packets flow (TCP: the SYN is sent here).
    fn open(&mut self, request: &Probe) -> Result<(Means, Option<SocketAddr>), Stop> {
        match (request.transport, self.icmp) {
            (Transport::Tcp, _) => {
                let (socket, local) = tcp::open(request)?;
                Ok((Means::Tcp { socket, stage: tcp::Stage::Handshake }, local))
            }
            (Transport::Udp, _) | (Transport::Icmp, IcmpMeans::Ping) => {
                let (socket, local) = datagram::open(request)?;
                Ok((Means::Datagram { socket }, local))
            }
            (Transport::Icmp, IcmpMeans::Raw) => {
                Ok((Means::Echo { socket: self.echo.socket(request)?, sequence: 0 }, None))
            }
            (Transport::Icmp, IcmpMeans::Missing) => Err(Stop::Ended(failed(
                "send ICMP echo: it has neither CAP_NET_RAW nor a group in net.ipv4.ping_group_range",
                Errno::PERM,
            ))),
        }
    }

    /// Watches the socket, sends the first packet and sets the timer.
    fn launch(&mut self, reactor: &mut Reactor, key: Key) -> Option<Outcome> {
        let token = Token::new(Kind::Probe, key);
        let probe = self.running.get_mut(key)?;
        let watched = match &mut probe.means {
            Means::Tcp { socket, .. } => {
                reactor.watch(&*socket, token, Ready::IN | Ready::OUT | Ready::RDHUP | Ready::ET)
            }
            Means::Datagram { socket } => reactor.watch(&*socket, token, Ready::IN),
            Means::Echo { socket, sequence } => {
                self.echo.enlist(reactor, *socket, key, &probe.request).map(|number| *sequence = number)
            }
        };
        if let Err(errno) = watched {
            return Some(failed("watch a socket", errno));
        }
        if let Some(outcome) = send(&mut self.echo, probe) {
            return Some(outcome);
        }
        probe.set_timer(reactor, token);
        None
    }

    /// A probe's own socket became ready.
    pub(crate) fn ready(&mut self, reactor: &mut Reactor, key: Key) {
        let Some(probe) = self.running.get_mut(key) else { return };
        let Running { request, question, means, started, sent, local, .. } = probe;
        let end = match (means, question) {
            (Means::Tcp { socket, stage }, Some(question)) => {
                question.advance_stream(socket, stage, *started, local).map(End::Said)
            }
            (Means::Datagram { socket }, Some(question)) => question.advance_datagram(socket, *sent).map(End::Said),
            (Means::Tcp { socket, stage }, None) => tcp::advance(socket, stage, request, *started, local).map(End::Saw),
            (Means::Datagram { socket }, None) => datagram::advance(socket, request, *sent).map(End::Saw),
            (Means::Echo { .. }, _) => None,
        };
        if let Some(end) = end {
            self.end(reactor, key, end);
        }
    }

    /// A shared ICMP socket became ready.
    pub(crate) fn echo_ready(&mut self, reactor: &mut Reactor, socket: Key) {
        for (key, reply) in self.echo.receive(socket as usize) {
            let Some(probe) = self.running.get_mut(key) else { continue };
            let outcome = match reply {
                echo::Reply::Answer { from, nonce } => {
                    let is_ours = from == probe.request.to.ip() && nonce == Some(probe.request.nonce);
                    is_ours.then(|| Outcome::Open(Open { rtt_us: monotonic_us() - probe.sent, ..Open::default() }))
                }
                echo::Reply::Error { error, about } => {
                    (about == probe.request.to.ip()).then(|| classify::icmp(Transport::Icmp, error))
                }
            };
            if let Some(outcome) = outcome {
                self.end(reactor, key, End::Saw(outcome));
            }
        }
    }

    /// A probe's timer is due: send again, or give up.
    pub(crate) fn due(&mut self, reactor: &mut Reactor, key: Key) {
        let Some(probe) = self.running.get_mut(key) else { return };
        probe.timer = 0;
        let end = if monotonic_us() >= probe.deadline {
            let stage = if let Means::Tcp { stage, .. } = &probe.means { Some(stage) } else { None };
            Some(match (&probe.question, stage) {
                (Some(question), stage) => End::Said(question.out_of_time(stage)),
                (None, Some(stage)) => End::Saw(tcp::out_of_time(stage)),
                (None, None) => End::Saw(Outcome::TimedOut),
            })
        } else {
            send(&mut self.echo, probe).map(End::Saw)
        };
        match end {
            Some(end) => self.end(reactor, key, end),
            None => probe.set_timer(reactor, Token::new(Kind::Probe, key)),
        }
    }

    fn end(&mut self, reactor: &mut Reactor, key: Key, end: End) {
        let Some(probe) = self.running.remove(key) else { return };
        reactor.disarm(Token::new(Kind::Probe, key), probe.timer);
        if let Means::Echo { socket, sequence } = probe.means {
            self.echo.dismiss(socket, sequence);
        }
        match (end, probe.question) {
            (End::Said(resolution), Some(question)) => self.answered(probe.id, question, resolution, probe.local),
            (End::Saw(outcome), Some(question)) => {
                self.answered(probe.id, question, Resolution::Unanswered(outcome), probe.local);
            }
            (End::Saw(outcome), None) => {
                let (started_us, local, nonce) = (probe.started_us, probe.local, probe.request.nonce);
                let took_us = monotonic_us() - probe.started;
                let result = ProbeResult { outcome, started_us, took_us, local, nonce };
                self.ended.push((probe.id, Body::Probe(result)));
            }
            // Nobody else says anything.
            (End::Said(_), None) => {}
        }
    }

    /// One server's part in a question is over.
    fn answered(&mut self, id: u64, question: Box<Question>, end: Resolution, local: Option<SocketAddr>) {
        match question.turn(&end) {
            Ok(question) => {
                self.waiting.push_front(Waiting { id, request: question.probe(), question: Some(question) });
            }
            Err(question) => self.ended.push((id, Body::Resolved(question.result(end, local)))),
        }
    }

    /// The results since the last call.
    pub(crate) fn take_ended(&mut self) -> Vec<(u64, Body)> {
        core::mem::take(&mut self.ended)
    }

    /// Drops every probe without a result.
    pub(crate) fn cancel_all(&mut self, reactor: &mut Reactor) {
        self.waiting.clear();
        for key in self.running.keys() {
            self.end(reactor, key, End::Saw(Outcome::TimedOut));
        }
        // Questions have turned to their next servers.
        self.waiting.clear();
        self.ended.clear();
    }
}

impl Running {
    /// Next thing to do: send again, or give up.
    fn set_timer(&mut self, reactor: &mut Reactor, token: Token) {
        let resend = match self.means {
            Means::Tcp { .. } => u64::MAX,
            Means::Datagram { .. } | Means::Echo { .. } => {
                self.sent + u64::from(RESEND_MS.max(self.request.timeout_ms / 2)) * MILLISECOND
            }
        };
        self.timer = self.deadline.min(resend);
        reactor.arm(token, self.timer);
    }
}

/// Sends (again), where that is not the kernel's task.
fn send(echo: &mut Echo, probe: &mut Running) -> Option<Outcome> {
    probe.sent = monotonic_us();
    match (&probe.means, &mut probe.question) {
        (Means::Tcp { .. }, _) => None,
        (Means::Datagram { socket }, Some(question)) => {
            datagram::send_content(socket, Transport::Udp, question.datagram())
        }
        (Means::Datagram { socket }, None) => datagram::send(socket, &probe.request),
        (Means::Echo { socket, sequence }, _) => echo.send(*socket, *sequence, &probe.request),
    }
}

/// Opens a socket, asks for the ICMP errors behind its error numbers and binds it as the probe wants.
fn open_socket(request: &Probe, kind: SocketType, protocol: Option<net::Protocol>) -> Result<OwnedFd, Stop> {
    let (family, level, receive_errors) = match request.to {
        SocketAddr::V4(_) => (net::AddressFamily::INET, libc::IPPROTO_IP, libc::IP_RECVERR),
        SocketAddr::V6(_) => (net::AddressFamily::INET6, libc::IPPROTO_IPV6, libc::IPV6_RECVERR),
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = net::socket_with(family, kind, flags, protocol).map_err(|errno| match errno {
        Errno::MFILE | Errno::NFILE => Stop::OutOfFiles,
        errno => Stop::Ended(failed("open a socket", errno)),
    })?;
    let bound = options::set_int(&socket, level, receive_errors, 1).and_then(|()| {
        let unspecified = match request.to {
            SocketAddr::V4(_) => core::net::IpAddr::V4(core::net::Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => core::net::IpAddr::V6(core::net::Ipv6Addr::UNSPECIFIED),
        };
        match (request.from, request.source_port) {
            (None, None) => Ok(()),
            (from, Some(port)) => {
                sockopt::set_socket_reuseaddr(&socket, true)?;
                net::bind(&socket, &SocketAddr::new(from.unwrap_or(unspecified), port))
            }
            (Some(from), None) => {
                // The port is chosen at connect time, when the target is known: a port per target, not one for all.
                options::set_int(&socket, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1)?;
                net::bind(&socket, &SocketAddr::new(from, 0))
            }
        }
    });
    match bound {
        Ok(()) => Ok(socket),
        Err(errno) => {
            let mut what = "bind the probe's socket to ".to_string();
            let wanted = (request.from.map(|from| from.to_string()), request.source_port.map(|port| port.to_string()));
            what.push_str(wanted.0.as_deref().unwrap_or("any address"));
            what.push_str(" port ");
            what.push_str(wanted.1.as_deref().unwrap_or("any"));
            Err(Stop::Ended(failed(&what, errno)))
        }
    }
}

/// A socket's own address.
pub(crate) fn local_address(socket: &OwnedFd) -> Option<SocketAddr> {
    SocketAddr::try_from(net::getsockname(socket).ok()?).ok()
}
