//! The lab's stand-in for the `agnhost` image (and for `pause`): what workshops and end-to-end tests use of it, with the
//! same words, ports and answers.
//!
//! * [`arguments`]: options as agnhost takes them
//! * [`netexec`]: the HTTP and UDP server of `netexec` and `serve-hostname`
//! * [`http`]: as much of HTTP/1.1 as those need
//! * [`connect`]: the client that says `TIMEOUT`, `REFUSED`, `DNS` or `OTHER`
//! * [`process`]: life as the first process of a container

mod arguments;
mod connect;
mod http;
mod netexec;
mod process;

use std::process::ExitCode;

const USAGE: &str = "usage: agnhost netexec [--http-port 8080] [--udp-port 8081]
       agnhost serve-hostname [--port 9376]
       agnhost connect [--timeout 0s] [--protocol tcp|udp] HOST:PORT
       agnhost pause";

fn main() -> ExitCode {
    // Before any thread starts, so that all of them leave signals to the one that waits for them.
    let signals = process::block_signals();
    let mut words = std::env::args();
    let called_as_pause = words.next().is_some_and(|name| name == "pause" || name.ends_with("/pause"));
    let command = if called_as_pause { Some("pause".to_owned()) } else { words.next() };
    let done = match command.as_deref() {
        Some("pause") => Ok(()),
        Some("netexec") => netexec::start(words),
        Some("serve-hostname") => netexec::start_serve_hostname(words),
        Some("connect") => return connect::run(words),
        Some("help" | "--help") => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Some(unknown) => Err(format!("unknown command {unknown:?}\n{USAGE}")),
        None => Err(format!("a command is missing\n{USAGE}")),
    };
    match done {
        Ok(()) => process::wait_for_the_end(&signals),
        Err(problem) => {
            eprintln!("agnhost: {problem}");
            ExitCode::FAILURE
        }
    }
}
