//! A process on the host's side that fetches packages for a running lab, which has no way out of its namespaces.
//!
//! An [`attendant`] of the lab: it listens on a socket in the lab's folder and costs nothing until somebody connects.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, ExitCode};
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use super::cache::Progress;
use super::machines::{self, Machines};
use crate::error::Error;
use crate::sandbox::attendant;

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
    Some(attendant::main("courier", args.get(2..).unwrap_or_default(), |stream, rest| {
        if let [cache] = rest {
            answer(stream, Path::new(cache));
        }
    }))
}

/// Starts a courier that listens on `socket`, fetches into `cache`, and ends with the process `keeper`.
///
/// # Errors
/// When the program cannot be started once more.
pub fn start(keeper: u32, socket: &Path, cache: &Path, log: Option<&fs::File>) -> Result<Child, Error> {
    attendant::start(COMMAND, keeper, socket, &[cache.as_os_str()], log)
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
