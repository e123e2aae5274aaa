//! The control socket, and the agent behind it.

use alloc::string::{String, ToString};

use rustix::fd::OwnedFd;
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open, unlink};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};
use rustix::process::{chdir, setsid};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

use super::Error;
use crate::agent::Agent;

/// Attachments that may wait; the last one wins anyway.
const BACKLOG: i32 = 16;

/// A control socket that nobody else serves as long as this lives.
pub(super) struct Claim {
    path: String,
    socket: OwnedFd,
    /// Held by being open.
    _lock: OwnedFd,
}

/// Serves in the foreground.
pub(super) fn serve(path: &str) -> Result<(), Error> {
    match claim(path)? {
        Some(claim) => run(claim),
        None => Err(Error::Usage { problem: ["another agent serves ", path].concat() }),
    }
}

/// Opens the control socket; none if another process serves it.
pub(super) fn claim(path: &str) -> Result<Option<Claim>, Error> {
    let lock_path = [path, ".lock"].concat();
    let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC;
    let lock = open(lock_path.as_str(), flags, Mode::RUSR | Mode::WUSR).map_err(|errno| {
        Error::system(&["open ", &lock_path].concat(), errno, "choose a folder that can be written to")
    })?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Ok(None),
        Err(errno) => return Err(Error::system(&["lock ", &lock_path].concat(), errno, "choose another folder")),
    }
    // Whoever served it before is dead: the lock is ours.
    let _ = unlink(path);
    let opened = || {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        bind(&socket, &SocketAddrUnix::new(path)?)?;
        listen(&socket, BACKLOG)?;
        Ok(socket)
    };
    let socket = opened().map_err(|errno| {
        let attempted: String = ["listen on ", path].concat();
        Error::system(&attempted, errno, "the path may have at most 107 bytes")
    })?;
    Ok(Some(Claim { path: path.to_string(), socket, _lock: lock }))
}

/// Serves until told to shut down.
pub(super) fn run(claim: Claim) -> Result<(), Error> {
    let Claim { path, socket, _lock } = claim;
    let ended = Agent::new(Some(socket)).and_then(|mut agent| agent.run());
    // A relative path leads nowhere any more after `leave`; then the socket stays, and the next agent removes it.
    let _ = unlink(path.as_str());
    ended.map_err(|errno| Error::system("wait for events", errno, "raise the limit of open files"))
}

/// Leaves the stream, the session and the folder of whoever started this process: an exec ends only when nobody holds
/// its streams.
pub(super) fn leave() -> Result<(), Errno> {
    let nothing = open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    dup2_stdin(&nothing)?;
    dup2_stdout(&nothing)?;
    dup2_stderr(&nothing)?;
    setsid()?;
    chdir("/")
}
