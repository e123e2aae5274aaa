//! Numbers that tell one probe from another: nonces, and source ports for TCP, whose SYN carries no nonce.

use std::sync::atomic::{AtomicU64, Ordering};

/// First source port: behind the NodePort range and Kubernetes' own ports.
const FIRST: u64 = 33_000;
/// How many there are: up to the end of Linux' ephemeral range. The same number comes again only after so many probes,
/// when the earlier one is long over.
const COUNT: u64 = 60_999 - FIRST + 1;

/// Hands out numbers for a whole run.
#[derive(Debug)]
pub(crate) struct Ports {
    seed: u64,
    next: AtomicU64,
}

impl Ports {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, next: AtomicU64::new(0) }
    }

    /// A nonce that no other probe of the run has, and a source port that no other probe of the last moments has.
    pub(crate) fn take(&self) -> (u64, u16) {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + self.seed.wrapping_add(n) % COUNT;
        (scatter(self.seed.wrapping_add(n)), u16::try_from(port).unwrap_or(u16::MAX))
    }
}

/// SplitMix64's finalizer: a bijection, so that different numbers stay different but do not look like a counter.
const fn scatter(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn nonces_are_unique_and_ports_come_again_late() {
        let ports = Ports::new(u64::MAX - 7);
        let taken: Vec<(u64, u16)> = (0..COUNT).map(|_| ports.take()).collect();
        assert_eq!(taken.iter().map(|(nonce, _)| nonce).collect::<HashSet<_>>().len(), taken.len());
        // The wrap of the 64-bit counter may repeat a few.
        assert!(taken.iter().map(|(_, port)| port).collect::<HashSet<_>>().len() > taken.len() - 10_000);
        assert!(taken.iter().all(|(_, port)| (33_000..=60_999).contains(port)));
        let steady = Ports::new(0);
        let taken: HashSet<u16> = (0..COUNT).map(|_| steady.take().1).collect();
        assert_eq!(taken.len() as u64, COUNT);
    }
}
