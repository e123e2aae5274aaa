//! Whole runs against the scripted cluster, on a paused clock.
//!
//! * this file: plans, a healthy network, and what came of a run
//! * `verdicts`: what cells become, by what the network does
//! * `actions`: phases that change something first
//! * `flows`: what flows counted while a VM migrates
//! * `worlds`: set-up, the end of a run, what is kept

mod actions;
mod flows;
mod verdicts;
mod worlds;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use rstest::rstest;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use udn_model::baseline::{Baseline, KnownIssue};
use udn_model::cell::{AddressOn, Cell, CellId, Check, Claim, Expectation, ObjectRef, Reach, Target, VantagePoint};
use udn_model::event::{CellResult, Event, EventKind};
use udn_model::fact::Fact;
use udn_model::flow::FlowKind;
use udn_model::observation::Witness;
use udn_model::plan::{Plan, PlannedCell, PlannedPhase, PlannedScenario};
use udn_model::rule::RuleName;
use udn_model::scenario::{Action, Probing, Scenario, WorldSpec};
use udn_model::verdict::{ExitCode, Verdict};
use udn_model::words::{Family, Placement, Transport};
use udn_model::world::{NetworkId, PodRef, World as Declared};

use super::*;
use crate::fake::{Fake, Reply, Seen};

fn pod(text: &str) -> PodRef {
    let (namespace, name) = text.split_once('/').unwrap();
    PodRef::new(namespace, name)
}

fn cell(id: &str, rule: &str, check: Check, expectation: Expectation) -> PlannedCell {
    let cell = Cell {
        id: CellId(id.into()),
        suite: "isolation".into(),
        scenario: "one".into(),
        phase: "first".into(),
        rule: RuleName::new(rule),
        check,
        expectation,
        topology: None,
        requires: vec![],
    };
    PlannedCell { cell, skip: None }
}

fn probe(id: &str, rule: &str, from: &str, to: &str, transport: Transport, expectation: Expectation) -> PlannedCell {
    let check = Check::Probe {
        from: VantagePoint::Pod(pod(from)),
        to: Target::Pod { pod: pod(to), on: AddressOn::Primary },
        placement: if from == to { Placement::Itself } else { Placement::SameNode },
        transport,
        port: transport.has_ports().then_some(8080),
        family: Family::V4,
        flow: false,
        kind: FlowKind::Frames,
    };
    cell(id, rule, check, expectation)
}

fn open(id: &str, from: &str, to: &str, transport: Transport) -> PlannedCell {
    let rule = if from == to { "control/listener-works" } else { "isolation/same-network-open" };
    probe(id, rule, from, to, transport, Expectation::open(Reach::Pod(pod(to))))
}

fn closed(id: &str, transport: Transport) -> PlannedCell {
    probe(id, "isolation/other-network-closed", "blue/a", "green/a", transport, Expectation::Closed)
}

/// What a closed cell needs around it.
fn matrix(transport: Transport) -> Vec<PlannedCell> {
    vec![
        open("way-out", "blue/a", "blue/b", transport),
        open("listener", "green/a", "green/a", transport),
        closed("closed", transport),
    ]
}

fn phase(name: &str, cells: Vec<PlannedCell>) -> PlannedPhase {
    PlannedPhase {
        name: name.into(),
        actions: vec![],
        probing: Probing::AfterActions,
        settle_within_s: 0,
        world: Declared::default(),
        cells,
    }
}

fn scenario(name: &str, world: &str, exclusive: bool, phases: Vec<PlannedPhase>) -> PlannedScenario {
    let spec = WorldSpec { name: world.into(), manifests: vec![], world: Declared::default(), requires: vec![] };
    let scenario = Scenario { name: name.into(), title: "title".into(), world: spec, exclusive, phases: vec![] };
    PlannedScenario { suite: "isolation".into(), scenario, phases }
}

fn plan(cells: Vec<PlannedCell>) -> Plan {
    Plan { scenarios: vec![scenario("one", "blue-green", false, vec![phase("first", cells)])] }
}

/// What a healthy network does with [`matrix`].
fn healthy(seen: &Seen<'_>) -> Reply {
    let icmp = seen.shot.transport == Transport::Icmp;
    match (seen.from.as_str(), seen.to.to_string().as_str()) {
        ("blue.a", "10.0.0.2") if !icmp => Reply::Open("blue/b"),
        ("green.a", "10.1.0.1") if !icmp => Reply::Open("green/a"),
        ("blue.a", "10.0.0.2") | ("green.a", "10.1.0.1") => Reply::Echo,
        _ => Reply::Silence,
    }
}

struct Ran {
    results: BTreeMap<String, CellResult>,
    summary: Summary,
    events: Vec<EventKind>,
    took: Duration,
    log: Arc<std::sync::Mutex<crate::fake::Log>>,
}

impl Ran {
    fn verdict(&self, id: &str) -> Verdict {
        self.results[id].verdict
    }

    fn reason(&self, id: &str) -> &str {
        &self.results[id].reason
    }
}

async fn execute(fake: Fake, plan: Plan, options: Options, cancel: CancellationToken) -> Ran {
    let log = fake.log.clone();
    let planned: Vec<String> = plan.cells().map(|planned| planned.cell.id.to_string()).collect();
    let (sender, mut receiver) = mpsc::unbounded_channel::<Event>();
    let begun = Instant::now();
    let summary = run(Header::default(), plan, Arc::new(fake), options, cancel, sender).await;
    let took = begun.elapsed();
    let mut events = Vec::new();
    while let Some(event) = receiver.recv().await {
        events.push(event.kind);
    }
    assert!(matches!(events.first(), Some(EventKind::RunStarted { .. })));
    assert!(matches!(events.last(), Some(EventKind::RunFinished { .. })));
    let mut finished: HashMap<String, u32> = HashMap::new();
    let mut results = BTreeMap::new();
    for event in &events {
        if let EventKind::CellFinished(result) = event {
            *finished.entry(result.cell.id.to_string()).or_default() += 1;
            results.insert(result.cell.id.to_string(), (**result).clone());
        }
    }
    for id in &planned {
        assert_eq!(finished.get(id), Some(&1), "{id} must have exactly one result");
    }
    assert_eq!(summary.counts.total(), planned.len());
    Ran { results, summary, events, took, log }
}

async fn ran(script: impl Fn(&Seen<'_>) -> Reply + Send + Sync + 'static, plan: Plan) -> Ran {
    execute(Fake::new(script), plan, Options::default(), CancellationToken::new()).await
}
