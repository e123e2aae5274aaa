//! A large run, and its page.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use udn_model::event::Event;
use udn_model::verdict::Verdict;
use udn_reports::files::{self, Files, Options};
use udn_reports::jsonl::Writer;
use udn_reports::run::RunReport;

/// Cells of one phase.
pub(crate) const IN_A_PHASE: usize = 2_000;
/// Cells that fail.
pub(crate) const FAILING: usize = 20;
/// Vantage points of a phase; as many targets, over three transports and both families.
const PODS: usize = 18;

/// Writes the page of a run of so many cells.
pub(crate) fn page(folder: &Path, cells: usize) -> PathBuf {
    let log = folder.join("events.jsonl");
    let mut writer = Writer::create(&log).unwrap();
    let mut put = |event: Value| writer.write(&serde_json::from_value::<Event>(event).unwrap()).unwrap();
    put(json!({"at_us": 0, "event": "run-started", "format": 1, "run": "x1", "target": "lab", "context": "lab",
        "versions": {"OVN": "25.03.0"}, "filters": [], "cells": cells, "scenarios": cells / IN_A_PHASE}));
    for number in 0..cells {
        put(cell(number, cells));
    }
    let mut counts = udn_model::verdict::Counts { pass: cells - FAILING, ..Default::default() };
    (0..FAILING).for_each(|_| counts.add(Verdict::Fail));
    put(
        json!({"at_us": 400_000_000, "event": "run-finished", "counts": counts, "duration_ms": 400_000, "exit": "failed",
        "time": {"setup_ms": 1, "settling_ms": 2, "deny_wait_ms": 3, "probing_ms": 4, "cleanup_ms": 5}}),
    );
    let page = folder.join("report.html");
    let report = RunReport::read(&log).unwrap();
    files::write(&Files { html: Some(page.clone()), ..Files::default() }, &report, &log, Options::default()).unwrap();
    page
}

/// Cells fail every so often.
fn cell(number: usize, cells: usize) -> Value {
    let fails = number.is_multiple_of(cells / FAILING);
    let (scenario, place) = (format!("layer{}", number / IN_A_PHASE), number % IN_A_PHASE);
    let family = if place.is_multiple_of(2) { "v4" } else { "v6" };
    let transport = ["tcp", "udp", "icmp"][place / 2 % 3];
    let (from, to) = (place / 6 / PODS, place / 6 % PODS);
    let port = if transport == "icmp" { Value::Null } else { json!(8080) };
    let pod = |number| json!({"namespace": "blue", "name": format!("pod-{number}")});
    let address = if family == "v4" { format!("10.0.{from}.{to}") } else { format!("fd00::{from}:{to}") };
    let outcome = if fails {
        json!({"first_ms": 1, "last_ms": 30_000, "count": 20, "outcome": "timed-out", "arrived": 0})
    } else {
        json!({"first_ms": 20, "last_ms": 1_500, "count": 4, "outcome": "open", "peer": format!("blue/pod-{to}"),
            "source": address, "rtt_us": 400 + number, "arrived": 4})
    };
    json!({
        "at_us": number, "event": "cell-finished",
        "cell": {
            "id": format!("isolation::{scenario}::steady::same-network-open::blue.pod-{from}::blue.pod-{to}@primary::other-node::{transport}::{family}"),
            "suite": "isolation", "scenario": scenario, "phase": "steady", "rule": "isolation/same-network-open",
            "check": {"check": "probe", "from": {"pod": pod(from)}, "to": {"pod": {"pod": pod(to), "on": "primary"}},
                "placement": "other-node", "transport": transport, "port": port, "family": family},
            "expectation": {"expect": "open", "reach": {"pod": pod(to)}},
            "topology": "Layer3", "requires": ["user-defined-networks"],
        },
        "verdict": if fails { "fail" } else { "pass" },
        "reason": if fails { "not open: timed out" } else { "" },
        "settled_ms": if fails { Value::Null } else { json!(20 + number % 50) },
        "attempts": [outcome],
        "evidence": {
            "probe": {"from": format!("blue.pod-{from}"), "to": address, "port": port, "reach": pod(to)},
            "witness": "raw-capture",
            "repeat": format!("kubectl exec -n x1-blue pod-{from} -c probe -- /udn/agent probe {transport} {address} --timeout-ms 6000"),
        },
    })
}
