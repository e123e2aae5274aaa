//! The DHCPv4 client, without a socket or a clock.

use alloc::vec::Vec;
use core::net::Ipv4Addr;

use super::options4::{ACK, DISCOVER, NAK, OFFER, Question, REQUEST, Reply, read};
use crate::clock::MILLISECOND;
use crate::protocol::Dhcpv4Lease;

const SECOND: u64 = 1000 * MILLISECOND;

/// First and longest wait for an answer, microseconds; it doubles in between. Far shorter than the standard's: a server here
/// is a switch that answers at once or is not there yet.
const FIRST_WAIT: u64 = 500 * MILLISECOND;
const LONGEST_WAIT: u64 = 8 * SECOND;

/// An offer is asked for so often before the client starts over.
const REQUESTS: u32 = 4;

/// A renewal is repeated at most so often.
const SHORTEST_RENEWAL: u64 = 10 * SECOND;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Broadcast this, from no address.
    Broadcast(Vec<u8>),
    /// Send this from the own address to the server.
    Send(Vec<u8>, Ipv4Addr),
    /// Use this lease.
    Use(Dhcpv4Lease),
    /// Do not use this one any more.
    Drop(Dhcpv4Lease),
}

/// The client of one interface. Times are monotonic microseconds.
#[derive(Debug)]
pub(super) struct Client {
    mac: [u8; 6],
    transaction: u32,
    stage: Stage,
    began: u64,
    tries: u32,
    next: u64,
    lease: Option<Dhcpv4Lease>,
}

#[derive(Debug)]
enum Stage {
    Discovering,
    Requesting(Dhcpv4Lease),
    Bound { rebind: u64, end: u64 },
}

impl Client {
    /// `seed` is random.
    pub(super) const fn new(mac: [u8; 6], seed: u32, now: u64) -> Self {
        Self { mac, transaction: seed, stage: Stage::Discovering, began: now, tries: 0, next: now, lease: None }
    }

    /// When it wants to be called again.
    pub(super) const fn next(&self) -> u64 {
        self.next
    }

    pub(super) const fn lease(&self) -> Option<&Dhcpv4Lease> {
        self.lease.as_ref()
    }

    /// It is time.
    pub(super) fn due(&mut self, now: u64) -> Vec<Step> {
        let mut steps = Vec::new();
        if let Stage::Bound { end, .. } = self.stage
            && now >= end
        {
            steps.extend(self.lease.take().map(Step::Drop));
            self.start_over(now);
        }
        if matches!(self.stage, Stage::Requesting(_)) && self.tries >= REQUESTS {
            self.start_over(now);
        }
        let message = match &self.stage {
            Stage::Discovering => Step::Broadcast(self.question(DISCOVER, now).bytes()),
            Stage::Requesting(offer) => {
                let (requested, server) = (Some(offer.address), Some(offer.server));
                Step::Broadcast(Question { requested, server, ..self.question(REQUEST, now) }.bytes())
            }
            Stage::Bound { rebind, end } => {
                let deadline = if now < *rebind { *rebind } else { *end };
                // Half of what is left, as the standard has it.
                self.next = now + (deadline.saturating_sub(now) / 2).max(SHORTEST_RENEWAL).min(end.saturating_sub(now));
                let own = self.lease.as_ref().map(|lease| lease.address);
                let message = Question { own, ..self.question(REQUEST, now) }.bytes();
                let server = self.lease.as_ref().map(|lease| lease.server).filter(|_| now < *rebind);
                steps.push(Step::Send(message, server.unwrap_or(Ipv4Addr::BROADCAST)));
                return steps;
            }
        };
        steps.push(message);
        self.next = now + (FIRST_WAIT << self.tries.min(8)).min(LONGEST_WAIT);
        self.tries += 1;
        steps
    }

    /// A message came.
    pub(super) fn received(&mut self, message: &[u8], now: u64, wall: u64) -> Vec<Step> {
        let mut steps = Vec::new();
        let Some(reply) = read(message, self.transaction, self.mac) else { return steps };
        match (reply.kind, &self.stage) {
            (OFFER, Stage::Discovering) if !reply.lease.address.is_unspecified() => {
                self.stage = Stage::Requesting(reply.lease);
                self.tries = 0;
                steps.extend(self.due(now));
            }
            (ACK, Stage::Requesting(_) | Stage::Bound { .. }) if !reply.lease.address.is_unspecified() => {
                self.bind(reply, now, wall, &mut steps);
            }
            (NAK, Stage::Requesting(_) | Stage::Bound { .. }) => {
                steps.extend(self.lease.take().map(Step::Drop));
                self.start_over(now);
                // Not at once: a server that always refuses would be asked without a pause.
                self.next = now + SECOND;
            }
            _ => {}
        }
        steps
    }

    fn bind(&mut self, reply: Reply, now: u64, wall: u64, steps: &mut Vec<Step>) {
        let mut lease = reply.lease;
        lease.granted_us = wall;
        let forever = lease.lease_s == u32::MAX;
        let length = u64::from(lease.lease_s).max(SHORTEST_RENEWAL / SECOND * 2);
        let after = |seconds: u64| if forever { u64::MAX } else { now + seconds * SECOND };
        let rebind = reply.rebind_s.map_or(length * 7 / 8, u64::from).min(length);
        let renew = reply.renew_s.map_or(length / 2, u64::from).min(rebind);
        self.stage = Stage::Bound { rebind: after(rebind), end: after(length) };
        self.next = after(renew);
        if let Some(old) = self.lease.take() {
            lease.renewals = old.renewals + 1;
            if (old.address, old.prefix) != (lease.address, lease.prefix) {
                steps.push(Step::Drop(old));
            }
        }
        self.lease = Some(lease.clone());
        self.tries = 0;
        // A renewal is a transaction of its own.
        self.transaction = self.transaction.wrapping_add(1);
        self.began = after(renew);
        steps.push(Step::Use(lease));
    }

    fn start_over(&mut self, now: u64) {
        self.stage = Stage::Discovering;
        self.transaction = self.transaction.wrapping_add(1);
        self.began = now;
        self.tries = 0;
        self.next = now;
    }

    fn question(&self, kind: u8, now: u64) -> Question {
        let seconds = u16::try_from(now.saturating_sub(self.began) / SECOND).unwrap_or(u16::MAX);
        Question {
            kind,
            transaction: self.transaction,
            mac: self.mac,
            own: None,
            requested: None,
            server: None,
            seconds,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::options4::tests::{MAC, answer};
    use super::*;

    fn broadcast(steps: &[Step]) -> &[u8] {
        match steps {
            [Step::Broadcast(message)] => message,
            other => panic!("{other:?}"),
        }
    }

    /// A client with a lease of 3500 seconds.
    fn bound(now: u64) -> Client {
        let mut client = Client::new(MAC, 9, now);
        let discover = client.due(now);
        let offer = answer(broadcast(&discover), OFFER, &[&[51, 4, 0, 0, 13, 172]]);
        let request = client.received(&offer, now, 0);
        let ack = answer(broadcast(&request), ACK, &[&[51, 4, 0, 0, 13, 172]]);
        assert!(matches!(client.received(&ack, now, 5)[..], [Step::Use(_)]));
        client
    }

    #[test]
    fn questions_are_repeated_with_growing_pauses_until_answered() {
        let mut client = Client::new(MAC, 9, 0);
        let mut now = 0;
        let mut pauses = Vec::new();
        for _ in 0..7 {
            broadcast(&client.due(now));
            pauses.push((client.next() - now) / (500 * MILLISECOND));
            now = client.next();
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 16, 16]);
    }

    #[test]
    fn a_lease_is_renewed_at_half_of_its_time() {
        let mut client = bound(SECOND);
        assert_eq!(client.next(), 1751 * SECOND);
        let steps = client.due(1751 * SECOND);
        let [Step::Send(message, server)] = &steps[..] else { panic!("{steps:?}") };
        assert_eq!(*server, Ipv4Addr::from([169, 254, 1, 1]));
        let ack = answer(message, ACK, &[&[51, 4, 0, 0, 13, 172]]);
        let steps = client.received(&ack, 1752 * SECOND, 6);
        let [Step::Use(lease)] = &steps[..] else { panic!("{steps:?}") };
        assert_eq!((lease.renewals, lease.granted_us, client.next()), (1, 6, (1752 + 1750) * SECOND));
    }

    #[test]
    fn a_lease_that_nobody_renews_ends() {
        let mut client = bound(0);
        let mut servers = Vec::new();
        let mut dropped = None;
        while dropped.is_none() {
            let now = client.next();
            for step in client.due(now) {
                match step {
                    Step::Send(_, server) => servers.push(server),
                    Step::Drop(_) => dropped = Some(now),
                    Step::Broadcast(_) => assert_eq!(dropped, Some(now)),
                    Step::Use(_) => panic!("nobody granted anything"),
                }
            }
        }
        assert_eq!(dropped, Some(3500 * SECOND));
        assert!(servers.first() != servers.last() && servers.len() < 60, "{}", servers.len());
    }

    #[test]
    fn a_refusal_starts_over_after_a_pause() {
        let mut client = bound(0);
        let steps = client.due(1750 * SECOND);
        let [Step::Send(message, _)] = &steps[..] else { panic!("{steps:?}") };
        let nak = answer(message, NAK, &[]);
        assert!(matches!(client.received(&nak, 1750 * SECOND, 0)[..], [Step::Drop(_)]));
        assert_eq!(client.next(), 1751 * SECOND);
        broadcast(&client.due(1751 * SECOND));
    }
}
