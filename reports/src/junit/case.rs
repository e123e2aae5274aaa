//! Test cases.

use std::fmt::Write;

use junit_report::{TestCase, TestCaseBuilder};
use udn_model::event::CellResult;
use udn_model::verdict::{Allow, Counts, Verdict};

use super::{clean, milliseconds};
use crate::run::{PhaseReport, ScenarioReport};
use crate::{migrations, observed, text};

/// What a JUnit case can be.
enum Kind {
    Success,
    Failure,
    Error,
    Skipped,
}

const fn kind(verdict: Verdict, allow: Allow) -> Kind {
    match verdict {
        Verdict::Pass | Verdict::Known => Kind::Success,
        Verdict::Unstable if allow.unstable => Kind::Success,
        Verdict::Fixed if allow.fixed => Kind::Success,
        Verdict::Fail | Verdict::Unstable | Verdict::Fixed => Kind::Failure,
        Verdict::Error => Kind::Error,
        Verdict::Skip => Kind::Skipped,
    }
}

/// An error case that stands for no scenario.
pub(super) fn error(name: &str, class: &str, kind: &str, why: &str) -> TestCase {
    let mut case = TestCaseBuilder::error(name, milliseconds(0), kind, &clean::attribute(why));
    case.set_classname(class).set_trace(&clean::content(why));
    case.build()
}

/// A phase of a scenario.
pub(super) fn of_phase(scenario: &ScenarioReport, phase: &PhaseReport, allow: Allow) -> TestCase {
    let name = clean::attribute(&format!("{}::{}", scenario.scenario, phase.phase));
    let time = milliseconds(phase.duration_ms.unwrap_or(0));
    let worst = phase.verdict();
    let label = worst.to_string();
    let mut case = match kind(worst, allow) {
        Kind::Success => {
            let mut case = TestCaseBuilder::success(&name, time);
            if phase.counts.pass < phase.counts.total() || !phase.migrations.is_empty() {
                case.set_system_out(&clean::content(&phase_text(phase)));
            }
            case
        }
        Kind::Failure => {
            let mut case = TestCaseBuilder::failure(&name, time, &label, &phase_message(phase));
            case.set_trace(&clean::content(&phase_text(phase)));
            case
        }
        Kind::Error => {
            let mut case = TestCaseBuilder::error(&name, time, &label, &phase_message(phase));
            case.set_trace(&clean::content(&phase_text(phase)));
            case
        }
        Kind::Skipped => {
            TestCaseBuilder::skipped_with_cause(&name, &label, &clean::attribute(&phase.skip_reasons.join("; ")))
        }
    };
    case.set_classname(&clean::attribute(&scenario.suite));
    case.build()
}

/// One cell.
pub(super) fn of_cell(result: &CellResult, allow: Allow) -> TestCase {
    let cell = &result.cell;
    let name = clean::attribute(cell.id.as_str());
    let time = milliseconds(result.settled_ms.unwrap_or(0));
    let label = result.verdict.to_string();
    let message = clean::attribute(&format!(
        "expected {}, observed {}: {}",
        cell.expectation.word(),
        observed::word(result),
        result.reason
    ));
    let mut case = match kind(result.verdict, allow) {
        Kind::Success => TestCaseBuilder::success(&name, time),
        Kind::Failure => TestCaseBuilder::failure(&name, time, &label, &message),
        Kind::Error => TestCaseBuilder::error(&name, time, &label, &message),
        Kind::Skipped => TestCaseBuilder::skipped_with_cause(&name, &label, &clean::attribute(&result.reason)),
    };
    if result.verdict != Verdict::Pass && result.verdict != Verdict::Skip {
        let evidence = clean::content(&cell_text(result));
        match kind(result.verdict, allow) {
            Kind::Success => case.set_system_out(&evidence),
            _ => case.set_trace(&evidence),
        };
    }
    case.set_classname(&clean::attribute(&format!("{}.{}.{}", cell.suite, cell.scenario, cell.phase)));
    case.build()
}

fn phase_message(phase: &PhaseReport) -> String {
    clean::attribute(&match &phase.error {
        Some(error) => error.clone(),
        None => counts(&phase.counts),
    })
}

/// `3 of 2,012 cells: 2 fail, 1 error`.
fn counts(counts: &Counts) -> String {
    let shown = Verdict::ALL.into_iter().filter(|verdict| *verdict != Verdict::Pass && *verdict != Verdict::Skip);
    let parts: Vec<_> = shown
        .filter(|verdict| counts.of(*verdict) > 0)
        .map(|verdict| format!("{} {verdict}", text::number(counts.of(verdict))))
        .collect();
    let bad = counts.total() - counts.pass - counts.skip;
    format!("{} of {}: {}", text::number(bad), text::count(counts.total(), "cell"), parts.join(", "))
}

fn phase_text(phase: &PhaseReport) -> String {
    let mut out = String::new();
    if let Some(error) = &phase.error {
        let _ = writeln!(out, "{error}");
    }
    for line in phase.migrations.iter().flat_map(migrations::lines) {
        let _ = writeln!(out, "{line}");
    }
    if !phase.findings.is_empty() {
        let _ = writeln!(out, "{}", counts(&phase.counts));
    }
    for result in &phase.findings {
        let _ = write!(out, "\n{}", cell_text(result));
    }
    if !phase.more.is_empty() {
        out.push('\n');
    }
    for line in &phase.more {
        let _ = writeln!(out, "{line}");
    }
    for reason in &phase.skip_reasons {
        let _ = writeln!(out, "skipped: {reason}");
    }
    out
}

/// A cell that does not hold, with everything needed to believe and repeat it.
pub(super) fn cell_text(result: &CellResult) -> String {
    let cell = &result.cell;
    let mut out = String::new();
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            let _ = writeln!(out, "  {name:<9} {}", value.replace('\n', "\n            "));
        }
    };
    line(
        "rule",
        &match cell.rule.rule() {
            Some(rule) => format!("{}: {}", cell.rule, rule.promise),
            None => cell.rule.to_string(),
        },
    );
    line("about", &observed::subject(cell));
    line("expected", &cell.expectation.to_string());
    line("observed", observed::word(result));
    line("because", &result.reason);
    for attempt in &result.attempts {
        line("attempt", &observed::attempt(attempt, cell));
    }
    if let Some(probe) = &result.evidence.probe {
        let port = probe.port.map_or_else(String::new, |port| format!(", port {port}"));
        line("probe", &format!("from {} to {}{port}", probe.from, probe.to));
    }
    if let Some(flow) = &result.evidence.flow {
        line("flow", &flow.to_string());
    }
    for control in [&result.evidence.vantage_control, &result.evidence.listener_control].into_iter().flatten() {
        line("control", control);
    }
    for note in &result.evidence.notes {
        line("note", note);
    }
    line("repeat", result.evidence.repeat.as_deref().unwrap_or_default());
    format!("{}: {}\n{out}", result.verdict, cell.id)
}
