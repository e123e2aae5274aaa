//! Startup, readiness and liveness of a running container.
//!
//! * [`check`]: one attempt: a command, an HTTP request, a TCP connection

pub(crate) mod check;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Probe};
use tokio::time::{Instant, sleep};

use crate::events::about;
use crate::kubelet::Host;
use crate::pod::record::{PodCell, Run};

/// How long after its start a container's readiness is asked for more often than its period says, so that a server
/// which needs a moment to listen is not found ready ten seconds later. Such attempts count for success only.
const EAGER: Duration = Duration::from_secs(2);
/// How often, then.
const EAGER_PERIOD: Duration = Duration::from_millis(100);

/// Which probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Startup,
    Readiness,
    Liveness,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Readiness => "Readiness",
            Self::Liveness => "Liveness",
        }
    }
}

/// Where a probe is, a container and its process.
struct Subject<'a> {
    host: &'a Arc<Host>,
    pod: &'a Arc<PodCell>,
    index: usize,
    container: &'a Container,
    run: &'a Arc<Run>,
}

/// Probes a container for as long as it runs; ends only when it has to be restarted, with the reason.
pub(crate) async fn watch(
    host: &Arc<Host>,
    pod: &Arc<PodCell>,
    index: usize,
    container: &Container,
    run: &Arc<Run>,
) -> String {
    let subject = Subject { host, pod, index, container, run };
    if let Some(startup) = &container.startup_probe {
        if !subject.until_started(startup).await {
            return format!("Container {} failed startup probe, will be restarted", container.name);
        }
        let ready = container.readiness_probe.is_none();
        pod.update_container(index, |record| {
            record.started = true;
            record.ready = ready;
        });
    }
    tokio::select! {
        () = subject.follow_readiness() => {}
        () = subject.until_dead() => {}
    }
    format!("Container {} failed liveness probe, will be restarted", container.name)
}

impl Subject<'_> {
    /// Asks until the threshold of successes (`true`) or failures is reached.
    async fn until_started(&self, probe: &Probe) -> bool {
        let mut counter = Counter::new(probe);
        self.wait_at_first(probe).await;
        loop {
            if let Some(result) = counter.count(self.attempt(Kind::Startup, probe, true).await) {
                return result;
            }
            sleep(period(probe)).await;
        }
    }

    async fn follow_readiness(&self) {
        let Some(probe) = &self.container.readiness_probe else { return std::future::pending().await };
        let begun = Instant::now();
        let mut counter = Counter::new(probe);
        self.wait_at_first(probe).await;
        let mut ready = false;
        loop {
            let eager = !ready && begun.elapsed() < EAGER;
            let success = self.attempt(Kind::Readiness, probe, !eager).await;
            let verdict = if success || !eager { counter.count(success) } else { None };
            if let Some(result) = verdict.filter(|result| *result != ready) {
                ready = result;
                self.pod.update_container(self.index, |record| record.ready = ready);
            }
            sleep(if eager && !success { EAGER_PERIOD.min(period(probe)) } else { period(probe) }).await;
        }
    }

    async fn until_dead(&self) {
        let Some(probe) = &self.container.liveness_probe else { return std::future::pending().await };
        let mut counter = Counter::new(probe);
        self.wait_at_first(probe).await;
        loop {
            if counter.count(self.attempt(Kind::Liveness, probe, true).await) == Some(false) {
                return;
            }
            sleep(period(probe)).await;
        }
    }

    async fn wait_at_first(&self, probe: &Probe) {
        sleep(seconds(probe.initial_delay_seconds, 0)).await;
    }

    /// One attempt; says so in an event where it fails and `tell`.
    async fn attempt(&self, kind: Kind, probe: &Probe, tell: bool) -> bool {
        let limit = seconds(probe.timeout_seconds, 1);
        let result = if let Some(exec) = &probe.exec {
            check::exec(self.host, self.run, exec.command.as_deref().unwrap_or_default(), limit).await
        } else if let Some(http) = &probe.http_get {
            check::http(self.host, self.pod, self.container, http, limit).await
        } else if let Some(tcp) = &probe.tcp_socket {
            check::tcp(self.host, self.pod, self.container, tcp, limit).await
        } else {
            Err("the lab's node agent knows exec, httpGet and tcpSocket probes only".to_owned())
        };
        let Err(reason) = result else { return true };
        if tell {
            let message = format!("{} probe failed: {reason}", kind.name());
            self.host.events.warning(about(&self.pod.arrival, Some(&self.container.name)), "Unhealthy", message);
        }
        false
    }
}

/// Counts results in a row against a probe's thresholds.
struct Counter {
    successes: u32,
    failures: u32,
    success_threshold: u32,
    failure_threshold: u32,
}

impl Counter {
    fn new(probe: &Probe) -> Self {
        let threshold =
            |value: Option<i32>, default| value.and_then(|value| u32::try_from(value).ok()).unwrap_or(default);
        Self {
            successes: 0,
            failures: 0,
            success_threshold: threshold(probe.success_threshold, 1).max(1),
            failure_threshold: threshold(probe.failure_threshold, 3).max(1),
        }
    }

    /// The verdict, once a threshold is reached; before that nothing is known.
    fn count(&mut self, success: bool) -> Option<bool> {
        if success {
            self.failures = 0;
            self.successes = self.successes.saturating_add(1);
            (self.successes >= self.success_threshold).then_some(true)
        } else {
            self.successes = 0;
            self.failures = self.failures.saturating_add(1);
            (self.failures >= self.failure_threshold).then_some(false)
        }
    }
}

fn seconds(value: Option<i32>, default: u64) -> Duration {
    Duration::from_secs(value.and_then(|value| u64::try_from(value).ok()).unwrap_or(default))
}

fn period(probe: &Probe) -> Duration {
    seconds(probe.period_seconds, 10).max(Duration::from_secs(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_count_results_in_a_row() {
        let probe: Probe =
            serde_json::from_value(serde_json::json!({ "successThreshold": 2, "failureThreshold": 3 })).unwrap();
        let mut counter = Counter::new(&probe);
        let verdicts: Vec<_> = [true, false, true, true, false, false, true, false, false, false]
            .map(|result| counter.count(result))
            .into();
        assert_eq!(
            verdicts,
            [None, None, None, Some(true), None, None, None, None, None, Some(false)],
            "a result of the other kind starts the count afresh"
        );
    }
}
