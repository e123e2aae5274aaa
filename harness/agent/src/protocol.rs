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
//! A different [`Hello::boot`] than before means that the agent was started anew: its listeners and answers are gone.
//! The last attachment wins; an older one is closed. A half-written last line is to be thrown away by either side.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// Protocol version said in [`Hello::protocol`]; raised when an old client would misunderstand a new agent.
pub const PROTOCOL: u32 = 1;

/// Answers (kept plus being worked on) that the agent holds at most. A request beyond is answered by [`Body::Busy`].
pub const WINDOW: usize = 4096;

/// Longest line that the agent reads, bytes. A longer one ends the attachment.
pub const MAX_LINE: usize = 64 * 1024;

/// Entries of one [`Arrivals`] answer at most; ask again from [`Arrivals::cursor`] while [`Arrivals::more`] is set.
pub const ARRIVALS_PER_ANSWER: usize = 1024;

/// Arrivals that the agent remembers at most; older ones are overwritten and counted in [`Arrivals::overwritten`].
pub const ARRIVALS_KEPT: usize = 8192;

/// First bytes of the payload of a UDP or ICMP probe; 16 hexadecimal digits of the nonce and a newline follow.
pub const PAYLOAD_MAGIC: &[u8] = b"udn-probe ";

/// One line from the client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Chosen by the client, unique within its session, not 0. [`Op::Attach`] and [`Op::Ack`] are not answered and use 0.
    pub id: u64,
    /// What to do.
    pub op: Op,
}

/// What the client may ask for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Op {
    /// First line of every attachment. Not answered.
    Attach {
        /// Chosen by the client once per run. Another session than the agent's last one drops that one's answers and
        /// running probes; listeners stay.
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
    /// Answer on a port, on every address of both families. Answered by [`Body::Done`] once the socket listens.
    /// On a port that is listened on already only the identity changes.
    Listen(Listen),
    /// Stop listening. Answered by [`Body::Done`], also when nothing listened.
    Unlisten {
        /// TCP or UDP.
        transport: Transport,
        /// Port.
        port: u16,
    },
    /// What arrived here. Answered by [`Body::Arrivals`].
    Arrivals {
        /// [`Arrivals::cursor`] of the last answer; 0 for everything remembered.
        after: u64,
    },
    /// Interfaces, addresses, routes, neighbours, resolvers. Answered by [`Body::Facts`].
    Facts,
    /// End the agent. Answered by [`Body::Done`].
    Shutdown,
}

/// Layer-4 protocol of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// TCP connect.
    Tcp,
    /// One datagram and its answer.
    Udp,
    /// ICMP or ICMPv6 echo.
    Icmp,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
        })
    }
}

/// How to learn who answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Identify {
    /// The peer is an agent: its listener says who it is ([`Banner`]).
    #[default]
    Banner,
    /// The peer is a stock `agnhost netexec`: `GET /hostname` over TCP, the word `hostname` over UDP.
    /// [`Open::identity`] is the pod's name; [`Open::seen_as`] stays unknown.
    Agnhost,
    /// Do not ask: a completed handshake (TCP) or any datagram (UDP) is enough.
    None,
}

/// One attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// TCP, UDP or ICMP.
    pub transport: Transport,
    /// Target; the port is 0 for ICMP.
    pub to: SocketAddr,
    /// Source address to bind to; the kernel's choice if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<IpAddr>,
    /// Source port to bind to; the kernel's choice if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_port: Option<u16>,
    /// Give up after this long, milliseconds. UDP and ICMP are sent again every [`RESEND_MS`] until then, as TCP is by the kernel.
    pub timeout_ms: u32,
    /// How to learn who answered.
    #[serde(default)]
    pub identify: Identify,
    /// Travels in the payload of UDP and ICMP, so that [`Arrival::nonce`] names the probe. TCP: see [`ProbeResult::local`].
    pub nonce: u64,
}

/// Period at which an unanswered UDP or ICMP probe is sent again, milliseconds. The kernel's first SYN retransmission is as late.
pub const RESEND_MS: u32 = 1000;

/// A listener to open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listen {
    /// TCP or UDP.
    pub transport: Transport,
    /// Port.
    pub port: u16,
    /// What its banner says: `<namespace>/<pod>` or whatever tells it from every other listener.
    pub identity: String,
}

/// What an agent's listener sends: over TCP one line as soon as it has accepted, then the end of the stream; over UDP
/// the answer to a datagram.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Banner {
    /// [`Listen::identity`].
    pub identity: String,
    /// The client as the listener's socket saw it.
    pub peer: SocketAddr,
    /// The nonce of the datagram that is answered (UDP).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<u64>,
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
    /// What arrived.
    Arrivals(Arrivals),
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

/// How arrivals are seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Evidence {
    /// Raw capture on every interface: a packet counts whether or not anybody listens.
    Capture,
    /// No right to capture (CAP_NET_RAW): only what the agent's own listeners accepted or received counts.
    Listener,
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

/// What a probe saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeResult {
    /// Classified from the socket.
    pub outcome: Outcome,
    /// When the first packet was sent, microseconds since 1970.
    pub started_us: u64,
    /// From there to the outcome, microseconds, by the monotonic clock.
    pub took_us: u64,
    /// The probe's own end of the socket; none for ICMP by [`IcmpMeans::Raw`]. With a TCP [`Arrival`]'s source it tells one to
    /// one which SYN was this probe's, unless an address translator is between.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<SocketAddr>,
    /// Copy of [`Probe::nonce`].
    pub nonce: u64,
}

/// How an attempt ended. Whether the right peer answered is for the caller to say, by [`Open::identity`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// TCP: the handshake completed. UDP, ICMP: an answer came.
    Open(Open),
    /// Nobody listens: TCP reset in answer to the SYN, or ICMP port unreachable (then `icmp` says so, and whose it was).
    Refused {
        /// The ICMP message; none means a TCP reset.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        icmp: Option<IcmpError>,
    },
    /// TCP: reset after the handshake, before the banner.
    Reset,
    /// Nothing came back within the timeout.
    TimedOut,
    /// An ICMP error came back, or the first hop did not answer address resolution (then [`IcmpError::from`] is the
    /// probe's own address), or the kernel refused to send for another reason than a missing route.
    Unreachable(Unreachable),
    /// There is no route to the target here, so nothing was sent.
    NoRoute {
        /// ENETUNREACH (no route), EHOSTUNREACH (`unreachable` route), EACCES (`prohibit` route), EINVAL (`blackhole` route).
        errno: i32,
    },
    /// The probe could not be made: neither a pass nor a fail of the network.
    AgentFailed(Failure),
}

/// The target answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    /// Who answered, as it said itself. None: it did not say within the timeout, was not asked, or the probe was ICMP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// This probe's source address as the target saw it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen_as: Option<SocketAddr>,
    /// TCP: time of the handshake. UDP, ICMP: from the last sending to the answer. Microseconds.
    pub rtt_us: u64,
}

/// Something on the way said no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unreachable {
    /// The ICMP message, where the socket's error queue had it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp: Option<IcmpError>,
    /// What the kernel made of it, e.g. EHOSTUNREACH (113).
    pub errno: i32,
}

/// An ICMP error message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IcmpError {
    /// ICMP or ICMPv6 type.
    #[serde(rename = "type")]
    pub kind: u8,
    /// ICMP or ICMPv6 code.
    pub code: u8,
    /// Who sent it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<IpAddr>,
}

/// What arrived since a cursor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arrivals {
    /// Say this in the next [`Op::Arrivals`].
    pub cursor: u64,
    /// How the arrivals were seen.
    pub evidence: Evidence,
    /// There is more after `cursor`.
    pub more: bool,
    /// Arrivals after the asked cursor that were overwritten before they could be told. Not 0: absence proves nothing.
    pub overwritten: u64,
    /// Packets that the kernel dropped before the capture could read them, since the agent started. Grown: absence proves nothing.
    pub capture_drops: u64,
    /// Oldest first.
    pub list: Vec<Arrival>,
}

/// One packet addressed to this machine: a TCP SYN, a UDP datagram or an ICMP echo request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arrival {
    /// When it was seen, microseconds since 1970.
    pub at_us: u64,
    /// TCP, UDP or ICMP.
    pub transport: Transport,
    /// Source as it arrived (after any translation); port 0 for ICMP.
    pub source: SocketAddr,
    /// Destination as it arrived; port 0 for ICMP.
    pub destination: SocketAddr,
    /// Index of the interface it came in by; 0 for [`Evidence::Listener`].
    pub interface: u32,
    /// The probe's nonce, where its payload had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<u64>,
}

/// The agent's view of its network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// `/proc/sys/kernel/hostname`.
    pub hostname: String,
    /// Every interface.
    pub interfaces: Vec<Interface>,
    /// Every route of the main table, both families.
    pub routes: Vec<Route>,
    /// Neighbour entries (ARP, ND) except those of `lo` and of multicast addresses.
    pub neighbours: Vec<Neighbour>,
    /// What `/etc/resolv.conf` says.
    pub resolvers: Resolvers,
}

/// A network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Index, as in [`Arrival::interface`].
    pub index: u32,
    /// Name.
    pub name: String,
    /// Administratively up.
    pub up: bool,
    /// Has a carrier and can send (operational state up, or unknown as for `lo`).
    pub running: bool,
    /// Bytes.
    pub mtu: u32,
    /// `0a:58:0a:f4:00:05`; empty where there is none.
    pub mac: String,
    /// Addresses of both families.
    pub addresses: Vec<InterfaceAddress>,
}

/// An address of an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceAddress {
    /// Address.
    pub address: IpAddr,
    /// Prefix length, bits.
    pub prefix: u8,
    /// IPv6 duplicate address detection is not over yet (or failed): the address cannot be used.
    #[serde(default)]
    pub tentative: bool,
}

/// A route of the main table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Destination; `0.0.0.0` or `::` with prefix 0 is the default route.
    pub destination: IpAddr,
    /// Prefix length of the destination, bits.
    pub prefix: u8,
    /// `unicast`, `blackhole`, `unreachable`, `prohibit` …
    pub kind: String,
    /// Next hops: gateway and interface index.
    pub next_hops: Vec<NextHop>,
    /// Priority; lower wins.
    pub metric: u32,
    /// Preferred source address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<IpAddr>,
    /// MTU locked to the route, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
}

/// One next hop of a route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextHop {
    /// Gateway; none if the destination is on the link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// Interface index.
    pub interface: u32,
}

/// A neighbour entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neighbour {
    /// Address.
    pub address: IpAddr,
    /// Interface index.
    pub interface: u32,
    /// MAC; empty while unresolved.
    pub mac: String,
    /// `reachable`, `stale`, `delay`, `probe`, `failed`, `incomplete`, `permanent`, `noarp`.
    pub state: String,
}

/// `/etc/resolv.conf`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolvers {
    /// `nameserver` lines.
    pub nameservers: Vec<String>,
    /// `search` domains.
    pub search: Vec<String>,
    /// `options`.
    pub options: Vec<String>,
}
