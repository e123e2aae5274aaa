//! Which scenarios probe at the same time.
//!
//! Rounds of a scenario overlap, and a machine forwards only so many probes a second: where all the scenarios of a world
//! probe at once, each of them waits for the others and is judged by their lateness. So large ones take turns, and small
//! ones run beside them.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use udn_model::cell::Check;
use udn_model::plan::{PlannedCell, PlannedScenario};

/// The turns of a run.
#[derive(Clone, Debug)]
pub(crate) struct Turns {
    permits: Arc<Semaphore>,
    most: u32,
}

impl Turns {
    /// `most`: probes of one round each, all scenarios together.
    pub(crate) fn new(most: usize) -> Self {
        let most = u32::try_from(most.max(1)).unwrap_or(u32::MAX >> 3);
        Self { permits: Arc::new(Semaphore::new(most as usize)), most }
    }

    /// Waits until there is room for a scenario: one that is larger than all room has all of it for itself.
    pub(crate) async fn take(&self, planned: &PlannedScenario) -> Option<OwnedSemaphorePermit> {
        self.permits.clone().acquire_many_owned(weight(planned).min(self.most)).await.ok()
    }
}

/// How many probes the largest round of a scenario sends at most.
fn weight(planned: &PlannedScenario) -> u32 {
    let of = |cell: &PlannedCell| match &cell.cell.check {
        _ if cell.skip.is_some() => 0,
        Check::Probe { .. } | Check::Resolve { .. } => 1,
        Check::Series { series, .. } => u32::from(series.connections),
        Check::Figure { .. } | Check::Fact { .. } | Check::Object { .. } => 0,
    };
    planned.phases.iter().map(|phase| phase.cells.iter().map(of).sum()).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_larger_than_all_room_has_it_alone() {
        let turns = Turns::new(2);
        let small = turns.permits.clone().acquire_many_owned(1).await.unwrap();
        assert!(turns.permits.clone().try_acquire_many_owned(9.min(turns.most)).is_err());
        drop(small);
        assert!(turns.permits.clone().try_acquire_many_owned(9.min(turns.most)).is_ok());
    }
}
