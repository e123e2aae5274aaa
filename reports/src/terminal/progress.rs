//! What goes on while nothing is to be told yet: bars on a terminal, lines elsewhere, or nothing.

use std::collections::HashMap;
use std::io::Write;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use udn_model::event::{Event, EventKind};

use super::totals;
use crate::run::RunReport;
use crate::text;

/// A stage's progress is told that often in lines, microseconds.
const LINE_EVERY_US: i64 = 5_000_000;

/// Where progress goes.
pub enum Progress {
    /// Moving bars.
    Bars(Bars),
    /// A line when a stage begins and ends, and now and then between.
    Lines(Lines),
    /// Nothing.
    None,
}

/// See [`Progress::Bars`].
pub struct Bars {
    all: MultiProgress,
    cells: Option<ProgressBar>,
    stages: HashMap<String, ProgressBar>,
}

/// See [`Progress::Lines`].
pub struct Lines {
    out: Box<dyn Write + Send>,
    /// When each stage was last told of, microseconds since the Unix epoch.
    told: HashMap<String, i64>,
}

impl Progress {
    /// Bars where standard error is a terminal, else lines.
    #[must_use]
    pub fn detect() -> Self {
        if console::Term::stderr().features().is_attended() {
            let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
            Self::Bars(Bars { all, cells: None, stages: HashMap::new() })
        } else {
            Self::lines(Box::new(std::io::stderr()))
        }
    }

    /// Lines.
    #[must_use]
    pub fn lines(out: Box<dyn Write + Send>) -> Self {
        Self::Lines(Lines { out, told: HashMap::new() })
    }

    pub(super) fn handle(&mut self, event: &Event, report: &RunReport) {
        // A run whose target could not be set up begins only to be reported: nothing more goes on.
        if matches!(event.kind, EventKind::RunStarted { .. }) && !report.failed_stages.is_empty() {
            return;
        }
        match self {
            Self::Bars(bars) => bars.handle(event, report),
            Self::Lines(lines) => lines.handle(event, report),
            Self::None => {}
        }
    }

    /// Does something while no bar is on the screen.
    pub(super) fn suspend<T>(&self, work: impl FnOnce() -> T) -> T {
        match self {
            Self::Bars(bars) => bars.all.suspend(work),
            Self::Lines(_) | Self::None => work(),
        }
    }

    pub(super) fn finish(&mut self) {
        if let Self::Bars(bars) = self {
            bars.cells = None;
            bars.stages.clear();
            // A failure to clear leaves a bar on the screen: nothing that could be reported better.
            let _ = bars.all.clear();
        }
    }
}

/// What a run is about, for the line that begins it.
fn intent(report: &RunReport) -> String {
    format!(
        "run {}: {} in {} on {}",
        report.run,
        text::count(report.planned_cells, "cell"),
        text::count(report.planned_scenarios, "scenario"),
        totals::target(report)
    )
}

impl Bars {
    fn handle(&mut self, event: &Event, report: &RunReport) {
        match &event.kind {
            EventKind::RunStarted { cells, .. } => {
                self.say(&intent(report));
                let bar = ProgressBar::new(u64::try_from(*cells).unwrap_or(u64::MAX));
                bar.set_style(style("{spinner} {wide_bar} {human_pos}/{human_len} cells  {msg}  {elapsed}"));
                let bar = self.all.add(bar);
                bar.enable_steady_tick(Duration::from_millis(120));
                self.cells = Some(bar);
            }
            EventKind::StageStarted { stage } => {
                let bar = self.all.insert(0, ProgressBar::new_spinner());
                bar.set_style(style("{spinner} {prefix}: {wide_msg} {elapsed}"));
                bar.set_prefix(stage.clone());
                bar.enable_steady_tick(Duration::from_millis(120));
                self.stages.insert(stage.clone(), bar);
            }
            EventKind::StageProgress { stage, message } => {
                if let Some(bar) = self.stages.get(stage) {
                    bar.set_message(text::one_line(message));
                }
            }
            EventKind::StageFinished { stage, duration_ms, error } => {
                if let Some(bar) = self.stages.remove(stage) {
                    bar.finish_and_clear();
                    self.all.remove(&bar);
                }
                self.say(&stage_end(stage, *duration_ms, error.as_deref()));
            }
            EventKind::ScenarioStarted { .. } | EventKind::ScenarioFinished { .. } => self.going_on(report),
            EventKind::Migrated(_) => {}
            EventKind::CellFinished(_) => {
                if let Some(bar) = &self.cells {
                    bar.inc(1);
                }
            }
            EventKind::Warning { message } => self.say(&format!("warning: {}", text::one_line(message))),
            EventKind::RoundFinished { suite, scenario, round, cells, matching, .. } => {
                if let Some(bar) = &self.cells {
                    let (matching, cells) = (text::number(*matching), text::number(*cells));
                    bar.set_message(format!("{suite}::{scenario}, round {round}: {matching} of {cells} match"));
                }
            }
            EventKind::PhaseFinished { .. } | EventKind::RunFinished { .. } => {}
        }
    }

    /// Names the scenarios that are being judged.
    fn going_on(&self, report: &RunReport) {
        if let Some(bar) = &self.cells {
            let names: Vec<_> =
                report.scenarios.iter().filter(|scenario| scenario.duration_ms.is_none()).map(|s| s.id()).collect();
            bar.set_message(match names.as_slice() {
                [] => String::new(),
                [one] => one.clone(),
                [one, rest @ ..] => format!("{one} and {} more", rest.len()),
            });
        }
    }

    fn say(&self, line: &str) {
        // Standard error that cannot be written to cannot be told of either.
        let _ = self.all.println(line);
    }
}

impl Lines {
    fn handle(&mut self, event: &Event, report: &RunReport) {
        let line = match &event.kind {
            EventKind::RunStarted { .. } => intent(report),
            EventKind::StageStarted { stage } => {
                self.told.insert(stage.clone(), event.at_us);
                format!("{stage} …")
            }
            EventKind::StageProgress { stage, message } => {
                let told = self.told.entry(stage.clone()).or_insert(event.at_us);
                if event.at_us - *told < LINE_EVERY_US {
                    return;
                }
                *told = event.at_us;
                format!("{stage}: {}", text::one_line(message))
            }
            EventKind::StageFinished { stage, duration_ms, error } => stage_end(stage, *duration_ms, error.as_deref()),
            EventKind::Warning { message } => format!("warning: {}", text::one_line(message)),
            _ => return,
        };
        // As above: nobody is left to be told.
        let _ = writeln!(self.out, "{line}");
    }
}

fn stage_end(stage: &str, duration_ms: u64, error: Option<&str>) -> String {
    match error {
        None => format!("{stage}: ready in {}", text::duration(duration_ms)),
        Some(error) => format!("{stage}: failed after {}: {error}", text::duration(duration_ms)),
    }
}

/// A bar's look. The templates are constants of this file; a wrong one would look plain.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("━╸ ")
}
