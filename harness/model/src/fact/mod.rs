//! What a pod must look like inside, and the judgement of what it does look like.
//!
//! * this file: the facts, and which of them are promised of a pod
//! * [`view`]: a pod as seen from inside
//! * [`mod@judge`]: whether a fact holds
//! * `vm`: what concerns guests: what DHCP and router advertisements gave them, what stays theirs, what was announced

pub mod judge;
pub mod view;
mod vm;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::words::Family;
use crate::world::{Network, Pod, PodRef, Requested, World};

pub use judge::{Scene, attachment_key, judge, mac_of};
pub use view::{Announcement, Guest, Identity, Interface, NetworkEntry, PodView, Route, Said, StatusEntry};

/// Name of the default network's interface.
pub const DEFAULT_INTERFACE: &str = "eth0";
/// Name of the primary network's interface.
pub const PRIMARY_INTERFACE: &str = "ovn-udn1";

/// A promise about one pod's inside.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fact {
    /// The promised interfaces are there and up, with the addresses that `pod-networks` says.
    Interfaces,
    /// `pod-networks` has the promised keys with the promised roles.
    Roles,
    /// `network-status` says the same as `pod-networks`.
    NetworkStatus,
    /// The default route leaves by the primary network's gateway and interface, and there is no other.
    DefaultRoute,
    /// The address lies in the network's subnet (Layer3: in its node's part, which no other node shares) and is nobody
    /// else's in that network.
    Subnet,
    /// The gateway is `.1` of the pod's subnet, or as configured.
    Gateway,
    /// The MAC is `0a:58:` and the interface's IPv4 address.
    Mac,
    /// The MTU is the one that the network declares, else that of the default network's interface.
    Mtu,
    /// The address, unless the pod asked for it, is none that the network withholds: subnet, gateway, management port
    /// (`.2`), reserved, infrastructure and excluded ones.
    NotReserved,
    /// The n-th secondary network's interface is there with its address and carries no default route.
    Secondary(u8),
    /// The pod has the addresses and the MAC that it asked for.
    AsRequested,
    /// A guest has the address that the network says, with the prefix length that DHCP gives.
    GuestAddress,
    /// A guest's default route leads to its network's gateway: over IPv6 to a link-local address that advertised itself.
    GuestRoute,
    /// A guest's interface has the MAC of its launcher pod's.
    GuestMac,
    /// A guest's MTU is its network's.
    GuestMtu,
    /// A guest asks the cluster's DNS service.
    GuestResolvers,
    /// A guest is called as its VM.
    GuestHostname,
    /// The VM's IPAMClaim holds the addresses that it has.
    Claimed,
    /// Addresses, MAC, routes, resolvers, MTU, hostname and claim are those that were first seen.
    AsBefore,
    /// After the last migration's switch this pod of its network heard where the VM is.
    AnnouncedAt(PodRef),
    /// After the last migration's switch the VM heard who its gateway is, in time.
    GatewayAnnounced,
    /// The VM knows its gateway by the right MAC.
    GatewayEntry,
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interfaces => f.pad("interfaces"),
            Self::Roles => f.pad("roles"),
            Self::NetworkStatus => f.pad("network-status"),
            Self::DefaultRoute => f.pad("default-route"),
            Self::Subnet => f.pad("subnet"),
            Self::Gateway => f.pad("gateway"),
            Self::Mac => f.pad("mac"),
            Self::Mtu => f.pad("mtu"),
            Self::NotReserved => f.pad("not-reserved"),
            Self::Secondary(n) => f.pad(&format!("secondary-{n}")),
            Self::AsRequested => f.pad("as-requested"),
            Self::GuestAddress => f.pad("guest-address"),
            Self::GuestRoute => f.pad("guest-route"),
            Self::GuestMac => f.pad("guest-mac"),
            Self::GuestMtu => f.pad("guest-mtu"),
            Self::GuestResolvers => f.pad("guest-resolvers"),
            Self::GuestHostname => f.pad("guest-hostname"),
            Self::Claimed => f.pad("claimed"),
            Self::AsBefore => f.pad("as-before"),
            Self::AnnouncedAt(pod) => f.pad(&format!("announced-at-{}", pod.dotted())),
            Self::GatewayAnnounced => f.pad("gateway-announced"),
            Self::GatewayEntry => f.pad("gateway-entry"),
        }
    }
}

/// Facts that are promised of a pod, with the family that each concerns.
#[must_use]
pub fn promised(world: &World, pod: &Pod) -> Vec<(Fact, Option<Family>)> {
    if pod.vm.is_some() {
        return promised_of_vm(world, pod);
    }
    let mut facts = vec![(Fact::Interfaces, None), (Fact::Roles, None), (Fact::NetworkStatus, None)];
    let primary = pod.primary.as_ref().and_then(|id| world.network(id));
    for family in Family::ALL {
        if primary.is_none_or(|network| network.has_family(family)) {
            facts.push((Fact::DefaultRoute, Some(family)));
        }
        if primary.is_some_and(|network| network.has_family(family)) {
            facts.extend([Fact::Subnet, Fact::Gateway].map(|fact| (fact, Some(family))));
            // Reserved subnets are there to be asked for.
            if !pod.requested.ips.iter().any(|ip| Family::of(ip.addr()) == family) {
                facts.push((Fact::NotReserved, Some(family)));
            }
        }
    }
    if primary.is_some() {
        facts.extend([(Fact::Mac, None), (Fact::Mtu, None)]);
    }
    let secondaries = u8::try_from(pod.secondary.len()).unwrap_or(u8::MAX);
    facts.extend((1..=secondaries).map(|n| (Fact::Secondary(n), None)));
    let asks = |requested: &Requested| !requested.ips.is_empty() || requested.mac.is_some();
    if asks(&pod.requested) || pod.secondary.iter().any(|attachment| asks(&attachment.requested)) {
        facts.push((Fact::AsRequested, None));
    }
    facts
}

fn promised_of_vm(world: &World, pod: &Pod) -> Vec<(Fact, Option<Family>)> {
    let primary = pod.primary.as_ref().and_then(|id| world.network(id));
    let mut facts = vec![(Fact::Roles, None)];
    for family in Family::ALL.into_iter().filter(|family| primary.is_some_and(|network| network.has_family(*family))) {
        facts.extend(
            [Fact::Subnet, Fact::Gateway, Fact::GuestAddress, Fact::GuestRoute].map(|fact| (fact, Some(family))),
        );
        if !pod.requested.ips.iter().any(|ip| Family::of(ip.addr()) == family) {
            facts.push((Fact::NotReserved, Some(family)));
        }
    }
    facts.extend([Fact::GuestMac, Fact::GuestResolvers, Fact::GuestHostname].map(|fact| (fact, None)));
    // Else nothing shows what it must be.
    let shown = world.pods.iter().any(|other| other.vm.is_none() && other.primary == pod.primary);
    if shown || primary.is_some_and(|network| network.mtu.is_some()) {
        facts.push((Fact::GuestMtu, None));
    }
    if primary.is_some_and(|network| network.persistent) {
        facts.push((Fact::Claimed, None));
    }
    facts.push((Fact::AsBefore, None));
    if !pod.requested.ips.is_empty() || pod.requested.mac.is_some() {
        facts.push((Fact::AsRequested, None));
    }
    facts
}

/// Facts about what a migration of a VM of this network is announced as, heard by a pod and by the VM.
#[must_use]
pub fn announced(network: Option<&Network>, at: &PodRef) -> Vec<(Fact, Option<Family>)> {
    let has = |family| network.is_some_and(|network| network.has_family(family));
    let mut facts = vec![(Fact::AnnouncedAt(at.clone()), None)];
    facts.extend(
        Family::ALL.into_iter().filter(|family| has(*family)).map(|family| (Fact::GatewayAnnounced, Some(family))),
    );
    if has(Family::V4) {
        facts.push((Fact::GatewayEntry, Some(Family::V4)));
    }
    facts
}
