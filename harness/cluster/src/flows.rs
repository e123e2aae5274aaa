//! Flows: begun by the first shot that is about them, looked at by the others.
//!
//! * [`said`]: what agents say of them
//! * [`figures`]: what that comes to

mod figures;
mod said;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OnceCell, watch};
use tokio::time::{Instant, sleep};
use udn_agent::protocol::{Body, Bulk, Direction, Flow, FlowEnd, Op, Transport};
use udn_model::flow::{BULK_BYTES_PER_SECOND, FlowFigures, FlowKind};
use udn_model::observation::Outcome;
use udn_runner::cluster::{Report, Shot};

pub(crate) use self::figures::Stalls;
use self::figures::{Looked, figures};
use self::said::Said;
use crate::agent::arrivals::plain;
use crate::agent::{Agent, AgentError, Id, now_us};
use crate::probes::{GRACE, failure, name_of, seen, transport};

/// How often a frame leaves.
const PERIOD_US: u32 = 10_000;
/// Nobody ends a flow: it goes with its pod. In a world that is kept, or under agents that a killed run left, it ends by itself.
const LIMIT: Duration = Duration::from_secs(15 * 60);
/// How often a flow is looked at while its next reply is waited for.
const POLL: Duration = Duration::from_millis(50);

type Key = (FlowKind, Transport, SocketAddr);

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
    result: Result<(FlowEnd, Said), AgentError>,
}

impl Flows {
    /// Begins the flow of a shot where there is none, and waits for its next reply, or byte.
    /// `stalls`: when agents of this world stood still; `me`: how the sender is called.
    pub(crate) async fn look(
        &self,
        agent: &Agent,
        shot: &Shot,
        kind: FlowKind,
        own: &[String],
        (stalls, me): (&Stalls, &str),
    ) -> Report {
        let nonce = shot.nonce;
        let (outcome, figures, local) = match self.next_reply(agent, shot, kind, own).await {
            Ok((outcome, flow, Told { at_us, said })) => {
                let mut figures = flow.figures(&said, at_us);
                let report = said.common();
                stalls.note(me, &report, at_us);
                if let Some(peer) = report.identity {
                    stalls.blame(&[me, &name_of(peer.to_owned(), own)], &mut figures.gaps);
                }
                // A flow that has ended is not begun again: what it was cut by stays its end.
                figures.ended = flow.ended().map(|end| end.to_string());
                (outcome, Some(figures), report.local.map(plain))
            }
            Err(outcome) => (outcome, None, None),
        };
        Report { nonce, outcome, local, flow: figures.map(Box::new) }
    }

    async fn next_reply(
        &self,
        agent: &Agent,
        shot: &Shot,
        kind: FlowKind,
        own: &[String],
    ) -> Result<(Outcome, Arc<Begun>, Told), Outcome> {
        let Some(wire) = transport(shot.transport) else {
            return Err(Outcome::AgentFailed { why: format!("the agent does not speak {}", shot.transport) });
        };
        let key = (kind, wire, SocketAddr::new(shot.to, shot.port.unwrap_or(0)));
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
                        return Err(seen(outcome, told.said.common().local.map(|local| local.ip()), own));
                    }
                    return Ok((ended(end), flow, told));
                }
            };
            let report = told.said.common();
            let answered = *before.get_or_insert(report.progress) < report.progress;
            if let Some(identity) = report.identity.filter(|_| answered) {
                // An echo carries no identity but the address that it was sent to.
                let peer = (wire != Transport::Icmp).then(|| name_of(identity.to_owned(), own));
                let source = report.seen_as.map(|seen| seen.ip().to_canonical());
                let outcome = Outcome::Open { peer, source, rtt_us: report.rtt_us };
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
    said: Said,
}

async fn begin(agent: &Agent, (kind, transport, to): Key, timeout: Duration) -> Result<Arc<Begun>, AgentError> {
    let millis = |duration: Duration| u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
    let (connect_timeout_ms, limit_ms) = (millis(timeout), millis(LIMIT));
    let (from, source_port) = (None, None);
    let flow = match kind {
        FlowKind::Frames => {
            let period_us = PERIOD_US;
            Op::Flow(Flow { transport, to, from, source_port, period_us, connect_timeout_ms, limit_ms })
        }
        FlowKind::Bulk => {
            let (direction, bytes_per_second) = (Direction::Send, Some(BULK_BYTES_PER_SECOND));
            Op::Bulk(Bulk { to, from, source_port, direction, bytes_per_second, connect_timeout_ms, limit_ms })
        }
    };
    let (id, answer) = agent.begin(flow).await?;
    let (teller, end) = watch::channel(None);
    tokio::spawn(async move {
        let result = answer.await.and_then(|body| {
            Said::of_end(body).map_err(|other| match *other {
                Body::Failed(failure) => failure.into(),
                other => AgentError::Failed(format!("the agent answered {other:?} to a flow")),
            })
        });
        teller.send_replace(Some(End { told_us: now_us(), result }));
    });
    Ok(Arc::new(Begun { id, life: agent.life(), end, looked: Mutex::default() }))
}

impl Begun {
    async fn state(&self, agent: &Agent) -> Result<State, Outcome> {
        let asked = match agent.call(Op::FlowState { flow: self.id }, GRACE).await.map(Said::of_state) {
            Ok(Ok(said)) => return Ok(State::Runs(Told { at_us: now_us(), said })),
            Ok(Err(other)) => Ok(other),
            Err(error) => Err(error),
        };
        // It does not run any more; then its end has been told, or is about to be.
        let mut end = self.end.clone();
        let told = tokio::time::timeout(GRACE, end.wait_for(Option::is_some)).await;
        let told = told.ok().and_then(Result::ok).and_then(|end| end.clone());
        match (told, asked) {
            (Some(End { told_us, result: Ok((end, said)) }), _) => Ok(State::Ended(end, Told { at_us: told_us, said })),
            (Some(End { result: Err(error), .. }), _) | (None, Err(error)) => Err(failure(&error)),
            (None, Ok(other)) => {
                Err(Outcome::AgentFailed { why: format!("the agent answered {other:?} to a question about a flow") })
            }
        }
    }

    /// Why it ended, where an end was told.
    fn ended(&self) -> Option<Outcome> {
        match &*self.end.borrow() {
            Some(End { result: Ok((end, _)), .. }) => Some(ended(end.clone())),
            _ => None,
        }
    }

    /// The figures, and how the flow fared since it was last looked at. `told_us`: when the report was made.
    fn figures(&self, said: &Said, told_us: i64) -> FlowFigures {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let figures = figures(said, *looked, told_us);
        *looked = Looked { at_us: said.common().took_us, lost: figures.lost };
        figures
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
