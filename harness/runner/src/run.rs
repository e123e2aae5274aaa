//! The whole run: worlds side by side, scenarios in them, totals, exit code.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::mpsc::{self, UnboundedSender};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use udn_model::event::{Event, EventKind, FORMAT, TimeBudget};
use udn_model::feature::Feature;
use udn_model::plan::{Plan, PlannedScenario};
use udn_model::scenario::{Action, WorldSpec};
use udn_model::verdict::{Counts, ExitCode, Verdict};

use crate::budget::{Budget, millis};
use crate::cluster::{Cluster, Trouble, World};
use crate::emit::Emitter;
use crate::options::{Keep, Options};
use crate::phase::Shared;
use crate::ports::Ports;
use crate::scenario;
use crate::turns::Turns;
use crate::window::Window;

/// What a report says of the run as a whole.
#[derive(Clone, Debug, Default)]
pub struct Header {
    /// The run's id.
    pub run: String,
    /// `lab` or `kube`.
    pub target: String,
    /// The kubeconfig context or the lab's name.
    pub context: String,
    /// Program, Kubernetes, OVN, Open vSwitch …
    pub versions: BTreeMap<String, String>,
    /// The filters as typed.
    pub filters: Vec<String>,
    /// How long it took to make the target, before [`run`] was called.
    pub setup: Duration,
}

/// What a run comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Verdicts of all cells.
    pub counts: Counts,
    /// What the program exits with.
    pub exit: ExitCode,
    /// Where the time went.
    pub time: TimeBudget,
}

/// Why everything stops before its end.
#[derive(Clone, Debug)]
pub(crate) struct Stop {
    token: CancellationToken,
    why: Arc<OnceLock<String>>,
}

impl Stop {
    fn new() -> Self {
        Self { token: CancellationToken::new(), why: Arc::default() }
    }

    fn set(&self, why: String) {
        // The first reason is the one that is told.
        let _ = self.why.set(why);
        self.token.cancel();
    }

    pub(crate) fn is_set(&self) -> bool {
        self.token.is_cancelled()
    }

    pub(crate) async fn wait(&self) {
        self.token.cancelled().await;
    }

    pub(crate) fn why(&self) -> String {
        self.why.get().cloned().unwrap_or_else(|| "stopped".into())
    }
}

/// Executes a plan. The first event is [`EventKind::RunStarted`], the last [`EventKind::RunFinished`]; every planned cell
/// gets exactly one [`EventKind::CellFinished`], whatever happens.
///
/// `cancel` interrupts: what is not judged yet becomes an error, what was made is still removed.
pub async fn run(
    header: Header,
    plan: Plan,
    cluster: Arc<dyn Cluster>,
    options: Options,
    cancel: CancellationToken,
    events: UnboundedSender<Event>,
) -> Summary {
    let begun = Instant::now();
    let setup = header.setup;
    let run_id = header.run.clone();
    let options = Options { baseline: options.baseline.within(&header.target, &header.versions), ..options };
    let emitter = Emitter::new(events);
    emitter.emit(EventKind::RunStarted {
        format: FORMAT,
        run: header.run,
        target: header.target,
        context: header.context,
        versions: header.versions,
        filters: header.filters,
        cells: plan.cells().count(),
        scenarios: plan.scenarios.len(),
    });
    let stop = Stop::new();
    let deadline = options.deadline.map(|deadline| begun + deadline);
    let watchdog = watchdog(stop.clone(), cancel.clone(), deadline, options.deadline, options.lost.clone());
    let watchdog = tokio::spawn(watchdog);
    let budget = Arc::new(Budget::default());
    budget.setup(setup);
    let shared = Shared {
        emitter: emitter.clone(),
        // Two runs at once may look at the same node: their nonces must differ even if their seeds do not.
        ports: Arc::new(Ports::new(options.seed ^ fold(&run_id))),
        budget: budget.clone(),
        window: Arc::new(Window::new(options.probes_in_flight)),
        turns: Turns::new(options.probes_at_once),
        stop: stop.clone(),
        options,
    };
    let outcomes = all_worlds(&shared, plan, cluster.clone()).await;
    watchdog.abort();
    if outcomes.iter().all(|outcome| !outcome.kept) {
        let begun = Instant::now();
        if let Err(trouble) = cluster.finish().await {
            emitter.warn(format!("what worlds share could not be removed: {trouble}"));
        }
        budget.cleanup(begun.elapsed());
    }

    let mut counts = Counts::default();
    outcomes.iter().for_each(|outcome| scenario::add(&mut counts, outcome.counts));
    let tried: Vec<&WorldOutcome> = outcomes.iter().filter(|outcome| outcome.tried).collect();
    let exit = if cancel.is_cancelled() {
        ExitCode::Interrupted
    } else if !tried.is_empty() && tried.iter().all(|outcome| !outcome.made) && !stop.is_set() {
        ExitCode::SetupFailed
    } else {
        unfinished_is_never_good(counts.exit_code(shared.options.allow), stop.is_set())
    };
    let time = budget.total();
    emitter.emit(EventKind::RunFinished { counts, duration_ms: millis(setup + begun.elapsed()), time, exit });
    Summary { counts, exit, time }
}

/// FNV-1a.
fn fold(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

fn unfinished_is_never_good(exit: ExitCode, stopped: bool) -> ExitCode {
    match exit {
        ExitCode::Passed | ExitCode::NothingSelected if stopped => ExitCode::Errors,
        exit => exit,
    }
}

/// Sets the stop when the user interrupts, the run's deadline passes or the target is lost.
async fn watchdog(
    stop: Stop,
    cancel: CancellationToken,
    at: Option<Instant>,
    deadline: Option<Duration>,
    lost: Option<watch::Receiver<Option<String>>>,
) {
    let overdue = async {
        match at {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    };
    let lost = async {
        let told = match lost {
            Some(mut lost) => lost.wait_for(Option::is_some).await.ok().and_then(|why| why.clone()),
            None => None,
        };
        match told {
            Some(why) => why,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        why = lost => stop.set(why),
        () = cancel.cancelled() => stop.set("interrupted".into()),
        () = overdue => {
            let seconds = deadline.unwrap_or_default().as_secs_f64();
            stop.set(format!("the run's deadline of {seconds} s passed"));
        }
    }
}

/// A world and the scenarios that run in it.
struct Group {
    spec: WorldSpec,
    exclusive: bool,
    scenarios: Vec<PlannedScenario>,
}

impl Group {
    fn tried_cells(&self) -> usize {
        let phases = self.scenarios.iter().flat_map(|scenario| &scenario.phases);
        phases.flat_map(|phase| &phase.cells).filter(|cell| cell.skip.is_none()).count()
    }

    /// Whether something is done to the cluster itself, which scenarios that run meanwhile could feel; or measured that they
    /// could disturb: how long connections are out while a VM moves.
    fn disturbs(&self) -> bool {
        let phases = self.scenarios.iter().flat_map(|scenario| &scenario.phases);
        let alone = |action: &Action| matches!(action, Action::RestartNodeComponent { .. }) || action.migrates();
        phases.flat_map(|phase| &phase.actions).any(alone)
    }

    /// How many worlds without VMs it takes the room of: guests start, which takes processors for longer than pods do.
    fn room(&self) -> u32 {
        if self.spec.requires.contains(&Feature::VirtualMachines) { 2 } else { 1 }
    }

    /// How many phases follow each other: what decides how long the group takes.
    fn length(&self) -> usize {
        self.scenarios.iter().map(|scenario| scenario.phases.len()).max().unwrap_or_default()
    }
}

/// Shared worlds once each, exclusive ones per scenario; the longest first, so that the run does not end waiting for it.
/// What disturbs others comes last.
fn groups(plan: Plan) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for planned in plan.scenarios {
        let spec = planned.scenario.world.clone();
        let exclusive = planned.scenario.exclusive;
        match groups.iter_mut().find(|group| !exclusive && !group.exclusive && group.spec.name == spec.name) {
            Some(group) => group.scenarios.push(planned),
            None => groups.push(Group { spec, exclusive, scenarios: vec![planned] }),
        }
    }
    groups.sort_by_key(|group| (group.disturbs(), std::cmp::Reverse((group.length(), group.tried_cells()))));
    groups
}

/// What became of a world.
#[derive(Debug)]
struct WorldOutcome {
    counts: Counts,
    /// Whether it had a cell to try.
    tried: bool,
    /// Whether it could be made.
    made: bool,
    /// Whether it stays in the cluster.
    kept: bool,
}

async fn all_worlds(shared: &Shared, plan: Plan, cluster: Arc<dyn Cluster>) -> Vec<WorldOutcome> {
    let most = u32::try_from(shared.options.worlds_alive.max(1)).unwrap_or(u32::MAX);
    let alive = Arc::new(Semaphore::new(most as usize));
    let making = Arc::new(Semaphore::new(shared.options.world_concurrency.max(1)));
    let mut worlds = JoinSet::new();
    let mut outcomes = Vec::new();
    for (index, group) in groups(plan).into_iter().enumerate() {
        if group.disturbs() {
            // By itself: neither must others feel what is done, nor be blamed for it.
            while let Some(outcome) = worlds.join_next().await {
                outcomes.extend(outcome.ok());
            }
        }
        // Here, so that the order is kept; what is not tried needs no room.
        let room = group.room().min(most);
        let permit = if group.tried_cells() > 0 { permit(&alive, room, &shared.stop).await } else { None };
        let job = WorldJob {
            shared: shared.clone(),
            cluster: cluster.clone(),
            instance: instance_name(index),
            making: making.clone(),
        };
        worlds.spawn(job.run(group, permit));
    }
    outcomes.extend(worlds.join_all().await);
    outcomes
}

/// A permit; `None` once everything is to stop.
async fn permit(semaphore: &Arc<Semaphore>, room: u32, stop: &Stop) -> Option<OwnedSemaphorePermit> {
    tokio::select! {
        permit = semaphore.clone().acquire_many_owned(room) => permit.ok(),
        () = stop.wait() => None,
    }
}

/// `a`, `b` … `z`, `ba` …: fit for names, and short, since names of networks are limited.
fn instance_name(mut index: usize) -> String {
    let mut name = Vec::new();
    loop {
        name.push(b'a' + u8::try_from(index % 26).unwrap_or_default());
        index /= 26;
        if index == 0 {
            break;
        }
    }
    name.reverse();
    name.into_iter().map(char::from).collect()
}

struct WorldJob {
    shared: Shared,
    cluster: Arc<dyn Cluster>,
    instance: String,
    making: Arc<Semaphore>,
}

impl WorldJob {
    async fn run(self, group: Group, alive: Option<OwnedSemaphorePermit>) -> WorldOutcome {
        let tried = group.tried_cells() > 0;
        if !tried {
            return WorldOutcome {
                counts: self.scenarios(Err("nothing to try"), &group).await,
                tried,
                made: false,
                kept: false,
            };
        }
        let stage = format!("world {} ({})", group.spec.name, self.instance);
        let made = self.provision(&group.spec, &stage).await;
        let counts = match &made {
            Ok(world) => self.scenarios(Ok(world), &group).await,
            Err(trouble) => self.scenarios(Err(&trouble.to_string()), &group).await,
        };
        // The next world may be made while this one is removed.
        drop(alive);
        let was_made = made.is_ok();
        drop(made);
        let kept = self.remove(&stage, counts).await;
        WorldOutcome { counts, tried, made: was_made, kept }
    }

    async fn provision(&self, spec: &WorldSpec, stage: &str) -> Result<Arc<dyn World>, Trouble> {
        let permit = permit(&self.making, 1, &self.shared.stop).await;
        if self.shared.stop.is_set() {
            return Err(Trouble(self.shared.stop.why()));
        }
        let begun = Instant::now();
        let emitter = &self.shared.emitter;
        emitter.emit(EventKind::StageStarted { stage: stage.into() });
        let (progress, mut lines) = mpsc::unbounded_channel();
        let forward = async {
            while let Some(message) = lines.recv().await {
                emitter.emit(EventKind::StageProgress { stage: stage.into(), message });
            }
        };
        let make = async {
            tokio::select! {
                made = self.cluster.provision(spec, &self.instance, progress) => made,
                () = self.shared.stop.wait() => Err(Trouble(self.shared.stop.why())),
            }
        };
        let (made, ()) = tokio::join!(make, forward);
        drop(permit);
        self.shared.budget.setup(begun.elapsed());
        let error = made.as_ref().err().map(ToString::to_string);
        emitter.emit(EventKind::StageFinished { stage: stage.into(), duration_ms: millis(begun.elapsed()), error });
        made
    }

    /// All scenarios of the world, side by side.
    async fn scenarios(&self, world: Result<&Arc<dyn World>, &str>, group: &Group) -> Counts {
        let each = join_all(group.scenarios.iter().map(|planned| scenario::run(&self.shared, world, planned))).await;
        let mut counts = Counts::default();
        each.into_iter().for_each(|one| scenario::add(&mut counts, one));
        counts
    }

    /// Removes the world unless it is to be kept. Returns whether it is.
    async fn remove(&self, stage: &str, counts: Counts) -> bool {
        let bad = [Verdict::Fail, Verdict::Unstable, Verdict::Error].into_iter().any(|verdict| counts.of(verdict) > 0);
        let keep = match self.shared.options.keep {
            Keep::Never => false,
            Keep::OnFailure => bad,
            Keep::Always => true,
        };
        if keep {
            self.shared.emitter.warn(format!("{stage} is kept; `udn-conformance cleanup` removes it"));
            return true;
        }
        let begun = Instant::now();
        let result = self.cluster.remove(&self.instance).await;
        self.shared.budget.cleanup(begun.elapsed());
        if let Err(trouble) = result {
            self.shared.emitter.warn(format!("{stage} could not be removed: {trouble}"));
        }
        false
    }
}

#[cfg(test)]
#[path = "run_tests/mod.rs"]
mod whole_run;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn instance_names_are_unique_letters() {
        let names: HashSet<String> = (0..1000).map(instance_name).collect();
        assert_eq!(names.len(), 1000);
        assert_eq!((instance_name(0), instance_name(25), instance_name(26)), ("a".into(), "z".into(), "ba".into()));
        assert!(names.iter().all(|name| name.bytes().all(|byte| byte.is_ascii_lowercase())));
    }

    #[test]
    fn an_unfinished_run_is_never_good() {
        assert_eq!(unfinished_is_never_good(ExitCode::Passed, true), ExitCode::Errors);
        assert_eq!(unfinished_is_never_good(ExitCode::Passed, false), ExitCode::Passed);
        assert_eq!(unfinished_is_never_good(ExitCode::Failed, true), ExitCode::Failed);
    }
}
