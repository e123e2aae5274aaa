//! A process tree in namespaces of its own, that leaves nothing however it ends.
//!
//! ```text
//! parent ── socket ──┐   held by the parent alone: it closes when the parent dies, by whatever signal
//!   └ keeper         │   in the host's pid namespace; kills init when the socket closes; own session, so that ^C is the parent's
//!       └ init       │   pid 1 of the lab: mounts, reaps; dies with the keeper, and with it everything in the lab
//!           └ main ──┘   the lab itself, told what to do over the socket
//! ```
//!
//! * [`attendant`]: a process on the host's side
//! * [`channel`]: messages between parent and main
//! * [`enter`]: another process joins a running sandbox
//! * [`init`]: mounts, pid 1
//! * [`keeper`]: namespaces, life and death
//! * [`preflight`]: what the kernel must allow, with remedies
//! * [`spawn`]: the parent's side

pub mod attendant;
pub mod channel;
pub mod enter;
pub mod init;
pub mod keeper;
pub mod preflight;
pub mod spawn;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

pub use channel::Event;
pub use spawn::Sandbox;

/// Everything private to the lab is below this folder of its own tmpfs.
pub const FOLDER: &str = "/run/lab";
/// Where the package tree is mounted, read-only.
pub const TREE: &str = "/run/lab/tree";

/// First arguments that this module answers to.
const KEEPER: &str = "__lab-keeper";
const INIT: &str = "__lab-init";
const ENTER: &str = "__lab-enter";

/// What a sandbox is made with.
#[derive(Clone, Debug)]
pub struct Spec {
    /// The package tree's root on the host.
    pub tree: PathBuf,
    /// Arguments for the running program to become the sandbox' main process.
    pub main: Vec<OsString>,
}

/// Becomes a process of a sandbox when the arguments ask for one. Call it first of all in `main`, while the program
/// has one thread.
#[must_use]
pub fn internal(args: &[OsString]) -> Option<ExitCode> {
    let rest = args.get(2..).unwrap_or_default();
    match args.get(1)?.to_str()? {
        KEEPER => Some(keeper::main(rest)),
        INIT => Some(init::main(rest)),
        ENTER => Some(enter::main(rest)),
        _ => None,
    }
}
