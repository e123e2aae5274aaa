//! One attached client: lines in, lines out.

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

/// A line from the client.
pub(super) enum Line {
    Request(Request),
    /// `id` is 0 where not even that can be read.
    Malformed {
        id: u64,
        reason: String,
    },
}

/// A client.
pub(super) struct Attachment {
    socket: OwnedFd,
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
    /// The client will say no more.
    silent: bool,
    gone: bool,
}

impl Attachment {
    pub(super) const fn new(socket: OwnedFd, token: Token) -> Self {
        Self {
            socket,
            token,
            interest: Ready::IN,
            input: Vec::new(),
            output: Vec::new(),
            sent: 0,
            unnumbered: Vec::new(),
            next: None,
            silent: false,
            gone: false,
        }
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
        while taken < TURN && !self.silent && !self.gone {
            match recv(&self.socket, &mut buffer, RecvFlags::empty()) {
                Ok((0, _)) => self.silent = true,
                Ok((length, _)) => {
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

    fn split(&mut self, lines: &mut Vec<Line>) {
        let mut start = 0;
        while let Some(length) = self.input.get(start..).and_then(|rest| rest.iter().position(|byte| *byte == b'\n')) {
            let text = self.input.get(start..start + length).unwrap_or_default();
            if !text.trim_ascii().is_empty() {
                lines.push(parse(text));
            }
            start += length + 1;
        }
        self.input.drain(..start);
        // Whoever sends no line ends is no client.
        self.gone |= self.input.len() > MAX_LINE;
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
            match send(&self.socket, rest, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(length) => self.sent += length,
                Err(Errno::AGAIN) => break true,
                Err(Errno::INTR) => {}
                Err(_) => self.gone = true,
            }
        };
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

    /// The socket reports an error or the end of both directions.
    pub(super) const fn hang_up(&mut self) {
        self.gone = true;
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
