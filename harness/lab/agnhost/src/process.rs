//! Life as the first process of a container: ends when told to, reaps what is left to it.

use std::process::ExitCode;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

/// Keeps signals for [`wait_for_the_end`]: process 1 has no default actions.
pub(crate) fn block_signals() -> SigSet {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD] {
        signals.add(signal);
    }
    if let Err(error) = signals.thread_block() {
        eprintln!("agnhost: cannot block signals: {error}; SIGTERM may be ignored");
    }
    signals
}

/// Reaps orphans until SIGTERM or SIGINT comes.
pub(crate) fn wait_for_the_end(signals: &SigSet) -> ExitCode {
    loop {
        match signals.wait() {
            Ok(Signal::SIGCHLD) => reap(),
            Ok(_) => return ExitCode::SUCCESS,
            Err(Errno::EINTR) => {}
            Err(error) => {
                eprintln!("agnhost: cannot wait for signals: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
}

fn reap() {
    // One signal may stand for several children.
    while !matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Ok(WaitStatus::StillAlive) | Err(_)) {}
}
