//! Probes closed cells from the first packet: while a phase's actions run, as soon as a target has an address, without
//! pause. One success is a violation.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use udn_model::cell::{Cell, Target, VantagePoint};
use udn_model::world::World as Declared;

use crate::cluster::{Report, Shot, World};
use crate::judge::Wanted;
use crate::options::Options;
use crate::ports::Ports;
use crate::resolve::resolve;
use crate::round::{Planned, planned};

/// How often every watched cell is probed anew.
const PERIOD: Duration = Duration::from_millis(250);
/// How much longer than its timeout a probe's report may take before it is given up.
const GRACE: Duration = Duration::from_secs(2);

/// One watched probe.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(crate) planned: Planned,
    pub(crate) report: Report,
    pub(crate) sent: Instant,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) watched: Vec<Watched>,
    pub(crate) witnesses: HashSet<Target>,
    pub(crate) known: HashSet<IpAddr>,
}

/// Watches until told to stop, then waits for what is still out.
pub(crate) async fn watch(
    world: Arc<dyn World>,
    declared: Arc<Declared>,
    cells: Vec<(usize, Cell)>,
    ports: Arc<Ports>,
    options: Options,
    stop: CancellationToken,
) -> Log {
    let mut log = Log::default();
    let mut out: HashMap<u64, (Planned, Instant)> = HashMap::new();
    let (sender, mut reports) = mpsc::unbounded_channel::<Report>();
    let mut batches = JoinSet::new();
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(report) = reports.recv() => log.take(&mut out, report),
            _ = batches.join_next(), if !batches.is_empty() => {}
            _ = ticks.tick() => {
                // While nothing is known of addresses there is nothing to watch.
                let Ok(book) = world.addresses(&declared).await else { continue };
                log.known.extend(book.pods.values().flat_map(|pod| pod.all()));
                let mut shots: HashMap<VantagePoint, Vec<Shot>> = HashMap::new();
                for (index, cell) in &cells {
                    let Some(Ok(resolved)) = resolve(cell, &book, &declared) else { continue };
                    if resolved.wanted != Wanted::Closed {
                        continue;
                    }
                    log.witnesses.extend(resolved.witnesses.iter().map(|lookout| lookout.at.clone()));
                    let planned = planned(*index, Arc::new(resolved), &ports, options.watch_timeout);
                    shots.entry(planned.resolved.from.clone()).or_default().push(planned.shot.clone());
                    out.insert(planned.shot.nonce, (planned, Instant::now()));
                }
                for (from, shots) in shots {
                    let (world, sender) = (world.clone(), sender.clone());
                    batches.spawn(async move { world.probe(&from, shots, sender).await });
                }
            }
        }
    }
    drop(sender);
    let rest = async {
        while let Some(report) = reports.recv().await {
            log.take(&mut out, report);
        }
    };
    // What does not come is no loss: the rounds that follow say whether the vantage point works.
    let _ = timeout(options.watch_timeout + GRACE, rest).await;
    log
}

impl Log {
    fn take(&mut self, out: &mut HashMap<u64, (Planned, Instant)>, report: Report) {
        if let Some((planned, sent)) = out.remove(&report.nonce) {
            // A vantage point or listener that is not up yet is the rule here, not trouble.
            if !report.outcome.is_harness_failure() {
                self.watched.push(Watched { planned, report, sent });
            }
        }
    }
}
