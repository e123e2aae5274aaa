//! Readiness of sockets and timers, for one thread.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use rustix::event::{Timespec, epoll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;

use crate::clock::monotonic_us;
use crate::slab::Key;

pub(crate) use rustix::event::epoll::EventFlags as Ready;

/// Events taken from the kernel at once.
const BATCH: usize = 256;

/// Who gets an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// The control socket: somebody attaches.
    Control,
    /// The attachment.
    Attachment,
    /// A probe with a socket of its own.
    Probe,
    /// A raw ICMP socket that probes share.
    Echo,
    /// A listener.
    Listener,
    /// A capture socket.
    Capture,
    /// A flow.
    Flow,
    /// A connection of an echo port.
    Mirror,
    /// A bulk transfer.
    Bulk,
    /// The configuration of a VM's network.
    Guest,
    /// The capture of announcements.
    Herald,
}

/// Names the receiver of an event: its kind and its number among those of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Token(u64);

impl Token {
    /// `key` has at most 56 bits.
    pub(crate) const fn new(kind: Kind, key: Key) -> Self {
        Self((kind as u64) << 56 | key)
    }

    pub(crate) const fn key(self) -> Key {
        self.0 & ((1 << 56) - 1)
    }

    pub(crate) const fn kind(self) -> Kind {
        match self.0 >> 56 {
            0 => Kind::Control,
            1 => Kind::Attachment,
            2 => Kind::Probe,
            3 => Kind::Echo,
            4 => Kind::Listener,
            5 => Kind::Capture,
            6 => Kind::Flow,
            7 => Kind::Mirror,
            8 => Kind::Bulk,
            9 => Kind::Guest,
            _ => Kind::Herald,
        }
    }
}

/// What happened.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Event {
    /// The socket of this token became ready.
    Ready(Token, Ready),
    /// The timer of this token is due.
    Due(Token),
}

/// The kernel's readiness queue and the timers.
#[derive(Debug)]
pub(crate) struct Reactor {
    queue: OwnedFd,
    timers: BTreeSet<(u64, Token)>,
}

impl Reactor {
    pub(crate) fn new() -> Result<Self, Errno> {
        Ok(Self { queue: epoll::create(epoll::CreateFlags::CLOEXEC)?, timers: BTreeSet::new() })
    }

    /// Watches a socket until it is closed.
    pub(crate) fn watch(&self, socket: impl AsFd, token: Token, interest: Ready) -> Result<(), Errno> {
        epoll::add(&self.queue, socket, epoll::EventData::new_u64(token.0), interest)
    }

    /// Changes what a watched socket is watched for.
    pub(crate) fn rewatch(&self, socket: impl AsFd, token: Token, interest: Ready) -> Result<(), Errno> {
        epoll::modify(&self.queue, socket, epoll::EventData::new_u64(token.0), interest)
    }

    /// Sets a timer, monotonic microseconds.
    pub(crate) fn arm(&mut self, token: Token, at: u64) {
        self.timers.insert((at, token));
    }

    /// Unsets a timer that was set to `at`.
    pub(crate) fn disarm(&mut self, token: Token, at: u64) {
        self.timers.remove(&(at, token));
    }

    /// Waits for something to happen; `busy`: only looks whether something has.
    pub(crate) fn wait(&mut self, events: &mut Vec<Event>, busy: bool) -> Result<(), Errno> {
        let mut ready = Vec::with_capacity(BATCH);
        let timeout = if busy {
            Some(timespec(0))
        } else {
            self.timers.first().map(|&(at, _)| timespec(at.saturating_sub(monotonic_us())))
        };
        match epoll::wait(&self.queue, rustix::buffer::spare_capacity(&mut ready), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
        events.extend(ready.iter().map(|event| {
            let (data, flags) = (event.data, event.flags);
            Event::Ready(Token(data.u64()), flags)
        }));
        // Due timers come last: what arrived in time counts though it was read late.
        let now = monotonic_us();
        while let Some(&(at, token)) = self.timers.first()
            && at <= now
        {
            self.timers.remove(&(at, token));
            events.push(Event::Due(token));
        }
        Ok(())
    }
}

fn timespec(microseconds: u64) -> Timespec {
    Timespec {
        tv_sec: (microseconds / 1_000_000).cast_signed(),
        tv_nsec: ((microseconds % 1_000_000) * 1_000).cast_signed(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slab::Slab;

    #[test]
    fn tokens_say_kind_and_key() {
        let mut slab = Slab::new();
        for _ in 0..3 {
            let key = slab.insert(());
            slab.remove(key);
        }
        let key = slab.insert(());
        let served = [Kind::Listener, Kind::Capture, Kind::Flow, Kind::Mirror, Kind::Bulk, Kind::Guest, Kind::Herald];
        for kind in [Kind::Control, Kind::Attachment, Kind::Probe, Kind::Echo].into_iter().chain(served) {
            let token = Token::new(kind, key);
            assert_eq!((token.kind(), token.key()), (kind, key));
        }
    }

    #[test]
    fn timers_fire_in_order_and_only_when_armed() {
        let mut reactor = Reactor::new().expect("epoll");
        let [first, second, unset] = [1, 2, 3].map(|key| Token::new(Kind::Probe, key));
        let now = monotonic_us();
        reactor.arm(second, now + 20_000);
        reactor.arm(first, now + 10_000);
        reactor.arm(unset, now + 5_000);
        reactor.disarm(unset, now + 5_000);
        let mut due = Vec::new();
        while due.len() < 2 {
            let mut events = Vec::new();
            reactor.wait(&mut events, false).expect("wait");
            for event in events {
                let Event::Due(token) = event else { panic!("{event:?}") };
                due.push((token, monotonic_us() - now));
            }
        }
        assert!(due[0].0 == first && due[0].1 >= 10_000 && due[1].0 == second && due[1].1 >= 20_000, "{due:?}");
    }
}
