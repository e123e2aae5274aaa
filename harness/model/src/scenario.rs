//! Scenarios: fixtures and phases, as data. Nothing here waits or executes.

use serde::{Deserialize, Serialize};

use crate::cell::{Claim, Expectation, Feature, ObjectRef, Target, VantagePoint};
use crate::flow::FlowKind;
use crate::rule::RuleName;
use crate::words::{Family, Transport};
use crate::world::{PodRef, World};

/// The scenarios of one area.
#[derive(Clone, Debug)]
pub struct Suite {
    /// The area: `isolation`.
    pub name: &'static str,
    /// What it is about, one line.
    pub title: &'static str,
    /// Its scenarios, in order.
    pub scenarios: Vec<Scenario>,
}

/// Fixtures and phases.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Unique in its suite.
    pub name: String,
    /// One line for `list` and reports.
    pub title: String,
    /// The world that it runs in: scenarios with the same fixtures share one.
    pub world: WorldSpec,
    /// Whether it changes the world: then it gets one of its own.
    pub exclusive: bool,
    /// In order.
    pub phases: Vec<Phase>,
}

/// Fixtures by name and what they make.
#[derive(Clone, Debug)]
pub struct WorldSpec {
    /// Name of the set of fixtures: `layer3`.
    pub name: String,
    /// The manifests, as JSON objects in the order of their files.
    pub manifests: Vec<serde_json::Value>,
    /// What they describe.
    pub world: World,
    /// What a cluster must offer for the world to be made at all.
    pub requires: Vec<Feature>,
}

/// An action, and the matrix that must hold after it.
#[derive(Clone, Debug)]
pub struct Phase {
    /// Unique in its scenario.
    pub name: String,
    /// What is done, in order, before the matrix is judged.
    pub actions: Vec<Action>,
    /// What must hold then.
    pub matrix: Vec<Assertion>,
    /// From when the matrix is probed.
    pub probing: Probing,
    /// Seconds that the matrix is given to settle at least, where that may be more than a run gives any matrix; else 0.
    pub settle_within_s: u32,
    /// The rule that the actions' effect on open cells comes from, where it is not the oracle's: removing a policy opens
    /// what isolation opens, but that it does is a promise of its own.
    pub open_as: Option<RuleName>,
}

/// From when a phase's matrix is probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Probing {
    /// Once the actions are done: settle, then hold.
    AfterActions,
    /// Closed cells already while the actions run, as soon as their target has an address, without pause; then as above.
    /// One success is a violation.
    FromFirstPacket,
    /// In rounds that go on while the actions run, from their beginning: every round must match, nothing may settle first.
    Throughout,
}

/// Something done to the world.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Creates or changes objects by server-side apply, then waits until the pods among them are ready.
    Apply(Vec<serde_json::Value>),
    /// As [`Action::Apply`], but waits for nothing: the matrix says what must come of it, a refusal included.
    Submit(Vec<serde_json::Value>),
    /// Asks, without doing it, whether these objects would be created as they are (a dry run, no field unknown to its kind).
    /// The answer is for the matrix to judge.
    TryCreate(Vec<serde_json::Value>),
    /// As [`Action::TryCreate`], of changes to objects that are there.
    TryChange(Vec<serde_json::Value>),
    /// Asks for deletion and waits for nothing.
    Delete(ObjectRef),
    /// Asks for deletion and waits until the object is gone.
    DeleteAndWait(ObjectRef),
    /// Sets (or with `None` removes) a label. A refusal is for the matrix to judge.
    Label {
        /// On what.
        object: ObjectRef,
        /// The label's key.
        key: String,
        /// Its value.
        value: Option<String>,
    },
    /// Sets (or with `None` removes) an annotation. A refusal is for the matrix to judge.
    Annotate {
        /// On what.
        object: ObjectRef,
        /// The annotation's key.
        key: String,
        /// Its value.
        value: Option<String>,
    },
    /// Makes a pod with the harness' readiness gate Ready or not, and waits until its status says so.
    SetReady {
        /// The pod.
        pod: crate::world::PodRef,
        /// What it is to be.
        ready: bool,
    },
    /// Deletes the mirrored EndpointSlices of a service, as somebody might who does not know what they are for.
    DeleteMirrored(crate::world::ServiceRef),
    /// Restarts the network plugin's node component on a node by deleting its pod, and waits until its successor is Ready.
    RestartNodeComponent {
        /// The node's slot.
        node: u8,
    },
    /// Migrates a VM to the node in a slot while it runs, and waits until it runs there.
    Migrate {
        /// The VM.
        vm: PodRef,
        /// The slot.
        to: u8,
    },
    /// Begins a migration that must fail, and waits until it has; the VM stays where it is.
    FailMigration {
        /// The VM.
        vm: PodRef,
        /// How it is made to fail.
        how: MigrationFailure,
    },
    /// Stops a VM and starts it again, on whichever node, and waits until its agent answers in another life.
    RestartVm(PodRef),
    /// Stops a VM and waits until nothing of it runs.
    StopVm(PodRef),
    /// Starts a VM that was stopped, and waits until its agent answers.
    StartVm(PodRef),
}

/// How a migration is made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MigrationFailure {
    /// No node may take the target: it is asked for on a node that is not there, and called off while it waits.
    NoNode,
    /// KubeVirt's launcher is told to fail it (annotation `kubevirt.io/func-test-force-launcher-migration-failure`), as
    /// OVN-Kubernetes' own tests do.
    Launcher,
}

impl std::fmt::Display for MigrationFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::NoNode => "no node takes it",
            Self::Launcher => "its launcher fails it",
        })
    }
}

impl Action {
    /// Whether it moves or restarts a VM, or tries to.
    #[must_use]
    pub const fn migrates(&self) -> bool {
        matches!(self, Self::Migrate { .. } | Self::FailMigration { .. })
    }
}

/// One or many cells.
#[derive(Clone, Debug)]
pub enum Assertion {
    /// Every vantage point of the world to every target of it, expectations from the oracle.
    Full(FullMatrix),
    /// Many connections to each open address of these services of user defined networks (none named: of all), promises from
    /// the oracle.
    Series(Vec<crate::world::ServiceRef>),
    /// What EndpointSlices must say of every service, from the oracle.
    Slices,
    /// Flows, expectations from the oracle.
    Flows(Flows),
    /// One probe with an expectation written by hand from the documents.
    Probe(ProbeAssertion),
    /// Everything that the oracle promises of every pod's inside.
    Facts,
    /// What the last migration of a VM was announced as: to a pod of its network, and to itself its gateways.
    Announced {
        /// The VM.
        vm: PodRef,
        /// A pod of its network on any node, which hears what is said to all.
        at: PodRef,
    },
    /// One claim about an object.
    Object {
        /// The rule.
        rule: RuleName,
        /// The object.
        object: ObjectRef,
        /// What is promised.
        claim: Claim,
    },
}

/// Flows, which go on from phase to phase. A new connection's expectation is theirs, too:
/// Kubernetes leaves it to the implementation what a new policy makes of those that are there, and OVN asks its rules about
/// every packet.
#[derive(Clone, Debug)]
pub struct Flows {
    /// The rule of all of them.
    pub rule: RuleName,
    /// From whom to whom. A pod is reached on its primary network, where it listens on
    /// [`FLOW_PORT`](crate::flow::FLOW_PORT)/TCP and 8080/UDP; so does who stands behind a service of these ports.
    pub pairs: Vec<(VantagePoint, Target)>,
    /// What they speak: TCP alone, where they are bulk transfers.
    pub transports: Vec<Transport>,
    /// Families.
    pub families: Vec<Family>,
    /// What they carry.
    pub kind: FlowKind,
    /// Whether what they count is judged as well: that a stream is whole (under their rule), how long each was out
    /// (`vm/outage-measured`) and what was lost of datagrams (`vm/loss-counted`).
    pub figures: bool,
}

/// Every vantage point to every target.
#[derive(Clone, Debug)]
pub struct FullMatrix {
    /// What is probed.
    pub targets: Targets,
    /// Transports and their ports; a service is probed on its own ports of these transports.
    pub ports: Vec<(Transport, Option<u16>)>,
    /// Families.
    pub families: Vec<Family>,
    /// Only cells of these rules (controls are always kept); empty: all.
    pub rules: Vec<RuleName>,
    /// Only cells that touch one of these pods; empty: all.
    pub pods: Vec<crate::world::PodRef>,
    /// Nodes and the external client as vantage points, too.
    pub outsiders: bool,
}

/// What a full matrix probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Targets {
    /// Every address of every pod.
    Pods,
    /// Every address of every service.
    Services,
    /// What is outside of networks: the external server, hosts, the API server by its address and by its name.
    Outside,
    /// What the cluster's DNS service says of names.
    Names,
}

/// One probe with its own expectation.
#[derive(Clone, Debug)]
pub struct ProbeAssertion {
    /// The rule.
    pub rule: RuleName,
    /// Where it is sent from.
    pub from: VantagePoint,
    /// What is probed.
    pub to: Target,
    /// What it speaks.
    pub transport: Transport,
    /// Destination port; `None` for ICMP.
    pub port: Option<u16>,
    /// Families.
    pub families: Vec<Family>,
    /// What must come of it.
    pub expectation: Expectation,
}
