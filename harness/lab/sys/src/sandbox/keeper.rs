//! The keeper: makes the namespaces, starts init in them, and sees to it that init ends when the parent does.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitCode};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{Uid, getegid, geteuid, setsid};
use rustix::event::{PollFd, PollFlags, poll};

use super::INIT;
use super::channel::{Channel, Event};

/// Makes the keeper forget its lifeline: the sandbox then lives on when its parent ends.
pub(super) const DETACH: Signal = Signal::SIGUSR1;

pub(super) fn main(args: &[OsString]) -> ExitCode {
    match run(args) {
        Ok(code) => code,
        Err(failure) => {
            if let Ok(channel) = Channel::of_stdin() {
                let _ = channel.send(&failure);
            }
            ExitCode::FAILURE
        }
    }
}

fn failed(action: &str) -> impl FnOnce(io::Error) -> Event {
    move |error| Event::Failed { message: format!("cannot {action} in the lab's sandbox: {error}") }
}

fn run(args: &[OsString]) -> Result<ExitCode, Event> {
    // The terminal's ^C is for the parent, which decides when the lab goes.
    let _ = setsid();
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, DETACH] {
        signals.add(signal);
    }
    // Before any child: a signal that comes in between waits.
    signals.thread_block().map_err(|errno| failed("block signals")(errno.into()))?;
    let signal_fd = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .map_err(|errno| failed("watch signals")(errno.into()))?;
    make_namespaces()?;

    let own_pid = std::process::id().to_string();
    let mut init = Command::new("/proc/self/exe")
        .arg(INIT)
        .arg(own_pid)
        .args(args)
        .spawn()
        .map_err(failed("start its first process"))?;
    watch(&mut init, &signal_fd).map_err(failed("watch its first process"))
}

fn make_namespaces() -> Result<(), Event> {
    let (uid, gid) = (geteuid(), getegid());
    let flags = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS;
    // Root inside a container may lack the right, and still be allowed to by way of a user namespace.
    let direct = if uid == Uid::from_raw(0) { unshare(flags) } else { Err(nix::Error::EPERM) };
    if direct.is_err() {
        unshare(flags | CloneFlags::CLONE_NEWUSER).map_err(|errno| Event::NoNamespaces { errno: errno as i32 })?;
        for (file, map) in
            [("setgroups", "deny".to_owned()), ("uid_map", format!("0 {uid} 1")), ("gid_map", format!("0 {gid} 1"))]
        {
            std::fs::write(format!("/proc/self/{file}"), map)
                .map_err(|error| Event::NoNamespaces { errno: error.raw_os_error().unwrap_or_default() })?;
        }
    }
    // Nothing mounted from here on shows on the host. AppArmor may grant the namespaces and then refuse this, the first
    // thing done in them.
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .map_err(|errno| Event::NoNamespaces { errno: errno as i32 })
}

/// Until init has ended: kills it when the parent is gone, or when told to end.
fn watch(init: &mut Child, signals: &SignalFd) -> io::Result<ExitCode> {
    let stdin = io::stdin();
    let mut attached = true;
    loop {
        // Hang-up is reported without asking; reading is main's.
        let mut fds = vec![PollFd::new(signals, PollFlags::IN)];
        if attached {
            fds.push(PollFd::new(&stdin, PollFlags::empty()));
        }
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let hung_up = fds.get(1).is_some_and(|fd| !fd.revents().is_empty());
        while let Some(signal) = signals.read_signal()? {
            match i32::try_from(signal.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok()) {
                Some(Signal::SIGCHLD) => {}
                Some(signal) if signal == DETACH => attached = false,
                _ => init.kill()?,
            }
        }
        if hung_up && attached {
            init.kill()?;
        }
        // A kill is followed by the death of all that init's namespace holds, and only then by its own.
        let status = if hung_up && attached { Some(init.wait()?) } else { init.try_wait()? };
        if let Some(status) = status {
            let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
            return Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)));
        }
    }
}
