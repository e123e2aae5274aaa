//! The other end of a TCP flow or bulk transfer: the banner, then every byte back; or none, or bytes as fast as they go.

use alloc::vec::Vec;

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{self, RecvFlags, SendFlags, sockopt};

use super::pattern;
use crate::clock::{MILLISECOND, monotonic_us};
use crate::protocol::{BULK_ACCEPTED, BULK_SINK, BULK_SOURCE, BULK_SPOILT, ECHO_SILENT_MS, ECHOES};
use crate::reactor::{Kind, Reactor, Ready, Token};
use crate::slab::{Key, Slab};

/// Bytes read at once; as many wait at most to be sent back, for nothing is read before they are gone.
const PIECE: usize = 16 * 1024;

/// Bytes swallowed or poured out before others get their turn.
const TURN: usize = 256 * 1024;

/// What one who comes too late reads instead of the banner.
const FULL: &[u8] = b"this agent echoes as many connections as it can; end some flows\n";

/// The connections of all echo ports.
pub(crate) struct Mirrors {
    connections: Slab<Mirror>,
}

/// What the client wants.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wish {
    /// It has not said anything, or not enough.
    Unknown,
    /// Every byte back.
    Echo,
    /// None back.
    Sink,
    /// Bytes as fast as they go.
    Source,
}

struct Mirror {
    socket: OwnedFd,
    port: u16,
    wish: Wish,
    interest: Ready,
    /// Read, not yet sent back.
    pending: Vec<u8>,
    /// Bytes of a bulk transfer so far.
    moved: u64,
    /// Whether some of them were not those of their place.
    spoilt: bool,
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
        let key = self.connections.insert(Mirror::new(socket, port, monotonic_us()));
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
        let mut alive = mirror.advance();
        let interest = mirror.wanted_interest();
        if alive && interest != mirror.interest {
            mirror.interest = interest;
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
    const fn new(socket: OwnedFd, port: u16, heard: u64) -> Self {
        Self {
            socket,
            port,
            wish: Wish::Unknown,
            interest: Ready::IN,
            pending: Vec::new(),
            moved: 0,
            spoilt: false,
            heard,
        }
    }

    fn wanted_interest(&self) -> Ready {
        match self.wish {
            Wish::Source => Ready::IN | Ready::OUT,
            // Who does not read what comes back is not read from.
            Wish::Echo if !self.pending.is_empty() => Ready::OUT,
            _ => Ready::IN,
        }
    }

    /// Does what the client wants; false at the end of the connection.
    fn advance(&mut self) -> bool {
        match self.wish {
            Wish::Unknown => self.listen(),
            Wish::Echo => self.echo(),
            Wish::Sink => self.swallow(TURN),
            Wish::Source => self.swallow(PIECE) && self.pour(),
        }
    }

    /// Finds out what the client wants.
    fn listen(&mut self) -> bool {
        let mut buffer = [0; PIECE];
        match net::recv(&self.socket, &mut buffer, RecvFlags::empty()) {
            Ok((0, _)) => false,
            Ok((length, _)) => {
                self.heard = monotonic_us();
                self.pending.extend_from_slice(buffer.get(..length).unwrap_or_default());
                let said = core::mem::take(&mut self.pending);
                self.wish = wish(&said);
                match self.wish {
                    Wish::Unknown => {
                        self.pending = said;
                        true
                    }
                    Wish::Echo => self.send(&said),
                    // The client waits for it, so the send buffer is empty.
                    Wish::Sink | Wish::Source => net::send(&self.socket, BULK_ACCEPTED, SendFlags::NOSIGNAL).is_ok(),
                }
            }
            Err(Errno::AGAIN | Errno::INTR) => true,
            Err(_) => false,
        }
    }

    /// Reads and forgets.
    fn swallow(&mut self, limit: usize) -> bool {
        let mut buffer = [0; PIECE];
        let mut read = 0;
        while read < limit {
            match net::recv(&self.socket, &mut buffer, RecvFlags::empty()) {
                Ok((0, _)) => return false,
                Ok((length, _)) => {
                    read += length;
                    self.heard = monotonic_us();
                    if self.wish == Wish::Sink
                        && !self.spoilt
                        && !self.is_right(buffer.get(..length).unwrap_or_default())
                    {
                        self.spoilt = true;
                        // Nothing else is ever sent to who fills a sink, so there is room for the line. Whoever it does
                        // not reach has lost the connection anyway.
                        let _ = net::send(&self.socket, BULK_SPOILT, SendFlags::NOSIGNAL);
                    }
                }
                Err(Errno::AGAIN) => return true,
                Err(Errno::INTR) => {}
                Err(_) => return false,
            }
        }
        true
    }

    /// Whether these are the bytes that come next.
    fn is_right(&mut self, bytes: &[u8]) -> bool {
        let right = pattern::is_right(self.moved, bytes);
        self.moved += bytes.len() as u64;
        right
    }

    /// Sends as fast as it goes.
    fn pour(&mut self) -> bool {
        let mut sent = 0;
        while sent < TURN {
            match net::send(&self.socket, pattern::from(self.moved), SendFlags::NOSIGNAL) {
                Ok(length) => {
                    sent += length;
                    self.moved += length as u64;
                    self.heard = monotonic_us();
                }
                Err(Errno::AGAIN | Errno::NOBUFS) => return true,
                Err(Errno::INTR) => {}
                Err(_) => return false,
            }
        }
        true
    }

    /// Sends what waits, or else reads a piece and sends that.
    fn echo(&mut self) -> bool {
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

/// What the client's first words ask for.
fn wish(said: &[u8]) -> Wish {
    match said {
        said if said.starts_with(BULK_SINK) => Wish::Sink,
        said if said.starts_with(BULK_SOURCE) => Wish::Source,
        said if BULK_SINK.starts_with(said) || BULK_SOURCE.starts_with(said) => Wish::Unknown,
        _ => Wish::Echo,
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
            mirrors.connections.insert(Mirror::new(socket, 1, heard));
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

    #[test]
    fn a_sink_says_when_it_gets_something_else() {
        let (socket, client) =
            net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::NONBLOCK, None).expect("a pair");
        let mut mirror = Mirror::new(socket, 1, 0);
        let mut said = |bytes: &[u8]| {
            net::send(&client, bytes, SendFlags::NOSIGNAL).expect("sent");
            assert!(mirror.advance());
            let mut answer = [0; 64];
            let length = net::recv(&client, &mut answer, RecvFlags::empty()).map_or(0, |(length, _)| length);
            answer[..length].to_vec()
        };
        assert_eq!(said(BULK_SINK), BULK_ACCEPTED);
        let bytes = &pattern::from(0)[..100];
        assert_eq!(said(&bytes[..50]), b"");
        assert_eq!(said(&bytes[50..]), b"");
        assert_eq!(said(&bytes[50..]), BULK_SPOILT, "the same again");
        assert_eq!(said(bytes), b"", "once is enough");
    }

    #[test]
    fn first_words_decide() {
        assert!(wish(b"udn-flow\0\0\0\0\0\0\0\0") == Wish::Echo && wish(b"x") == Wish::Echo);
        assert!(wish(b"udn-bulk s") == Wish::Unknown && wish(b"u") == Wish::Unknown);
        assert!(wish(BULK_SINK) == Wish::Sink && wish(b"udn-bulk source\nmore") == Wish::Source);
    }
}
