//! Bulk transfers: as many bytes as go through a TCP connection, or as many as are asked for, one way.
//!
//! The peer is an agent's port with [`Listen::echo`]. After its banner the client says [`BULK_SINK`] or [`BULK_SOURCE`], and
//! the peer [`BULK_ACCEPTED`]; then bytes go one way only. A peer that is too old for that returns the client's words. Whoever
//! gets the bytes knows what they must be; a sink that got others says [`BULK_SPOILT`].

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::{FlowEnd, Gap, Stall, TcpFigures, Unreachable};
#[cfg(doc)]
use super::{GAPS_KEPT, Listen, Op, Outcome, STALLS_KEPT};

/// Bulk transfers that an agent makes at once.
pub const BULKS: usize = 8;

/// Length of a bucket of [`BulkReport::buckets`], microseconds.
pub const BULK_BUCKET_US: u64 = 100_000;

/// Buckets of a report at most, the latest ones: a minute.
pub const BULK_BUCKETS: usize = 600;

/// Asks an echo port to swallow all that comes.
pub const BULK_SINK: &[u8] = b"udn-bulk sink\n";

/// Asks an echo port to send as fast as it goes.
pub const BULK_SOURCE: &[u8] = b"udn-bulk source\n";

/// What the port says to either.
pub const BULK_ACCEPTED: &[u8] = b"udn-bulk\n";

/// What a sink says once it gets something else than the bytes of their place.
pub const BULK_SPOILT: &[u8] = b"udn-bulk spoilt\n";

/// A bulk transfer to begin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bulk {
    /// Target.
    pub to: SocketAddr,
    /// Source address to bind to; the kernel's choice if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<IpAddr>,
    /// Source port to bind to; the kernel's choice if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_port: Option<u16>,
    /// Which way the bytes go.
    pub direction: Direction,
    /// How many are sent a second at most, evenly, also of those that wait after an outage; as many as go through if none.
    /// Only for [`Direction::Send`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u32>,
    /// Give up if the transfer has not begun after so long, milliseconds.
    pub connect_timeout_ms: u32,
    /// End it after so long, milliseconds from its start.
    pub limit_ms: u32,
}

/// Which way the bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// From this agent to the peer. What counts is what the peer's kernel has acknowledged.
    Send,
    /// From the peer to this agent. What counts is what was read.
    Receive,
}

/// How a bulk transfer went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BulkResult {
    /// Why it ended.
    pub end: FlowEnd,
    /// The figures at its end.
    pub report: Box<BulkReport>,
}

/// The figures of a bulk transfer, while it runs ([`Op::FlowState`]) or at its end. Durations are by the monotonic clock.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BulkReport {
    /// When the first packet was sent, microseconds since 1970.
    pub started_us: u64,
    /// From there to this report, microseconds.
    pub took_us: u64,
    /// Time of the handshake, microseconds; none: did not come to that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect_us: Option<u64>,
    /// The own end of the connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<SocketAddr>,
    /// Whom it reached, as the peer said itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// The own end as the peer saw it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen_as: Option<SocketAddr>,
    /// When the transfer began, microseconds since 1970; none: it has not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began_us: Option<u64>,
    /// Bytes transferred; see [`Direction`].
    pub bytes: u64,
    /// When the first of `buckets` began, microseconds since 1970.
    pub buckets_from_us: u64,
    /// Bytes transferred in each tenth of a second, the last [`BULK_BUCKETS`] up to this report; the last one has not ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub buckets: Vec<u64>,
    /// A gap is a time longer than this without a byte, microseconds.
    pub gap_over_us: u64,
    /// How many gaps there were.
    pub gap_count: u64,
    /// The [`GAPS_KEPT`] longest ones, in the order of time; [`Gap::sent`] is 0.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<Gap>,
    /// From the last byte (none yet: from the beginning) to this report, microseconds; not among the gaps.
    pub since_last_byte_us: u64,
    /// The longest that the agent was late for looking, microseconds.
    pub late_us: u64,
    /// When it was later than 20 ms; the [`STALLS_KEPT`] longest ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stalls: Vec<Stall>,
    /// Errors that the connection survived.
    pub faults: u64,
    /// The last of these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_fault: Option<Unreachable>,
    /// What the kernel knows of the connection, retransmissions of the own side among it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TcpFigures>,
}
