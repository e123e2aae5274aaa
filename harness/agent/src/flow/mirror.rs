//! The other end of a TCP flow: the banner, then every byte back.

use alloc::vec::Vec;

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{self, RecvFlags, SendFlags, sockopt};

use crate::clock::{MILLISECOND, monotonic_us};
use crate::protocol::{ECHO_SILENT_MS, ECHOES};
use crate::reactor::{Kind, Reactor, Ready, Token};
use crate::slab::{Key, Slab};

/// Bytes read at once; as many wait at most to be sent back, for nothing is read before they are gone.
const PIECE: usize = 16 * 1024;

/// What one who comes too late reads instead of the banner.
const FULL: &[u8] = b"this agent echoes as many connections as it can; end some flows\n";

/// The connections of all echo ports.
pub(crate) struct Mirrors {
    connections: Slab<Mirror>,
}

struct Mirror {
    socket: OwnedFd,
    port: u16,
    /// Read, not yet sent back.
    pending: Vec<u8>,
    /// When something was read last, monotonic microseconds.
    heard: u64,
}

impl Mirrors {
    pub(crate) const fn new() -> Self {
        Self { connections: Slab::new() }
    }

    /// Takes a fresh connection on, or tells it that there are too many.
    pub(crate) fn take(&mut self, reactor: &Reactor, port: u16, socket: OwnedFd, banner: &[u8]) {
        if self.connections.len() >= ECHOES && !self.make_room(monotonic_us()) {
            let _ = net::send(&socket, FULL, SendFlags::NOSIGNAL);
            return;
        }
        let _ = sockopt::set_tcp_nodelay(&socket, true);
        // A fresh connection's send buffer has room for the line.
        if net::send(&socket, banner, SendFlags::NOSIGNAL).is_err() {
            return;
        }
        let key = self.connections.insert(Mirror { socket, port, pending: Vec::new(), heard: monotonic_us() });
        let token = Token::new(Kind::Mirror, key);
        let watched = self.connections.get_mut(key).map(|mirror| reactor.watch(&mirror.socket, token, Ready::IN));
        if !matches!(watched, Some(Ok(()))) {
            self.connections.remove(key);
        }
    }

    /// Closes the connection that has been silent longest, if that is long enough.
    fn make_room(&mut self, now: u64) -> bool {
        let keys = self.connections.keys();
        let heard = keys.into_iter().filter_map(|key| self.connections.get_mut(key).map(|mirror| (mirror.heard, key)));
        match heard.min() {
            Some((heard, key)) if now.saturating_sub(heard) > ECHO_SILENT_MS * MILLISECOND => {
                self.connections.remove(key).is_some()
            }
            _ => false,
        }
    }

    /// A connection became ready.
    pub(crate) fn ready(&mut self, reactor: &Reactor, key: Key) {
        let Some(mirror) = self.connections.get_mut(key) else { return };
        let was_blocked = !mirror.pending.is_empty();
        let mut alive = mirror.advance();
        let is_blocked = !mirror.pending.is_empty();
        if alive && was_blocked != is_blocked {
            // Who does not read what comes back is not read from.
            let interest = if is_blocked { Ready::OUT } else { Ready::IN };
            alive = reactor.rewatch(&mirror.socket, Token::new(Kind::Mirror, key), interest).is_ok();
        }
        if !alive {
            self.connections.remove(key);
        }
    }

    /// Closes all connections to a port.
    pub(crate) fn close_port(&mut self, port: u16) {
        for key in self.connections.keys() {
            if self.connections.get_mut(key).is_some_and(|mirror| mirror.port == port) {
                self.connections.remove(key);
            }
        }
    }
}

impl Mirror {
    /// Sends what waits, or else reads a piece and sends that; false at the end of the connection.
    fn advance(&mut self) -> bool {
        if !self.pending.is_empty() {
            let pending = core::mem::take(&mut self.pending);
            return self.send(&pending);
        }
        let mut buffer = [0; PIECE];
        match net::recv(&self.socket, &mut buffer, RecvFlags::empty()) {
            Ok((0, _)) => false,
            Ok((length, _)) => {
                self.heard = monotonic_us();
                self.send(buffer.get(..length).unwrap_or_default())
            }
            Err(Errno::AGAIN | Errno::INTR) => true,
            Err(_) => false,
        }
    }

    /// Sends as much as the socket takes and keeps the rest.
    fn send(&mut self, bytes: &[u8]) -> bool {
        let sent = match net::send(&self.socket, bytes, SendFlags::NOSIGNAL) {
            Ok(sent) => sent,
            Err(Errno::AGAIN | Errno::INTR | Errno::NOBUFS) => 0,
            Err(_) => return false,
        };
        self.pending = bytes.get(sent..).unwrap_or_default().to_vec();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType};

    #[test]
    fn the_longest_silent_one_makes_room_when_it_has_been_silent_long() {
        let mut mirrors = Mirrors::new();
        let mut clients = Vec::new();
        for heard in [5_000, 2_000, 9_000] {
            let (socket, client) =
                net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).expect("a pair");
            mirrors.connections.insert(Mirror { socket, port: 1, pending: Vec::new(), heard });
            clients.push(client);
        }
        let silent = 2_000 + ECHO_SILENT_MS * MILLISECOND;
        assert!(!mirrors.make_room(silent), "not yet");
        assert!(mirrors.make_room(silent + 1));
        assert!(!mirrors.make_room(silent + 1), "the others have spoken since");
        let left = mirrors.connections.keys();
        let heard = left.into_iter().filter_map(|key| mirrors.connections.get_mut(key).map(|mirror| mirror.heard));
        assert_eq!(heard.collect::<Vec<_>>(), [5_000, 9_000]);
    }
}
