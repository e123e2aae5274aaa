//! What a comparison keeps of a run: of each cell as little as is compared.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::rc::Rc;

use udn_model::event::{CellResult, EventKind};
use udn_model::verdict::Verdict;

use super::Side;
use crate::jsonl::Reader;
use crate::run::RunReport;
use crate::{Error, observed, text};

/// A run.
pub(super) struct Half {
    pub(super) side: Side,
    /// By id.
    pub(super) cells: BTreeMap<String, Seen>,
}

/// What became of a cell.
pub(super) struct Seen {
    /// `suite::scenario`.
    pub(super) scenario: Rc<str>,
    /// `suite::scenario::phase`.
    pub(super) phase: Rc<str>,
    pub(super) rule: Rc<str>,
    pub(super) verdict: Verdict,
    pub(super) expected: &'static str,
    pub(super) observed: &'static str,
    /// Empty where it holds.
    pub(super) reason: String,
    pub(super) settled_ms: Option<u64>,
    pub(super) outage_ms: Option<u64>,
}

impl Half {
    pub(super) fn read(path: &Path) -> Result<Self, Error> {
        let mut report = RunReport::default();
        let mut cells = BTreeMap::new();
        let mut names = Names::default();
        for event in Reader::open(path)? {
            let event = event?;
            match &event.kind {
                EventKind::CellFinished(result) => {
                    cells.insert(result.cell.id.as_str().to_owned(), seen(result, &mut names));
                }
                // All that is asked of the rest is how the run began and ended.
                _ => report.apply(&event),
            }
        }
        if report.started_us.is_none() {
            return Err(Error::NoRun { path: path.into() });
        }
        let side = Side {
            run: report.run.clone(),
            target: report.target.clone(),
            started: text::rfc3339(report.started_us.unwrap_or_default()),
            versions: report.versions.clone(),
            cells: cells.len(),
            finished: report.unfinished().is_none(),
        };
        Ok(Self { side, cells })
    }
}

fn seen(result: &CellResult, names: &mut Names) -> Seen {
    let cell = &result.cell;
    let scenario = format!("{}::{}", cell.suite, cell.scenario);
    Seen {
        phase: names.one(&format!("{scenario}::{}", cell.phase)),
        scenario: names.one(&scenario),
        rule: names.one(cell.rule.as_str()),
        verdict: result.verdict,
        expected: cell.expectation.word(),
        observed: observed::word(result),
        reason: result.reason.clone(),
        settled_ms: result.settled_ms,
        outage_ms: result.evidence.flow.as_ref().map(|flow| flow.outage_ms),
    }
}

/// Names that thousands of cells share, each kept once.
#[derive(Default)]
struct Names(HashSet<Rc<str>>);

impl Names {
    fn one(&mut self, name: &str) -> Rc<str> {
        if let Some(known) = self.0.get(name) {
            return Rc::clone(known);
        }
        let name: Rc<str> = Rc::from(name);
        self.0.insert(Rc::clone(&name));
        name
    }
}
