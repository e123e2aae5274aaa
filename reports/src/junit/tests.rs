use udn_model::cell::Expectation;
use udn_model::event::{Event, EventKind};
use udn_model::observation::Outcome;
use udn_model::verdict::Verdict;

use super::*;
use crate::files::{self, Files};
use crate::testing;

fn junit(events: &[Event], options: Options) -> String {
    let options = files::Options { junit: options, ..files::Options::default() };
    testing::made_with(events, options, |path| Files { junit: Some(path), ..Files::default() })
}

/// `tests`, `failures`, `errors` of each suite, and how many cases are skipped.
fn shape(xml: &str) -> Vec<(String, usize, usize, usize, usize)> {
    let document = roxmltree::Document::parse(xml).unwrap();
    let suites = document.descendants().filter(|node| node.has_tag_name("testsuite"));
    let number = |node: roxmltree::Node<'_, '_>, name: &str| node.attribute(name).unwrap().parse().unwrap();
    suites
        .map(|suite| {
            let skipped = suite.descendants().filter(|node| node.has_tag_name("skipped")).count();
            let name = suite.attribute("name").unwrap().to_owned();
            (name, number(suite, "tests"), number(suite, "failures"), number(suite, "errors"), skipped)
        })
        .collect()
}

#[test]
fn a_case_per_scenario_and_phase() {
    let xml = junit(&testing::failing_run(), Options::default());
    assert_eq!(shape(&xml), [("isolation".into(), 2, 1, 0, 1), ("addressing".into(), 1, 1, 0, 0)]);
    insta::assert_snapshot!(xml.replace("><", ">\n<"));
}

#[test]
fn a_case_per_cell() {
    let xml = junit(&testing::failing_run(), Options { cells: true, ..Options::default() });
    assert_eq!(shape(&xml), [("isolation".into(), 9, 1, 0, 1), ("addressing".into(), 3, 1, 0, 0)]);
}

#[test]
fn another_library_reads_the_file() {
    let xml = junit(&testing::failing_run(), Options::default());
    let report =
        quick_junit::Report::deserialize_from_str(&xml.replacen("<testsuites>", "<testsuites name=\"x\">", 1)).unwrap();
    let names: Vec<_> = report.test_suites.iter().map(|suite| suite.name.as_str()).collect();
    assert_eq!(names, ["isolation", "addressing"]);
}

#[test]
fn hostile_text_survives() {
    let hostile = "]]>]]]>\u{0}\u{1b}[31m <&\"'> \u{fffe} ]]";
    let mut result = testing::probe_result("a", "b", Expectation::Closed, Verdict::Fail);
    result.reason = hostile.into();
    result.evidence.notes = vec![hostile.into(), format!("{hostile}\n{hostile}")];
    result.cell.scenario = hostile.into();
    result.attempts.push(testing::attempt(Outcome::AgentFailed { why: hostile.into() }, 0));
    let mut skipped = testing::probe_result("a", "c", Expectation::Closed, Verdict::Skip);
    skipped.reason = hostile.into();
    skipped.cell.scenario = "skipped".into();
    let mut events = testing::run_of(vec![result, skipped], udn_model::verdict::ExitCode::Failed);
    events.pop();
    for cells in [false, true] {
        let xml = junit(&events, Options { cells, ..Options::default() });
        let document = roxmltree::Document::parse(&xml).unwrap();
        let failure = document.descendants().find(|node| node.has_tag_name("failure")).unwrap();
        // roxmltree keeps the parts of a split section apart: all texts together are the text.
        let text: String = failure.children().filter_map(|child| child.text()).collect();
        let spelt = "]]>]]]>\\u{0}\\u{1b}[31m <&\"'> \\u{fffe} ]]";
        assert!(text.contains(spelt), "{text}");
        assert!(!xml.contains('\u{1b}') && !xml.contains('\0'));
        quick_junit::Report::deserialize_from_str(&xml.replacen("<testsuites>", "<testsuites name=\"x\">", 1)).unwrap();
    }
}

#[test]
fn error_failure_and_skip_are_kept_apart() {
    let results = [Verdict::Error, Verdict::Unstable, Verdict::Skip, Verdict::Pass].map(|verdict| {
        let mut result = testing::probe_result("a", "b", Expectation::Closed, verdict);
        result.cell.scenario = verdict.to_string();
        result
    });
    let events = testing::run_of(results.to_vec(), udn_model::verdict::ExitCode::Failed);
    assert_eq!(shape(&junit(&events, Options::default())), [("isolation".into(), 4, 1, 1, 1)]);
    let allow = Allow { unstable: true, fixed: false };
    assert_eq!(shape(&junit(&events, Options { cells: false, allow })), [("isolation".into(), 4, 0, 1, 1)]);
}

#[test]
fn an_unfinished_run_has_an_error_case() {
    let mut events = testing::failing_run();
    events.pop();
    let xml = junit(&events, Options::default());
    assert_eq!(shape(&xml).last().unwrap(), &("run".into(), 1, 0, 1, 0));
    assert!(xml.contains("the run did not finish: 11 of 12 cells judged"));
}

#[test]
fn a_failed_set_up_has_an_error_case() {
    let mut events = vec![testing::failing_run()[0].clone()];
    let error = Some("ovs-vswitchd did not start".to_owned());
    events.push(testing::event(5, EventKind::StageFinished { stage: "lab".into(), duration_ms: 5, error }));
    let (counts, time) = Default::default();
    let exit = udn_model::verdict::ExitCode::SetupFailed;
    events.push(testing::event(6, EventKind::RunFinished { counts, duration_ms: 6, time, exit }));
    let xml = junit(&events, Options::default());
    assert_eq!(shape(&xml), [("run".into(), 1, 0, 1, 0)]);
    assert!(xml.contains("lab: ovs-vswitchd did not start"), "{xml}");
}
