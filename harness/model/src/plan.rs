//! Suites and filters into the list of cells, each with the reason why it would be skipped. Pure: needs no cluster.

use std::collections::{BTreeSet, HashSet};

use serde::Serialize;
use serde_json::Value;

use crate::cell::{
    AddressOn, Cell, CellId, Check, Expectation, Exposure, Feature, ObjectRef, Reach, Target, VantagePoint,
};
use crate::fact;
use crate::filter::Filter;
use crate::oracle::{self, ExpectedSeries, Wire};
use crate::rule::RuleName;
use crate::scenario::{Action, Assertion, FullMatrix, Phase, Probing, Scenario, Suite, Targets, WorldSpec};
use crate::words::{Family, Placement, Topology, Transport};
use crate::world::{PRIMARY_LABEL, READY_GATE, ServicePort, World, WorldError};

/// What a target cluster offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    /// Features that it has.
    pub features: BTreeSet<Feature>,
    /// Families that its default network has.
    pub families: Vec<Family>,
}

impl Environment {
    /// Everything that a cell could need: for listing without a cluster, and what the lab offers.
    #[must_use]
    pub fn complete() -> Self {
        let features = [
            Feature::UserDefinedNetworks,
            Feature::MultiHoming,
            Feature::StaticPrimaryAddress,
            Feature::ExternalVantagePoint,
            Feature::TwoNodes,
            Feature::HostNetworkPods,
            Feature::LoadBalancers,
            Feature::ExternalIps,
            Feature::NoOverlay,
            Feature::Evpn,
            Feature::Vteps,
            Feature::NetworkConnects,
            Feature::NodeComponentPods,
        ];
        Self { features: features.into_iter().collect(), families: Family::ALL.to_vec() }
    }
}

/// Every cell of a run, in the order of suites.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Scenarios with at least one selected cell.
    pub scenarios: Vec<PlannedScenario>,
}

/// A scenario and its cells.
#[derive(Clone, Debug)]
pub struct PlannedScenario {
    /// The suite's name.
    pub suite: String,
    /// The scenario as written.
    pub scenario: Scenario,
    /// Its phases: all of them, since a later one builds on the actions of the earlier; a phase may have no cells.
    pub phases: Vec<PlannedPhase>,
}

/// A phase and its cells.
#[derive(Clone, Debug)]
pub struct PlannedPhase {
    /// The phase's name.
    pub name: String,
    /// What is done first.
    pub actions: Vec<Action>,
    /// From when the cells are probed.
    pub probing: Probing,
    /// Seconds that the cells are given to settle.
    pub settle_within_s: u32,
    /// The world as it is declared once the actions are done.
    pub world: World,
    /// The cells.
    pub cells: Vec<PlannedCell>,
}

/// A cell, and why it would not be tried.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlannedCell {
    /// The cell.
    #[serde(flatten)]
    pub cell: Cell,
    /// The reason for a skip.
    pub skip: Option<String>,
}

/// A plan that cannot be made: a mistake in the suites or fixtures.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// A fixture does not describe a world.
    #[error("scenario {scenario}, phase {phase}: {source}")]
    World {
        /// `suite::scenario`.
        scenario: String,
        /// The phase.
        phase: String,
        /// What is wrong.
        source: WorldError,
    },
    /// A cell names something that is not there.
    #[error("scenario {scenario}, phase {phase}: {problem}")]
    Assertion {
        /// `suite::scenario`.
        scenario: String,
        /// The phase.
        phase: String,
        /// What is wrong.
        problem: String,
    },
}

impl Plan {
    /// Expands suites into cells, keeps the selected ones and the controls that they need.
    ///
    /// # Errors
    /// A mistake in the suites or fixtures, with its place.
    pub fn new(suites: &[Suite], filter: &Filter, environment: &Environment) -> Result<Self, PlanError> {
        let mut scenarios = Vec::new();
        for suite in suites {
            for scenario in &suite.scenarios {
                let phases = expand(suite.name, scenario, filter, environment)?;
                if phases.iter().any(|phase| !phase.cells.is_empty()) {
                    scenarios.push(PlannedScenario { suite: suite.name.into(), scenario: scenario.clone(), phases });
                }
            }
        }
        Ok(Self { scenarios })
    }

    /// All cells, in order.
    pub fn cells(&self) -> impl Iterator<Item = &PlannedCell> + Clone {
        self.scenarios.iter().flat_map(|scenario| &scenario.phases).flat_map(|phase| &phase.cells)
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.scenarios.is_empty()
    }
}

fn expand(
    suite: &str,
    scenario: &Scenario,
    filter: &Filter,
    environment: &Environment,
) -> Result<Vec<PlannedPhase>, PlanError> {
    let mut manifests = scenario.world.manifests.clone();
    let mut phases = Vec::new();
    for phase in &scenario.phases {
        apply(&mut manifests, &phase.actions);
        let place = || (format!("{suite}::{}", scenario.name), phase.name.clone());
        let world = World::from_manifests(&manifests).map_err(|source| {
            let (scenario, phase) = place();
            PlanError::World { scenario, phase, source }
        })?;
        let maker = Maker { suite, scenario, phase, world: &world, spec: &scenario.world };
        let mut cells = Vec::new();
        for assertion in &phase.matrix {
            maker.make(assertion, &mut cells).map_err(|problem| {
                let (scenario, phase) = place();
                PlanError::Assertion { scenario, phase, problem }
            })?;
        }
        let cells = select(cells, filter)
            .into_iter()
            .map(|cell| PlannedCell { skip: skip(&cell, environment), cell })
            .collect();
        phases.push(PlannedPhase {
            name: phase.name.clone(),
            actions: phase.actions.clone(),
            probing: phase.probing,
            settle_within_s: phase.settle_within_s,
            world,
            cells,
        });
    }
    Ok(phases)
}

/// What the declared objects are after the actions. Refused ones are tried on objects of their own or on labels that the
/// world does not depend on, so they need no undoing.
fn apply(manifests: &mut Vec<Value>, actions: &[Action]) {
    let same = |a: &Value, b: &Value| {
        a["kind"] == b["kind"]
            && a["metadata"]["name"] == b["metadata"]["name"]
            && a["metadata"]["namespace"] == b["metadata"]["namespace"]
    };
    for action in actions {
        match action {
            Action::Apply(objects) => {
                for object in objects {
                    manifests.retain(|manifest| !same(manifest, object));
                    manifests.push(object.clone());
                }
            }
            Action::Delete(object) | Action::DeleteAndWait(object) => {
                manifests.retain(|manifest| !named(manifest, object))
            }
            Action::Annotate { object, key, value } => set(manifests, object, ("annotations", key), value.as_deref()),
            // This label cannot be changed: whoever tries wants to be refused.
            Action::Label { key, .. } if key == PRIMARY_LABEL => {}
            Action::Label { object, key, value } => set(manifests, object, ("labels", key), value.as_deref()),
            Action::SetReady { pod, ready } => {
                let object = ObjectRef::pod(pod);
                let status = if *ready { "True" } else { "False" };
                for manifest in manifests.iter_mut().filter(|manifest| named(manifest, &object)) {
                    manifest["status"] =
                        serde_json::json!({ "conditions": [{ "type": READY_GATE, "status": status }] });
                }
            }
            // What is merely submitted is for the matrix to judge: it may well be refused.
            Action::Submit(_) => {}
            // Nothing is done, or to nothing that is declared, or it comes again.
            Action::TryCreate(_)
            | Action::TryChange(_)
            | Action::RestartNodeComponent { .. }
            | Action::DeleteMirrored(_) => {}
        }
    }
}

fn named(manifest: &Value, object: &ObjectRef) -> bool {
    manifest["kind"] == object.kind
        && manifest["metadata"]["name"] == object.name
        && manifest["metadata"]["namespace"].as_str() == object.namespace.as_deref()
}

/// Sets or removes a label or an annotation of an object.
fn set(manifests: &mut [Value], object: &ObjectRef, (map, key): (&str, &str), value: Option<&str>) {
    for manifest in manifests.iter_mut().filter(|manifest| named(manifest, object)) {
        match (value, manifest["metadata"][map].as_object_mut()) {
            (Some(value), _) => manifest["metadata"][map][key] = Value::String(value.to_owned()),
            (None, Some(entries)) => {
                entries.remove(key);
            }
            (None, None) => {}
        }
    }
}

/// Selected cells, and for every negative one of them a control of its vantage point and one of its listener.
fn select(cells: Vec<Cell>, filter: &Filter) -> Vec<Cell> {
    let mut keep: HashSet<usize> = (0..cells.len()).filter(|index| filter.selects(&cells[*index])).collect();
    if keep.len() == cells.len() {
        return cells;
    }
    let negative: Vec<usize> = keep.iter().copied().filter(|index| cells[*index].expectation.is_negative()).collect();
    for index in negative {
        let controls = cells.iter().enumerate().filter(|(_, cell)| is_control(cell));
        let (mut vantage, mut listener) = (None, None);
        for (candidate, control) in controls {
            if controls_vantage(control, &cells[index]) && (vantage.is_none() || keep.contains(&candidate)) {
                vantage = Some(candidate);
            }
            if controls_listener(control, &cells[index]) && (listener.is_none() || keep.contains(&candidate)) {
                listener = Some(candidate);
            }
        }
        keep.extend(vantage);
        keep.extend(listener);
    }
    let mut index = 0;
    let mut cells = cells;
    cells.retain(|_| {
        index += 1;
        keep.contains(&(index - 1))
    });
    cells
}

/// Whether a cell can be a control: it is open whatever addresses are given.
fn is_control(cell: &Cell) -> bool {
    cell.expectation.is_plainly_open()
}

/// Whether an open `control` shows that the vantage point of `cell` works: it reaches something over the same transport and
/// family, not itself. Where a policy may let it send nothing, it is enough that somebody else reaches it: it answers.
#[must_use]
pub fn controls_vantage(control: &Cell, cell: &Cell) -> bool {
    match (&control.check, &cell.check) {
        (
            Check::Probe { from: f1, to, transport: t1, family: v1, placement, .. },
            Check::Probe { from: f2, transport: t2, family: v2, .. },
        ) => {
            let answers = cell.rule.is_policy()
                && matches!((to, f2), (Target::Pod { pod: to, .. }, VantagePoint::Pod(from)) if to == from);
            (f1 == f2 || answers) && t1 == t2 && v1 == v2 && *placement != Placement::Itself
        }
        _ => false,
    }
}

/// Whether an open `control` shows that the listener of `cell` answers: the same pod, transport, port and family, on the
/// same address or on the one that its listener shares with it.
#[must_use]
pub fn controls_listener(control: &Cell, cell: &Cell) -> bool {
    match (&control.check, &cell.check) {
        (
            Check::Probe { to: to1, transport: t1, port: p1, family: v1, .. },
            Check::Probe { to: to2, transport: t2, port: p2, family: v2, .. },
        ) => to1 == to2 && t1 == t2 && p1 == p2 && v1 == v2,
        _ => false,
    }
}

fn skip(cell: &Cell, environment: &Environment) -> Option<String> {
    if let Some(feature) = cell.requires.iter().find(|feature| !environment.features.contains(feature)) {
        return Some(feature.missing().into());
    }
    let family = cell.family()?;
    (!environment.families.contains(&family)).then(|| format!("the cluster has no {family} addresses"))
}

/// All vantage points of a world; with `outsiders` also its nodes and the external client.
#[must_use]
pub fn vantage_points(world: &World, outsiders: bool) -> Vec<VantagePoint> {
    let mut points: Vec<_> = world.pods.iter().map(|pod| VantagePoint::Pod(pod.pod.clone())).collect();
    if outsiders {
        points.extend(world.nodes().into_iter().map(VantagePoint::Node));
        points.push(VantagePoint::External);
    }
    points
}

/// All targets of a world of one kind; of pods with `outsiders` also its nodes, which an external client must reach.
#[must_use]
pub fn targets(world: &World, kind: Targets, outsiders: bool) -> Vec<Target> {
    let nodes = || world.nodes().into_iter().map(Target::Node);
    match kind {
        Targets::Pods => {
            let pods = world.pods.iter().flat_map(|pod| {
                let primary = pod.primary.is_some().then_some(AddressOn::Primary);
                let secondary = pod.secondary.iter().map(|attachment| AddressOn::Secondary(attachment.network.clone()));
                let on = std::iter::once(AddressOn::Default).chain(primary).chain(secondary);
                on.map(|on| Target::Pod { pod: pod.pod.clone(), on }).collect::<Vec<_>>()
            });
            if outsiders { pods.chain(nodes()).collect() } else { pods.collect() }
        }
        Targets::Services => {
            let services = world.services.iter().flat_map(|service| {
                let node_ports = world.nodes().into_iter().map(Exposure::NodePort);
                let via = std::iter::once(Exposure::ClusterIp).chain(node_ports);
                let via = via.chain([Exposure::LoadBalancer, Exposure::ExternalIp]);
                via.map(|via| Target::Service { service: service.service.clone(), via }).collect::<Vec<_>>()
            });
            services.collect()
        }
        Targets::Outside => nodes().chain([Target::External, Target::ApiServer]).collect(),
    }
}

/// The port of the API server's service.
const API_PORT: u16 = 443;

/// On which ports a target is probed.
fn ports(world: &World, matrix: &FullMatrix, target: &Target) -> Vec<(Transport, Option<u16>)> {
    match target {
        Target::Service { service, .. } => {
            let of = |port: &ServicePort| (port.transport, Some(port.port));
            let ports = world.service(service).into_iter().flat_map(|service| service.ports.iter().map(of));
            ports.filter(|(transport, _)| matrix.ports.iter().any(|(wanted, _)| wanted == transport)).collect()
        }
        Target::ApiServer => vec![(Transport::Tcp, Some(API_PORT))],
        _ => matrix.ports.clone(),
    }
}

/// Makes the cells of one phase.
struct Maker<'a> {
    suite: &'a str,
    scenario: &'a Scenario,
    phase: &'a Phase,
    world: &'a World,
    spec: &'a WorldSpec,
}

impl Maker<'_> {
    fn make(&self, assertion: &Assertion, cells: &mut Vec<Cell>) -> Result<(), String> {
        match assertion {
            Assertion::Full(matrix) => self.full(matrix, cells),
            Assertion::Probe(probe) => {
                for family in &probe.families {
                    let wire = Wire { transport: probe.transport, port: probe.port, family: *family };
                    self.known(&probe.from, &probe.to)?;
                    cells.push(self.probe(probe.rule.clone(), probe.expectation.clone(), &probe.from, &probe.to, wire));
                }
            }
            Assertion::Facts => {
                for pod in &self.world.pods {
                    for (fact, family) in fact::promised(self.world, pod) {
                        let suffix = family.map_or_else(String::new, |family| format!("::{family}"));
                        let topology =
                            pod.primary.as_ref().and_then(|id| self.world.network(id)).map(|network| network.topology);
                        let what = format!("{}::{fact}{suffix}", pod.pod.dotted());
                        let mut cell = self.cell(oracle::rule_of(&fact), Expectation::Holds, &what, topology);
                        if matches!(fact, fact::Fact::Secondary(_)) {
                            cell.0.requires.push(Feature::MultiHoming);
                        }
                        if fact == fact::Fact::AsRequested
                            && (pod.requested.mac.is_some() || !pod.requested.ips.is_empty())
                        {
                            cell.0.requires.push(Feature::StaticPrimaryAddress);
                        }
                        cells.push(cell.check(Check::Fact { pod: pod.pod.clone(), fact, family }));
                    }
                }
            }
            Assertion::Series(services) => {
                for ExpectedSeries { from, to, wire, series, rule } in oracle::series(self.world, services) {
                    let Wire { transport, port, family } = wire;
                    let mut cell = self.probe(rule, Expectation::Holds, &from, &to, wire);
                    let placement = oracle::placement(self.world, &from, &to);
                    cell.id.0 = format!("{}::{}", cell.id, series.promise);
                    cell.check = Check::Series { from, to, placement, transport, port, family, series };
                    cells.push(cell);
                }
            }
            Assertion::Slices => {
                for (service, claim) in oracle::slices(self.world) {
                    let topology = self.world.primary_of(&service.namespace).map(|network| network.topology);
                    let object = ObjectRef::namespaced("v1", "Service", &service.namespace, &service.name);
                    let rule = RuleName::new("services/endpoint-slices");
                    let cell = self.cell(rule, Expectation::Holds, &format!("{object}::{claim}"), topology);
                    cells.push(cell.check(Check::Object { object, claim }));
                }
            }
            Assertion::Object { rule, object, claim } => {
                let cell = self.cell(rule.clone(), Expectation::Holds, &format!("{object}::{claim}"), None);
                cells.push(cell.check(Check::Object { object: object.clone(), claim: claim.clone() }));
            }
        }
        Ok(())
    }

    fn known(&self, from: &VantagePoint, to: &Target) -> Result<(), String> {
        let pods = [
            if let VantagePoint::Pod(pod) = from { Some(pod) } else { None },
            if let Target::Pod { pod, .. } = to { Some(pod) } else { None },
        ];
        if let Target::Service { service, .. } = to
            && self.world.service(service).is_none()
        {
            return Err(format!("the world has no service {service}"));
        }
        match pods.into_iter().flatten().find(|pod| self.world.pod(pod).is_none()) {
            Some(pod) => Err(format!("the world has no pod {pod}")),
            None => Ok(()),
        }
    }

    fn full(&self, matrix: &FullMatrix, cells: &mut Vec<Cell>) {
        let touches = |from: &VantagePoint, to: &Target| {
            let source = matches!(from, VantagePoint::Pod(pod) if matrix.pods.contains(pod));
            let target = matches!(to, Target::Pod { pod, .. } if matrix.pods.contains(pod));
            matrix.pods.is_empty() || source || target
        };
        let mut made = Vec::new();
        for from in vantage_points(self.world, matrix.outsiders) {
            for to in targets(self.world, matrix.targets, matrix.outsiders) {
                // Among pods a node is there only for those who have nothing else that they may reach.
                if matrix.targets == Targets::Pods && matches!(to, Target::Node(_)) && from != VantagePoint::External {
                    continue;
                }
                for (transport, port) in ports(self.world, matrix, &to) {
                    for family in &matrix.families {
                        let wire = Wire { transport, port, family: *family };
                        let Ok(expected) = oracle::expect(self.world, &from, &to, wire) else {
                            continue;
                        };
                        let wanted =
                            (matrix.rules.is_empty() || matrix.rules.contains(&expected.rule)) && touches(&from, &to);
                        made.push((wanted, self.probe(expected.rule, expected.expectation, &from, &to, wire)));
                    }
                }
            }
        }
        // What is not wanted may still be a control of what is.
        let wanted: Vec<Cell> = made.iter().filter(|(wanted, _)| *wanted).map(|(_, cell)| cell.clone()).collect();
        let needed = |candidate: &Cell| {
            is_control(candidate)
                && wanted.iter().any(|cell| {
                    cell.expectation.is_negative()
                        && (controls_vantage(candidate, cell) || controls_listener(candidate, cell))
                })
        };
        cells.extend(made.iter().filter(|(wanted, cell)| *wanted || needed(cell)).map(|(_, cell)| cell.clone()));
    }

    fn probe(&self, rule: RuleName, expectation: Expectation, from: &VantagePoint, to: &Target, wire: Wire) -> Cell {
        let placement = oracle::placement(self.world, from, to);
        // What is forbidden from the first packet on is a promise of its own.
        let from_first_packet = self.phase.probing != Probing::AfterActions && expectation.is_negative();
        let rule = match &self.phase.open_as {
            _ if from_first_packet => RuleName::new("isolation/no-window"),
            Some(promise) if !expectation.is_negative() && !rule.is_control() => promise.clone(),
            _ => rule,
        };
        let port = wire.port.map_or_else(String::new, |port| format!("-{port}"));
        let what = format!("{from}::{to}::{placement}::{}{port}::{}", wire.transport, wire.family);
        let mut cell = self.cell(rule, expectation, &what, oracle::topology(self.world, from, to));
        if *from == VantagePoint::External || *to == Target::External {
            cell.0.requires.push(Feature::ExternalVantagePoint);
        }
        if matches!(from, VantagePoint::Node(_)) || matches!(to, Target::Node(_)) {
            cell.0.requires.push(Feature::HostNetworkPods);
        }
        if placement == Placement::OtherNode {
            cell.0.requires.push(Feature::TwoNodes);
        }
        if matches!(to, Target::Service { via: Exposure::ExternalIp, .. }) {
            cell.0.requires.push(Feature::ExternalIps);
        }
        // Who announces an address is told by whoever balances loads, too.
        let by_announcer = matches!(cell.0.expectation, Expectation::Open { reach: Reach::ThroughAnnouncer(_), .. });
        if by_announcer || matches!(to, Target::Service { via: Exposure::LoadBalancer, .. }) {
            cell.0.requires.push(Feature::LoadBalancers);
        }
        if self.phase.actions.iter().any(|action| matches!(action, Action::RestartNodeComponent { .. })) {
            cell.0.requires.push(Feature::NodeComponentPods);
        }
        if matches!(to, Target::Pod { on: AddressOn::Secondary(_), .. }) {
            cell.0.requires.push(Feature::MultiHoming);
        }
        let Wire { transport, port, family } = wire;
        cell.check(Check::Probe { from: from.clone(), to: to.clone(), placement, transport, port, family })
    }

    fn cell(&self, rule: RuleName, expectation: Expectation, what: &str, topology: Option<Topology>) -> Unfinished {
        let id = format!("{}::{}::{}::{}::{what}", self.suite, self.scenario.name, self.phase.name, rule.short());
        Unfinished(Cell {
            id: CellId(id),
            suite: self.suite.into(),
            scenario: self.scenario.name.clone(),
            phase: self.phase.name.clone(),
            rule,
            // Replaced by `check`: every way to a finished cell leads through it.
            check: Check::Object {
                object: crate::cell::ObjectRef::cluster("", "", ""),
                claim: crate::cell::Claim::Exists,
            },
            expectation,
            topology,
            requires: self.spec.requires.clone(),
        })
    }
}

/// A cell that still lacks its check.
struct Unfinished(Cell);

impl Unfinished {
    fn check(self, check: Check) -> Cell {
        Cell { check, ..self.0 }
    }
}
