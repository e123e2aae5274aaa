//! One scenario: its phases, one after the other.

use std::sync::Arc;

use tokio::time::Instant;
use udn_model::event::EventKind;
use udn_model::plan::PlannedScenario;
use udn_model::verdict::Counts;

use crate::budget::millis;
use crate::cluster::World;
use crate::phase::{self, Before, Name, Outline, Shared};

/// Runs all phases. `world`: the world, or why there is none.
pub(crate) async fn run(shared: &Shared, world: Result<&Arc<dyn World>, &str>, planned: &PlannedScenario) -> Counts {
    let _turn = match world {
        Ok(_) => tokio::select! {
            turn = shared.turns.take(planned) => turn,
            () = shared.stop.wait() => None,
        },
        Err(_) => None,
    };
    let begun = Instant::now();
    let (suite, scenario) = (planned.suite.as_str(), planned.scenario.name.as_str());
    shared.emitter.emit(EventKind::ScenarioStarted {
        suite: suite.into(),
        scenario: scenario.into(),
        title: planned.scenario.title.clone(),
        cells: planned.phases.iter().map(|phase| phase.cells.len()).sum(),
    });
    let mut counts = Counts::default();
    let mut settled_ms = None;
    let mut broken: Option<String> = None;
    let mut before = Before::default();
    let last = planned.phases.iter().rposition(|phase| phase.cells.iter().any(|cell| cell.skip.is_none()));
    for (index, phase) in planned.phases.iter().enumerate() {
        let name = Name { suite, scenario, phase: &phase.name };
        let outline: Outline = match (world, &broken) {
            // Nothing to judge: neither what broke nor what stops the run says anything of it. Behind the last cell that
            // is tried, nothing needs to be done any more.
            _ if last.is_none_or(|last| index > last) => phase::pass_over(shared, name, phase),
            _ if shared.stop.is_set() => phase::give_up(shared, name, phase, &shared.stop.why()),
            (_, Some(why)) => phase::give_up(shared, name, phase, why),
            (Ok(world), None) => phase::run(shared, world, name, phase, &before).await,
            (Err(why), None) => phase::give_up(shared, name, phase, why),
        };
        add(&mut counts, outline.counts);
        before.note(phase);
        settled_ms = settled_ms.max(outline.settled_ms);
        if let Some(why) = outline.broken {
            broken = Some(format!("phase {} went wrong: {why}", phase.name));
        }
    }
    shared.emitter.emit(EventKind::ScenarioFinished {
        suite: suite.into(),
        scenario: scenario.into(),
        counts,
        duration_ms: millis(begun.elapsed()),
        settled_ms,
    });
    counts
}

/// Adds counts up.
pub(crate) fn add(total: &mut Counts, more: Counts) {
    total.pass += more.pass;
    total.fail += more.fail;
    total.unstable += more.unstable;
    total.error += more.error;
    total.skip += more.skip;
    total.known += more.known;
    total.fixed += more.fixed;
}
