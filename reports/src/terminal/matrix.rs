//! The truth table of a matrix: vantage points down, targets across, what was expected and what was observed instead.
//!
//! An entry stands for all probes of a vantage point to a target: its transports, ports and families. Words where they
//! fit, else a character each.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};
use udn_model::cell::{Check, Target, VantagePoint};
use udn_model::event::CellResult;
use udn_model::verdict::Verdict;
use udn_model::words::{Family, Transport};

use super::Options;
use crate::{observed, text};

/// Up to this many rows and columns the whole matrix is shown; beyond, only those concerned.
const WHOLE: usize = 8;
/// More rows are not shown; the report has them.
const ROWS: usize = 24;
/// More columns are not shown.
const COLUMNS: usize = 60;
/// What stands in front of every line.
const INDENT: &str = "    ";

/// The probes of a phase.
#[derive(Debug, Default)]
pub(super) struct Matrix {
    entries: BTreeMap<VantagePoint, BTreeMap<Target, Vec<Probe>>>,
    telling: bool,
}

/// A probe in an entry.
#[derive(Debug)]
struct Probe {
    transport: Transport,
    port: Option<u16>,
    family: Family,
    expected: &'static str,
    observed: &'static str,
    verdict: Verdict,
}

impl Probe {
    /// Whether there is nothing to say beyond what was expected.
    const fn is_quiet(&self) -> bool {
        matches!(self.verdict, Verdict::Pass | Verdict::Skip)
    }
}

/// Characters of a table that is too wide for words, worst first.
const LEGEND: [(char, &str); 9] = [
    ('!', "expected closed, got through"),
    ('X', "expected open, did not get through"),
    ('?', "could not be judged"),
    ('~', "settled as expected, but not without a violation"),
    ('f', "known to fail, holds"),
    ('k', "known to fail, fails"),
    ('o', "open, as expected"),
    ('.', "closed, as expected"),
    ('+', "open by some transports or families and closed by others, as expected"),
];

impl Matrix {
    /// Adds a cell; what is no probe is left out.
    pub(super) fn add(&mut self, result: &CellResult) {
        let Check::Probe { from, to, transport, port, family, .. } = &result.cell.check else { return };
        let probe = Probe {
            transport: *transport,
            port: *port,
            family: *family,
            expected: result.cell.expectation.word(),
            observed: observed::word(result),
            verdict: result.verdict,
        };
        self.telling |= !probe.is_quiet();
        self.entries.entry(from.clone()).or_default().entry(to.clone()).or_default().push(probe);
    }

    /// Whether some probe was not as expected.
    pub(super) const fn is_telling(&self) -> bool {
        self.telling
    }

    /// The table with its legend.
    pub(super) fn table(&self, options: Options) -> String {
        let (rows, columns) = self.concerned();
        let words = self.words(&rows, &columns);
        let fits = |table: &str| table.lines().all(|line| console::measure_text_width(line) <= options.width);
        let mut out = if columns.len() <= 2 * WHOLE && fits(&words) {
            words
        } else {
            self.characters(&rows, &columns, options.width)
        };
        let total = (self.entries.len(), self.targets().len());
        if rows.len() < total.0 || columns.len() < total.1 {
            let _ = writeln!(
                out,
                "{INDENT}shown: {} of {}, {} of {}; all in report.json",
                rows.len(),
                text::count(total.0, "vantage point"),
                columns.len(),
                text::count(total.1, "target"),
            );
        }
        self.paint(&out, options)
    }

    fn targets(&self) -> BTreeSet<&Target> {
        self.entries.values().flat_map(BTreeMap::keys).collect()
    }

    /// Rows and columns to show.
    fn concerned(&self) -> (Vec<&VantagePoint>, Vec<&Target>) {
        let targets = self.targets();
        if self.entries.len() <= WHOLE && targets.len() <= WHOLE {
            return (self.entries.keys().collect(), targets.into_iter().collect());
        }
        let (mut rows, mut columns) = (BTreeSet::new(), BTreeSet::new());
        for (from, row) in &self.entries {
            for (to, probes) in row {
                if probes.iter().any(|probe| !probe.is_quiet()) {
                    rows.insert(from);
                    columns.insert(to);
                }
            }
        }
        (rows.into_iter().take(ROWS).collect(), columns.into_iter().take(COLUMNS).collect())
    }

    fn probes(&self, from: &VantagePoint, to: &Target) -> &[Probe] {
        self.entries.get(from).and_then(|row| row.get(to)).map_or(&[], Vec::as_slice)
    }

    fn words(&self, rows: &[&VantagePoint], columns: &[&Target]) -> String {
        let mut table = new_table();
        table.set_header(std::iter::once("from \\ to".to_owned()).chain(columns.iter().map(ToString::to_string)));
        for from in rows {
            let entries = columns.iter().map(|to| entry_in_words(self.probes(from, to)));
            table.add_row(std::iter::once(from.to_string()).chain(entries));
        }
        let mut out = indented(&table);
        let unstable = if out.contains('~') { "; a→b~: settled as a, but b was seen" } else { "" };
        let _ = writeln!(out, "{INDENT}a→b: expected a, observed b{unstable}; one word: as expected; -: not probed");
        out
    }

    fn characters(&self, rows: &[&VantagePoint], columns: &[&Target], width: usize) -> String {
        let label = rows
            .iter()
            .map(|row| console::measure_text_width(&row.to_string()))
            .max()
            .unwrap_or(0)
            .max("from \\ to".len());
        let digits = columns.len().to_string().len();
        let fitting = (width.saturating_sub(INDENT.len() + label + 1) / (digits + 1)).max(4);
        let mut out = String::new();
        let mut used = BTreeSet::new();
        for (part, columns) in columns.chunks(fitting).enumerate() {
            let first = part * fitting + 1;
            let _ = write!(out, "{INDENT}{:label$}", "from \\ to");
            for number in first..first + columns.len() {
                let _ = write!(out, " {number:>digits$}");
            }
            out.push('\n');
            for from in rows {
                let _ = write!(out, "{INDENT}{:label$}", from.to_string());
                for to in columns {
                    let character = character(self.probes(from, to));
                    used.insert(character);
                    let _ = write!(out, " {character:>digits$}");
                }
                out.push('\n');
            }
            let key: Vec<_> = (first..).zip(columns).map(|(number, to)| format!("{number:>digits$} {to}")).collect();
            out.push_str(&packed(&key, width));
        }
        for (character, meaning) in LEGEND.iter().filter(|(character, _)| used.contains(character)) {
            let _ = writeln!(out, "{INDENT}{character:>digits$} {meaning}");
        }
        out
    }

    /// What is not as expected, in red. Painted when the table is laid out, since colours have no width.
    fn paint(&self, table: &str, options: Options) -> String {
        let paint = |word: &str| {
            let text = word.trim_end();
            if text.contains('→') && !text.starts_with("a→b") || matches!(text, "!" | "X" | "?" | "~") {
                format!("{}{}", options.style.verdict(Verdict::Fail, text), &word[text.len()..])
            } else {
                word.to_owned()
            }
        };
        table.split_inclusive([' ', '\n']).map(paint).collect()
    }
}

fn new_table() -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table
}

fn indented(table: &Table) -> String {
    table.lines().map(|line| format!("{}{}\n", &INDENT[1..], line.trim_end())).collect()
}

/// Items side by side, as many in a line as fit.
fn packed(items: &[String], width: usize) -> String {
    let widest = items.iter().map(|item| console::measure_text_width(item)).max().unwrap_or(0);
    let in_line = (width.saturating_sub(INDENT.len()) / (widest + 2)).max(1);
    let lines = items.chunks(in_line).map(|items| {
        let line: String = items.iter().map(|item| format!("{item:<0$}", widest + 2)).collect();
        format!("{INDENT}{}\n", line.trim_end())
    });
    lines.collect()
}

/// `open`, `closed→open`, `closed→open (v4)`; several lines where probes went wrong in several ways.
fn entry_in_words(probes: &[Probe]) -> String {
    if probes.is_empty() {
        return "-".to_owned();
    }
    let mut lines: Vec<String> = Vec::new();
    let mut ways: Vec<(&str, &str, Verdict)> = Vec::new();
    for probe in probes.iter().filter(|probe| !probe.is_quiet()) {
        let way = (probe.expected, probe.observed, probe.verdict);
        if !ways.contains(&way) {
            ways.push(way);
        }
    }
    for (expected, observed, verdict) in ways {
        let of_it: Vec<&Probe> =
            probes.iter().filter(|p| (p.expected, p.observed, p.verdict) == (expected, observed, verdict)).collect();
        let mut line = format!("{expected}→{observed}");
        match verdict {
            Verdict::Unstable => line.push('~'),
            Verdict::Known => line.push_str(" known"),
            Verdict::Fixed => line = format!("{expected} fixed"),
            _ => {}
        }
        if of_it.len() < probes.len() {
            let _ = write!(line, " ({})", which(&of_it, probes));
        }
        lines.push(line);
    }
    if lines.is_empty() {
        lines.push(quiet_word(probes).to_owned());
    }
    lines.join("\n")
}

/// What all of an entry's probes were expected to do.
fn quiet_word(probes: &[Probe]) -> &'static str {
    if probes.iter().all(|probe| probe.verdict == Verdict::Skip) {
        return "skipped";
    }
    let mut expected: Vec<_> = probes.iter().map(|probe| probe.expected).collect();
    expected.dedup();
    match expected.as_slice() {
        [one] => one,
        _ => "mixed",
    }
}

/// The shortest true description of some of an entry's probes: `v4`, `tcp`, `tcp 9090`, `udp v6`, `3 of 8`.
fn which(some: &[&Probe], all: &[Probe]) -> String {
    type Describe = fn(&Probe) -> String;
    let ways: [Describe; 5] = [
        |probe| probe.family.to_string(),
        |probe| probe.transport.to_string(),
        |probe| probe.port.map_or_else(|| probe.transport.to_string(), |port| format!("{} {port}", probe.transport)),
        |probe| format!("{} {}", probe.transport, probe.family),
        |probe| match probe.port {
            Some(port) => format!("{} {port} {}", probe.transport, probe.family),
            None => format!("{} {}", probe.transport, probe.family),
        },
    ];
    for describe in ways {
        let description = describe(some[0]);
        let described = all.iter().filter(|probe| describe(probe) == description).count();
        if described == some.len() && some.iter().all(|probe| describe(probe) == description) {
            return description;
        }
    }
    format!("{} of {}", some.len(), all.len())
}

/// The character of an entry: that of its worst probe.
fn character(probes: &[Probe]) -> char {
    let character = |probe: &Probe| match probe.verdict {
        Verdict::Fail if probe.expected == "open" => 'X',
        Verdict::Fail => '!',
        Verdict::Error => '?',
        Verdict::Unstable => '~',
        Verdict::Fixed => 'f',
        Verdict::Known => 'k',
        Verdict::Pass | Verdict::Skip if probe.expected == "open" => 'o',
        Verdict::Pass | Verdict::Skip => '.',
    };
    let characters: BTreeSet<char> = probes.iter().map(character).collect();
    if characters.len() == 2 && characters.contains(&'o') && characters.contains(&'.') {
        return '+';
    }
    LEGEND.iter().map(|(character, _)| *character).find(|character| characters.contains(character)).unwrap_or(' ')
}
