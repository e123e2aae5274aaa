//! `report.html`: one file that needs nothing else, no network either.
//!
//! What a reader wants first is written as it is: the summary, what does not hold, scenarios, settle times, outages. The
//! cells follow as data, a row each ([`cells`]), which the page's script lays out as tables when somebody looks at them:
//! a browser opens a page of 20,000 cells at once only if they are no elements yet.

mod cells;
mod flows;
mod scenarios;
mod settle;
mod strings;
mod summary;
mod timeline;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde_json::{Value, json};
use udn_model::event::CellResult;
use udn_model::rule::RuleName;
use udn_model::verdict::Verdict;

use self::strings::{Strings, in_script};
use crate::Error;
use crate::compare::Comparison;
use crate::file::Replacement;
use crate::files::Sink;
use crate::run::RunReport;

const STYLE: &str = include_str!("page/style.css");

/// The script, in the order in which its parts need each other.
const SCRIPT: [&str; 7] = [
    include_str!("page/data.js"),
    include_str!("page/elements.js"),
    include_str!("page/evidence.js"),
    include_str!("page/matrix.js"),
    include_str!("page/lists.js"),
    include_str!("page/filters.js"),
    include_str!("page/main.js"),
];

/// The file, being written.
#[derive(Debug)]
pub(crate) struct Writer {
    out: Replacement,
    strings: Strings,
    /// Numbers of phases.
    phases: HashMap<(String, String, String), usize>,
    rules: BTreeMap<String, RuleName>,
    first: bool,
}

impl Writer {
    /// Everything that stands before the cells.
    pub(crate) fn begin(path: &Path, report: &RunReport, since: Option<&Comparison>) -> Result<Self, Error> {
        let mut out = Replacement::begin(path)?;
        let page = page(report, since).into_string();
        out.put(page.strip_suffix("</body></html>").unwrap_or(&page))?;
        out.put("\n<script type=\"application/json\" id=\"cells\">[")?;
        let mut phases = HashMap::new();
        for scenario in &report.scenarios {
            for phase in &scenario.phases {
                let name = (scenario.suite.clone(), scenario.scenario.clone(), phase.phase.clone());
                let number = phases.len();
                phases.insert(name, number);
            }
        }
        Ok(Self { out, strings: Strings::new(), phases, rules: BTreeMap::new(), first: true })
    }

    /// What rows refer to.
    fn book(&self) -> Value {
        let rule = |name: &RuleName| match name.rule() {
            Some(rule) => {
                let sources: Vec<String> = rule.sources.iter().map(ToString::to_string).collect();
                json!([rule.promise, sources.join("; "), rule.upstream])
            }
            None => json!(["", "", ""]),
        };
        let mut phases: Vec<_> = self.phases.iter().collect();
        phases.sort_by_key(|(_, number)| **number);
        json!({
            "verdicts": Verdict::ALL.map(|verdict| verdict.to_string()),
            "phases": phases.iter().map(|(name, _)| name).collect::<Vec<_>>(),
            "rules": self.rules.iter().map(|(name, known)| (name.clone(), rule(known))).collect::<serde_json::Map<_, _>>(),
            "strings": self.strings.texts().collect::<Vec<_>>(),
        })
    }
}

impl Sink for Writer {
    fn cell(&mut self, result: &CellResult) -> Result<(), Error> {
        let cell = &result.cell;
        let next = self.phases.len();
        let phase = (cell.suite.clone(), cell.scenario.clone(), cell.phase.clone());
        let phase = *self.phases.entry(phase).or_insert(next);
        if !self.rules.contains_key(cell.rule.as_str()) {
            self.rules.insert(cell.rule.as_str().to_owned(), cell.rule.clone());
        }
        self.out.put(if self.first { "\n" } else { ",\n" })?;
        self.first = false;
        self.out.put(in_script(&cells::row(result, phase, &mut self.strings).to_string()))
    }

    fn finish(mut self: Box<Self>) -> Result<(), Error> {
        let book = in_script(&self.book().to_string());
        self.out.put("]</script>\n<script type=\"application/json\" id=\"book\">")?;
        self.out.put(book)?;
        self.out.put("</script>\n<script>\n\"use strict\";\n")?;
        for part in SCRIPT {
            self.out.put(part)?;
        }
        self.out.put("</script>\n</body></html>\n")?;
        self.out.commit()
    }
}

fn page(report: &RunReport, since: Option<&Comparison>) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                // Nothing is ever fetched, whatever a run's texts say.
                meta http-equiv="Content-Security-Policy"
                    content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:";
                link rel="icon" href="data:,";
                title { (summary::title(report)) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                a.skip href="#main" { "Skip to the summary" }
                (summary::header(report))
                main #main {
                    (summary::summary(report))
                    @if let Some(since) = since { (summary::changes(since)) }
                    section #findings aria-labelledby="findings-title" hidden {
                        h2 #findings-title { "What does not hold" }
                        div #findings-list {}
                    }
                    (scenarios::scenarios(report))
                    (timeline::migrations(report))
                    (flows::flows(report))
                    (settle::settle(report))
                }
                footer {
                    p { "Made by udn-conformance from " code { "events.jsonl" } " alone; it has everything that is shown here." }
                }
                dialog #evidence aria-labelledby="evidence-title" {}
                noscript { p.notice { "Cells and their evidence need JavaScript; everything else is here." } }
            }
        }
    }
}

/// A verdict's name with its sign, for people who see no colours.
fn badge(verdict: Verdict) -> Markup {
    html! { span class={ "badge v-" (verdict) } { span.sign aria-hidden="true" { (sign(verdict)) } (verdict) } }
}

/// The sign of a verdict, as in the tables.
const fn sign(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "✓",
        Verdict::Fail => "✕",
        Verdict::Unstable => "~",
        Verdict::Error => "?",
        Verdict::Skip => "–",
        Verdict::Known => "k",
        Verdict::Fixed => "f",
    }
}

/// `class="v-…"` words, worst first, with their counts.
fn worst_first(counts: &udn_model::verdict::Counts) -> Vec<(Verdict, usize)> {
    const ORDER: [Verdict; 7] = [
        Verdict::Fail,
        Verdict::Error,
        Verdict::Unstable,
        Verdict::Fixed,
        Verdict::Known,
        Verdict::Pass,
        Verdict::Skip,
    ];
    ORDER.into_iter().map(|verdict| (verdict, counts.of(verdict))).filter(|(_, count)| *count > 0).collect()
}

#[cfg(test)]
mod tests;
