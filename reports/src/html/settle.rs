//! How long cells took to settle: a distribution per scenario.

use maud::{Markup, html};

use crate::figures::Sorted;
use crate::run::RunReport;
use crate::text;

/// Upper bounds of classes, milliseconds: a little more than a doubling each.
const BOUNDS: [u64; 14] = [5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 30_000, 60_000];
/// Size of a bar, in the drawing's own units.
const BAR: usize = 10;
/// Height of the drawing.
const HEIGHT: usize = 24;

pub(super) fn settle(report: &RunReport) -> Markup {
    let mut rows: Vec<(String, Sorted)> =
        report.scenarios.iter().map(|scenario| (scenario.id(), scenario.settled())).collect();
    rows.retain(|(_, settled)| !settled.is_empty());
    rows.sort_by_key(|(_, settled)| std::cmp::Reverse((settled.percentile(95), settled.median())));
    let cell = |ms: Option<u64>| html! { td.number { (ms.map_or_else(String::new, text::duration)) } };
    html! {
        @if !rows.is_empty() {
            section #settle aria-labelledby="settle-title" {
                h2 #settle-title { "Time to settle" }
                p.dim { "From the end of a phase's actions to the first of the rounds in which a cell matched to the end. Slowest first." }
                div.scroll tabindex="0" role="region" aria-labelledby="settle-title" {
                    table.plain {
                        thead { tr {
                            th scope="col" { "scenario" } th scope="col" { "cells" }
                            th scope="col" { "≤ 5 ms … > 60 s" }
                            th scope="col" { "median" } th scope="col" { "90 %" } th scope="col" { "95 %" } th scope="col" { "99 %" }
                            th scope="col" { "slowest" }
                        } }
                        tbody { @for (name, settled) in &rows { tr {
                            th scope="row" { (name) }
                            td.number { (text::number(settled.len())) }
                            td { (histogram(settled)) }
                            @for percent in [50, 90, 95, 99, 100] { (cell(settled.percentile(percent))) }
                        } } }
                    }
                }
            }
        }
    }
}

/// Bars on one scale of time for all scenarios; their heights are shares of the scenario's own cells.
fn histogram(settled: &Sorted) -> Markup {
    let counts = settled.histogram(&BOUNDS);
    let most = counts.iter().copied().max().unwrap_or(0).max(1);
    let width = counts.len() * BAR;
    let class = |index: usize| match (index.checked_sub(1).map(|below| BOUNDS[below]), BOUNDS.get(index)) {
        (_, Some(bound)) => format!("up to {}", text::duration(*bound)),
        (below, None) => format!("over {}", text::duration(below.unwrap_or(0))),
    };
    let words: Vec<String> = counts
        .iter()
        .enumerate()
        .filter(|(_, count)| **count > 0)
        .map(|(index, count)| format!("{}: {}", class(index), text::count(*count, "cell")))
        .collect();
    html! {
        svg.histogram viewBox={ "0 0 " (width) " " (HEIGHT) } width=(width) height=(HEIGHT) role="img" aria-label=(words.join(", ")) {
            line x1="0" y1=(HEIGHT) x2=(width) y2=(HEIGHT) {}
            @for (index, count) in counts.iter().enumerate() {
                @if *count > 0 {
                    // What is there at all is seen.
                    @let height = (count * HEIGHT / most).max(2);
                    rect x=(index * BAR + 1) y=(HEIGHT - height) width=(BAR - 2) height=(height) {
                        title { (class(index)) ": " (text::count(*count, "cell")) }
                    }
                }
            }
        }
    }
}
