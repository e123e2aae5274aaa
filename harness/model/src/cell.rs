//! One assertion.

use std::fmt;

use serde::{Deserialize, Serialize};

pub use crate::claim::{Claim, ObjectRef};
use crate::dns::DnsName;
use crate::fact::Fact;
pub use crate::feature::Feature;
use crate::flow::{FlowKind, FlowPromise};
use crate::rule::RuleName;
use crate::series::Series;
use crate::words::{Family, Placement, Topology, Transport};
use crate::world::{NetworkId, PodRef, ServiceRef};

/// Stable, hierarchical, filterable: `suite::scenario::phase::rule::from::to::placement::transport::family`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CellId(pub String);

impl CellId {
    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CellId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Where a probe is sent from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VantagePoint {
    /// A pod of the world.
    Pod(PodRef),
    /// The host network of the node in this slot (0 is the first schedulable worker).
    Node(u8),
    /// A client outside the cluster, on the underlay.
    External,
}

impl fmt::Display for VantagePoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(pod) => f.pad(&pod.dotted()),
            Self::Node(slot) => f.pad(&format!("node{slot}")),
            Self::External => f.pad("external"),
        }
    }
}

/// Which of a pod's addresses.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AddressOn {
    /// The cluster default network (`eth0`).
    Default,
    /// Its primary user defined network (`ovn-udn1`).
    Primary,
    /// A secondary network.
    Secondary(NetworkId),
}

impl fmt::Display for AddressOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.pad("default"),
            Self::Primary => f.pad("primary"),
            Self::Secondary(network) => f.pad(&network.to_string()),
        }
    }
}

/// What is probed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// An address of a pod on one of its networks.
    Pod {
        /// The pod.
        pod: PodRef,
        /// Which of its addresses.
        on: AddressOn,
    },
    /// The underlay address of the node in this slot, where the harness' own host-network pod listens.
    Node(u8),
    /// A service, by one of its addresses.
    Service {
        /// The service.
        service: ServiceRef,
        /// Which of its addresses.
        via: Exposure,
    },
    /// The harness' server outside of the cluster, on the underlay.
    External,
    /// The ClusterIP of the API server's service, `default/kubernetes`.
    ApiServer,
    /// Whatever address the cluster's DNS service says that a name has: asked over UDP, under its address of the probe's
    /// family, right before the probe.
    Name(DnsName),
}

/// Which address of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exposure {
    /// Its ClusterIP.
    ClusterIp,
    /// Its NodePort on the node in this slot.
    NodePort(u8),
    /// Its load-balancer address.
    LoadBalancer,
    /// The first of its `externalIPs` of the family.
    ExternalIp,
}

impl fmt::Display for Exposure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClusterIp => f.pad("cluster-ip"),
            Self::NodePort(slot) => f.pad(&format!("node-port-node{slot}")),
            Self::LoadBalancer => f.pad("load-balancer"),
            Self::ExternalIp => f.pad("external-ip"),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod { pod, on } => f.pad(&format!("{}@{on}", pod.dotted())),
            Self::Node(slot) => f.pad(&format!("node{slot}")),
            Self::Service { service, via } => f.pad(&format!("svc.{}@{via}", service.dotted())),
            Self::External => f.pad("external"),
            Self::ApiServer => f.pad("api-server"),
            Self::Name(name) => f.pad(&format!("name.{name}")),
        }
    }
}

/// What is asserted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "check", rename_all = "kebab-case")]
pub enum Check {
    /// A probe ends as expected.
    Probe {
        /// Where it is sent from.
        from: VantagePoint,
        /// What is probed.
        to: Target,
        /// How the two are placed.
        placement: Placement,
        /// What it speaks.
        transport: Transport,
        /// Destination port; `None` for ICMP.
        port: Option<u16>,
        /// Address family.
        family: Family,
        /// Whether it looks at a flow, which goes on from the scenario's first such cell on, instead of making a new
        /// connection: then it is open as long as the flow's frames come back.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        flow: bool,
        /// What that flow carries: open as long as it comes through.
        #[serde(default, skip_serializing_if = "FlowKind::is_frames")]
        kind: FlowKind,
    },
    /// Many connections, taken together, are answered as promised.
    Series {
        /// Where they are made from.
        from: VantagePoint,
        /// What they are made to.
        to: Target,
        /// How the two are placed.
        placement: Placement,
        /// What they speak.
        transport: Transport,
        /// Destination port.
        port: Option<u16>,
        /// Address family.
        family: Family,
        /// What is promised of them.
        series: Series,
    },
    /// What a flow of the same phase counted is as promised.
    Figure {
        /// Where the flow is sent from.
        from: VantagePoint,
        /// Where it goes.
        to: Target,
        /// How the two are placed.
        placement: Placement,
        /// What it speaks.
        transport: Transport,
        /// Destination port; `None` for ICMP.
        port: Option<u16>,
        /// Address family.
        family: Family,
        /// What the flow carries.
        #[serde(default, skip_serializing_if = "FlowKind::is_frames")]
        kind: FlowKind,
        /// What is promised.
        promise: FlowPromise,
    },
    /// A question to the cluster's DNS service is answered as expected.
    Resolve {
        /// Who asks.
        from: VantagePoint,
        /// For which name.
        name: DnsName,
        /// TCP or UDP.
        transport: Transport,
        /// Of which family are the addresses that are asked for, and the service's address that is asked.
        family: Family,
    },
    /// A pod looks inside as promised.
    Fact {
        /// The pod.
        pod: PodRef,
        /// What is promised.
        fact: Fact,
        /// Of which family; `None` where it concerns the pod as a whole.
        family: Option<Family>,
    },
    /// An object, or the answer to a request for one, is as promised.
    Object {
        /// The object.
        object: ObjectRef,
        /// What is promised.
        claim: Claim,
    },
}

/// Whom an open cell must reach.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reach {
    /// This pod, told by its identity.
    Pod(PodRef),
    /// The harness' host-network pod on this node.
    Node(u8),
    /// The pod that holds the probed address in this network, whoever it is; where none holds it, nobody: the cell is
    /// then `closed`. Settled once addresses are given.
    HolderIn(NetworkId),
    /// One of these pods, backends of a service.
    AnyOf(Vec<PodRef>),
    /// One of these pods, backends of a service, unless the vantage point is on the node that announces the address to
    /// the underlay: from there the cell is `closed`. Settled once it is known which node that is.
    ThroughAnnouncer(Vec<PodRef>),
    /// The harness' server outside of the cluster.
    External,
    /// Whoever serves there: a server that is not the harness' own.
    Server,
}

/// Which source address the peer must see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SeenAs {
    /// The underlay address of the node in this slot.
    Node(u8),
    /// The vantage point's own address, untranslated.
    Sender,
    /// The address that stands for a pod which reaches itself by way of a service: its own would make the answer go to
    /// itself, past the load balancer.
    Hairpin,
}

/// What must come of a check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "expect", rename_all = "kebab-case")]
pub enum Expectation {
    /// The target answers.
    Open {
        /// Whom it must reach.
        reach: Reach,
        /// Which source address the peer must see, where a rule promises one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seen_as: Option<SeenAs>,
    },
    /// Must not get through, in whatever manner.
    Closed,
    /// Must be dropped: every attempt times out.
    Dropped,
    /// Must be rejected: refused (a reset to a SYN, a port-unreachable to a datagram) or reset.
    Rejected,
    /// A name has exactly the addresses of these, of the family that is asked for.
    Resolves {
        /// Whose addresses; none: at least one, and where it is known which, exactly those.
        to: Vec<Target>,
    },
    /// A name does not exist, and the server says so.
    NoSuchName,
    /// A fact or an object's claim holds.
    Holds,
}

impl Expectation {
    /// Open, reaching this one, whatever source address he sees.
    #[must_use]
    pub const fn open(reach: Reach) -> Self {
        Self::Open { reach, seen_as: None }
    }

    /// Open whatever addresses are given, and told by the peer's identity: fit as a control of negative cells.
    #[must_use]
    pub const fn is_plainly_open(&self) -> bool {
        matches!(
            self,
            Self::Open {
                reach: Reach::Pod(_) | Reach::Node(_) | Reach::AnyOf(_) | Reach::External | Reach::Server,
                ..
            } | Self::Resolves { .. }
        )
    }

    /// Whether nothing may get through.
    #[must_use]
    pub const fn is_negative(&self) -> bool {
        matches!(self, Self::Closed | Self::Dropped | Self::Rejected)
    }

    /// Whether it is worth something only beside something that is open: that a name does not exist is easily said.
    #[must_use]
    pub const fn needs_controls(&self) -> bool {
        self.is_negative() || matches!(self, Self::NoSuchName)
    }

    /// One short word for tables.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Open { .. } => "open",
            Self::Closed => "closed",
            Self::Dropped => "dropped",
            Self::Rejected => "rejected",
            Self::Resolves { .. } => "resolves",
            Self::NoSuchName => "no such name",
            Self::Holds => "holds",
        }
    }
}

impl fmt::Display for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::Resolves { to } = self
            && !to.is_empty()
        {
            let names: Vec<String> = to.iter().map(ToString::to_string).collect();
            return write!(f, "resolves to {}", names.join(" and "));
        }
        let Self::Open { reach, seen_as } = self else { return f.write_str(self.word()) };
        let names = |pods: &[PodRef]| pods.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ");
        match reach {
            Reach::Pod(pod) => write!(f, "open, reaching {pod}"),
            Reach::Node(slot) => write!(f, "open, reaching node{slot}"),
            Reach::HolderIn(network) => {
                write!(f, "open, reaching the holder of the address in {network}; closed where there is none")
            }
            Reach::AnyOf(pods) => write!(f, "open, reaching {}", names(pods)),
            Reach::ThroughAnnouncer(pods) => {
                write!(f, "open, reaching {}; closed from the node that announces the address", names(pods))
            }
            Reach::External => f.write_str("open, reaching the external server"),
            Reach::Server => f.write_str("open"),
        }?;
        match seen_as {
            Some(SeenAs::Node(slot)) => write!(f, ", which sees node{slot}"),
            Some(SeenAs::Sender) => f.write_str(", which sees the sender's own address"),
            Some(SeenAs::Hairpin) => f.write_str(", which sees the address of hairpins"),
            None => Ok(()),
        }
    }
}

/// One assertion with everything that a report, a filter or the runner needs to know of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell {
    /// Stable id.
    pub id: CellId,
    /// The suite's name: an area.
    pub suite: String,
    /// The scenario's name, unique in its suite.
    pub scenario: String,
    /// The phase's name, unique in its scenario.
    pub phase: String,
    /// Where the expectation comes from.
    pub rule: RuleName,
    /// What is asserted.
    pub check: Check,
    /// What must come of it.
    pub expectation: Expectation,
    /// Topology of the network that the rule speaks of, where there is one.
    pub topology: Option<Topology>,
    /// What the target cluster must offer.
    pub requires: Vec<Feature>,
}

impl Cell {
    /// What the cell's probe speaks; `None` where it is not a probe.
    #[must_use]
    pub const fn transport(&self) -> Option<Transport> {
        match &self.check {
            Check::Probe { transport, .. }
            | Check::Series { transport, .. }
            | Check::Figure { transport, .. }
            | Check::Resolve { transport, .. } => Some(*transport),
            _ => None,
        }
    }

    /// The cell's address family; `None` where it concerns both or none.
    #[must_use]
    pub const fn family(&self) -> Option<Family> {
        match &self.check {
            Check::Probe { family, .. }
            | Check::Series { family, .. }
            | Check::Figure { family, .. }
            | Check::Resolve { family, .. } => Some(*family),
            Check::Fact { family, .. } => *family,
            Check::Object { claim: Claim::Mirrored { family, .. }, .. } => Some(*family),
            Check::Object { .. } => None,
        }
    }

    /// Whether this cell's flow is the one whose figures `figure` is about.
    #[must_use]
    pub fn is_flow_of(&self, figure: &Self) -> bool {
        match (&self.check, &figure.check) {
            (
                Check::Probe { from: f1, to: t1, transport: x1, port: p1, family: v1, flow: true, kind: k1, .. },
                Check::Figure { from: f2, to: t2, transport: x2, port: p2, family: v2, kind: k2, .. },
            ) => f1 == f2 && t1 == t2 && x1 == x2 && p1 == p2 && v1 == v2 && k1 == k2 && self.phase == figure.phase,
            _ => false,
        }
    }
}
