//! One round: every cell of a matrix in flight at once.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};
use udn_model::cell::{Cell, Check, Claim, ObjectRef, Target, VantagePoint};
use udn_model::observation::Outcome;
use udn_model::world::World as Declared;

use crate::cluster::{AddressBook, FactQuestion, Report, Shot, World};
use crate::options::Options;
use crate::ports::Ports;
use crate::resolve::{Resolved, resolve};

/// How much longer than its slowest probe a round waits: a cut stream is attached to again in the meantime.
const GRACE: Duration = Duration::from_secs(5);
/// How long an API server or agent may take to answer a question that is not a probe.
const CHECK_TIMEOUT: Duration = Duration::from_secs(10);

/// A probe that is about to be sent.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    /// Index of the cell.
    pub(crate) cell: usize,
    pub(crate) resolved: Resolved,
    pub(crate) shot: Shot,
}

/// What a round is to do.
#[derive(Debug, Default)]
pub(crate) struct Round {
    pub(crate) number: u32,
    pub(crate) probes: Vec<Planned>,
    /// Cells whose addresses are not known.
    unresolved: Vec<(usize, String)>,
    facts: Vec<(usize, FactQuestion)>,
    claims: Vec<(usize, ObjectRef, Claim)>,
    /// Every address of the world.
    pub(crate) known: HashSet<IpAddr>,
    /// How many of the probes that may be in flight at once it takes.
    permits: u32,
}

/// A round that is over.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) number: u32,
    pub(crate) started: Instant,
    /// When only silence was still waited for.
    pub(crate) answered: Instant,
    pub(crate) ended: Instant,
    pub(crate) probes: Vec<(Planned, Report)>,
    /// Outcomes of what is not a probe, and of cells that could not be resolved.
    pub(crate) others: Vec<(usize, Outcome)>,
    pub(crate) known: HashSet<IpAddr>,
}

impl Round {
    /// Makes the shots of these cells from what is known of addresses now.
    pub(crate) fn plan(number: u32, cells: &[&Cell], book: &AddressBook, ports: &Ports, options: &Options) -> Self {
        let known = book.pods.values().flat_map(|pod| pod.all()).collect();
        let mut round = Self { number, known, ..Self::default() };
        for (index, cell) in cells.iter().enumerate() {
            match (&cell.check, resolve(cell, book)) {
                (_, Some(Ok(resolved))) => {
                    let timeout = if resolved.wanted.is_negative() { options.deny_timeout } else { options.open_timeout };
                    round.probes.push(planned(index, resolved, ports, timeout));
                }
                (_, Some(Err(why))) => round.unresolved.push((index, why)),
                (Check::Fact { pod, fact, family }, None) => {
                    round.facts.push((index, FactQuestion { pod: pod.clone(), fact: fact.clone(), family: *family }));
                }
                (Check::Object { object, claim }, None) => round.claims.push((index, object.clone(), claim.clone())),
                (Check::Probe { .. }, None) => {}
            }
        }
        round.permits = u32::try_from(round.probes.len().min(options.probes_in_flight.max(1))).unwrap_or(u32::MAX);
        round
    }

    /// Where arrivals will have to be looked at.
    pub(crate) fn witnesses(&self) -> HashSet<Target> {
        self.probes.iter().filter_map(|probe| probe.resolved.witness.clone()).collect()
    }

    /// Sends everything and waits for every answer. `answered` is told as soon as only silence is waited for.
    pub(crate) async fn run(
        self,
        world: Arc<dyn World>,
        declared: Arc<Declared>,
        in_flight: Arc<Semaphore>,
        answered: oneshot::Sender<()>,
    ) -> Finished {
        let Self { number, probes, unresolved, facts, claims, known, permits } = self;
        // Closed semaphores do not exist here; without a permit the round is merely not throttled.
        let permit = in_flight.acquire_many_owned(permits).await.ok();
        let started = Instant::now();
        let checks = async {
            let (facts, claims) = tokio::join!(ask_facts(&*world, &declared, facts), ask_claims(&*world, claims));
            facts.into_iter().chain(claims).collect::<Vec<_>>()
        };
        let (shot, checked) = tokio::join!(shoot(&*world, probes, || drop((permit, answered.send(())))), checks);
        let (probes, answered) = shot;
        let unresolved = unresolved.into_iter().map(|(cell, why)| (cell, Outcome::Unresolved { why }));
        let others = unresolved.chain(checked).collect();
        Finished { number, started, answered, ended: Instant::now(), probes, others, known }
    }
}

/// A shot of a cell.
pub(crate) fn planned(cell: usize, resolved: Resolved, ports: &Ports, timeout: Duration) -> Planned {
    let (nonce, source_port) = ports.take();
    // On a host network the port may belong to somebody else.
    let own_ports = matches!(resolved.from, VantagePoint::Pod(_)) && resolved.transport == udn_model::words::Transport::Tcp;
    let shot = Shot {
        nonce,
        transport: resolved.transport,
        to: resolved.to,
        port: resolved.port,
        source_port: own_ports.then_some(source_port),
        timeout,
    };
    Planned { cell, resolved, shot }
}

/// Sends all probes, each vantage point's as one batch, and collects a report for each. Returns when the last one that
/// was not to be silent came.
async fn shoot(world: &dyn World, probes: Vec<Planned>, answered: impl FnOnce()) -> (Vec<(Planned, Report)>, Instant) {
    let deadline = probes.iter().map(|probe| probe.shot.timeout).max().unwrap_or_default() + GRACE;
    let deadline = Instant::now() + deadline;
    let mut batches: HashMap<VantagePoint, Vec<Shot>> = HashMap::new();
    for probe in &probes {
        batches.entry(probe.resolved.from.clone()).or_default().push(probe.shot.clone());
    }
    let mut awaited: HashSet<u64> =
        probes.iter().filter(|probe| !probe.resolved.wanted.is_negative()).map(|probe| probe.shot.nonce).collect();
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let sending = async move {
        join_all(batches.iter().map(|(from, shots)| world.probe(from, shots.clone(), sender.clone()))).await;
    };
    let mut reports: HashMap<u64, Report> = HashMap::with_capacity(probes.len());
    let mut tell = Some(answered);
    let mut answered_at = Instant::now();
    let collecting = async {
        loop {
            if awaited.is_empty()
                && let Some(tell) = tell.take()
            {
                answered_at = Instant::now();
                tell();
            }
            let Ok(Some(report)) = timeout_at(deadline, receiver.recv()).await else { break };
            awaited.remove(&report.nonce);
            reports.insert(report.nonce, report);
        }
    };
    // The senders end when all is reported, which ends the collecting; at the deadline it ends without them.
    tokio::select! {
        ((), ()) = async { tokio::join!(sending, collecting) } => {}
        () = tokio::time::sleep_until(deadline) => {}
    }
    if let Some(tell) = tell.take() {
        answered_at = Instant::now();
        tell();
    }
    let reported = probes.into_iter().map(|probe| {
        let nonce = probe.shot.nonce;
        let lost = || Report {
            nonce,
            outcome: Outcome::ControlLost { why: format!("no result from {} within {} s", probe.resolved.from, GRACE.as_secs()) },
            local: None,
        };
        let report = reports.remove(&nonce).unwrap_or_else(lost);
        (probe, report)
    });
    (reported.collect(), answered_at)
}

async fn ask_facts(world: &dyn World, declared: &Declared, facts: Vec<(usize, FactQuestion)>) -> Vec<(usize, Outcome)> {
    if facts.is_empty() {
        return Vec::new();
    }
    let (cells, questions): (Vec<usize>, Vec<FactQuestion>) = facts.into_iter().unzip();
    let answers = timeout(CHECK_TIMEOUT, world.facts(declared, &questions)).await.unwrap_or_default();
    let missing = cells.len().saturating_sub(answers.len());
    let missing = std::iter::repeat_n(late(), missing);
    cells.into_iter().zip(answers.into_iter().map(outcome).chain(missing)).collect()
}

async fn ask_claims(world: &dyn World, claims: Vec<(usize, ObjectRef, Claim)>) -> Vec<(usize, Outcome)> {
    join_all(claims.into_iter().map(async |(cell, object, claim)| {
        let answer = timeout(CHECK_TIMEOUT, world.claim(&object, &claim)).await;
        (cell, answer.map_or_else(|_| late(), outcome))
    })).await
}

fn late() -> Outcome {
    Outcome::AgentFailed { why: format!("no answer within {} s", CHECK_TIMEOUT.as_secs()) }
}

fn outcome(answer: Result<crate::cluster::Found, crate::cluster::Trouble>) -> Outcome {
    match answer {
        Ok(found) => Outcome::Checked { holds: found.holds, found: found.found },
        Err(trouble) => Outcome::AgentFailed { why: trouble.to_string() },
    }
}
