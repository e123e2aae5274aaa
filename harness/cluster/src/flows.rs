//! Flows: begun by the first shot that is about them, looked at by the others.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OnceCell, watch};
use tokio::time::{Instant, sleep};
use udn_agent::protocol::{Body, Flow, FlowEnd, FlowReport, FlowResult, Gap, Op, Transport};
use udn_model::flow::{FlowFigures, FlowGap, FlowRate};
use udn_model::observation::Outcome;
use udn_runner::cluster::{Report, Shot};

use crate::agent::arrivals::plain;
use crate::agent::{Agent, AgentError, Id, clock, now_us};
use crate::probes::{GRACE, failure, name_of, seen, transport};

/// How often a frame leaves.
const PERIOD_US: u32 = 10_000;
/// Nobody ends a flow: it goes with its pod. In a world that is kept, or under agents that a killed run left, it ends by itself.
const LIMIT: Duration = Duration::from_secs(15 * 60);
/// How often a flow is looked at while its next reply is waited for.
const POLL: Duration = Duration::from_millis(50);

type Key = (Transport, SocketAddr);

/// The flows of one vantage point.
#[derive(Debug, Default)]
pub(crate) struct Flows(Mutex<HashMap<Key, Arc<OnceCell<Arc<Begun>>>>>);

/// A flow that was begun.
#[derive(Debug)]
struct Begun {
    id: Id,
    /// The agent's life that it belongs to, as far as that is known: another one knows nothing of it.
    life: Option<u64>,
    /// What came of it, once it has ended.
    end: watch::Receiver<Option<End>>,
    /// What was known when it was last looked at.
    looked: Mutex<Looked>,
}

/// The end of a flow.
#[derive(Clone, Debug)]
struct End {
    /// When it was told, by the harness' clock: later, its last report says nothing of the present any more.
    told_us: i64,
    result: Result<FlowResult, AgentError>,
}

/// What is known of a flow.
#[derive(Clone, Copy, Debug, Default)]
struct Looked {
    /// When, microseconds since it began.
    at_us: u64,
    /// How much it had lost by then.
    lost: u64,
}

/// Gaps are told again for so long after their end, microseconds: whether an agent stood still then may be known a little later.
const TOLD_AGAIN_US: u64 = 6_000_000;

impl Flows {
    /// Begins the flow of a shot where there is none, and waits for its next reply.
    /// `stalls`: when agents of this world stood still; `me`: how the sender is called.
    pub(crate) async fn look(
        &self,
        agent: &Agent,
        shot: &Shot,
        own: &[String],
        (stalls, me): (&Stalls, &str),
    ) -> Report {
        let nonce = shot.nonce;
        let (outcome, figures, local) = match self.next_reply(agent, shot, own).await {
            Ok((outcome, flow, Told { at_us, report })) => {
                let mut figures = flow.figures(&report, at_us);
                stalls.note(me, &report, at_us);
                if let Some(peer) = report.identity.clone() {
                    stalls.blame(&[me, &name_of(peer, own)], &mut figures.gaps);
                }
                // A flow that has ended is not begun again: what it was cut by stays its end.
                figures.ended = flow.ended().map(|end| end.to_string());
                (outcome, Some(figures), report.local.map(plain))
            }
            Err(outcome) => (outcome, None, None),
        };
        Report { nonce, outcome, local, flow: figures }
    }

    async fn next_reply(
        &self,
        agent: &Agent,
        shot: &Shot,
        own: &[String],
    ) -> Result<(Outcome, Arc<Begun>, Told), Outcome> {
        let Some(wire) = transport(shot.transport) else {
            return Err(Outcome::AgentFailed { why: format!("the agent does not speak {}", shot.transport) });
        };
        let key = (wire, SocketAddr::new(shot.to, shot.port.unwrap_or(0)));
        let known = self.known().entry(key).or_default().clone();
        let flow = known.get_or_try_init(|| begin(agent, key, shot.timeout)).await;
        let flow = flow.map_err(|error| failure(&error))?.clone();
        if flow.life.zip(agent.life()).is_some_and(|(then, now)| then != now) {
            return Err(Outcome::AgentFailed {
                why: "the agent was started anew, and its connections are gone".into(),
            });
        }
        let deadline = Instant::now() + shot.timeout;
        let mut before = None;
        loop {
            let told = match flow.state(agent).await? {
                State::Runs(told) => told,
                State::Ended(end, told) => {
                    if let FlowEnd::NotEstablished(outcome) = end {
                        // There never was a connection: the next shot tries to make one.
                        self.known().remove(&key);
                        return Err(seen(outcome, told.report.local.map(|local| local.ip()), own));
                    }
                    return Ok((ended(end), flow, told));
                }
            };
            let report = &told.report;
            let answered = *before.get_or_insert(report.received) < report.received;
            if answered && report.established() {
                let mut outcome = open(report, own);
                // An echo carries no identity but the address that it was sent to.
                if let (Transport::Icmp, Outcome::Open { peer, .. }) = (wire, &mut outcome) {
                    *peer = None;
                }
                return Ok((outcome, flow, told));
            }
            if Instant::now() >= deadline {
                return Ok((Outcome::TimedOut, flow, told));
            }
            sleep(POLL).await;
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Arc<OnceCell<Arc<Begun>>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a flow is now.
enum State {
    Runs(Told),
    Ended(FlowEnd, Told),
}

/// A report, and when it was made, by the harness' clock.
struct Told {
    at_us: i64,
    report: Box<FlowReport>,
}

async fn begin(agent: &Agent, (transport, to): Key, timeout: Duration) -> Result<Arc<Begun>, AgentError> {
    let millis = |duration: Duration| u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
    let flow = Flow {
        transport,
        to,
        from: None,
        source_port: None,
        period_us: PERIOD_US,
        connect_timeout_ms: millis(timeout),
        limit_ms: millis(LIMIT),
    };
    let (id, answer) = agent.begin(Op::Flow(flow)).await?;
    let (teller, end) = watch::channel(None);
    tokio::spawn(async move {
        let result = answer.await.and_then(|body| match body {
            Body::Flow(result) => Ok(result),
            Body::Failed(failure) => Err(failure.into()),
            other => Err(AgentError::Failed(format!("the agent answered {other:?} to a flow"))),
        });
        teller.send_replace(Some(End { told_us: now_us(), result }));
    });
    Ok(Arc::new(Begun { id, life: agent.life(), end, looked: Mutex::default() }))
}

impl Begun {
    async fn state(&self, agent: &Agent) -> Result<State, Outcome> {
        let asked = agent.call(Op::FlowState { flow: self.id }, GRACE).await;
        if let Ok(Body::FlowState(report)) = asked {
            return Ok(State::Runs(Told { at_us: now_us(), report }));
        }
        // It does not run any more; then its end has been told, or is about to be.
        let mut end = self.end.clone();
        let told = tokio::time::timeout(GRACE, end.wait_for(Option::is_some)).await;
        let told = told.ok().and_then(Result::ok).and_then(|end| end.clone());
        match (told, asked) {
            (Some(End { told_us, result: Ok(FlowResult { end, report }) }), _) => {
                Ok(State::Ended(end, Told { at_us: told_us, report }))
            }
            (Some(End { result: Err(error), .. }), _) | (None, Err(error)) => Err(failure(&error)),
            (None, Ok(other)) => {
                Err(Outcome::AgentFailed { why: format!("the agent answered {other:?} to a question about a flow") })
            }
        }
    }

    /// Why it ended, where an end was told.
    fn ended(&self) -> Option<Outcome> {
        match &*self.end.borrow() {
            Some(End { result: Ok(FlowResult { end, .. }), .. }) => Some(ended(end.clone())),
            _ => None,
        }
    }

    /// The figures, and how the flow fared since it was last looked at. `told_us`: when the report was made.
    fn figures(&self, report: &FlowReport, told_us: i64) -> FlowFigures {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let figures = figures(report, *looked, told_us);
        *looked = Looked { at_us: report.took_us, lost: report.lost };
        figures
    }
}

/// The figures; of gaps those that had not ended when it was last looked at. `now_us`: the harness' clock.
fn figures(report: &FlowReport, looked: Looked, now_us: i64) -> FlowFigures {
    let ahead_us = now_us - clock(report.started_us + report.took_us);
    let ended = |gap: &&Gap| (gap.started_us + gap.took_us).saturating_sub(report.started_us) > looked.at_us;
    let told = |gap: &Gap| FlowGap {
        at_us: clock(gap.started_us) + ahead_us,
        took_ms: gap.took_us / 1000,
        starved_ms: 0,
        open: false,
    };
    let outage_ms = report.gaps.iter().filter(ended).map(|gap| gap.took_us / 1000).max().unwrap_or_default();
    let lately =
        |gap: &&Gap| (gap.started_us + gap.took_us).saturating_sub(report.started_us) + TOLD_AGAIN_US > looked.at_us;
    let mut gaps: Vec<FlowGap> = report.gaps.iter().filter(lately).map(told).collect();
    if report.since_last_reply_us > report.gap_over_us {
        let at_us = now_us - clock(report.since_last_reply_us);
        gaps.push(FlowGap { at_us, took_ms: report.since_last_reply_us / 1000, starved_ms: 0, open: true });
    }
    FlowFigures {
        sent: report.sent,
        received: report.received,
        lost: report.lost,
        lost_now: report.lost.saturating_sub(looked.lost),
        retransmits: report.tcp.map_or(0, |tcp| tcp.retransmits),
        outage_ms: gaps.iter().filter(|gap| gap.open).map(|gap| gap.took_ms).fold(outage_ms, u64::max),
        bytes_sent: report.bytes_sent,
        bytes_received: report.bytes_received,
        ended: None,
        gaps,
        rate: Some(FlowRate {
            from_us: clock(report.rate_from_us) + ahead_us,
            per_100ms: report.rate.iter().copied().map(u64::from).collect(),
        }),
    }
}

/// When agents had no processor, as far as their own flows told: a gap says nothing of the network while either end stood still.
#[derive(Debug, Default)]
pub(crate) struct Stalls(Mutex<HashMap<String, BTreeSet<(i64, i64)>>>);

/// Stalls that are kept of an agent, the latest ones.
const STALLS: usize = 4096;

impl Stalls {
    fn note(&self, agent: &str, report: &FlowReport, now_us: i64) {
        let ahead_us = now_us - clock(report.started_us + report.took_us);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = all.entry(agent.to_owned()).or_default();
        for stall in &report.stalls {
            let to = clock(stall.at_us) + ahead_us;
            known.insert((to - clock(stall.late_us), to));
        }
        while known.len() > STALLS {
            known.pop_first();
        }
    }

    /// Says of gaps for how much of them one of these agents stood still.
    fn blame(&self, agents: &[&str], gaps: &mut [FlowGap]) {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut stalls: Vec<(i64, i64)> =
            agents.iter().filter_map(|agent| all.get(*agent)).flatten().copied().collect();
        stalls.sort_unstable();
        for gap in gaps {
            let (mut at, to) = (gap.at_us, gap.at_us + clock(gap.took_ms * 1000));
            let mut starved_us = 0;
            for (from, until) in &stalls {
                let (from, until) = ((*from).max(at), (*until).min(to));
                starved_us += (until - from).max(0);
                at = at.max(until);
            }
            gap.starved_ms = u64::try_from(starved_us / 1000).unwrap_or_default();
        }
    }
}

fn open(report: &FlowReport, own: &[String]) -> Outcome {
    Outcome::Open {
        peer: report.identity.clone().map(|identity| name_of(identity, own)),
        source: report.seen_as.map(|seen| seen.ip().to_canonical()),
        rtt_us: report.rtt.map_or(0, |rtt| rtt.median_us),
    }
}

/// What the end of an established flow is to a cell.
fn ended(end: FlowEnd) -> Outcome {
    let lost = |why: &str| Outcome::AgentFailed { why: why.to_owned() };
    match end {
        FlowEnd::Reset => Outcome::Reset,
        FlowEnd::TimedOut => Outcome::TimedOut,
        FlowEnd::Unreachable(unreachable) => {
            Outcome::Unreachable { why: format!("errno {}", unreachable.errno), by: None }
        }
        FlowEnd::NotEstablished(_) => Outcome::TimedOut,
        FlowEnd::Closed => lost("the peer's agent closed the connection"),
        FlowEnd::Asked => lost("the connection was ended by its own agent"),
        FlowEnd::Limit => lost("the flow lasted longer than a scenario may"),
        FlowEnd::Garbled { why } => Outcome::Garbled { why },
        FlowEnd::AgentFailed(failure) => lost(&failure.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use udn_agent::protocol::Stall;

    use super::*;
    use rstest::rstest;

    fn gap(from_ms: u64, ms: u64) -> Gap {
        Gap { started_us: 1_000_000 + from_ms * 1000, took_us: ms * 1000, sent: 1 }
    }

    #[rstest]
    #[case::none(vec![], 5, 0, 0)]
    #[case::longest(vec![gap(100, 700), gap(2000, 300)], 5, 0, 700)]
    #[case::only_since_the_last_look(vec![gap(100, 700), gap(2000, 300)], 5, 1500, 300)]
    #[case::one_that_had_begun_before(vec![gap(100, 700)], 5, 400, 700)]
    #[case::still_out(vec![gap(100, 700)], 900, 0, 900)]
    fn outages(#[case] gaps: Vec<Gap>, #[case] since_ms: u64, #[case] after_ms: u64, #[case] outage_ms: u64) {
        let report = FlowReport {
            started_us: 1_000_000,
            gaps,
            since_last_reply_us: since_ms * 1000,
            gap_over_us: 35_000,
            ..FlowReport::default()
        };
        let looked = Looked { at_us: after_ms * 1000, lost: 0 };
        assert_eq!(figures(&report, looked, 9_000_000).outage_ms, outage_ms);
    }

    #[test]
    fn gaps_are_told_by_the_harness_clock_with_what_either_end_slept() {
        // The agent's clock: the flow began at one second and was asked five seconds later, when ours said 1006 s.
        let at = |at_us, late_us| Stall { at_us, late_us };
        let report = FlowReport {
            started_us: 1_000_000,
            took_us: 5_000_000,
            gaps: vec![gap(100, 3000)],
            stalls: vec![at(2_500_000, 2_480_000), at(5_000_000, 700_000)],
            lost: 7,
            ..FlowReport::default()
        };
        let mut figures = figures(&report, Looked { at_us: 0, lost: 4 }, 1_006_000_000);
        assert_eq!(figures.lost_now, 3);
        let stalls = Stalls::default();
        stalls.note("red/db", &report, 1_006_000_000);
        stalls.blame(&["red/near"], &mut figures.gaps);
        assert_eq!(figures.gaps[0].starved_ms, 0);
        // From 1.1 to 4.1 s: the first stall's end, and none of the second; what overlaps counts once.
        stalls.note(
            "red/near",
            &FlowReport { stalls: vec![at(2_400_000, 100_000), at(3_000_000, 200_000)], ..report },
            1_006_000_000,
        );
        stalls.blame(&["red/near", "red/db"], &mut figures.gaps);
        let told = FlowGap { at_us: 1_001_100_000, took_ms: 3000, starved_ms: 1600, open: false };
        assert_eq!(figures.gaps, [told]);
    }
}
