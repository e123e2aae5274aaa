//! The agent's command line.
//!
//! * [`serve`]: the control socket, and the agent behind it
//! * [`guest`]: a console instead of the socket; the agent as a VM's first process
//! * [`attach`]: a stream's two ends bridged to the control socket
//! * [`once`]: a single probe, question to a DNS server, flow, or the facts, printed; [`bulk`]: a bulk transfer

mod attach;
mod bulk;
mod guest;
mod once;
mod serve;

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use rustix::fd::BorrowedFd;
use rustix::io::Errno;
use rustix::process::getpid;

use crate::sys::process;

/// What the program understands.
const USAGE: &str =
    "usage: agent attach --socket PATH      control stream on stdin and stdout; starts the agent if it is not running
       agent serve --socket PATH       the agent itself, in the foreground
       agent console DEVICE            the agent itself, on a terminal or serial port
       agent init                      the agent as the first process of a VM
       agent probe tcp|udp|icmp ADDRESS[:PORT] [--timeout-ms N] [--identify banner|agnhost|none] [--from ADDRESS]
       agent resolve tcp|udp a|aaaa NAME [--server ADDRESS:PORT] [--timeout-ms N]
       agent flow tcp|udp ADDRESS:PORT [--period-ms N] [--for-ms N] [--timeout-ms N]
                                       a connection measured for that long; tcp: to an agent's echo port
       agent bulk ADDRESS:PORT [--direction send|receive] [--bytes-per-second N] [--for-ms N] [--timeout-ms N]
                                       as many bytes as go through, to or from an agent's echo port
       agent facts
       agent version";

/// Why the program ended.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{problem}\n{USAGE}")]
    Usage { problem: String },
    #[error("cannot {attempted}: {errno}; {advice}")]
    System { attempted: String, errno: Errno, advice: &'static str },
    #[error("{0}")]
    Failed(crate::protocol::Failure),
}

impl Error {
    fn usage(problem: &str) -> Self {
        Self::Usage { problem: problem.to_string() }
    }

    fn system(attempted: &str, errno: Errno, advice: &'static str) -> Self {
        Self::System { attempted: attempted.to_string(), errno, advice }
    }
}

/// Runs the program with its name and arguments. Returns the exit code: 0 done, 1 failed, 2 usage.
#[must_use]
pub fn run(words: &[&str]) -> i32 {
    process::prepare_signals();
    let (name, arguments) = words.split_first().map_or(("", words), |(name, arguments)| (*name, arguments));
    // What the kernel does not know on its command line it passes on to its first process.
    let is_init = getpid().is_init() && name.ends_with("/init");
    match if is_init { guest::init() } else { dispatch(arguments) } {
        Ok(()) => 0,
        Err(error) => {
            let mut line = error.to_string();
            line.insert_str(0, "agent: ");
            line.push('\n');
            // If standard error is closed there is nobody to tell.
            let _ = write_all(process::stderr(), line.as_bytes());
            if matches!(error, Error::Usage { .. }) { 2 } else { 1 }
        }
    }
}

fn dispatch(arguments: &[&str]) -> Result<(), Error> {
    match *arguments {
        ["attach", "--socket", path] => attach::attach(path),
        ["serve", "--socket", path] => serve::serve(path),
        ["console", device] => guest::console(device),
        ["init"] => guest::init(),
        ["probe", ref rest @ ..] => once::probe(rest),
        ["resolve", ref rest @ ..] => once::resolve(rest),
        ["flow", ref rest @ ..] => once::flow(rest),
        ["bulk", ref rest @ ..] => bulk::bulk(rest),
        ["facts"] => once::facts(),
        ["version"] => print(concat!(env!("CARGO_PKG_VERSION"), "\n").as_bytes()),
        ["help" | "--help"] => print([USAGE, "\n"].concat().as_bytes()),
        [] => Err(Error::usage("what to do is missing")),
        [unknown, ..] => {
            Err(Error::Usage { problem: ["cannot make sense of '", unknown, "' and what follows it"].concat() })
        }
    }
}

fn print(text: &[u8]) -> Result<(), Error> {
    write_all(process::stdout(), text)
        .map_err(|errno| Error::system("write to standard output", errno, "is it closed?"))
}

/// Prints a value as a line of JSON.
fn print_json(value: &impl serde::Serialize) -> Result<(), Error> {
    let mut line: Vec<u8> = serde_json::to_vec(value).unwrap_or_default();
    line.push(b'\n');
    print(&line)
}

fn write_all(file: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(file, bytes) {
            Ok(length) => bytes = bytes.get(length..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            // A stream of a runtime may not block.
            Err(Errno::AGAIN) => wait_writable(file)?,
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn wait_writable(file: BorrowedFd<'_>) -> Result<(), Errno> {
    use rustix::event::{PollFd, PollFlags, poll};
    match poll(&mut [PollFd::from_borrowed_fd(file, PollFlags::OUT)], None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(errno),
    }
}
