//! `report` and `diff` as a user types them: on logs of runs, without a cluster.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test from end to end

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

const FILES: [&str; 6] = ["conformance.yaml", "junit.xml", "metrics.txt", "report.html", "report.json", "summary.md"];

fn program(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_udn-conformance"));
    command.args(arguments).env("NO_COLOR", "1").env_remove("UDN_TARGET").output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Writes the log of a run of two cells with these verdicts.
fn log(folder: &Path, verdicts: [&str; 2], finished: bool) {
    let mut events = vec![json!({
        "at_us": 1_700_000_000_000_000_i64, "event": "run-started", "format": 1, "run": "x1", "target": "lab",
        "context": "lab", "versions": {}, "filters": [], "cells": 2, "scenarios": 1,
    })];
    for (name, verdict) in ["mac", "mtu"].into_iter().zip(verdicts) {
        events.push(json!({
            "at_us": 1_700_000_001_000_000_i64, "event": "cell-finished",
            "cell": {
                "id": format!("addressing::layer2::steady::mac-and-mtu::red.a::{name}"), "suite": "addressing",
                "scenario": "layer2", "phase": "steady", "rule": "addressing/mac-and-mtu",
                "check": {"check": "fact", "pod": {"namespace": "red", "name": "a"}, "fact": name, "family": null},
                "expectation": {"expect": "holds"}, "topology": "Layer2", "requires": [],
            },
            "verdict": verdict, "reason": "", "settled_ms": 3, "attempts": [], "evidence": {},
        }));
    }
    if finished {
        events.push(json!({
            "at_us": 1_700_000_002_000_000_i64, "event": "run-finished", "duration_ms": 2_000, "exit": "passed",
            "counts": {"pass": 2, "fail": 0, "unstable": 0, "error": 0, "skip": 0, "known": 0, "fixed": 0},
            "time": {"setup_ms": 0, "settling_ms": 0, "deny_wait_ms": 0, "probing_ms": 0, "cleanup_ms": 0},
        }));
    }
    let lines: Vec<String> = events.iter().map(|event| format!("{event}\n")).collect();
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("events.jsonl"), lines.concat()).unwrap();
}

#[test]
fn all_reports_are_made_again_and_alike() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("run");
    log(&folder, ["pass", "fail"], true);
    let asked = folder.to_str().unwrap();
    let made = || {
        let output = program(&["report", asked]);
        assert_eq!(code(&output), 0, "{}", text(&output.stderr));
        FILES.map(|name| fs::read(folder.join(name)).unwrap())
    };
    assert_eq!(made(), made());
}

#[test]
fn one_report_goes_where_it_is_asked_to() {
    let root = tempfile::tempdir().unwrap();
    log(root.path(), ["pass", "pass"], true);
    let (log, page) = (root.path().join("events.jsonl"), root.path().join("elsewhere.html"));
    let output = program(&["report", log.to_str().unwrap(), "--html", page.to_str().unwrap()]);
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), format!("{}\n", page.display()));
    assert!(fs::read_to_string(&page).unwrap().starts_with("<!DOCTYPE html>"));
    assert!(!root.path().join("report.json").exists());
}

#[test]
fn what_changed_is_in_page_and_summary() {
    let root = tempfile::tempdir().unwrap();
    let (before, after) = (root.path().join("before"), root.path().join("after"));
    log(&before, ["pass", "pass"], true);
    log(&after, ["pass", "fail"], true);
    let output = program(&["report", after.to_str().unwrap(), "--since", before.to_str().unwrap()]);
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    assert!(fs::read_to_string(after.join("summary.md")).unwrap().contains("- newly failing: 1 cell\n"));
    assert!(fs::read_to_string(after.join("report.html")).unwrap().contains("Since run x1"));
}

#[test]
fn a_folder_without_a_run_is_named() {
    let root = tempfile::tempdir().unwrap();
    let output = program(&["report", root.path().to_str().unwrap()]);
    assert_eq!(code(&output), 2);
    assert!(text(&output.stderr).contains("events.jsonl"), "{}", text(&output.stderr));
    assert_eq!(code(&program(&["diff", root.path().to_str().unwrap(), root.path().to_str().unwrap()])), 2);
}

#[test]
fn the_exit_code_of_diff_says_whether_it_got_worse() {
    let root = tempfile::tempdir().unwrap();
    let run = |name: &str, verdicts, finished| {
        let folder = root.path().join(name);
        log(&folder, verdicts, finished);
        folder.to_str().unwrap().to_owned()
    };
    let good = run("good", ["pass", "pass"], true);
    let bad = run("bad", ["pass", "fail"], true);
    let unstable = run("unstable", ["unstable", "pass"], true);
    let error = run("error", ["pass", "error"], true);
    let cut = run("cut", ["pass", "pass"], false);
    let diff = |before: &str, after: &str| code(&program(&["diff", before, after]));
    assert_eq!((diff(&good, &good), diff(&bad, &good), diff(&bad, &bad)), (0, 0, 0));
    assert_eq!((diff(&good, &bad), diff(&good, &unstable), diff(&good, &error)), (1, 1, 1));
    assert_eq!(diff(&good, &cut), 3);
    let output = program(&["diff", &good, &bad, "--format", "json"]);
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&json["worse"], json["changes"].as_array().unwrap().len()), (&json!(true), 1));
    assert_eq!(json["changes"][0]["change"], "newly-failing");
}
