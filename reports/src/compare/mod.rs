//! Two runs, compared: what holds no longer, what holds again, what is there no more, and what takes longer.

mod read;
mod text;
mod times;

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;
use udn_model::verdict::Verdict;

use self::read::{Half, Seen};
pub use self::text::text;
pub use self::times::{METHOD, Outage, Settle, Times};
use crate::Error;

/// The version of the comparison's shape as JSON.
pub const FORMAT: u32 = 1;

/// Two runs, compared.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// [`FORMAT`].
    pub format: u32,
    /// The older one.
    pub before: Side,
    /// The newer one.
    pub after: Side,
    /// Whether something newly fails, is newly unstable or can newly not be judged.
    pub worse: bool,
    /// How many cells are in both runs and ended alike, or at least not as a change is told.
    pub unchanged: usize,
    /// How many cells hold in neither run, though both judged them.
    pub still_not_holding: usize,
    /// Cells whose verdicts changed, and cells of one run only; by kind, then by id.
    pub changes: Vec<CellChange>,
    /// What takes longer or shorter.
    pub times: Times,
}

/// One of the two runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Side {
    /// The run's id.
    pub run: String,
    /// `lab` or `kube`.
    pub target: String,
    /// RFC 3339.
    pub started: String,
    /// Program, Kubernetes, OVN …
    pub versions: BTreeMap<String, String>,
    /// How many cells it judged or skipped.
    pub cells: usize,
    /// Whether it came to its end.
    pub finished: bool,
}

/// How a cell changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// It fails, and did not.
    NewlyFailing,
    /// It is unstable; it held, could not be judged or was not there.
    NewlyUnstable,
    /// It could not be judged; it held, was not tried or not there.
    NewlyError,
    /// It holds, and did not.
    Fixed,
    /// It fails as a known issue says, and did not or was no known issue.
    NewlyKnown,
    /// It was not tried, and had been.
    NewlySkipped,
    /// It is in the newer run only, and holds or was skipped.
    New,
    /// It is in the older run only.
    Gone,
}

impl Change {
    /// In the order in which they are told.
    pub const ALL: [Self; 8] = [
        Self::NewlyFailing,
        Self::NewlyUnstable,
        Self::NewlyError,
        Self::Fixed,
        Self::NewlyKnown,
        Self::NewlySkipped,
        Self::New,
        Self::Gone,
    ];

    /// What people call it.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::NewlyFailing => "newly failing",
            Self::NewlyUnstable => "newly unstable",
            Self::NewlyError => "newly not judged",
            Self::Fixed => "fixed",
            Self::NewlyKnown => "newly known to fail",
            Self::NewlySkipped => "newly skipped",
            Self::New => "new cells",
            Self::Gone => "gone cells",
        }
    }

    /// Whether it makes the newer run worse.
    #[must_use]
    pub const fn is_worse(self) -> bool {
        matches!(self, Self::NewlyFailing | Self::NewlyUnstable | Self::NewlyError)
    }

    fn between(before: Option<Verdict>, after: Option<Verdict>) -> Option<Self> {
        // How far a verdict is from holding: only what got further from it is newly so.
        const fn rank(verdict: Option<Verdict>) -> u8 {
            match verdict {
                Some(Verdict::Fail) => 3,
                Some(Verdict::Unstable) => 2,
                Some(Verdict::Error) => 1,
                _ => 0,
            }
        }
        let worse = rank(after) > rank(before);
        match (before, after) {
            (_, Some(Verdict::Fail)) => worse.then_some(Self::NewlyFailing),
            (_, Some(Verdict::Unstable)) => worse.then_some(Self::NewlyUnstable),
            (_, Some(Verdict::Error)) => worse.then_some(Self::NewlyError),
            (Some(Verdict::Known), Some(Verdict::Known)) | (None, None) => None,
            (_, Some(Verdict::Known)) => Some(Self::NewlyKnown),
            (None, Some(_)) => Some(Self::New),
            (Some(_), None) => Some(Self::Gone),
            (Some(Verdict::Skip), Some(Verdict::Skip)) => None,
            (_, Some(Verdict::Skip)) => Some(Self::NewlySkipped),
            (Some(Verdict::Fixed), Some(Verdict::Fixed)) => None,
            (before, Some(Verdict::Pass | Verdict::Fixed)) => {
                (rank(before) > 0 || before == Some(Verdict::Known)).then_some(Self::Fixed)
            }
        }
    }
}

/// A cell that changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CellChange {
    /// How.
    pub change: Change,
    /// The cell's id.
    pub cell: String,
    /// `suite::scenario::phase`.
    pub phase: String,
    /// Its rule.
    pub rule: String,
    /// Its verdict in the older run; `None`: it is not there.
    pub before: Option<Verdict>,
    /// Its verdict in the newer run.
    pub after: Option<Verdict>,
    /// What was expected, a word.
    pub expected: &'static str,
    /// What was observed in the newer run, else in the older one, a word.
    pub observed: &'static str,
    /// Why the newer run's verdict is what it is.
    pub reason: String,
}

impl Comparison {
    /// Compares two runs by their logs.
    ///
    /// # Errors
    /// A log cannot be read.
    pub fn read(before: &Path, after: &Path) -> Result<Self, Error> {
        Ok(Self::new(&Half::read(before)?, &Half::read(after)?))
    }

    fn new(before: &Half, after: &Half) -> Self {
        let mut changes = Vec::new();
        let (mut unchanged, mut still_not_holding) = (0, 0);
        for (id, now) in &after.cells {
            let then = before.cells.get(id);
            match Change::between(then.map(|then| then.verdict), Some(now.verdict)) {
                Some(change) => changes.push(changed(change, id, then, Some(now))),
                None => unchanged += 1,
            }
            let bad = |seen: &Seen| matches!(seen.verdict, Verdict::Fail | Verdict::Unstable | Verdict::Error);
            still_not_holding += usize::from(bad(now) && then.is_some_and(bad));
        }
        for (id, then) in before.cells.iter().filter(|(id, _)| !after.cells.contains_key(*id)) {
            changes.push(changed(Change::Gone, id, Some(then), None));
        }
        changes.sort_by(|one, other| (one.change, &one.cell).cmp(&(other.change, &other.cell)));
        Self {
            format: FORMAT,
            before: before.side.clone(),
            after: after.side.clone(),
            worse: changes.iter().any(|change| change.change.is_worse()),
            unchanged,
            still_not_holding,
            changes,
            times: Times::new(before, after),
        }
    }

    /// Changes of one kind.
    pub fn of(&self, change: Change) -> impl Iterator<Item = &CellChange> {
        self.changes.iter().filter(move |changed| changed.change == change)
    }

    /// Kinds of changes that there are, and how many each.
    #[must_use]
    pub fn counts(&self) -> Vec<(Change, usize)> {
        let counted = Change::ALL.into_iter().map(|change| (change, self.of(change).count()));
        counted.filter(|(_, count)| *count > 0).collect()
    }
}

fn changed(change: Change, id: &str, then: Option<&Seen>, now: Option<&Seen>) -> CellChange {
    let told = now.or(then);
    CellChange {
        change,
        cell: id.to_owned(),
        phase: told.map(|seen| seen.phase.to_string()).unwrap_or_default(),
        rule: told.map(|seen| seen.rule.to_string()).unwrap_or_default(),
        before: then.map(|seen| seen.verdict),
        after: now.map(|seen| seen.verdict),
        expected: told.map_or("", |seen| seen.expected),
        observed: told.map_or("", |seen| seen.observed),
        reason: now.map(|seen| seen.reason.clone()).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests;
