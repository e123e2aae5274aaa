use udn_model::cell::Expectation;
use udn_model::event::{CellResult, Event};
use udn_model::flow::FlowFigures;
use udn_model::verdict::ExitCode;

use super::*;
use crate::jsonl::Writer;
use crate::testing::{self, probe_result, reaching};

fn compared(before: &[Event], after: &[Event]) -> Comparison {
    let folder = tempfile::tempdir().unwrap();
    let log = |name: &str, events: &[Event]| {
        let path = folder.path().join(name);
        let mut writer = Writer::create(&path).unwrap();
        events.iter().for_each(|event| writer.write(event).unwrap());
        path
    };
    Comparison::read(&log("before", before), &log("after", after)).unwrap()
}

fn run(cells: Vec<CellResult>) -> Vec<Event> {
    testing::run_of(cells, ExitCode::Failed)
}

/// One cell of each kind of change, and more.
fn changed() -> Comparison {
    let open = |to: &str, verdict| probe_result("a", to, reaching(to), verdict);
    let closed = |to: &str, verdict| probe_result("a", to, Expectation::Closed, verdict);
    let settled = |mut result: CellResult, ms| {
        result.settled_ms = Some(ms);
        result
    };
    let out = |mut result: CellResult, outage_ms| {
        result.evidence.flow =
            Some(Box::new(FlowFigures { sent: 900, received: 900, outage_ms, ..FlowFigures::default() }));
        result
    };
    use Verdict::{Error, Fail, Fixed, Known, Pass, Skip, Unstable};
    let before = run(vec![
        open("holds", Pass),
        settled(open("slow", Pass), 300),
        out(open("flow", Pass), 60),
        open("breaks", Pass),
        open("breaks-too", Pass),
        closed("leaks", Pass),
        closed("lost", Pass),
        open("mended", Fail),
        open("listed", Fail),
        open("left-out", Pass),
        open("still", Fail),
        open("better", Fail),
        open("gone", Pass),
        open("known", Known),
    ]);
    let after = run(vec![
        open("holds", Pass),
        settled(open("slow", Pass), 9_300),
        out(open("flow", Pass), 1_260),
        open("breaks", Fail),
        open("breaks-too", Fail),
        closed("leaks", Unstable),
        closed("lost", Error),
        open("mended", Pass),
        open("listed", Known),
        open("left-out", Skip),
        open("still", Fail),
        open("better", Unstable),
        open("new", Pass),
        closed("new-and-broken", Fail),
        open("known", Fixed),
    ]);
    compared(&before, &after)
}

#[test]
fn every_change_is_told() {
    let comparison = changed();
    let of = |change| comparison.of(change).count();
    let counts: Vec<usize> = Change::ALL.into_iter().map(of).collect();
    assert_eq!(counts, [3, 1, 1, 2, 1, 1, 1, 1]);
    assert!(comparison.worse);
    assert_eq!(comparison.still_not_holding, 2);
    insta::assert_snapshot!(text(&comparison));
}

#[test]
fn the_comparison_for_machines_has_all() {
    let json = serde_json::to_value(changed()).unwrap();
    assert_eq!(json["format"], FORMAT);
    assert_eq!(json["worse"], true);
    assert_eq!(json["changes"].as_array().unwrap().len(), 11);
    assert_eq!(json["changes"][0]["change"], "newly-failing");
    assert_eq!(json["times"]["longer_outages"][0]["outage_ms"], serde_json::json!([60, 1260]));
}

#[test]
fn a_run_is_not_worse_than_itself() {
    let events = testing::failing_run();
    let comparison = compared(&events, &events);
    assert!(!comparison.worse && comparison.changes.is_empty());
    assert_eq!(comparison.unchanged, 12);
    insta::assert_snapshot!(text(&comparison));
}

#[test]
fn a_newer_run_that_did_not_finish_is_not_called_as_good() {
    let events = testing::failing_run();
    let comparison = compared(&events, &events[..events.len() - 1]);
    assert!(!comparison.worse && !comparison.after.finished);
    assert!(text(&comparison).contains("\nthe newer run did not finish; "));
}

#[test]
fn what_gets_less_bad_is_not_newly_so() {
    use Verdict::{Error, Fail, Pass, Unstable};
    let between = |before, after| Change::between(Some(before), Some(after));
    assert_eq!(between(Fail, Unstable), None);
    assert_eq!(between(Unstable, Fail), Some(Change::NewlyFailing));
    assert_eq!(between(Error, Fail), Some(Change::NewlyFailing));
    assert_eq!(between(Fail, Error), None);
    assert_eq!(between(Pass, Error), Some(Change::NewlyError));
    assert_eq!(Change::between(None, Some(Fail)), Some(Change::NewlyFailing));
}

#[test]
fn a_log_without_a_run_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    std::fs::write(&path, "").unwrap();
    assert!(matches!(Comparison::read(&path, &path), Err(Error::NoRun { .. })));
}
