//! A flow over UDP: each frame is a datagram that asks for the banner, with a nonce of its own.

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{self, RecvFlags, SendFlags};

use super::course::{Course, now};
use crate::clock::{MILLISECOND, monotonic_us};
use crate::probe::{classify, local_address, payload};
use crate::protocol::{Banner, FlowEnd, Outcome, RESEND_MS, Transport};
use crate::sys::messages::{QueuedError, receive_error};

/// The socket.
pub(super) struct Datagrams {
    pub(super) socket: OwnedFd,
    /// Nonce of the first frame.
    pub(super) base: u64,
    /// When a frame was last sent that is an arrival at the peer, monotonic microseconds.
    marked: Option<u64>,
}

impl Datagrams {
    /// `socket` is connected to the target.
    pub(super) const fn new(socket: OwnedFd, base: u64) -> Self {
        Self { socket, base, marked: None }
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
                return Some(FlowEnd::NotEstablished(classify::reported(Transport::Udp, queued)));
            }
            course.fault(queued);
        }
        None
    }

    fn read(&self, datagram: &[u8], course: &mut Course) {
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
                course.established(banner.identity, banner.peer);
            }
            None => course.figures.garbled += 1,
        }
    }

    /// A frame is due.
    pub(super) fn send(&mut self, course: &mut Course) -> Option<FlowEnd> {
        let at = monotonic_us();
        let nonce = self.base.wrapping_add(course.figures.sent);
        let is_marked = !course.is_established()
            && self.marked.is_none_or(|marked| at.saturating_sub(marked) >= u64::from(RESEND_MS) * MILLISECOND);
        let frame = if is_marked { payload::with_nonce(nonce) } else { payload::frame_with_nonce(nonce) };
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
