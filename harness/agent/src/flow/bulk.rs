//! Bulk transfers over TCP.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::SocketAddr;

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{self, RecvFlags, SendFlags};

use super::course::now;
use super::figures::Moment;
use super::ledger::Ledger;
use super::pattern;
use crate::agent::random;
use crate::clock::MILLISECOND;
use crate::probe::tcp::Handshake;
use crate::probe::{Stop, classify, local_address, tcp};
use crate::protocol::{
    BULK_ACCEPTED, BULK_SINK, BULK_SOURCE, BULK_SPOILT, BULKS, Banner, Body, Bulk, BulkReport, BulkResult, Direction,
    Failure, FlowEnd, Identify, Outcome, Probe, Transport, Unreachable,
};
use crate::reactor::{Kind, Reactor, Ready, Token};
use crate::slab::{Key, Slab};
use crate::sys::messages::QueuedError;
use crate::sys::options;

/// How often is looked what the peer has acknowledged, microseconds.
const TICK: u64 = 10 * MILLISECOND;

/// Bytes sent or read before others get their turn.
const TURN: usize = 256 * 1024;

/// Bytes read at once.
const PIECE: usize = 64 * 1024;

/// A banner is shorter than this.
const LONGEST_LINE: usize = 4096;

/// All bulk transfers.
pub(crate) struct Bulks {
    running: Slab<Running>,
    /// By the request that began it.
    keys: BTreeMap<u64, Key>,
    ended: Vec<(u64, Body)>,
    /// Where is read to.
    piece: Vec<u8>,
}

/// A transfer. Times are monotonic microseconds.
struct Running {
    id: u64,
    socket: OwnedFd,
    direction: Direction,
    stage: Stage,
    started: Moment,
    connect_deadline: u64,
    limit: u64,
    timer: u64,
    connect_us: Option<u64>,
    local: Option<SocketAddr>,
    banner: Option<Banner>,
    /// Read, not yet a whole line.
    inbox: Vec<u8>,
    faults: u64,
    last_fault: Option<Unreachable>,
}

enum Stage {
    Handshake,
    Banner,
    Accepted,
    /// What the kernel had counted as acknowledged when it began, and has since; what was handed to it.
    Open {
        ledger: Ledger,
        acknowledged: u64,
        handed: u64,
        tick: u64,
    },
}

impl Bulks {
    pub(crate) const fn new() -> Self {
        Self { running: Slab::new(), keys: BTreeMap::new(), ended: Vec::new(), piece: Vec::new() }
    }

    /// Begins a transfer.
    pub(crate) fn take(&mut self, reactor: &mut Reactor, id: u64, request: &Bulk) {
        if let Err(attempted) = check(request, self.running.len()) {
            self.ended.push((id, Body::Failed(Failure { attempted, errno: 0 })));
            return;
        }
        self.piece.resize(PIECE, 0);
        let started = now();
        let attempt = Probe {
            transport: Transport::Tcp,
            to: request.to,
            from: request.from,
            source_port: request.source_port,
            timeout_ms: request.connect_timeout_ms,
            identify: Identify::Banner,
            nonce: random(),
        };
        let (socket, local) = match open(&attempt, request.bytes_per_second) {
            Ok(opened) => opened,
            Err(outcome) => {
                let report = Box::new(BulkReport { started_us: started.wall, ..BulkReport::default() });
                let end = FlowEnd::NotEstablished(outcome);
                self.ended.push((id, Body::Bulk(BulkResult { end, report })));
                return;
            }
        };
        let after = |milliseconds: u32| started.monotonic + u64::from(milliseconds) * MILLISECOND;
        let key = self.running.insert(Running {
            id,
            socket,
            direction: request.direction,
            stage: Stage::Handshake,
            started,
            connect_deadline: after(request.connect_timeout_ms),
            limit: after(request.limit_ms),
            timer: 0,
            connect_us: None,
            local,
            banner: None,
            inbox: Vec::new(),
            faults: 0,
            last_fault: None,
        });
        self.keys.insert(id, key);
        let token = Token::new(Kind::Bulk, key);
        let Some(bulk) = self.running.get_mut(key) else { return };
        bulk.set_timer(reactor, token);
        if let Err(errno) = reactor.watch(&bulk.socket, token, Ready::IN | Ready::OUT) {
            let failure = Failure { attempted: "watch a bulk transfer's socket".into(), errno: errno.raw_os_error() };
            self.end(reactor, key, FlowEnd::AgentFailed(failure));
        }
    }

    /// A transfer's socket became ready.
    pub(crate) fn ready(&mut self, reactor: &mut Reactor, key: Key) {
        let Some(bulk) = self.running.get_mut(key) else { return };
        let was_open = bulk.is_open();
        if let Some(end) = bulk.advance(reactor, Token::new(Kind::Bulk, key), &mut self.piece) {
            self.end(reactor, key, end);
        } else if bulk.is_open() && !was_open {
            bulk.set_timer(reactor, Token::new(Kind::Bulk, key));
        }
    }

    /// A transfer's timer is due: time to look, or the end.
    pub(crate) fn due(&mut self, reactor: &mut Reactor, key: Key) {
        let Some(bulk) = self.running.get_mut(key) else { return };
        let now = now();
        let end = if now.monotonic >= bulk.limit {
            bulk.look(now);
            Some(FlowEnd::Limit)
        } else if !bulk.is_open() && now.monotonic >= bulk.connect_deadline {
            Some(FlowEnd::NotEstablished(Outcome::TimedOut))
        } else {
            bulk.tick(now);
            None
        };
        match end {
            Some(end) => self.end(reactor, key, end),
            None => bulk.set_timer(reactor, Token::new(Kind::Bulk, key)),
        }
    }

    /// The figures of the transfer that this request began, while it runs.
    pub(crate) fn state(&mut self, id: u64) -> Option<Box<BulkReport>> {
        let bulk = self.running.get_mut(*self.keys.get(&id)?)?;
        bulk.look(now());
        Some(bulk.report())
    }

    /// Ends the transfer that this request began, if it runs.
    pub(crate) fn end_by_request(&mut self, reactor: &mut Reactor, id: u64) {
        if let Some(key) = self.keys.get(&id).copied() {
            if let Some(bulk) = self.running.get_mut(key) {
                bulk.look(now());
            }
            self.end(reactor, key, FlowEnd::Asked);
        }
    }

    fn end(&mut self, reactor: &mut Reactor, key: Key, end: FlowEnd) {
        let Some(mut bulk) = self.running.remove(key) else { return };
        reactor.disarm(Token::new(Kind::Bulk, key), bulk.timer);
        self.keys.remove(&bulk.id);
        self.ended.push((bulk.id, Body::Bulk(BulkResult { end, report: bulk.report() })));
    }

    /// The results since the last call.
    pub(crate) fn take_ended(&mut self) -> Vec<(u64, Body)> {
        core::mem::take(&mut self.ended)
    }

    /// Drops every transfer without a result.
    pub(crate) fn cancel_all(&mut self, reactor: &mut Reactor) {
        for key in self.running.keys() {
            self.end(reactor, key, FlowEnd::Asked);
        }
        self.ended.clear();
    }
}

impl Running {
    const fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Open { .. })
    }

    /// Next thing to do.
    fn set_timer(&mut self, reactor: &mut Reactor, token: Token) {
        reactor.disarm(token, self.timer);
        let next = if let Stage::Open { tick, .. } = self.stage { tick } else { self.connect_deadline };
        self.timer = next.min(self.limit);
        reactor.arm(token, self.timer);
    }

    fn advance(&mut self, reactor: &Reactor, token: Token, piece: &mut [u8]) -> Option<FlowEnd> {
        if matches!(self.stage, Stage::Handshake) {
            match tcp::handshake(&self.socket) {
                Handshake::Pending => return None,
                Handshake::Failed(outcome) => return Some(FlowEnd::NotEstablished(outcome)),
                Handshake::Done => {}
            }
            self.connect_us = Some(now().monotonic.saturating_sub(self.started.monotonic));
            self.local = local_address(&self.socket);
            self.stage = Stage::Banner;
            if let Err(errno) = reactor.rewatch(&self.socket, token, Ready::IN) {
                return Some(FlowEnd::NotEstablished(classify::failed("watch a socket", errno)));
            }
        }
        if let Some(end) = self.receive(piece) {
            return Some(end);
        }
        if matches!(self.stage, Stage::Accepted) {
            self.stage = self.begin();
            let interest = if self.direction == Direction::Send { Ready::IN | Ready::OUT } else { Ready::IN };
            if let Err(errno) = reactor.rewatch(&self.socket, token, interest) {
                return Some(FlowEnd::NotEstablished(classify::failed("watch a socket", errno)));
            }
            // What came with the line that began it.
            let early = core::mem::take(&mut self.inbox);
            if let Some(end) = self.take_in(&early) {
                return Some(end);
            }
        }
        if self.is_open() && self.direction == Direction::Send { self.send() } else { None }
    }

    fn begin(&self) -> Stage {
        let began = now();
        let acknowledged = options::bytes_acknowledged(&self.socket).unwrap_or(0);
        Stage::Open { ledger: Ledger::new(began), acknowledged, handed: 0, tick: began.monotonic + TICK }
    }

    fn receive(&mut self, piece: &mut [u8]) -> Option<FlowEnd> {
        let mut read = 0;
        while read < TURN && !matches!(self.stage, Stage::Accepted) {
            match net::recv(&self.socket, &mut *piece, RecvFlags::empty()) {
                Ok((0, _)) => return Some(FlowEnd::Closed),
                Ok((length, _)) if self.is_open() => {
                    read += length;
                    if let Some(end) = self.take_in(piece.get(..length).unwrap_or_default()) {
                        return Some(end);
                    }
                }
                Ok((length, _)) => {
                    self.inbox.extend_from_slice(piece.get(..length).unwrap_or_default());
                    if let Some(end) = self.read_lines() {
                        return Some(end);
                    }
                }
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(errno) => {
                    if let Some(end) = self.broken(errno) {
                        return Some(end);
                    }
                }
            }
        }
        None
    }

    /// The banner, then the word that the transfer may begin.
    fn read_lines(&mut self) -> Option<FlowEnd> {
        while let Some(length) = self.inbox.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.inbox.drain(..=length).collect();
            if self.banner.is_some() {
                if line != BULK_ACCEPTED {
                    return Some(no_peer(&line));
                }
                self.stage = Stage::Accepted;
                return None;
            }
            let Ok(banner) = serde_json::from_slice::<Banner>(&line) else { return Some(no_peer(&line)) };
            self.banner = Some(banner);
            let word = if self.direction == Direction::Send { BULK_SINK } else { BULK_SOURCE };
            // A fresh connection's send buffer has room for the line.
            if let Err(errno) = net::send(&self.socket, word, SendFlags::NOSIGNAL) {
                return self.broken(errno);
            }
        }
        (self.inbox.len() > LONGEST_LINE).then(|| no_peer(&self.inbox))
    }

    fn send(&mut self) -> Option<FlowEnd> {
        let mut sent = 0;
        while sent < TURN {
            let Stage::Open { handed, .. } = &mut self.stage else { return None };
            match net::send(&self.socket, pattern::from(*handed), SendFlags::NOSIGNAL) {
                Ok(length) => {
                    sent += length;
                    *handed += length as u64;
                }
                Err(Errno::AGAIN | Errno::NOBUFS) => break,
                Err(Errno::INTR) => {}
                Err(errno) => return self.broken(errno),
            }
        }
        self.look(now());
        None
    }

    /// Counts what the peer sent; the end if that is not what it must be.
    fn take_in(&mut self, bytes: &[u8]) -> Option<FlowEnd> {
        let Stage::Open { ledger, .. } = &mut self.stage else { return None };
        if self.direction == Direction::Send {
            let why = match bytes {
                [] => return None,
                BULK_SPOILT => "the peer got other bytes than were sent".into(),
                _ => format!("{} bytes came back from a sink", bytes.len()),
            };
            return Some(FlowEnd::Garbled { why });
        }
        let from = ledger.bytes();
        if !pattern::is_right(from, bytes) {
            let to = from + bytes.len() as u64;
            return Some(FlowEnd::Garbled { why: format!("bytes {from} to {to} are not those that were sent") });
        }
        ledger.count(bytes.len() as u64, now());
        None
    }

    /// Counts what the peer has acknowledged since the last time.
    fn look(&mut self, now: Moment) {
        if self.direction == Direction::Send
            && let Stage::Open { ledger, acknowledged, .. } = &mut self.stage
            && let Ok(total) = options::bytes_acknowledged(&self.socket)
        {
            ledger.count(total.saturating_sub(*acknowledged), now);
            *acknowledged = total.max(*acknowledged);
        }
    }

    fn tick(&mut self, now: Moment) {
        self.look(now);
        if let Stage::Open { ledger, tick, .. } = &mut self.stage {
            let late = now.monotonic.saturating_sub(*tick);
            ledger.woke_late(late, now);
            *tick += (late / TICK + 1) * TICK;
        }
    }

    /// The socket reported an error; none: the connection survives it.
    fn broken(&mut self, errno: Errno) -> Option<FlowEnd> {
        let error = QueuedError { errno: errno.raw_os_error(), icmp: None };
        let fault = Unreachable { icmp: None, errno: error.errno };
        /// The kernel's number of a connection that is over (`TCP_CLOSE`).
        const CLOSED: u8 = 7;
        if options::tcp_figures(&self.socket).is_ok_and(|figures| figures.state != CLOSED) {
            self.faults += 1;
            self.last_fault = Some(fault);
            return None;
        }
        let outcome = classify::reported(Transport::Tcp, error);
        if !self.is_open() {
            return Some(FlowEnd::NotEstablished(outcome));
        }
        Some(match outcome {
            Outcome::Reset => FlowEnd::Reset,
            Outcome::TimedOut => FlowEnd::TimedOut,
            _ => FlowEnd::Unreachable(fault),
        })
    }

    fn report(&mut self) -> Box<BulkReport> {
        let now = now();
        let counted = if let Stage::Open { ledger, .. } = &mut self.stage {
            ledger.report(now.monotonic)
        } else {
            BulkReport::default()
        };
        Box::new(BulkReport {
            started_us: self.started.wall,
            took_us: now.monotonic.saturating_sub(self.started.monotonic),
            connect_us: self.connect_us,
            local: self.local,
            identity: self.banner.as_ref().map(|banner| banner.identity.clone()),
            seen_as: self.banner.as_ref().map(|banner| banner.peer),
            faults: self.faults,
            last_fault: self.last_fault,
            tcp: options::tcp_figures(&self.socket).ok(),
            ..counted
        })
    }
}

/// Can this transfer be begun? If not, what could not be done.
fn check(request: &Bulk, running: usize) -> Result<(), String> {
    if request.direction == Direction::Receive && request.bytes_per_second.is_some() {
        return Err("pace what the peer sends: only what is sent from here is paced".into());
    }
    if running >= BULKS {
        return Err(format!("begin another bulk transfer: {BULKS} run here already; end one"));
    }
    Ok(())
}

/// Opens the socket and sends the SYN.
fn open(attempt: &Probe, bytes_per_second: Option<u32>) -> Result<(OwnedFd, Option<SocketAddr>), Outcome> {
    let (socket, local) = tcp::open(attempt).map_err(|stop| match stop {
        Stop::Ended(outcome) => outcome,
        Stop::OutOfFiles => classify::failed("open a socket", Errno::MFILE),
    })?;
    if let Some(rate) = bytes_per_second {
        options::pace(&socket, rate).map_err(|errno| classify::failed("pace a socket", errno))?;
    }
    Ok((socket, local))
}

fn no_peer(said: &[u8]) -> FlowEnd {
    let said = String::from_utf8_lossy(said.get(..said.len().min(200)).unwrap_or_default()).trim().to_string();
    let attempted = format!("make a bulk transfer with a peer that is no echo port or an old one; it says '{said}'");
    FlowEnd::NotEstablished(Outcome::AgentFailed(Failure { attempted, errno: 0 }))
}
