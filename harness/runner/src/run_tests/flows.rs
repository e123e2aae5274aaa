//! What flows counted while a VM migrates.

use udn_model::flow::{FlowFigures, FlowGap, FlowPromise, FlowRate};

use super::*;

fn flow() -> PlannedCell {
    flow_of(FlowKind::Frames)
}

fn flow_of(carries: FlowKind) -> PlannedCell {
    let mut planned = open(&carries.to_string(), "blue/a", "blue/b", Transport::Tcp);
    planned.cell.rule = RuleName::new("vm/tcp-survives");
    if let Check::Probe { flow, kind, .. } = &mut planned.cell.check {
        (*flow, *kind) = (true, carries);
    }
    planned
}

/// A flow, that it is whole, and how long it was out.
fn measured(carries: FlowKind, prefix: &str) -> Vec<PlannedCell> {
    let flow = flow_of(carries);
    let Check::Probe { from, to, placement, transport, port, family, kind, .. } = flow.cell.check.clone() else {
        panic!()
    };
    let figure = |rule, promise: FlowPromise| {
        let (from, to) = (from.clone(), to.clone());
        let check = Check::Figure { from, to, placement, transport, port, family, kind, promise };
        cell(&format!("{prefix}{promise}"), rule, check, Expectation::Holds)
    };
    let intact = figure("vm/tcp-survives", FlowPromise::Intact);
    let outage = figure("vm/outage-measured", FlowPromise::Outage);
    vec![flow, intact, outage]
}

async fn migrated(figures: FlowFigures, options: Options) -> Ran {
    migrated_with(measured(FlowKind::Frames, ""), figures, options).await
}

async fn migrated_with(cells: Vec<PlannedCell>, figures: FlowFigures, options: Options) -> Ran {
    let mut migrates = phase("first", cells);
    migrates.probing = Probing::Throughout;
    migrates.actions = vec![Action::Migrate { vm: pod("blue/b"), to: 1 }];
    let plan = Plan { scenarios: vec![scenario("one", "blue-green", true, vec![migrates])] };
    execute(Fake { figures, ..Fake::new(healthy) }, plan, options, CancellationToken::new()).await
}

fn out(took_ms: u64, starved_ms: u64) -> FlowFigures {
    let gap = FlowGap { at_us: 990_000, took_ms, starved_ms, open: false };
    FlowFigures { sent: 900, received: 890, outage_ms: took_ms, gaps: vec![gap], ..FlowFigures::default() }
}

#[tokio::test(start_paused = true)]
async fn a_short_outage_passes_and_is_told_with_its_parts() {
    let ran = migrated(out(163, 0), Options::default()).await;
    assert_eq!(ran.summary.exit, ExitCode::Passed);
    let outage = &ran.results["outage"];
    let told = outage.attempts[0].outcome.to_string();
    assert_eq!(told, "holds: out for 163 ms (guest paused 10 ms, network back 143 ms after it ran again)");
    assert_eq!(outage.evidence.flow.as_ref().unwrap().outage_ms, 163);
    let reports: Vec<_> = ran
        .events
        .iter()
        .filter_map(|event| if let EventKind::Migrated(it) = event { Some(it) } else { None })
        .collect();
    assert_eq!(reports.len(), 1);
    assert_eq!(reports[0].flows[0].split.unwrap().network_ms, 143);
    assert_eq!((reports[0].phase.as_str(), reports[0].flows[0].cell.as_str()), ("first", "flow"));
}

#[rstest]
#[case::long(out(3000, 0), 2000, Verdict::Pass, Verdict::Fail)]
#[case::long_but_allowed(out(3000, 0), 4000, Verdict::Pass, Verdict::Pass)]
#[case::starved(out(3000, 2500), 2000, Verdict::Pass, Verdict::Error)]
#[case::cut(FlowFigures { ended: Some("reset".into()), ..out(10, 0) }, 2000, Verdict::Fail, Verdict::Fail)]
#[case::nothing_known(FlowFigures::default(), 2000, Verdict::Error, Verdict::Error)]
#[tokio::test(start_paused = true)]
async fn figures_are_judged_by_the_budget(
    #[case] figures: FlowFigures,
    #[case] budget_ms: u64,
    #[case] intact: Verdict,
    #[case] outage: Verdict,
) {
    let options = Options { outage_budget: Duration::from_millis(budget_ms), ..Options::default() };
    let ran = migrated(figures, options).await;
    assert_eq!((ran.verdict("intact"), ran.verdict("outage")), (intact, outage), "{}", ran.reason("outage"));
}

/// Three megabytes in two seconds and a moment without any.
fn moved(took_ms: u64, starved_ms: u64) -> FlowFigures {
    let throughput = FlowRate { from_us: 0, per_100ms: [vec![150_000; 20], vec![0; 3]].concat() };
    FlowFigures {
        sent: 0,
        received: 0,
        bytes_sent: 3_000_000,
        throughput: Some(throughput),
        ..out(took_ms, starved_ms)
    }
}

#[tokio::test(start_paused = true)]
async fn a_bulk_transfer_is_told_with_its_throughput() {
    let ran = migrated_with(measured(FlowKind::Bulk, "bulk-"), moved(240, 0), Options::default()).await;
    assert_eq!(ran.summary.exit, ExitCode::Passed);
    let outage = ran.results["bulk-outage"].attempts[0].outcome.to_string();
    assert_eq!(outage, "holds: out for 240 ms (guest paused 10 ms, network back 220 ms after it ran again)");
    let report = ran.events.iter().find_map(|event| if let EventKind::Migrated(it) = event { Some(it) } else { None });
    let [trace] = &report.unwrap().flows[..] else { panic!("not one flow") };
    assert_eq!((trace.cell.as_str(), trace.figures.kind), ("bulk", FlowKind::Bulk));
    assert!(trace.figures.throughput.as_ref().unwrap().per_100ms.starts_with(&[150_000; 20]));
}

#[rstest]
#[case::long(moved(3000, 0), Verdict::Pass, Verdict::Fail)]
#[case::starved(moved(3000, 2500), Verdict::Pass, Verdict::Error)]
#[case::cut(FlowFigures { ended: Some("reset".into()), ..moved(10, 0) }, Verdict::Fail, Verdict::Fail)]
#[case::not_a_byte(FlowFigures { bytes_sent: 0, ..moved(10, 0) }, Verdict::Error, Verdict::Error)]
#[tokio::test(start_paused = true)]
async fn a_bulk_transfer_is_judged_by_the_budget(
    #[case] figures: FlowFigures,
    #[case] intact: Verdict,
    #[case] outage: Verdict,
) {
    let ran = migrated_with(measured(FlowKind::Bulk, "bulk-"), figures, Options::default()).await;
    assert_eq!((ran.verdict("bulk-intact"), ran.verdict("bulk-outage")), (intact, outage));
}

#[tokio::test(start_paused = true)]
async fn a_bulk_transfer_beside_frames_has_figures_of_its_own() {
    let cells = [measured(FlowKind::Frames, ""), measured(FlowKind::Bulk, "bulk-")].concat();
    // Frames came back; of bytes nothing is known.
    let ran = migrated_with(cells, out(163, 0), Options::default()).await;
    assert_eq!((ran.verdict("intact"), ran.verdict("outage")), (Verdict::Pass, Verdict::Pass));
    assert_eq!((ran.verdict("bulk-intact"), ran.verdict("bulk-outage")), (Verdict::Error, Verdict::Error));
}

#[tokio::test(start_paused = true)]
async fn a_flow_that_has_ended_is_not_waited_for() {
    let mut goes_on = open("goes-on", "green/a", "green/a", Transport::Tcp);
    goes_on.cell.rule = RuleName::new("vm/reachability");
    let plan = plan(vec![flow(), goes_on]);
    let cut = |seen: &Seen<'_>| if seen.from == "blue.a" { Reply::Refused } else { healthy(seen) };
    let figures = FlowFigures { ended: Some("reset".into()), ..out(10, 0) };
    let ran = execute(Fake { figures, ..Fake::new(cut) }, plan, Options::default(), CancellationToken::new()).await;
    assert_eq!((ran.verdict("flow"), ran.verdict("goes-on")), (Verdict::Fail, Verdict::Pass));
    assert!(ran.took < Options::default().settle_deadline, "{:?}", ran.took);
}
