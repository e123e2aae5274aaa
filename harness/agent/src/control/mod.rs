//! The control stream: who is attached, and the answers that are kept until acknowledged.
//!
//! * [`attachment`]: one attached client: lines in, lines out
//! * [`console`]: a terminal or serial port made fit to carry lines
//! * [`outbox`]: answers kept

mod attachment;
pub(crate) mod console;
mod outbox;

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use rustix::event::{Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};

use self::attachment::{Attachment, CONSOLE_INTEREST, Carrier, Line};
use self::outbox::Outbox;
use crate::clock::{MILLISECOND, monotonic_us};
use crate::protocol::{Body, Failure, Message, Op, Request, WINDOW};
use crate::reactor::{Kind, Reactor, Ready, Token};

/// How long the last words may take to leave by a console, milliseconds.
const DRAIN_MS: u64 = 500;

/// Pace of looking whether they have, nanoseconds.
const DRAIN_PACE_NS: i64 = 2_000_000;

/// The control socket and everything about whom it serves.
pub(crate) struct Control {
    /// None: there is a console instead.
    socket: Option<OwnedFd>,
    attachment: Option<Attachment>,
    /// Number of the newest attachment: events of an older one find nobody.
    number: u64,
    outbox: Outbox,
    /// Requests that are being worked on.
    working: BTreeSet<u64>,
    session: u64,
}

/// What the agent has to do about a line.
pub(crate) enum Task {
    /// A request that is neither known nor too much.
    Do(Request),
    /// Another client has taken over: what the last one asked for is of no use.
    Forget,
    /// Say hello, under this id.
    Greet(u64),
}

impl Control {
    /// `socket` listens and does not block; none where a console is served instead ([`Control::serve_console`]).
    pub(crate) const fn new(socket: Option<OwnedFd>) -> Self {
        Self { socket, attachment: None, number: 0, outbox: Outbox::new(), working: BTreeSet::new(), session: 0 }
    }

    pub(crate) const fn socket(&self) -> Option<&OwnedFd> {
        self.socket.as_ref()
    }

    /// Serves whoever greets on a console ([`console::open`]).
    pub(crate) fn serve_console(&mut self, reactor: &Reactor, device: OwnedFd) -> Result<(), Errno> {
        self.number += 1;
        let token = Token::new(Kind::Attachment, self.number);
        reactor.watch(&device, token, CONSOLE_INTEREST)?;
        self.attachment = Some(Attachment::new(device, Carrier::Console, token));
        Ok(())
    }

    /// Is a client or a console there?
    pub(crate) const fn is_attached(&self) -> bool {
        self.attachment.is_some()
    }

    /// Says hello to whoever greeted.
    pub(crate) fn greet(&mut self, id: u64, hello: Body) {
        self.say(&Message { seq: 0, id, body: hello });
    }

    pub(crate) const fn session(&self) -> u64 {
        self.session
    }

    pub(crate) const fn last_seq(&self) -> u64 {
        self.outbox.last_seq()
    }

    /// Somebody attaches: the last one wins. `hello` is said first.
    pub(crate) fn accept(&mut self, reactor: &Reactor, hello: Body) {
        let Some(listening) = &self.socket else { return };
        while let Ok(socket) = accept_with(listening, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
            self.number += 1;
            let token = Token::new(Kind::Attachment, self.number);
            if reactor.watch(&socket, token, Ready::IN).is_ok() {
                let mut attachment = Attachment::new(socket, Carrier::Connection, token);
                attachment.say(&Message { seq: 0, id: 0, body: hello.clone() });
                self.attachment = Some(attachment);
            }
        }
    }

    /// The attachment became ready: what it asks for.
    pub(crate) fn ready(&mut self, number: u64, ready: Ready) -> Vec<Task> {
        let mut tasks = Vec::new();
        let Some(attachment) = self.attachment.as_mut().filter(|_| number == self.number) else { return tasks };
        let lines = attachment.read();
        if ready.intersects(Ready::HUP | Ready::ERR) {
            attachment.hang_up();
        }
        for line in lines {
            match line {
                Line::Request(request) => self.take(request, &mut tasks),
                Line::Malformed { id, reason } => {
                    let body = Body::Failed(Failure { attempted: reason, errno: 0 });
                    // An id that can be told apart gets an answer like any other.
                    if id == 0 || self.working.contains(&id) || self.outbox.has(id) {
                        self.say(&Message { seq: 0, id, body });
                    } else {
                        self.outbox.put(id, body);
                    }
                }
            }
        }
        tasks
    }

    fn take(&mut self, request: Request, tasks: &mut Vec<Task>) {
        if request.op == Op::Greet {
            if let Some(attachment) = &mut self.attachment {
                attachment.greet();
            }
            tasks.push(Task::Greet(request.id));
            return;
        }
        if !self.attachment.as_ref().is_some_and(Attachment::is_known) {
            return;
        }
        match request.op {
            Op::Attach { session, after } => {
                let mut after = after;
                if session != self.session {
                    self.session = session;
                    self.outbox.clear();
                    self.working.clear();
                    tasks.push(Task::Forget);
                    // What that session had from an earlier life of the agent has nothing to do with these numbers.
                    after = 0;
                }
                self.outbox.acknowledge(after);
                if let Some(attachment) = &mut self.attachment {
                    attachment.start(after + 1);
                }
            }
            Op::Ack { up_to } => self.outbox.acknowledge(up_to),
            _ if self.working.contains(&request.id) || self.outbox.has(request.id) => {}
            _ if self.working.len() + self.outbox.len() >= WINDOW || self.outbox.is_full() => {
                self.say(&Message { seq: 0, id: request.id, body: Body::Busy });
            }
            _ => {
                self.working.insert(request.id);
                tasks.push(Task::Do(request));
            }
        }
    }

    /// Keeps an answer, to be sent now and again until it is acknowledged.
    pub(crate) fn answer(&mut self, id: u64, body: Body) {
        // An answer to a session that is gone interests nobody.
        if self.working.remove(&id) {
            self.outbox.put(id, body);
        }
    }

    fn say(&mut self, message: &Message) {
        if let Some(attachment) = &mut self.attachment {
            attachment.say(message);
        }
    }

    /// Sends what there is to send to a console, and waits until it is on its way, but not long: nobody may be reading.
    pub(crate) fn drain(&mut self, reactor: &Reactor) {
        let deadline = monotonic_us() + DRAIN_MS * MILLISECOND;
        while monotonic_us() < deadline {
            self.flush(reactor);
            let Some(attachment) = &self.attachment else { return };
            if attachment.is_drained() && console::is_drained(attachment.file()) {
                return;
            }
            // A serial port does not tell when its last byte has left.
            let _ = poll(&mut [], Some(&Timespec { tv_sec: 0, tv_nsec: DRAIN_PACE_NS }));
        }
    }

    /// Sends what there is to send; detaches a client that is gone or has got all that it asked for.
    pub(crate) fn flush(&mut self, reactor: &Reactor) {
        let Some(attachment) = &mut self.attachment else { return };
        if !attachment.flush(reactor, &self.outbox, self.working.is_empty()) {
            self.attachment = None;
        }
    }
}
