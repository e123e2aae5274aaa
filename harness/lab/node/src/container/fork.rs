//! `fork` and signal dispositions: the only unsafe code of this crate.
//!
//! The start-up program has to fork because a pid namespace takes effect in a process's children only. It has a
//! single thread (`container_main` runs before any other is started), so the child may do whatever it likes.
#![allow(unsafe_code)]

use std::io;

use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use nix::unistd::{ForkResult, fork};
use rustix::process::Pid;

/// Runs `child` in a new process, which ends with `child`'s result as its exit code; returns the new process's id.
pub(super) fn fork_into(child: impl FnOnce() -> i32) -> io::Result<Pid> {
    // SAFETY: this process has one thread, so no lock can be held by another one at the time of the fork.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => {
            Pid::from_raw(child.as_raw()).ok_or_else(|| io::Error::other("fork returned process 0"))
        }
        ForkResult::Child => std::process::exit(child()),
    }
}

/// Undoes what the Rust runtime and the parent left behind: an ignored SIGPIPE and blocked signals are inherited by
/// the container's program, and shells behave oddly with them.
pub(super) fn reset_signals() -> io::Result<()> {
    for number in [Signal::SIGPIPE, Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGCHLD] {
        // SAFETY: the default disposition installs no handler of ours.
        unsafe { signal(number, SigHandler::SigDfl) }?;
    }
    SigSet::empty().thread_set_mask()?;
    Ok(())
}
