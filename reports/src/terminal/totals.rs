//! The end of a run: totals, time, files.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use udn_model::event::TimeBudget;
use udn_model::verdict::{ExitCode, Verdict};

use super::{Options, line};
use crate::folder::{CONFORMANCE, EVENTS, HTML, JUNIT, MARKDOWN, OPENMETRICS, REPORT};
use crate::run::RunReport;
use crate::text;

/// How many reasons of skips and warnings are listed.
const LISTED: usize = 8;

/// The summary of a run.
pub(super) fn totals(report: &RunReport, folder: Option<&Path>, options: Options) -> String {
    let style = options.style;
    let mut out = format!("{}\n", style.dim(&"─".repeat(options.width.min(60))));
    let (word, verdict) = outcome(report);
    let scenarios = report.scenarios.len();
    let cells = match report.counts.total() {
        0 => "nothing was judged".to_owned(),
        total => {
            let (cells, scenarios) = (text::count(total, "cell"), text::count(scenarios, "scenario"));
            format!("{cells} in {scenarios}: {}", line::verdicts(&report.counts))
        }
    };
    let time_taken = text::seconds(report.duration_ms());
    let _ = writeln!(out, "{} [{time_taken:>7}] {cells}", style.verdict(verdict, &format!("{word:>8}")));
    if let Some(why) = report.unfinished() {
        field(&mut out, "", &why);
    }
    if let Some(finish) = report.finish.filter(|finish| finish.time != TimeBudget::default()) {
        field(&mut out, "time", &time(finish.time));
    }
    field(&mut out, "target", &target(report));
    for (reason, count) in most(&report.skips) {
        field(&mut out, "skipped", &format!("{}: {reason}", text::count(count, "cell")));
    }
    for warning in report.warnings.iter().take(LISTED) {
        field(&mut out, "warning", &text::one_line(warning));
    }
    if report.warnings.len() > LISTED {
        field(
            &mut out,
            "",
            &format!("… and {} more in {REPORT}", text::count(report.warnings.len() - LISTED, "warning")),
        );
    }
    if let Some(folder) = folder {
        field(
            &mut out,
            "files",
            &format!("{}/ {HTML} {MARKDOWN} {REPORT} {JUNIT} {OPENMETRICS} {CONFORMANCE} {EVENTS}", folder.display()),
        );
    }
    out
}

/// The word that a run is called after.
fn outcome(report: &RunReport) -> (&'static str, Verdict) {
    match report.finish.map(|finish| finish.exit) {
        Some(ExitCode::Passed) => ("PASS", Verdict::Pass),
        Some(ExitCode::Failed) => ("FAIL", Verdict::Fail),
        Some(ExitCode::Errors | ExitCode::SetupFailed | ExitCode::Usage) => ("ERROR", Verdict::Error),
        Some(ExitCode::NothingSelected) => ("NOTHING", Verdict::Skip),
        Some(ExitCode::Interrupted) | None => ("CUT", Verdict::Error),
    }
}

fn time(time: TimeBudget) -> String {
    let parts = [
        ("set-up", time.setup_ms),
        ("settling", time.settling_ms),
        ("waiting for denies", time.deny_wait_ms),
        ("probing", time.probing_ms),
        ("evidence and clean-up", time.cleanup_ms),
    ];
    parts.map(|(name, ms)| format!("{name} {}", text::duration(ms))).join(", ")
}

/// `lab (ovn 25.03.0, …)`.
pub(super) fn target(report: &RunReport) -> String {
    let versions: Vec<_> = report.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
    let versions = if versions.is_empty() { String::new() } else { format!(" ({})", versions.join(", ")) };
    match report.context.as_str() {
        context if context.is_empty() || context == report.target => format!("{}{versions}", report.target),
        context => format!("{} {context}{versions}", report.target),
    }
}

/// The most frequent reasons, most frequent first.
fn most(reasons: &BTreeMap<String, usize>) -> Vec<(&str, usize)> {
    let mut most: Vec<_> = reasons.iter().map(|(reason, count)| (reason.as_str(), *count)).collect();
    most.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    most.truncate(LISTED);
    most
}

fn field(out: &mut String, name: &str, value: &str) {
    let _ = writeln!(out, "{name:>8} {value}");
}
