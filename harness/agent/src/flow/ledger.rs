//! What is counted of a bulk transfer. No socket.

use alloc::vec::Vec;

use super::figures::{Moment, STALL_US, note_stall};
use crate::clock::MILLISECOND;
use crate::protocol::{BULK_BUCKET_US, BULK_BUCKETS, BulkReport, GAPS_KEPT, Gap, Stall};

/// A longer time without a byte is a gap: half of the kernel's shortest retransmission timeout.
const GAP_OVER_US: u64 = 100 * MILLISECOND;

/// Bytes over time.
pub(super) struct Ledger {
    began: Moment,
    last: Moment,
    bytes: u64,
    /// How many buckets were forgotten before the first of these.
    forgotten: u64,
    buckets: Vec<u64>,
    gaps: Vec<Gap>,
    gap_count: u64,
    late_us: u64,
    stalls: Vec<Stall>,
}

impl Ledger {
    pub(super) const fn new(began: Moment) -> Self {
        Self {
            began,
            last: began,
            bytes: 0,
            forgotten: 0,
            buckets: Vec::new(),
            gaps: Vec::new(),
            gap_count: 0,
            late_us: 0,
            stalls: Vec::new(),
        }
    }

    /// More bytes went through.
    pub(super) fn count(&mut self, bytes: u64, now: Moment) {
        if bytes == 0 {
            return;
        }
        self.bytes += bytes;
        self.open_bucket(now.monotonic);
        if let Some(sum) = self.buckets.last_mut() {
            *sum += bytes;
        }
        let took_us = now.monotonic.saturating_sub(self.last.monotonic);
        if took_us > GAP_OVER_US {
            self.gap_count += 1;
            self.gaps.push(Gap { started_us: self.last.wall, took_us, sent: 0 });
            if self.gaps.len() > GAPS_KEPT
                && let Some((shortest, _)) = self.gaps.iter().enumerate().min_by_key(|(_, gap)| gap.took_us)
            {
                self.gaps.remove(shortest);
            }
        }
        self.last = now;
    }

    /// Makes the bucket of this moment the last one.
    fn open_bucket(&mut self, monotonic: u64) {
        let bucket = monotonic.saturating_sub(self.began.monotonic) / BULK_BUCKET_US;
        while self.forgotten + self.buckets.len() as u64 <= bucket {
            if self.buckets.len() == BULK_BUCKETS {
                self.buckets.remove(0);
                self.forgotten += 1;
            }
            self.buckets.push(0);
        }
    }

    /// Bytes so far.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The agent was this late for looking.
    pub(super) fn woke_late(&mut self, late_us: u64, now: Moment) {
        self.late_us = self.late_us.max(late_us);
        if late_us > STALL_US {
            note_stall(&mut self.stalls, Stall { at_us: now.wall, late_us });
        }
    }

    /// Fills in what is counted here.
    pub(super) fn report(&mut self, now: u64) -> BulkReport {
        self.open_bucket(now);
        BulkReport {
            began_us: Some(self.began.wall),
            bytes: self.bytes,
            buckets_from_us: self.began.wall + self.forgotten * BULK_BUCKET_US,
            buckets: self.buckets.clone(),
            gap_over_us: GAP_OVER_US,
            gap_count: self.gap_count,
            gaps: self.gaps.clone(),
            since_last_byte_us: now.saturating_sub(self.last.monotonic),
            late_us: self.late_us,
            stalls: self.stalls.clone(),
            ..BulkReport::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: u64) -> Moment {
        Moment { monotonic: 5_000_000 + milliseconds * MILLISECOND, wall: milliseconds * MILLISECOND }
    }

    #[test]
    fn bytes_are_counted_where_they_were_seen_and_gaps_between_them() {
        let mut ledger = Ledger::new(at(0));
        for (milliseconds, bytes) in [(10, 1), (90, 2), (110, 4), (450, 8), (460, 0)] {
            ledger.count(bytes, at(milliseconds));
        }
        let report = ledger.report(at(500).monotonic);
        assert_eq!((report.bytes, &report.buckets[..]), (15, &[3, 4, 0, 0, 8, 0][..]));
        assert_eq!(report.gaps, [Gap { started_us: 110_000, took_us: 340_000, sent: 0 }]);
        assert_eq!((report.gap_count, report.since_last_byte_us), (1, 50_000));
    }

    #[test]
    fn the_latest_buckets_are_kept() {
        let mut ledger = Ledger::new(at(0));
        for second in 0..200 {
            ledger.count(second, at(second * 1000));
        }
        let report = ledger.report(at(199_950).monotonic);
        assert_eq!((report.buckets.len(), report.buckets_from_us), (BULK_BUCKETS, 140_000 * MILLISECOND));
        assert_eq!((report.buckets[0], report.buckets[1], report.buckets[590]), (140, 0, 199));
        assert_eq!((report.bytes, report.gaps.len()), ((0..200).sum(), GAPS_KEPT));
    }
}
