//! What does not hold, in words: alike cells told once, with one of them as the example.

use std::fmt::Write;

use udn_model::cell::Check;
use udn_model::event::CellResult;
use udn_model::verdict::Verdict;

use super::Options;
use super::style::Style;
use crate::run::PhaseReport;
use crate::{observed, text};

/// How many kinds of findings of a phase are told.
const TOLD: usize = 8;

/// Findings that went wrong alike.
struct Kind<'a> {
    example: &'a CellResult,
    cells: usize,
}

/// The findings of a phase.
pub(super) fn findings(phase: &PhaseReport, options: Options) -> String {
    let mut out = String::new();
    let kinds = kinds(&phase.findings);
    for kind in kinds.iter().take(TOLD) {
        out.push('\n');
        match kind.example.cell.check {
            Check::Probe { .. } | Check::Resolve { .. } => probe(&mut out, kind, options.style),
            Check::Series { .. } | Check::Figure { .. } | Check::Fact { .. } | Check::Object { .. } => {
                checked(&mut out, kind, options.style)
            }
        }
    }
    let untold: usize = kinds.iter().skip(TOLD).map(|kind| kind.cells).sum::<usize>() + phase.more.len();
    if untold > 0 {
        let _ = writeln!(out, "\n    … and {} more: report.json has them all.", text::count(untold, "cell"));
    }
    out
}

/// Probes alike in rule, expectation, observation and verdict are one kind. Facts and claims are one kind where the same
/// kept them from being judged; else each is its own.
fn kinds(results: &[CellResult]) -> Vec<Kind<'_>> {
    let mut kinds: Vec<Kind<'_>> = Vec::new();
    for result in results {
        let alike = |kind: &&mut Kind<'_>| {
            let known = kind.example;
            let is_probe =
                |result: &CellResult| matches!(result.cell.check, Check::Probe { .. } | Check::Resolve { .. });
            if known.verdict != result.verdict
                || known.cell.rule != result.cell.rule
                || is_probe(known) != is_probe(result)
            {
                return false;
            }
            if is_probe(result) {
                known.cell.expectation.word() == result.cell.expectation.word()
                    && observed::word(known) == observed::word(result)
            } else {
                result.verdict == Verdict::Error && known.reason == result.reason
            }
        };
        match kinds.iter_mut().find(alike) {
            Some(kind) => kind.cells += 1,
            None => kinds.push(Kind { example: result, cells: 1 }),
        }
    }
    kinds
}

fn probe(out: &mut String, kind: &Kind<'_>, style: Style) {
    let result = kind.example;
    let cell = &result.cell;
    head(
        out,
        result,
        &format!(
            "{}: expected {}, observed {}",
            text::count(kind.cells, "cell"),
            cell.expectation.word(),
            observed::word(result)
        ),
        style,
    );
    let example = if kind.cells == 1 { "cell" } else { "for one" };
    field(out, example, cell.id.as_str(), style);
    if !matches!(result.verdict, Verdict::Fail) || observed::telling(result).is_none() {
        field(out, "because", &result.reason, style);
    }
    if let Some(attempt) = observed::telling(result) {
        field(out, "seen", &observed::attempt(attempt, cell), style);
    }
    if let Some(probe) = &result.evidence.probe {
        let question = probe.question.as_ref().map(|question| format!("{question} of ")).unwrap_or_default();
        field(out, "probed", &format!("{question}{} from {}", probe.to, probe.from), style);
    }
    if let Some(flow) = &result.evidence.flow {
        field(out, "flow", &flow.to_string(), style);
    }
    field(out, "repeat", result.evidence.repeat.as_deref().unwrap_or_default(), style);
}

fn checked(out: &mut String, kind: &Kind<'_>, style: Style) {
    let result = kind.example;
    let more = if kind.cells > 1 { format!(" and {} more", kind.cells - 1) } else { String::new() };
    head(out, result, &format!("{}{more}", observed::subject(&result.cell)), style);
    field(out, "cell", result.cell.id.as_str(), style);
    field(out, "expected", &observed::expected(&result.cell), style);
    field(out, "found", &observed::found(result), style);
    field(out, "repeat", result.evidence.repeat.as_deref().unwrap_or_default(), style);
}

fn head(out: &mut String, result: &CellResult, what: &str, style: Style) {
    let rule = &result.cell.rule;
    let _ = writeln!(out, "    {} {what}", style.verdict(result.verdict, &result.verdict.to_string()));
    let promise = rule
        .rule()
        .filter(|_| matches!(result.cell.check, Check::Probe { .. } | Check::Resolve { .. }))
        .map(|rule| rule.promise);
    field(out, "rule", &promise.map_or_else(|| rule.to_string(), |promise| format!("{rule}: {promise}")), style);
}

fn field(out: &mut String, name: &str, value: &str, style: Style) {
    if !value.is_empty() {
        let _ =
            writeln!(out, "      {} {}", style.dim(&format!("{name:<8}")), value.replace('\n', "\n               "));
    }
}
