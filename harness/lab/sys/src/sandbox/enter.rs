//! Another process joins a running sandbox, as `nsenter` does.

use std::ffi::OsString;
use std::fs::File;
use std::path::Path;
use std::process::{Command, ExitCode};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

use super::ENTER;
use crate::error::Error;

/// What to run where.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The keeper's process id.
    pub keeper: u32,
    /// Name below the sandbox' `/run/netns`: a node, `external` or `underlay`.
    pub netns: String,
    /// Program and arguments.
    pub command: Vec<OsString>,
}

impl Entry {
    /// The command that, started from any thread, runs [`Entry::command`] inside.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new("/proc/self/exe");
        command.arg(ENTER).arg(self.keeper.to_string()).arg(&self.netns).args(&self.command);
        command
    }
}

pub(super) fn main(args: &[OsString]) -> ExitCode {
    match run(args) {
        Ok(never) => match never {},
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(126)
        }
    }
}

fn run(args: &[OsString]) -> Result<std::convert::Infallible, Error> {
    let [keeper, netns, program, args @ ..] = args else { return Err(Error::Ended("no command to run".into())) };
    let netns = netns.to_string_lossy();
    let keeper = keeper.to_string_lossy();
    let init = first_process(keeper.parse().map_err(|_| Error::Ended(format!("{keeper} is no process id")))?)?;
    let open = |kind: &str| {
        let path = format!("/proc/{init}/ns/{kind}");
        File::open(&path).map_err(Error::file("open", path))
    };
    let namespaces = [
        (open("user")?, "user", CloneFlags::CLONE_NEWUSER),
        (open("pid")?, "pid", CloneFlags::CLONE_NEWPID),
        (open("uts")?, "uts", CloneFlags::CLONE_NEWUTS),
        (open("mnt")?, "mnt", CloneFlags::CLONE_NEWNS),
    ];
    for (file, kind, flag) in namespaces {
        // One's own user namespace cannot be entered again.
        if std::fs::read_link(format!("/proc/self/ns/{kind}")).ok()
            == std::fs::read_link(format!("/proc/{init}/ns/{kind}")).ok()
        {
            continue;
        }
        setns(file, flag).map_err(Error::sandbox(format!("enter its {kind} namespace")))?;
    }
    let path = Path::new("/run/netns").join(&*netns);
    let file = File::open(&path).map_err(Error::file("open network namespace", &path))?;
    setns(file, CloneFlags::CLONE_NEWNET).map_err(Error::sandbox(format!("enter network namespace {netns}")))?;
    own_run_folders(&netns)?;
    let path = std::env::var("PATH").unwrap_or_default();
    // A pid namespace is entered by children only.
    let status = Command::new(program).args(args).env("PATH", format!("{}/bin:{path}", super::FOLDER)).status();
    let status = status.map_err(Error::sandbox(format!("run {}", program.to_string_lossy())))?;
    std::process::exit(status.code().unwrap_or(1))
}

/// The tools' default sockets are the node's.
fn own_run_folders(node: &str) -> Result<(), Error> {
    let folder = Path::new(super::FOLDER).join("nodes").join(node);
    if !folder.exists() {
        return Ok(());
    }
    unshare(CloneFlags::CLONE_NEWNS).map_err(Error::sandbox("keep its mounts apart"))?;
    for (name, target) in [("ovs", "/run/openvswitch"), ("ovn", "/run/ovn")] {
        mount(Some(&folder.join(name)), target, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .map_err(Error::sandbox(format!("mount {target}")))?;
    }
    Ok(())
}

/// The first process of the sandbox of this keeper, by the host's numbers.
///
/// # Errors
/// When it is gone.
pub fn first_process(keeper: u32) -> Result<u32, Error> {
    let path = format!("/proc/{keeper}/task/{keeper}/children");
    let children = std::fs::read_to_string(&path).map_err(Error::file("read", path))?;
    let child = children.split_whitespace().next().and_then(|pid| pid.parse().ok());
    child.ok_or_else(|| Error::Ended("the lab's process is gone".into()))
}
