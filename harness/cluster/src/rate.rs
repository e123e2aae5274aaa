//! How many probes a second one agent makes, by the way that a run asks it: exec through the API server. For benchmarks.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use udn_agent::protocol::{Body, Identify, Op, Outcome, Probe, Transport};

use crate::agent::AgentError;
use crate::cluster::Kube;
use crate::error::Error;
use crate::nodes::listen_somewhere;

/// How long a probe is waited for, milliseconds: longer than a queue of them takes on a slow machine.
const TIMEOUT_MS: u32 = 10_000;
/// How long its answer is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// What became of a number of probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many were sent.
    pub probes: usize,
    /// How many of them were open.
    pub open: usize,
    /// From the first question to the last answer.
    pub took: Duration,
}

impl Rate {
    /// Open probes a second.
    #[must_use]
    pub fn per_second(&self) -> f64 {
        #[allow(clippy::cast_precision_loss)] // counts of probes are far below 2^52
        let open = self.open as f64;
        open / self.took.as_secs_f64().max(f64::EPSILON)
    }
}

impl Kube {
    /// Lets the agent outside of the cluster connect to a listener of its own: no network between, so that the agent and
    /// its control stream are measured. Every probe learns by the banner who answered.
    ///
    /// # Errors
    /// There is no such agent, or it does not listen.
    pub async fn tcp_rate(&self, probes: usize, in_flight: usize) -> Result<Rate, Error> {
        let failed = |source| Error::Agent { pod: "outside of the cluster".into(), source };
        let station = self.external_station().await.map_err(|why| failed(AgentError::Failed(why)))?;
        let port = listen_somewhere(&station.agent, Transport::Tcp, "rate").await.map_err(failed)?;
        let to = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
        let begun = Instant::now();
        let one = |nonce: usize| {
            let probe = Probe {
                transport: Transport::Tcp,
                to,
                from: None,
                source_port: None,
                timeout_ms: TIMEOUT_MS,
                identify: Identify::Banner,
                nonce: u64::try_from(nonce).unwrap_or_default(),
            };
            station.agent.call(Op::Probe(probe), PATIENCE)
        };
        let answers = stream::iter((1..=probes).map(one)).buffer_unordered(in_flight.max(1));
        let is_open = |answer: &Result<Body, AgentError>| matches!(answer, Ok(Body::Probe(result)) if matches!(result.outcome, Outcome::Open(_)));
        let open = answers.filter(|answer| std::future::ready(is_open(answer))).count().await;
        let took = begun.elapsed();
        // The agent ends with the run; until then nobody else is to find this port taken.
        let _ = station.agent.call(Op::Unlisten { transport: Transport::Tcp, port }, PATIENCE).await;
        Ok(Rate { probes, open, took })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_open_counts() {
        let rate = Rate { probes: 1000, open: 500, took: Duration::from_millis(250) };
        assert!((rate.per_second() - 2000.0).abs() < 1e-9);
        let none = Rate { probes: 1000, open: 0, took: Duration::ZERO };
        assert!(none.per_second().abs() < 1e-9);
    }
}
