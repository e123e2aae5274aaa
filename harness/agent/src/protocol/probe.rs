//! Probes, what they see, and the listeners that they meet.

use alloc::string::String;
use core::fmt;
use core::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::Failure;
#[cfg(doc)]
use super::{Arrival, IcmpMeans};

/// First bytes of the payload of a UDP or ICMP probe; 16 hexadecimal digits of the nonce and a newline follow.
pub const PAYLOAD_MAGIC: &[u8] = b"udn-probe ";

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
    /// Source port to bind to; the kernel's choice if none. The identifier of an echo request; drawn from the nonce if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_port: Option<u16>,
    /// Give up after this long, milliseconds. UDP and ICMP are sent again after half of it, at the earliest
    /// after [`RESEND_MS`]; TCP is by the kernel.
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
    /// TCP: after the banner every byte comes back until the client closes, for [`super::Flow`]s, unless the client asks
    /// for a [`super::Bulk`] transfer; at most [`super::ECHOES`] connections at once. UDP answers each datagram either way.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub echo: bool,
}

/// What an agent's listener sends: over TCP one line as soon as it has accepted, then the end of the stream (unless
/// [`Listen::echo`]); over UDP the answer to a datagram.
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
