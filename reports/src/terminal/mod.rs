//! What a run prints: results on standard output, progress and notices on standard error.
//!
//! A line per scenario as it ends; under a scenario that does not hold, a truth table of each failing matrix and the
//! findings, alike ones told once; at the end totals, where the time went and where the files are.

mod findings;
mod line;
mod matrix;
mod progress;
mod style;
mod totals;

use std::collections::HashMap;
use std::io::{self, ErrorKind, Write};
use std::path::Path;

use udn_model::cell::Check;
use udn_model::event::{Event, EventKind};
use udn_model::verdict::Verdict;

use crate::migrations;
use crate::run::RunReport;
use matrix::Matrix;
pub use progress::Progress;
pub use style::Style;

/// Columns where the terminal does not tell.
const DEFAULT_WIDTH: usize = 110;

/// How to print.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Colours or none.
    pub style: Style,
    /// Columns of a line at most.
    pub width: usize,
}

impl Options {
    /// As standard output and the environment want it: colours only on a terminal, and not where `NO_COLOR` is set.
    #[must_use]
    pub fn detect() -> Self {
        let terminal = console::Term::stdout();
        let width = terminal.size_checked().map_or(DEFAULT_WIDTH, |(_, columns)| usize::from(columns));
        Self { style: Style::detect(&terminal), width: width.max(60) }
    }
}

/// Prints a run as it goes.
pub struct Terminal {
    out: Box<dyn Write + Send>,
    progress: Progress,
    options: Options,
    report: RunReport,
    /// Matrices of the phases that are going on, by suite, scenario and phase.
    matrices: HashMap<(String, String, String), Matrix>,
    broken: bool,
}

impl Terminal {
    /// Results to `out`, the rest to `progress`.
    #[must_use]
    pub fn new(out: Box<dyn Write + Send>, progress: Progress, options: Options) -> Self {
        Self { out, progress, options, report: RunReport::default(), matrices: HashMap::new(), broken: false }
    }

    /// The run as far as it was seen: what the other reports are made from.
    #[must_use]
    pub const fn report(&self) -> &RunReport {
        &self.report
    }

    /// Takes one more event in and prints what it means.
    ///
    /// # Errors
    /// Standard output cannot be written to. A reader that went away (`| head`) is no error: nothing is printed any more.
    pub fn handle(&mut self, event: &Event) -> io::Result<()> {
        self.report.apply(event);
        self.progress.handle(event, &self.report);
        match &event.kind {
            EventKind::CellFinished(result) if matches!(result.cell.check, Check::Probe { .. }) => {
                let cell = &result.cell;
                let key = (cell.suite.clone(), cell.scenario.clone(), cell.phase.clone());
                self.matrices.entry(key).or_default().add(result);
                Ok(())
            }
            EventKind::ScenarioFinished { suite, scenario, .. } => {
                let text = self.scenario(suite, scenario);
                self.print(&text)
            }
            _ => Ok(()),
        }
    }

    /// Prints the totals. `folder` is where the files are.
    ///
    /// # Errors
    /// As [`Terminal::handle`].
    pub fn finish(&mut self, folder: Option<&Path>) -> io::Result<()> {
        self.progress.finish();
        let mut text = String::new();
        // Scenarios that were going on when the run ended have no line yet.
        let unfinished: Vec<_> =
            self.report.scenarios.iter().filter(|scenario| scenario.duration_ms.is_none()).collect();
        for scenario in unfinished {
            text.push_str(&line::scenario(scenario, self.options.style));
            text.push('\n');
        }
        text.push_str(&totals::totals(&self.report, folder, self.options));
        self.print(&text)
    }

    /// The scenario's line, and what does not hold.
    fn scenario(&mut self, suite: &str, scenario: &str) -> String {
        let Some(report) =
            self.report.scenarios.iter().rfind(|report| report.suite == suite && report.scenario == scenario)
        else {
            return String::new();
        };
        let mut text = line::scenario(report, self.options.style);
        text.push('\n');
        let line = text.len();
        for phase in &report.phases {
            for line in phase.migrations.iter().flat_map(migrations::lines) {
                text.push_str(&format!("    {}\n", self.options.style.dim(&format!("{}: {line}", phase.phase))));
            }
        }
        for phase in &report.phases {
            let matrix = self.matrices.remove(&(suite.to_owned(), scenario.to_owned(), phase.phase.clone()));
            if phase.verdict().is_good() && phase.counts.of(Verdict::Known) == 0 {
                continue;
            }
            text.push('\n');
            text.push_str(&line::phase(report, phase, self.options.style));
            // What broke before anything could be judged has made every cell an error: told once.
            if phase.error.is_some() && phase.counts.error == phase.counts.total() - phase.counts.skip {
                continue;
            }
            if let Some(matrix) = matrix.filter(Matrix::is_telling) {
                text.push('\n');
                text.push_str(&matrix.table(self.options));
            }
            text.push_str(&findings::findings(phase, self.options));
        }
        if text.len() > line {
            text.push('\n');
        }
        text
    }

    fn print(&mut self, text: &str) -> io::Result<()> {
        if self.broken {
            return Ok(());
        }
        let out = &mut self.out;
        let printed = self.progress.suspend(|| out.write_all(text.as_bytes()).and_then(|()| out.flush()));
        match printed {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                self.broken = true;
                Ok(())
            }
            other => other,
        }
    }
}

#[cfg(test)]
mod tests;
