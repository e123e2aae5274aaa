//! Arrivals: what reached this machine, whether or not it was answered.
//!
//! * [`capture`]: raw sockets on every interface
//! * [`packet`]: what a captured packet is
//! * [`announcements`]: who says where an address is, where somebody asked to have that kept
//!
//! The second side of every verdict: a probe that its sender saw time out, and that arrived here, leaked.

pub(crate) mod announcements;
mod capture;
mod packet;

use alloc::collections::VecDeque;

use self::capture::Capture;
use crate::protocol::{ARRIVALS_KEPT, ARRIVALS_PER_ANSWER, Arrival, Arrivals, Evidence};
use crate::reactor::Reactor;
use crate::slab::Key;

/// Remembers arrivals.
pub(crate) struct Witness {
    capture: Option<Capture>,
    recent: VecDeque<Arrival>,
    /// Arrivals ever remembered: the cursor behind the newest.
    total: u64,
}

impl Witness {
    /// Captures where that is allowed; else relies on the listeners.
    pub(crate) fn new(reactor: &Reactor) -> Self {
        Self { capture: Capture::open(reactor).ok(), recent: VecDeque::new(), total: 0 }
    }

    pub(crate) const fn evidence(&self) -> Evidence {
        if self.capture.is_some() { Evidence::Capture } else { Evidence::Listener }
    }

    /// A capture socket became ready.
    pub(crate) fn ready(&mut self, socket: Key) {
        let Some(capture) = &mut self.capture else { return };
        let (recent, total) = (&mut self.recent, &mut self.total);
        capture.read(socket, &mut |arrival| remember(recent, total, arrival));
    }

    /// A listener served somebody. With a capture that is known already.
    pub(crate) fn served(&mut self, arrival: Arrival) {
        if self.capture.is_none() {
            remember(&mut self.recent, &mut self.total, arrival);
        }
    }

    /// Everything after a cursor, as much as an answer holds. Reads first what the kernel has queued, so that nothing
    /// that arrived before the question is missing.
    pub(crate) fn tell(&mut self, after: u64) -> Arrivals {
        let mut capture_drops = 0;
        if let Some(capture) = &mut self.capture {
            let (recent, total) = (&mut self.recent, &mut self.total);
            capture.drain(&mut |arrival| remember(recent, total, arrival));
            capture_drops = capture.drops();
        }
        let oldest = self.total - self.recent.len() as u64;
        let after = after.min(self.total);
        let start = after.max(oldest);
        let list: alloc::vec::Vec<_> =
            self.recent.iter().skip((start - oldest) as usize).take(ARRIVALS_PER_ANSWER).cloned().collect();
        let cursor = start + list.len() as u64;
        Arrivals {
            cursor,
            evidence: self.evidence(),
            more: cursor < self.total,
            overwritten: start - after,
            capture_drops,
            list,
        }
    }
}

fn remember(recent: &mut VecDeque<Arrival>, total: &mut u64, arrival: Arrival) {
    if recent.len() == ARRIVALS_KEPT {
        recent.pop_front();
    }
    recent.push_back(arrival);
    *total += 1;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Transport;

    fn arrival(number: u64) -> Arrival {
        Arrival {
            at_us: number,
            transport: Transport::Udp,
            source: ([10, 0, 0, 1], 1).into(),
            destination: ([10, 0, 0, 2], 2).into(),
            interface: 1,
            nonce: Some(number),
        }
    }

    #[test]
    fn a_cursor_walks_over_everything_once_and_overwriting_is_told() {
        let mut witness = Witness { capture: None, recent: VecDeque::new(), total: 0 };
        let spare = 10;
        let count = (ARRIVALS_KEPT + spare) as u64;
        (0..count).for_each(|number| witness.served(arrival(number)));

        let first = witness.tell(0);
        assert_eq!((first.overwritten, first.more), (spare as u64, true));
        let (mut cursor, mut seen) = (first.cursor, first.list);
        while seen.len() < ARRIVALS_KEPT {
            let next = witness.tell(cursor);
            assert_eq!(next.overwritten, 0);
            cursor = next.cursor;
            seen.extend(next.list);
        }
        assert!(seen.iter().map(|arrival| arrival.at_us).eq(spare as u64..count));
        let last = witness.tell(cursor);
        assert!(last.list.is_empty() && !last.more && last.cursor == count);
        // A cursor of an earlier life of the agent, beyond what this one has seen.
        assert_eq!(witness.tell(u64::MAX).cursor, count);
    }
}
