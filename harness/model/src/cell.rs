//! One assertion.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::dns::DnsName;
use crate::fact::Fact;
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

/// A Kubernetes object, by the names of the world (the harness makes them unique per run).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectRef {
    /// `v1`, `k8s.ovn.org/v1` …
    pub api_version: String,
    /// `Pod`, `UserDefinedNetwork` …
    pub kind: String,
    /// `None` for cluster-scoped kinds.
    pub namespace: Option<String>,
    /// The object's name.
    pub name: String,
}

impl ObjectRef {
    /// A namespaced object.
    #[must_use]
    pub fn namespaced(api_version: &str, kind: &str, namespace: &str, name: &str) -> Self {
        Self {
            api_version: api_version.into(),
            kind: kind.into(),
            namespace: Some(namespace.into()),
            name: name.into(),
        }
    }

    /// A cluster-scoped object.
    #[must_use]
    pub fn cluster(api_version: &str, kind: &str, name: &str) -> Self {
        Self { api_version: api_version.into(), kind: kind.into(), namespace: None, name: name.into() }
    }

    /// A pod.
    #[must_use]
    pub fn pod(pod: &PodRef) -> Self {
        Self::namespaced("v1", "Pod", &pod.namespace, &pod.name)
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match &self.namespace {
            Some(namespace) => format!("{}.{namespace}.{}", self.kind.to_lowercase(), self.name),
            None => format!("{}.{}", self.kind.to_lowercase(), self.name),
        };
        f.pad(&name)
    }
}

/// What is promised of an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Claim {
    /// It exists.
    Exists,
    /// It does not exist (any more).
    Gone,
    /// It is being deleted, but a finalizer holds it.
    HeldByFinalizer {
        /// The finalizer.
        finalizer: String,
    },
    /// It has a status condition.
    Condition {
        /// The condition's type; of several names (older releases differ) the first that is there.
        any_of: Vec<String>,
        /// `True` or `False`.
        status: String,
        /// The reason, where one is promised.
        reason: Option<String>,
        /// Texts that the message must contain. Names of the world in `{braces}` stand for the run's real names.
        message_contains: Vec<String>,
    },
    /// It does not have this condition with status `True`.
    NotTrue {
        /// The condition's type.
        condition: String,
    },
    /// An event was raised about it.
    Event {
        /// `Warning` or `Normal`.
        kind: String,
        /// The event's reason.
        reason: String,
        /// Texts that the message must contain.
        message_contains: Vec<String>,
    },
    /// A pod is Ready and none of its containers was restarted: the kubelet's probes reach it.
    ReadyWithoutRestart,
    /// A pod stays Pending: it waits for something.
    PodWaits,
    /// The phase's action on this object was refused by the API server.
    Refused {
        /// Texts that the answer must contain.
        message_contains: Vec<String>,
    },
    /// The phase's action on this object was accepted by the API server.
    Accepted,
    /// A pod's annotation `k8s.ovn.org/pod-networks` has exactly these keys.
    PodNetworks {
        /// `default`, or `<namespace>/<name>` in `{braces}` where names are the world's.
        keys: Vec<String>,
    },
    /// A service's endpoints of a family are mirrored with their addresses on the namespace's primary network: these
    /// pods' as ready ones, and nobody else's.
    Mirrored {
        /// The family.
        family: Family,
        /// Its ready backends.
        backends: Vec<PodRef>,
    },
    /// A service, whether it is there or not, has no mirrored endpoints.
    NotMirrored,
    /// A service has no ClusterIP: it is headless.
    NoClusterIp,
}

/// A short, stable word for cell ids.
impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exists => f.pad("exists"),
            Self::Gone => f.pad("gone"),
            Self::HeldByFinalizer { .. } => f.pad("held-by-finalizer"),
            Self::Condition { any_of, status, .. } => {
                f.pad(&format!("{}-{status}", any_of.first().map_or("condition", String::as_str)))
            }
            Self::NotTrue { condition } => f.pad(&format!("{condition}-not-true")),
            Self::Event { reason, .. } => f.pad(&format!("event-{reason}")),
            Self::ReadyWithoutRestart => f.pad("ready-without-restart"),
            Self::PodWaits => f.pad("pod-waits"),
            Self::Refused { .. } => f.pad("refused"),
            Self::Accepted => f.pad("accepted"),
            Self::PodNetworks { .. } => f.pad("pod-networks"),
            Self::Mirrored { family, .. } => f.pad(&format!("mirrored-{family}")),
            Self::NotMirrored => f.pad("not-mirrored"),
            Self::NoClusterIp => f.pad("no-cluster-ip"),
        }
    }
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

/// What a target cluster must offer for a cell to be tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Feature {
    /// Layer2 and Layer3 primary networks by UserDefinedNetwork and ClusterUserDefinedNetwork.
    UserDefinedNetworks,
    /// Secondary networks by `k8s.v1.cni.cncf.io/networks`.
    MultiHoming,
    /// Static addresses for the primary network by `v1.multus-cni.io/default-network`.
    StaticPrimaryAddress,
    /// A vantage point outside the cluster.
    ExternalVantagePoint,
    /// At least two schedulable nodes.
    TwoNodes,
    /// Pods in the host network may be created.
    HostNetworkPods,
    /// Services of type LoadBalancer get addresses.
    LoadBalancers,
    /// There are addresses that services may claim as their `externalIPs`, and that the underlay routes to nodes.
    ExternalIps,
    /// CUDNs have a field for the transport without overlay.
    NoOverlay,
    /// CUDNs have a field for EVPN.
    Evpn,
    /// `VTEP` objects.
    Vteps,
    /// `ClusterNetworkConnect` objects.
    NetworkConnects,
    /// The cluster's DNS service.
    ClusterDns,
    /// The API server's service has an IPv4 address.
    ApiServerV4,
    /// The API server's service has an IPv6 address.
    ApiServerV6,
    /// A name outside of the cluster that has an IPv4 address.
    ExternalNameV4,
    /// A name outside of the cluster that has an IPv6 address.
    ExternalNameV6,
    /// The network plugin's node component runs in pods that may be deleted.
    NodeComponentPods,
}

impl Feature {
    /// That the API server's service has an address of this family.
    #[must_use]
    pub const fn api_server(family: Family) -> Self {
        match family {
            Family::V4 => Self::ApiServerV4,
            Family::V6 => Self::ApiServerV6,
        }
    }

    /// What a skipped cell says.
    #[must_use]
    pub const fn missing(self) -> &'static str {
        match self {
            Self::UserDefinedNetworks => {
                "the cluster does not serve k8s.ovn.org/v1 UserDefinedNetwork and ClusterUserDefinedNetwork"
            }
            Self::MultiHoming => "the cluster does not serve k8s.cni.cncf.io/v1 NetworkAttachmentDefinition",
            Self::StaticPrimaryAddress => {
                "the cluster has no NetworkAttachmentDefinition ovn-kubernetes/default, which static primary addresses need"
            }
            Self::ExternalVantagePoint => {
                "no vantage point outside the cluster: label a pod on an external host udn-conformance.io/vantage-point=external"
            }
            Self::TwoNodes => "the cluster has fewer than two schedulable nodes",
            Self::HostNetworkPods => "host-network pods may not be created",
            Self::LoadBalancers => {
                "nothing gives services of type LoadBalancer an address, or nobody says which node announces it (events `nodeAssigned`)"
            }
            Self::ExternalIps => {
                "no addresses are known that services may claim as externalIPs and that are routed to a node: annotate the external vantage \
                 point udn-conformance.io/external-ips=<CIDR>[,<CIDR>]"
            }
            Self::NoOverlay => "ClusterUserDefinedNetwork has no field spec.network.noOverlay in this cluster",
            Self::Evpn => "ClusterUserDefinedNetwork has no field spec.network.evpn in this cluster",
            Self::Vteps => "the cluster does not serve k8s.ovn.org/v1 VTEP",
            Self::NodeComponentPods => {
                "no pods labelled app=ovnkube-node in namespace ovn-kubernetes or openshift-ovn-kubernetes that may be deleted"
            }
            Self::NetworkConnects => "the cluster does not serve k8s.ovn.org/v1 ClusterNetworkConnect",
            Self::ClusterDns => "the cluster has no DNS service kube-system/kube-dns",
            Self::ApiServerV4 => "the service default/kubernetes has no IPv4 address",
            Self::ApiServerV6 => "the service default/kubernetes has no IPv6 address",
            Self::ExternalNameV4 => {
                "no name outside of the cluster is known: say one with --external-name, or annotate the external vantage point's pod with udn-conformance.io/external-name"
            }
            Self::ExternalNameV6 => {
                "no name outside of the cluster is known to have an IPv6 address: annotate the external vantage point's pod with udn-conformance.io/external-name"
            }
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
            Check::Probe { transport, .. } | Check::Series { transport, .. } | Check::Resolve { transport, .. } => {
                Some(*transport)
            }
            _ => None,
        }
    }

    /// The cell's address family; `None` where it concerns both or none.
    #[must_use]
    pub const fn family(&self) -> Option<Family> {
        match &self.check {
            Check::Probe { family, .. } | Check::Series { family, .. } | Check::Resolve { family, .. } => Some(*family),
            Check::Fact { family, .. } => *family,
            Check::Object { claim: Claim::Mirrored { family, .. }, .. } => Some(*family),
            Check::Object { .. } => None,
        }
    }
}
