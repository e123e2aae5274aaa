//! Questions to DNS servers.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

#[cfg(doc)]
use super::RESEND_MS;
use super::{Outcome, Transport};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecordType {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
}

/// A name to look up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolve {
    /// The name, absolute: no search domain is put behind it, a dot at its end may be left out.
    pub name: String,
    /// Which records.
    pub record: RecordType,
    /// TCP or UDP.
    pub transport: Transport,
    /// Who is asked; none: the name servers of `/etc/resolv.conf`, one after the other until one answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<SocketAddr>,
    /// Source port to bind to; the kernel's choice if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_port: Option<u16>,
    /// Give up after this long, milliseconds, all servers together. Over UDP it is asked again after half
    /// of it, at the earliest after [`RESEND_MS`].
    pub timeout_ms: u32,
}

/// What came of a question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    /// The answer, or why there is none.
    pub outcome: Resolution,
    /// Who was asked last: the one that answered, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<SocketAddr>,
    /// The own end of the socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<SocketAddr>,
    /// When the first question was sent, microseconds since 1970.
    pub started_us: u64,
    /// From there to the outcome, microseconds, by the monotonic clock.
    pub took_us: u64,
    /// How often it was asked: more than once means that a question or an answer was lost, or that a server was silent.
    pub asked: u32,
}

/// How a question ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resolution {
    /// A server answered the question.
    Answered(DnsAnswer),
    /// Somebody answered something that is no answer to the question, or accepted the connection and said nothing.
    Garbled {
        /// What was wrong with it.
        why: String,
    },
    /// Nobody answered; never [`Outcome::Open`].
    Unanswered(Outcome),
}

/// A server's answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsAnswer {
    /// Response code: 0 no error, 2 server failure, 3 no such name, 5 refused …
    pub rcode: u8,
    /// Addresses of the kind that was asked for, of the name or of what it is an alias of, in the server's order.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    /// Names that it is an alias of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// Not everything fitted: to be asked for again over TCP.
    #[serde(default)]
    pub truncated: bool,
    /// The server answers for the zone itself.
    #[serde(default)]
    pub authoritative: bool,
    /// From the last sending of the question (TCP: from the first packet) to the answer, microseconds.
    pub rtt_us: u64,
}
