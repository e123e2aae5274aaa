//! `summary.md`: a run for the page of a continuous-integration job. Short, worst first; the page is the place for all.

use std::collections::BTreeMap;
use std::fmt::Write;

use udn_model::event::CellResult;
use udn_model::verdict::Verdict;

use crate::compare::{Change, Comparison};
use crate::observed;
use crate::run::{FlowReport, PhaseReport, RunReport, ScenarioReport};
use crate::text::{self, count, duration, number};

/// How many scenarios that do not hold are listed.
const SCENARIOS: usize = 20;
/// How many kinds of findings.
const FINDINGS: usize = 20;
/// How many changed cells of a kind.
const CHANGES: usize = 10;
/// How many slow scenarios and outages.
const SLOWEST: usize = 5;

/// The summary of a run; with what changed since another one.
#[must_use]
pub fn summary(report: &RunReport, since: Option<&Comparison>) -> String {
    let mut out = String::new();
    head(&mut out, report);
    if let Some(since) = since {
        changes(&mut out, since);
    }
    scenarios(&mut out, report);
    findings(&mut out, report);
    times(&mut out, report);
    if !report.warnings.is_empty() {
        let _ = writeln!(out, "\n### Warnings\n");
        for warning in &report.warnings {
            let _ = writeln!(out, "- {}", plain(warning));
        }
    }
    out
}

/// Text that Markdown leaves as it is, on one line.
fn plain(text: &str) -> String {
    let mut out = String::new();
    for c in text::one_line(text).chars() {
        if matches!(c, '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '|' | '#') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// A name in a table: as code.
fn code(text: &str) -> String {
    format!("`{}`", text::one_line(text).replace('`', "'").replace('|', "\\|"))
}

fn counts(counts: &udn_model::verdict::Counts) -> String {
    let order = [
        Verdict::Fail,
        Verdict::Error,
        Verdict::Unstable,
        Verdict::Fixed,
        Verdict::Known,
        Verdict::Pass,
        Verdict::Skip,
    ];
    let parts: Vec<String> = order
        .into_iter()
        .filter(|verdict| counts.of(*verdict) > 0)
        .map(|verdict| format!("{} {verdict}", number(counts.of(verdict))))
        .collect();
    if parts.is_empty() { "nothing judged".into() } else { parts.join(", ") }
}

fn head(out: &mut String, report: &RunReport) {
    let word = match report.finish.map(|finish| finish.exit.code()) {
        Some(0) => "passed",
        Some(1) => "**failed**",
        _ => "**is not judged in full**",
    };
    let _ = writeln!(out, "## udn-conformance: run {} {word}\n", report.run);
    if let Some(why) = report.unfinished() {
        let _ = writeln!(out, "> {}\n", plain(&why));
    }
    let versions: Vec<_> = report.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
    let _ = writeln!(
        out,
        "{}: {} in {} on {} ({}), {}{}",
        counts(&report.counts),
        count(report.counts.total(), "cell"),
        count(report.scenarios.len(), "scenario"),
        report.target,
        plain(&versions.join(", ")),
        duration(report.duration_ms()),
        if report.filters.is_empty() { String::new() } else { format!(", of {}", code(&report.filters.join(" "))) },
    );
}

fn changes(out: &mut String, since: &Comparison) {
    let _ = writeln!(out, "\n### Since run {}\n", since.before.run);
    if since.changes.is_empty() {
        let _ = writeln!(out, "Every cell ended as it did then.");
    }
    for (change, cells) in since.counts() {
        let _ = writeln!(out, "- {}: {}", change.title(), count(cells, "cell"));
        if change.is_worse() || change == Change::Fixed {
            for cell in since.of(change).take(CHANGES) {
                let _ = writeln!(out, "  - {}", code(&cell.cell));
            }
            if cells > CHANGES {
                let _ = writeln!(out, "  - … and {} more", number(cells - CHANGES));
            }
        }
    }
    for settle in &since.times.slower {
        let ((then, now), (then95, now95)) = (settle.median_ms, settle.p95_ms);
        let name = code(&settle.scenario);
        let (then, now, then95, now95) = (duration(then), duration(now), duration(then95), duration(now95));
        let _ = writeln!(out, "- slower to settle: {name}, median {then} → {now}, 95 % {then95} → {now95}");
    }
    for outage in &since.times.longer_outages {
        let (then, now) = outage.outage_ms;
        let _ = writeln!(out, "- longer outage: {}, {} → {}", code(&outage.cell), duration(then), duration(now));
    }
}

/// Scenarios that do not hold.
fn scenarios(out: &mut String, report: &RunReport) {
    let mut bad: Vec<&ScenarioReport> =
        report.scenarios.iter().filter(|scenario| !scenario.verdict().is_good()).collect();
    if bad.is_empty() {
        return;
    }
    bad.sort_by_key(|scenario| (rank(scenario.verdict()), std::cmp::Reverse(scenario.counts.fail)));
    let _ = writeln!(out, "\n| scenario | verdict | cells |\n|---|---|---|");
    for scenario in bad.iter().take(SCENARIOS) {
        let _ = writeln!(out, "| {} | {} | {} |", code(&scenario.id()), scenario.verdict(), counts(&scenario.counts));
    }
    if bad.len() > SCENARIOS {
        let _ = writeln!(out, "\n… and {} more that do not hold.", count(bad.len() - SCENARIOS, "scenario"));
    }
    let broken: Vec<(&ScenarioReport, &PhaseReport)> =
        bad.iter().flat_map(|of| of.phases.iter().map(move |phase| (*of, phase))).collect();
    for (scenario, phase) in broken {
        if let Some(error) = &phase.error {
            let _ = writeln!(out, "\n{}: {}", code(&format!("{}::{}", scenario.id(), phase.phase)), plain(error));
        }
    }
}

const fn rank(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Fail => 0,
        Verdict::Error => 1,
        Verdict::Unstable => 2,
        Verdict::Fixed => 3,
        Verdict::Known => 4,
        Verdict::Pass => 5,
        Verdict::Skip => 6,
    }
}

/// Cells that do not hold, alike ones together: known issues last.
fn findings(out: &mut String, report: &RunReport) {
    let mut kinds: BTreeMap<(u8, &str, &str, &str), (usize, &CellResult)> = BTreeMap::new();
    let mut more = 0;
    for phase in report.scenarios.iter().flat_map(|scenario| &scenario.phases) {
        more += phase.more.len();
        for result in &phase.findings {
            let cell = &result.cell;
            let key = (rank(result.verdict), cell.rule.as_str(), cell.expectation.word(), observed::word(result));
            kinds.entry(key).or_insert((0, result)).0 += 1;
        }
    }
    if kinds.is_empty() {
        return;
    }
    let _ = writeln!(out, "\n### What does not hold\n");
    for ((_, rule, expected, seen), (cells, one)) in kinds.iter().take(FINDINGS) {
        let promise = one.cell.rule.rule().map_or("", |rule| rule.promise);
        let _ = writeln!(
            out,
            "- {} **{}**, expected {expected}, observed {seen}: {} {}",
            number(*cells),
            one.verdict,
            code(rule),
            plain(promise)
        );
        let _ = writeln!(out, "  - {}{}", if *cells > 1 { "for one " } else { "" }, code(one.cell.id.as_str()));
        if !one.reason.is_empty() {
            let _ = writeln!(out, "  - {}", plain(&one.reason));
        }
        if let Some(repeat) = &one.evidence.repeat {
            let _ = writeln!(out, "  - {}", code(repeat));
        }
    }
    if kinds.len() > FINDINGS || more > 0 {
        let _ = writeln!(out, "\nThere is more of it: report.html has all.");
    }
}

fn times(out: &mut String, report: &RunReport) {
    let mut slowest: Vec<_> = report
        .scenarios
        .iter()
        .filter_map(|scenario| Some((scenario.settled().max()?, scenario.settled().median()?, scenario.id())))
        .collect();
    slowest.sort_unstable_by(|one, other| other.cmp(one));
    if !slowest.is_empty() {
        let _ = writeln!(out, "\n| slowest to settle | median | slowest cell |\n|---|---|---|");
        for (max, median, scenario) in slowest.iter().take(SLOWEST) {
            let _ = writeln!(out, "| {} | {} | {} |", code(scenario), duration(*median), duration(*max));
        }
    }
    let flows = report.scenarios.iter().flat_map(|scenario| &scenario.phases).flat_map(|phase| &phase.flows);
    // What must be closed is out on purpose.
    let mut outages: Vec<&FlowReport> =
        flows.filter(|flow| flow.verdict != Verdict::Known && !flow.closed && flow.figures.outage_ms > 0).collect();
    outages.sort_by_key(|flow| std::cmp::Reverse(flow.figures.outage_ms));
    if !outages.is_empty() {
        let _ = writeln!(out, "\n| longest outages of flows | |\n|---|---|");
        for flow in outages.iter().take(SLOWEST) {
            let _ = writeln!(out, "| {} | {} |", code(flow.cell.as_str()), duration(flow.figures.outage_ms));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::Files;
    use crate::testing;

    #[test]
    fn a_failing_run_is_told_worst_first() {
        let text = testing::made(&testing::failing_run(), |path| Files { markdown: Some(path), ..Files::default() });
        insta::assert_snapshot!(text);
    }

    #[test]
    fn a_run_that_did_not_finish_says_so() {
        let events = testing::failing_run();
        let text = testing::made(&events[..6], |path| Files { markdown: Some(path), ..Files::default() });
        assert!(text.contains("> the run did not finish: 0 of 12 cells judged"), "{text}");
    }

    #[test]
    fn a_run_s_texts_are_no_markdown() {
        assert_eq!(plain("a *b*\n<img> | `c`"), "a \\*b\\* \\<img\\> \\| \\`c\\`");
        assert_eq!(code("a|`b`"), "`a\\|'b'`");
    }
}
