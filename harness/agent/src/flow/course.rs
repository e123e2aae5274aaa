//! What is known of a flow, whatever carries it.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;

use super::figures::{Figures, Moment};
use crate::clock::{monotonic_us, wall_us};
use crate::protocol::{FlowReport, Unreachable};
use crate::sys::messages::QueuedError;

/// Other identities that are remembered.
const OTHERS: usize = 4;

/// This moment.
pub(super) fn now() -> Moment {
    Moment { monotonic: monotonic_us(), wall: wall_us() }
}

/// How a flow goes.
pub(super) struct Course {
    pub(super) figures: Figures,
    pub(super) local: Option<SocketAddr>,
    started: u64,
    connect_us: Option<u64>,
    identity: Option<String>,
    others: Vec<String>,
    seen_as: Option<SocketAddr>,
    faults: u64,
    last_fault: Option<Unreachable>,
}

impl Course {
    pub(super) fn new(in_order: bool, period_us: u32) -> Self {
        let started = now();
        Self {
            figures: Figures::new(in_order, period_us, started),
            local: None,
            started: started.monotonic,
            connect_us: None,
            identity: None,
            others: Vec::new(),
            seen_as: None,
            faults: 0,
            last_fault: None,
        }
    }

    pub(super) const fn started(&self) -> u64 {
        self.started
    }

    /// The way there and back is open.
    pub(super) fn connected(&mut self, local: Option<SocketAddr>) {
        self.connect_us = Some(monotonic_us().saturating_sub(self.started));
        self.local = local;
    }

    pub(super) const fn is_established(&self) -> bool {
        self.identity.is_some()
    }

    /// The peer said who it is.
    pub(super) fn established(&mut self, identity: String, seen_as: Option<SocketAddr>) {
        if self.identity.is_none() {
            self.identity = Some(identity);
            self.seen_as = seen_as;
        } else if self.identity.as_ref() != Some(&identity)
            && self.others.len() < OTHERS
            && !self.others.contains(&identity)
        {
            self.others.push(identity);
        }
    }

    /// An error that the flow survives.
    pub(super) fn fault(&mut self, error: QueuedError) {
        self.faults += 1;
        self.last_fault = Some(Unreachable { icmp: error.icmp, errno: error.errno });
    }

    /// An error together with the last ICMP message, where that is what the kernel made the error of.
    pub(super) fn explained(&self, error: Unreachable) -> Unreachable {
        self.last_fault.filter(|fault| fault.errno == error.errno).unwrap_or(error)
    }

    pub(super) fn report(&self) -> Box<FlowReport> {
        Box::new(FlowReport {
            connect_us: self.connect_us,
            local: self.local,
            identity: self.identity.clone(),
            others: self.others.clone(),
            seen_as: self.seen_as,
            faults: self.faults,
            last_fault: self.last_fault,
            ..self.figures.report(monotonic_us())
        })
    }
}
