use udn_model::cell::Expectation;
use udn_model::fact::Fact;
use udn_model::verdict::ExitCode;
use udn_model::words::{Family, Transport};

use super::*;
use crate::testing::{self, Shared};

const PLAIN: Options = Options { style: Style::plain(), width: 110 };

fn printed_with(events: &[Event], options: Options) -> (String, String) {
    let (out, err) = (Shared::default(), Shared::default());
    let mut terminal = Terminal::new(Box::new(out.clone()), Progress::lines(Box::new(err.clone())), options);
    events.iter().for_each(|event| terminal.handle(event).unwrap());
    terminal.finish(Some(Path::new("target/udn-conformance"))).unwrap();
    (out.text(), err.text())
}

fn printed(events: &[Event]) -> String {
    printed_with(events, PLAIN).0
}

#[test]
fn a_run_with_failures() {
    let (out, err) = printed_with(&testing::failing_run(), PLAIN);
    insta::assert_snapshot!("failing_run", out);
    insta::assert_snapshot!("failing_run_progress", err);
}

#[test]
fn a_run_that_passes_is_short() {
    let cells = testing::cells().into_iter().filter(|result| result.verdict.is_good()).collect();
    insta::assert_snapshot!(printed(&testing::run_of(cells, ExitCode::Passed)));
}

#[test]
fn every_kind_of_verdict_has_its_words() {
    let mut cells = vec![];
    let kinds = [
        (Verdict::Fail, testing::reaching("b")),
        (Verdict::Error, Expectation::Closed),
        (Verdict::Unstable, Expectation::Closed),
        (Verdict::Known, Expectation::Closed),
        (Verdict::Fixed, Expectation::Closed),
        (Verdict::Skip, Expectation::Closed),
    ];
    for (index, (verdict, expectation)) in kinds.into_iter().enumerate() {
        cells.push(testing::probe_result("a", &format!("b{index}"), expectation, verdict));
    }
    insta::assert_snapshot!("every_verdict", printed(&testing::run_of(cells, ExitCode::Failed)));
}

#[test]
fn an_entry_names_the_probes_that_went_wrong() {
    let mut cells = vec![];
    for (transport, family, verdict) in [
        (Transport::Tcp, Family::V4, Verdict::Pass),
        (Transport::Udp, Family::V4, Verdict::Fail),
        (Transport::Icmp, Family::V4, Verdict::Pass),
        (Transport::Tcp, Family::V6, Verdict::Pass),
        (Transport::Udp, Family::V6, Verdict::Fail),
        (Transport::Icmp, Family::V6, Verdict::Error),
    ] {
        cells.push(testing::result(testing::probe_cell("a", "b", Expectation::Closed, transport, family), verdict));
    }
    let mut matrix = Matrix::default();
    cells.iter().for_each(|result| matrix.add(result));
    insta::assert_snapshot!(matrix.table(PLAIN));
}

#[test]
fn a_violation_that_ended_is_marked() {
    let mut matrix = Matrix::default();
    matrix.add(&testing::probe_result("a", "b", Expectation::Closed, Verdict::Unstable));
    matrix.add(&testing::probe_result("a", "c", Expectation::Closed, Verdict::Pass));
    insta::assert_snapshot!(matrix.table(PLAIN));
}

#[test]
fn a_large_matrix_shows_what_is_concerned() {
    let mut matrix = Matrix::default();
    for from in 0..30 {
        for to in 0..30 {
            let (expectation, bad) = if from == to {
                (testing::reaching("x"), from == 7)
            } else {
                (Expectation::Closed, from % 10 == 3 && to % 2 == 0)
            };
            let verdict = if bad { Verdict::Fail } else { Verdict::Pass };
            matrix.add(&testing::probe_result(&format!("ns{from:02}"), &format!("ns{to:02}"), expectation, verdict));
        }
    }
    let table = matrix.table(Options { width: 80, ..PLAIN });
    assert!(table.lines().all(|line| console::measure_text_width(line) <= 80), "{table}");
    insta::assert_snapshot!("large_matrix", table);
}

#[test]
fn a_phase_that_could_not_be_judged_says_why() {
    let mut events = testing::run_of(vec![testing::fact_result(Fact::Mac, Ok("x"))], ExitCode::Errors);
    for event in &mut events {
        if let EventKind::PhaseFinished { error, .. } = &mut event.kind {
            *error = Some("pod red/pod is not ready after 60 s: image cannot be pulled".into());
        }
    }
    insta::assert_snapshot!(printed(&events));
}

#[test]
fn an_interrupted_run_names_what_was_cut() {
    let mut events = testing::failing_run();
    events.truncate(10);
    insta::assert_snapshot!(printed(&events));
}

#[test]
fn a_failed_set_up_is_one_line() {
    let mut events = vec![testing::failing_run()[0].clone()];
    let error = Some("ovs-vswitchd 3.1.0 is older than 3.3".to_owned());
    events.push(testing::event(5, EventKind::StageFinished { stage: "lab".into(), duration_ms: 5, error }));
    let (counts, time) = Default::default();
    events
        .push(testing::event(6, EventKind::RunFinished { counts, duration_ms: 6, time, exit: ExitCode::SetupFailed }));
    let (out, err) = printed_with(&events, PLAIN);
    insta::assert_snapshot!("failed_set_up", out);
    insta::assert_snapshot!("failed_set_up_progress", err);
}

#[test]
fn progress_is_told_now_and_then() {
    let err = Shared::default();
    let mut terminal = Terminal::new(Box::new(Shared::default()), Progress::lines(Box::new(err.clone())), PLAIN);
    let stage = || "packages".to_owned();
    let mut say = |at, kind| terminal.handle(&testing::event(at, kind)).unwrap();
    say(0, EventKind::StageStarted { stage: stage() });
    for at in (1_000..12_000).step_by(1_000) {
        say(at, EventKind::StageProgress { stage: stage(), message: format!("{at} of 15000 kB") });
    }
    say(12_000, EventKind::StageFinished { stage: stage(), duration_ms: 12_000, error: None });
    say(12_001, EventKind::Warning { message: "ovs-vswitchd is slow".into() });
    insta::assert_snapshot!(err.text());
}

#[test]
fn colours_change_nothing_but_colours() {
    let coloured = printed_with(&testing::failing_run(), Options { style: Style::coloured(), width: 110 }).0;
    assert!(coloured.contains("\u{1b}[31m"), "{coloured}");
    assert_eq!(console::strip_ansi_codes(&coloured), printed(&testing::failing_run()));
}

#[test]
fn a_reader_that_went_away_is_no_error() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut terminal = Terminal::new(Box::new(Closed), Progress::None, PLAIN);
    testing::failing_run().iter().for_each(|event| terminal.handle(event).unwrap());
    terminal.finish(None).unwrap();
}
