//! What was seen. An outcome comes from the socket of the probing agent, never from a shell's exit code or text.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::flow::FlowFigures;
use crate::world::PodRef;

/// How one probe ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome {
    /// Somebody answered.
    Open {
        /// Who says it is: the identity in its banner; `None` where it gave none.
        peer: Option<String>,
        /// The source address that the peer saw, where it told.
        source: Option<IpAddr>,
        /// From the first packet to the answer, microseconds.
        rtt_us: u64,
    },
    /// A TCP reset to a SYN, or a port-unreachable to a datagram.
    Refused,
    /// A TCP reset after the connection was established.
    Reset,
    /// Nothing came back within the probe's timeout.
    TimedOut,
    /// A router or host said that the target cannot be reached.
    Unreachable {
        /// The ICMP message or the errno, as text.
        why: String,
        /// Who said so, where known.
        by: Option<IpAddr>,
    },
    /// The vantage point itself has no route.
    NoRoute,
    /// The agent could not try (out of sockets, no right).
    AgentFailed {
        /// What it attempted and what the kernel said.
        why: String,
    },
    /// The stream to the agent was lost and the result with it.
    ControlLost {
        /// What happened to the stream.
        why: String,
    },
    /// The target's address or the vantage point is not known (yet).
    Unresolved {
        /// What is missing.
        why: String,
    },
    /// A DNS server answered.
    Answered {
        /// What it said.
        rcode: Rcode,
        /// The addresses that it gave, sorted: servers give them in turns.
        addresses: Vec<IpAddr>,
        /// Not everything fitted into the answer.
        truncated: bool,
        /// How often it was asked: more than once means that something was lost.
        asked: u32,
        /// From the first question to the answer, microseconds.
        took_us: u64,
    },
    /// Somebody answered a question, but not what was asked.
    Garbled {
        /// What was wrong with it.
        why: String,
    },
    /// The result of a check that is not a probe.
    Checked {
        /// Whether it holds.
        holds: bool,
        /// What was found.
        found: String,
    },
}

/// What a DNS server says of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rcode {
    /// The name exists.
    NoError,
    /// The server could not read the question.
    FormatError,
    /// The server, or somebody whom it asked, failed.
    ServerFailure,
    /// The name does not exist.
    NoSuchName,
    /// The server does not do such things.
    NotImplemented,
    /// The server does not answer this to this client.
    Refused,
    /// Another code.
    Other(u8),
}

impl From<u8> for Rcode {
    fn from(code: u8) -> Self {
        match code {
            0 => Self::NoError,
            1 => Self::FormatError,
            2 => Self::ServerFailure,
            3 => Self::NoSuchName,
            4 => Self::NotImplemented,
            5 => Self::Refused,
            other => Self::Other(other),
        }
    }
}

impl Rcode {
    /// One short word for tables.
    const fn word(self) -> &'static str {
        match self {
            Self::NoError => "resolved",
            Self::NoSuchName => "no-such-name",
            _ => "dns-error",
        }
    }
}

/// As tools for DNS spell them.
impl fmt::Display for Rcode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoError => f.pad("NOERROR"),
            Self::FormatError => f.pad("FORMERR"),
            Self::ServerFailure => f.pad("SERVFAIL"),
            Self::NoSuchName => f.pad("NXDOMAIN"),
            Self::NotImplemented => f.pad("NOTIMP"),
            Self::Refused => f.pad("REFUSED"),
            Self::Other(code) => f.pad(&format!("RCODE{code}")),
        }
    }
}

impl Outcome {
    /// Whether the harness, not the network, failed.
    #[must_use]
    pub const fn is_harness_failure(&self) -> bool {
        matches!(self, Self::AgentFailed { .. } | Self::ControlLost { .. } | Self::Unresolved { .. })
    }

    /// One short word for tables: `open`, `refused`, `timeout` …
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Open { .. } => "open",
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::TimedOut => "timeout",
            Self::Unreachable { .. } => "unreachable",
            Self::NoRoute => "no-route",
            Self::AgentFailed { .. } => "agent-failed",
            Self::ControlLost { .. } => "control-lost",
            Self::Unresolved { .. } => "unresolved",
            Self::Answered { rcode: Rcode::NoError, addresses, .. } if addresses.is_empty() => "no-address",
            Self::Answered { rcode, .. } => rcode.word(),
            Self::Garbled { .. } => "garbled",
            Self::Checked { holds: true, .. } => "holds",
            Self::Checked { holds: false, .. } => "does-not-hold",
        }
    }

    /// Whether two outcomes say the same, times apart.
    #[must_use]
    pub fn same_as(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Open { peer, source, .. }, Self::Open { peer: peer2, source: source2, .. }) => {
                peer == peer2 && source == source2
            }
            (
                Self::Answered { rcode, addresses, truncated, .. },
                Self::Answered { rcode: rcode2, addresses: addresses2, truncated: truncated2, .. },
            ) => rcode == rcode2 && addresses == addresses2 && truncated == truncated2,
            _ => self == other,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open { peer, source, rtt_us } => {
                write!(f, "open")?;
                if let Some(peer) = peer {
                    write!(f, ", answered by {peer}")?;
                }
                if let Some(source) = source {
                    write!(f, ", which saw {source}")?;
                }
                write!(f, ", in {}.{:03} ms", rtt_us / 1000, rtt_us % 1000)
            }
            Self::Unreachable { why, by: Some(by) } => write!(f, "unreachable ({why}, says {by})"),
            Self::Unreachable { why, by: None } => write!(f, "unreachable ({why})"),
            Self::AgentFailed { why } => write!(f, "agent failed: {why}"),
            Self::ControlLost { why } => write!(f, "control stream lost: {why}"),
            Self::Unresolved { why } => write!(f, "unresolved: {why}"),
            Self::Answered { rcode, addresses, truncated, asked, took_us } => {
                let list: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                match rcode {
                    Rcode::NoError if list.is_empty() => write!(f, "answered: no address of this family")?,
                    Rcode::NoError => write!(f, "answered: {}", list.join(", "))?,
                    rcode => write!(f, "answered: {rcode}")?,
                }
                if *truncated {
                    write!(f, ", cut short")?;
                }
                if *asked > 1 {
                    write!(f, ", when asked {asked} times")?;
                }
                write!(f, ", in {}.{:03} ms", took_us / 1000, took_us % 1000)
            }
            Self::Garbled { why } => write!(f, "garbled: {why}"),
            Self::Checked { holds: true, found } => write!(f, "holds: {found}"),
            Self::Checked { holds: false, found } => write!(f, "does not hold: {found}"),
            Self::TimedOut => f.write_str("timed out"),
            Self::NoRoute => f.write_str("no route"),
            Self::Refused | Self::Reset => f.write_str(self.word()),
        }
    }
}

/// One or more consecutive tries of a cell that ended alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// When the first of them started, milliseconds since the phase's action was done (negative: while it ran).
    pub first_ms: i64,
    /// When the last of them started.
    pub last_ms: i64,
    /// How many.
    pub count: u32,
    /// How they ended; times are those of the last.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// How many of them were seen arriving at the target.
    pub arrived: u32,
}

/// How arrivals at the target were counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Witness {
    /// Packets captured at the target's interfaces.
    RawCapture,
    /// What the target's listeners accepted: blind to packets that no listener saw.
    ListenerCounter,
    /// No agent at the target.
    None,
}

/// What supports a verdict beyond the attempts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// The concrete probe: source and destination addresses, as resolved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probe: Option<ResolvedProbe>,
    /// How arrivals were counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub witness: Option<Witness>,
    /// The control that shows that the vantage point works: a cell's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vantage_control: Option<String>,
    /// The control that shows that the listener works: a cell's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listener_control: Option<String>,
    /// A command that repeats the probe by hand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repeat: Option<String>,
    /// How the flow fared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flow: Option<Box<FlowFigures>>,
    /// State of the network and of objects, collected before clean-up; one entry a source.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// A probe with its addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvedProbe {
    /// Where it is sent from: a pod's name, a node's or `external`.
    pub from: String,
    /// The destination address.
    pub to: IpAddr,
    /// The destination port; `None` for ICMP.
    pub port: Option<u16>,
    /// What is asked, where it is a question to a DNS server: kind of record and name as the world says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub question: Option<String>,
    /// Whom it has to reach; `None` where it must reach nobody.
    pub reach: Option<PodRef>,
}
