//! The phase's actions, and what is probed while they run.

use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use udn_model::cell::{Cell, Check, Target};
use udn_model::observation::Outcome;
use udn_model::plan::PlannedPhase;
use udn_model::scenario::Probing;

use super::Phase;
use crate::history::{Meaning, Observation};
use crate::judge::{FarSide, Judged, judge};
use crate::watch::{self, Log};

impl Phase<'_> {
    /// Performs the actions, watching meanwhile where the phase says so.
    pub(super) async fn act(&mut self, planned: &PlannedPhase) -> Result<(), String> {
        let begun = Instant::now();
        let stop = CancellationToken::new();
        // Ends the watching even if this is dropped half-way.
        let guard = stop.clone().drop_guard();
        let watching = if planned.probing == Probing::FromFirstPacket && !planned.actions.is_empty() {
            let watched = self.watched();
            let targets = watched.iter().filter_map(|(_, cell)| match &cell.check {
                Check::Probe { to: to @ (Target::Pod { .. } | Target::Node(_)), .. } => Some(to.clone()),
                _ => None,
            });
            self.sightings.begin(&**self.world, targets.collect()).await;
            Some(self.watch(watched, stop.clone()))
        } else {
            None
        };
        let mut result = Ok(());
        for action in &planned.actions {
            result = tokio::select! {
                result = self.world.act(action) => result.map_err(|trouble| trouble.to_string()),
                () = self.shared.stop.wait() => Err(self.shared.stop.why()),
            };
            if result.is_err() {
                break;
            }
        }
        self.zero = Instant::now();
        self.shared.budget.settling(begun.elapsed());
        drop(guard);
        if let Some(watching) = watching
            && let Ok(log) = watching.await
        {
            self.take_log(log).await;
        }
        result
    }

    /// The cells that are probed while the actions run: what an isolation rule forbids, or may turn out to.
    fn watched(&self) -> Vec<(usize, Cell)> {
        let forbidden = self.cells.iter().enumerate().filter(|(_, cell)| {
            cell.rule.is_isolation() && matches!(cell.check, Check::Probe { .. }) && !cell.expectation.is_plainly_open()
        });
        forbidden.map(|(index, cell)| (index, (*cell).clone())).collect()
    }

    fn watch(&self, cells: Vec<(usize, Cell)>, stop: CancellationToken) -> JoinHandle<Log> {
        let (world, declared) = (self.world.clone(), self.declared.clone());
        let (ports, options) = (self.shared.ports.clone(), self.shared.options.clone());
        tokio::spawn(watch::watch(world, declared, cells, ports, options, stop))
    }

    async fn take_log(&mut self, log: Log) {
        self.sightings.read(&**self.world, log.witnesses.clone()).await;
        let mut watched = log.watched;
        watched.sort_by_key(|watched| watched.sent);
        for watch::Watched { planned, report, sent } in watched {
            let lookouts = &planned.resolved.witnesses;
            let far = self.sightings.of(lookouts, &planned.shot, report.local, sent, &log.known);
            // The far side's agent may not have been there yet: what it did not see proves nothing, and need not.
            let far = if matches!(far, FarSide::Unknown { .. }) { FarSide::NotAsked } else { far };
            let judged = judge(&planned.resolved.wanted, &report.outcome, &far);
            let at_ms = self.at_ms(sent).min(-1);
            if report.outcome == Outcome::Refused && judged == Judged::Match {
                self.early_refusals.push((planned.cell, at_ms));
            }
            let arrived = far.arrived();
            let meaning = Meaning::Judged(judged);
            self.histories[planned.cell].watched(Observation { at_ms, outcome: report.outcome, arrived, meaning });
        }
    }

    /// A refusal from the first moments, where later probes of the cell are never refused, came from the target before
    /// its listener was up: the packet got through.
    pub(super) fn understand_refusals(&mut self) {
        for (cell, at_ms) in std::mem::take(&mut self.early_refusals) {
            let history = &mut self.histories[cell];
            if !history.ever(&Outcome::Refused) {
                history.violated(
                    at_ms,
                    "refused while the target's listener was not up yet, and never since: it got through".into(),
                );
            }
        }
    }
}
