//! Events for tests.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use udn_model::cell::{
    AddressOn, Cell, CellId, Check, Claim, Expectation, Feature, ObjectRef, Reach, Target, VantagePoint,
};
use udn_model::event::{CellResult, Event, EventKind, FORMAT, TimeBudget};
use udn_model::fact::Fact;
use udn_model::flow::FlowKind;
use udn_model::observation::{Attempt, Evidence, Outcome, ResolvedProbe, Witness};
use udn_model::rule::RuleName;
use udn_model::verdict::{Counts, ExitCode, Verdict};
use udn_model::words::{Family, Placement, Topology, Transport};
use udn_model::world::PodRef;

use crate::files::{self, Files};
use crate::jsonl::Writer;
use crate::run::RunReport;

/// The file that is made of these events.
pub(crate) fn made(events: &[Event], which: impl FnOnce(PathBuf) -> Files) -> String {
    made_with(events, files::Options::default(), which)
}

/// As [`made`], with options.
pub(crate) fn made_with(events: &[Event], options: files::Options<'_>, which: impl FnOnce(PathBuf) -> Files) -> String {
    let folder = tempfile::tempdir().unwrap();
    let (log, path) = (folder.path().join("events.jsonl"), folder.path().join("report"));
    let mut writer = Writer::create(&log).unwrap();
    events.iter().for_each(|event| writer.write(event).unwrap());
    files::write(&which(path.clone()), &RunReport::read(&log).unwrap(), &log, options).unwrap();
    std::fs::read_to_string(&path).unwrap()
}

/// 2023-11-14T22:13:20Z.
pub(crate) const START_US: i64 = 1_700_000_000_000_000;

/// A place to write to and look at afterwards.
#[derive(Clone, Default)]
pub(crate) struct Shared(Arc<Mutex<Vec<u8>>>);

impl Shared {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(crate) fn event(at_ms: i64, kind: EventKind) -> Event {
    Event { at_us: START_US + at_ms * 1_000, kind }
}

pub(crate) fn reaching(name: &str) -> Expectation {
    Expectation::open(Reach::Pod(PodRef::new(name, "pod")))
}

pub(crate) fn open(name: &str) -> Outcome {
    Outcome::Open { peer: Some(format!("{name}/pod")), source: "103.103.0.5".parse().ok(), rtt_us: 410 }
}

pub(crate) fn attempt(outcome: Outcome, arrived: u32) -> Attempt {
    Attempt { first_ms: 20, last_ms: 4_020, count: 3, outcome, arrived }
}

/// A probe cell of `isolation::layer3::steady`.
pub(crate) fn probe_cell(from: &str, to: &str, expectation: Expectation, transport: Transport, family: Family) -> Cell {
    let rule = if expectation.is_negative() { "isolation/other-network-closed" } else { "isolation/same-network-open" };
    let rule = RuleName::new(rule);
    let port = transport.has_ports().then_some(8080);
    let id = format!(
        "isolation::layer3::steady::{}::{from}.pod::{to}.pod@primary::other-node::{transport}::{family}",
        rule.short()
    );
    Cell {
        id: CellId(id),
        suite: "isolation".into(),
        scenario: "layer3".into(),
        phase: "steady".into(),
        rule,
        check: Check::Probe {
            from: VantagePoint::Pod(PodRef::new(from, "pod")),
            to: Target::Pod { pod: PodRef::new(to, "pod"), on: AddressOn::Primary },
            placement: Placement::OtherNode,
            transport,
            port,
            family,
            flow: false,
            kind: FlowKind::Frames,
        },
        expectation,
        topology: Some(Topology::Layer3),
        requires: vec![Feature::UserDefinedNetworks],
    }
}

/// A TCP/IPv4 cell and what came of it.
pub(crate) fn probe_result(from: &str, to: &str, expectation: Expectation, verdict: Verdict) -> CellResult {
    result(probe_cell(from, to, expectation, Transport::Tcp, Family::V4), verdict)
}

/// What came of a probe cell, as the verdict has it.
pub(crate) fn result(cell: Cell, verdict: Verdict) -> CellResult {
    let negative = cell.expectation.is_negative();
    let Check::Probe { to: Target::Pod { pod, .. }, from, family, port, .. } = &cell.check else { panic!("no probe") };
    let (attempts, reason) = match (verdict, negative) {
        (Verdict::Pass, false) => (vec![attempt(open(&pod.namespace), 3)], ""),
        (Verdict::Pass, true) => (vec![attempt(Outcome::TimedOut, 0)], ""),
        (Verdict::Skip, _) => (vec![], "no vantage point outside the cluster"),
        (Verdict::Error, _) => {
            (vec![attempt(Outcome::ControlLost { why: "exec stream closed".into() }, 0)], "control stream lost")
        }
        (Verdict::Unstable, true) => (
            vec![attempt(open(&pod.namespace), 3), attempt(Outcome::TimedOut, 0)],
            "got through for 4000 ms before it closed",
        ),
        (_, false) => (vec![attempt(Outcome::TimedOut, 0)], "no answer"),
        (_, true) => (vec![attempt(open(&pod.namespace), 3)], "got through"),
    };
    let to = if *family == Family::V4 { "203.203.1.7" } else { "2014:100:200::7" };
    let evidence = Evidence {
        probe: Some(ResolvedProbe {
            from: from.to_string(),
            to: to.parse::<IpAddr>().unwrap(),
            port: *port,
            question: None,
            reach: None,
        }),
        witness: Some(Witness::RawCapture),
        repeat: Some(format!("kubectl exec -n {}-x1 pod -c probe -- /agent/agent probe tcp {to}:8080", from)),
        ..Evidence::default()
    };
    CellResult {
        cell,
        verdict,
        reason: reason.into(),
        settled_ms: (verdict == Verdict::Pass).then_some(340),
        attempts,
        evidence,
    }
}

/// A fact cell of `addressing::layer2::steady`.
pub(crate) fn fact_result(fact: Fact, holds: Result<&str, &str>) -> CellResult {
    let rule = RuleName::new("addressing/mac-and-mtu");
    let cell = Cell {
        id: CellId(format!("addressing::layer2::steady::{}::red.pod::{fact}", rule.short())),
        suite: "addressing".into(),
        scenario: "layer2".into(),
        phase: "steady".into(),
        rule,
        check: Check::Fact { pod: PodRef::new("red", "pod"), fact, family: None },
        expectation: Expectation::Holds,
        topology: Some(Topology::Layer2),
        requires: vec![],
    };
    checked(cell, holds)
}

/// An object cell of `addressing::layer2::steady`.
pub(crate) fn object_result(holds: Result<&str, &str>) -> CellResult {
    let rule = RuleName::new("objects/conditions");
    let claim = Claim::Condition {
        any_of: vec!["NetworkCreated".into(), "NetworkReady".into()],
        status: "True".into(),
        reason: None,
        message_contains: vec![],
    };
    let object = ObjectRef::cluster("k8s.ovn.org/v1", "ClusterUserDefinedNetwork", "red-yellow");
    let cell = Cell {
        id: CellId(format!("addressing::layer2::steady::{}::{object}::{claim}", rule.short())),
        suite: "addressing".into(),
        scenario: "layer2".into(),
        phase: "steady".into(),
        rule,
        check: Check::Object { object, claim },
        expectation: Expectation::Holds,
        topology: Some(Topology::Layer2),
        requires: vec![],
    };
    checked(cell, holds)
}

fn checked(cell: Cell, holds: Result<&str, &str>) -> CellResult {
    let (verdict, found) = match holds {
        Ok(found) => (Verdict::Pass, found),
        Err(found) => (Verdict::Fail, found),
    };
    let outcome = Outcome::Checked { holds: holds.is_ok(), found: found.into() };
    let reason = if holds.is_ok() { String::new() } else { found.into() };
    CellResult {
        cell,
        verdict,
        reason,
        settled_ms: holds.is_ok().then_some(120),
        attempts: vec![attempt(outcome, 0)],
        evidence: Evidence { repeat: Some("kubectl get pod -n red-x1 pod -o yaml".into()), ..Evidence::default() },
    }
}

/// The cells of [`failing_run`].
pub(crate) fn cells() -> Vec<CellResult> {
    let mut cells = vec![];
    for family in Family::ALL {
        let probe =
            |from, to, expectation, verdict| result(probe_cell(from, to, expectation, Transport::Tcp, family), verdict);
        let leak = if family == Family::V4 { Verdict::Fail } else { Verdict::Pass };
        cells.push(probe("blue", "blue", reaching("blue"), Verdict::Pass));
        cells.push(probe("blue", "green", Expectation::Closed, leak));
        cells.push(probe("green", "blue", Expectation::Closed, Verdict::Pass));
        cells.push(probe("green", "green", reaching("green"), Verdict::Pass));
    }
    cells.push(fact_result(Fact::Mac, Ok("0a:58:c0:a8:00:05")));
    cells.push(fact_result(Fact::Mtu, Err("ovn-udn1 has MTU 1500, the default network's interface 1400")));
    cells.push(object_result(Ok("True: NetworkAttachmentDefinition has been created")));
    let mut outside = probe_result("blue", "green", Expectation::Closed, Verdict::Skip);
    outside.cell.scenario = "external".into();
    outside.cell.id = CellId(
        "isolation::external::steady::external-to-udn::external::green.pod@primary::outside::tcp-8080::v4".into(),
    );
    outside.attempts.clear();
    cells.push(outside);
    cells
}

/// A run in which one probe and one fact fail.
pub(crate) fn failing_run() -> Vec<Event> {
    run_of(cells(), ExitCode::Failed)
}

/// A run of these cells.
pub(crate) fn run_of(cells: Vec<CellResult>, exit: ExitCode) -> Vec<Event> {
    let mut scenarios: Vec<(String, String)> = vec![];
    for result in &cells {
        let key = (result.cell.suite.clone(), result.cell.scenario.clone());
        if !scenarios.contains(&key) {
            scenarios.push(key);
        }
    }
    let total = cells.len();
    let mut events = vec![event(
        0,
        EventKind::RunStarted {
            format: FORMAT,
            run: "x1".into(),
            target: "lab".into(),
            context: "udn-conformance".into(),
            versions: BTreeMap::from([("ovn".into(), "25.03.0".into()), ("udn-conformance".into(), "0.1.0".into())]),
            filters: vec![],
            cells: total,
            scenarios: scenarios.len(),
        },
    )];
    let stage = |stage: &str| stage.to_owned();
    events.push(event(10, EventKind::StageStarted { stage: stage("world layer3") }));
    events.push(event(
        900,
        EventKind::StageProgress { stage: stage("world layer3"), message: "4 of 9 pods ready".into() },
    ));
    events
        .push(event(2_000, EventKind::StageFinished { stage: stage("world layer3"), duration_ms: 1_990, error: None }));
    let mut counts = Counts::default();
    for (index, (suite, scenario)) in scenarios.iter().enumerate() {
        let of_it: Vec<_> = cells.iter().filter(|r| r.cell.suite == *suite && r.cell.scenario == *scenario).collect();
        let at = 2_000 + 10_000 * index as i64;
        let of_scenario: Counts = of_it.iter().map(|result| result.verdict).collect();
        let (suite, scenario) = (suite.clone(), scenario.clone());
        let phase = "steady".to_owned();
        events.push(event(
            at,
            EventKind::ScenarioStarted {
                suite: suite.clone(),
                scenario: scenario.clone(),
                title: format!("every vantage point to every target of {scenario}"),
                cells: of_it.len(),
            },
        ));
        events.push(event(
            at + 2_100,
            EventKind::RoundFinished {
                suite: suite.clone(),
                scenario: scenario.clone(),
                phase: phase.clone(),
                round: 1,
                cells: of_it.len(),
                matching: of_scenario.pass,
                duration_ms: 2_100,
            },
        ));
        for result in of_it {
            counts.add(result.verdict);
            events.push(event(at + 9_000, EventKind::CellFinished(Box::new(result.clone()))));
        }
        events.push(event(
            at + 9_100,
            EventKind::PhaseFinished {
                suite: suite.clone(),
                scenario: scenario.clone(),
                phase,
                counts: of_scenario,
                duration_ms: 9_100,
                error: None,
            },
        ));
        events.push(event(
            at + 9_200,
            EventKind::ScenarioFinished {
                suite,
                scenario,
                counts: of_scenario,
                duration_ms: 9_200,
                settled_ms: Some(340),
            },
        ));
    }
    let time =
        TimeBudget { setup_ms: 4_200, settling_ms: 1_020, deny_wait_ms: 12_000, probing_ms: 640, cleanup_ms: 310 };
    let end = 2_000 + 10_000 * scenarios.len() as i64;
    events.push(event(end, EventKind::RunFinished { counts, duration_ms: end as u64, time, exit }));
    events
}
