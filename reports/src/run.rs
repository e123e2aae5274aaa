//! A run, folded from its events: what every report begins with. It holds scenarios, phases, counts and the cells that
//! do not hold, and figures of all; the thousands that hold stay in the log.

use std::collections::BTreeMap;
use std::path::Path;

use udn_model::cell::{CellId, Check};
use udn_model::event::{CellResult, Event, EventKind, MigrationReport, TimeBudget};
use udn_model::flow::FlowFigures;
use udn_model::verdict::{Counts, ExitCode, Verdict};

use crate::figures::Sorted;
use crate::jsonl::Reader;
use crate::{Error, observed, text};

/// How many cells of a phase that do not hold are kept with their evidence; of the rest a line each. A network that is
/// down breaks thousands of cells alike, and the log has them all.
pub const KEPT_IN_FULL: usize = 50;

/// A run as far as its events go.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunReport {
    /// The run's id.
    pub run: String,
    /// `lab` or `kube`.
    pub target: String,
    /// The kubeconfig context or the lab's name.
    pub context: String,
    /// Program, Kubernetes, OVN, Open vSwitch …
    pub versions: BTreeMap<String, String>,
    /// The filters as typed.
    pub filters: Vec<String>,
    /// How many cells were planned, skips included.
    pub planned_cells: usize,
    /// How many scenarios were planned.
    pub planned_scenarios: usize,
    /// Microseconds since the Unix epoch; `None` before the run began.
    pub started_us: Option<i64>,
    /// The time of the last event.
    pub last_us: i64,
    /// In the order they began.
    pub scenarios: Vec<ScenarioReport>,
    /// Verdicts of all cells so far.
    pub counts: Counts,
    /// Reasons of skipped cells, and how many each.
    pub skips: BTreeMap<String, usize>,
    /// Things that a reader should know and that change no verdict.
    pub warnings: Vec<String>,
    /// Stages that failed: name and why.
    pub failed_stages: Vec<(String, String)>,
    /// How it ended; `None`: it did not finish.
    pub finish: Option<Finish>,
}

/// The end of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finish {
    /// Milliseconds.
    pub duration_ms: u64,
    /// Where they went.
    pub time: TimeBudget,
    /// What the program exits with.
    pub exit: ExitCode,
}

/// A scenario as far as it went.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ScenarioReport {
    /// Its suite.
    pub suite: String,
    /// Its name.
    pub scenario: String,
    /// Its title.
    pub title: String,
    /// How many cells it has, skips included.
    pub planned_cells: usize,
    /// In the order they began.
    pub phases: Vec<PhaseReport>,
    /// Verdicts of its cells so far.
    pub counts: Counts,
    /// Milliseconds; `None`: it did not finish.
    pub duration_ms: Option<u64>,
    /// Milliseconds until the slowest of its cells had settled.
    pub settled_ms: Option<u64>,
}

/// A phase as far as it went.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PhaseReport {
    /// Its name.
    pub phase: String,
    /// Verdicts of its cells so far.
    pub counts: Counts,
    /// How many rounds of its matrix were probed.
    pub rounds: u32,
    /// Milliseconds, actions included; `None`: it did not finish.
    pub duration_ms: Option<u64>,
    /// What failed before anything could be judged.
    pub error: Option<String>,
    /// Cells that do not hold, the first [`KEPT_IN_FULL`].
    pub findings: Vec<CellResult>,
    /// The others of them, a line each.
    pub more: Vec<String>,
    /// Why its skipped cells are, each reason once.
    pub skip_reasons: Vec<String>,
    /// Migrations of VMs in it, with the figures of its flows.
    pub migrations: Vec<MigrationReport>,
    /// Milliseconds to settle of every cell that did.
    pub settled_ms: Vec<u64>,
    /// Its flows.
    pub flows: Vec<FlowReport>,
}

/// A flow in one phase.
#[derive(Clone, Debug, PartialEq)]
pub struct FlowReport {
    /// Its cell.
    pub cell: CellId,
    /// From where to where, over what.
    pub about: String,
    /// Whether it must not get through: then it is out on purpose.
    pub closed: bool,
    /// What became of it.
    pub verdict: Verdict,
    /// How it fared.
    pub figures: FlowFigures,
}

impl RunReport {
    /// Reads a log.
    ///
    /// # Errors
    /// What [`Reader`] finds; [`Error::NoRun`] where it does not begin with a run.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let mut report = Self::default();
        let mut events = Reader::open(path)?;
        for event in &mut events {
            report.apply(&event?);
        }
        if report.started_us.is_none() {
            return Err(Error::NoRun { path: path.into() });
        }
        report.warnings.extend(events.warning());
        Ok(report)
    }

    /// Takes one more event in.
    pub fn apply(&mut self, event: &Event) {
        self.last_us = self.last_us.max(event.at_us);
        match &event.kind {
            EventKind::RunStarted { run, target, context, versions, filters, cells, scenarios, .. } => {
                self.run.clone_from(run);
                self.target.clone_from(target);
                self.context.clone_from(context);
                self.versions.clone_from(versions);
                self.filters.clone_from(filters);
                self.planned_cells = *cells;
                self.planned_scenarios = *scenarios;
                self.started_us = Some(event.at_us);
            }
            EventKind::StageFinished { stage, error: Some(error), .. } => {
                self.failed_stages.push((stage.clone(), error.clone()));
            }
            EventKind::StageStarted { .. } | EventKind::StageProgress { .. } | EventKind::StageFinished { .. } => {}
            EventKind::ScenarioStarted { suite, scenario, title, cells } => {
                let report = self.scenario(suite, scenario);
                report.title.clone_from(title);
                report.planned_cells = *cells;
            }
            EventKind::RoundFinished { suite, scenario, phase, round, .. } => {
                let report = self.scenario(suite, scenario).phase(phase);
                report.rounds = report.rounds.max(*round);
            }
            EventKind::CellFinished(result) => self.cell(result),
            EventKind::Migrated(report) => {
                let phase = self.scenario(&report.suite, &report.scenario).phase(&report.phase);
                phase.migrations.push((**report).clone());
            }
            EventKind::PhaseFinished { suite, scenario, phase, duration_ms, error, .. } => {
                let report = self.scenario(suite, scenario).phase(phase);
                report.duration_ms = Some(*duration_ms);
                report.error.clone_from(error);
            }
            EventKind::ScenarioFinished { suite, scenario, duration_ms, settled_ms, .. } => {
                let report = self.scenario(suite, scenario);
                report.duration_ms = Some(*duration_ms);
                report.settled_ms = *settled_ms;
            }
            EventKind::Warning { message } => self.warnings.push(message.clone()),
            EventKind::RunFinished { duration_ms, time, exit, .. } => {
                self.finish = Some(Finish { duration_ms: *duration_ms, time: *time, exit: *exit });
            }
        }
    }

    fn cell(&mut self, result: &CellResult) {
        let cell = &result.cell;
        self.counts.add(result.verdict);
        if result.verdict == Verdict::Skip {
            *self.skips.entry(result.reason.clone()).or_default() += 1;
        }
        let scenario = self.scenario(&cell.suite, &cell.scenario);
        scenario.counts.add(result.verdict);
        scenario.phase(&cell.phase).cell(result);
    }

    /// The scenario of these names; new where it is not known.
    fn scenario(&mut self, suite: &str, scenario: &str) -> &mut ScenarioReport {
        // From the end: the scenario that an event is about began lately.
        let known = self.scenarios.iter().rposition(|known| known.scenario == scenario && known.suite == suite);
        let index = known.unwrap_or_else(|| {
            self.scenarios.push(ScenarioReport {
                suite: suite.into(),
                scenario: scenario.into(),
                ..Default::default()
            });
            self.scenarios.len() - 1
        });
        &mut self.scenarios[index]
    }

    /// Milliseconds, up to the last event where the run did not finish.
    #[must_use]
    pub fn duration_ms(&self) -> u64 {
        self.finish.map_or_else(
            || u64::try_from((self.last_us - self.started_us.unwrap_or(self.last_us)) / 1_000).unwrap_or(0),
            |finish| finish.duration_ms,
        )
    }

    /// Why the run is not complete; `None` where it is.
    #[must_use]
    pub fn unfinished(&self) -> Option<String> {
        let judged = || {
            let judged = self.counts.total() - self.counts.error - self.counts.skip;
            format!("{} of {} judged", text::number(judged), text::count(self.planned_cells, "cell"))
        };
        match self.finish.map(|finish| finish.exit) {
            None => Some(format!("the run did not finish: {}", judged())),
            Some(ExitCode::Interrupted) => Some(format!("the run was interrupted: {}", judged())),
            Some(ExitCode::SetupFailed | ExitCode::Usage) => Some(self.failed_stages.first().map_or_else(
                || format!("the run could not be set up: {}", judged()),
                |(stage, why)| format!("{stage}: {why}"),
            )),
            Some(_) => None,
        }
    }
}

impl ScenarioReport {
    /// `suite::scenario`.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{}::{}", self.suite, self.scenario)
    }

    /// What the scenario is called after: the worst of its cells; an error where a phase could not be judged.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        match self.counts.worst() {
            Verdict::Fail => Verdict::Fail,
            _ if self.phases.iter().any(|phase| phase.verdict() == Verdict::Error) => Verdict::Error,
            worst => worst,
        }
    }

    /// How long its cells took to settle.
    #[must_use]
    pub fn settled(&self) -> Sorted {
        self.phases.iter().flat_map(|phase| phase.settled_ms.iter().copied()).collect()
    }

    /// The phase of this name; new where it is not known.
    fn phase(&mut self, phase: &str) -> &mut PhaseReport {
        let known = self.phases.iter().rposition(|known| known.phase == phase);
        let index = known.unwrap_or_else(|| {
            self.phases.push(PhaseReport { phase: phase.into(), ..Default::default() });
            self.phases.len() - 1
        });
        &mut self.phases[index]
    }
}

impl PhaseReport {
    fn cell(&mut self, result: &CellResult) {
        self.counts.add(result.verdict);
        self.settled_ms.extend(result.settled_ms);
        if let (Check::Probe { .. }, Some(figures)) = (&result.cell.check, &result.evidence.flow) {
            self.flows.push(FlowReport {
                cell: result.cell.id.clone(),
                about: observed::subject(&result.cell),
                closed: result.cell.expectation.is_negative(),
                verdict: result.verdict,
                figures: (**figures).clone(),
            });
        }
        match result.verdict {
            Verdict::Pass => {}
            Verdict::Skip => {
                if !self.skip_reasons.contains(&result.reason) {
                    self.skip_reasons.push(result.reason.clone());
                }
            }
            _ if self.findings.len() < KEPT_IN_FULL => self.findings.push(result.clone()),
            verdict => self.more.push(format!(
                "{verdict}: {}: expected {}, observed {}",
                result.cell.id,
                result.cell.expectation.word(),
                observed::word(result)
            )),
        }
    }

    /// As [`ScenarioReport::verdict`]. A phase whose cells are all skipped had nothing to judge.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        match self.counts.worst() {
            Verdict::Fail => Verdict::Fail,
            Verdict::Skip if self.counts.skip > 0 => Verdict::Skip,
            _ if self.error.is_some() => Verdict::Error,
            worst => worst,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn folded(events: &[Event]) -> RunReport {
        let mut report = RunReport::default();
        events.iter().for_each(|event| report.apply(event));
        report
    }

    #[test]
    fn a_run_is_folded_from_its_events() {
        let report = folded(&testing::failing_run());
        let ids: Vec<_> = report.scenarios.iter().map(ScenarioReport::id).collect();
        assert_eq!(ids, ["isolation::layer3", "addressing::layer2", "isolation::external"]);
        let verdicts: Vec<_> = report.scenarios.iter().map(ScenarioReport::verdict).collect();
        assert_eq!(verdicts, [Verdict::Fail, Verdict::Fail, Verdict::Skip]);
        assert_eq!(report.counts.total(), report.planned_cells);
        assert_eq!(report.unfinished(), None);
    }

    #[test]
    fn a_run_without_its_end_says_how_far_it_came() {
        let events = testing::failing_run();
        let report = folded(&events[..events.len() - 1]);
        assert_eq!(report.unfinished().unwrap(), "the run did not finish: 11 of 12 cells judged");
        assert_eq!(report.duration_ms(), u64::try_from(report.last_us - events[0].at_us).unwrap() / 1000);
    }

    #[test]
    fn a_phase_with_nothing_to_try_is_skipped_and_one_that_broke_is_an_error() {
        let error = Some("interrupted".to_owned());
        let skipped = PhaseReport { counts: Counts { skip: 3, ..Counts::default() }, error, ..PhaseReport::default() };
        assert_eq!(skipped.verdict(), Verdict::Skip);
        let passed = PhaseReport { counts: Counts { pass: 3, ..Counts::default() }, ..skipped.clone() };
        assert_eq!(passed.verdict(), Verdict::Error);
        let unborn = PhaseReport { counts: Counts::default(), ..skipped };
        assert_eq!(unborn.verdict(), Verdict::Error);
    }

    #[test]
    fn only_the_first_findings_are_kept_in_full() {
        let mut report = RunReport::default();
        for index in 0..KEPT_IN_FULL + 3 {
            let result =
                testing::probe_result(&format!("a{index}"), "b", udn_model::cell::Expectation::Closed, Verdict::Fail);
            report.apply(&testing::event(index as i64, EventKind::CellFinished(Box::new(result))));
        }
        let phase = &report.scenarios[0].phases[0];
        assert_eq!((phase.findings.len(), phase.more.len(), phase.counts.fail), (KEPT_IN_FULL, 3, KEPT_IN_FULL + 3));
    }
}
