//! Many connections to one address of a service: who answers them, all taken together.
//!
//! One connection says that somebody answers. Only many say that nobody is left out, or that they stay with one.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::world::PodRef;

/// How likely a healthy service may fail one series at most. A run makes some hundred series, each a few times: all in
/// all one false alarm in a million runs.
pub const ERROR_PROBABILITY: f64 = 1e-9;
/// Into how many parts Open vSwitch cuts the hashes of connections at least (`dp_hash` of a select group): shares of
/// backends are multiples of one part.
const PARTS: usize = 16;

/// What is promised of many connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Series {
    /// What it is.
    pub promise: Promise,
    /// The backends that may answer.
    pub among: Vec<PodRef>,
    /// How many connections are made at most, each from a source port of its own. A spread is believed as soon as every
    /// backend has answered, which a quarter of them nearly always shows; that one does not is believed after all of them.
    pub connections: u16,
}

/// What of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Promise {
    /// Every backend answers at least one of them.
    Spread,
    /// One and the same backend answers all of them: session affinity.
    Sticks,
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Spread => "spread",
            Self::Sticks => "sticks",
        })
    }
}

impl Series {
    /// As many connections to these backends as the promise needs.
    #[must_use]
    pub fn new(promise: Promise, among: Vec<PodRef>) -> Self {
        let connections = match promise {
            Promise::Spread => connections(among.len()),
            Promise::Sticks => connections_of_one(among.len()),
        };
        Self { promise, among, connections }
    }

    /// How many connections are made before it is looked at who answered: for a spread a quarter, for what must never
    /// happen, all.
    #[must_use]
    pub fn at_first(&self) -> u16 {
        match self.promise {
            Promise::Spread => self.connections.div_ceil(4),
            Promise::Sticks => self.connections,
        }
    }
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |between: &str| self.among.iter().map(ToString::to_string).collect::<Vec<_>>().join(between);
        match self.promise {
            Promise::Spread => write!(
                f,
                "of {} connections each of {} answers at least one, nobody else any, and none is lost (a fair spread fails this \
                 with a probability of {ERROR_PROBABILITY:e} at most)",
                self.connections,
                names(", ")
            ),
            Promise::Sticks => {
                write!(f, "all {} connections are answered by one and the same of {}", self.connections, names(", "))
            }
        }
    }
}

/// How many connections make it as good as certain that each of so many backends answers one.
///
/// A backend with the share `s` of all connections is missed by `n` of them with the probability `(1-s)^n`, one of `k` with
/// `k·(1-s)^n` at most.
#[must_use]
pub fn connections(backends: usize) -> u16 {
    if backends < 2 {
        return 1;
    }
    let k = f64::from(u16::try_from(backends).unwrap_or(u16::MAX));
    // The least favoured backend: where the parts cannot be shared out evenly it has one part less. More backends than
    // parts make Open vSwitch cut more parts.
    let parts = PARTS.max((backends * 2).next_power_of_two());
    let share = f64::from(u16::try_from(parts / backends).unwrap_or(u16::MAX))
        / f64::from(u16::try_from(parts).unwrap_or(u16::MAX));
    let mut n = 1;
    while k * (1.0 - share).powi(i32::from(n)) > ERROR_PROBABILITY && n < 1000 {
        n += 1;
    }
    n
}

/// How many connections make it as good as certain that it is no chance if one of so many backends answers them all: with
/// a share of `s` at most, that happens with the probability `k·s^n` at most.
#[must_use]
pub fn connections_of_one(backends: usize) -> u16 {
    if backends < 2 {
        return 1;
    }
    let k = f64::from(u16::try_from(backends).unwrap_or(u16::MAX));
    let parts = PARTS.max((backends * 2).next_power_of_two());
    let share = f64::from(u16::try_from(parts.div_ceil(backends)).unwrap_or(u16::MAX))
        / f64::from(u16::try_from(parts).unwrap_or(u16::MAX));
    let mut n = 1;
    while k * share.powi(i32::from(n)) > ERROR_PROBABILITY && n < 1000 {
        n += 1;
    }
    n
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enough_connections_and_not_more() {
        let counts: Vec<u16> = (1..=4).map(connections).collect();
        assert_eq!(counts, [1, 31, 59, 77]);
        let counts: Vec<u16> = (1..=4).map(connections_of_one).collect();
        assert_eq!(counts, [1, 31, 23, 16]);
        for k in 2..=20_usize {
            let n = i32::from(connections(k));
            let k = f64::from(u32::try_from(k).unwrap());
            assert!(k * (1.0 - 1.0 / k).powi(n) <= ERROR_PROBABILITY, "{k} backends, {n} connections");
        }
    }
}
