//! One attached client: lines in, lines out. By a connection of its own, or by a console, on which clients come and go
//! unseen: there one begins with [`Attachment::greet`].

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use serde::Deserialize;

use super::outbox::{Outbox, line};
use crate::protocol::{MAX_LINE, Message, Request};
use crate::reactor::{Reactor, Ready, Token};

/// Bytes read, or gathered for sending, before others get their turn.
const TURN: usize = 64 * 1024;

/// What a console is watched for. Told on each change only: one without anybody at its other end is always ready.
pub(super) const CONSOLE_INTEREST: Ready = Ready::IN.union(Ready::OUT).union(Ready::ET);

/// A line from the client.
pub(super) enum Line {
    Request(Request),
    /// `id` is 0 where not even that can be read.
    Malformed {
        id: u64,
        reason: String,
    },
}

/// What a client is attached by.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Carrier {
    /// A connection: it is gone with its client.
    Connection,
    /// A console: kernel messages, login prompts and halves of lines come between, and it is never gone.
    Console,
}

/// A client.
pub(super) struct Attachment {
    socket: OwnedFd,
    carrier: Carrier,
    token: Token,
    interest: Ready,
    input: Vec<u8>,
    /// Whole lines on their way out, and how much of them is sent.
    output: Vec<u8>,
    sent: usize,
    /// Lines that are not answers: they go before the next answer.
    unnumbered: Vec<u8>,
    /// Number of the next answer to send; none until the client said where to start.
    next: Option<u64>,
    /// Console: somebody greeted since the agent began to serve it.
    greeted: bool,
    /// Console: the line that comes in is too long to be one; its rest is thrown away.
    overlong: bool,
    /// The client will say no more.
    silent: bool,
    gone: bool,
}

impl Attachment {
    /// `socket` does not block and is watched: a connection for [`Ready::IN`], a console for [`CONSOLE_INTEREST`].
    pub(super) const fn new(socket: OwnedFd, carrier: Carrier, token: Token) -> Self {
        Self {
            socket,
            carrier,
            token,
            interest: Ready::IN,
            input: Vec::new(),
            output: Vec::new(),
            sent: 0,
            unnumbered: Vec::new(),
            next: None,
            greeted: false,
            overlong: false,
            silent: false,
            gone: false,
        }
    }

    /// A client (re)connects by a console: what the last one was to be told is not for this one.
    pub(super) fn greet(&mut self) {
        self.greeted = true;
        if self.carrier == Carrier::Console {
            self.output.clear();
            self.sent = 0;
            self.unnumbered.clear();
            // Half a line may have left.
            self.unnumbered.push(b'\n');
            self.next = None;
        }
    }

    /// Is this somebody to be answered? On a console only who greeted.
    pub(super) const fn is_known(&self) -> bool {
        self.greeted || matches!(self.carrier, Carrier::Connection)
    }

    /// Sends answers from this number on.
    pub(super) const fn start(&mut self, seq: u64) {
        self.next = Some(seq);
    }

    /// Sends a message that is not kept.
    pub(super) fn say(&mut self, message: &Message) {
        self.unnumbered.extend(line(message));
    }

    /// Whole lines that came in.
    pub(super) fn read(&mut self) -> Vec<Line> {
        let mut lines = Vec::new();
        let mut buffer = [0; 16 * 1024];
        let mut taken = 0;
        // A console tells once that there is something: it is read until there is no more.
        while (taken < TURN || self.carrier == Carrier::Console) && !self.silent && !self.gone {
            match self.receive(&mut buffer) {
                // Nobody is at the other end of the console; its driver tells when somebody is.
                Ok(0) | Err(Errno::IO) if self.carrier == Carrier::Console => break,
                Ok(0) => self.silent = true,
                Ok(length) => {
                    taken += length;
                    self.input.extend_from_slice(buffer.get(..length).unwrap_or_default());
                    self.split(&mut lines);
                }
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(_) => self.gone = true,
            }
        }
        lines
    }

    fn receive(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        match self.carrier {
            Carrier::Connection => recv(&self.socket, buffer, RecvFlags::empty()).map(|(length, _)| length),
            Carrier::Console => rustix::io::read(&self.socket, buffer),
        }
    }

    fn transmit(&self, bytes: &[u8]) -> Result<usize, Errno> {
        match self.carrier {
            Carrier::Connection => send(&self.socket, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT),
            // A driver that takes nothing now says so in its own way.
            Carrier::Console => match rustix::io::write(&self.socket, bytes) {
                Ok(0) | Err(Errno::IO | Errno::PIPE | Errno::NODEV) => Err(Errno::AGAIN),
                sent => sent,
            },
        }
    }

    fn split(&mut self, lines: &mut Vec<Line>) {
        let mut start = 0;
        while let Some(length) = self.input.get(start..).and_then(|rest| rest.iter().position(|byte| *byte == b'\n')) {
            let text = self.input.get(start..start + length).unwrap_or_default();
            if !text.trim_ascii().is_empty() && !self.overlong {
                match (parse(text), self.carrier) {
                    // Noise, or a line that was cut by the end of the client before.
                    (Line::Malformed { id: 0, .. }, Carrier::Console) => {}
                    (line, _) => lines.push(line),
                }
            }
            self.overlong = false;
            start += length + 1;
        }
        self.input.drain(..start);
        if self.input.len() > MAX_LINE {
            // Whoever sends no line ends is no client.
            self.gone |= self.carrier == Carrier::Connection;
            self.overlong = true;
            self.input.clear();
        }
    }

    /// Sends what the socket takes. False when the client is gone, or has said its last word and got every answer.
    pub(super) fn flush(&mut self, reactor: &Reactor, outbox: &Outbox, idle: bool) -> bool {
        let blocked = loop {
            if self.gone {
                return false;
            }
            if self.sent == self.output.len() {
                self.gather(outbox);
                if self.output.is_empty() {
                    break false;
                }
            }
            let rest = self.output.get(self.sent..).unwrap_or_default();
            match self.transmit(rest) {
                Ok(length) => self.sent += length,
                Err(Errno::AGAIN) => break true,
                Err(Errno::INTR) => {}
                Err(_) => self.gone = true,
            }
        };
        if self.carrier == Carrier::Console {
            return true;
        }
        if self.silent && !blocked && (idle || self.next.is_none()) {
            return false;
        }
        let mut interest = if self.silent { Ready::empty() } else { Ready::IN };
        if blocked {
            interest |= Ready::OUT;
        }
        if interest != self.interest {
            self.interest = interest;
            return reactor.rewatch(&self.socket, self.token, interest).is_ok();
        }
        true
    }

    fn gather(&mut self, outbox: &Outbox) {
        self.output.clear();
        self.sent = 0;
        self.output.append(&mut self.unnumbered);
        while let Some(next) = self.next
            && self.output.len() < TURN
            && let Some((seq, line)) = outbox.from(next)
        {
            self.output.extend_from_slice(line);
            self.next = Some(seq + 1);
        }
    }

    /// The socket reports an error or the end of both directions. A console only has nobody at its other end.
    pub(super) const fn hang_up(&mut self) {
        self.gone |= matches!(self.carrier, Carrier::Connection);
    }

    /// Is everything handed to the kernel?
    pub(super) const fn is_drained(&self) -> bool {
        self.sent == self.output.len() && self.unnumbered.is_empty()
    }

    /// What the client is attached by.
    pub(super) const fn file(&self) -> &OwnedFd {
        &self.socket
    }
}

fn parse(text: &[u8]) -> Line {
    #[derive(Deserialize)]
    struct OnlyId {
        id: u64,
    }
    serde_json::from_slice(text).map_or_else(
        |error| Line::Malformed {
            id: serde_json::from_slice::<OnlyId>(text).map_or(0, |only| only.id),
            reason: format!("understand a request: {error}"),
        },
        Line::Request,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Op;

    #[test]
    fn what_cannot_be_understood_is_answered_under_its_id() {
        assert!(matches!(parse(br#"{"id":3,"op":"ping"}"#), Line::Request(Request { id: 3, op: Op::Ping })));
        assert!(matches!(parse(br#"{"id":4,"op":{"fly":{"to":"moon"}}}"#), Line::Malformed { id: 4, .. }));
        assert!(matches!(parse(b"GET / HTTP/1.1"), Line::Malformed { id: 0, .. }));
    }
}
