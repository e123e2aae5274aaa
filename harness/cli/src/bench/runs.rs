//! What a run's own events say of its speed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use udn_model::event::EventKind;
use udn_model::verdict::{Counts, ExitCode};
use udn_reports::Error;
use udn_reports::jsonl::Reader;

/// A run as far as its speed goes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Speed {
    /// From the first to the last thing that a user waits for, milliseconds; none: it did not finish.
    pub duration_ms: Option<u64>,
    /// How it ended.
    pub exit: Option<ExitCode>,
    /// Verdicts of its cells.
    pub counts: Counts,
    /// Suites that it had.
    pub suites: BTreeSet<String>,
    /// Rounds in which every cell matched: cells, and milliseconds. While a network still converges, a round lasts as
    /// long as the answers that do not come yet are waited for.
    pub rounds: Vec<(usize, u64)>,
    /// Program, Kubernetes, OVN, Open vSwitch.
    pub versions: BTreeMap<String, String>,
}

impl Speed {
    /// Reads a run's log.
    ///
    /// # Errors
    /// What [`Reader`] finds.
    pub(crate) fn read(log: &Path) -> Result<Self, Error> {
        let mut speed = Self::default();
        for event in Reader::open(log)? {
            speed.add(event?.kind);
        }
        Ok(speed)
    }

    fn add(&mut self, event: EventKind) {
        match event {
            EventKind::RunStarted { versions, .. } => self.versions = versions,
            EventKind::ScenarioStarted { suite, .. } => {
                self.suites.insert(suite);
            }
            EventKind::RoundFinished { cells, matching, duration_ms, .. } if cells == matching && cells > 0 => {
                self.rounds.push((cells, duration_ms));
            }
            EventKind::RunFinished { counts, duration_ms, exit, .. } => {
                (self.counts, self.duration_ms, self.exit) = (counts, Some(duration_ms), Some(exit));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(cells: usize, matching: usize, duration_ms: u64) -> EventKind {
        let text = String::new;
        EventKind::RoundFinished {
            suite: text(),
            scenario: text(),
            phase: text(),
            round: 1,
            cells,
            matching,
            duration_ms,
        }
    }

    #[test]
    fn only_rounds_in_which_all_matched_count() {
        let mut speed = Speed::default();
        [round(10, 10, 2100), round(10, 9, 6000), round(0, 0, 1)].into_iter().for_each(|event| speed.add(event));
        assert_eq!(speed.rounds, [(10, 2100)]);
        assert_eq!(speed.duration_ms, None, "it did not finish");
    }
}
