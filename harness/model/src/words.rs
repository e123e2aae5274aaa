//! The nouns of the field, as OVN-Kubernetes spells them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How a network is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Topology {
    /// One subnet for all nodes.
    Layer2,
    /// One subnet per node, routed.
    Layer3,
    /// A network of the underlay.
    Localnet,
}

/// What a network is for a pod that is attached to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Role {
    /// Carries the pod's default route, services and egress.
    Primary,
    /// One more interface.
    Secondary,
}

/// What a probe speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// A TCP connection.
    Tcp,
    /// A UDP datagram and its answer.
    Udp,
    /// An SCTP association.
    Sctp,
    /// An echo request and its reply.
    Icmp,
}

impl Transport {
    /// What Kubernetes calls a protocol: `TCP` where nothing is said; `None` for what is no protocol of ports.
    #[must_use]
    pub fn of_protocol(protocol: Option<&str>) -> Option<Self> {
        match protocol {
            None | Some("TCP") => Some(Self::Tcp),
            Some("UDP") => Some(Self::Udp),
            Some("SCTP") => Some(Self::Sctp),
            Some(_) => None,
        }
    }

    /// Whether a port belongs to a probe of this transport.
    #[must_use]
    pub const fn has_ports(self) -> bool {
        !matches!(self, Self::Icmp)
    }
}

/// Address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both families, IPv4 first.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address.
    #[must_use]
    pub const fn of(address: std::net::IpAddr) -> Self {
        match address {
            std::net::IpAddr::V4(_) => Self::V4,
            std::net::IpAddr::V6(_) => Self::V6,
        }
    }

    /// The family of a subnet.
    #[must_use]
    pub const fn of_net(net: &ipnet::IpNet) -> Self {
        match net {
            ipnet::IpNet::V4(_) => Self::V4,
            ipnet::IpNet::V6(_) => Self::V6,
        }
    }
}

/// How the two ends of a probe are placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Placement {
    /// One and the same pod.
    Itself,
    /// Both on one node.
    SameNode,
    /// On different nodes.
    OtherNode,
    /// One end is outside the cluster.
    Outside,
    /// The target's address belongs to no node: a service's.
    Anywhere,
}

macro_rules! display {
    ($type:ty, $($variant:ident => $text:literal),+) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(match self { $(Self::$variant => $text),+ })
            }
        }
    };
}

display!(Topology, Layer2 => "layer2", Layer3 => "layer3", Localnet => "localnet");
display!(Role, Primary => "primary", Secondary => "secondary");
display!(Transport, Tcp => "tcp", Udp => "udp", Sctp => "sctp", Icmp => "icmp");
display!(Family, V4 => "v4", V6 => "v6");
display!(Placement, Itself => "itself", SameNode => "same-node", OtherNode => "other-node", Outside => "outside", Anywhere => "anywhere");
