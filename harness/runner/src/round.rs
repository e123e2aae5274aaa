//! One round: every cell of a matrix in flight at once.

mod chunk;
mod order;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::join_all;
use futures::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use udn_model::cell::{Cell, Check, Claim, ObjectRef, Target, VantagePoint};
use udn_model::observation::Outcome;
use udn_model::words::Transport;
use udn_model::world::World as Declared;

use crate::cluster::{AddressBook, FactQuestion, Over, Report, Shot, World};
use crate::judge::{is_late, is_turned_away};
use crate::options::Options;
use crate::ports::Ports;
use crate::resolve::{Last, Resolved, resolve};
use crate::series::{self, Tally};
use crate::twins::Twins;
use crate::window::{CHUNK, OVERLOADED, Room, Window, slowest};
use chunk::Chunk;
use order::in_turns;

/// How much longer than its slowest probe a round waits: a cut stream is attached to again in the meantime.
const GRACE: Duration = Duration::from_secs(15);
/// How long an API server or agent may take to answer a question that is not a probe.
const CHECK_TIMEOUT: Duration = Duration::from_secs(20);
/// A probe that is about to be sent.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    /// Index of the cell.
    pub(crate) cell: usize,
    pub(crate) resolved: Arc<Resolved>,
    pub(crate) shot: Shot,
    /// Whether nobody waits for its answer: there was none the last time either, nor when it was asked for once more.
    pub(crate) doubted: bool,
}

impl Planned {
    /// Whether an answer is waited for before the next chunk and the next round.
    fn is_awaited(&self) -> bool {
        !self.resolved.wanted.is_negative() && !self.doubted
    }
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
    /// Cells of which many probes are judged together.
    series: HashMap<usize, Tally>,
    pub(crate) book: Arc<AddressBook>,
    /// How long answers are waited for before it is told that only silence is.
    patience: Duration,
    /// How long second attempts are waited for.
    second_timeout: Duration,
    /// Whether something is done to the network meanwhile: then who is turned away asks once more, as who is not answered
    /// always does.
    pub(crate) meanwhile: bool,
}

/// A round that is over.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) number: u32,
    pub(crate) started: Instant,
    /// When only silence was still waited for.
    pub(crate) answered: Instant,
    /// How slow the slowest twentieth of the answers was.
    pub(crate) slowest: Duration,
    pub(crate) ended: Instant,
    pub(crate) probes: Vec<(Planned, Report)>,
    /// Outcomes that came too late, and were asked for once more.
    pub(crate) late: Vec<(usize, Outcome)>,
    /// Outcomes of what is not a probe, and of cells that could not be resolved.
    pub(crate) others: Vec<(usize, Outcome)>,
    /// What was known of addresses when it was planned.
    pub(crate) book: Arc<AddressBook>,
}

impl Round {
    /// Makes the shots of these cells from what is known of addresses now.
    pub(crate) fn plan(
        number: u32,
        cells: &[&Cell],
        book: AddressBook,
        declared: &Declared,
        (ports, options): (&Ports, &Options),
        last: &mut Last,
    ) -> Self {
        let (patience, second_timeout) = (options.deny_timeout, options.second_timeout);
        let mut round = Self { number, patience, second_timeout, ..Self::default() };
        let mut twins = Twins::default();
        for (index, cell) in cells.iter().enumerate() {
            match (&cell.check, resolve(cell, &book, declared)) {
                (_, Some(Ok(resolved))) => {
                    let timeout =
                        if resolved.wanted.is_negative() { options.deny_timeout } else { options.open_timeout };
                    let mut planned = planned(index, last.share(index, resolved), ports, timeout);
                    match twins.port(cell, &book, ports) {
                        Ok(port) => planned.shot.source_port = port.or(planned.shot.source_port),
                        Err(why) => {
                            round.unresolved.push((index, why));
                            continue;
                        }
                    }
                    round.probes.push(planned);
                }
                (_, Some(Err(why))) => round.unresolved.push((index, why)),
                (Check::Fact { pod, fact, family }, None) => {
                    round.facts.push((index, FactQuestion { pod: pod.clone(), fact: fact.clone(), family: *family }));
                }
                (Check::Object { object, claim }, None) => round.claims.push((index, object.clone(), claim.clone())),
                (Check::Series { .. }, None) => round.plan_series(index, cell, &book, declared, ports, options),
                (Check::Probe { .. } | Check::Resolve { .. } | Check::Figure { .. }, None) => {}
            }
        }
        round.book = Arc::new(book);
        round
    }

    fn plan_series(
        &mut self,
        index: usize,
        cell: &Cell,
        book: &AddressBook,
        declared: &Declared,
        ports: &Ports,
        options: &Options,
    ) {
        match series::asked(cell, book, declared) {
            Some(Ok((resolved, series))) => {
                let resolved = Arc::new(resolved);
                let shot = |_| of_series(index, resolved.clone(), ports, options.open_timeout);
                self.probes.extend((0..series.at_first()).map(shot));
                self.series.insert(index, Tally::new(series, resolved));
            }
            Some(Err(why)) => self.unresolved.push((index, why)),
            None => {}
        }
    }

    /// Where arrivals will have to be looked at.
    pub(crate) fn witnesses(&self) -> HashSet<Target> {
        self.probes.iter().flat_map(|probe| &probe.resolved.witnesses).map(|lookout| lookout.at.clone()).collect()
    }

    /// Sends everything and waits for every answer. `answered` is told as soon as only silence is waited for.
    pub(crate) async fn run(
        self,
        world: Arc<dyn World>,
        declared: Arc<Declared>,
        window: Arc<Window>,
        ports: Arc<Ports>,
        answered: oneshot::Sender<()>,
    ) -> Finished {
        let Self { number, probes, unresolved, facts, claims, series, book, patience, second_timeout, meanwhile } =
            self;
        let mut volley = Volley { meanwhile, ..Volley::new(probes, series, (patience, second_timeout), ports) };
        let checks = async {
            let (facts, claims) = tokio::join!(ask_facts(&*world, &declared, facts), ask_claims(&*world, claims));
            facts.into_iter().chain(claims).collect::<Vec<_>>()
        };
        // The receiver may have stopped waiting: then nobody needs to be told.
        let tell = || {
            let _ = answered.send(());
        };
        let ((), checked) = tokio::join!(volley.fly(&*world, &window, tell), checks);
        let ended = Instant::now();
        let Volley { started, answered, .. } = volley;
        let mut late = std::mem::take(&mut volley.late);
        let series = std::mem::take(&mut volley.series);
        let mut probes = volley.reported();
        // What a flow's packets took says something of its whole life, not of this round.
        let new = probes.iter().filter(|(planned, _)| planned.shot.over == Over::New);
        let mut times: Vec<Duration> = new.filter_map(|(_, report)| round_trip(&report.outcome)).collect();
        let slowest = slowest(5, &mut times);
        let unresolved = unresolved.into_iter().map(|(cell, why)| (cell, Outcome::Unresolved { why }));
        // What a series was answered late is in none of its counts.
        late.retain(|(cell, _)| !series.contains_key(cell));
        let together = series::conclude(&series, &mut probes, slowest);
        let others = unresolved.chain(checked).chain(together).collect();
        Finished { number, started, answered, slowest, ended, probes, late, others, book }
    }
}

fn round_trip(outcome: &Outcome) -> Option<Duration> {
    match outcome {
        Outcome::Open { rtt_us, .. } => Some(Duration::from_micros(*rtt_us)),
        Outcome::Answered { took_us, .. } => Some(Duration::from_micros(*took_us)),
        _ => None,
    }
}

/// A shot of a cell.
pub(crate) fn planned(cell: usize, resolved: Arc<Resolved>, ports: &Ports, timeout: Duration) -> Planned {
    let source_port = match resolved.transport {
        Transport::Tcp => Some(ports.port()),
        Transport::Udp => Some(ports.datagram_port()),
        Transport::Icmp => Some(ports.echo()),
        Transport::Sctp => None,
    };
    sent_from(source_port, cell, resolved, ports, timeout)
}

/// A connection of a series.
fn of_series(cell: usize, resolved: Arc<Resolved>, ports: &Ports, timeout: Duration) -> Planned {
    sent_from(Some(ports.series_port()), cell, resolved, ports, timeout)
}

fn sent_from(
    source_port: Option<u16>,
    cell: usize,
    resolved: Arc<Resolved>,
    ports: &Ports,
    timeout: Duration,
) -> Planned {
    let shot = Shot {
        nonce: ports.nonce(),
        transport: resolved.transport,
        to: resolved.to,
        port: resolved.port,
        source_port,
        timeout,
        introduces: resolved.introduces(),
        lookup: resolved.lookup.clone(),
        over: resolved.over,
    };
    Planned { cell, resolved, shot, doubted: false }
}

/// All probes of a round on their way.
struct Volley {
    /// Not sent yet, the vantage points taking turns.
    waiting: VecDeque<Planned>,
    /// By nonce.
    sent: HashMap<u64, Planned>,
    reports: HashMap<u64, Report>,
    /// Nonces of second attempts.
    again: HashSet<u64>,
    late: Vec<(usize, Outcome)>,
    /// Cells of which many probes are judged together.
    series: HashMap<usize, Tally>,
    ports: Arc<Ports>,
    /// Which chunk a probe that is to be answered belongs to.
    awaited: HashMap<u64, usize>,
    /// The room that each chunk takes up, and how many of its answers are still to come.
    chunks: Vec<Chunk>,
    started: Instant,
    answered: Instant,
    patience: Duration,
    second_timeout: Duration,
    meanwhile: bool,
    /// Until when answers are waited for before the next round may begin.
    patient: Instant,
    deadline: Instant,
}

impl Volley {
    fn new(
        probes: Vec<Planned>,
        series: HashMap<usize, Tally>,
        (patience, second_timeout): (Duration, Duration),
        ports: Arc<Ports>,
    ) -> Self {
        let now = Instant::now();
        Self {
            waiting: in_turns(probes),
            sent: HashMap::new(),
            reports: HashMap::new(),
            again: HashSet::new(),
            late: Vec::new(),
            series,
            ports,
            awaited: HashMap::new(),
            chunks: Vec::new(),
            started: now,
            answered: now,
            patience,
            second_timeout,
            meanwhile: false,
            patient: now + patience,
            deadline: now + GRACE,
        }
    }

    /// Sends chunk by chunk as the window allows, and collects a report for each probe.
    async fn fly(&mut self, world: &dyn World, window: &Window, tell: impl FnOnce()) {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let mut flying = FuturesUnordered::new();
        let mut tell = Some(tell);
        let mut room = Box::pin(window.take(self.waiting.len()));
        loop {
            if self.waiting.is_empty()
                && (self.awaited.is_empty() || Instant::now() >= self.patient)
                && let Some(tell) = tell.take()
            {
                self.answered = Instant::now();
                tell();
            }
            if self.waiting.is_empty() && self.reports.len() == self.sent.len() {
                break;
            }
            tokio::select! {
                permit = &mut room, if !self.waiting.is_empty() => {
                    for (from, shots) in self.send_chunk(permit) {
                        let sender = sender.clone();
                        flying.push(async move { world.probe(&from, shots, sender).await });
                    }
                    room = Box::pin(window.take(self.waiting.len()));
                }
                Some(report) = receiver.recv() => self.take(report, window),
                Some(()) = flying.next(), if !flying.is_empty() => {}
                () = sleep_until(self.patient), if self.waiting.is_empty() && tell.is_some() => {}
                () = sleep_until(self.deadline), if self.waiting.is_empty() => break,
            }
        }
        if let Some(tell) = tell.take() {
            self.answered = Instant::now();
            tell();
        }
    }

    fn send_chunk(&mut self, permit: Option<Room>) -> HashMap<VantagePoint, Vec<Shot>> {
        if self.chunks.is_empty() {
            self.started = Instant::now();
        }
        self.patient = Instant::now() + self.patience;
        let chunk: Vec<Planned> = self.waiting.drain(..self.waiting.len().min(CHUNK)).collect();
        let number = self.chunks.len();
        let mut batches: HashMap<VantagePoint, Vec<Shot>> = HashMap::new();
        let mut answers = 0;
        for probe in &chunk {
            batches.entry(probe.resolved.from.clone()).or_default().push(probe.shot.clone());
            if probe.is_awaited() {
                self.awaited.insert(probe.shot.nonce, number);
                answers += 1;
            }
            self.deadline = self.deadline.max(Instant::now() + probe.shot.timeout + GRACE);
        }
        tracing::debug!(number, probes = chunk.len(), answers, left = self.waiting.len(), "chunk");
        self.chunks.push(Chunk::new(permit, answers));
        self.sent.extend(chunk.into_iter().map(|probe| (probe.shot.nonce, probe)));
        batches
    }

    fn take(&mut self, report: Report, window: &Window) {
        if let Some(took) = round_trip(&report.outcome).filter(|took| *took >= OVERLOADED)
            && let Some(probe) = self.sent.get(&report.nonce)
        {
            let (from, to, port) = (&probe.resolved.from, probe.resolved.to, probe.resolved.port);
            tracing::debug!(%from, %to, port, transport = %probe.resolved.transport, ?took, "slow answer");
        }
        if let Some(number) = self.awaited.remove(&report.nonce)
            && let Some(chunk) = self.chunks.get_mut(number)
            && let Some(took) = chunk.take(report.outcome == Outcome::TimedOut)
        {
            window.learn(chunk.sent, took);
        }
        if self.once_more(&report) {
            self.late.extend(self.sent.remove(&report.nonce).map(|probe| (probe.cell, report.outcome)));
        } else {
            self.go_on(&report);
            self.reports.insert(report.nonce, report);
        }
    }

    /// Makes the rest of a cell's connections where those that were made leave a question open.
    fn go_on(&mut self, report: &Report) {
        let Some(probe) = self.sent.get(&report.nonce) else { return };
        let Some(tally) = self.series.get_mut(&probe.cell) else { return };
        if let Some((more, resolved)) = tally.take(&report.outcome) {
            let shot = |_| of_series(probe.cell, resolved.clone(), &self.ports, probe.shot.timeout);
            self.waiting.extend((0..more).map(shot));
        }
    }

    /// Whether a late answer is asked for once more; then that is on its way.
    fn once_more(&mut self, report: &Report) -> bool {
        let Some(probe) = self.sent.get(&report.nonce) else { return false };
        let wanted = &probe.resolved.wanted;
        let again = is_late(wanted, &report.outcome) || self.meanwhile && is_turned_away(wanted, &report.outcome);
        if self.again.contains(&report.nonce) || probe.doubted || !again {
            return false;
        }
        let second = planned(probe.cell, probe.resolved.clone(), &self.ports, self.second_timeout);
        self.again.insert(second.shot.nonce);
        self.waiting.push_back(second);
        true
    }

    /// Every probe with its report; one that has none was lost on the way to or from the agent.
    fn reported(mut self) -> Vec<(Planned, Report)> {
        let report = |probe: Planned| {
            let nonce = probe.shot.nonce;
            let lost = || {
                let why = format!("no result from {} within {} s", probe.resolved.from, GRACE.as_secs());
                Report { nonce, outcome: Outcome::ControlLost { why }, local: None, flow: None }
            };
            let report = self.reports.remove(&nonce).unwrap_or_else(lost);
            (probe, report)
        };
        self.sent.into_values().map(report).collect()
    }
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
    }))
    .await
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
