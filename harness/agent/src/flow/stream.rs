//! A flow over TCP.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{self, RecvFlags, SendFlags, sockopt};

use super::course::{Course, now};
use crate::clock::monotonic_us;
use crate::probe::tcp::Handshake;
use crate::probe::{classify, local_address, tcp};
use crate::protocol::{Banner, Failure, FlowEnd, Outcome, TcpFigures, Transport, Unreachable};
use crate::sys::messages::{QueuedError, receive_error};
use crate::sys::options;

/// A frame: this and its number, big-endian.
const MAGIC: &[u8; 8] = b"udn-flow";
const FRAME: usize = 16;

/// A banner is shorter than this.
const LONGEST_BANNER: usize = 4096;

/// What may wait for being acknowledged, bytes as the kernel counts them: some 1300 for a frame.
const SEND_BUFFER: usize = 4 << 20;

/// The kernel's number of a connection that is over (`TCP_CLOSE`).
const CLOSED: u8 = 7;

/// The connection.
pub(super) struct Stream {
    pub(super) socket: OwnedFd,
    stage: Stage,
    /// Read, not yet a whole banner or frame.
    inbox: Vec<u8>,
    /// What the socket did not take of the last frame.
    rest: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Handshake,
    Banner,
    Open,
}

impl Stream {
    /// `socket` is connecting.
    pub(super) const fn new(socket: OwnedFd) -> Self {
        Self { socket, stage: Stage::Handshake, inbox: Vec::new(), rest: Vec::new() }
    }

    pub(super) fn tcp(&self) -> Option<TcpFigures> {
        options::tcp_figures(&self.socket).ok()
    }

    /// Reads all that came; says how the flow ended, if it did.
    pub(super) fn advance(&mut self, course: &mut Course) -> Option<FlowEnd> {
        if self.stage == Stage::Handshake {
            match tcp::handshake(&self.socket) {
                Handshake::Pending => return None,
                Handshake::Failed(outcome) => return Some(FlowEnd::NotEstablished(outcome)),
                Handshake::Done => {}
            }
            course.connected(local_address(&self.socket));
            if let Err(errno) = sockopt::set_tcp_nodelay(&self.socket, true) {
                return Some(FlowEnd::NotEstablished(classify::failed("set TCP_NODELAY", errno)));
            }
            // Frames go on leaving for some time when nothing is acknowledged. A frame takes a packet's room in there.
            options::enlarge_send_buffer(&self.socket, SEND_BUFFER);
            self.stage = Stage::Banner;
        }
        let mut buffer = [0; 4096];
        loop {
            match net::recv(&self.socket, &mut buffer, RecvFlags::empty()) {
                Ok((0, _)) => return Some(FlowEnd::Closed),
                Ok((length, _)) => {
                    self.inbox.extend_from_slice(buffer.get(..length).unwrap_or_default());
                    if let Some(end) = self.read(course) {
                        return Some(end);
                    }
                }
                Err(Errno::AGAIN) => return None,
                Err(Errno::INTR) => {}
                // An ICMP message that the connection survives.
                Err(errno) if !self.is_over() => self.survive(course, errno),
                Err(errno) => return Some(broken(course, errno)),
            }
        }
    }

    /// The socket reported an error, yet the connection lives: an ICMP message, of which the kernel tells an established
    /// connection the error number only.
    fn survive(&self, course: &mut Course, errno: Errno) {
        let queued = receive_error(&self.socket).ok().filter(|queued| queued.icmp.is_some());
        course.fault(queued.unwrap_or(QueuedError { errno: errno.raw_os_error(), icmp: None }));
    }

    fn is_over(&self) -> bool {
        self.tcp().is_none_or(|figures| figures.state == CLOSED)
    }

    fn read(&mut self, course: &mut Course) -> Option<FlowEnd> {
        if self.stage == Stage::Banner {
            let Some(length) = self.inbox.iter().position(|byte| *byte == b'\n') else {
                return (self.inbox.len() > LONGEST_BANNER).then(|| no_agent(&self.inbox));
            };
            let Ok(banner) = serde_json::from_slice::<Banner>(self.inbox.get(..length).unwrap_or_default()) else {
                return Some(no_agent(self.inbox.get(..length).unwrap_or_default()));
            };
            self.inbox.drain(..=length);
            self.stage = Stage::Open;
            course.established(banner.identity, Some(banner.peer));
        }
        let now = now();
        let mut read = 0;
        while let Some(frame) = self.inbox.get(read..read + FRAME) {
            read += FRAME;
            let number = frame.strip_prefix(MAGIC).and_then(|number| number.try_into().ok()).map(u64::from_be_bytes);
            let Some(number) = number else { return garbled("bytes came back that are no frame") };
            if !course.figures.reply(number, now) {
                return garbled("a frame came back that was never sent");
            }
            if course.figures.out_of_order() {
                return garbled("frames came back with one missing, or one twice");
            }
        }
        course.figures.bytes_received += read as u64;
        self.inbox.drain(..read);
        None
    }

    /// A frame is due.
    pub(super) fn send(&mut self, course: &mut Course) -> Option<FlowEnd> {
        if !self.rest.is_empty() {
            let rest = core::mem::take(&mut self.rest);
            if let Some(end) = self.put(course, &rest) {
                return Some(end);
            }
        }
        if !self.rest.is_empty() {
            course.figures.held_back += 1;
            return None;
        }
        let mut frame = [0; FRAME];
        let (magic, number) = frame.split_at_mut(MAGIC.len());
        magic.copy_from_slice(MAGIC);
        number.copy_from_slice(&course.figures.sent.to_be_bytes());
        let at = monotonic_us();
        let end = self.put(course, &frame);
        if self.rest.len() == FRAME {
            // Nothing of it left: it is not owed to the peer.
            self.rest.clear();
            course.figures.held_back += 1;
        } else if end.is_none() {
            course.figures.sent(at);
        }
        end
    }

    /// Gives the kernel what it takes; the rest of it waits.
    fn put(&mut self, course: &mut Course, bytes: &[u8]) -> Option<FlowEnd> {
        let sent = match net::send(&self.socket, bytes, SendFlags::NOSIGNAL) {
            Ok(sent) => sent,
            Err(Errno::AGAIN | Errno::NOBUFS | Errno::INTR) => 0,
            Err(errno) if self.is_over() => return Some(broken(course, errno)),
            Err(errno) => {
                self.survive(course, errno);
                // Once the message was reported, the connection takes bytes again.
                net::send(&self.socket, bytes, SendFlags::NOSIGNAL).unwrap_or(0)
            }
        };
        course.figures.bytes_sent += sent as u64;
        self.rest = bytes.get(sent..).unwrap_or_default().to_vec();
        None
    }
}

/// A connection that was there is over.
fn broken(course: &Course, errno: Errno) -> FlowEnd {
    let error = QueuedError { errno: errno.raw_os_error(), icmp: None };
    match classify::reported(Transport::Tcp, error) {
        Outcome::Reset => FlowEnd::Reset,
        Outcome::TimedOut => FlowEnd::TimedOut,
        Outcome::Unreachable(unreachable) => FlowEnd::Unreachable(course.explained(unreachable)),
        // ECONNREFUSED: what an ICMP port unreachable became when the kernel gave up.
        _ => FlowEnd::Unreachable(course.explained(Unreachable { icmp: None, errno: error.errno })),
    }
}

fn no_agent(said: &[u8]) -> FlowEnd {
    let said = String::from_utf8_lossy(said.get(..said.len().min(200)).unwrap_or_default()).into_owned();
    let attempted = format!("hold a flow with a peer that does not echo for it but says '{}'", said.trim());
    FlowEnd::NotEstablished(Outcome::AgentFailed(Failure { attempted, errno: 0 }))
}

fn garbled(why: &str) -> Option<FlowEnd> {
    Some(FlowEnd::Garbled { why: why.into() })
}
