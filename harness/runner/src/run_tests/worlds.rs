//! Set-up, the end of a run, and what is kept.

use udn_model::feature::Feature;

use super::*;

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
    let errors = ran.events.iter().filter(|event| matches!(event, EventKind::PhaseFinished { error: Some(_), .. }));
    assert_eq!(errors.count(), 0, "skipped, and nothing else");
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
    assert_eq!(log.most_alive, Options::default().worlds_alive);
    assert!(ran.took < Duration::from_secs(30), "{:?}", ran.took);
}

#[tokio::test(start_paused = true)]
async fn a_world_with_vms_takes_the_room_of_two() {
    let mut plan = many_worlds();
    for scenario in &mut plan.scenarios {
        scenario.scenario.world.requires.push(Feature::VirtualMachines);
    }
    let ran = ran(healthy, plan).await;
    assert_eq!(ran.summary.exit, ExitCode::Passed);
    assert_eq!(ran.log.lock().unwrap().most_alive, Options::default().worlds_alive / 2);
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
