//! Starts containers and processes in them; signals them and waits for them.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;

use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};
use tokio::io::unix::AsyncFd;
use tokio::process::Command;
use tokio::sync::{Semaphore, watch};

use super::channel::{self, Reports};
use super::job::{Job, Report};
use crate::readiness::register;

/// The hidden subcommand that [`crate::container_main`] is reached by.
pub const CONTAINER_COMMAND: &str = "__container";

/// Start-up programs at work at a time: more would only take turns, and take memory meanwhile.
const AT_ONCE: usize = 8;

/// Why a process could not be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpawnError {
    /// The start-up program said so.
    #[error("{message}")]
    Refused { message: String, code: i32 },
    /// The start-up program could not be run.
    #[error("cannot run the container start-up program {program}: {source}")]
    Helper {
        program: String,
        #[source]
        source: io::Error,
    },
}

/// Standard streams for a process; not used where it gets a terminal.
pub(crate) struct Streams {
    pub stdin: OwnedFd,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exit {
    /// Exit code, or 128 + signal as container runtimes count.
    pub code: i32,
    /// The signal, where one ended it.
    pub signal: Option<i32>,
}

/// A started process. Killed when the last holder lets go of it, so that nothing outlives its pod.
pub(crate) struct Process {
    pidfd: OwnedFd,
    exit: watch::Receiver<Option<Exit>>,
    /// Whether letting go kills: containers yes, processes of `exec` no (as on real nodes).
    owned: bool,
}

/// Starts processes by way of the start-up program.
#[derive(Clone)]
pub(crate) struct Spawner {
    program: PathBuf,
    slots: Arc<Semaphore>,
}

impl Spawner {
    /// `program` is run with [`CONTAINER_COMMAND`] as its argument.
    ///
    /// Makes this process the one that orphans of its descendants come to: containers are such orphans.
    pub(crate) fn new(program: PathBuf) -> io::Result<Self> {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        Ok(Self { program, slots: Arc::new(Semaphore::new(AT_ONCE)) })
    }

    /// Starts a process; the second value is its terminal, where it asked for one.
    ///
    /// The work is done in a task of its own: a caller that loses interest half-way leaves no process behind.
    pub(crate) async fn spawn(
        &self,
        job: Job,
        namespace: OwnedFd,
        streams: Option<Streams>,
    ) -> Result<(Process, Option<OwnedFd>), SpawnError> {
        let this = self.clone();
        let task = tokio::spawn(async move { this.start(job, namespace, streams).await });
        task.await.map_err(|error| self.helper(io::Error::other(error)))?
    }

    fn helper(&self, source: io::Error) -> SpawnError {
        SpawnError::Helper { program: self.program.display().to_string(), source }
    }

    async fn start(
        self,
        job: Job,
        namespace: OwnedFd,
        streams: Option<Streams>,
    ) -> Result<(Process, Option<OwnedFd>), SpawnError> {
        let helper = |error: io::Error| self.helper(error);
        let _slot = self.slots.acquire().await.map_err(|error| helper(io::Error::other(error)))?;
        let file = memory_file(&job).map_err(helper)?;
        let (ours, theirs) = channel::pair().map_err(helper)?;
        let mut descriptors: Vec<BorrowedFd<'_>> = vec![file.as_fd(), namespace.as_fd()];
        if let Some(streams) = &streams {
            descriptors.extend([streams.stdin.as_fd(), streams.stdout.as_fd(), streams.stderr.as_fd()]);
        }
        channel::send(&ours, b"job", &descriptors).map_err(helper)?;
        drop(descriptors);
        let mut child = Command::new(&self.program)
            .arg(CONTAINER_COMMAND)
            .env_clear()
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(helper)?;
        // The command is gone by now and with it our copies: an end of file means that the other side ended.
        drop((file, namespace, streams));
        let mut reports = Reports::new(ours).map_err(helper)?;
        let mut terminal = None;
        loop {
            match reports.next().await.map_err(helper)? {
                Some((Report::Terminal, mut descriptors)) => terminal = descriptors.pop(),
                Some((Report::Started { pid }, mut descriptors)) => {
                    let pidfd = descriptors.pop().ok_or_else(|| helper(io::Error::other("no pidfd")))?;
                    tracing::trace!(pid, "process started");
                    let owned = matches!(job, Job::Create(_));
                    return Ok((Process::new(pidfd, owned, child).map_err(helper)?, terminal));
                }
                Some((Report::Failed { message, code }, _)) => {
                    let _ = child.wait().await;
                    return Err(SpawnError::Refused { message, code });
                }
                None => {
                    let status = child.wait().await.map_err(helper)?;
                    return Err(helper(io::Error::other(format!("it ended with {status} and no report"))));
                }
            }
        }
    }
}

fn memory_file(job: &Job) -> io::Result<OwnedFd> {
    let descriptor = rustix::fs::memfd_create("job", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut file = std::fs::File::from(descriptor);
    file.write_all(&serde_json::to_vec(job)?)?;
    Ok(file.into())
}

impl Process {
    fn new(pidfd: OwnedFd, owned: bool, helper: tokio::process::Child) -> io::Result<Self> {
        let (sender, exit) = watch::channel(None);
        let watched = register(pidfd.try_clone()?)?;
        tokio::spawn(async move {
            let exit = reap(watched, helper).await.unwrap_or_else(|error| {
                tracing::warn!(%error, "the exit status of a process is lost");
                Exit { code: 137, signal: None }
            });
            sender.send_replace(Some(exit));
        });
        Ok(Self { pidfd, exit, owned })
    }

    /// A descriptor that stands for the process, to enter its namespaces by.
    pub(crate) fn namespaces(&self) -> io::Result<OwnedFd> {
        self.pidfd.try_clone()
    }

    /// Sends a signal; one that has ended already gets none.
    pub(crate) fn signal(&self, signal: Signal) {
        let _ = pidfd_send_signal(&self.pidfd, signal);
    }

    /// Whether it has ended.
    pub(crate) fn exit(&self) -> Option<Exit> {
        *self.exit.borrow()
    }

    /// Waits for its end.
    pub(crate) async fn exited(&self) -> Exit {
        let mut exit = self.exit.clone();
        match exit.wait_for(Option::is_some).await.map(|exit| *exit) {
            Ok(Some(exit)) => exit,
            // The reaping task ended without a word: only when the runtime shuts down.
            _ => Exit { code: 137, signal: None },
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.owned && self.exit().is_none() {
            self.signal(Signal::KILL);
        }
    }
}

/// Waits for the end. The process becomes our child when the start-up program, its parent, is gone.
async fn reap(pidfd: AsyncFd<OwnedFd>, mut helper: tokio::process::Child) -> io::Result<Exit> {
    helper.wait().await?;
    let _ = pidfd.readable().await?;
    loop {
        let status = match waitid(WaitId::PidFd(pidfd.get_ref().as_fd()), WaitIdOptions::EXITED) {
            Err(rustix::io::Errno::INTR) => continue,
            result => result?,
        };
        let Some(status) = status else { return Err(io::Error::other("nothing to wait for")) };
        if let Some(code) = status.exit_status() {
            return Ok(Exit { code, signal: None });
        }
        let signal = status.terminating_signal().unwrap_or_default();
        return Ok(Exit { code: 128 + signal, signal: Some(signal) });
    }
}
