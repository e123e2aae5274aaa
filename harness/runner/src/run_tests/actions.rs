//! Phases that change something before they are judged.

use super::*;

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

#[rstest]
#[case::throughout(Probing::Throughout, Verdict::Unstable)]
#[case::after(Probing::AfterActions, Verdict::Pass)]
#[tokio::test(start_paused = true)]
async fn nothing_settles_first_where_it_must_hold_throughout(#[case] probing: Probing, #[case] verdict: Verdict) {
    // The first attempt is lost, and the one that asks once more.
    let script = |seen: &Seen<'_>| match healthy(seen) {
        Reply::Open("blue/b") if seen.nth <= 2 => Reply::Silence,
        reply => reply,
    };
    let ran = ran(script, with_action(probing)).await;
    assert_eq!(ran.verdict("way-out"), verdict, "{}", ran.reason("way-out"));
    if probing == Probing::Throughout {
        assert!(ran.reason("way-out").starts_with("not throughout: not open: timed out"), "{}", ran.reason("way-out"));
    }
    assert_eq!(ran.verdict("listener"), Verdict::Pass);
}

#[rstest]
#[case::once(1, Probing::Throughout, Verdict::Pass)]
#[case::twice(2, Probing::Throughout, Verdict::Unstable)]
#[case::once_after(1, Probing::AfterActions, Verdict::Pass)]
#[tokio::test(start_paused = true)]
async fn who_is_turned_away_meanwhile_asks_once_more(
    #[case] times: u32,
    #[case] probing: Probing,
    #[case] verdict: Verdict,
) {
    let script = move |seen: &Seen<'_>| match healthy(seen) {
        Reply::Open("blue/b") if seen.nth < times => Reply::Refused,
        reply => reply,
    };
    let ran = ran(script, with_action(probing)).await;
    assert_eq!(ran.verdict("way-out"), verdict, "{}", ran.reason("way-out"));
}

#[tokio::test(start_paused = true)]
async fn actions_that_fail_beside_rounds_leave_nothing_judged() {
    let fake = Fake { action: Err("no node component"), ..Fake::new(healthy) };
    let ran = execute(fake, with_action(Probing::Throughout), Options::default(), CancellationToken::new()).await;
    assert_eq!(ran.reason("closed"), "not judged: no node component");
    assert_eq!(ran.reason("later"), "not judged: phase first went wrong: no node component");
}

#[tokio::test(start_paused = true)]
async fn what_disturbs_others_comes_last_and_by_itself() {
    let mut first = phase("first", vec![open("disturbing", "blue/a", "blue/b", Transport::Tcp)]);
    first.actions = vec![Action::RestartNodeComponent { node: 0 }];
    let second = phase("second", vec![open("longer", "blue/a", "blue/b", Transport::Tcp)]);
    let calm = phase("first", vec![open("calm", "blue/a", "blue/b", Transport::Tcp)]);
    let scenarios = vec![scenario("a", "one", true, vec![first, second]), scenario("b", "two", false, vec![calm])];
    let ran = ran(healthy, Plan { scenarios }).await;
    let ended = |wanted: &str| {
        ran.events
            .iter()
            .position(|event| matches!(event, EventKind::CellFinished(it) if it.cell.id.as_str() == wanted))
    };
    assert!(ended("calm") < ended("disturbing"), "{:?} {:?}", ended("calm"), ended("disturbing"));
}

#[tokio::test(start_paused = true)]
async fn a_target_that_is_lost_ends_the_run() {
    let (teller, told) = tokio::sync::watch::channel(None);
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(3)).await;
        teller.send(Some("ovs-vswitchd of ovn-worker ended".to_owned())).unwrap();
        teller.closed().await;
    });
    let options = Options { lost: Some(told), ..Options::default() };
    let fake = Fake::new(|_: &Seen<'_>| Reply::Silence);
    let ran = execute(fake, plan(matrix(Transport::Tcp)), options, CancellationToken::new()).await;
    assert_eq!(ran.reason("closed"), "not judged: ovs-vswitchd of ovn-worker ended");
    assert!(ran.took < Duration::from_secs(10), "{:?}", ran.took);
    assert_eq!(ran.summary.exit, ExitCode::Errors);
}
