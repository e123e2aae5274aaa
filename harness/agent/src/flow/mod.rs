//! Flows: a frame leaves every period whether or not replies come, for as long as the connection lives.
//!
//! * [`course`]: what is known of a flow, whatever carries it
//! * [`figures`]: what is counted
//! * [`stream`], [`datagrams`]: what carries it: TCP, UDP or ICMP
//! * [`bulk`]: as many bytes as go through, one way; [`pattern`]: which bytes; [`ledger`]: what is counted of them
//! * [`mirror`]: the other end over TCP

pub(crate) mod bulk;
mod course;
mod datagrams;
mod figures;
mod ledger;
pub(crate) mod mirror;
mod pattern;
mod stream;

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::vec::Vec;

use rustix::io::Errno;

use self::course::Course;
use self::datagrams::{Datagrams, Form};
use self::stream::Stream;
use crate::agent::random;
use crate::clock::{MILLISECOND, monotonic_us};
use crate::probe::{Stop, classify, datagram, echo, tcp};
use crate::protocol::{
    Body, FLOW_PERIODS_US, FLOWS, Failure, Flow, FlowEnd, FlowReport, FlowResult, IcmpMeans, Identify, Outcome, Probe,
    Transport,
};
use crate::reactor::{Kind, Reactor, Ready, Token};
use crate::slab::{Key, Slab};
use crate::sys::options;

/// All flows.
pub(crate) struct Flows {
    running: Slab<Running>,
    /// By the request that began it.
    keys: BTreeMap<u64, Key>,
    ended: Vec<(u64, Body)>,
}

/// A flow. Times are monotonic microseconds.
struct Running {
    id: u64,
    carrier: Carrier,
    course: Course,
    period: u64,
    connect_deadline: u64,
    limit: u64,
    /// When the next frame is due.
    next: u64,
    timer: u64,
}

enum Carrier {
    Tcp(Stream),
    /// UDP and ICMP.
    Datagrams(Datagrams),
}

impl Flows {
    pub(crate) const fn new() -> Self {
        Self { running: Slab::new(), keys: BTreeMap::new(), ended: Vec::new() }
    }

    /// Begins a flow.
    pub(crate) fn take(&mut self, reactor: &mut Reactor, id: u64, request: Flow) {
        if let Err(attempted) = check(&request, self.running.len()) {
            self.ended.push((id, Body::Failed(Failure { attempted, errno: 0 })));
            return;
        }
        let mut course = Course::new(request.transport == Transport::Tcp, request.period_us);
        match open(&request, &mut course) {
            Ok(carrier) => self.run(reactor, Running::new(id, &request, carrier, course)),
            Err(stop) => {
                let outcome = match stop {
                    Stop::Ended(outcome) => outcome,
                    Stop::OutOfFiles => classify::failed("open a socket", Errno::MFILE),
                };
                let end = FlowEnd::NotEstablished(outcome);
                self.ended.push((id, Body::Flow(FlowResult { end, report: course.report() })));
            }
        }
    }

    fn run(&mut self, reactor: &mut Reactor, running: Running) {
        let id = running.id;
        let key = self.running.insert(running);
        self.keys.insert(id, key);
        let token = Token::new(Kind::Flow, key);
        let Some(flow) = self.running.get_mut(key) else { return };
        let watched = match &flow.carrier {
            Carrier::Tcp(stream) => {
                reactor.watch(&stream.socket, token, Ready::IN | Ready::OUT | Ready::RDHUP | Ready::ET)
            }
            Carrier::Datagrams(datagrams) => reactor.watch(&datagrams.socket, token, Ready::IN),
        };
        match watched {
            Ok(()) => flow.set_timer(reactor, token),
            Err(errno) => {
                let failure = Failure { attempted: "watch a flow's socket".into(), errno: errno.raw_os_error() };
                self.end(reactor, key, FlowEnd::AgentFailed(failure));
            }
        }
    }

    /// A flow's socket became ready.
    pub(crate) fn ready(&mut self, reactor: &mut Reactor, key: Key) {
        let Some(flow) = self.running.get_mut(key) else { return };
        let was_established = flow.course.is_established();
        let end = match &mut flow.carrier {
            Carrier::Tcp(stream) => stream.advance(&mut flow.course),
            Carrier::Datagrams(datagrams) => datagrams.advance(&mut flow.course),
        };
        if let Some(end) = end {
            self.end(reactor, key, end);
        } else if !was_established && flow.course.is_established() {
            let token = Token::new(Kind::Flow, key);
            reactor.disarm(token, flow.timer);
            if matches!(flow.carrier, Carrier::Tcp(_)) {
                flow.next = monotonic_us();
            }
            flow.set_timer(reactor, token);
        }
    }

    /// A flow's timer is due: a frame, or the end.
    pub(crate) fn due(&mut self, reactor: &mut Reactor, key: Key) {
        let Some(flow) = self.running.get_mut(key) else { return };
        let now = monotonic_us();
        let end = if now >= flow.limit {
            Some(FlowEnd::Limit)
        } else if !flow.course.is_established() && now >= flow.connect_deadline {
            Some(FlowEnd::NotEstablished(Outcome::TimedOut))
        } else if now >= flow.next {
            flow.tick(now)
        } else {
            None
        };
        match end {
            Some(end) => self.end(reactor, key, end),
            None => flow.set_timer(reactor, Token::new(Kind::Flow, key)),
        }
    }

    /// The figures of the flow that this request began, while it runs.
    pub(crate) fn state(&mut self, id: u64) -> Option<Box<FlowReport>> {
        let key = self.keys.get(&id)?;
        self.running.get_mut(*key).map(|flow| flow.report())
    }

    /// Ends the flow that this request began, if it runs.
    pub(crate) fn end_by_request(&mut self, reactor: &mut Reactor, id: u64) {
        if let Some(key) = self.keys.get(&id) {
            self.end(reactor, *key, FlowEnd::Asked);
        }
    }

    fn end(&mut self, reactor: &mut Reactor, key: Key, end: FlowEnd) {
        let Some(flow) = self.running.remove(key) else { return };
        reactor.disarm(Token::new(Kind::Flow, key), flow.timer);
        self.keys.remove(&flow.id);
        self.ended.push((flow.id, Body::Flow(FlowResult { end, report: flow.report() })));
    }

    /// The results since the last call.
    pub(crate) fn take_ended(&mut self) -> Vec<(u64, Body)> {
        core::mem::take(&mut self.ended)
    }

    /// Drops every flow without a result.
    pub(crate) fn cancel_all(&mut self, reactor: &mut Reactor) {
        for key in self.running.keys() {
            self.end(reactor, key, FlowEnd::Asked);
        }
        self.ended.clear();
    }
}

impl Running {
    fn new(id: u64, request: &Flow, carrier: Carrier, course: Course) -> Self {
        let started = course.started();
        let after = |milliseconds: u32| started + u64::from(milliseconds) * MILLISECOND;
        Self {
            id,
            period: u64::from(request.period_us),
            connect_deadline: after(request.connect_timeout_ms),
            limit: after(request.limit_ms),
            // TCP: once it is established.
            next: if matches!(carrier, Carrier::Tcp(_)) { u64::MAX } else { started },
            timer: 0,
            carrier,
            course,
        }
    }

    /// Next thing to do: a frame, or the end.
    fn set_timer(&mut self, reactor: &mut Reactor, token: Token) {
        let deadline = if self.course.is_established() { u64::MAX } else { self.connect_deadline };
        self.timer = self.next.min(deadline).min(self.limit);
        reactor.arm(token, self.timer);
    }

    /// Sends the frame that is due. Those that should have left meanwhile are left out: a burst would measure itself.
    fn tick(&mut self, now: u64) -> Option<FlowEnd> {
        let late = now - self.next;
        let missed = late / self.period;
        self.course.figures.woke_late(late);
        self.course.figures.missed += missed;
        self.next += (missed + 1) * self.period;
        match &mut self.carrier {
            Carrier::Tcp(stream) => stream.send(&mut self.course),
            Carrier::Datagrams(datagrams) => datagrams.send(&mut self.course),
        }
    }

    fn report(&self) -> Box<FlowReport> {
        let mut report = self.course.report();
        match &self.carrier {
            Carrier::Tcp(stream) => report.tcp = stream.tcp(),
            Carrier::Datagrams(datagrams) => report.nonce = Some(datagrams.base),
        }
        report
    }
}

/// Can this flow be begun? If not, what could not be done.
fn check(request: &Flow, running: usize) -> Result<(), alloc::string::String> {
    if !FLOW_PERIODS_US.contains(&request.period_us) {
        let (shortest, longest) = (FLOW_PERIODS_US.start(), FLOW_PERIODS_US.end());
        let period = request.period_us;
        return Err(format!("begin a flow with a period of {period} us: it takes {shortest} to {longest}"));
    }
    if running >= FLOWS {
        return Err(format!("begin another flow: {FLOWS} run here already; end one"));
    }
    Ok(())
}

/// Opens the socket. TCP: the SYN is sent here.
fn open(request: &Flow, course: &mut Course) -> Result<Carrier, Stop> {
    let nonce = random();
    let attempt = Probe {
        transport: request.transport,
        to: request.to,
        from: request.from,
        source_port: request.source_port,
        timeout_ms: request.connect_timeout_ms,
        identify: Identify::Banner,
        nonce,
    };
    let (carrier, local) = match request.transport {
        Transport::Tcp => {
            let (socket, local) = tcp::open(&attempt)?;
            (Carrier::Tcp(Stream::new(socket)), local)
        }
        Transport::Udp => {
            let (socket, local) = datagram::open(&attempt)?;
            (Carrier::Datagrams(Datagrams::new(socket, Form::Banner, nonce)), local)
        }
        Transport::Icmp => (Carrier::Datagrams(open_echo(&attempt)?), None),
    };
    course.local = local;
    Ok(carrier)
}

/// A raw socket of the flow's own where that is allowed: unlike the one that probes share it is connected, so that the
/// kernel hands it the errors about its target. Else a ping socket.
fn open_echo(attempt: &Probe) -> Result<Datagrams, Stop> {
    let to = attempt.to.ip();
    if echo::means() != IcmpMeans::Raw {
        let (socket, _) = datagram::open(attempt)?;
        return Ok(Datagrams::new(socket, Form::Echo { to, identifier: 0, headed: false }, attempt.nonce));
    }
    let failed = |what: &'static str| {
        move |errno: Errno| match errno {
            Errno::MFILE | Errno::NFILE => Stop::OutOfFiles,
            errno => Stop::Ended(classify::failed(what, errno)),
        }
    };
    let socket = echo::open(to.is_ipv6(), attempt.from).map_err(failed("open a raw ICMP socket"))?;
    let (level, option) =
        if to.is_ipv6() { (libc::IPPROTO_IPV6, libc::IPV6_RECVERR) } else { (libc::IPPROTO_IP, libc::IP_RECVERR) };
    options::set_int(&socket, level, option, 1).map_err(failed("ask for ICMP errors"))?;
    let mut target = attempt.to;
    // For a raw socket the port would be a protocol number.
    target.set_port(0);
    rustix::net::connect(&socket, &target).map_err(|errno| Stop::Ended(classify::not_sent(errno)))?;
    // An identifier of its own: to connection trackers each flow is a conversation of its own. 0 is no identifier here.
    let identifier = attempt.source_port.unwrap_or(attempt.nonce as u16).max(1);
    Ok(Datagrams::new(socket, Form::Echo { to, identifier, headed: to.is_ipv4() }, attempt.nonce))
}
