//! A stream's two ends bridged to the control socket.

use alloc::vec::Vec;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::{Errno, read};
use rustix::net::{AddressFamily, Shutdown, SocketAddrUnix, SocketFlags, SocketType, connect, shutdown, socket_with};

use super::serve::{claim, leave, run};
use super::{Error, write_all};
use crate::clock::{MILLISECOND, monotonic_us};
use crate::sys::process::{Side, fork, stdin, stdout};

/// How long an agent that somebody else is starting may take to listen, milliseconds.
const START_DEADLINE_MS: u64 = 5_000;

/// Pace of looking whether it does, nanoseconds.
const PACE_NS: i64 = 5_000_000;

/// Bridges standard input and output to the agent until either side ends; starts the agent if it is not running.
pub(super) fn attach(path: &str) -> Result<(), Error> {
    let Some(socket) = reach(path)? else { return Ok(()) };
    bridge(&socket).map_err(|errno| Error::system("pass on the control stream", errno, "attach again"))
}

/// Connects to the agent, after starting it where nobody does. None in the process that has become the agent, once it
/// has been told to shut down.
fn reach(path: &str) -> Result<Option<OwnedFd>, Error> {
    let deadline = monotonic_us() + START_DEADLINE_MS * MILLISECOND;
    loop {
        let refused = match dial(path) {
            Ok(socket) => return Ok(Some(socket)),
            Err(errno) => errno,
        };
        match claim(path)? {
            // The socket listens already: the next round connects, whichever process is faster.
            Some(claim) => match fork() {
                Ok(Side::Parent) => drop(claim),
                Ok(Side::Child) => {
                    leave().map_err(|errno| Error::system("leave the terminal", errno, "is /dev/null there?"))?;
                    return run(claim).map(|()| None);
                }
                Err(errno) => return Err(Error::system("start a process", errno, "raise the limit of processes")),
            },
            None if monotonic_us() >= deadline => {
                let attempted = ["reach the agent at ", path].concat();
                return Err(Error::system(&attempted, refused, "it holds the lock but does not answer"));
            }
            // Somebody else has just claimed it.
            None => drop(poll(&mut [], Some(&Timespec { tv_sec: 0, tv_nsec: PACE_NS }))),
        }
    }
}

fn dial(path: &str) -> Result<OwnedFd, Errno> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

fn bridge(socket: &OwnedFd) -> Result<(), Errno> {
    let mut buffer = alloc::vec![0; 64 * 1024];
    let mut listening = true;
    loop {
        let (from_client, from_agent, client_gone) = wait(socket, listening)?;
        if from_agent && !copy(socket, stdout(), &mut buffer)? {
            return Ok(());
        }
        // The agent never blocks, so waiting for it to take this cannot last.
        if from_client && !copy(stdin(), socket.as_fd(), &mut buffer)? {
            listening = false;
            shutdown(socket, Shutdown::Write)?;
        }
        if client_gone && !from_agent {
            return Ok(());
        }
    }
}

/// Waits; says whether there is something to read from the client and from the agent, and whether the client has
/// stopped reading.
fn wait(socket: &OwnedFd, listening: bool) -> Result<(bool, bool, bool), Errno> {
    let (output, input) = (stdout(), stdin());
    let mut files = Vec::with_capacity(3);
    files.push(PollFd::new(socket, PollFlags::IN));
    files.push(PollFd::from_borrowed_fd(output, PollFlags::empty()));
    if listening {
        files.push(PollFd::from_borrowed_fd(input, PollFlags::IN));
    }
    match poll(&mut files, None) {
        Ok(_) => {}
        Err(Errno::INTR) => return Ok((false, false, false)),
        Err(errno) => return Err(errno),
    }
    let happened = |position: usize| files.get(position).is_some_and(|file| !file.revents().is_empty());
    Ok((happened(2), happened(0), happened(1)))
}

/// Copies what is there; false at the end of the source, or when the sink is gone.
fn copy(source: impl AsFd, sink: rustix::fd::BorrowedFd<'_>, buffer: &mut [u8]) -> Result<bool, Errno> {
    match read(source, &mut *buffer) {
        Ok(0) | Err(Errno::CONNRESET | Errno::IO) => Ok(false),
        Ok(length) => match write_all(sink, buffer.get(..length).unwrap_or_default()) {
            Ok(()) => Ok(true),
            Err(Errno::PIPE | Errno::CONNRESET) => Ok(false),
            Err(errno) => Err(errno),
        },
        Err(Errno::INTR | Errno::AGAIN) => Ok(true),
        Err(errno) => Err(errno),
    }
}
