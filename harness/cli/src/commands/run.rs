//! `run`: target, plan, run, reports.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio_util::sync::CancellationToken;
use udn_model::baseline::Baseline;
use udn_model::cell::Feature;
use udn_model::event::{Event, EventKind, FORMAT, TimeBudget};
use udn_model::plan::{Environment, Plan, PlannedCell};
use udn_model::scenario::Suite;
use udn_model::verdict::{Allow, Counts, ExitCode};
use udn_reports::folder::Folder;
use udn_reports::jsonl::Writer;
use udn_reports::terminal::{self, Progress, Terminal};
use udn_reports::{Error as ReportError, junit};
use udn_runner::Header;

use super::repeat;
use crate::args::{self, Keep, TargetKind};
use crate::failure::Failure;
use crate::reporting::{Events, Reporting, milliseconds, note_folder};
use crate::sentry::Sentry;
use crate::target::{self, Connected, LabInUse, Wishes};
use crate::{interrupt, place, select};

/// The shortest deny timeout: a lost SYN is sent again after one second.
const SHORTEST_DENY: Duration = Duration::from_secs(2);

/// Runs what is selected, as often as the user wants it.
///
/// # Errors
/// The command line, a fixture, the target or the reports.
pub(crate) async fn run(args: &args::Run) -> Result<ExitCode, Failure> {
    if args.repeat > 1 { repeat::repeat(args).await } else { once(args).await }
}

/// Runs what is selected.
///
/// # Errors
/// As [`run`].
pub(super) async fn once(args: &args::Run) -> Result<ExitCode, Failure> {
    target::check(&args.target)?;
    if args.deny_timeout < SHORTEST_DENY {
        return Err(Failure::usage(anyhow!("--deny-timeout must be at least 2s: a lost SYN is sent again after 1s")));
    }
    let suites = select::suites(args.selection.fixtures.as_deref())?;
    let baseline = select::baseline(args.baseline.as_deref(), args.selection.fixtures.as_deref(), &suites)?;
    // Wrong filters are told before a lab is started for them.
    let size = Size::of(&select::plan(&suites, &args.selection, &Environment::complete())?);
    let (folder, log, note) = folder(args.out.as_deref())?;
    let interrupted = interrupt::watch()
        .map_err(|error| Failure::setup(anyhow::Error::new(error).context("cannot watch for Ctrl-C")))?;
    // The run may also be cut short because its reports cannot be written.
    let cancel = interrupted.child_token();
    let terminal = Terminal::new(Box::new(std::io::stdout()), Progress::detect(), terminal::Options::detect());
    let reporting = Reporting::start(log, terminal, cancel.clone());
    let events = reporting.events();
    if let Some(message) = note {
        events.tell(EventKind::Warning { message });
    }
    say_when_interrupted(&interrupted, &events);
    let begun = Instant::now();
    let run =
        Run { args, suites, begun, id: udn_cluster::new_run_id(), events, baseline, folder: folder.path().to_owned() };
    let exit = run.through(size, cancel).await;
    drop(run);
    let allow = allow(args);
    reporting.finish(&folder, junit::Options { cells: args.junit_cells, allow }).await?;
    Ok(exit)
}

/// Tells the user who pressed Ctrl-C that it was heard.
fn say_when_interrupted(cancel: &CancellationToken, events: &Events) {
    // Held weakly: the reporters end when the last holder of the events is gone.
    let (cancel, events) = (cancel.clone(), events.downgrade());
    tokio::spawn(async move {
        cancel.cancelled().await;
        if let Some(events) = events.upgrade() {
            let message = "interrupted: removing what was made; a second Ctrl-C ends at once".into();
            events.tell(EventKind::Warning { message });
        }
    });
}

fn folder(out: Option<&Path>) -> Result<(Folder, Writer, Option<String>), Failure> {
    let failure = |error| match error {
        ReportError::Busy { .. } => Failure::usage(error),
        _ => Failure::setup(error),
    };
    match out {
        Some(out) => Folder::create(out).map(|(folder, log)| (folder, log, None)).map_err(failure),
        None => {
            let asked = place::default_folder();
            let (folder, log) = Folder::create_near(&asked).map_err(failure)?;
            let note = note_folder(&asked, folder.path());
            Ok((folder, log, note))
        }
    }
}

const fn allow(args: &args::Run) -> Allow {
    Allow { unstable: args.allow_unstable, fixed: args.allow_fixed }
}

/// How much is selected.
#[derive(Clone, Copy)]
struct Size {
    cells: usize,
    scenarios: usize,
}

impl Size {
    fn of(plan: &Plan) -> Self {
        Self { cells: plan.cells().count(), scenarios: plan.scenarios.len() }
    }
}

/// A run's parts, from its beginning.
struct Run<'a> {
    args: &'a args::Run,
    suites: Vec<Suite>,
    begun: Instant,
    id: String,
    events: Events,
    baseline: Baseline,
    /// Of the reports.
    folder: PathBuf,
}

impl Run<'_> {
    /// Sets the target up and judges; whatever happens, the log gets a first and a last event.
    async fn through(&self, size: Size, cancel: CancellationToken) -> ExitCode {
        let wishes = Wishes {
            run: self.id.clone(),
            image: self.args.image.clone(),
            guest_image: self.args.guest_image.clone(),
            without_host_network: self.args.no_host_network,
            ready_deadline: self.args.ready_deadline,
            fresh_lab: self.args.fresh_lab,
            may_stay: self.args.keep != Keep::Never,
        };
        let connected = tokio::select! {
            connected = target::connect(&self.args.target, wishes, &self.events) => connected,
            () = cancel.cancelled() => return self.stillborn(size, ExitCode::Interrupted),
        };
        match connected {
            Ok(connected) => self.judge(connected, size, cancel).await,
            Err(failure) => self.stillborn(size, failure.exit),
        }
    }

    async fn judge(&self, connected: Connected, size: Size, cancel: CancellationToken) -> ExitCode {
        let Connected { kube, target, context, versions, lab } = connected;
        let plan = match select::plan(&self.suites, &self.args.selection, kube.environment()) {
            Ok(plan) => plan,
            Err(failure) => {
                self.events.tell(EventKind::Warning { message: failure.message() });
                return self.stillborn(size, failure.exit);
            }
        };
        if lab.is_some() && wants_machines(&plan) {
            tokio::select! {
                () = target::machines(&self.events) => {}
                () = cancel.cancelled() => {}
            }
        }
        let header = Header {
            run: self.id.clone(),
            target: target.into(),
            context,
            versions: with_ours(versions),
            filters: self.args.selection.typed(),
            setup: self.begun.elapsed(),
        };
        let (sender, receiver) = mpsc::unbounded_channel();
        let forwarder = tokio::spawn(forward(receiver, self.events.clone()));
        let sentry = lab.as_ref().map(|lab| Sentry::post(lab.running().clone()));
        let options = udn_runner::Options { lost: sentry.as_ref().map(Sentry::told), ..self.options() };
        let summary = udn_runner::run(header, plan, Arc::new(kube), options, cancel, sender).await;
        drop(sentry);
        let last = forwarder.await.ok().flatten();
        let mut exit = summary.exit;
        if let Some(lab) = lab {
            exit = self.leave(lab, exit).await;
        }
        if let Some(event) = last {
            self.events.tell(self.ended(event.kind, exit));
        }
        exit
    }

    fn options(&self) -> udn_runner::Options {
        udn_runner::Options {
            settle_rounds: self.args.settle_rounds,
            settle_deadline: self.args.settle_deadline,
            hold: self.args.hold.unwrap_or_default(),
            deny_timeout: self.args.deny_timeout,
            outage_budget: self.args.outage_budget,
            keep: match self.args.keep {
                Keep::Never => udn_runner::Keep::Never,
                Keep::OnFailure => udn_runner::Keep::OnFailure,
                Keep::Always => udn_runner::Keep::Always,
            },
            seed: self.args.seed,
            deadline: self.args.deadline,
            allow: allow(self.args),
            baseline: self.baseline.clone(),
            ..udn_runner::Options::default()
        }
    }

    /// Looks whether the lab was sound, and ends it if it was started for this run and nothing in it is kept.
    async fn leave(&self, lab: LabInUse, exit: ExitCode) -> ExitCode {
        let problems = lab.problems();
        for problem in &problems {
            let message = format!("the lab is not sound, so this run says nothing about the network: {problem}");
            self.events.tell(EventKind::Warning { message });
        }
        for mended in lab.mended() {
            let message =
                format!("while the lab was up, {mended}; the lab started it again, and cells were judged as ever");
            self.events.tell(EventKind::Warning { message });
        }
        if !problems.is_empty() {
            self.keep_logs(lab.running());
        }
        let kept = match self.args.keep {
            Keep::Never => false,
            Keep::OnFailure => exit != ExitCode::Passed,
            Keep::Always => true,
        };
        match lab {
            LabInUse::Own(lab) if kept => {
                let (name, kubeconfig) = (lab.name(), lab.kubeconfig());
                let message = format!(
                    "kept: the lab is up; KUBECONFIG={} reaches it, `udn-conformance lab down --name {name}` ends it",
                    kubeconfig.display()
                );
                self.events.tell(EventKind::Warning { message });
            }
            LabInUse::Own(lab) => {
                let stopped = tokio::task::spawn_blocking(move || lab.stop()).await;
                if let Ok(Err(error)) = stopped {
                    self.events.tell(EventKind::Warning { message: format!("the lab did not end well: {error}") });
                }
            }
            LabInUse::Found(_) => {}
        }
        if !problems.is_empty() && exit == ExitCode::Passed { ExitCode::Errors } else { exit }
    }

    /// Copies the logs of what is not sound beside the reports: the lab takes its own with it.
    fn keep_logs(&self, lab: &udn_lab::Running) {
        let Ok(status) = lab.status() else { return };
        for log in status.logs {
            let message = match lab.copy_out(&log, &self.folder) {
                Ok(copy) => format!("kept as evidence: {}", copy.display()),
                Err(error) => format!("{} of the lab cannot be kept: {error}", log.display()),
            };
            self.events.tell(EventKind::Warning { message });
        }
    }

    /// The last event, with what the lab made of the exit code, and the time from the first to the last thing that the
    /// user waited for: the lab's start and end included.
    fn ended(&self, kind: EventKind, exit: ExitCode) -> EventKind {
        match kind {
            EventKind::RunFinished { counts, time, .. } => {
                EventKind::RunFinished { counts, duration_ms: milliseconds(self.begun.elapsed()), time, exit }
            }
            other => other,
        }
    }

    /// A run that ended before anything could be judged still has a first and a last event, and so its reports.
    fn stillborn(&self, size: Size, exit: ExitCode) -> ExitCode {
        let duration = milliseconds(self.begun.elapsed());
        self.events.tell(EventKind::RunStarted {
            format: FORMAT,
            run: self.id.clone(),
            target: match self.args.target.target {
                TargetKind::Lab => "lab".into(),
                TargetKind::Kube => "kube".into(),
            },
            context: self.args.target.context.clone().unwrap_or_default(),
            versions: with_ours(BTreeMap::new()),
            filters: self.args.selection.typed(),
            cells: size.cells,
            scenarios: size.scenarios,
        });
        let time = TimeBudget { setup_ms: duration, ..TimeBudget::default() };
        self.events.tell(EventKind::RunFinished { counts: Counts::default(), duration_ms: duration, time, exit });
        exit
    }
}

/// Whether virtual machines will run.
fn wants_machines(plan: &Plan) -> bool {
    let tried = |planned: &&PlannedCell| planned.skip.is_none();
    let runs = plan.scenarios.iter().filter(|it| it.scenario.world.requires.contains(&Feature::VirtualMachines));
    runs.flat_map(|it| &it.phases).flat_map(|phase| &phase.cells).any(|cell| tried(&cell))
}

/// The versions of the target and of this program.
fn with_ours(mut versions: BTreeMap<String, String>) -> BTreeMap<String, String> {
    versions.insert("udn-conformance".into(), env!("CARGO_PKG_VERSION").into());
    versions
}

/// Passes events on and holds the last one back: what the lab says of itself belongs before it.
async fn forward(mut from: UnboundedReceiver<Event>, to: Events) -> Option<Event> {
    let (to, mut last) = (to.sender(), None);
    while let Some(event) = from.recv().await {
        if matches!(event.kind, EventKind::RunFinished { .. }) {
            last = Some(event);
        } else {
            // Without reporters nobody is left to be told.
            let _ = to.send(event);
        }
    }
    last
}
