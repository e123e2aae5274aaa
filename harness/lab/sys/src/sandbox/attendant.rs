//! A process on the host's side of a lab, which has no way out of its namespaces: it does what can be done there only.
//!
//! The program that starts a lab starts it too. It listens on a socket in the lab's folder, which is visible inside, and ends
//! with the lab's keeper.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;

use nix::unistd::setsid;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::error::Error;

/// Starts this program once more, with `command` as its first argument, to listen on `socket` until the process `keeper` ends.
///
/// # Errors
/// When the program cannot be started.
pub fn start(command: &str, keeper: u32, socket: &Path, rest: &[&OsStr], log: Option<&File>) -> Result<Child, Error> {
    let mut attendant = Command::new("/proc/self/exe");
    attendant.arg(command).arg(keeper.to_string()).arg(socket).args(rest).stdin(Stdio::null());
    if let Some(log) = log {
        let copy = || log.try_clone().map(Stdio::from).map_err(Error::sandbox("duplicate its log"));
        attendant.stdout(copy()?).stderr(copy()?);
    }
    attendant.spawn().map_err(Error::sandbox("start a process beside it"))
}

/// Is one. `args` are those after the command; `serve` gets each connection, in a thread of its own, and what [`start`] was
/// given as `rest`.
pub fn main(
    name: &str,
    args: &[OsString],
    serve: impl Fn(UnixStream, &[OsString]) + Send + Sync + 'static,
) -> ExitCode {
    match listen(args, Arc::new(serve)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the lab's {name} cannot serve: {error}");
            ExitCode::FAILURE
        }
    }
}

fn listen(args: &[OsString], serve: Arc<impl Fn(UnixStream, &[OsString]) + Send + Sync + 'static>) -> io::Result<()> {
    let [keeper, socket, rest @ ..] = args else { return Err(io::Error::other("it was started by hand")) };
    // The terminal's ^C is for the program, which decides when the lab goes.
    let _ = setsid();
    let keeper = keeper.to_str().and_then(|pid| Pid::from_raw(pid.parse().ok()?));
    let keeper = keeper.ok_or_else(|| io::Error::other("the keeper has no process id"))?;
    // A keeper that is gone already needs nothing.
    let Ok(keeper) = pidfd_open(keeper, PidfdFlags::empty()) else { return Ok(()) };
    let _ = fs::remove_file(socket);
    let listener = UnixListener::bind(socket)?;
    let rest: Arc<[OsString]> = rest.into();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (serve, rest) = (serve.clone(), rest.clone());
            std::thread::spawn(move || serve(stream, &rest));
        }
    });
    loop {
        match poll(&mut [PollFd::new(&keeper, PollFlags::IN)], None) {
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
