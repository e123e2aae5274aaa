use udn_model::cell::Expectation;
use udn_model::event::{CellResult, Event};
use udn_model::verdict::ExitCode;

use super::*;
use crate::files::Files;
use crate::testing;

fn page(events: &[Event]) -> String {
    testing::made(events, |path| Files { html: Some(path), ..Files::default() })
}

/// The data of the script element of this id.
fn data(page: &str, id: &str) -> Value {
    let (_, rest) = page.split_once(&format!("id=\"{id}\">")).unwrap();
    serde_json::from_str(rest.split_once("</script>").unwrap().0).unwrap()
}

fn texts(book: &Value, numbers: &Value) -> Vec<String> {
    let numbers = numbers.as_array().unwrap().iter();
    numbers.map(|number| book["strings"][number.as_u64().unwrap() as usize].as_str().unwrap().to_owned()).collect()
}

#[test]
fn every_cell_is_in_the_page_with_all_that_is_known_of_it() {
    let cells = testing::cells();
    let page = page(&testing::run_of(cells.clone(), ExitCode::Failed));
    let (rows, book) = (data(&page, "cells"), data(&page, "book"));
    let rows = rows.as_array().unwrap();
    assert_eq!(rows.len(), cells.len());
    // The log has the cells scenario by scenario.
    for row in rows {
        let id = texts(&book, &row[2]).join("::");
        let result = cells.iter().find(|result| result.cell.id.as_str() == id).unwrap();
        let phase = &book["phases"][row[0].as_u64().unwrap() as usize];
        assert_eq!(*phase, json!([result.cell.suite, result.cell.scenario, result.cell.phase]));
        assert_eq!(book["verdicts"][row[1].as_u64().unwrap() as usize], result.verdict.to_string());
        assert_eq!(row[15], result.settled_ms.map_or(0, |ms| ms + 1));
        assert_eq!(row[16].as_array().unwrap().len(), 6 * result.attempts.len());
        assert_eq!(command(row, &book), result.evidence.repeat.clone().unwrap_or_default());
    }
    for rule in ["isolation/other-network-closed", "objects/conditions"] {
        assert!(book["rules"][rule][0].as_str().is_some_and(|promise| !promise.is_empty()), "{rule}");
    }
}

fn command(row: &Value, book: &Value) -> String {
    match &row[21] {
        Value::Array(around) => {
            let around = texts(book, &json!(around));
            format!("{}{}{}", around[0], texts(book, &json!([row[17][1]]))[0], around[1])
        }
        whole => texts(book, &json!([whole]))[0].clone(),
    }
}

#[test]
fn no_text_of_a_run_is_markup_or_script() {
    const EVIL: &str = "</script><!-- <img src=x onerror=alert(1)> ' \"";
    let mut result: CellResult = testing::probe_result("a", "b", Expectation::Closed, Verdict::Fail);
    result.reason = EVIL.into();
    result.evidence.notes = vec![EVIL.into()];
    let mut events = testing::run_of(vec![result], ExitCode::Failed);
    events.insert(1, testing::event(1, udn_model::event::EventKind::Warning { message: EVIL.into() }));
    let page = page(&events);
    assert!(!page.contains("<img"));
    assert_eq!(page.matches("</script>").count(), 3);
    let book = data(&page, "book");
    assert!(book["strings"].as_array().unwrap().iter().any(|text| text == EVIL));
}

#[test]
fn the_page_needs_nothing_else() {
    let page = page(&testing::failing_run());
    for fetched in ["src=\"", "href=\"http", "@import", "url("] {
        assert!(!page.contains(fetched), "{fetched}");
    }
    assert!(page.contains("default-src 'none'"));
}

#[test]
fn a_run_that_did_not_finish_says_so_first() {
    let events = testing::failing_run();
    let page = page(&events[..events.len() - 1]);
    let notice = page.find("the run did not finish: 11 of 12 cells judged").unwrap();
    assert!(notice < page.find("<ul class=\"counts\"").unwrap());
}

#[test]
fn a_migration_is_drawn_on_one_axis() {
    let migrated = json!({
        "at_us": 9_000_000, "event": "migrated", "suite": "isolation", "scenario": "layer3", "phase": "steady",
        "vm": {"namespace": "red", "name": "db"}, "from": "worker1", "to": "worker2", "succeeded": true,
        "asked_us": 1_000_000, "over_us": 3_500_000, "pause_ms": 20,
        "marks": [
            {"at_us": 1_000_000, "what": {"phase": "Scheduling"}},
            {"at_us": 2_000_000, "what": {"phase": "Running"}},
            {"at_us": 3_000_000, "what": "stopped"},
            {"at_us": 3_020_000, "what": "resumed"},
            {"at_us": 3_025_000, "what": "target-ready"},
        ],
        "announcements": [{"at": {"namespace": "red", "name": "a"}, "at_us": 3_040_000, "said": "arp",
            "mac": "0a:58:0a:00:00:05", "address": "10.0.0.5"}],
        "flows": [{"cell": "isolation::layer3::steady::flow::red.a::red.db@primary::other-node::tcp-7007::v4::flow",
            "sent": 300, "received": 280, "lost": 0, "retransmits": 4, "outage_ms": 163,
            "gaps": [{"at_us": 2_990_000, "took_ms": 163}, {"at_us": 3_300_000, "took_ms": 60}],
            "rate": {"from_us": 1_000_000, "per_100ms": [10, 10, 0, 5]}},
            {"cell": "isolation::layer3::steady::flow::red.a::red.db@primary::other-node::tcp-7007::v4::bulk",
            "kind": "bulk", "sent": 0, "received": 0, "lost": 0, "retransmits": 2, "outage_ms": 240, "bytes_sent": 480_000,
            "gaps": [{"at_us": 2_950_000, "took_ms": 240}],
            "throughput": {"from_us": -900_000, "per_100ms": [900_000, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 150_000, 160_000]}}],
    });
    let mut events = testing::failing_run();
    events.insert(events.len() - 1, serde_json::from_value(migrated).unwrap());
    let page = page(&events);
    let (_, drawing) = page.split_once("<svg class=\"timeline\"").unwrap();
    let drawing = drawing.split_once("</svg>").unwrap().0;
    for part in
        ["Scheduling", "class=\"rate\"", "no reply for 163 ms", "gratuitous ARP of 10.0.0.5", "stood still for 20 ms"]
    {
        assert!(drawing.contains(part), "{part}");
    }
    // Bars for the tenths of a second that had replies, or bytes while it is drawn; the longest outage first.
    let bars: Vec<usize> = drawing
        .split("class=\"rate\" d=\"")
        .skip(1)
        .map(|path| path.split_once('"').unwrap().0.matches('z').count())
        .collect();
    assert_eq!(bars, [2, 3]);
    for part in ["no byte acknowledged for 240 ms", "bulk, up to 1.60 MB/s", "0.75 MB/s on average"] {
        assert!(drawing.contains(part), "{part}");
    }
    assert!(page.contains("network told +5 ms after it ran again"));
}
