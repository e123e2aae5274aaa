//! What the phases before left open: closing it takes time, and that time is no violation.

use std::collections::HashMap;

use udn_model::cell::{Cell, Check};
use udn_model::plan::{PlannedCell, PlannedPhase};

/// Which checks were expected to be open when last they were made.
#[derive(Debug, Default)]
pub(crate) struct Before(HashMap<String, bool>);

impl Before {
    /// Takes a phase's expectations over.
    pub(crate) fn note(&mut self, phase: &PlannedPhase) {
        for PlannedCell { cell, .. } in &phase.cells {
            self.0.insert(key(&cell.check), !cell.expectation.is_negative());
        }
    }

    pub(super) fn was_open(&self, cell: &Cell) -> bool {
        self.0.get(&key(&cell.check)).copied().unwrap_or(false)
    }
}

fn key(check: &Check) -> String {
    format!("{check:?}")
}
