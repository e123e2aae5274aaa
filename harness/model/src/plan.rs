//! Suites and filters into the list of cells, each with the reason why it would be skipped. Pure: needs no cluster.

mod maker;
mod names;

use std::collections::{BTreeSet, HashSet};

use serde::Serialize;
use serde_json::Value;

use self::maker::Maker;
use crate::cell::{AddressOn, Cell, Check, Exposure, Feature, ObjectRef, Target, VantagePoint};
use crate::dns::DnsName;
use crate::filter::Filter;
use crate::scenario::{Action, Probing, Scenario, Suite, Targets};
use crate::words::{Family, Placement};
use crate::world::{NODE_LABEL, PRIMARY_LABEL, READY_GATE, World, WorldError};

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
            Feature::ClusterDns,
            Feature::ApiServerV4,
            Feature::ApiServerV6,
            Feature::ExternalNameV4,
            Feature::ExternalNameV6,
            Feature::NodeComponentPods,
            Feature::VirtualMachines,
            Feature::PersistentAddresses,
            Feature::BridgeBinding,
            Feature::GuestImage,
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

impl PlannedScenario {
    /// All cells, in order.
    pub fn cells(&self) -> impl Iterator<Item = &PlannedCell> + Clone {
        self.phases.iter().flat_map(|phase| &phase.cells)
    }
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
    /// Seconds that the cells are given to settle at least.
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
        Ok(Self { scenarios: Self::each(suites, filter, environment).collect::<Result<_, _>>()? })
    }

    /// The same, one scenario after the other: who only looks at cells never has all of them in memory.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn each(
        suites: &[Suite],
        filter: &Filter,
        environment: &Environment,
    ) -> impl Iterator<Item = Result<PlannedScenario, PlanError>> {
        let all = suites.iter().flat_map(|suite| suite.scenarios.iter().map(move |scenario| (suite.name, scenario)));
        all.filter_map(|(suite, scenario)| match expand(suite, scenario, filter, environment) {
            Ok(phases) if phases.iter().all(|phase| phase.cells.is_empty()) => None,
            Ok(phases) => Some(Ok(PlannedScenario { suite: suite.into(), scenario: scenario.clone(), phases })),
            Err(error) => Some(Err(error)),
        })
    }

    /// All cells, in order.
    pub fn cells(&self) -> impl Iterator<Item = &PlannedCell> + Clone {
        self.scenarios.iter().flat_map(PlannedScenario::cells)
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
            // They come again.
            Action::DeleteMirrored(_) => {}
            // What is merely submitted is for the matrix to judge: it may well be refused.
            Action::Submit(_) => {}
            Action::Migrate { vm, to } => {
                let object = ObjectRef::vm(vm);
                for manifest in manifests.iter_mut().filter(|manifest| named(manifest, &object)) {
                    manifest["spec"]["template"]["metadata"]["labels"][NODE_LABEL] = Value::String(to.to_string());
                }
            }
            // It is where it was. Who is restarted goes to the node of its label again.
            Action::FailMigration { .. } | Action::RestartVm(_) | Action::StopVm(_) | Action::StartVm(_) => {}
            // Nothing is done, or to nothing that is declared.
            Action::TryCreate(_) | Action::TryChange(_) | Action::RestartNodeComponent { .. } => {}
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
    let figures: Vec<usize> =
        keep.iter().copied().filter(|index| matches!(cells[*index].check, Check::Figure { .. })).collect();
    for figure in figures {
        keep.extend((0..cells.len()).filter(|flow| cells[*flow].is_flow_of(&cells[figure])));
    }
    if keep.len() == cells.len() {
        return cells;
    }
    let negative: Vec<usize> =
        keep.iter().copied().filter(|index| cells[*index].expectation.needs_controls()).collect();
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
        _ => names::controls_vantage(control, cell),
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
        _ => names::controls_listener(control, cell),
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
                let default = pod.vm.is_none().then_some(AddressOn::Default);
                let on = default.into_iter().chain(primary).chain(secondary);
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
        Targets::Outside => {
            let by_name = Target::Name(DnsName::ApiServer);
            nodes().chain([Target::External, Target::ApiServer, by_name]).collect()
        }
        // Not places: see `names`.
        Targets::Names => Vec::new(),
    }
}
