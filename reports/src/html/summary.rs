//! The top of the page: how it went, with what, where the time went, what changed since another run.

use maud::{Markup, html};
use udn_model::event::TimeBudget;
use udn_model::verdict::ExitCode;

use super::{badge, sign, worst_first};
use crate::compare::{CellChange, Change, Comparison};
use crate::run::RunReport;
use crate::text;

/// How many cells of a kind of change are named.
const NAMED: usize = 50;
/// Up to so many are shown without being asked for.
const FEW: usize = 10;

pub(super) fn title(report: &RunReport) -> String {
    format!("{}: run {} on {}", outcome(report), report.run, report.target)
}

/// The run in a word.
fn outcome(report: &RunReport) -> &'static str {
    match report.finish.map(|finish| finish.exit) {
        None => "unfinished",
        Some(ExitCode::Passed) => "passed",
        Some(ExitCode::Failed) => "failed",
        Some(ExitCode::Errors) => "not judged in full",
        Some(ExitCode::NothingSelected) => "nothing to judge",
        Some(ExitCode::SetupFailed | ExitCode::Usage) => "could not be set up",
        Some(ExitCode::Interrupted) => "interrupted",
    }
}

const fn class(report: &RunReport) -> &'static str {
    match report.finish {
        Some(finish) => match finish.exit {
            ExitCode::Passed => "v-pass",
            ExitCode::Failed => "v-fail",
            _ => "v-error",
        },
        None => "v-error",
    }
}

pub(super) fn header(report: &RunReport) -> Markup {
    html! {
        header.top {
            div.wide {
                p.product { "udn-conformance" }
                h1 {
                    span class={ "badge big " (class(report)) } { (outcome(report)) }
                    " run " (report.run) " on " (report.target)
                }
                button #theme type="button" aria-label="Theme: as the system says" title="Light, dark, or as the system says" { "◐" }
            }
        }
    }
}

pub(super) fn summary(report: &RunReport) -> Markup {
    let exit = report.finish.map(|finish| finish.exit);
    let cells = text::count(report.counts.total(), "cell");
    html! {
        section #summary aria-label="Summary" {
            @if let Some(why) = report.unfinished() { p.notice role="alert" { (why) } }
            ul.counts aria-label="Verdicts" {
                @for (verdict, count) in worst_first(&report.counts) {
                    li {
                        a class={ "count v-" (verdict) } href={ "#verdict=" (verdict) } {
                            span.sign aria-hidden="true" { (sign(verdict)) }
                            strong { (text::number(count)) } " " (verdict)
                        }
                    }
                }
            }
            dl.facts {
                dt { "judged" } dd { (cells) " in " (text::count(report.scenarios.len(), "scenario"))
                    @if report.planned_cells != report.counts.total() { ", of " (text::number(report.planned_cells)) " planned" } }
                dt { "exit code" } dd { (exit.map_or_else(|| "none".to_owned(), |exit| format!("{}: {}", exit.code(), meaning(exit)))) }
                dt { "target" } dd { (report.target) " " (report.context)
                    @if report.target == "lab" { ": a stand-in for a cluster" } }
                dt { "began" } dd { time datetime=(text::rfc3339(report.started_us.unwrap_or_default())) { (text::rfc3339(report.started_us.unwrap_or_default())) }
                    ", took " (text::duration(report.duration_ms())) }
                dt { "versions" } dd { @for (index, (name, version)) in report.versions.iter().enumerate() {
                    @if index > 0 { ", " } span.nowrap { (name) " " (version) } } }
                dt { "filters" } dd {
                    @if report.filters.is_empty() { "none: everything" } @else { @for filter in &report.filters { code { (filter) } " " } } }
            }
            @if let Some(finish) = report.finish { (budget(&finish.time)) }
            @if !report.skips.is_empty() {
                details {
                    summary { "Skipped, and why" }
                    ul { @for (reason, count) in &report.skips { li { (text::count(*count, "cell")) ": " (reason) } } }
                }
            }
            @if !report.failed_stages.is_empty() {
                h2 { "What failed while it was set up" }
                ul { @for (stage, error) in &report.failed_stages { li { strong { (stage) } ": " (error) } } }
            }
            @if !report.warnings.is_empty() {
                h2 { "Warnings" }
                ul.warnings { @for warning in &report.warnings { li { (warning) } } }
            }
        }
    }
}

const fn meaning(exit: ExitCode) -> &'static str {
    match exit {
        ExitCode::Passed => "every judged cell holds",
        ExitCode::Failed => "some cells fail, are unstable or fixed",
        ExitCode::Usage => "the command line or an input file is wrong",
        ExitCode::Errors => "some cells could not be judged; none failed",
        ExitCode::NothingSelected => "nothing was selected, or everything was skipped",
        ExitCode::SetupFailed => "the target could not be set up",
        ExitCode::Interrupted => "interrupted",
    }
}

/// Where the time went, as a bar and in words.
fn budget(time: &TimeBudget) -> Markup {
    let parts = [
        ("set-up", time.setup_ms),
        ("settling", time.settling_ms),
        ("waiting for denies", time.deny_wait_ms),
        ("probing", time.probing_ms),
        ("evidence and clean-up", time.cleanup_ms),
    ];
    let all = parts.iter().map(|(_, ms)| ms).sum::<u64>().max(1);
    let share = |ms: u64| format!("{}.{}", ms * 100 / all, ms * 1_000 / all % 10);
    html! {
        div.budget {
            div.bar aria-hidden="true" {
                @for (index, (_, ms)) in parts.iter().enumerate() {
                    span class={ "part p" (index) } style={ "width:" (share(*ms)) "%" } {}
                }
            }
            ul aria-label="Where the time went; scenarios run side by side, so the sum exceeds the duration" {
                @for (index, (name, ms)) in parts.iter().enumerate() {
                    li { span class={ "key p" (index) } aria-hidden="true" {} (name) " " (text::duration(*ms)) }
                }
            }
        }
    }
}

/// What changed since the run that it is compared with.
pub(super) fn changes(since: &Comparison) -> Markup {
    let before = &since.before;
    html! {
        section #changes aria-labelledby="changes-title" {
            h2 #changes-title { "Since run " (before.run) " of " (before.started) }
            @if since.changes.is_empty() { p { "Every cell ended as it did then." } }
            @for (change, count) in since.counts() {
                details open[change.is_worse() && count <= FEW] {
                    summary { strong { (text::number(count)) } " " (change.title()) }
                    (changed(change, since))
                }
            }
            @let times = &since.times;
            @if !times.slower.is_empty() {
                h3 { "Slower to settle" }
                ul { @for settle in &times.slower { li {
                    (settle.scenario) ": median " (text::duration(settle.median_ms.0)) " → " (text::duration(settle.median_ms.1))
                    ", 95th percentile " (text::duration(settle.p95_ms.0)) " → " (text::duration(settle.p95_ms.1))
                } } }
            }
            @if !times.longer_outages.is_empty() {
                h3 { "Longer outages" }
                ul { @for outage in &times.longer_outages { li {
                    a href={ "#cell=" (outage.cell) } { (outage.cell) } ": "
                    (text::duration(outage.outage_ms.0)) " → " (text::duration(outage.outage_ms.1))
                } } }
            }
        }
    }
}

fn changed(change: Change, since: &Comparison) -> Markup {
    let before = |cell: &CellChange| cell.before.map_or_else(|| html! { "not there" }, badge);
    let after = |cell: &CellChange| cell.after.map_or_else(|| html! { "not there" }, badge);
    let cells: Vec<&CellChange> = since.of(change).collect();
    html! {
        ul.changed {
            @for cell in cells.iter().take(NAMED) {
                li { (before(cell)) " → " (after(cell)) " "
                    @if cell.after.is_some() { a href={ "#cell=" (cell.cell) } { (cell.cell) } } @else { (cell.cell) } }
            }
        }
        @if cells.len() > NAMED { p { "… and " (text::number(cells.len() - NAMED)) " more: " code { "udn-conformance diff --format json" } " has all." } }
    }
}
