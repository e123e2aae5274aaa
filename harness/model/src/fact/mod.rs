//! What a pod must look like inside, and the judgement of what it does look like.
//!
//! * this file: the facts, and which of them are promised of a pod
//! * [`view`]: a pod as seen from inside
//! * [`mod@judge`]: whether a fact holds

pub mod judge;
pub mod view;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::words::Family;
use crate::world::{Pod, Requested, World};

pub use judge::{Scene, attachment_key, judge, mac_of};
pub use view::{Interface, NetworkEntry, PodView, Route, StatusEntry};

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
        }
    }
}

/// Facts that are promised of a pod, with the family that each concerns.
#[must_use]
pub fn promised(world: &World, pod: &Pod) -> Vec<(Fact, Option<Family>)> {
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
