//! Translates between the runner's words and the agent's. Pure but for [`send`].

use std::net::SocketAddr;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc::UnboundedSender;
use udn_agent::protocol::{self, Body, IcmpError, Identify, Op, Probe, ProbeResult};
use udn_model::observation::Outcome;
use udn_model::words::Transport;
use udn_runner::cluster::{Lookup, Over, Report, Shot};

use crate::agent::arrivals::plain;
use crate::agent::{Agent, AgentError};
use crate::flows::Stalls;
use crate::lookups::{self, Names};
use crate::world::Station;

/// How much longer than a probe's timeout its answer may take: a cut stream is attached to again meanwhile.
pub(crate) const GRACE: Duration = Duration::from_secs(15);
/// `EADDRINUSE`: the source port belongs to somebody else.
pub(crate) const ADDRESS_IN_USE: i32 = 98;
/// `EADDRNOTAVAIL`: the same, found at connect time.
pub(crate) const ADDRESS_NOT_AVAILABLE: i32 = 99;

/// Sends all shots at once and reports each. `stalls`: when agents stood still, and how this one is called. `own`: what the identities of this world's and of the nodes' agents begin
/// with.
pub(crate) async fn send(
    station: &Station,
    shots: Vec<Shot>,
    own: &[String],
    names: Option<&Names<'_>>,
    stalls: (&Stalls, &str),
    reports: &UnboundedSender<Report>,
) {
    let mut flying: FuturesUnordered<_> =
        shots.into_iter().map(|shot| one(station, shot, own, names, stalls)).collect();
    while let Some(report) = flying.next().await {
        // A receiver that is gone has stopped waiting for the round.
        let _ = reports.send(report);
    }
}

/// What few shots need is on the heap: thousands of these are under way at once.
async fn one(
    station: &Station,
    mut shot: Shot,
    own: &[String],
    names: Option<&Names<'_>>,
    stalls: (&Stalls, &str),
) -> Report {
    let agent = &station.agent;
    if let Over::Flow(kind) = shot.over {
        return Box::pin(station.flows.look(agent, &shot, kind, own, stalls)).await;
    }
    match shot.lookup.take() {
        None => {}
        Some(Lookup::Question(name, family)) => {
            return Box::pin(lookups::question(agent, &shot, &name, family, names)).await;
        }
        Some(Lookup::First(name, server)) => match Box::pin(lookups::first(agent, &shot, &name, server, names)).await {
            Ok(address) => shot.to = address,
            Err(outcome) => return Report { nonce: shot.nonce, outcome, local: None, flow: None },
        },
    }
    probe(agent, shot, own).await
}

async fn probe(agent: &Agent, shot: Shot, own: &[String]) -> Report {
    let mut result = ask(agent, &shot, shot.source_port).await;
    let taken = |result: &Result<ProbeResult, Outcome>| {
        matches!(result, Ok(ProbeResult { outcome: protocol::Outcome::AgentFailed(failure), .. })
            if matches!(failure.errno, ADDRESS_IN_USE | ADDRESS_NOT_AVAILABLE))
    };
    if shot.source_port.is_some() && taken(&result) {
        result = ask(agent, &shot, None).await;
    }
    match result {
        Ok(result) => {
            let local = result.local.map(plain);
            Report { nonce: shot.nonce, outcome: outcome(result, own), local, flow: None }
        }
        Err(outcome) => Report { nonce: shot.nonce, outcome, local: None, flow: None },
    }
}

async fn ask(agent: &Agent, shot: &Shot, source_port: Option<u16>) -> Result<ProbeResult, Outcome> {
    let Some(transport) = transport(shot.transport) else {
        return Err(Outcome::AgentFailed { why: format!("the agent does not speak {}", shot.transport) });
    };
    let probe = Probe {
        transport,
        to: SocketAddr::new(shot.to, shot.port.unwrap_or(0)),
        from: None,
        source_port,
        timeout_ms: u32::try_from(shot.timeout.as_millis()).unwrap_or(u32::MAX),
        identify: if shot.introduces { Identify::Banner } else { Identify::None },
        nonce: shot.nonce,
    };
    match agent.call(Op::Probe(probe), shot.timeout + GRACE).await {
        Ok(Body::Probe(result)) => Ok(result),
        Ok(other) => Err(Outcome::AgentFailed { why: format!("the agent answered {other:?} to a probe") }),
        Err(error) => Err(failure(&error)),
    }
}

/// The outcome of a probe that the agent could not be made to send.
pub(crate) fn failure(error: &AgentError) -> Outcome {
    match error {
        AgentError::StreamLost(_) | AgentError::Late(_) => Outcome::ControlLost { why: error.to_string() },
        AgentError::Exec(_) | AgentError::Failed(_) | AgentError::Protocol { .. } => {
            Outcome::AgentFailed { why: error.to_string() }
        }
    }
}

/// The agent's word for a transport; `None` where it has none.
pub(crate) const fn transport(transport: Transport) -> Option<protocol::Transport> {
    match transport {
        Transport::Tcp => Some(protocol::Transport::Tcp),
        Transport::Udp => Some(protocol::Transport::Udp),
        Transport::Icmp => Some(protocol::Transport::Icmp),
        Transport::Sctp => None,
    }
}

fn outcome(result: ProbeResult, ours: &[String]) -> Outcome {
    let own = result.local.map(|local| local.ip());
    seen(result.outcome, own, ours)
}

/// What the agent's word for how a socket fared means. `own`: the vantage point's address.
pub(crate) fn seen(outcome: protocol::Outcome, own: Option<std::net::IpAddr>, ours: &[String]) -> Outcome {
    match outcome {
        protocol::Outcome::Open(open) => Outcome::Open {
            peer: open.identity.map(|identity| name_of(identity, ours)),
            source: open.seen_as.map(|seen| seen.ip().to_canonical()),
            rtt_us: open.rtt_us,
        },
        protocol::Outcome::Refused { .. } => Outcome::Refused,
        protocol::Outcome::Reset => Outcome::Reset,
        protocol::Outcome::TimedOut => Outcome::TimedOut,
        protocol::Outcome::Unreachable(unreachable) => {
            // An "unreachable" from the own address is the own kernel's: nobody answered address resolution.
            let by = unreachable.icmp.and_then(|icmp| icmp.from).filter(|from| Some(*from) != own);
            Outcome::Unreachable { why: said(unreachable.icmp, unreachable.errno), by }
        }
        protocol::Outcome::NoRoute { .. } => Outcome::NoRoute,
        protocol::Outcome::AgentFailed(failure) => Outcome::AgentFailed { why: failure.to_string() },
    }
}

/// Who of ours it is; a stranger keeps his name in full.
pub(crate) fn name_of(identity: String, ours: &[String]) -> String {
    let name = ours.iter().find_map(|prefix| identity.strip_prefix(prefix.as_str())).map(str::to_owned);
    name.unwrap_or(identity)
}

fn said(icmp: Option<IcmpError>, errno: i32) -> String {
    match icmp {
        Some(icmp) => format!("icmp type {} code {}", icmp.kind, icmp.code),
        None => format!("errno {errno}"),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use udn_agent::protocol::{Failure, Open, Outcome as Seen, Unreachable};

    use super::*;

    fn result(outcome: Seen) -> ProbeResult {
        ProbeResult { outcome, started_us: 0, took_us: 0, local: Some("10.0.0.1:40000".parse().unwrap()), nonce: 1 }
    }

    fn icmp(from: &str) -> Seen {
        let icmp = IcmpError { kind: 3, code: 1, from: Some(from.parse().unwrap()) };
        Seen::Unreachable(Unreachable { icmp: Some(icmp), errno: 113 })
    }

    #[rstest]
    #[case(Seen::Refused { icmp: None }, Outcome::Refused)]
    #[case(Seen::Reset, Outcome::Reset)]
    #[case(Seen::TimedOut, Outcome::TimedOut)]
    #[case(Seen::NoRoute { errno: 101 }, Outcome::NoRoute)]
    #[case(icmp("10.0.0.254"), Outcome::Unreachable { why: "icmp type 3 code 1".into(), by: Some("10.0.0.254".parse().unwrap()) })]
    #[case(icmp("10.0.0.1"), Outcome::Unreachable { why: "icmp type 3 code 1".into(), by: None })]
    #[case(Seen::Unreachable(Unreachable { icmp: None, errno: 1 }), Outcome::Unreachable { why: "errno 1".into(), by: None })]
    #[case(Seen::AgentFailed(Failure { attempted: "open a socket".into(), errno: 24 }),
        Outcome::AgentFailed { why: "the agent could not open a socket (errno 24)".into() })]
    fn each_outcome_has_one_meaning(#[case] seen: Seen, #[case] expected: Outcome) {
        assert_eq!(outcome(result(seen), &[]), expected);
    }

    #[rstest]
    #[case("k3v9a/blue/a", "blue/a")]
    #[case("k3v9/node0", "node0")]
    #[case("k3v9b/blue/a", "k3v9b/blue/a")]
    #[case("zzzza/blue/a", "zzzza/blue/a")]
    fn identities_of_other_runs_stay_strange(#[case] identity: &str, #[case] peer: &str) {
        let open =
            Open { identity: Some(identity.into()), seen_as: Some("[::ffff:10.0.0.1]:9".parse().unwrap()), rtt_us: 5 };
        let expected = Outcome::Open { peer: Some(peer.into()), source: Some("10.0.0.1".parse().unwrap()), rtt_us: 5 };
        assert_eq!(outcome(result(Seen::Open(open)), &["k3v9a/".into(), "k3v9/".into()]), expected);
    }

    #[test]
    fn lost_streams_and_failed_execs_are_told_apart() {
        assert!(matches!(failure(&AgentError::StreamLost("x".into())), Outcome::ControlLost { .. }));
        assert!(matches!(failure(&AgentError::Exec("x".into())), Outcome::AgentFailed { .. }));
    }
}
