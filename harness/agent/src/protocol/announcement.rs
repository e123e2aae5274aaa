//! Announcements: who says where an address is.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

use serde::{Deserialize, Serialize};

#[cfg(doc)]
use super::{Arrivals, Op};

/// Entries of one [`Announcements`] answer at most; ask again while [`Announcements::more`] is set.
pub const ANNOUNCEMENTS_PER_ANSWER: usize = 256;

/// Announcements that the agent keeps at most; older ones are overwritten and counted in [`Announcements::overwritten`].
pub const ANNOUNCEMENTS_KEPT: usize = 2048;

/// What was announced since a cursor, while [`Op::WatchAnnouncements`] asked for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcements {
    /// Say this in the next [`Op::Announcements`].
    pub cursor: u64,
    /// There is more after `cursor`.
    pub more: bool,
    /// Announcements after the asked cursor that were overwritten before they could be told.
    pub overwritten: u64,
    /// Packets that the kernel dropped before they could be read. Grown: absence proves nothing.
    pub capture_drops: u64,
    /// Oldest first.
    pub list: Vec<Announcement>,
}

/// A packet that says where an address is, as it came in; not what this machine itself sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// When it was read, microseconds since 1970.
    pub at_us: u64,
    /// The same by the monotonic clock, microseconds.
    pub monotonic_us: u64,
    /// Index of the interface that it came in by.
    pub interface: u32,
    /// What it is.
    pub kind: AnnouncementKind,
    /// Nobody had asked: ARP for the sender's own address (gratuitous), a neighbour advertisement without the solicited flag,
    /// any RARP and router advertisement.
    pub unsolicited: bool,
    /// Ethernet source: what switches learn from.
    pub source: String,
    /// Ethernet destination.
    pub destination: String,
    /// The MAC that the message itself gives: ARP and RARP sender (RARP: target) hardware address, link-layer address option.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mac: String,
    /// ARP sender protocol address; source of the IPv6 packet. None: unspecified, as in RARP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender: Option<IpAddr>,
    /// ARP target protocol address; target of the neighbour advertisement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<IpAddr>,
    /// Router lifetime, seconds; 0: not a default router any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime_s: Option<u16>,
}

/// What an announcement is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AnnouncementKind {
    /// ARP request.
    ArpRequest,
    /// ARP reply.
    ArpReply,
    /// RARP request: what QEMU sends when a VM has moved.
    RarpRequest,
    /// RARP reply.
    RarpReply,
    /// ICMPv6 neighbour advertisement.
    NeighbourAdvertisement,
    /// ICMPv6 router advertisement.
    RouterAdvertisement,
}
