//! Threads of the switch that need not go first.
//!
//! After each change of its flow tables the switch looks at every flow that it has cached, in a thread of its own: the
//! revalidator. Where that thread goes before everything else, as the one that forwards does, it begins anew with every
//! single change of the hundreds that a world brings, and takes a third of two processors. Where it waits its turn, it
//! finds many changes at once: of 11,368 cells with two processors it took 29 s instead of 65 s, and all
//! together 108 s instead of 175 s.

use std::time::Duration;
use std::{fs, io};

use rustix::process::{Pid, setpriority_process};
use tokio::time::{Instant, sleep};

/// What the threads are called that look at cached flows.
const REVALIDATOR: &str = "revalidator";
/// Behind those that probe, listen and change the network. Not last of all: nobody else may hold up what a change brings.
const NICE: i32 = 5;
/// A thread gives itself its name, once it has the processor.
const DEADLINE: Duration = Duration::from_secs(2);

/// Lets a switch's revalidators wait their turn.
///
/// # Errors
/// What the kernel says where the process cannot be looked into: it has ended, or belongs to somebody else. That there
/// is no revalidator.
pub(super) async fn revalidators_wait(pid: u32) -> io::Result<()> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let mut found = false;
        for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
            let thread = thread?;
            // It may have ended in the meantime.
            let name = fs::read_to_string(thread.path().join("comm")).unwrap_or_default();
            let id = thread.file_name().to_str().and_then(|id| id.parse().ok()).and_then(Pid::from_raw);
            if let Some(id) = id.filter(|_| name.starts_with(REVALIDATOR)) {
                setpriority_process(Some(id), NICE)?;
                found = true;
            }
        }
        if found {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(io::Error::new(io::ErrorKind::NotFound, format!("no thread is called {REVALIDATOR}")));
        }
        sleep(Duration::from_millis(5)).await;
    }
}
