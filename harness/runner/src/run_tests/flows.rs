//! What flows counted while a VM migrates.

use udn_model::flow::{FlowFigures, FlowGap, FlowPromise};

use super::*;

fn flow() -> PlannedCell {
    let mut planned = open("flow", "blue/a", "blue/b", Transport::Tcp);
    planned.cell.rule = RuleName::new("vm/tcp-survives");
    if let Check::Probe { flow, .. } = &mut planned.cell.check {
        *flow = true;
    }
    planned
}

fn figure(id: &str, rule: &str, promise: FlowPromise) -> PlannedCell {
    let Check::Probe { from, to, placement, transport, port, family, .. } = flow().cell.check else { panic!() };
    cell(id, rule, Check::Figure { from, to, placement, transport, port, family, promise }, Expectation::Holds)
}

async fn migrated(figures: FlowFigures, options: Options) -> Ran {
    let cells = vec![
        flow(),
        figure("intact", "vm/tcp-survives", FlowPromise::Intact),
        figure("outage", "vm/outage-measured", FlowPromise::Outage),
    ];
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
