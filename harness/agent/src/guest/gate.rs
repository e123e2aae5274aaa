//! Where a guest waits to be copied, if its kernel was told [`ARGUMENT`]. Everything that takes time at boot is done by then,
//! and nothing that is a machine's own: a copy goes on as a machine with its own MAC, time and randomness, which it is told
//! in one line: MAC, microseconds since 1970, and a word that no other copy is told.

use alloc::string::String;
use alloc::vec::Vec;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::time::{ClockId, Timespec, clock_settime};

use super::link;
use super::log::Log;
use crate::control::console;
use crate::facts::read_file;
use crate::sys::randomness::reseed;

const ARGUMENT: &str = "udn.gate";

/// What the guest says there.
const WORD: &[u8] = b"udn-gate\n";

/// Between two looks for the console, nanoseconds.
const PAUSE: i64 = 5_000_000;

/// The longest line that may come, bytes.
const LONGEST: usize = 256;

/// What a copy is told.
#[derive(Debug, PartialEq, Eq)]
struct Own<'a> {
    mac: [u8; 6],
    wall_us: u64,
    seed: &'a str,
}

/// Waits, where the guest is to; then this is a machine of its own. Returns the console as it was opened: what has come
/// meanwhile would be lost with it.
pub(crate) fn wait(path: &str, log: &mut Log) -> Option<OwnedFd> {
    let command_line = read_file("/proc/cmdline").unwrap_or_default();
    if !command_line.split_whitespace().any(|word| word == ARGUMENT) {
        return None;
    }
    let console = loop {
        if let Ok(console) = console::open(path) {
            break console;
        }
        pause();
    };
    let said = loop {
        match rustix::io::write(&console, WORD) {
            // Nobody is at the other end yet.
            Err(Errno::AGAIN | Errno::INTR) => pause(),
            said => break said,
        }
    };
    let told = said.and_then(|_| line(&console));
    let told = told.unwrap_or_default();
    match parse(&told) {
        Some(own) => become_another(&own, log),
        None => log.note("learn who this is", Errno::BADMSG),
    }
    Some(console)
}

fn pause() {
    let _ = poll(&mut [], Some(&Timespec { tv_sec: 0, tv_nsec: PAUSE }));
}

/// A line, and nothing that comes after it.
fn line(console: &OwnedFd) -> Result<String, Errno> {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.len() < LONGEST {
        match rustix::io::read(console, &mut byte) {
            Ok(1..) if byte == *b"\n" => break,
            Ok(1..) => line.extend(byte),
            // Nobody is there at the moment.
            Ok(_) => pause(),
            Err(Errno::AGAIN | Errno::INTR) => {
                let _ = poll(&mut [PollFd::new(console, PollFlags::IN)], None);
            }
            Err(errno) => return Err(errno),
        }
    }
    Ok(String::from_utf8_lossy(&line).into_owned())
}

fn parse(line: &str) -> Option<Own<'_>> {
    let mut words = line.split_whitespace();
    Some(Own { mac: link::mac(words.next()?)?, wall_us: words.next()?.parse().ok()?, seed: words.next()? })
}

fn become_another(own: &Own, log: &mut Log) {
    log.check("seed randomness", reseed(own.seed.as_bytes()));
    let time = Timespec {
        tv_sec: (own.wall_us / 1_000_000).cast_signed(),
        tv_nsec: (own.wall_us % 1_000_000 * 1000).cast_signed(),
    };
    log.check("set the clock", clock_settime(ClockId::Realtime, time));
    match link::find() {
        Some(link) => log.check("set the MAC", link::set_mac(link.index, own.mac)),
        None => log.note("set the MAC", Errno::NODEV),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_of_its_own_is_one_line() {
        let own = parse("0a:58:0a:78:00:05 1700000000123456 5eed").expect("all of it");
        assert_eq!(own, Own { mac: [0x0a, 0x58, 0x0a, 0x78, 0, 5], wall_us: 1_700_000_000_123_456, seed: "5eed" });
        for wrong in ["", "0a:58:0a:78:00 1 0", "0a:58:0a:78:00:05 x 0", "0a:58:0a:78:00:05 1"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
