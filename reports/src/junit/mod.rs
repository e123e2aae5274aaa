//! `junit.xml`: a test suite per suite, a test case per scenario and phase, or per cell on request.

mod case;
mod clean;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use junit_report::{Duration, OffsetDateTime, ReportBuilder, TestCase, TestSuite};
use udn_model::event::CellResult;
use udn_model::verdict::{Allow, ExitCode};

use crate::Error;
use crate::file::Replacement;
use crate::files::Sink;
use crate::run::RunReport;

/// The suite of the case that an unfinished run gets.
const RUN_SUITE: &str = "run";

/// What the file shows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// A case per cell instead of one per scenario and phase.
    pub cells: bool,
    /// Verdicts that are no failures.
    pub allow: Allow,
}

/// The file, being made: the library wants all cases at once.
#[derive(Debug)]
pub(crate) struct Writer {
    path: PathBuf,
    options: Options,
    suites: Suites,
    /// Why the run is not complete: what kind of end, and in words.
    unfinished: Option<(&'static str, String)>,
}

impl Writer {
    /// Cases of phases, as far as there are no cases of cells.
    pub(crate) fn begin(path: &Path, report: &RunReport, options: Options) -> Self {
        let started = timestamp(report.started_us.unwrap_or(report.last_us));
        let mut suites = Suites { started, order: Vec::new(), cases: BTreeMap::new() };
        for scenario in &report.scenarios {
            for phase in scenario.phases.iter().filter(|phase| !options.cells || phase.error.is_some()) {
                suites.add(&scenario.suite, case::of_phase(scenario, phase, options.allow));
            }
        }
        let unfinished = report.unfinished().map(|why| {
            let kind = match report.finish.map(|finish| finish.exit) {
                Some(ExitCode::SetupFailed | ExitCode::Usage) => "set-up failed",
                Some(ExitCode::Interrupted) => "interrupted",
                _ => "unfinished",
            };
            (kind, why)
        });
        Self { path: path.into(), options, suites, unfinished }
    }
}

impl Sink for Writer {
    fn cell(&mut self, result: &CellResult) -> Result<(), Error> {
        if self.options.cells {
            self.suites.add(&result.cell.suite, case::of_cell(result, self.options.allow));
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<(), Error> {
        if let Some((kind, why)) = &self.unfinished {
            self.suites.add(RUN_SUITE, case::error("the run comes to its end", RUN_SUITE, kind, why));
        }
        let Self { path, suites, .. } = *self;
        let mut out = Replacement::begin(&path)?;
        suites.report().write_xml(&mut out).map_err(|error| Error::Junit { path, why: error.to_string() })?;
        out.commit()
    }
}

#[derive(Debug)]
struct Suites {
    started: OffsetDateTime,
    order: Vec<String>,
    cases: BTreeMap<String, Vec<TestCase>>,
}

impl Suites {
    fn add(&mut self, suite: &str, case: TestCase) {
        if !self.cases.contains_key(suite) {
            self.order.push(suite.to_owned());
        }
        self.cases.entry(suite.to_owned()).or_default().push(case);
    }

    fn report(mut self) -> junit_report::Report {
        let mut report = ReportBuilder::new();
        for name in &self.order {
            let mut suite = TestSuite::new(&clean::attribute(name));
            suite.package = "udn-conformance".into();
            suite.set_timestamp(self.started);
            suite.add_testcases(self.cases.remove(name).unwrap_or_default());
            report.add_testsuite(suite);
        }
        report.build()
    }
}

/// The library's time type; what lies beyond its calendar becomes the epoch.
fn timestamp(at_us: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(at_us.div_euclid(1_000_000)).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

fn milliseconds(ms: u64) -> Duration {
    Duration::milliseconds(i64::try_from(ms).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests;
