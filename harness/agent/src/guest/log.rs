//! What went wrong, for the kernel's log and for the facts.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;

/// Lines that are kept.
const KEPT: usize = 16;

/// What went wrong so far.
#[derive(Debug, Default)]
pub(crate) struct Log {
    troubles: Vec<String>,
}

impl Log {
    pub(crate) fn note(&mut self, attempted: &str, errno: Errno) {
        let line = format!("cannot {attempted}: {errno}");
        // Where there is no log there is nobody to read it either.
        if let Ok(log) = open("/dev/kmsg", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()) {
            let _ = rustix::io::write(&log, format!("<3>udn-agent: {line}\n").as_bytes());
        }
        if self.troubles.len() < KEPT && !self.troubles.contains(&line) {
            self.troubles.push(line);
        }
    }

    /// Notes a failure, if it is one.
    pub(crate) fn check(&mut self, attempted: &str, result: Result<(), Errno>) {
        if let Err(errno) = result {
            self.note(attempted, errno);
        }
    }

    pub(crate) fn troubles(&self) -> &[String] {
        &self.troubles
    }
}
