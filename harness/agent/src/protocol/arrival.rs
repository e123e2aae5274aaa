//! What arrived, and how that was seen.

use alloc::vec::Vec;
use core::net::SocketAddr;

use serde::{Deserialize, Serialize};

#[cfg(doc)]
use super::Op;
use super::Transport;

/// Entries of one [`Arrivals`] answer at most; ask again from [`Arrivals::cursor`] while [`Arrivals::more`] is set.
pub const ARRIVALS_PER_ANSWER: usize = 1024;

/// Arrivals that the agent remembers at most; older ones are overwritten and counted in [`Arrivals::overwritten`].
pub const ARRIVALS_KEPT: usize = 8192;

/// How arrivals are seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Evidence {
    /// Raw capture on every interface: a packet counts whether or not anybody listens.
    Capture,
    /// No right to capture (CAP_NET_RAW): only what the agent's own listeners accepted or received counts.
    Listener,
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
