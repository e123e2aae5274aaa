//! What is said on the control stream: JSON Lines, many requests in flight, answers in any order.
//!
//! The client writes a [`Request`] per line, the agent a [`Message`] per line. Every answer carries the request's `id`
//! and a `seq` that grows by one; the agent keeps an answer until it is acknowledged, so that a cut stream loses none:
//!
//! 1. On every attachment the agent says [`Body::Hello`] (`seq` 0).
//! 2. The client answers with [`Op::Attach`] naming its session and the last `seq` that it has in full.
//!    The agent replays the later answers in order and goes on live.
//! 3. The client sends again every request that it has no answer to. The agent ignores an `id` that it is working on or
//!    has an unacknowledged answer to, so nothing is done twice.
//! 4. From time to time the client sends [`Op::Ack`], which makes room in the agent.
//!
//! A console ([`Op::Greet`]) has no connection that begins and ends:
//!
//! 1. The client begins with a bare newline, which ends whatever half a line is there, and [`Op::Greet`]. The agent forgets
//!    what it had not sent yet, ends its half line, and says [`Body::Hello`] under the request's id. Then as above.
//! 2. Before the first [`Op::Greet`] the agent says nothing, and does nothing that it is told.
//! 3. Lines that are not JSON (kernel messages, login prompts) are skipped by either side.
//! 4. A `seq` that is not the next one tells the client that lines were lost: it greets and attaches again, and they are
//!    replayed.
//!
//! A different [`Hello::boot`] than before means that the agent was started anew: its listeners and answers are gone.
//! The last attachment wins; an older one is closed. A half-written last line is to be thrown away by either side.
//!
//! * [`Request`], [`Op`]: what the client says; [`Message`], [`Body`]: what the agent says
//! * [`Probe`], [`ProbeResult`], [`Outcome`], [`Listen`], [`Banner`]: attempts and whom they meet
//! * [`Resolve`], [`Resolved`]: questions to DNS servers
//! * [`Arrivals`], [`Arrival`]: the other side of an attempt
//! * [`Announcements`], [`Announcement`]: who says where an address is
//! * [`Flow`], [`FlowReport`], [`FlowResult`]: connections measured while something happens to their ends
//! * [`Bulk`], [`BulkReport`], [`BulkResult`]: as many bytes as go through, one way
//! * [`Facts`]: interfaces, routes, neighbours, resolvers; [`Guest`]: what the network told a VM

mod announcement;
mod arrival;
mod bulk;
mod facts;
mod flow;
mod guest;
mod probe;
mod resolve;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

pub use self::announcement::{
    ANNOUNCEMENTS_KEPT, ANNOUNCEMENTS_PER_ANSWER, Announcement, AnnouncementKind, Announcements,
};
pub use self::arrival::{ARRIVALS_KEPT, ARRIVALS_PER_ANSWER, Arrival, Arrivals, Evidence};
pub use self::bulk::{
    BULK_ACCEPTED, BULK_BUCKET_US, BULK_BUCKETS, BULK_SINK, BULK_SOURCE, BULK_SPOILT, BULKS, Bulk, BulkReport,
    BulkResult, Direction,
};
pub use self::facts::{Facts, Interface, InterfaceAddress, Neighbour, NextHop, Resolvers, Route};
pub use self::flow::{
    ECHO_SILENT_MS, ECHOES, FLOW_MAGIC, FLOW_PERIODS_US, FLOWS, Flow, FlowEnd, FlowReport, FlowResult, GAPS_KEPT, Gap,
    RATES_KEPT, RoundTrips, STALLS_KEPT, Stall, TcpFigures,
};
pub use self::guest::{AdvertisedPrefix, Dhcpv4Lease, Dhcpv6Lease, Guest, ROUTERS_KEPT, RouterAdvertisement};
pub use self::probe::{
    Banner, IcmpError, Identify, Listen, Open, Outcome, PAYLOAD_MAGIC, Probe, ProbeResult, RESEND_MS, Transport,
    Unreachable,
};
pub use self::resolve::{DnsAnswer, RecordType, Resolution, Resolve, Resolved};

/// Protocol version said in [`Hello::protocol`]; raised when one side would misunderstand the other's
/// older version. 2: an agent of 1 would take [`Listen::echo`] for nothing, and every flow would end at once.
/// 3: bytes of a bulk transfer tell their place, which those of 2 do not.
pub const PROTOCOL: u32 = 3;

/// Answers (kept plus being worked on) that the agent holds at most. A request beyond is answered by [`Body::Busy`].
pub const WINDOW: usize = 4096;

/// Longest line that the agent reads, bytes. A longer one ends the attachment.
pub const MAX_LINE: usize = 64 * 1024;

/// One line from the client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Chosen by the client, unique within its session, not 0. [`Op::Attach`] and [`Op::Ack`] are not answered and use 0,
    /// as [`Op::Greet`] may.
    pub id: u64,
    /// What to do.
    pub op: Op,
}

/// What the client may ask for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Op {
    /// A client is here: first line on a console, where nothing else tells. Answered at once by [`Body::Hello`] under this id
    /// (0 will do); not numbered, not kept. What was under way to an earlier client of the console is replayed after
    /// [`Op::Attach`] only.
    Greet,
    /// First line of every attachment. Not answered.
    Attach {
        /// Chosen by the client once per run. Another session than the agent's last one drops that one's answers and
        /// running probes and flows; listeners stay.
        session: u64,
        /// The last `seq` that this client has received in full, 0 if none; acknowledges up to there.
        after: u64,
    },
    /// The client has everything up to this `seq`. Not answered.
    Ack {
        /// Last `seq` that is not needed any more.
        up_to: u64,
    },
    /// Is the agent there? Answered by [`Body::Done`].
    Ping,
    /// Try to reach a target once. Answered by [`Body::Probe`] after at most the probe's timeout.
    Probe(Probe),
    /// Look a name up. Answered by [`Body::Resolved`] after at most the question's timeout.
    Resolve(Resolve),
    /// Answer on a port, on every address of both families. Answered by [`Body::Done`] once the socket listens.
    /// On a port that is listened on already only the identity and [`Listen::echo`] change, for whoever comes later.
    Listen(Listen),
    /// Stop listening, and close what [`Listen::echo`] keeps open. Answered by [`Body::Done`], also when nothing listened.
    Unlisten {
        /// TCP or UDP.
        transport: Transport,
        /// Port.
        port: u16,
    },
    /// Begin a flow. Answered once, when it ends, by [`Body::Flow`]; by [`Body::Failed`] where it cannot be begun at all
    /// (no such period, more than [`FLOWS`]).
    Flow(Flow),
    /// Begin a bulk transfer. Answered once, when it ends, by [`Body::Bulk`]; by [`Body::Failed`] where it cannot be begun at
    /// all (more than [`BULKS`], a pace for what comes from the peer).
    Bulk(Bulk),
    /// How is this flow or bulk transfer doing? Answered by [`Body::FlowState`] or [`Body::BulkState`]; by [`Body::Failed`] when it does not run (any more).
    FlowState {
        /// Id of the request that began it.
        flow: u64,
    },
    /// End this flow or bulk transfer. Answered by [`Body::Done`], also when it does not run (any more); its own request is
    /// answered by [`Body::Flow`] or [`Body::Bulk`].
    EndFlow {
        /// Id of the request that began it.
        flow: u64,
    },
    /// What arrived here. Answered by [`Body::Arrivals`].
    Arrivals {
        /// [`Arrivals::cursor`] of the last answer; 0 for everything remembered.
        after: u64,
    },
    /// Keep announcements of addresses that come in by these interfaces (index, as in [`Interface::index`]) from now on, and
    /// no others; an empty list keeps none. Answered by [`Body::Done`]; by [`Body::Failed`] without CAP_NET_RAW.
    WatchAnnouncements {
        /// Which interfaces.
        interfaces: Vec<u32>,
    },
    /// What was announced here. Answered by [`Body::Announcements`].
    Announcements {
        /// [`Announcements::cursor`] of the last answer; 0 for everything kept.
        after: u64,
    },
    /// Interfaces, addresses, routes, neighbours, resolvers. Answered by [`Body::Facts`].
    Facts,
    /// End the agent. Answered by [`Body::Done`]. As process 1 of a VM it powers that off.
    Shutdown,
}

/// One line from the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Grows by one with each answer; 0 for [`Body::Hello`], [`Body::Busy`] and a [`Body::Failed`] about a line that was no
    /// request: these are not kept.
    pub seq: u64,
    /// The request's id; 0 where there is none.
    pub id: u64,
    /// The answer.
    pub body: Body,
}

/// What the agent may say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Body {
    /// First line of every attachment.
    Hello(Hello),
    /// Done as asked.
    Done,
    /// What a probe saw.
    Probe(ProbeResult),
    /// What came of a question.
    Resolved(Resolved),
    /// How a flow went.
    Flow(FlowResult),
    /// How a flow is doing.
    FlowState(Box<FlowReport>),
    /// How a bulk transfer went.
    Bulk(BulkResult),
    /// How a bulk transfer is doing.
    BulkState(Box<BulkReport>),
    /// What arrived.
    Arrivals(Arrivals),
    /// What was announced.
    Announcements(Announcements),
    /// The agent's view of its network.
    Facts(Facts),
    /// Not done: more than [`WINDOW`] answers are being worked on or wait for [`Op::Ack`]. Not kept; ask again later.
    Busy,
    /// Not done.
    Failed(Failure),
}

/// Something that the agent could not do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What was attempted, on what.
    pub attempted: String,
    /// The kernel's error number; 0 if it was not the kernel that refused.
    pub errno: i32,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the agent could not {} (errno {})", self.attempted, self.errno)
    }
}

/// Who the agent is and what it can do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL`].
    pub protocol: u32,
    /// The package's version.
    pub version: String,
    /// Process id, as the agent sees itself.
    pub pid: u32,
    /// Random, drawn when the agent started: another value is another life of the agent.
    pub boot: u64,
    /// The session that the agent holds answers of, 0 if none.
    pub session: u64,
    /// The last `seq` given to an answer.
    pub last_seq: u64,
    /// Where [`Arrival`]s come from here.
    pub evidence: Evidence,
    /// How ICMP echo is sent here.
    pub icmp: IcmpMeans,
    /// Probes that can be in flight at once, from the limit of open files; the agent queues the rest.
    pub max_probes: u32,
    /// The clock of this machine at the time of the line, microseconds since 1970: lets the client align timestamps.
    pub now_us: u64,
}

/// How ICMP echo requests are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IcmpMeans {
    /// Raw socket (CAP_NET_RAW).
    Raw,
    /// Ping socket (`net.ipv4.ping_group_range` includes this group).
    Ping,
    /// Not at all: ICMP probes end in [`Outcome::AgentFailed`].
    Missing,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Debug;

    /// The words on the wire are a promise to other versions of the agent.
    fn reads_and_writes<T: Debug + PartialEq + Serialize + for<'a> Deserialize<'a>>(value: &T, text: &str) {
        assert_eq!(serde_json::to_string(value).expect("JSON"), text);
        assert_eq!(&serde_json::from_str::<T>(text).expect("the value"), value);
    }

    #[test]
    fn requests_on_the_wire() {
        let request = |id, op| Request { id, op };
        reads_and_writes(
            &request(0, Op::Attach { session: 7, after: 3 }),
            r#"{"id":0,"op":{"attach":{"session":7,"after":3}}}"#,
        );
        reads_and_writes(&request(0, Op::Ack { up_to: 9 }), r#"{"id":0,"op":{"ack":{"up_to":9}}}"#);
        reads_and_writes(&request(1, Op::Facts), r#"{"id":1,"op":"facts"}"#);
        let listen = Listen { transport: Transport::Udp, port: 53, identity: "ns/pod".into(), echo: false };
        reads_and_writes(
            &request(2, Op::Listen(listen)),
            r#"{"id":2,"op":{"listen":{"transport":"udp","port":53,"identity":"ns/pod"}}}"#,
        );
        let probe = Probe {
            transport: Transport::Tcp,
            to: ([0xfd00, 0, 0, 0, 0, 0, 0, 1], 80).into(),
            from: None,
            source_port: None,
            timeout_ms: 1000,
            identify: Identify::Banner,
            nonce: 42,
        };
        reads_and_writes(
            &request(3, Op::Probe(probe.clone())),
            r#"{"id":3,"op":{"probe":{"transport":"tcp","to":"[fd00::1]:80","timeout_ms":1000,"identify":"banner","nonce":42}}}"#,
        );
        let resolve = Resolve {
            name: "web.blue.".into(),
            record: RecordType::Aaaa,
            transport: Transport::Udp,
            server: "10.96.0.10:53".parse().ok(),
            source_port: None,
            timeout_ms: 1000,
        };
        reads_and_writes(
            &request(4, Op::Resolve(resolve)),
            r#"{"id":4,"op":{"resolve":{"name":"web.blue.","record":"aaaa","transport":"udp","server":"10.96.0.10:53","timeout_ms":1000}}}"#,
        );
        let short = r#"{"id":3,"op":{"probe":{"transport":"tcp","to":"[fd00::1]:80","timeout_ms":1000,"nonce":42}}}"#;
        assert_eq!(serde_json::from_str::<Request>(short).expect("defaults"), request(3, Op::Probe(probe)));
    }

    #[test]
    fn answers_on_the_wire() {
        let message = |outcome| Message {
            seq: 1,
            id: 2,
            body: Body::Probe(ProbeResult { outcome, started_us: 3, took_us: 4, local: None, nonce: 5 }),
        };
        let icmp = IcmpError { kind: 3, code: 13, from: "10.0.0.1".parse().ok() };
        for (outcome, text) in [
            (
                Outcome::Open(Open { identity: Some("a".into()), seen_as: "10.0.0.2:9".parse().ok(), rtt_us: 6 }),
                r#"{"open":{"identity":"a","seen_as":"10.0.0.2:9","rtt_us":6}}"#,
            ),
            (Outcome::Refused { icmp: None }, r#"{"refused":{}}"#),
            (Outcome::TimedOut, r#""timed-out""#),
            (
                Outcome::Unreachable(Unreachable { icmp: Some(icmp), errno: 113 }),
                r#"{"unreachable":{"icmp":{"type":3,"code":13,"from":"10.0.0.1"},"errno":113}}"#,
            ),
            (Outcome::NoRoute { errno: 101 }, r#"{"no-route":{"errno":101}}"#),
        ] {
            let line =
                [r#"{"seq":1,"id":2,"body":{"probe":{"outcome":"#, text, r#","started_us":3,"took_us":4,"nonce":5}}}"#];
            reads_and_writes(&message(outcome), &line.concat());
        }
    }

    #[test]
    fn answers_of_servers_on_the_wire() {
        let message = |outcome| Message {
            seq: 1,
            id: 2,
            body: Body::Resolved(Resolved { outcome, server: None, local: None, started_us: 3, took_us: 4, asked: 5 }),
        };
        let answer = DnsAnswer {
            rcode: 3,
            addresses: Vec::from(["10.0.0.1".parse().expect("address")]),
            ..DnsAnswer::default()
        };
        for (outcome, text) in [
            (
                Resolution::Answered(answer),
                r#"{"answered":{"rcode":3,"addresses":["10.0.0.1"],"truncated":false,"authoritative":false,"rtt_us":0}}"#,
            ),
            (Resolution::Garbled { why: "x".into() }, r#"{"garbled":{"why":"x"}}"#),
            (Resolution::Unanswered(Outcome::TimedOut), r#"{"unanswered":"timed-out"}"#),
        ] {
            let line = [
                r#"{"seq":1,"id":2,"body":{"resolved":{"outcome":"#,
                text,
                r#","started_us":3,"took_us":4,"asked":5}}}"#,
            ];
            reads_and_writes(&message(outcome), &line.concat());
        }
    }
}
