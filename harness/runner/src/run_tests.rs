//! Whole runs against the scripted cluster, on a paused clock.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use rstest::rstest;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use udn_model::cell::{AddressOn, Cell, CellId, Check, Claim, Expectation, ObjectRef, Reach, Target, VantagePoint};
use udn_model::event::{CellResult, Event, EventKind};
use udn_model::fact::Fact;
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

#[rstest]
#[case(Transport::Tcp)]
#[case(Transport::Udp)]
#[case(Transport::Icmp)]
#[tokio::test(start_paused = true)]
async fn a_healthy_matrix_passes_quickly(#[case] transport: Transport) {
    let ran = ran(healthy, plan(matrix(transport))).await;
    assert!(ran.results.values().all(|result| result.verdict == Verdict::Pass), "{:?}", ran.results);
    assert_eq!(ran.summary.exit, ExitCode::Passed);
    // One second to provision; three rounds and one to hold overlap while denies are waited for: not 4 times 2 s.
    assert!(ran.took < Duration::from_secs(5), "{:?}", ran.took);
    let closed = &ran.results["closed"];
    assert_eq!(closed.settled_ms, Some(0));
    assert_eq!((closed.attempts.len(), closed.attempts[0].count), (1, 4));
    assert_eq!(closed.evidence.witness, Some(Witness::RawCapture));
    assert_eq!(closed.evidence.vantage_control.as_deref(), Some("way-out"));
    assert_eq!(closed.evidence.listener_control.as_deref(), Some("listener"));
    assert_eq!(closed.evidence.repeat.as_deref(), Some("probe from blue.a to 10.1.0.1"));
    assert!(closed.evidence.notes.is_empty());
    assert_eq!(ran.log.lock().unwrap().removed, ["a"]);
    assert!(ran.summary.time.deny_wait_ms > 3000 && ran.summary.time.probing_ms < 500, "{:?}", ran.summary.time);
    assert_eq!(ran.summary.time.setup_ms, 1000);
}

/// What the closed cell sees; the controls work.
#[rstest]
#[case::open("open: answered by green/a", Verdict::Fail, |_: &Seen<'_>| Reply::Open("green/a"))]
#[case::open_by_another("open: answered by red/x", Verdict::Fail, |_: &Seen<'_>| Reply::Open("red/x"))]
#[case::leak("one-way leak", Verdict::Fail, |_: &Seen<'_>| Reply::Leak)]
#[case::window("a window: open: answered by green/a (at 0, 500 ms)", Verdict::Unstable,
    |seen: &Seen<'_>| if seen.nth < 2 { Reply::Open("green/a") } else { Reply::Silence })]
#[case::leaking_window("a window: one-way leak", Verdict::Unstable,
    |seen: &Seen<'_>| if seen.nth == 0 { Reply::Leak } else { Reply::Silence })]
#[case::flap("a window: open", Verdict::Unstable,
    |seen: &Seen<'_>| if seen.nth == 3 { Reply::Open("green/a") } else { Reply::Silence })]
#[case::refused("", Verdict::Pass, |_: &Seen<'_>| Reply::Refused)]
#[case::manner_varies("", Verdict::Pass, |seen: &Seen<'_>| if seen.nth.is_multiple_of(2) { Reply::Unreachable } else { Reply::Silence })]
#[case::lost("control stream lost: cut", Verdict::Error, |_: &Seen<'_>| Reply::Lost)]
#[case::lost_once("", Verdict::Pass, |seen: &Seen<'_>| if seen.nth == 1 { Reply::Lost } else { Reply::Silence })]
#[tokio::test(start_paused = true)]
async fn closed_cells(
    #[case] reason: &str,
    #[case] verdict: Verdict,
    #[case] victim: fn(&Seen<'_>) -> Reply,
    #[values(Transport::Tcp, Transport::Udp)] transport: Transport,
) {
    let script = move |seen: &Seen<'_>| match healthy(seen) {
        Reply::Silence => victim(seen),
        reply => reply,
    };
    let ran = ran(script, plan(matrix(transport))).await;
    assert_eq!(ran.verdict("closed"), verdict, "{}", ran.reason("closed"));
    assert!(ran.reason("closed").starts_with(reason), "{}", ran.reason("closed"));
    assert_eq!(ran.verdict("way-out"), Verdict::Pass);
    assert_eq!(ran.verdict("listener"), Verdict::Pass);
    if verdict == Verdict::Fail {
        assert_eq!(ran.summary.exit, ExitCode::Failed);
        assert_eq!(ran.results["closed"].evidence.notes, ["state of blue/a", "state of green/a"]);
    }
}

/// A control fails: nothing can be said of the closed cell.
#[rstest]
#[case::vantage(
    "10.0.0.2",
    "way-out",
    Verdict::Fail,
    "no control: in the same round blue.a reached nobody else over tcp/v4"
)]
#[case::listener(
    "10.1.0.1",
    "listener",
    Verdict::Error,
    "no control: in the same round nobody reached green.a@primary port 8080"
)]
#[tokio::test(start_paused = true)]
async fn without_a_control_nothing_is_said(
    #[case] dead: &'static str,
    #[case] control: &str,
    #[case] of_control: Verdict,
    #[case] reason: &str,
) {
    let script = move |seen: &Seen<'_>| if seen.to.to_string() == dead { Reply::Silence } else { healthy(seen) };
    let ran = ran(script, plan(matrix(Transport::Tcp))).await;
    assert_eq!(ran.verdict("closed"), Verdict::Error);
    assert!(ran.reason("closed").starts_with(reason), "{}", ran.reason("closed"));
    assert_eq!(ran.verdict(control), of_control);
    assert!(ran.took > Options::default().settle_deadline);
}

#[tokio::test(start_paused = true)]
async fn a_control_that_works_in_another_round_is_none() {
    // The listener answers in even rounds only, so no three rounds in a row have a control.
    let script = |seen: &Seen<'_>| match healthy(seen) {
        Reply::Open("green/a") if seen.nth % 2 == 1 => Reply::Silence,
        reply => reply,
    };
    let ran = ran(script, plan(matrix(Transport::Tcp))).await;
    assert_eq!(ran.verdict("closed"), Verdict::Error);
    assert!(ran.reason("closed").contains("no control"), "{}", ran.reason("closed"));
}

#[tokio::test(start_paused = true)]
async fn without_witness_nothing_is_said() {
    let fake = Fake { witness: Witness::None, ..Fake::new(healthy) };
    let ran = execute(fake, plan(matrix(Transport::Tcp)), Options::default(), CancellationToken::new()).await;
    assert_eq!(ran.verdict("closed"), Verdict::Error);
    assert!(ran.reason("closed").contains("arrivals at the target are not known"), "{}", ran.reason("closed"));
    assert_eq!(ran.verdict("way-out"), Verdict::Pass);
}

#[tokio::test(start_paused = true)]
async fn a_network_that_converges_is_settled_later() {
    let script = |seen: &Seen<'_>| match healthy(seen) {
        Reply::Open("blue/b") if seen.nth < 3 => Reply::Refused,
        reply => reply,
    };
    let ran = ran(script, plan(matrix(Transport::Tcp))).await;
    assert_eq!(ran.verdict("way-out"), Verdict::Pass);
    assert_eq!(ran.results["way-out"].settled_ms, Some(1500));
    assert_eq!(ran.verdict("closed"), Verdict::Pass);
    assert_eq!(ran.results["closed"].settled_ms, Some(1500), "uncontrolled rounds do not count");
}

#[rstest]
#[case::lone(1, Verdict::Pass)]
#[case::twice_in_a_row(2, Verdict::Unstable)]
#[tokio::test(start_paused = true)]
async fn a_lone_timeout_is_asked_for_once_more(#[case] silent: u32, #[case] verdict: Verdict) {
    // The third shot is the fourth round's.
    let script = move |seen: &Seen<'_>| match healthy(seen) {
        Reply::Open("blue/b") if (3..3 + silent).contains(&seen.nth) => Reply::Silence,
        reply => reply,
    };
    let ran = ran(script, plan(matrix(Transport::Udp))).await;
    assert_eq!(ran.verdict("way-out"), verdict, "{}", ran.reason("way-out"));
    let words: Vec<_> = ran.results["way-out"].attempts.iter().map(|attempt| attempt.outcome.word()).collect();
    assert_eq!(words, ["open", "timeout", "open"], "what was asked for once more is told, too");
}

#[tokio::test(start_paused = true)]
async fn wrong_peers_fail() {
    let script = |seen: &Seen<'_>| match healthy(seen) {
        Reply::Open("blue/b") => Reply::Open("green/a"),
        reply => reply,
    };
    let tcp = ran(script, plan(matrix(Transport::Tcp))).await;
    assert_eq!(tcp.verdict("way-out"), Verdict::Fail);
    assert_eq!(tcp.reason("way-out"), "wrong peer: answered by green/a, not by blue/b");
    let script = |seen: &Seen<'_>| {
        if seen.from == "blue.a" && seen.to.to_string() == "10.0.0.2" { Reply::EchoElsewhere } else { healthy(seen) }
    };
    let icmp = ran(script, plan(matrix(Transport::Icmp))).await;
    assert_eq!(icmp.verdict("way-out"), Verdict::Fail);
    assert_eq!(icmp.reason("way-out"), "wrong peer: somebody answered, but nothing arrived at blue/b");
}

#[tokio::test(start_paused = true)]
async fn overlapping_addresses_reach_the_own_network() {
    let holder = |network: &str| {
        Expectation::open(Reach::HolderIn(NetworkId::Udn { namespace: network.into(), name: "net".into() }))
    };
    let overlap = "isolation/overlap-coexists";
    let cells = || {
        let mut cells = matrix(Transport::Tcp);
        cells.push(probe("held", overlap, "blue/a", "blue/b", Transport::Tcp, holder("blue")));
        cells.push(probe("nobody", overlap, "blue/a", "green/a", Transport::Tcp, holder("blue")));
        cells
    };
    let good = ran(healthy, plan(cells())).await;
    assert_eq!((good.verdict("held"), good.verdict("nobody")), (Verdict::Pass, Verdict::Pass));
    let bad = ran(
        |seen| if let Reply::Silence = healthy(seen) { Reply::Open("green/a") } else { healthy(seen) },
        plan(cells()),
    )
    .await;
    assert_eq!(bad.verdict("nobody"), Verdict::Fail);
}

#[tokio::test(start_paused = true)]
async fn a_report_that_never_comes_is_an_error_and_holds_nothing_up() {
    let script = |seen: &Seen<'_>| match healthy(seen) {
        Reply::Silence => Reply::Never,
        reply => reply,
    };
    let ran = ran(script, plan(matrix(Transport::Tcp))).await;
    assert_eq!(ran.verdict("closed"), Verdict::Error);
    assert_eq!(ran.verdict("way-out"), Verdict::Pass);
    assert!(ran.took < Duration::from_secs(70), "{:?}", ran.took);
}

#[rstest]
#[case::quick(false, Verdict::Fail, "not open: timed out")]
#[case::slow(true, Verdict::Error, "timed out; but a twentieth of the answers of the round took 1500 ms and more")]
#[tokio::test(start_paused = true)]
async fn an_overloaded_machine_fails_nothing(#[case] slow: bool, #[case] verdict: Verdict, #[case] reason: &str) {
    let script = move |seen: &Seen<'_>| match healthy(seen) {
        Reply::Open("blue/b") => Reply::Silence,
        Reply::Open(peer) if slow => Reply::Slow(peer),
        reply => reply,
    };
    let ran = ran(script, plan(matrix(Transport::Tcp))).await;
    assert_eq!(ran.verdict("way-out"), verdict);
    assert!(ran.reason("way-out").starts_with(reason), "{}", ran.reason("way-out"));
}

#[rstest]
#[case(false, Verdict::Fail)]
#[case(true, Verdict::Error)]
#[tokio::test(start_paused = true)]
async fn an_agent_that_is_started_anew_fails_nothing(#[case] restless: bool, #[case] verdict: Verdict) {
    let script = |seen: &Seen<'_>| match healthy(seen) {
        Reply::Open("blue/b") => Reply::Refused,
        reply => reply,
    };
    let fake = Fake { restless, ..Fake::new(script) };
    let ran = execute(fake, plan(matrix(Transport::Tcp)), Options::default(), CancellationToken::new()).await;
    assert_eq!(ran.verdict("way-out"), verdict, "{}", ran.reason("way-out"));
    assert_eq!(ran.verdict("listener"), Verdict::Pass, "what is as it should be needs no excuse");
}

#[tokio::test(start_paused = true)]
async fn more_cells_than_the_window_are_sent_in_chunks() {
    let mut cells = matrix(Transport::Udp);
    for n in 0..1000 {
        let mut more = matrix(Transport::Udp);
        more.iter_mut().for_each(|cell| cell.cell.id = CellId(format!("{n}::{}", cell.cell.id)));
        cells.append(&mut more);
    }
    let options = Options { probes_in_flight: 256, ..Options::default() };
    let ran = execute(Fake::new(healthy), plan(cells), options, CancellationToken::new()).await;
    assert_eq!(ran.summary.counts.pass, 3003);
    assert!(ran.took < Duration::from_secs(6), "{:?}", ran.took);
}

#[tokio::test(start_paused = true)]
async fn a_hold_window_is_held() {
    let options = Options { hold: Duration::from_secs(10), ..Options::default() };
    let flap = |seen: &Seen<'_>| match healthy(seen) {
        Reply::Open("blue/b") if seen.nth == 12 => Reply::Refused,
        reply => reply,
    };
    let ran = execute(Fake::new(flap), plan(matrix(Transport::Tcp)), options, CancellationToken::new()).await;
    assert_eq!(ran.verdict("way-out"), Verdict::Unstable);
    assert!(
        ran.reason("way-out").starts_with("had settled, then: not open: refused (at "),
        "{}",
        ran.reason("way-out")
    );
}

#[tokio::test(start_paused = true)]
async fn facts_and_claims_settle_too() {
    let cells = || {
        let fact = Check::Fact { pod: pod("blue/a"), fact: Fact::Mac, family: None };
        let claim = Check::Object { object: ObjectRef::cluster("v1", "Namespace", "blue"), claim: Claim::Exists };
        vec![
            cell("fact", "addressing/mac-and-mtu", fact, Expectation::Holds),
            cell("claim", "objects/conditions", claim, Expectation::Holds),
        ]
    };
    let good = ran(healthy, plan(cells())).await;
    assert_eq!((good.verdict("fact"), good.verdict("claim")), (Verdict::Pass, Verdict::Pass));
    assert!(good.took < Duration::from_secs(4), "{:?}", good.took);
    let fake = Fake { holds: false, ..Fake::new(healthy) };
    let bad = execute(fake, plan(cells()), Options::default(), CancellationToken::new()).await;
    assert_eq!((bad.verdict("fact"), bad.reason("claim")), (Verdict::Fail, "so"));
}

fn with_action(probing: Probing) -> Plan {
    let mut first = phase("first", matrix(Transport::Tcp));
    first.actions = vec![Action::Apply(vec![])];
    first.probing = probing;
    Plan {
        scenarios: vec![scenario(
            "one",
            "blue-green",
            true,
            vec![first, phase("second", vec![open("later", "blue/a", "blue/b", Transport::Tcp)])],
        )],
    }
}

#[rstest]
#[case::watched(Probing::FromFirstPacket, Verdict::Unstable)]
#[case::not_watched(Probing::AfterActions, Verdict::Pass)]
#[tokio::test(start_paused = true)]
async fn a_window_while_the_action_runs(#[case] probing: Probing, #[case] verdict: Verdict) {
    // Open until the action is done.
    let script = |seen: &Seen<'_>| match healthy(seen) {
        Reply::Silence if seen.actions == 0 && seen.nth == 2 => Reply::Open("green/a"),
        reply => reply,
    };
    let ran = {
        let fake = Fake::new(move |seen: &Seen<'_>| script(seen));
        execute(fake, with_action(probing), Options::default(), CancellationToken::new()).await
    };
    if probing == Probing::AfterActions {
        // There the second shot is sent after the action.
        assert_eq!(ran.verdict("closed"), verdict, "{}", ran.reason("closed"));
    } else {
        assert_eq!(ran.verdict("closed"), verdict, "{}", ran.reason("closed"));
        assert!(
            ran.reason("closed").starts_with("a window: open: answered by green/a (at -"),
            "{}",
            ran.reason("closed")
        );
        assert!(ran.results["closed"].attempts[0].first_ms < 0);
    }
}

#[rstest]
#[case::never_again(|seen: &Seen<'_>| if seen.actions == 0 { Reply::Refused } else { Reply::Silence }, Verdict::Unstable)]
#[case::always(|_: &Seen<'_>| Reply::Refused, Verdict::Pass)]
#[tokio::test(start_paused = true)]
async fn refusals_in_the_first_moments(#[case] victim: fn(&Seen<'_>) -> Reply, #[case] verdict: Verdict) {
    let script = move |seen: &Seen<'_>| match healthy(seen) {
        Reply::Silence => victim(seen),
        reply => reply,
    };
    let ran = ran(script, with_action(Probing::FromFirstPacket)).await;
    assert_eq!(ran.verdict("closed"), verdict, "{}", ran.reason("closed"));
}

#[rstest]
#[case::closes(true, Verdict::Pass)]
#[case::was_closed_before(false, Verdict::Unstable)]
#[tokio::test(start_paused = true)]
async fn what_an_action_closes_may_take_its_time(#[case] was_open: bool, #[case] verdict: Verdict) {
    // Open until a second after the action.
    let script = |seen: &Seen<'_>| match healthy(seen) {
        Reply::Silence if seen.actions == 0 || seen.nth < 7 => Reply::Open("green/a"),
        reply => reply,
    };
    let mut cells = matrix(Transport::Tcp);
    if was_open {
        cells[2].cell.expectation = Expectation::open(Reach::Pod(pod("green/a")));
    } else {
        cells.remove(2);
    }
    let mut renamed = matrix(Transport::Tcp);
    renamed.iter_mut().for_each(|cell| cell.cell.id = CellId(format!("second::{}", cell.cell.id)));
    let mut second = phase("second", renamed);
    second.actions = vec![Action::Apply(vec![])];
    let plan = Plan { scenarios: vec![scenario("one", "w", true, vec![phase("first", cells), second])] };
    let ran = ran(script, plan).await;
    assert_eq!(ran.verdict("second::closed"), verdict, "{}", ran.reason("second::closed"));
}

#[tokio::test(start_paused = true)]
async fn a_failed_action_leaves_nothing_judged() {
    let fake = Fake { action: Err("pod x is not ready"), ..Fake::new(healthy) };
    let ran = execute(fake, with_action(Probing::AfterActions), Options::default(), CancellationToken::new()).await;
    assert_eq!(ran.reason("closed"), "not judged: pod x is not ready");
    assert_eq!(ran.reason("later"), "not judged: phase first went wrong: pod x is not ready");
    assert_eq!(ran.summary.exit, ExitCode::Errors);
    let errors =
        ran.events.iter().filter(|event| matches!(event, EventKind::PhaseFinished { error: Some(_), .. })).count();
    assert_eq!(errors, 2);
}

#[tokio::test(start_paused = true)]
async fn a_world_that_cannot_be_made_is_a_failed_setup() {
    let fake = Fake { provision: Err("pod blue/a is not ready after 60 s"), ..Fake::new(healthy) };
    let ran = execute(fake, plan(matrix(Transport::Tcp)), Options::default(), CancellationToken::new()).await;
    assert_eq!(ran.reason("closed"), "not judged: pod blue/a is not ready after 60 s");
    assert_eq!(ran.summary.exit, ExitCode::SetupFailed);
    assert_eq!(ran.log.lock().unwrap().removed, ["a"], "what was made in part is removed");
}

#[tokio::test(start_paused = true)]
async fn skipped_cells_need_no_world() {
    let mut cells = matrix(Transport::Tcp);
    cells.iter_mut().for_each(|cell| cell.skip = Some("the cluster has no v4 addresses".into()));
    let ran = ran(healthy, plan(cells)).await;
    assert_eq!(ran.summary.counts.skip, 3);
    assert_eq!(ran.summary.exit, ExitCode::NothingSelected);
    assert!(ran.log.lock().unwrap().provisioned.is_empty());
    assert_eq!(ran.reason("closed"), "the cluster has no v4 addresses");
}

#[tokio::test(start_paused = true)]
async fn the_runs_deadline_is_kept() {
    let options = Options { deadline: Some(Duration::from_secs(8)), ..Options::default() };
    let stuck = |seen: &Seen<'_>| if seen.from == "green.a" { Reply::Silence } else { healthy(seen) };
    let ran = execute(Fake::new(stuck), plan(matrix(Transport::Tcp)), options, CancellationToken::new()).await;
    assert!(ran.took < Duration::from_secs(9), "{:?}", ran.took);
    assert_eq!(ran.reason("way-out"), "not judged: the run's deadline of 8 s passed");
    assert_eq!(ran.summary.exit, ExitCode::Errors);
    assert_eq!(ran.log.lock().unwrap().removed, ["a"]);
}

#[rstest]
#[case::while_provisioning(500)]
#[case::while_probing(2500)]
#[tokio::test(start_paused = true)]
async fn an_interrupt_stops_judges_nothing_and_cleans_up(#[case] after_ms: u64) {
    let cancel = CancellationToken::new();
    let trigger = cancel.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(after_ms)).await;
        trigger.cancel();
    });
    let ran = execute(Fake::new(healthy), plan(matrix(Transport::Tcp)), Options::default(), cancel).await;
    assert_eq!(ran.summary.exit, ExitCode::Interrupted);
    assert_eq!(ran.reason("way-out"), "not judged: interrupted");
    assert_eq!(ran.log.lock().unwrap().removed, ["a"]);
    assert!(ran.took < Duration::from_millis(after_ms + 100));
}

fn many_worlds() -> Plan {
    let cells = |name: &str| {
        let mut cells = matrix(Transport::Tcp);
        cells.iter_mut().for_each(|cell| cell.cell.id = CellId(format!("{name}::{}", cell.cell.id)));
        cells
    };
    let one = |name: &str, world: &str, exclusive| scenario(name, world, exclusive, vec![phase("first", cells(name))]);
    let mut scenarios = vec![one("s1", "shared", false), one("s2", "shared", false), one("s3", "other", false)];
    scenarios.extend((0..12).map(|n| one(&format!("x{n}"), "shared", true)));
    Plan { scenarios }
}

#[tokio::test(start_paused = true)]
async fn worlds_are_shared_unless_exclusive_and_live_side_by_side() {
    let ran = ran(healthy, many_worlds()).await;
    assert_eq!(ran.summary.exit, ExitCode::Passed);
    let log = ran.log.lock().unwrap();
    assert_eq!(log.provisioned.len(), 14);
    assert_eq!(log.removed.len(), 14);
    assert!(log.most_alive <= 6 && log.most_alive > 3, "{}", log.most_alive);
    assert!(ran.took < Duration::from_secs(18), "{:?}", ran.took);
}

#[rstest]
#[case(Keep::Never, 14)]
#[case(Keep::OnFailure, 13)]
#[case(Keep::Always, 0)]
#[tokio::test(start_paused = true)]
async fn what_is_kept(#[case] keep: Keep, #[case] removed: usize) {
    let mut plan = many_worlds();
    // One cell of one exclusive world cannot hold.
    let wrong = Expectation::open(Reach::Pod(pod("green/a")));
    plan.scenarios[5].phases[0].cells[2].cell.expectation = wrong;
    let options = Options { keep, ..Options::default() };
    let ran = execute(Fake::new(healthy), plan, options, CancellationToken::new()).await;
    assert_eq!(ran.summary.counts.fail, 1);
    let log = ran.log.lock().unwrap();
    assert_eq!(log.removed.len(), removed);
    assert_eq!(log.finished, usize::from(keep == Keep::Never), "what worlds share stays as long as one of them");
}
