//! A process on the host's side that fetches packages for a running lab, which has no way out of its namespaces.
//!
//! The program that starts a lab starts it too. It listens on a socket in the lab's folder, costs nothing until somebody
//! connects, and ends with the lab's keeper.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Mutex;

use nix::unistd::setsid;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

use super::cache::Progress;
use super::machines::{self, Machines};
use crate::error::Error;

/// First argument that makes the program one.
const COMMAND: &str = "__lab-courier";

/// What a courier says, one line each.
#[derive(Serialize, Deserialize)]
enum Word {
    Progress(Progress),
    Ready(Machines),
    Failed(String),
}

/// Becomes a courier when the arguments ask for one.
#[must_use]
pub fn internal(args: &[OsString]) -> Option<ExitCode> {
    if args.get(1)? != OsStr::new(COMMAND) {
        return None;
    }
    Some(match serve(args.get(2..).unwrap_or_default()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the lab's courier cannot serve: {error}");
            ExitCode::FAILURE
        }
    })
}

/// Starts a courier that listens on `socket`, fetches into `cache`, and ends with the process `keeper`.
///
/// # Errors
/// When the program cannot be started once more.
pub fn start(keeper: u32, socket: &Path, cache: &Path, log: Option<&fs::File>) -> Result<Child, Error> {
    let mut command = Command::new("/proc/self/exe");
    command.arg(COMMAND).arg(keeper.to_string()).arg(socket).arg(cache).stdin(Stdio::null());
    if let Some(log) = log {
        let copy = || log.try_clone().map(Stdio::from).map_err(Error::sandbox("duplicate its log"));
        command.stdout(copy()?).stderr(copy()?);
    }
    command.spawn().map_err(Error::sandbox("start the courier"))
}

fn serve(args: &[OsString]) -> io::Result<()> {
    let [keeper, socket, cache] = args else { return Err(io::Error::other("it was started by hand")) };
    // The terminal's ^C is for the program, which decides when the lab goes.
    let _ = setsid();
    let keeper = keeper.to_str().and_then(|pid| Pid::from_raw(pid.parse().ok()?));
    let keeper = keeper.ok_or_else(|| io::Error::other("the keeper has no process id"))?;
    // A keeper that is gone already needs nothing.
    let Ok(keeper) = pidfd_open(keeper, PidfdFlags::empty()) else { return Ok(()) };
    let _ = fs::remove_file(socket);
    let listener = UnixListener::bind(socket)?;
    let cache = cache.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let cache = cache.clone();
            std::thread::spawn(move || answer(stream, Path::new(&cache)));
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

fn answer(stream: UnixStream, cache: &Path) {
    let stream = Mutex::new(stream);
    // Whoever asked may be gone: what is fetched is there for the next one.
    let say = |word: &Word| {
        if let (Ok(mut stream), Ok(mut line)) = (stream.lock(), serde_json::to_vec(word)) {
            line.push(b'\n');
            let _ = stream.write_all(&line);
        }
    };
    match machines::ensure(cache, &|progress| say(&Word::Progress(progress))) {
        Ok(machines) => say(&Word::Ready(machines)),
        Err(error) => say(&Word::Failed(error.to_string())),
    }
}

/// Asks the courier at `socket` for what virtual machines need; `progress` hears what takes time. Blocks.
///
/// # Errors
/// What [`machines::ensure`] said, or that there is no courier.
pub fn ask(socket: &Path, mut progress: impl FnMut(Progress)) -> Result<Machines, Error> {
    let gone = |reason: String| Error::Machines {
        reason: format!("the courier at {} {reason}", socket.display()),
        remedy: "end the lab and start another one",
    };
    let stream = UnixStream::connect(socket).map_err(|error| gone(format!("cannot be reached: {error}")))?;
    for line in BufReader::new(stream).lines() {
        let line = line.map_err(|error| gone(format!("is not understood: {error}")))?;
        match serde_json::from_str(&line).map_err(|error| gone(format!("is not understood: {error}")))? {
            Word::Progress(step) => progress(step),
            Word::Ready(machines) => return Ok(machines),
            Word::Failed(message) => return Err(Error::Ended(message)),
        }
    }
    Err(gone("ended before it was done".into()))
}
