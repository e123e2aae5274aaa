//! Life as the first process of a container: ends when told to.

use std::process::ExitCode;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};

/// Keeps signals for [`wait_for_the_end`]: process 1 has no default actions.
pub(crate) fn block_signals() -> SigSet {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    if let Err(error) = signals.thread_block() {
        eprintln!("dns: cannot block signals: {error}; SIGTERM may be ignored");
    }
    signals
}

/// Waits for SIGTERM or SIGINT.
pub(crate) fn wait_for_the_end(signals: &SigSet) -> ExitCode {
    loop {
        match signals.wait() {
            Ok(_) => return ExitCode::SUCCESS,
            Err(Errno::EINTR) => {}
            Err(error) => {
                eprintln!("dns: cannot wait for signals: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
}
