//! Watches over the lab while a run uses it: once it has lost what it needs, every further wait is in vain.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use udn_lab::Running;

/// How often the lab is asked how it is.
const PERIOD: Duration = Duration::from_secs(2);
/// How often in a row it must be lost: what is started again may need a moment.
const TIMES: u32 = 3;

/// Whoever watches; goes when dropped.
pub(crate) struct Sentry {
    told: watch::Receiver<Option<String>>,
    task: JoinHandle<()>,
}

impl Drop for Sentry {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Sentry {
    /// Begins to watch.
    pub(crate) fn post(lab: Running) -> Self {
        let (teller, told) = watch::channel(None);
        let task = tokio::spawn(async move {
            let mut times = 0;
            let mut ticks = tokio::time::interval(PERIOD);
            while times < TIMES {
                ticks.tick().await;
                let asked = lab.clone();
                let Ok(lost) = tokio::task::spawn_blocking(move || lost(&asked)).await else { return };
                let Some(lost) = lost else {
                    times = 0;
                    continue;
                };
                times += 1;
                if times == TIMES {
                    // The run may be over.
                    let _ = teller.send(Some(format!("the lab is not sound and does not recover: {lost}")));
                }
            }
            // The last word stays readable for as long as anybody listens.
            teller.closed().await;
        });
        Self { told, task }
    }

    /// Told why, once it is so.
    pub(crate) fn told(&self) -> watch::Receiver<Option<String>> {
        self.told.clone()
    }
}

/// What the lab has lost for good, or why it does not answer.
fn lost(lab: &Running) -> Option<String> {
    match lab.status() {
        Ok(status) => status.lost.into_iter().next(),
        Err(error) => Some(error.to_string()),
    }
}
