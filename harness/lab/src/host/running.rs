//! A lab found by its name.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use udn_lab_sys::packages::Versions;
use udn_lab_sys::sandbox::enter::{Entry, first_process};

use super::state::{Folder, Record, start_time};
use crate::control::{self, Status};
use crate::error::Error;

pub(super) const STOP_DEADLINE: Duration = Duration::from_secs(10);

/// A lab that some program started.
#[derive(Clone, Debug)]
pub struct Running {
    name: String,
    folder: Folder,
    keeper: u32,
    started: u64,
    versions: Versions,
    joined: Option<String>,
}

/// The running lab `name`.
///
/// # Errors
/// [`Error::NotUp`] when there is none.
pub fn find(cache: &Path, name: &str) -> Result<Running, Error> {
    let folder = Folder::of(cache, name)?;
    match folder.running() {
        Some(record) => Ok(Running::new(name.to_owned(), folder, &record)),
        None => Err(Error::NotUp { name: name.to_owned() }),
    }
}

/// All running labs, by name.
#[must_use]
pub fn list(cache: &Path) -> Vec<Running> {
    Folder::names(cache).iter().filter_map(|name| find(cache, name).ok()).collect()
}

/// Ends the lab `name`; returns when nothing of it is left, and what had to stay at an API server that it had joined.
///
/// # Errors
/// [`Error::NotUp`] when there is none; what it left behind by being killed is removed all the same. When the API server
/// cannot be left.
pub fn down(cache: &Path, name: &str) -> Result<Vec<String>, Error> {
    let folder = Folder::of(cache, name)?;
    let _lock = folder.lock()?;
    let result = find(cache, name).and_then(|running| running.stop(STOP_DEADLINE));
    folder.remove()?;
    result
}

/// A command that runs `arguments` at `place` of the lab `name`: a node, `external` or `underlay`. The tools of Open
/// vSwitch and OVN are in its `PATH`, and their defaults are the node's.
///
/// # Errors
/// [`Error::NotUp`], [`Error::NoSuchPlace`].
pub fn command(cache: &Path, name: &str, place: &str, arguments: &[OsString]) -> Result<Command, Error> {
    let running = find(cache, name)?;
    let mut known: Vec<String> = udn_lab_sys::ground::NODES.iter().map(|node| (*node).to_owned()).collect();
    known.extend(["external".into(), "underlay".into()]);
    if !known.iter().any(|one| one == place) {
        return Err(Error::NoSuchPlace { place: place.into(), known });
    }
    Ok(Entry { keeper: running.keeper, netns: place.into(), command: arguments.to_vec() }.command())
}

impl Running {
    pub(super) fn new(name: String, folder: Folder, record: &Record) -> Self {
        let Record { keeper, started, versions, joined } = record.clone();
        Self { name, folder, keeper, started, versions, joined }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Path of the kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.kubeconfig()
    }

    /// What the lab's processes print.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.folder.log()
    }

    /// Open vSwitch and OVN.
    #[must_use]
    pub fn versions(&self) -> &Versions {
        &self.versions
    }

    /// How it is.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn status(&self) -> Result<Status, Error> {
        let ask = || -> io::Result<Status> {
            let init = first_process(self.keeper).map_err(io::Error::other)?;
            control::status(init)
        };
        ask().map_err(|source| Error::NoAnswer { name: self.name.clone(), source, log: self.folder.log() })
    }

    /// Copies a file of the lab, such as one of [`Status::logs`], into the folder `to`; named after its place in the lab.
    /// Returns where it is.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn copy_out(&self, file: &Path, to: &Path) -> io::Result<PathBuf> {
        let init = first_process(self.keeper).map_err(io::Error::other)?;
        // `/…/nodes/ovn-worker/ovn/ovn-controller.log` becomes `ovn-worker.ovn.ovn-controller.log`.
        let parts: Vec<_> = file.components().rev().take(3).map(|part| part.as_os_str().to_string_lossy()).collect();
        let name = parts.iter().rev().map(AsRef::as_ref).collect::<Vec<&str>>().join(".");
        let target = to.join(name);
        std::fs::copy(control::from_outside(init, file), &target)?;
        Ok(target)
    }

    /// Takes away what the lab has put into an API server that was there before; returns what has to stay there.
    pub(super) fn leave(&self) -> Result<Vec<String>, Error> {
        let Some(url) = &self.joined else { return Ok(Vec::new()) };
        let failed = |reason: String| Error::Leave { url: url.clone(), reason };
        let left = first_process(self.keeper).map_err(io::Error::other).and_then(control::leave);
        let left = left.map_err(|error| failed(error.to_string()))?;
        if left.failed.is_empty() { Ok(left.kept) } else { Err(failed(left.failed.join("; "))) }
    }

    /// Ends it; returns when its processes are gone.
    pub(super) fn stop(&self, deadline: Duration) -> Result<Vec<String>, Error> {
        // What it cannot leave does not keep it from ending.
        let left = self.leave();
        let deadline = Instant::now() + deadline;
        let pid = Pid::from_raw(self.keeper.cast_signed());
        let mut signal = Signal::SIGTERM;
        while start_time(self.keeper) == Some(self.started) {
            // The keeper answers the first; the second cannot be ignored, and takes init with it.
            let _ = kill(pid, signal);
            let patience = Instant::now() + Duration::from_secs(3);
            while start_time(self.keeper) == Some(self.started) && Instant::now() < patience {
                std::thread::sleep(Duration::from_millis(5));
            }
            signal = Signal::SIGKILL;
            if Instant::now() > deadline {
                let (what, last) = (format!("lab {} to end", self.name), format!("process {} is there", self.keeper));
                return Err(Error::Deadline { what, seconds: STOP_DEADLINE.as_secs(), last });
            }
        }
        self.folder.remove()?;
        left
    }
}
