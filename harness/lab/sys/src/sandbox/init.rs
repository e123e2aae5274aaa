//! Pid 1 of the sandbox: private mounts, then main as its child, then nothing but reaping.

use std::ffi::OsString;
use std::fs;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Command, ExitCode};

use nix::mount::{MsFlags, mount};
use nix::sys::statvfs::{FsFlags, fstatvfs};
use nix::sys::wait::{WaitStatus, wait};
use nix::unistd::sethostname;
use rustix::process::{Signal, set_parent_process_death_signal};

use super::channel::{Channel, Event};
use super::{FOLDER, TREE};
use crate::error::Error;

/// glibc gives each of many threads a heap of its own, up to eight a processor, and keeps what is free in each.
const ARENAS: (&str, &str) = ("MALLOC_ARENA_MAX", "2");

pub(super) fn main(args: &[OsString]) -> ExitCode {
    match run(args) {
        Ok(code) => code,
        Err(error) => {
            if let Ok(channel) = Channel::of_stdin() {
                let _ = channel.send(&Event::Failed { message: error.to_string() });
            }
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[OsString]) -> Result<ExitCode, Error> {
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(Error::sandbox("tie its life to the keeper's"))?;
    let [keeper, tree, main @ ..] = args else {
        return Err(Error::Ended("the lab's first process was started by hand".into()));
    };
    // A keeper that died before the line above sent no signal. /proc is still the host's, so numbers compare.
    if Some(parent_pid()?.as_str()) != keeper.to_str() {
        return Ok(ExitCode::FAILURE);
    }
    mounts(Path::new(tree))?;
    sethostname("udn-lab").map_err(Error::sandbox("name its host"))?;
    let main = Command::new("/proc/self/exe").args(main).env(ARENAS.0, ARENAS.1).spawn();
    let main = main.map_err(Error::sandbox("start its main process"))?;
    reap(main.id())
}

fn parent_pid() -> Result<String, Error> {
    let status = fs::read_to_string("/proc/self/status").map_err(Error::file("read", "/proc/self/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"));
    Ok(line.unwrap_or_default().trim().to_owned())
}

fn mounts(tree: &Path) -> Result<(), Error> {
    // Held open: the tree may lie below what is about to be covered.
    let tree_fd = fs::File::open(tree).map_err(Error::file("open", tree))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("proc"), "/proc", Some("proc"), flags | MsFlags::MS_NOEXEC, None::<&str>)
        .map_err(Error::sandbox("mount /proc"))?;
    mount(Some("lab"), "/run", Some("tmpfs"), flags, Some("mode=755"))
        .map_err(Error::sandbox("mount a tmpfs on /run"))?;
    for folder in [FOLDER, TREE, "/run/netns", "/run/lock"] {
        fs::create_dir_all(folder).map_err(Error::file("create", folder))?;
    }
    let source = format!("/proc/self/fd/{}", tree_fd.as_raw_fd());
    mount(Some(source.as_str()), TREE, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .map_err(Error::sandbox("mount the packages"))?;
    // In a user namespace the flags that the file system has must be kept.
    let has = fstatvfs(&tree_fd).map_err(Error::sandbox("look at the packages"))?.flags();
    let mut keep = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    for (have, flag) in [
        (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
        (FsFlags::ST_NOATIME, MsFlags::MS_NOATIME),
        (FsFlags::ST_NODIRATIME, MsFlags::MS_NODIRATIME),
        (FsFlags::ST_RELATIME, MsFlags::MS_RELATIME),
    ] {
        if has.contains(have) {
            keep |= flag;
        }
    }
    mount(None::<&str>, TREE, None::<&str>, keep, None::<&str>).map_err(Error::sandbox("mount the packages read-only"))
}

/// Until main has ended; its orphans are ours.
fn reap(main: u32) -> Result<ExitCode, Error> {
    loop {
        let (pid, code) = match wait() {
            Ok(WaitStatus::Exited(pid, code)) => (pid, code),
            Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, 128 + signal as i32),
            Ok(_) | Err(nix::Error::EINTR) => continue,
            Err(errno) => return Err(Error::sandbox("wait for its processes")(errno)),
        };
        if u32::try_from(pid.as_raw()).is_ok_and(|pid| pid == main) {
            return Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)));
        }
    }
}
