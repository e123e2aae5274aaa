//! Flows: long-lived connections that are measured while something happens to their ends.
//!
//! A frame leaves every [`Flow::period_us`] whether or not replies come; the peer returns each. Over TCP the peer is an
//! agent's port with [`super::Listen::echo`]; over UDP any port of an agent's, whose banner returns the frame's number.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

#[cfg(doc)]
use super::{Banner, Body, Listen, Op, RESEND_MS};
use super::{Failure, Outcome, Transport, Unreachable};

/// Flows that an agent holds at once. One more is answered by [`Body::Failed`].
pub const FLOWS: usize = 64;

/// TCP connections that an agent's echo ports serve at once, all together. One more is told so instead of the banner and
/// closed, unless a connection has been silent for [`ECHO_SILENT_MS`]: then that one is closed to make room.
pub const ECHOES: usize = 128;

/// A connection of an echo port that has said nothing for so long may be closed in favour of another, milliseconds: its
/// client may be gone without a word. Longer than any outage that is to be measured while the port is full.
pub const ECHO_SILENT_MS: u64 = 120_000;

/// Shortest and longest [`Flow::period_us`].
pub const FLOW_PERIODS_US: core::ops::RangeInclusive<u32> = 1_000..=10_000;

/// The longest of a flow's gaps are kept, at most this many.
pub const GAPS_KEPT: usize = 16;

/// Stalls of the agent itself that are kept, at most.
pub const STALLS_KEPT: usize = 16;

/// First bytes of a flow's frame over UDP, or of its payload over ICMP; 16 hexadecimal digits of its nonce and a newline follow. Such a datagram is no
/// [`super::Arrival`]: two hundred a second would push the others out. The first frame is a probe's instead, and so is
/// one every [`RESEND_MS`] until a reply comes: they arrive, with nonces from [`FlowReport::nonce`] on.
pub const FLOW_MAGIC: &[u8] = b"udn-flow ";

/// A flow to begin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// TCP, UDP or ICMP (echo requests at the period; whoever has the address answers).
    pub transport: Transport,
    /// Target; the port is 0 for ICMP.
    pub to: SocketAddr,
    /// Source address to bind to; the kernel's choice if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<IpAddr>,
    /// Source port to bind to; the kernel's choice if none. ICMP: the identifier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_port: Option<u16>,
    /// A frame leaves so often, microseconds; one of [`FLOW_PERIODS_US`].
    pub period_us: u32,
    /// Give up if the flow is not established after so long, milliseconds.
    pub connect_timeout_ms: u32,
    /// End the flow after so long, milliseconds from its start: nobody may be left to end it.
    pub limit_ms: u32,
}

/// How a flow went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowResult {
    /// Why it ended.
    pub end: FlowEnd,
    /// The figures at its end.
    pub report: Box<FlowReport>,
}

/// Why a flow ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FlowEnd {
    /// By [`Op::EndFlow`].
    Asked,
    /// [`Flow::limit_ms`] passed.
    Limit,
    /// TCP: the peer closed the connection (FIN). An agent's port without [`Listen::echo`] does so after its banner.
    Closed,
    /// TCP: the established connection was reset.
    Reset,
    /// TCP: the kernel gave up sending again (ETIMEDOUT).
    TimedOut,
    /// TCP: the kernel ended the established connection with another error, such as EHOSTUNREACH when it gave up sending
    /// again after ICMP errors.
    Unreachable(Unreachable),
    /// What came back is not what was sent: somebody else's bytes in this connection.
    Garbled {
        /// What was wrong with it.
        why: String,
    },
    /// It never was established; never [`Outcome::Open`]. [`Outcome::TimedOut`] with a [`FlowReport::connect_us`]: the
    /// handshake completed but the peer did not say who it is. [`Outcome::AgentFailed`]: also when the peer is no echo
    /// port, or a full one; it quotes what that said.
    NotEstablished(Outcome),
    /// The agent could not do its part: neither a pass nor a fail of the network.
    AgentFailed(Failure),
}

/// The figures of a flow, while it runs ([`Op::FlowState`]) or at its end ([`FlowResult`]).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowReport {
    /// When the first packet was sent, microseconds since 1970.
    pub started_us: u64,
    /// From there to this report, microseconds, by the monotonic clock, as all durations here.
    pub took_us: u64,
    /// TCP: time of the handshake. UDP, ICMP: from the start to the first reply. Microseconds; none: did not come to that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect_us: Option<u64>,
    /// The flow's own end of the socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<SocketAddr>,
    /// UDP: nonce of the first frame; the next has the next, up to [`u64::MAX`] and then from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<u64>,
    /// Whom it reached, as the peer said itself; ICMP: the target's address. None: not established (yet).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// UDP: who else answered later, in order of appearance, at most four.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<String>,
    /// The flow's source address as the peer saw it first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen_as: Option<SocketAddr>,
    /// Frames handed to the kernel.
    pub sent: u64,
    /// Of these, how many came back; each counts once.
    pub received: u64,
    /// Frames that were due but did not leave: TCP: the socket's buffer was full; UDP: the kernel refused (see `faults`).
    pub held_back: u64,
    /// Frames that were due but were not even tried because the agent had no processor.
    pub missed: u64,
    /// The longest that the agent was late for a frame, microseconds: gaps no longer than that say nothing of the network.
    pub late_us: u64,
    /// When the agent was later than 20 ms: a gap that one of these is in may be the agent's, which had no processor, and
    /// not the network's. The [`STALLS_KEPT`] longest ones, in the order of time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stalls: Vec<Stall>,
    /// Bytes of frames handed to the kernel.
    pub bytes_sent: u64,
    /// Bytes that came back. TCP: of frames, so at the end of an undisturbed flow as many as `bytes_sent` less what is
    /// on its way. UDP: of banners, which are longer.
    pub bytes_received: u64,
    /// Frames without a reply that were sent before one with a reply. TCP: always 0, else the stream is broken.
    /// A frame behind the last one with a reply is not lost but on its way: `sent` - `received` - `lost`.
    pub lost: u64,
    /// Replies that came after the reply to a later frame. TCP: always 0.
    pub reordered: u64,
    /// Replies that came again; only among the last 4096 frames over UDP. TCP: always 0.
    pub duplicated: u64,
    /// UDP: datagrams that answer no frame of this flow.
    pub garbled: u64,
    /// When the first reply came, microseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_reply_us: Option<u64>,
    /// When the last reply came, microseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_reply_us: Option<u64>,
    /// From the last reply (none yet: from the start) to this report, microseconds. Longer than `gap_over_us`: an outage
    /// that has not ended. It is not among the gaps.
    pub since_last_reply_us: u64,
    /// A gap is longer than this, microseconds: three periods and 20 ms. So two lost datagrams in a row or what TCP mends
    /// without waiting are none, nor is a busy processor's delay; every time that TCP has to wait for its timer is one
    /// (at least 200 ms).
    pub gap_over_us: u64,
    /// How many gaps there were.
    pub gap_count: u64,
    /// The [`GAPS_KEPT`] longest ones, in the order of time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<Gap>,
    /// The longest time between two replies, gap or not, microseconds.
    #[serde(default)]
    pub longest_us: u64,
    /// When the first class of `rate` began, microseconds since 1970.
    #[serde(default)]
    pub rate_from_us: u64,
    /// Replies in each tenth of a second, the last [`RATES_KEPT`]; the last one has not ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rate: Vec<u16>,
    /// Round-trip times of frames; of those among the last 4096 when their reply came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt: Option<RoundTrips>,
    /// The same of the last 256 that are known: asked for before and after something, it tells what that changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recent_rtt: Option<RoundTrips>,
    /// Errors that the flow survived: ICMP messages (an established TCP connection learns no more of them than the error
    /// number), and datagrams that the kernel refused to send.
    pub faults: u64,
    /// The last of these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_fault: Option<Unreachable>,
    /// What the kernel knows of the connection (TCP).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TcpFigures>,
}

impl FlowReport {
    /// Is or was it established: did the peer say who it is?
    #[must_use]
    pub const fn established(&self) -> bool {
        self.identity.is_some()
    }
}

/// Classes of [`FlowReport::rate`], each a tenth of a second long, that the agent keeps.
pub const RATES_KEPT: usize = 64;

/// A time without replies that ended with one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The last reply before it, microseconds since 1970.
    pub started_us: u64,
    /// From there to the next reply, microseconds, by the monotonic clock.
    pub took_us: u64,
    /// Frames sent in between. Far fewer than periods in it: the agent itself stood still, or held them back.
    pub sent: u64,
}

/// A time in which the agent did not run though it had something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stall {
    /// When it ran again, microseconds since 1970.
    pub at_us: u64,
    /// How late it was then, microseconds, by the monotonic clock: which stands still too while a VM is paused.
    pub late_us: u64,
}

/// Round-trip times, microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoundTrips {
    /// The shortest.
    pub min_us: u64,
    /// Half of them are shorter; up to a fifth less than the true one.
    pub median_us: u64,
    /// The longest.
    pub max_us: u64,
}

/// What the kernel knows of a TCP connection (`TCP_INFO`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpFigures {
    /// State by the kernel's number: 1 established, 2 SYN sent, 7 closed, 8 close wait …
    pub state: u8,
    /// Segments sent again, in the whole life of the connection.
    pub retransmits: u32,
    /// Segments that are believed to be lost now.
    pub lost: u32,
    /// Segments that are not acknowledged now.
    pub unacked: u32,
    /// How often the timer has doubled since the last acknowledgement.
    pub backoff: u8,
    /// Retransmission timeout now, microseconds.
    pub rto_us: u32,
    /// Smoothed round-trip time, microseconds.
    pub rtt_us: u32,
}

#[cfg(test)]
mod tests {
    use super::super::{Body, Listen, Message, Op, Request};
    use super::*;
    use std::fmt::Debug;

    fn reads_and_writes<T: Debug + PartialEq + Serialize + for<'a> Deserialize<'a>>(value: &T, text: &str) {
        assert_eq!(serde_json::to_string(value).expect("JSON"), text);
        assert_eq!(&serde_json::from_str::<T>(text).expect("the value"), value);
    }

    #[test]
    fn requests_on_the_wire() {
        let flow = Flow {
            transport: Transport::Tcp,
            to: "10.0.0.1:80".parse().expect("address"),
            from: None,
            source_port: Some(4000),
            period_us: 5000,
            connect_timeout_ms: 1000,
            limit_ms: 60000,
        };
        reads_and_writes(
            &Request { id: 3, op: Op::Flow(flow) },
            r#"{"id":3,"op":{"flow":{"transport":"tcp","to":"10.0.0.1:80","source_port":4000,"period_us":5000,"connect_timeout_ms":1000,"limit_ms":60000}}}"#,
        );
        reads_and_writes(
            &Request { id: 4, op: Op::FlowState { flow: 3 } },
            r#"{"id":4,"op":{"flow-state":{"flow":3}}}"#,
        );
        reads_and_writes(&Request { id: 5, op: Op::EndFlow { flow: 3 } }, r#"{"id":5,"op":{"end-flow":{"flow":3}}}"#);
        let listen = Listen { transport: Transport::Tcp, port: 80, identity: "a".into(), echo: true };
        reads_and_writes(&listen, r#"{"transport":"tcp","port":80,"identity":"a","echo":true}"#);
    }

    #[test]
    fn a_report_on_the_wire() {
        let report = FlowReport {
            started_us: 1,
            took_us: 2,
            connect_us: Some(3),
            local: "10.0.0.2:9".parse().ok(),
            identity: Some("a".into()),
            seen_as: "10.0.0.3:9".parse().ok(),
            sent: 4,
            received: 5,
            first_reply_us: Some(6),
            last_reply_us: Some(7),
            since_last_reply_us: 8,
            gap_over_us: 35000,
            gap_count: 1,
            gaps: Vec::from([Gap { started_us: 9, took_us: 10, sent: 11 }]),
            longest_us: 10,
            rate_from_us: 15,
            rate: Vec::from([16, 17]),
            rtt: Some(RoundTrips { min_us: 12, median_us: 13, max_us: 14 }),
            tcp: Some(TcpFigures { state: 1, rto_us: 200_000, ..TcpFigures::default() }),
            ..FlowReport::default()
        };
        let text = concat!(
            r#"{"started_us":1,"took_us":2,"connect_us":3,"local":"10.0.0.2:9","identity":"a","seen_as":"10.0.0.3:9","#,
            r#""sent":4,"received":5,"held_back":0,"missed":0,"late_us":0,"bytes_sent":0,"bytes_received":0,"lost":0,"#,
            r#""reordered":0,"duplicated":0,"garbled":0,"first_reply_us":6,"last_reply_us":7,"since_last_reply_us":8,"#,
            r#""gap_over_us":35000,"gap_count":1,"gaps":[{"started_us":9,"took_us":10,"sent":11}],"longest_us":10,"rate_from_us":15,"rate":[16,17],"#,
            r#""rtt":{"min_us":12,"median_us":13,"max_us":14},"faults":0,"#,
            r#""tcp":{"state":1,"retransmits":0,"lost":0,"unacked":0,"backoff":0,"rto_us":200000,"rtt_us":0}}"#
        );
        let message = |body| Message { seq: 1, id: 2, body };
        let state = [r#"{"seq":1,"id":2,"body":{"flow-state":"#, text, "}}"].concat();
        reads_and_writes(&message(Body::FlowState(Box::new(report.clone()))), &state);
        for (end, said) in [
            (FlowEnd::Asked, r#""asked""#),
            (FlowEnd::TimedOut, r#""timed-out""#),
            (FlowEnd::Unreachable(Unreachable { icmp: None, errno: 113 }), r#"{"unreachable":{"errno":113}}"#),
            (FlowEnd::NotEstablished(Outcome::Refused { icmp: None }), r#"{"not-established":{"refused":{}}}"#),
        ] {
            let line = [r#"{"seq":1,"id":2,"body":{"flow":{"end":"#, said, r#","report":"#, text, "}}}"].concat();
            reads_and_writes(&message(Body::Flow(FlowResult { end, report: Box::new(report.clone()) })), &line);
        }
    }
}
