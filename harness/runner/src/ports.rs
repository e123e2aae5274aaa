//! Numbers that tell one probe from another: nonces, and source ports for TCP, whose SYN carries no nonce.

use std::sync::atomic::{AtomicU64, Ordering};

/// Ranges of source ports. None lies in Linux' default ephemeral range (`ip_local_port_range`, 32768 to 60999), from which
/// kubelets, services and every other program draw, nor in Kubernetes' NodePort range (30000 to 32767): a SYN from one of
/// these ports is ours. The same port comes again only after all others, when the earlier probe is long over.
const RANGES: [(u16, u16); 2] = [(20_000, 29_999), (61_000, 65_535)];

/// Source ports of series, whose many connections would have the others' come again while their probes are on their way.
/// Kubernetes' own components listen below.
const SERIES: (u16, u16) = (10_300, 19_999);

const COUNT: u64 = {
    let [(a, b), (c, d)] = RANGES;
    (b - a) as u64 + (d - c) as u64 + 2
};

/// Hands out numbers for a whole run.
#[derive(Debug)]
pub(crate) struct Ports {
    seed: u64,
    nonces: AtomicU64,
    ports: AtomicU64,
    datagrams: AtomicU64,
    echoes: AtomicU64,
    series: AtomicU64,
}

impl Ports {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed,
            nonces: AtomicU64::new(0),
            ports: AtomicU64::new(0),
            datagrams: AtomicU64::new(0),
            echoes: AtomicU64::new(0),
            series: AtomicU64::new(0),
        }
    }

    /// A number that no other probe of the run carries.
    pub(crate) fn nonce(&self) -> u64 {
        scatter(self.seed.wrapping_add(self.nonces.fetch_add(1, Ordering::Relaxed)))
    }

    /// An identifier for an echo request that no other probe of the last moments has: all senders behind one node's
    /// address are told apart by it.
    pub(crate) fn echo(&self) -> u16 {
        u16::try_from(self.seed.wrapping_add(self.echoes.fetch_add(1, Ordering::Relaxed)) & 0xffff).unwrap_or_default()
    }

    /// A source port that no other TCP probe of the last moments has.
    pub(crate) fn port(&self) -> u16 {
        self.nth(self.ports.fetch_add(1, Ordering::Relaxed))
    }

    /// A source port that no other UDP probe of the last moments has: with an earlier one's, a connection tracker would take
    /// it for more of that conversation, and let it pass where nothing new may.
    pub(crate) fn datagram_port(&self) -> u16 {
        self.nth(self.datagrams.fetch_add(1, Ordering::Relaxed))
    }

    /// A source port that no other connection of the last moments' series has.
    pub(crate) fn series_port(&self) -> u16 {
        let (first, last) = SERIES;
        let n = self.seed.wrapping_add(self.series.fetch_add(1, Ordering::Relaxed)) % u64::from(last - first + 1);
        first + u16::try_from(n).unwrap_or_default()
    }

    fn nth(&self, n: u64) -> u16 {
        let n = (self.seed % COUNT + n % COUNT) % COUNT;
        let [(first, last), (second, end)] = RANGES;
        // Both fit: `n` is below the number of ports.
        let n = u16::try_from(n).unwrap_or_default();
        if n <= last - first { first + n } else { (second + (n - (last - first) - 1)).min(end) }
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
        for seed in [0, 7, u64::MAX - 7] {
            let ports = Ports::new(seed);
            let nonces: HashSet<u64> = (0..COUNT).map(|_| ports.nonce()).collect();
            let taken: HashSet<u16> = (0..COUNT).map(|_| ports.port()).collect();
            assert_eq!((nonces.len() as u64, taken.len() as u64), (COUNT, COUNT));
            assert!(taken.iter().all(|port| RANGES.iter().any(|(first, last)| (first..=last).contains(&port))));
        }
    }

    #[test]
    fn no_port_is_one_that_the_kernel_or_a_node_port_may_take() {
        for (first, last) in RANGES.into_iter().chain([SERIES]) {
            assert!(last < 30_000 || first > 60_999, "{first} to {last}");
        }
    }

    #[test]
    fn series_leave_the_ports_of_probes_alone() {
        let ports = Ports::new(7);
        let (first, last) = SERIES;
        let taken: HashSet<u16> = (first..=last).map(|_| ports.series_port()).collect();
        assert_eq!(taken.len(), usize::from(last - first) + 1);
        assert!(taken.iter().all(|port| RANGES.iter().all(|(first, last)| !(first..=last).contains(&port))));
    }
}
