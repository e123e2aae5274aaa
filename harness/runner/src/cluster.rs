//! What the runner needs of a cluster. `udn-cluster` implements it with Kubernetes; tests implement it with a script.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc::UnboundedSender;
use udn_model::cell::{AddressOn, Claim, ObjectRef, Target, VantagePoint};
use udn_model::dns::DnsName;
use udn_model::fact::Fact;
use udn_model::flow::{FlowFigures, FlowKind};
use udn_model::migration::Migration;
use udn_model::observation::{Outcome, Witness};
use udn_model::scenario::{Action, WorldSpec};
use udn_model::words::{Family, Transport};
use udn_model::world::{NetworkId, PodRef, ServiceRef, World as Declared};

/// Something that the harness could not do: never a statement about the network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Trouble(pub String);

impl Trouble {
    /// From anything that says what was attempted, on what, and what to do.
    pub fn new(message: impl std::fmt::Display) -> Self {
        Self(message.to_string())
    }
}

/// A cluster in which worlds can be made.
#[async_trait]
pub trait Cluster: Send + Sync {
    /// Makes a world: its objects, pods ready, agents attached and listening. `instance` tells worlds of one run apart;
    /// it is short and fit for names. One line per step goes to `progress`.
    ///
    /// On failure, what was made so far stays for [`Cluster::remove`], and the trouble says what was waited for.
    ///
    /// # Errors
    /// What could not be made or did not get ready within the cluster's deadline.
    async fn provision(
        &self,
        spec: &WorldSpec,
        instance: &str,
        progress: UnboundedSender<String>,
    ) -> Result<Arc<dyn World>, Trouble>;

    /// Removes everything of a world, made in full or in part, and waits until it is gone.
    ///
    /// # Errors
    /// What is left, and why.
    async fn remove(&self, instance: &str) -> Result<(), Trouble>;

    /// Removes what worlds share. Called once, when all worlds are removed.
    ///
    /// # Errors
    /// What is left, and why.
    async fn finish(&self) -> Result<(), Trouble>;
}

/// A provisioned world.
#[async_trait]
pub trait World: Send + Sync {
    /// Performs an action as it says. What the API server answers is kept for [`Claim::Refused`] and
    /// [`Claim::Accepted`]; a refusal is trouble only for [`Action::Apply`] and [`Action::DeleteAndWait`].
    ///
    /// # Errors
    /// What could not be done or waited for.
    async fn act(&self, action: &Action) -> Result<(), Trouble>;

    /// Who has which address right now, from annotations and status. `declared` tells networks and pods. Cheap: called
    /// every round.
    ///
    /// # Errors
    /// The addresses cannot be read.
    async fn addresses(&self, declared: &Declared) -> Result<AddressBook, Trouble>;

    /// Sends all shots from one vantage point at once. Each shot gets exactly one report, in any order, as it comes.
    /// A vantage point that cannot be used reports a harness failure for each. Returns when all are reported.
    async fn probe(&self, from: &VantagePoint, shots: Vec<Shot>, reports: UnboundedSender<Report>);

    /// What arrived at the agent of a target since the mark; 0: since the agent is there. `None` gives a mark to begin
    /// with, and no packets. Everything that arrived before the call is in the answer.
    ///
    /// # Errors
    /// The agent there cannot be asked: absence of arrivals proves nothing then.
    async fn arrivals(&self, at: &Target, since: Option<u64>) -> Result<Arrivals, Trouble>;

    /// Whether facts about pods' insides hold, one answer per question in the same order. A pod is looked into once per
    /// call, however many questions concern it.
    async fn facts(&self, declared: &Declared, questions: &[FactQuestion]) -> Vec<Result<Found, Trouble>>;

    /// Whether a claim about an object holds, and what was found.
    ///
    /// # Errors
    /// The API server cannot be asked.
    async fn claim(&self, object: &ObjectRef, claim: &Claim) -> Result<Found, Trouble>;

    /// Migrations that were performed since the last such question, with what is known of their course.
    async fn migrations(&self) -> Vec<Migration> {
        Vec::new()
    }

    /// A command that repeats a probe by hand.
    fn repeat(&self, from: &VantagePoint, shot: &Shot) -> Option<String>;

    /// State of the pod, its namespace and its network, one bounded text a source, for a reader of a failure.
    async fn evidence(&self, pod: &PodRef) -> Vec<String>;
}

/// A fact that is promised of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FactQuestion {
    /// The pod.
    pub pod: PodRef,
    /// What is promised.
    pub fact: Fact,
    /// Of which family; `None` where it concerns the pod as a whole.
    pub family: Option<Family>,
}

/// What was found when a fact or a claim was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Whether it holds.
    pub holds: bool,
    /// What is there, in one line.
    pub found: String,
}

/// Who has which address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressBook {
    /// Pods with an agent or at least an address.
    pub pods: BTreeMap<PodRef, PodAddresses>,
    /// The nodes by slot.
    pub nodes: BTreeMap<u8, NodeAddresses>,
    /// The server outside of the cluster, if there is one.
    pub external: Option<NodeAddresses>,
    /// Services, as far as they have addresses.
    pub services: BTreeMap<ServiceRef, ServiceAddresses>,
    /// ClusterIPs of the API server's service.
    pub api_server: Vec<IpAddr>,
    /// ClusterIPs of the DNS service.
    pub dns: Vec<IpAddr>,
    /// What the name outside of the cluster means; empty: whatever it does; `None`: not known.
    pub external_name: Option<Vec<IpAddr>>,
}

/// A service's addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceAddresses {
    /// ClusterIPs.
    pub cluster: Vec<IpAddr>,
    /// NodePorts by transport and port.
    pub node_ports: BTreeMap<(Transport, u16), u16>,
    /// Addresses that a load balancer gave.
    pub load_balancer: Vec<IpAddr>,
    /// `spec.externalIPs`.
    pub external: Vec<IpAddr>,
    /// Slot of the node that answers for the last two on the underlay; `Some(None)`: a node that has no slot; `None`:
    /// nobody says so.
    pub announcer: Option<Option<u8>>,
}

/// A node's addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeAddresses {
    /// On the underlay.
    pub addresses: Vec<IpAddr>,
    /// Ports on which the harness listens there, whatever port a cell names: a host's ports are shared with others, so
    /// each run has its own.
    pub ports: BTreeMap<Transport, u16>,
    /// The one of them over TCP that returns what it gets.
    pub flow_port: Option<u16>,
    /// As [`PodAddresses::life`].
    pub life: Option<u64>,
}

impl AddressBook {
    /// Which life the agent at a target lives, as far as it is attached to.
    #[must_use]
    pub fn life(&self, target: &Target) -> Option<u64> {
        match target {
            Target::Pod { pod, .. } => self.pods.get(pod)?.life,
            Target::Node(slot) => self.nodes.get(slot)?.life,
            Target::External => self.external.as_ref()?.life,
            Target::Service { .. } | Target::ApiServer | Target::Name(_) => None,
        }
    }
}

/// A pod's addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodAddresses {
    /// Its primary user defined network; `None` on the cluster default network.
    pub network: Option<NetworkId>,
    /// On the cluster default network.
    pub default: Vec<IpAddr>,
    /// On its primary user defined network.
    pub primary: Vec<IpAddr>,
    /// On secondary networks.
    pub secondary: BTreeMap<NetworkId, Vec<IpAddr>>,
    /// Which life the agent there lives, as far as it is attached to: another number, another life. Its listeners are
    /// gone for a moment when it is started anew, and that is no fault of the network.
    pub life: Option<u64>,
}

impl PodAddresses {
    /// The pod's address of a family on one of its networks.
    #[must_use]
    pub fn on(&self, on: &AddressOn, family: Family) -> Option<IpAddr> {
        let addresses = match on {
            AddressOn::Default => &self.default,
            AddressOn::Primary => &self.primary,
            AddressOn::Secondary(network) => self.secondary.get(network)?,
        };
        addresses.iter().copied().find(|address| Family::of(*address) == family)
    }

    /// All its addresses.
    pub fn all(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.default.iter().chain(&self.primary).chain(self.secondary.values().flatten()).copied()
    }
}

/// One probe to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shot {
    /// Unique in the run: names the report, and travels in UDP and ICMP payloads.
    pub nonce: u64,
    /// What it speaks.
    pub transport: Transport,
    /// Destination.
    pub to: IpAddr,
    /// Destination port; `None` for ICMP.
    pub port: Option<u16>,
    /// The source port to bind to where it is free, so that a TCP arrival can be told from any other; the identifier of an
    /// echo request; `None`: any.
    pub source_port: Option<u16>,
    /// When to give up.
    pub timeout: Duration,
    /// Whether whoever listens there says who he is; else a completed handshake is an answer.
    pub introduces: bool,
    /// What has to be looked up.
    pub lookup: Option<Lookup>,
    /// Which connection it uses.
    pub over: Over,
}

/// A name that a shot is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// The shot is a question to the DNS server at its destination: for the name's addresses of this family.
    /// It ends in [`Outcome::Answered`], [`Outcome::Garbled`] or as a probe without an answer does.
    Question(DnsName, Family),
    /// The name is asked for first, over UDP, of this server; the shot goes to the first address that it says, and
    /// nowhere, with the look-up's outcome, where there is none.
    First(DnsName, IpAddr),
}

/// Which connection a shot uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Over {
    /// A new one.
    #[default]
    New,
    /// The vantage point's flow of this kind to that address, transport and port. It is begun by the first such shot; later
    /// ones end in [`Outcome::Open`] with the next reply or byte, and in [`Outcome::TimedOut`] if none comes in time.
    Flow(FlowKind),
}

/// What came of a shot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The shot.
    pub nonce: u64,
    /// How it ended. An open outcome's peer is `<namespace>/<pod>` of this world, `node<slot>` of this run, or whatever
    /// else the peer called itself.
    pub outcome: Outcome,
    /// The probe's own end of the socket.
    pub local: Option<SocketAddr>,
    /// How the flow fared since the shot before this one, where it is about one.
    pub flow: Option<Box<FlowFigures>>,
}

/// How the agent outside of the cluster calls itself in [`Outcome::Open`].
pub const EXTERNAL_IDENTITY: &str = "external";

/// How a node's agent calls itself in [`Outcome::Open`].
#[must_use]
pub fn node_identity(slot: u8) -> String {
    format!("node{slot}")
}

/// What arrived at a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrivals {
    /// Say this next time.
    pub mark: u64,
    /// How arrivals are seen there.
    pub witness: Witness,
    /// Some may have been lost since the mark: absence proves nothing.
    pub lossy: bool,
    /// Packets, oldest first.
    pub packets: Vec<Packet>,
}

/// A packet that arrived: a TCP SYN, a UDP datagram or an ICMP echo request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// What it speaks.
    pub transport: Transport,
    /// Source as it arrived.
    pub source: SocketAddr,
    /// Destination as it arrived; port 0 for ICMP.
    pub destination: SocketAddr,
    /// The nonce of the shot, where the payload had one.
    pub nonce: Option<u64>,
}
