//! What a flow counts: frames, replies, gaps, round-trip times, stalls of its own. No socket.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::clock::MILLISECOND;
use crate::clock::wall_us;
use crate::protocol::{FlowReport, GAPS_KEPT, Gap, RATES_KEPT, RoundTrips, STALLS_KEPT, Stall};

/// Frames whose sending times are remembered: 4 s of the shortest period, 40 s of the longest. A power of two.
const REMEMBERED: usize = 4096;

/// A class of the rate of replies, microseconds.
const RATE_CLASS_US: u64 = 100 * MILLISECOND;

/// Round-trip times that are recent: 1.3 s at a period of 5 ms.
const RECENT: usize = 256;

/// An agent that wakes up later than this has stood still, microseconds: as long as a gap may be without being one.
pub(super) const STALL_US: u64 = 20 * MILLISECOND;

/// Round-trip times are counted in four classes per power of two; there are 32 powers of two.
const CLASSES: usize = 128;

/// A moment by both clocks, microseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Moment {
    pub(super) monotonic: u64,
    pub(super) wall: u64,
}

/// The counters.
pub(super) struct Figures {
    /// Replies come in order and once (TCP).
    in_order: bool,
    started: Moment,
    gap_over_us: u64,
    pub(super) sent: u64,
    pub(super) held_back: u64,
    pub(super) missed: u64,
    late_us: u64,
    stalls: Vec<Stall>,
    pub(super) bytes_sent: u64,
    pub(super) bytes_received: u64,
    pub(super) garbled: u64,
    received: u64,
    reordered: u64,
    duplicated: u64,
    /// Number of the frame behind the last one that has a reply.
    next: u64,
    first_reply: Option<Moment>,
    last_reply: Option<Moment>,
    sent_at_last_reply: u64,
    gaps: Vec<Gap>,
    gap_count: u64,
    longest_us: u64,
    rate: Rate,
    /// When the last frames were sent, microseconds from the start, cut to 32 bits; 0: it has its reply.
    sendings: Vec<u32>,
    rtts: Vec<u32>,
    fastest: u32,
    slowest: u32,
    /// The last round-trip times, oldest overwritten first.
    recent: Vec<u32>,
}

/// Replies in each tenth of a second since the start, the latest of them.
#[derive(Clone, Default)]
struct Rate {
    classes: VecDeque<u16>,
    /// Number of the class behind the last one.
    end: u64,
}

impl Rate {
    /// Makes the class of this moment the last one.
    fn go_on(&mut self, started: u64, now: u64) {
        let end = now.saturating_sub(started) / RATE_CLASS_US + 1;
        for _ in 0..end.saturating_sub(self.end).min(RATES_KEPT as u64) {
            if self.classes.len() == RATES_KEPT {
                self.classes.pop_front();
            }
            self.classes.push_back(0);
        }
        self.end = self.end.max(end);
    }
}

impl Figures {
    pub(super) fn new(in_order: bool, period_us: u32, started: Moment) -> Self {
        Self {
            in_order,
            started,
            gap_over_us: 3 * u64::from(period_us) + 20 * MILLISECOND,
            sent: 0,
            held_back: 0,
            missed: 0,
            late_us: 0,
            stalls: Vec::new(),
            bytes_sent: 0,
            bytes_received: 0,
            garbled: 0,
            received: 0,
            reordered: 0,
            duplicated: 0,
            next: 0,
            first_reply: None,
            last_reply: None,
            sent_at_last_reply: 0,
            gaps: Vec::new(),
            gap_count: 0,
            longest_us: 0,
            rate: Rate::default(),
            sendings: alloc::vec![0; REMEMBERED],
            rtts: alloc::vec![0; CLASSES],
            fastest: u32::MAX,
            slowest: 0,
            recent: Vec::new(),
        }
    }

    /// The next frame was handed to the kernel.
    pub(super) fn sent(&mut self, now: u64) {
        let at = self.offset(now);
        if let Some(slot) = self.sendings.get_mut(position(self.sent)) {
            *slot = at;
        }
        self.sent += 1;
    }

    /// The reply to the frame of this number came; false: no such frame was sent.
    pub(super) fn reply(&mut self, number: u64, now: Moment) -> bool {
        if number >= self.sent {
            return false;
        }
        let remembered = self.sent - number <= REMEMBERED as u64;
        let at = self.sendings.get(position(number)).copied().filter(|_| remembered);
        if at == Some(0) || (self.in_order && number < self.next) {
            self.duplicated += 1;
            return true;
        }
        if let Some(at) = at {
            self.count_rtt(self.offset(now.monotonic).wrapping_sub(at));
            if let Some(slot) = self.sendings.get_mut(position(number)) {
                *slot = 0;
            }
        }
        self.received += 1;
        if number < self.next {
            self.reordered += 1;
        } else {
            self.next = number + 1;
        }
        self.count_gap(now);
        self.rate.go_on(self.started.monotonic, now.monotonic);
        if let Some(last) = self.rate.classes.back_mut() {
            *last = last.saturating_add(1);
        }
        self.first_reply.get_or_insert(now);
        self.last_reply = Some(now);
        self.sent_at_last_reply = self.sent;
        true
    }

    /// TCP: did a reply come that is not the one to the next frame?
    pub(super) const fn out_of_order(&self) -> bool {
        self.in_order && (self.duplicated > 0 || self.next != self.received)
    }

    fn count_gap(&mut self, now: Moment) {
        let Some(last) = self.last_reply else { return };
        let took_us = now.monotonic.saturating_sub(last.monotonic);
        self.longest_us = self.longest_us.max(took_us);
        if took_us <= self.gap_over_us {
            return;
        }
        self.gap_count += 1;
        self.gaps.push(Gap { started_us: last.wall, took_us, sent: self.sent - self.sent_at_last_reply });
        if self.gaps.len() > GAPS_KEPT
            && let Some((shortest, _)) = self.gaps.iter().enumerate().min_by_key(|(_, gap)| gap.took_us)
        {
            self.gaps.remove(shortest);
        }
    }

    /// The agent was this late for a frame.
    pub(super) fn woke_late(&mut self, late_us: u64) {
        self.late_us = self.late_us.max(late_us);
        if late_us > STALL_US {
            note_stall(&mut self.stalls, Stall { at_us: wall_us(), late_us });
        }
    }

    fn recent_round_trips(&self) -> Option<RoundTrips> {
        let mut sorted = self.recent.clone();
        sorted.sort_unstable();
        let [min_us, median_us, max_us] =
            [sorted.first(), sorted.get(sorted.len() / 2), sorted.last()].map(|rtt| rtt.map(|rtt| u64::from(*rtt)));
        Some(RoundTrips { min_us: min_us?, median_us: median_us?, max_us: max_us? })
    }

    fn count_rtt(&mut self, rtt: u32) {
        if self.recent.len() < RECENT {
            self.recent.push(rtt);
        } else if let Some(slot) = self.recent.get_mut(self.received as usize % RECENT) {
            *slot = rtt;
        }
        self.fastest = self.fastest.min(rtt);
        self.slowest = self.slowest.max(rtt);
        if let Some(count) = self.rtts.get_mut(class(rtt)) {
            *count = count.saturating_add(1);
        }
    }

    /// Never 0.
    const fn offset(&self, now: u64) -> u32 {
        let offset = now.saturating_sub(self.started.monotonic) as u32;
        if offset == 0 { 1 } else { offset }
    }

    fn round_trips(&self) -> Option<RoundTrips> {
        let all: u64 = self.rtts.iter().map(|count| u64::from(*count)).sum();
        let mut below = 0;
        let median = self.rtts.iter().position(|count| {
            below += u64::from(*count);
            all > 0 && 2 * below >= all
        })?;
        let (fastest, slowest) = (u64::from(self.fastest), u64::from(self.slowest));
        Some(RoundTrips { min_us: fastest, median_us: shortest_of(median).max(fastest), max_us: slowest })
    }

    /// Fills in what is counted here.
    pub(super) fn report(&self, now: u64) -> FlowReport {
        let mut rate = self.rate.clone();
        rate.go_on(self.started.monotonic, now);
        let since = self.last_reply.unwrap_or(self.started);
        FlowReport {
            started_us: self.started.wall,
            took_us: now.saturating_sub(self.started.monotonic),
            sent: self.sent,
            received: self.received,
            held_back: self.held_back,
            missed: self.missed,
            late_us: self.late_us,
            bytes_sent: self.bytes_sent,
            bytes_received: self.bytes_received,
            lost: self.next.saturating_sub(self.received),
            reordered: self.reordered,
            duplicated: self.duplicated,
            garbled: self.garbled,
            first_reply_us: self.first_reply.map(|reply| reply.wall),
            last_reply_us: self.last_reply.map(|reply| reply.wall),
            since_last_reply_us: now.saturating_sub(since.monotonic),
            gap_over_us: self.gap_over_us,
            gap_count: self.gap_count,
            gaps: self.gaps.clone(),
            longest_us: self.longest_us,
            rate_from_us: self.started.wall + (rate.end - rate.classes.len() as u64) * RATE_CLASS_US,
            rate: rate.classes.into(),
            rtt: self.round_trips(),
            recent_rtt: self.recent_round_trips(),
            stalls: self.stalls.clone(),
            ..FlowReport::default()
        }
    }
}

/// Keeps the longest, in the order of time.
pub(super) fn note_stall(stalls: &mut Vec<Stall>, stall: Stall) {
    stalls.push(stall);
    if stalls.len() > STALLS_KEPT
        && let Some((shortest, _)) = stalls.iter().enumerate().min_by_key(|(_, stall)| stall.late_us)
    {
        stalls.remove(shortest);
    }
}

const fn position(number: u64) -> usize {
    number as usize & (REMEMBERED - 1)
}

/// The class of a round-trip time: below 4 each its own, then four per power of two.
const fn class(rtt: u32) -> usize {
    if rtt < 4 {
        return rtt as usize;
    }
    let power = rtt.ilog2();
    ((power - 1) * 4 + ((rtt >> (power - 2)) & 3)) as usize
}

/// The shortest time of a class.
const fn shortest_of(class: usize) -> u64 {
    if class < 4 { class as u64 } else { (4 + class as u64 % 4) << (class / 4 - 1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(monotonic: u64) -> Moment {
        Moment { monotonic, wall: 1_000_000_000 + monotonic }
    }

    fn figures(in_order: bool) -> Figures {
        Figures::new(in_order, 5_000, at(1_000_000))
    }

    #[test]
    fn classes_are_within_a_quarter() {
        for rtt in (0..5_000).chain([u32::MAX / 3, u32::MAX - 1, u32::MAX]) {
            let class = class(rtt);
            let (shortest, next) = (shortest_of(class), shortest_of(class + 1));
            assert!(class < CLASSES && shortest <= u64::from(rtt) && u64::from(rtt) < next, "{rtt}: {class}");
            assert!(5 * shortest >= 4 * u64::from(rtt) || rtt < 8, "{rtt}: {shortest}");
        }
    }

    #[test]
    fn a_lively_flow_has_no_gap_and_an_outage_is_one() {
        let mut figures = figures(true);
        let mut now = 1_000_000;
        for number in 0..300_u64 {
            now += 5_000;
            figures.sent(now);
            // 100 to 199: the replies come together 700 ms late.
            if !(100..200).contains(&number) {
                if number == 200 {
                    for late in 100..200 {
                        assert!(figures.reply(late, at(now)));
                    }
                }
                assert!(figures.reply(number, at(now + 400)));
            }
        }
        assert!(!figures.out_of_order());
        let report = figures.report(now + 1_400);
        assert_eq!((report.sent, report.received, report.lost, report.duplicated), (300, 300, 0, 0));
        assert_eq!((report.gap_over_us, report.gap_count, report.since_last_reply_us), (35_000, 1, 1_000));
        assert_eq!(report.longest_us, report.gaps[0].took_us);
        let gap = report.gaps[0];
        assert_eq!((gap.took_us, gap.sent, gap.started_us), (504_600, 101, 1_000_000_000 + 1_500_400));
        let rtt = report.rtt.expect("times");
        assert_eq!(rtt.min_us, 400);
        assert!((320..=400).contains(&rtt.median_us) && rtt.max_us == 500_000, "{rtt:?}");
    }

    #[test]
    fn replies_are_counted_by_tenths_of_a_second() {
        let start = at(1_000_000);
        let mut figures = Figures::new(false, 5_000, start);
        for (number, after_ms) in [10, 20, 150, 390].into_iter().enumerate() {
            figures.sent(start.monotonic);
            figures.reply(number as u64, at(start.monotonic + after_ms * 1_000));
        }
        let report = figures.report(start.monotonic + 520_000);
        assert_eq!((report.rate_from_us, report.rate), (start.wall, [2, 1, 0, 1, 0, 0].to_vec()));
        let late = figures.report(start.monotonic + 100_000_000);
        assert_eq!(
            (late.rate.len(), late.rate_from_us),
            (RATES_KEPT, start.wall + (1_001 - RATES_KEPT as u64) * 100_000)
        );
        assert!(late.rate.iter().all(|replies| *replies == 0));
    }

    #[test]
    fn loss_order_and_copies_are_told_apart() {
        let mut figures = figures(false);
        for _ in 0..6 {
            figures.sent(1_000_000);
        }
        for number in [0, 3, 2, 2, 4] {
            assert!(figures.reply(number, at(1_000_100)));
        }
        assert!(!figures.reply(6, at(1_000_100)), "never sent");
        let report = figures.report(1_000_200);
        // 1 is lost, 2 came late and twice, 5 is on its way.
        assert_eq!((report.received, report.lost, report.reordered, report.duplicated), (4, 1, 1, 1));
        assert!(figures.reply(1, at(1_000_300)));
        assert_eq!(figures.report(1_000_300).lost, 0);
    }

    #[test]
    fn a_stream_that_skips_or_repeats_is_out_of_order() {
        for replies in [[0, 2], [0, 0]] {
            let mut figures = figures(true);
            for _ in 0..3 {
                figures.sent(1_000_000);
            }
            assert!(!figures.out_of_order());
            for number in replies {
                assert!(figures.reply(number, at(1_000_100)));
            }
            assert!(figures.out_of_order(), "{replies:?}");
        }
    }

    #[test]
    fn the_longest_gaps_are_kept_in_order_of_time() {
        let mut figures = figures(false);
        let mut now = 1_000_000;
        for number in 0..40_u64 {
            now += 40_000 + (number * 7 % 40) * 1_000;
            figures.sent(now);
            figures.reply(number, at(now));
        }
        let report = figures.report(now);
        assert_eq!((report.gap_count, report.gaps.len()), (39, GAPS_KEPT));
        assert!(report.gaps.iter().all(|gap| gap.took_us >= 64_000), "{:?}", report.gaps);
        assert!(report.gaps.is_sorted_by_key(|gap| gap.started_us));
    }
}
