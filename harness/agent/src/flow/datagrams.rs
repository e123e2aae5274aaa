//! A flow over UDP or ICMP: each frame is a datagram that asks for the banner, or an echo request, with a nonce of its own.

use alloc::string::ToString;
use alloc::vec::Vec;
use core::net::IpAddr;

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{self, RecvFlags, SendFlags};

use super::course::{Course, now};
use crate::clock::{MILLISECOND, monotonic_us};
use crate::probe::echo::{ECHO_HEADER, echo_request_with};
use crate::probe::{classify, local_address, payload};
use crate::protocol::{Banner, FlowEnd, Outcome, RESEND_MS, Transport};
use crate::sys::messages::{QueuedError, receive_error};

/// What a frame and its reply are.
#[derive(Clone, Copy)]
pub(super) enum Form {
    /// A datagram, and an agent's banner.
    Banner,
    /// An echo request to this address, and the echo reply.
    Echo {
        to: IpAddr,
        identifier: u16,
        /// The kernel puts the IPv4 header before what it receives.
        headed: bool,
    },
}

/// The socket.
pub(super) struct Datagrams {
    pub(super) socket: OwnedFd,
    form: Form,
    /// Nonce of the first frame.
    pub(super) base: u64,
    /// When a frame was last sent that is an arrival at the peer, monotonic microseconds.
    marked: Option<u64>,
}

impl Datagrams {
    /// `socket` is connected to the target.
    pub(super) const fn new(socket: OwnedFd, form: Form, base: u64) -> Self {
        Self { socket, form, base, marked: None }
    }

    /// Reads all that came; says how the flow ended, if it did.
    pub(super) fn advance(&self, course: &mut Course) -> Option<FlowEnd> {
        if let Some(end) = self.note_faults(course) {
            return Some(end);
        }
        let mut buffer = [0; 2048];
        loop {
            match net::recv(&self.socket, &mut buffer, RecvFlags::empty()) {
                Ok((length, _)) => self.read(buffer.get(..length).unwrap_or_default(), course),
                Err(Errno::AGAIN) => return None,
                Err(Errno::INTR) => {}
                // The error number of a message in the error queue; reading it takes it back.
                Err(_) => {
                    if let Some(end) = self.note_faults(course) {
                        return Some(end);
                    }
                }
            }
        }
    }

    /// Before the first reply an error is the answer; afterwards UDP has no connection that it could break.
    fn note_faults(&self, course: &mut Course) -> Option<FlowEnd> {
        while let Ok(queued) = receive_error(&self.socket) {
            if !course.is_established() {
                let transport = if matches!(self.form, Form::Banner) { Transport::Udp } else { Transport::Icmp };
                return Some(FlowEnd::NotEstablished(classify::reported(transport, queued)));
            }
            course.fault(queued);
        }
        None
    }

    fn read(&self, datagram: &[u8], course: &mut Course) {
        match self.form {
            Form::Banner => self.read_banner(datagram, course),
            Form::Echo { to, identifier, headed } => {
                let header = if headed { usize::from(datagram.first().unwrap_or(&0) & 15) * 4 } else { 0 };
                self.read_echo(datagram.get(header..).unwrap_or_default(), to, identifier, course);
            }
        }
    }

    /// Every raw socket is handed the replies to everybody's requests: only this flow's count, others are none of its
    /// business.
    fn read_echo(&self, message: &[u8], to: IpAddr, identifier: u16, course: &mut Course) {
        // A ping socket's identifier is the kernel's, which has sorted the replies by it.
        let is_own = identifier == 0 || message.get(4..6) == Some(&identifier.to_be_bytes());
        let payload = message.get(ECHO_HEADER..).unwrap_or_default();
        let nonce = payload::frame_nonce(payload).or_else(|| payload::nonce(payload)).filter(|_| is_own);
        let Some(nonce) = nonce else { return };
        if course.figures.reply(nonce.wrapping_sub(self.base), now()) {
            course.figures.bytes_received += message.len() as u64;
            if !course.is_established() {
                course.connected(local_address(&self.socket).map(|mut local| {
                    local.set_port(0);
                    local
                }));
                course.established(to.to_string(), None);
            }
        }
    }

    fn frame(&self, number: u64, is_marked: bool) -> Vec<u8> {
        let nonce = self.base.wrapping_add(number);
        let payload = if is_marked { payload::with_nonce(nonce) } else { payload::frame_with_nonce(nonce) };
        match self.form {
            Form::Banner => payload,
            Form::Echo { to, identifier, .. } => echo_request_with(to.is_ipv6(), identifier, number as u16, &payload),
        }
    }

    fn read_banner(&self, datagram: &[u8], course: &mut Course) {
        let now = now();
        let banner = serde_json::from_slice::<Banner>(datagram).ok();
        let reply = banner.and_then(|banner| banner.nonce.map(|nonce| (banner, nonce)));
        let known = reply
            .filter(|(_, nonce)| course.figures.reply(nonce.wrapping_sub(self.base), now))
            .map(|(banner, _)| banner);
        match known {
            Some(banner) => {
                course.figures.bytes_received += datagram.len() as u64;
                if !course.is_established() {
                    course.connected(local_address(&self.socket));
                }
                course.established(banner.identity, Some(banner.peer));
            }
            None => course.figures.garbled += 1,
        }
    }

    /// A frame is due.
    pub(super) fn send(&mut self, course: &mut Course) -> Option<FlowEnd> {
        let at = monotonic_us();
        let is_marked = !course.is_established()
            && self.marked.is_none_or(|marked| at.saturating_sub(marked) >= u64::from(RESEND_MS) * MILLISECOND);
        let frame = self.frame(course.figures.sent, is_marked);
        let mut sent = net::send(&self.socket, &frame, SendFlags::NOSIGNAL);
        if sent.is_err() {
            // The answer to an earlier frame came between.
            if let Some(end) = self.note_faults(course) {
                return Some(end);
            }
            sent = net::send(&self.socket, &frame, SendFlags::NOSIGNAL);
        }
        match sent {
            Ok(length) => {
                course.figures.sent(at);
                course.figures.bytes_sent += length as u64;
                if is_marked {
                    self.marked = Some(at);
                }
            }
            Err(Errno::AGAIN | Errno::NOBUFS | Errno::INTR) => course.figures.held_back += 1,
            Err(errno) if course.is_established() => {
                course.figures.held_back += 1;
                course.fault(QueuedError { errno: errno.raw_os_error(), icmp: None });
            }
            Err(errno) => return Some(FlowEnd::NotEstablished(refused(errno))),
        }
        None
    }
}

fn refused(errno: Errno) -> Outcome {
    if errno == Errno::CONNREFUSED { Outcome::Refused { icmp: None } } else { classify::not_sent(errno) }
}
