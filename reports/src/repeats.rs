//! Several runs of the same: how often each cell ended how. A cell that does not always end alike is flaky, or the network is.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;
use udn_model::cell::CellId;
use udn_model::event::EventKind;
use udn_model::verdict::{Counts, Verdict};

use crate::jsonl::Reader;
use crate::{Error, file, text};

/// The file beside the folders of the runs.
pub const REPEATS: &str = "repeats.json";

/// How often each cell ended how.
#[derive(Clone, Debug, Default)]
pub struct Repeats {
    runs: usize,
    cells: BTreeMap<CellId, Counts>,
}

/// A cell that did not hold every time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unsteady<'a> {
    /// Its id.
    pub id: &'a str,
    /// How often it ended how.
    #[serde(flatten)]
    pub counts: Counts,
    /// In how many runs it had no end: they were cut short before.
    pub missing: usize,
}

#[derive(Serialize)]
struct Document<'a> {
    runs: usize,
    cells: usize,
    unsteady: Vec<Unsteady<'a>>,
}

impl Repeats {
    /// Adds a run by its log.
    ///
    /// # Errors
    /// What [`Reader`] finds.
    pub fn add(&mut self, log: &Path) -> Result<(), Error> {
        for event in Reader::open(log)? {
            if let EventKind::CellFinished(result) = event?.kind {
                self.cells.entry(result.cell.id).or_default().add(result.verdict);
            }
        }
        self.runs += 1;
        Ok(())
    }

    /// Cells that did not end alike in every run, or never well; those that most often did not hold come first.
    #[must_use]
    pub fn unsteady(&self) -> Vec<Unsteady<'_>> {
        let all = self.cells.iter().map(|(id, counts)| Unsteady {
            id: id.as_str(),
            counts: *counts,
            missing: self.runs.saturating_sub(counts.total()),
        });
        let mut unsteady: Vec<_> = all.filter(|cell| !self.is_steady(cell)).collect();
        unsteady.sort_by_key(|cell| (std::cmp::Reverse(bad(&cell.counts)), cell.id));
        unsteady
    }

    fn is_steady(&self, cell: &Unsteady<'_>) -> bool {
        Verdict::ALL.into_iter().any(|verdict| verdict.is_good() && cell.counts.of(verdict) == self.runs)
    }

    /// Tells it: a line for all, then one for each cell that is unsteady.
    ///
    /// # Errors
    /// The output cannot be written.
    pub fn tell(&self, out: &mut dyn Write) -> io::Result<()> {
        let unsteady = self.unsteady();
        let (cells, runs) = (text::count(self.cells.len(), "cell"), text::count(self.runs, "run"));
        if unsteady.is_empty() {
            return writeln!(out, "{cells} ended alike in {runs}");
        }
        writeln!(out, "{} of {cells} did not end alike, or not well, in {runs}:", text::number(unsteady.len()))?;
        for cell in unsteady {
            let of = Verdict::ALL.into_iter().filter(|verdict| cell.counts.of(*verdict) > 0);
            let mut ends: Vec<String> = of.map(|verdict| format!("{} {verdict}", cell.counts.of(verdict))).collect();
            if cell.missing > 0 {
                ends.push(format!("{} not reached", cell.missing));
            }
            writeln!(out, "  {}: {}", cell.id, ends.join(", "))?;
        }
        Ok(())
    }

    /// Writes it for machines: `{"runs", "cells", "unsteady": [{"id", "pass", "fail", …, "missing"}]}`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let document = Document { runs: self.runs, cells: self.cells.len(), unsteady: self.unsteady() };
        let json = serde_json::to_string_pretty(&document)
            .map_err(|error| Error::write(path)(io::Error::other(error.to_string())))?;
        file::replace(path, &(json + "\n"))
    }
}

/// How often it did not hold.
const fn bad(counts: &Counts) -> usize {
    counts.fail + counts.unstable + counts.error + counts.fixed
}

#[cfg(test)]
mod tests {
    use udn_model::verdict::ExitCode;

    use super::*;
    use crate::jsonl::Writer;
    use crate::testing;

    fn repeats(runs: &[&[Verdict]]) -> Repeats {
        let folder = tempfile::tempdir().unwrap();
        let mut repeats = Repeats::default();
        for (number, verdicts) in runs.iter().enumerate() {
            let log = folder.path().join(number.to_string());
            let cells = testing::cells().into_iter().zip(*verdicts);
            let cells = cells.map(|(cell, verdict)| testing::result(cell.cell, *verdict)).collect();
            let mut writer = Writer::create(&log).unwrap();
            testing::run_of(cells, ExitCode::Passed).iter().for_each(|event| writer.write(event).unwrap());
            repeats.add(&log).unwrap();
        }
        repeats
    }

    fn told(repeats: &Repeats) -> String {
        let mut out = Vec::new();
        repeats.tell(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_does_not_end_alike_is_told_worst_first() {
        use Verdict::{Error, Fail, Known, Pass, Skip};
        assert_eq!(told(&repeats(&[&[Pass, Skip], &[Pass, Skip]])), "2 cells ended alike in 2 runs\n");
        let unsteady =
            repeats(&[&[Pass, Pass, Fail, Known], &[Pass, Error, Fail, Known], &[Pass, Pass, Fail, Pass], &[Pass]]);
        let ids: Vec<&str> = unsteady.unsteady().iter().map(|cell| cell.id).collect();
        let cells = testing::cells();
        assert_eq!(ids, [2, 1, 3].map(|index: usize| cells[index].cell.id.as_str()));
        let text = told(&unsteady);
        assert!(text.starts_with("3 of 4 cells did not end alike, or not well, in 4 runs:\n"), "{text}");
        assert!(text.contains(": 3 fail, 1 not reached\n"), "{text}");
        assert!(text.contains(": 2 pass, 1 error, 1 not reached\n"), "{text}");
        assert!(text.contains(": 1 pass, 2 known, 1 not reached\n"), "{text}");
    }

    #[test]
    fn a_cell_that_never_holds_is_no_steady_one() {
        assert_eq!(repeats(&[&[Verdict::Fail], &[Verdict::Fail]]).unsteady().len(), 1);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(REPEATS);
        repeats(&[&[Verdict::Fail], &[Verdict::Pass]]).write(&path).unwrap();
        let json: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        assert_eq!((&json["runs"], &json["cells"]), (&2.into(), &1.into()));
        assert_eq!((&json["unsteady"][0]["fail"], &json["unsteady"][0]["missing"]), (&1.into(), &0.into()));
    }
}
