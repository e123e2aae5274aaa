//! The DHCPv6 client, without a socket or a clock. It rests until a router says what is to be had.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write as _;

use super::options6::{ADVERTISE, INFORM, Question, REBIND, RENEW, REPLY, REQUEST, Reply, SOLICIT, read};
use crate::clock::MILLISECOND;
use crate::protocol::Dhcpv6Lease;

const SECOND: u64 = 1000 * MILLISECOND;

/// As for DHCPv4.
const FIRST_WAIT: u64 = 500 * MILLISECOND;
const LONGEST_WAIT: u64 = 16 * SECOND;
const REQUESTS: u32 = 4;
const SHORTEST_RENEWAL: u64 = 10 * SECOND;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Send this to all servers on the link.
    Send(Vec<u8>),
    /// Use this lease.
    Use(Dhcpv6Lease),
    /// Do not use this one any more.
    Drop(Dhcpv6Lease),
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
    /// DUID of the server that offered or granted something.
    server: Vec<u8>,
    lease: Option<Dhcpv6Lease>,
}

#[derive(Debug)]
enum Stage {
    Resting,
    Soliciting,
    Requesting(Reply),
    Bound { rebind: u64, end: u64 },
    Informing,
    Informed,
}

impl Client {
    /// `seed` is random.
    pub(super) fn new(mac: [u8; 6], seed: u32) -> Self {
        let (server, lease) = (Vec::new(), None);
        Self { mac, transaction: seed, stage: Stage::Resting, began: 0, tries: 0, next: u64::MAX, server, lease }
    }

    /// When it wants to be called again.
    pub(super) const fn next(&self) -> u64 {
        self.next
    }

    pub(super) const fn lease(&self) -> Option<&Dhcpv6Lease> {
        self.lease.as_ref()
    }

    /// A router says whether addresses, or only the rest, are to be had.
    pub(super) fn invited(&mut self, managed: bool, other: bool, now: u64) {
        let begin = match self.stage {
            Stage::Resting => managed || other,
            Stage::Informing | Stage::Informed => managed,
            _ => false,
        };
        if begin {
            self.start(if managed { Stage::Soliciting } else { Stage::Informing }, now);
        }
    }

    fn start(&mut self, stage: Stage, now: u64) {
        self.stage = stage;
        self.transaction = self.transaction.wrapping_add(1);
        self.began = now;
        self.tries = 0;
        self.next = now;
    }

    /// It is time.
    pub(super) fn due(&mut self, now: u64) -> Vec<Step> {
        let mut steps = Vec::new();
        if let Stage::Bound { end, .. } = self.stage
            && now >= end
        {
            steps.extend(self.lease.take().map(Step::Drop));
            self.start(Stage::Soliciting, now);
        }
        if matches!(self.stage, Stage::Requesting(_)) && self.tries >= REQUESTS {
            self.start(Stage::Soliciting, now);
        }
        let elapsed = u16::try_from(now.saturating_sub(self.began) / (10 * MILLISECOND)).unwrap_or(u16::MAX);
        let (transaction, mac) = (self.transaction, self.mac);
        let plain = |kind| Question { kind, transaction, mac, server: None, address: None, elapsed };
        let mut wait = (FIRST_WAIT << self.tries.min(8)).min(LONGEST_WAIT);
        let question = match &self.stage {
            Stage::Resting | Stage::Informed => {
                self.next = u64::MAX;
                return steps;
            }
            Stage::Soliciting => plain(SOLICIT),
            Stage::Informing => plain(INFORM),
            Stage::Requesting(offer) => {
                let address = offer.address.map(|(address, _)| address);
                Question { server: Some(&offer.server), address, ..plain(REQUEST) }
            }
            Stage::Bound { rebind, end } => {
                let address = self.lease.as_ref().and_then(|lease| lease.address);
                let deadline = if now < *rebind { *rebind } else { *end };
                wait = (deadline.saturating_sub(now) / 2).max(SHORTEST_RENEWAL).min(end.saturating_sub(now));
                if now < *rebind {
                    Question { server: Some(&self.server), address, ..plain(RENEW) }
                } else {
                    Question { address, ..plain(REBIND) }
                }
            }
        };
        steps.push(Step::Send(question.bytes()));
        self.next = now + wait;
        self.tries += 1;
        steps
    }

    /// A message came.
    pub(super) fn received(&mut self, message: &[u8], now: u64, wall: u64) -> Vec<Step> {
        let Some(reply) = read(message, self.transaction, self.mac) else { return Vec::new() };
        match (reply.kind, &self.stage) {
            // An offer without an address is none.
            (ADVERTISE, Stage::Soliciting) if reply.status == 0 && reply.address.is_some() => {
                self.start(Stage::Requesting(reply), now);
                self.due(now)
            }
            (REPLY, Stage::Requesting(_) | Stage::Bound { .. }) if reply.status == 0 && reply.address.is_some() => {
                self.bind(&reply, now, wall)
            }
            (REPLY, Stage::Requesting(_)) => {
                self.start(Stage::Soliciting, now);
                self.next = now + SECOND;
                Vec::new()
            }
            (REPLY, Stage::Bound { .. }) => {
                let dropped = self.lease.take().map(Step::Drop);
                self.start(Stage::Soliciting, now);
                self.next = now + SECOND;
                dropped.into_iter().collect()
            }
            (REPLY, Stage::Informing) => {
                let lease = lease_of(&reply, wall);
                self.stage = Stage::Informed;
                self.next = u64::MAX;
                self.lease = Some(lease.clone());
                Vec::from([Step::Use(lease)])
            }
            _ => Vec::new(),
        }
    }

    fn bind(&mut self, reply: &Reply, now: u64, wall: u64) -> Vec<Step> {
        let mut lease = lease_of(reply, wall);
        let mut steps = Vec::new();
        let forever = lease.valid_s == u32::MAX;
        let length = u64::from(lease.valid_s).max(SHORTEST_RENEWAL / SECOND * 2);
        let after = |seconds: u64| if forever { u64::MAX } else { now + seconds * SECOND };
        let renew = if reply.renew_s == 0 { length / 2 } else { u64::from(reply.renew_s).min(length / 2) };
        self.start(Stage::Bound { rebind: after(length * 4 / 5), end: after(length) }, now);
        self.began = after(renew);
        self.next = after(renew);
        self.server.clone_from(&reply.server);
        if let Some(old) = self.lease.take() {
            lease.renewals = old.renewals + 1;
            if old.address != lease.address {
                steps.push(Step::Drop(old));
            }
        }
        self.lease = Some(lease.clone());
        steps.push(Step::Use(lease));
        steps
    }
}

fn lease_of(reply: &Reply, wall: u64) -> Dhcpv6Lease {
    let mut server = String::new();
    for byte in &reply.server {
        // Writing to a string cannot fail.
        let _ = write!(server, "{byte:02x}");
    }
    Dhcpv6Lease {
        address: reply.address.map(|(address, _)| address),
        server,
        valid_s: reply.address.map_or(u32::MAX, |(_, valid)| valid),
        resolvers: reply.resolvers.clone(),
        search: reply.search.clone(),
        hostname: reply.hostname.clone(),
        granted_us: wall,
        renewals: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::super::options6::tests::{MAC, answer};
    use super::*;

    fn sent(steps: &[Step]) -> &[u8] {
        match steps {
            [Step::Send(message)] => message,
            other => panic!("{other:?}"),
        }
    }

    fn bound(valid: u32) -> Client {
        let mut client = Client::new(MAC, 9);
        client.invited(true, true, 0);
        let solicit = client.due(0);
        assert_eq!(sent(&solicit)[0], SOLICIT);
        let request = client.received(&answer(sent(&solicit), ADVERTISE, Some(valid)), 0, 0);
        assert_eq!(sent(&request)[0], REQUEST);
        let steps = client.received(&answer(sent(&request), REPLY, Some(valid)), 0, 7);
        assert!(matches!(&steps[..], [Step::Use(lease)] if lease.address == "fd00::5".parse().ok()), "{steps:?}");
        client
    }

    #[test]
    fn nothing_is_asked_before_a_router_says_so() {
        let mut client = Client::new(MAC, 9);
        assert_eq!((client.next(), client.due(5)), (u64::MAX, Vec::new()));
        client.invited(false, false, 5);
        assert_eq!(client.next(), u64::MAX);
        client.invited(true, false, 6);
        assert_eq!(client.next(), 6);
        sent(&client.due(6));
        client.invited(true, false, 7);
        assert_eq!(client.next(), 6 + FIRST_WAIT, "it is asking already");
    }

    #[test]
    fn the_rest_is_asked_for_where_there_are_no_addresses_and_addresses_later() {
        let mut client = Client::new(MAC, 9);
        client.invited(false, true, 0);
        let inform = client.due(0);
        assert_eq!(sent(&inform)[0], INFORM);
        let steps = client.received(&answer(sent(&inform), REPLY, None), 0, 0);
        assert!(matches!(&steps[..], [Step::Use(lease)] if lease.address.is_none()), "{steps:?}");
        client.invited(true, true, 9);
        assert_eq!(sent(&client.due(9))[0], SOLICIT);
    }

    #[test]
    fn an_offer_without_an_address_is_none_and_asking_goes_on() {
        let mut client = Client::new(MAC, 9);
        client.invited(true, false, 0);
        let solicit = client.due(0);
        assert!(client.received(&answer(sent(&solicit), ADVERTISE, None), 0, 0).is_empty());
        assert_eq!(client.next(), FIRST_WAIT);
    }

    #[test]
    fn a_lease_is_renewed_then_asked_of_anybody_then_over() {
        let mut client = bound(1000);
        let mut kinds = Vec::new();
        loop {
            let now = client.next();
            let steps = client.due(now);
            if let [Step::Drop(_), Step::Send(solicit)] = &steps[..] {
                assert_eq!((now, solicit[0]), (1000 * SECOND, SOLICIT));
                break;
            }
            kinds.push(sent(&steps)[0]);
        }
        assert!(kinds.starts_with(&[RENEW]) && kinds.ends_with(&[REBIND]), "{kinds:?}");
    }

    #[test]
    fn a_lease_for_ever_is_left_alone() {
        assert_eq!(bound(u32::MAX).next(), u64::MAX);
    }
}
