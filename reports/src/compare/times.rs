//! What takes longer, told from noise.
//!
//! Within a scenario cells settle together, in the same round: thousands of cells are hardly more than one measurement, and
//! how far they lie apart says nothing of how much the next run will differ. What a run's noise is shows only in how much
//! its *scenarios* differ from the other run's. So a scenario is one value, and it is compared with all others.

use std::collections::BTreeMap;

use serde::Serialize;

use super::read::Half;
use crate::figures::Sorted;

/// How times are compared, for `--help` and documents.
pub const METHOD: &str = "\
Slower to settle: of the cells that settled in both runs, each scenario's median and 95th percentile are compared. A \
scenario is slower if its time grew by at least 3 s (one round more, which one lost answer costs, is noise) and by a \
factor that exceeds the median factor of all scenarios (a slower machine, told as such) at least twice, and by three \
robust standard deviations (1.4826 times the median distance from the median); four times always counts. 500 ms, the \
pace of rounds, are added to times before factors are taken, so that 1 ms and 20 ms are alike.

Longer outage: a flow of both runs was out for at least 250 ms more, and for more than twice as long.";

/// What is added to times before their ratio is taken, milliseconds: the pace of rounds.
const PACE_MS: f64 = 500.0;
/// How much longer, at the least, a scenario takes that is called slower, milliseconds.
const SETTLE_FLOOR_MS: u64 = 3_000;
/// How much longer, at the least, a flow is out whose outage is called longer, milliseconds.
const OUTAGE_FLOOR_MS: u64 = 250;
/// The smallest factor that counts.
const FACTOR_AT_LEAST: f64 = 2.0;
/// The factor that counts whatever the noise: were half of all scenarios slower, they would be the noise.
const FACTOR_AT_MOST: f64 = 4.0;
/// How many robust standard deviations.
const DEVIATIONS: f64 = 3.0;
/// So many scenarios, at the least, tell what all of them have in common.
const FEWEST: usize = 5;

/// What takes longer, and what shorter.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Times {
    /// By which factor scenarios took longer to settle, in the median of all of them; 1 where there are too few to tell.
    pub settle_factor: f64,
    /// Scenarios that take longer to settle than that explains.
    pub slower: Vec<Settle>,
    /// Scenarios that take so much less.
    pub faster: Vec<Settle>,
    /// Flows that were out longer.
    pub longer_outages: Vec<Outage>,
    /// Flows that were out for less.
    pub shorter_outages: Vec<Outage>,
}

/// A scenario's times to settle, milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Settle {
    /// `suite::scenario`.
    pub scenario: String,
    /// How many of its cells settled in both runs.
    pub cells: usize,
    /// Medians, before and after.
    pub median_ms: (u64, u64),
    /// 95th percentiles, before and after.
    pub p95_ms: (u64, u64),
}

/// A flow's longest outage, milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outage {
    /// The flow's cell.
    pub cell: String,
    /// Before and after.
    pub outage_ms: (u64, u64),
}

impl Times {
    pub(super) fn new(before: &Half, after: &Half) -> Self {
        let mut scenarios: BTreeMap<&str, Vec<(u64, u64)>> = BTreeMap::new();
        let (mut longer, mut shorter) = (vec![], vec![]);
        for (id, now) in &after.cells {
            let Some(then) = before.cells.get(id) else { continue };
            if let (Some(then), Some(settled)) = (then.settled_ms, now.settled_ms) {
                scenarios.entry(&now.scenario).or_default().push((then, settled));
            }
            if let (Some(was), Some(is)) = (then.outage_ms, now.outage_ms) {
                let outage = || Outage { cell: id.clone(), outage_ms: (was, is) };
                if much_longer(was, is) {
                    longer.push(outage());
                } else if much_longer(is, was) {
                    shorter.push(outage());
                }
            }
        }
        longer.sort_by_key(|outage: &Outage| std::cmp::Reverse(outage.outage_ms.1.abs_diff(outage.outage_ms.0)));
        let settles: Vec<Settle> = scenarios.into_iter().filter_map(|(name, pairs)| settle(name, &pairs)).collect();
        let medians: Vec<_> = settles.iter().map(|settle| settle.median_ms).collect();
        let tails: Vec<_> = settles.iter().map(|settle| settle.p95_ms).collect();
        let (of_medians, of_tails) = (Common::of(&medians), Common::of(&tails));
        let turned = |(before, after): (u64, u64)| (after, before);
        let (mut slower, mut faster) = (vec![], vec![]);
        for settle in settles {
            if of_medians.stands_out(settle.median_ms) || of_tails.stands_out(settle.p95_ms) {
                slower.push(settle);
            } else if of_medians.turned().stands_out(turned(settle.median_ms))
                && of_tails.turned().stands_out(turned(settle.p95_ms))
            {
                faster.push(settle);
            }
        }
        slower.sort_by_key(|settle| std::cmp::Reverse(settle.p95_ms.1.saturating_sub(settle.p95_ms.0)));
        Self {
            settle_factor: (of_medians.growth.exp() * 100.0).round() / 100.0,
            slower,
            faster,
            longer_outages: longer,
            shorter_outages: shorter,
        }
    }
}

const fn much_longer(before: u64, after: u64) -> bool {
    after >= before.saturating_add(OUTAGE_FLOOR_MS) && after > before.saturating_mul(2)
}

fn settle(scenario: &str, pairs: &[(u64, u64)]) -> Option<Settle> {
    let before: Sorted = pairs.iter().map(|(before, _)| *before).collect();
    let after: Sorted = pairs.iter().map(|(_, after)| *after).collect();
    Some(Settle {
        scenario: scenario.to_owned(),
        cells: pairs.len(),
        median_ms: (before.median()?, after.median()?),
        p95_ms: (before.percentile(95)?, after.percentile(95)?),
    })
}

/// What all scenarios have in common, in logarithms of factors.
#[derive(Clone, Copy)]
struct Common {
    growth: f64,
    needed: f64,
}

impl Common {
    fn of(pairs: &[(u64, u64)]) -> Self {
        if pairs.len() < FEWEST {
            return Self { growth: 0.0, needed: FACTOR_AT_LEAST.ln() };
        }
        let mut growths: Vec<f64> = pairs.iter().map(|pair| growth(*pair)).collect();
        let common = middle(&mut growths);
        let mut distances: Vec<f64> = growths.iter().map(|growth| (growth - common).abs()).collect();
        let spread = DEVIATIONS * 1.4826 * middle(&mut distances);
        Self { growth: common, needed: spread.clamp(FACTOR_AT_LEAST.ln(), FACTOR_AT_MOST.ln()) }
    }

    const fn turned(self) -> Self {
        Self { growth: -self.growth, needed: self.needed }
    }

    fn stands_out(self, pair: (u64, u64)) -> bool {
        pair.1 >= pair.0.saturating_add(SETTLE_FLOOR_MS) && growth(pair) - self.growth > self.needed
    }
}

#[allow(clippy::cast_precision_loss)] // milliseconds are far below 2^52
fn growth((before, after): (u64, u64)) -> f64 {
    ((after as f64 + PACE_MS) / (before as f64 + PACE_MS)).ln()
}

fn middle(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get((values.len().max(1) - 1) / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slower_machine_makes_no_scenario_stand_out() {
        let pairs: Vec<(u64, u64)> = (1..=9).map(|n| (n * 1_000, n * 3_000)).collect();
        let common = Common::of(&pairs);
        assert!(common.growth > 0.8);
        assert!(!pairs.iter().any(|pair| common.stands_out(*pair)));
        assert!(common.stands_out((1_000, 30_000)));
    }

    #[test]
    fn one_round_more_is_noise_and_many_are_not() {
        let calm: Vec<(u64, u64)> = (0..20).map(|n| (100 + n, 110 + n)).collect();
        let common = Common::of(&calm);
        assert!(!common.stands_out((285, 2_350)));
        assert!(common.stands_out((285, 5_000)));
    }

    #[test]
    fn where_half_of_all_are_slower_they_still_stand_out() {
        let pairs: Vec<(u64, u64)> = (0..20).map(|n| (1_000, if n % 2 == 0 { 1_000 } else { 20_000 })).collect();
        let common = Common::of(&pairs);
        assert!(common.stands_out((1_000, 20_000)));
        assert!(!common.stands_out((1_000, 1_000)));
    }

    #[test]
    fn an_outage_is_longer_by_amount_and_by_factor() {
        assert!(much_longer(0, 250) && much_longer(100, 400));
        assert!(!much_longer(0, 200) && !much_longer(1_000, 1_900));
    }
}
