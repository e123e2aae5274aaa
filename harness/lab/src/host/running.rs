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
use crate::control::{self, Request, Status};
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

/// Ends the lab `name`; returns when nothing of it is left.
///
/// # Errors
/// [`Error::NotUp`] when there is none; what it left behind by being killed is removed all the same.
pub fn down(cache: &Path, name: &str) -> Result<(), Error> {
    let folder = Folder::of(cache, name)?;
    let _lock = folder.lock()?;
    let result = find(cache, name).and_then(|running| running.stop(Instant::now() + STOP_DEADLINE));
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
        Self { name, folder, keeper: record.keeper, started: record.started, versions: record.versions.clone() }
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
            control::ask(init, Request::Status)
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

    /// Ends it; returns when its processes are gone.
    pub(super) fn stop(&self, deadline: Instant) -> Result<(), Error> {
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
        self.folder.remove()
    }
}
