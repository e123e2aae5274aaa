//! The lab's stand-in for CoreDNS: answers from a file of records, over UDP and TCP.
//!
//! The lab's controllers write the file from services, endpoint slices and the config map `kube-system/coredns`, and
//! replace it as a whole; every query sees the newest.
//!
//! * [`records`]: the file, read
//! * [`answer`]: queries to answers, as CoreDNS gives them
//! * [`serve`]: sockets
//! * [`process`]: life as the first process of a container

mod answer;
mod process;
mod records;
mod serve;

use std::path::PathBuf;
use std::process::ExitCode;

const USAGE: &str = "usage: dns --records FILE [--port 53]";

fn main() -> ExitCode {
    // Before any thread starts, so that all of them leave signals to the one that waits for them.
    let signals = process::block_signals();
    let started = arguments(std::env::args().skip(1)).and_then(|(file, port)| serve::start(file, port));
    match started {
        Ok(()) => process::wait_for_the_end(&signals),
        Err(problem) => {
            eprintln!("dns: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn arguments(mut words: impl Iterator<Item = String>) -> Result<(PathBuf, u16), String> {
    let (mut file, mut port) = (None, 53);
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(|| format!("{word} needs a value\n{USAGE}"))?;
        match word.as_str() {
            "--records" => file = Some(PathBuf::from(value)),
            "--port" => port = value.parse().map_err(|_| format!("--port {value:?} is not a port\n{USAGE}"))?,
            _ => return Err(format!("unknown option {word:?}\n{USAGE}")),
        }
    }
    Ok((file.ok_or_else(|| format!("--records is missing\n{USAGE}"))?, port))
}
