//! Events to reporters: each goes to the log and to the terminal as it comes; the other files are made at the end.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender, WeakUnboundedSender};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use udn_model::event::{Event, EventKind};
use udn_reports::folder::Folder;
use udn_reports::jsonl::Writer;

use udn_reports::terminal::{self, Progress, Terminal};
use udn_reports::{files, junit};

use crate::failure::{Failure, printed};
use crate::memory;

/// Reporters at work.
pub(crate) struct Reporting {
    sender: UnboundedSender<Event>,
    worker: JoinHandle<Worker>,
}

/// What writes.
struct Worker {
    /// None where nothing but progress is told.
    log: Option<Writer>,
    terminal: Terminal,
    /// Events before the run's first one, which has to be the log's first line.
    early: Vec<Event>,
    begun: bool,
    failure: Option<Failure>,
    /// When unused memory was given back last.
    tidied: Instant,
}

/// Between two times that unused memory is given back: about a round.
const TIDY: Duration = Duration::from_secs(1);

impl Reporting {
    /// Starts reporters. Where the log or standard output cannot be written to, `cancel` ends the run: its verdicts would be lost.
    #[must_use]
    pub(crate) fn start(log: Writer, terminal: Terminal, cancel: CancellationToken) -> Self {
        Self::work(Some(log), terminal, cancel)
    }

    /// Starts telling progress, and nothing else.
    #[must_use]
    pub(crate) fn progress_only() -> Self {
        let terminal = Terminal::new(Box::new(std::io::sink()), Progress::detect(), terminal::Options::detect());
        Self::work(None, terminal, CancellationToken::new())
    }

    fn work(log: Option<Writer>, terminal: Terminal, cancel: CancellationToken) -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        let worker = Worker { log, terminal, early: Vec::new(), begun: false, failure: None, tidied: Instant::now() };
        Self { sender, worker: tokio::task::spawn_blocking(move || worker.work(receiver, &cancel)) }
    }

    /// Where events go.
    #[must_use]
    pub(crate) fn events(&self) -> Events {
        Events(self.sender.clone())
    }

    /// Waits until all progress is told, and takes it off the screen.
    pub(crate) async fn end(self) {
        let Self { sender, worker } = self;
        drop(sender);
        if let Ok(mut worker) = worker.await {
            // Written to nowhere: cannot fail.
            let _ = worker.terminal.finish(None);
        }
    }

    /// Waits until all events are told, makes the files and prints the totals. Every other sender has to be gone.
    ///
    /// # Errors
    /// A report could not be written.
    pub(crate) async fn finish(self, folder: &Folder, options: junit::Options) -> Result<(), Failure> {
        let Self { sender, worker } = self;
        drop(sender);
        let mut worker = worker
            .await
            .map_err(|error| Failure::setup(anyhow::Error::new(error).context("the reporters ended early")))?;
        let options = files::Options { junit: options, since: None };
        let files = folder.finish(worker.terminal.report(), options).map_err(Failure::setup);
        let totals = printed(worker.terminal.finish(files.is_ok().then(|| folder.path())));
        worker.failure.map_or(Ok(()), Err).and(files).and(totals)
    }
}

impl Worker {
    fn work(mut self, mut events: UnboundedReceiver<Event>, cancel: &CancellationToken) -> Self {
        while let Some(event) = events.blocking_recv() {
            if let Err(failure) = self.tell(event)
                && self.failure.is_none()
            {
                self.failure = Some(failure);
                cancel.cancel();
            }
            if self.tidied.elapsed() >= TIDY {
                memory::give_back();
                self.tidied = Instant::now();
            }
        }
        self
    }

    fn tell(&mut self, event: Event) -> Result<(), Failure> {
        if self.log.is_none() && matches!(event.kind, EventKind::StageFinished { error: Some(_), .. }) {
            // Nothing but progress is told, and the program ends with this error: it would be told twice.
            return Ok(());
        }
        let printed = printed(self.terminal.handle(&event));
        if self.failure.is_none() {
            self.log(event)?;
        }
        printed
    }

    fn log(&mut self, event: Event) -> Result<(), Failure> {
        let Some(log) = &mut self.log else { return Ok(()) };
        if self.begun {
            return log.write(&event).map_err(Failure::setup);
        }
        self.begun = matches!(event.kind, EventKind::RunStarted { .. });
        if !self.begun {
            self.early.push(event);
            return Ok(());
        }
        log.write(&event).map_err(Failure::setup)?;
        std::mem::take(&mut self.early).iter().try_for_each(|early| log.write(early)).map_err(Failure::setup)
    }
}

/// Where events go.
#[derive(Clone)]
pub(crate) struct Events(UnboundedSender<Event>);

impl Events {
    /// For the runner.
    #[must_use]
    pub(crate) fn sender(&self) -> UnboundedSender<Event> {
        self.0.clone()
    }

    /// As long as somebody else holds on to it.
    pub(crate) fn downgrade(&self) -> WeakEvents {
        WeakEvents(self.0.downgrade())
    }

    /// Tells what happened just now.
    pub(crate) fn tell(&self, kind: EventKind) {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // Only when the reporters are gone can this fail, and then nobody is left to be told.
        let _ = self.0.send(Event { at_us: i64::try_from(at.as_micros()).unwrap_or(i64::MAX), kind });
    }

    /// Begins a stage.
    #[must_use]
    pub(crate) fn stage(&self, name: &str) -> Stage {
        self.tell(EventKind::StageStarted { stage: name.into() });
        Stage { events: self.clone(), name: name.into(), begun: Instant::now() }
    }
}

/// See [`Events::downgrade`].
pub(crate) struct WeakEvents(WeakUnboundedSender<Event>);

impl WeakEvents {
    /// Where events go, if anybody still listens.
    pub(crate) fn upgrade(&self) -> Option<Events> {
        self.0.upgrade().map(Events)
    }
}

/// Something that takes a while.
#[derive(Clone)]
pub(crate) struct Stage {
    events: Events,
    name: String,
    begun: Instant,
}

impl Stage {
    /// It got further.
    pub(crate) fn progress(&self, message: impl Into<String>) {
        self.events.tell(EventKind::StageProgress { stage: self.name.clone(), message: message.into() });
    }

    /// It ended.
    pub(crate) fn end(self, error: Option<&Failure>) {
        let duration_ms = milliseconds(self.begun.elapsed());
        let error = error.map(Failure::message);
        self.events.tell(EventKind::StageFinished { stage: self.name, duration_ms, error });
    }
}

/// Whole milliseconds.
#[must_use]
pub(crate) fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Where a message of the program itself goes: standard error.
pub(crate) fn complain(message: &str) {
    use std::io::Write;
    // Standard error that cannot be written to cannot be told of either.
    let _ = writeln!(std::io::stderr(), "error: {message}");
}

/// Says where a run reports, when it is not where it was asked to.
pub(crate) fn note_folder(asked: &Path, taken: &Path) -> Option<String> {
    (asked != taken)
        .then(|| format!("another run is writing to {}: this one writes to {}", asked.display(), taken.display()))
}
