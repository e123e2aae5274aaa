//! One phase: its actions, then rounds until its matrix has settled and held.

mod before;
mod early;
mod figures;
mod pace;
mod proof;
mod throughout;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::Instant;
use udn_model::cell::{Cell, Check, Target};
use udn_model::event::{CellResult, EventKind};
use udn_model::observation::{Evidence, Outcome};
use udn_model::plan::PlannedPhase;
use udn_model::rule::RuleName;
use udn_model::scenario::Probing;
use udn_model::verdict::{Counts, Verdict};
use udn_model::world::World as Declared;

use crate::arrivals::Sightings;
use crate::baseline;
use crate::budget::{Budget, RoundSpans, millis};
use crate::cluster::{AddressBook, World};
use crate::control::Controls;
use crate::emit::Emitter;
use crate::history::{Conclusion, Ending, History, Meaning, Observation};
use crate::judge::{FarSide, Judged, Wanted, is_late, judge};
use crate::options::Options;
use crate::ports::Ports;
use crate::resolve::{Last, Resolved};
use crate::round::{Finished, Planned, Round};
use crate::run::Stop;
use crate::turns::Turns;
use crate::window::{OVERLOADED, Window};
pub(crate) use before::Before;
use pace::Pace;
use throughout::Acting;

/// How long cells that are known to fail are given to surprise; then a phase does not wait for them any more. What they did
/// by then is judged as that of any cell is.
const KNOWN_PATIENCE: Duration = Duration::from_secs(5);

/// Rounds that are under way at once at most.
const ROUNDS_AT_ONCE: usize = 8;

/// What all phases of a run share.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) emitter: Emitter,
    pub(crate) ports: Arc<Ports>,
    pub(crate) budget: Arc<Budget>,
    pub(crate) window: Arc<Window>,
    pub(crate) turns: Turns,
    pub(crate) stop: Stop,
}

/// Which phase of which scenario.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Name<'a> {
    pub(crate) suite: &'a str,
    pub(crate) scenario: &'a str,
    pub(crate) phase: &'a str,
}

/// What became of a phase.
#[derive(Debug, Default)]
pub(crate) struct Outline {
    pub(crate) counts: Counts,
    pub(crate) settled_ms: Option<u64>,
    /// Why later phases cannot be judged.
    pub(crate) broken: Option<String>,
}

/// Runs a phase in a world. `before`: what the phases before it left open.
pub(crate) async fn run(
    shared: &Shared,
    world: &Arc<dyn World>,
    name: Name<'_>,
    planned: &PlannedPhase,
    before: &Before,
) -> Outline {
    let begun = Instant::now();
    let tried = planned.cells.iter().filter(|cell| cell.skip.is_none()).map(|cell| &cell.cell);
    let (figures, cells): (Vec<&Cell>, Vec<&Cell>) = tried.partition(|cell| matches!(cell.check, Check::Figure { .. }));
    let mut phase = Phase::new(shared, world, name, planned, cells, before);
    let throughout = planned.probing == Probing::Throughout;
    let acting = throughout.then(|| Acting::begin(world, planned));
    let broken = if throughout { None } else { phase.act(planned).await.err() };
    let (ending, broken) = match broken {
        Some(why) if shared.stop.is_set() => (Ending::CutShort { why: shared.stop.why() }, Some(why)),
        Some(why) => (Ending::CutShort { why: why.clone() }, Some(why)),
        None => phase.settle(acting).await,
    };
    shared.budget.rounds(&phase.spans);
    let mut outline = phase.conclude(&ending, &figures).await;
    for cell in &planned.cells {
        if let Some(reason) = &cell.skip {
            skip(shared, &cell.cell, reason, &mut outline.counts);
        }
    }
    outline.broken = broken;
    shared.emitter.emit(EventKind::PhaseFinished {
        suite: name.suite.into(),
        scenario: name.scenario.into(),
        phase: name.phase.into(),
        counts: outline.counts,
        duration_ms: millis(begun.elapsed()),
        error: outline.broken.clone(),
    });
    outline
}

/// Ends a phase without doing anything, though it has cells to try.
pub(crate) fn give_up(shared: &Shared, name: Name<'_>, planned: &PlannedPhase, why: &str) -> Outline {
    end(shared, name, planned, Some(why))
}

/// Ends a phase that has no cell to try.
pub(crate) fn pass_over(shared: &Shared, name: Name<'_>, planned: &PlannedPhase) -> Outline {
    end(shared, name, planned, None)
}

fn end(shared: &Shared, name: Name<'_>, planned: &PlannedPhase, error: Option<&str>) -> Outline {
    let mut outline = Outline::default();
    for cell in &planned.cells {
        match &cell.skip {
            Some(reason) => skip(shared, &cell.cell, reason, &mut outline.counts),
            None => {
                let reason = format!("not judged: {}", error.unwrap_or("nothing was left to try"));
                finish(shared, &cell.cell, (Verdict::Error, reason, None), vec![], Evidence::default());
                outline.counts.add(Verdict::Error);
            }
        }
    }
    shared.emitter.emit(EventKind::PhaseFinished {
        suite: name.suite.into(),
        scenario: name.scenario.into(),
        phase: name.phase.into(),
        counts: outline.counts,
        duration_ms: 0,
        error: error.map(str::to_owned),
    });
    outline
}

fn skip(shared: &Shared, cell: &Cell, reason: &str, counts: &mut Counts) {
    finish(shared, cell, (Verdict::Skip, reason.into(), None), vec![], Evidence::default());
    counts.add(Verdict::Skip);
}

fn finish(
    shared: &Shared,
    cell: &Cell,
    (verdict, reason, settled_ms): (Verdict, String, Option<u64>),
    attempts: Vec<udn_model::observation::Attempt>,
    evidence: Evidence,
) {
    let result = CellResult { cell: cell.clone(), verdict, reason, settled_ms, attempts, evidence };
    shared.emitter.emit(EventKind::CellFinished(Box::new(result)));
}

struct Phase<'a> {
    shared: &'a Shared,
    world: &'a Arc<dyn World>,
    name: Name<'a>,
    declared: Arc<Declared>,
    /// How long the phase itself says that settling may take.
    settle_within: Duration,
    options: Options,
    /// Whether rounds go on while the actions run.
    meanwhile: bool,
    cells: Vec<&'a Cell>,
    histories: Vec<History>,
    /// Which cells the baseline knows to fail.
    known: Vec<bool>,
    evidence: Vec<Evidence>,
    /// The last probe of each cell, for a command that repeats it.
    last: HashMap<usize, Planned>,
    resolved: Last,
    sightings: Sightings,
    spans: RoundSpans,
    /// When the actions were done.
    zero: Instant,
    /// Refusals while the actions ran: judged once it is known what the rounds saw.
    early_refusals: Vec<(usize, i64)>,
}

impl<'a> Phase<'a> {
    fn new(
        shared: &'a Shared,
        world: &'a Arc<dyn World>,
        name: Name<'a>,
        planned: &PlannedPhase,
        cells: Vec<&'a Cell>,
        before: &Before,
    ) -> Self {
        let rounds = shared.options.settle_rounds.max(1);
        // What was open until the phase's actions closed it takes its time to close; that is settling. What was closed,
        // or is watched from its first packet, must never be open.
        let closing = |cell: &Cell| planned.probing == Probing::AfterActions && before.was_open(cell);
        let throughout = planned.probing == Probing::Throughout;
        let history = |cell: &&Cell| {
            let history = History::new(rounds, cell.rule.is_isolation() && !closing(cell), cell.rule.is_control());
            let measured = planned.cells.iter().any(|figure| cell.is_flow_of(&figure.cell));
            match () {
                // How long it is out is for its figures.
                () if measured => history.tolerant(),
                () if throughout => history.strict(),
                () => history,
            }
        };
        let histories = cells.iter().map(history).collect();
        let known = cells.iter().map(|cell| shared.options.baseline.of(cell).next().is_some()).collect();
        Self {
            shared,
            world,
            name,
            declared: Arc::new(planned.world.clone()),
            settle_within: Duration::from_secs(planned.settle_within_s.into()),
            meanwhile: throughout,
            options: if throughout { throughout::options(&shared.options) } else { shared.options.clone() },
            evidence: vec![Evidence::default(); cells.len()],
            cells,
            histories,
            known,
            last: HashMap::new(),
            resolved: Last::default(),
            sightings: Sightings::default(),
            spans: RoundSpans::default(),
            zero: Instant::now(),
            early_refusals: Vec::new(),
        }
    }

    /// Rounds until all cells have settled and held, or the deadline has passed. With `acting`, rounds go on while that
    /// does, and those before its end do not count to the last ones. Says also why later phases cannot be judged.
    async fn settle(&mut self, mut acting: Option<Acting>) -> (Ending, Option<String>) {
        if self.cells.is_empty() {
            let broken = match acting {
                Some(mut acting) => acting.end().await.err(),
                None => None,
            };
            return (Ending::Done { deadline_ms: 0 }, broken);
        }
        // Where actions run meanwhile, the deadline counts from their end.
        let mut since = self.zero;
        let deadline = self.shared.options.settle_deadline.max(self.settle_within);
        let mut pace = Pace::new(&self.shared.options);
        let mut rounds: JoinSet<Finished> = JoinSet::new();
        let mut waiting: BTreeMap<u32, Finished> = BTreeMap::new();
        let mut gate: Option<oneshot::Receiver<()>> = None;
        let mut next_start = Instant::now();
        loop {
            let overdue = acting.is_none() && pace.overdue(since, deadline);
            let wanted = acting.is_some() || pace.wants_another(since);
            let launch = !overdue && wanted && gate.is_none() && rounds.len() < ROUNDS_AT_ONCE;
            if rounds.is_empty() && (overdue || !wanted) {
                break;
            }
            tokio::select! {
                () = self.shared.stop.wait() => {
                    let why = self.shared.stop.why();
                    return (Ending::CutShort { why: why.clone() }, acting.map(|_| why));
                }
                result = async { match acting.as_mut() { Some(acting) => acting.end().await, None => Ok(()) } }, if acting.is_some() => {
                    acting = None;
                    since = Instant::now();
                    if let Err(why) = result {
                        return (Ending::CutShort { why: why.clone() }, Some(why));
                    }
                    pace.only_from_now();
                }
                () = tokio::time::sleep_until(next_start), if launch => {
                    pace.launched += 1;
                    next_start = Instant::now() + pace.interval();
                    let (answered, told) = oneshot::channel();
                    gate = Some(told);
                    if let Some(round) = self.next_round(pace.launched).await {
                        let (world, declared) = (self.world.clone(), self.declared.clone());
                        let (window, ports) = (self.shared.window.clone(), self.shared.ports.clone());
                        rounds.spawn(round.run(world, declared, window, ports, answered));
                    }
                }
                _ = async { if let Some(told) = gate.as_mut() { let _ = told.await; } }, if gate.is_some() => gate = None,
                Some(finished) = rounds.join_next(), if !rounds.is_empty() => {
                    let Ok(finished) = finished else { continue };
                    waiting.insert(finished.number, finished);
                    while let Some(finished) = waiting.remove(&(pace.judged + 1)) {
                        let (number, overloaded) = (finished.number, finished.slowest > OVERLOADED);
                        let patient = since.elapsed() < KNOWN_PATIENCE;
                        let matched = self.judge_round(finished, patient).await;
                        pace.judge(number, matched, self.is_settled(patient), overloaded);
                    }
                }
            }
        }
        let waited = deadline.min(self.zero.elapsed());
        let settled = self.zero + self.settled_ms().map_or(waited, Duration::from_millis);
        self.shared.budget.settling(settled.saturating_duration_since(self.zero));
        self.understand_refusals();
        // Nobody but those who are not waited for is left unsettled before the deadline.
        (Ending::Done { deadline_ms: millis(deadline.min(since.elapsed())) }, None)
    }

    /// Whether nothing is left to wait for; `patient`: cells that are known to fail are waited for, too.
    fn is_settled(&self, patient: bool) -> bool {
        (0..self.cells.len()).all(|cell| self.histories[cell].is_settled() || self.is_given_up(cell, patient))
    }

    /// Whether a cell that does not match is not waited for: it is known to fail, or about a flow that has ended, which is
    /// not begun again.
    fn is_given_up(&self, cell: usize, patient: bool) -> bool {
        let ended = self.evidence[cell].flow.as_ref().is_some_and(|flow| flow.ended.is_some());
        ended || (self.known[cell] && !patient)
    }

    /// Plans a round and prepares the far side for it.
    async fn next_round(&mut self, number: u32) -> Option<Round> {
        let book = match self.world.addresses(&self.declared).await {
            Ok(book) => book,
            Err(trouble) => {
                tracing::debug!(%trouble, "addresses");
                AddressBook::default()
            }
        };
        let mut round = Round::plan(
            number,
            &self.cells,
            book,
            &self.declared,
            (&self.shared.ports, &self.options),
            &mut self.resolved,
        );
        round.meanwhile = self.meanwhile;
        for probe in &mut round.probes {
            probe.doubted = self.histories[probe.cell].is_doubted();
        }
        self.sightings.begin(&**self.world, round.witnesses()).await;
        for probe in &round.probes {
            for lookout in &probe.resolved.witnesses {
                self.sightings.about_to_send(lookout, &probe.shot);
            }
        }
        Some(round)
    }

    /// Judges every cell of a round. Returns whether all matched but those who are not waited for.
    async fn judge_round(&mut self, finished: Finished, patient: bool) -> bool {
        let Finished { number, started, answered, slowest, ended, probes, late, others, book } = finished;
        let known: HashSet<IpAddr> = book.pods.values().flat_map(|pod| pod.all()).collect();
        let overloaded = slowest > OVERLOADED;
        self.spans.add(started, answered, ended);
        let lookouts = probes.iter().flat_map(|(probe, _)| &probe.resolved.witnesses);
        let witnesses: HashSet<Target> = lookouts.map(|lookout| lookout.at.clone()).collect();
        self.sightings.read(&**self.world, witnesses).await;

        let now = self.world.addresses(&self.declared).await.unwrap_or_default();
        let restarted = |resolved: &Resolved| {
            resolved.reach.iter().any(|reach| book.life(reach).is_none() || book.life(reach) != now.life(reach))
        };

        let mut judged: Vec<(usize, Outcome, FarSide, Judged, Option<&Resolved>)> =
            Vec::with_capacity(self.cells.len());
        for (planned, report) in &probes {
            let resolved = &planned.resolved;
            let far = self.sightings.of(&resolved.witnesses, &planned.shot, report.local, started, &known);
            let mut verdict = judge(&resolved.wanted, &report.outcome, &far);
            if matches!(verdict, Judged::Mismatch(_)) && restarted(resolved) {
                let why = "but the agent at the target was started anew or could not be reached meanwhile";
                verdict = Judged::Harness(format!("{}, {why}", report.outcome));
            } else if overloaded && matches!(verdict, Judged::Mismatch(_)) && is_late(&resolved.wanted, &report.outcome)
            {
                verdict = Judged::Harness(format!(
                    "{}; but a twentieth of the answers of the round took {} ms and more: too much was asked of the machine",
                    report.outcome,
                    slowest.as_millis()
                ));
            }
            judged.push((planned.cell, report.outcome.clone(), far, verdict, Some(resolved)));
            if let Some(later) = report.flow.clone() {
                let flow = &mut self.evidence[planned.cell].flow;
                *flow = Some(match flow.take() {
                    Some(earlier) => Box::new(earlier.then(*later)),
                    None => later,
                });
            }
        }
        for (cell, outcome) in others {
            let wanted = Wanted::of(&self.cells[cell].expectation);
            let verdict = match (&outcome, wanted) {
                (Outcome::Unresolved { why }, _) => Judged::Harness(format!("unresolved: {why}")),
                (_, Some(wanted)) => judge(&wanted, &outcome, &FarSide::NotAsked),
                (_, None) => Judged::Harness("an open cell without an address".into()),
            };
            judged.push((cell, outcome, FarSide::NotAsked, verdict, None));
        }

        let mut controls = Controls::default();
        for (cell, _, _, verdict, resolved) in &judged {
            if let (Judged::Match, Some(resolved)) = (verdict, resolved)
                && !resolved.wanted.needs_controls()
            {
                controls.add(&self.cells[*cell].id, resolved);
            }
        }
        let at_ms = self.at_ms(started);
        for (cell, outcome) in late {
            self.histories[cell].note(at_ms, outcome);
        }
        let (total, mut matching, mut forgiven) = (judged.len(), 0, 0);
        for (cell, outcome, far, verdict, resolved) in judged {
            let evidence = &mut self.evidence[cell];
            let mut meaning = Meaning::Judged(verdict);
            if let Some(resolved) = resolved {
                evidence.witness = far.witness().or(evidence.witness);
                if resolved.wanted.needs_controls() && meaning == Meaning::Judged(Judged::Match) {
                    meaning = controlled(&controls, &self.cells[cell].rule, resolved, evidence);
                }
            }
            let observation = Observation { at_ms, outcome, arrived: far.arrived(), meaning };
            let matched = self.histories[cell].observe(observation);
            matching += usize::from(matched);
            forgiven += usize::from(!matched && self.is_given_up(cell, patient));
        }
        self.last.extend(probes.into_iter().map(|(planned, _)| (planned.cell, planned)));
        self.shared.emitter.emit(EventKind::RoundFinished {
            suite: self.name.suite.into(),
            scenario: self.name.scenario.into(),
            phase: self.name.phase.into(),
            round: number,
            cells: total,
            matching,
            duration_ms: millis(ended.saturating_duration_since(started)),
        });
        matching + forgiven == total
    }

    /// Gives every cell its verdict, with evidence.
    async fn conclude(&mut self, ending: &Ending, figures: &[&Cell]) -> Outline {
        let mut outline = Outline { settled_ms: self.settled_ms(), ..Outline::default() };
        let concluded = self.histories.iter().zip(&self.cells);
        let baseline = &self.options.baseline;
        let conclusions: Vec<Conclusion> =
            concluded.map(|(history, cell)| baseline::apply(baseline, cell, history.conclude(ending))).collect();
        let migrations = self.tell_migrations().await;
        self.judge_figures(figures, ending, &migrations, &mut outline.counts);
        let bad: Vec<usize> = (0..self.cells.len()).filter(|index| !conclusions[*index].verdict.is_good()).collect();
        let mut notes = match ending {
            Ending::Done { .. } => self.collect(&bad).await,
            Ending::CutShort { .. } => HashMap::new(),
        };
        let parts = std::mem::take(&mut self.histories).into_iter().zip(std::mem::take(&mut self.evidence));
        for (index, ((history, mut evidence), conclusion)) in parts.zip(conclusions).enumerate() {
            evidence.notes = notes.remove(&index).unwrap_or_default();
            if let Some(Planned { resolved, shot, .. }) = self.last.get(&index) {
                evidence.probe = Some(resolved.told());
                evidence.repeat = self.world.repeat(&resolved.from, shot);
            }
            let Conclusion { verdict, reason, settled_ms } = conclusion;
            outline.counts.add(verdict);
            finish(self.shared, self.cells[index], (verdict, reason, settled_ms), history.into_attempts(), evidence);
        }
        outline
    }

    fn settled_ms(&self) -> Option<u64> {
        let each = self.histories.iter().map(History::settled_ms);
        each.collect::<Option<Vec<u64>>>()?.into_iter().max()
    }

    fn at_ms(&self, at: Instant) -> i64 {
        let signed = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        if at >= self.zero { signed(at - self.zero) } else { -signed(self.zero - at) }
    }
}

fn controlled(controls: &Controls<'_>, rule: &RuleName, resolved: &Resolved, evidence: &mut Evidence) -> Meaning {
    match controls.find(rule, resolved) {
        Ok(found) => {
            evidence.vantage_control = Some(found.vantage.to_string());
            evidence.listener_control = found.listener.map(|listener| listener.to_string());
            Meaning::Judged(Judged::Match)
        }
        Err(why) => Meaning::Uncontrolled(why),
    }
}
