//! What flows' reports come to: their figures, and for how much of a gap an agent itself stood still.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};

use udn_agent::protocol::{BULK_BUCKET_US, BulkReport, Gap, RATES_KEPT};
use udn_model::flow::{FlowFigures, FlowGap, FlowKind, FlowRate};

use super::said::{Common, Said};
use crate::agent::clock;

/// What is known of a flow.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Looked {
    /// When, microseconds since it began.
    pub(super) at_us: u64,
    /// How much it had lost by then.
    pub(super) lost: u64,
}

/// Gaps are told again for so long after their end, microseconds: whether an agent stood still then may be known a little later.
const TOLD_AGAIN_US: u64 = 6_000_000;

/// The figures; of gaps those that had not ended when it was last looked at. `now_us`: the harness' clock.
pub(super) fn figures(said: &Said, looked: Looked, now_us: i64) -> FlowFigures {
    let report = said.common();
    let ahead_us = now_us - clock(report.started_us + report.took_us);
    let ended = |gap: &&Gap| (gap.started_us + gap.took_us).saturating_sub(report.started_us) > looked.at_us;
    let told = |gap: &Gap| FlowGap {
        at_us: clock(gap.started_us) + ahead_us,
        took_ms: gap.took_us / 1000,
        starved_ms: 0,
        open: false,
    };
    let outage_ms = report.gaps.iter().filter(ended).map(|gap| gap.took_us / 1000).max().unwrap_or_default();
    let lately =
        |gap: &&Gap| (gap.started_us + gap.took_us).saturating_sub(report.started_us) + TOLD_AGAIN_US > looked.at_us;
    let mut gaps: Vec<FlowGap> = report.gaps.iter().filter(lately).map(told).collect();
    if report.silent_us > report.gap_over_us {
        let at_us = now_us - clock(report.silent_us);
        gaps.push(FlowGap { at_us, took_ms: report.silent_us / 1000, starved_ms: 0, open: true });
    }
    let outage_ms = gaps.iter().filter(|gap| gap.open).map(|gap| gap.took_ms).fold(outage_ms, u64::max);
    let common = FlowFigures { retransmits: report.retransmits, outage_ms, gaps, ..FlowFigures::default() };
    match said {
        Said::Frames(report) => FlowFigures {
            kind: FlowKind::Frames,
            sent: report.sent,
            received: report.received,
            lost: report.lost,
            lost_now: report.lost.saturating_sub(looked.lost),
            bytes_sent: report.bytes_sent,
            bytes_received: report.bytes_received,
            rate: Some(FlowRate {
                from_us: clock(report.rate_from_us) + ahead_us,
                per_100ms: report.rate.iter().copied().map(u64::from).collect(),
            }),
            ..common
        },
        Said::Bulk(report) => FlowFigures {
            kind: FlowKind::Bulk,
            bytes_sent: report.bytes,
            throughput: Some(throughput(report, ahead_us)),
            ..common
        },
    }
}

/// Of a bulk transfer as much as of frames: their rate is told that far back.
fn throughput(report: &BulkReport, ahead_us: i64) -> FlowRate {
    let skip = report.buckets.len().saturating_sub(RATES_KEPT);
    FlowRate {
        from_us: clock(report.buckets_from_us + skip as u64 * BULK_BUCKET_US) + ahead_us,
        per_100ms: report.buckets.iter().skip(skip).copied().collect(),
    }
}

/// When agents had no processor, as far as their own flows told: a gap says nothing of the network while either end stood still.
#[derive(Debug, Default)]
pub(crate) struct Stalls(Mutex<HashMap<String, BTreeSet<(i64, i64)>>>);

/// Stalls that are kept of an agent, the latest ones.
const STALLS: usize = 4096;

impl Stalls {
    pub(super) fn note(&self, agent: &str, report: &Common<'_>, now_us: i64) {
        let ahead_us = now_us - clock(report.started_us + report.took_us);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = all.entry(agent.to_owned()).or_default();
        for stall in report.stalls {
            let to = clock(stall.at_us) + ahead_us;
            known.insert((to - clock(stall.late_us), to));
        }
        while known.len() > STALLS {
            known.pop_first();
        }
    }

    /// Says of gaps for how much of them one of these agents stood still.
    pub(super) fn blame(&self, agents: &[&str], gaps: &mut [FlowGap]) {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut stalls: Vec<(i64, i64)> =
            agents.iter().filter_map(|agent| all.get(*agent)).flatten().copied().collect();
        stalls.sort_unstable();
        for gap in gaps {
            let (mut at, to) = (gap.at_us, gap.at_us + clock(gap.took_ms * 1000));
            let mut starved_us = 0;
            for (from, until) in &stalls {
                let (from, until) = ((*from).max(at), (*until).min(to));
                starved_us += (until - from).max(0);
                at = at.max(until);
            }
            gap.starved_ms = u64::try_from(starved_us / 1000).unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use udn_agent::protocol::{FlowReport, Stall, TcpFigures};

    use super::*;

    fn gap(from_ms: u64, ms: u64) -> Gap {
        Gap { started_us: 1_000_000 + from_ms * 1000, took_us: ms * 1000, sent: 1 }
    }

    #[rstest]
    #[case::none(vec![], 5, 0, 0)]
    #[case::longest(vec![gap(100, 700), gap(2000, 300)], 5, 0, 700)]
    #[case::only_since_the_last_look(vec![gap(100, 700), gap(2000, 300)], 5, 1500, 300)]
    #[case::one_that_had_begun_before(vec![gap(100, 700)], 5, 400, 700)]
    #[case::still_out(vec![gap(100, 700)], 900, 0, 900)]
    fn outages(#[case] gaps: Vec<Gap>, #[case] since_ms: u64, #[case] after_ms: u64, #[case] outage_ms: u64) {
        let report = FlowReport {
            started_us: 1_000_000,
            gaps,
            since_last_reply_us: since_ms * 1000,
            gap_over_us: 35_000,
            ..FlowReport::default()
        };
        let looked = Looked { at_us: after_ms * 1000, lost: 0 };
        let said = Said::Frames(Box::new(report));
        assert_eq!(figures(&said, looked, 9_000_000).outage_ms, outage_ms);
    }

    #[test]
    fn gaps_are_told_by_the_harness_clock_with_what_either_end_slept() {
        // The agent's clock: the flow began at one second and was asked five seconds later, when ours said 1006 s.
        let at = |at_us, late_us| Stall { at_us, late_us };
        let report = FlowReport {
            started_us: 1_000_000,
            took_us: 5_000_000,
            gaps: vec![gap(100, 3000)],
            stalls: vec![at(2_500_000, 2_480_000), at(5_000_000, 700_000)],
            lost: 7,
            ..FlowReport::default()
        };
        let said = Said::Frames(Box::new(report.clone()));
        let mut figures = figures(&said, Looked { at_us: 0, lost: 4 }, 1_006_000_000);
        assert_eq!(figures.lost_now, 3);
        let stalls = Stalls::default();
        stalls.note("red/db", &said.common(), 1_006_000_000);
        stalls.blame(&["red/near"], &mut figures.gaps);
        assert_eq!(figures.gaps[0].starved_ms, 0);
        // From 1.1 to 4.1 s: the first stall's end, and none of the second; what overlaps counts once.
        let stood = vec![at(2_400_000, 100_000), at(3_000_000, 200_000)];
        let said = Said::Frames(Box::new(FlowReport { stalls: stood, ..report }));
        stalls.note("red/near", &said.common(), 1_006_000_000);
        stalls.blame(&["red/near", "red/db"], &mut figures.gaps);
        let told = FlowGap { at_us: 1_001_100_000, took_ms: 3000, starved_ms: 1600, open: false };
        assert_eq!(figures.gaps, [told]);
    }

    #[test]
    fn a_bulk_transfer_has_its_bytes_where_others_have_frames() {
        // It began at 1.2 s by the agent's clock and was asked at 11 s, when ours said 1006 s.
        let buckets: Vec<u64> = (0..98).collect();
        let report = BulkReport {
            started_us: 1_000_000,
            took_us: 10_000_000,
            began_us: Some(1_200_000),
            bytes: 4753,
            buckets_from_us: 1_200_000,
            buckets,
            gap_over_us: 100_000,
            gaps: vec![gap(300, 240)],
            since_last_byte_us: 2_500_000,
            tcp: Some(TcpFigures { retransmits: 5, ..TcpFigures::default() }),
            ..BulkReport::default()
        };
        let told = figures(&Said::Bulk(Box::new(report.clone())), Looked::default(), 1_006_000_000);
        assert_eq!((told.kind, told.bytes_sent, told.retransmits, told.outage_ms), (FlowKind::Bulk, 4753, 5, 2500));
        assert_eq!((told.sent, told.received, told.lost, told.rate), (0, 0, 0, None));
        let open = FlowGap { at_us: 1_003_500_000, took_ms: 2500, starved_ms: 0, open: true };
        let ended = FlowGap { at_us: 996_300_000, took_ms: 240, starved_ms: 0, open: false };
        assert_eq!(told.gaps, [ended, open]);
        let throughput = told.throughput.unwrap();
        assert_eq!((throughput.per_100ms.len(), throughput.per_100ms[0]), (RATES_KEPT, 34));
        assert_eq!(throughput.from_us, 996_200_000 + 3_400_000, "by the harness' clock");
        let goes_on = BulkReport { since_last_byte_us: 30_000, ..report };
        let later = Looked { at_us: 9_000_000, lost: 0 };
        assert_eq!(figures(&Said::Bulk(Box::new(goes_on)), later, 1_006_000_000).outage_ms, 0, "told before");
    }
}
