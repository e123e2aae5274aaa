//! What cells become, by what the network does.

use super::*;

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

/// What never answers holds up nobody else: the run ends soon after the time that the matrix is given to settle.
#[tokio::test(start_paused = true)]
async fn a_large_matrix_with_silent_cells_is_not_slow() {
    let alive = (0..1200).map(|n| open(&format!("alive-{n}"), "blue/a", "blue/b", Transport::Udp));
    let dead = (0..300).map(|n| open(&format!("dead-{n}"), "blue/b", "green/a", Transport::Udp));
    let ran = ran(healthy, plan(alive.chain(dead).collect())).await;
    assert_eq!((ran.verdict("alive-7"), ran.verdict("dead-7")), (Verdict::Pass, Verdict::Fail));
    assert!(ran.took < Options::default().settle_deadline * 3 / 2, "{:?}", ran.took);
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
async fn a_second_attempt_is_waited_for_longer() {
    let options = Options::default();
    let script = move |seen: &Seen<'_>| match healthy(seen) {
        // Answers come after the first attempt was given up.
        Reply::Open("blue/b") if seen.shot.timeout == options.open_timeout => Reply::Silence,
        Reply::Open("blue/b") if seen.shot.timeout != options.second_timeout => Reply::Refused,
        reply => reply,
    };
    let ran = ran(script, plan(matrix(Transport::Tcp))).await;
    assert_eq!(ran.verdict("way-out"), Verdict::Pass, "{}", ran.reason("way-out"));
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

/// A phase does not wait to its deadline for a cell that is known to fail, but does for any other.
#[rstest]
#[case::known("closed", Verdict::Known, 12)]
#[case::not_known("other", Verdict::Fail, 30)]
#[tokio::test(start_paused = true)]
async fn what_is_known_to_fail_is_not_waited_for(#[case] known: &str, #[case] verdict: Verdict, #[case] seconds: u64) {
    let issue = KnownIssue {
        name: "X-1".into(),
        cells: vec![known.into()],
        targets: vec![],
        versions: BTreeMap::new(),
        sometimes: false,
        reason: "it does not work".into(),
        issue: None,
    };
    let options = Options { baseline: Baseline::new(vec![issue], &[]).unwrap(), ..Options::default() };
    let script = |seen: &Seen<'_>| match healthy(seen) {
        Reply::Silence => Reply::Open("green/a"),
        reply => reply,
    };
    let ran = execute(Fake::new(script), plan(matrix(Transport::Tcp)), options, CancellationToken::new()).await;
    assert_eq!(ran.verdict("closed"), verdict, "{}", ran.reason("closed"));
    assert_eq!(ran.verdict("way-out"), Verdict::Pass);
    let took = ran.took.as_secs();
    assert!((seconds - 3..seconds + 5).contains(&took), "{took} s: {}", ran.reason("closed"));
}
