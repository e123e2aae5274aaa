//! Suites, scenarios and phases, with the filters above them. What is below a phase is laid out by the page's script.

use maud::{Markup, html};

use udn_model::verdict::Verdict;

use super::{badge, sign, worst_first};
use crate::run::{PhaseReport, RunReport, ScenarioReport};
use crate::text;

pub(super) fn scenarios(report: &RunReport) -> Markup {
    let mut suites: Vec<&str> = Vec::new();
    for scenario in &report.scenarios {
        if !suites.contains(&scenario.suite.as_str()) {
            suites.push(&scenario.suite);
        }
    }
    let mut number = 0;
    let mut numbers = Vec::new();
    for scenario in &report.scenarios {
        numbers.push(number);
        number += scenario.phases.len();
    }
    html! {
        section #scenarios aria-labelledby="scenarios-title" {
            h2 #scenarios-title { "Scenarios" }
            (filters())
            div #matches hidden {}
            @for suite in suites {
                section.suite aria-label={ "Suite " (suite) } {
                    h3 { (suite) }
                    @for (scenario, first) in report.scenarios.iter().zip(&numbers).filter(|(of, _)| of.suite == suite) {
                        (of_scenario(scenario, *first))
                    }
                }
            }
        }
    }
}

/// Filled by the script with what the run has.
fn filters() -> Markup {
    html! {
        form #filters role="search" aria-label="Filter cells" hidden {
            input #f-text type="search" placeholder="text in a cell's id, reason or command" aria-label="Text";
            div #f-verdicts role="group" aria-label="Verdicts" {}
            select #f-rule aria-label="Rule" {}
            select #f-network aria-label="Network or namespace" {}
            select #f-family aria-label="Address family" {}
            select #f-transport aria-label="Transport" {}
            button #f-clear type="button" { "Clear" }
            output #f-count aria-live="polite" {}
        }
    }
}

/// `first`: the number of its first phase.
fn of_scenario(scenario: &ScenarioReport, first: usize) -> Markup {
    html! {
        details.scenario open[matches!(scenario.verdict(), Verdict::Fail | Verdict::Error | Verdict::Unstable)] {
            summary {
                (badge(scenario.verdict()))
                span.name { (scenario.scenario) }
                span.dim.title { (scenario.title) }
                span.numbers {
                    (counts(&scenario.counts))
                    @if let Some(ms) = scenario.settled_ms { span.dim { "settled " (text::duration(ms)) } }
                    @if let Some(ms) = scenario.duration_ms { span.dim { "took " (text::duration(ms)) } }
                }
            }
            @for (index, phase) in scenario.phases.iter().enumerate() { (of_phase(phase, first + index)) }
        }
    }
}

fn of_phase(phase: &PhaseReport, number: usize) -> Markup {
    html! {
        details.phase data-phase=(number) {
            summary {
                (badge(phase.verdict()))
                span.name { (phase.phase) }
                span.numbers {
                    (counts(&phase.counts))
                    span.dim { (text::count(phase.rounds as usize, "round")) }
                    @if let Some(ms) = phase.duration_ms { span.dim { "took " (text::duration(ms)) } }
                }
            }
            @if let Some(error) = &phase.error { p.notice { (error) } }
            @for reason in &phase.skip_reasons { p.dim { "skipped: " (reason) } }
            div.tables {}
        }
    }
}

/// `3 ✕ 240 ✓`, in words for those who hear it.
fn counts(counts: &udn_model::verdict::Counts) -> Markup {
    html! {
        @for (verdict, count) in worst_first(counts) {
            span class={ "mini v-" (verdict) } {
                span aria-hidden="true" { (sign(verdict)) } (text::number(count)) span.heard { " " (verdict) }
            }
        }
    }
}
