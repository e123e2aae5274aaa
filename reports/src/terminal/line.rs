//! Lines of results.

use udn_model::verdict::{Counts, Verdict};

use super::style::Style;
use crate::run::{PhaseReport, ScenarioReport};
use crate::text;

/// Columns of a scenario's name: longer ones push the rest to the right.
const NAME: usize = 34;

/// `    PASS [  12.3s] isolation::layer3   2,012 cells, settled in 340 ms`.
pub(super) fn scenario(report: &ScenarioReport, style: Style) -> String {
    let verdict = report.verdict();
    let (word, time) = match report.duration_ms {
        Some(ms) => (verdict.to_string().to_uppercase(), text::seconds(ms)),
        None => ("CUT".to_owned(), "-".to_owned()),
    };
    let shown = if report.duration_ms.is_some() { verdict } else { Verdict::Error };
    let id = report.id();
    format!(
        "{} [{time:>7}] {}{} {}",
        style.verdict(shown, &format!("{word:>8}")),
        style.strong(&id),
        " ".repeat(NAME.saturating_sub(id.len())),
        details(report),
    )
}

fn details(report: &ScenarioReport) -> String {
    let counts = &report.counts;
    if counts.total() == 0 {
        return format!("{}, none judged", text::count(report.planned_cells, "cell"));
    }
    let mut details =
        if counts.pass == counts.total() { text::count(counts.total(), "cell") } else { verdicts(counts) };
    if counts.skip == counts.total() {
        let reasons: Vec<_> = report.phases.iter().flat_map(|phase| &phase.skip_reasons).collect();
        if let Some(reason) = reasons.first() {
            details.push_str(&format!(": {reason}"));
        }
        return details;
    }
    if let Some(ms) = report.settled_ms {
        details.push_str(&format!(", settled in {}", text::duration(ms)));
    }
    details
}

/// `1,998 pass, 14 fail`: verdicts that occur.
pub(super) fn verdicts(counts: &Counts) -> String {
    let occurring = Verdict::ALL.into_iter().filter(|verdict| counts.of(*verdict) > 0);
    occurring.map(|verdict| format!("{} {verdict}", text::number(counts.of(verdict)))).collect::<Vec<_>>().join(", ")
}

/// The head of a phase's findings.
pub(super) fn phase(scenario: &ScenarioReport, phase: &PhaseReport, style: Style) -> String {
    let mut line =
        format!("  {}: {}\n", style.strong(&format!("{}::{}", scenario.id(), phase.phase)), verdicts(&phase.counts));
    if let Some(error) = &phase.error {
        line.push_str(&format!(
            "    {}: {}\n",
            style.verdict(Verdict::Error, "error"),
            error.replace('\n', "\n           ")
        ));
    }
    line
}
