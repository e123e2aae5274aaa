//! The comparison for people: worst first, alike cells together.

use std::collections::BTreeMap;
use std::fmt::Write;

use udn_model::verdict::Verdict;

use super::{CellChange, Change, Comparison, Side};
use crate::text::{count, duration, number};

/// How many groups of cells, scenarios or flows are told of each kind; `--format json` has all.
const TOLD: usize = 20;

/// The comparison in lines.
#[must_use]
pub fn text(comparison: &Comparison) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "before {}", side(&comparison.before));
    let _ = writeln!(out, "after  {}", side(&comparison.after));
    for (name, before) in &comparison.before.versions {
        if let Some(after) = comparison.after.versions.get(name).filter(|after| *after != before) {
            let _ = writeln!(out, "       {name}: {before} → {after}");
        }
    }
    for (change, cells) in comparison.counts() {
        let _ = writeln!(out, "\n{}: {}", change.title(), count(cells, "cell"));
        let groups = groups(comparison.of(change));
        for group in groups.iter().take(TOLD) {
            let _ = writeln!(out, "  {}", line(group));
        }
        more(&mut out, groups.len());
    }
    times(&mut out, comparison);
    let _ = writeln!(out, "\n{}", verdict(comparison));
    out
}

fn side(side: &Side) -> String {
    let unfinished = if side.finished { "" } else { ", did not finish" };
    format!("{} on {}, {}, {}{unfinished}", side.run, side.target, side.started, count(side.cells, "cell"))
}

/// The last line.
fn verdict(comparison: &Comparison) -> String {
    let still = match comparison.still_not_holding {
        0 => String::new(),
        cells => format!("; {} hold in neither run", count(cells, "cell")),
    };
    if comparison.worse {
        let worse: usize =
            comparison.counts().iter().filter(|(change, _)| change.is_worse()).map(|(_, cells)| cells).sum();
        format!("worse: {} newly fail, are unstable or cannot be judged{still}", count(worse, "cell"))
    } else if comparison.after.finished {
        format!("not worse: {} unchanged{still}", count(comparison.unchanged, "cell"))
    } else {
        let unchanged = count(comparison.unchanged, "cell");
        format!("the newer run did not finish; as far as it came it is not worse: {unchanged} unchanged{still}")
    }
}

/// Cells of a phase that changed alike.
fn groups<'a>(changes: impl Iterator<Item = &'a CellChange>) -> Vec<Vec<&'a CellChange>> {
    let mut groups: BTreeMap<_, Vec<&CellChange>> = BTreeMap::new();
    for change in changes {
        let brief = matches!(change.change, Change::New | Change::Gone);
        let alike = if brief {
            ("", None, None, "", "")
        } else {
            (change.rule.as_str(), change.before, change.after, change.expected, change.observed)
        };
        groups.entry((&change.phase, alike)).or_default().push(change);
    }
    let mut groups: Vec<_> = groups.into_values().collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.len()));
    groups
}

fn line(group: &[&CellChange]) -> String {
    let Some(first) = group.first() else { return String::new() };
    let cells = number(group.len());
    if matches!(first.change, Change::New | Change::Gone) {
        return format!("{cells} of {}", first.phase);
    }
    let word = |verdict: Option<Verdict>| verdict.map_or_else(|| "not there".to_owned(), |verdict| verdict.to_string());
    let mut line = format!(
        "{cells} of {}, {}: {} → {}, expected {}, observed {}",
        first.phase,
        first.rule,
        word(first.before),
        word(first.after),
        first.expected,
        first.observed
    );
    let _ = write!(line, "\n    {}{}", if group.len() > 1 { "for one " } else { "" }, first.cell);
    line
}

fn more(out: &mut String, all: usize) {
    if all > TOLD {
        let _ = writeln!(out, "  … and {} more; --format json has all", number(all - TOLD));
    }
}

fn times(out: &mut String, comparison: &Comparison) {
    let times = &comparison.times;
    let arrow = |(before, after): (u64, u64)| format!("{} → {}", duration(before), duration(after));
    for (title, settles) in [("slower to settle", &times.slower), ("faster to settle", &times.faster)] {
        if settles.is_empty() {
            continue;
        }
        let _ = writeln!(out, "\n{title}: {}", count(settles.len(), "scenario"));
        for settle in settles.iter().take(TOLD) {
            let (median, p95) = (arrow(settle.median_ms), arrow(settle.p95_ms));
            let cells = count(settle.cells, "cell");
            let _ = writeln!(out, "  {}: median {median}, 95th percentile {p95} ({cells})", settle.scenario);
        }
        more(out, settles.len());
    }
    for (title, outages) in [("longer outage", &times.longer_outages), ("shorter outage", &times.shorter_outages)] {
        if outages.is_empty() {
            continue;
        }
        let _ = writeln!(out, "\n{title}: {}", count(outages.len(), "flow"));
        for outage in outages.iter().take(TOLD) {
            let _ = writeln!(out, "  {}: {}", outage.cell, arrow(outage.outage_ms));
        }
        more(out, outages.len());
    }
    if times.settle_factor >= 1.5 || times.settle_factor <= 0.67 {
        let _ = writeln!(out, "\nall scenarios: {} times as long to settle, in the median", times.settle_factor);
    }
}
