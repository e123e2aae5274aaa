//! A run on the lab that is ended in the middle. Needs what the lab needs: root or user namespaces, /dev/net/tun.

#![allow(clippy::unwrap_used)] // the helpers are part of the tests

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long a lab may take to get up here, packages fetched first included, and to be gone.
const PATIENCE: Duration = Duration::from_secs(300);

/// How long what belongs to a killed program may take to be gone: far less than it would need to end by itself.
const AT_ONCE: Duration = Duration::from_secs(20);

/// Waits until a condition holds; a paced poll, since nobody tells us.
fn until(what: &str, holds: impl FnMut() -> bool) {
    within(PATIENCE, what, holds);
}

fn within(time: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + time;
    while !holds() {
        assert!(Instant::now() < deadline, "waited for {what} in vain");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Starts a run and waits until its lab is up and it makes its world.
fn begin(out: &Path) -> Child {
    let run = Command::new(env!("CARGO_BIN_EXE_udn-conformance"))
        .args(["run", "workshop::pods::2-connectivity-and-isolation", "--fresh-lab", "--out"])
        .arg(out)
        .env_remove("UDN_TARGET")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let log = out.join("events.jsonl");
    until("the run to make its world", || fs::read_to_string(&log).is_ok_and(|log| log.contains("\"stage\":\"world ")));
    run
}

fn signal(name: &str, process: &Child) {
    let sent = Command::new("sh").args(["-c", &format!("kill -{name} {}", process.id())]).status().unwrap();
    assert!(sent.success());
}

/// Parent and start time of a process; `None` once it is gone.
fn stat(pid: u32) -> Option<(u32, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    if fields[0] == "Z" { None } else { Some((fields[1].parse().ok()?, fields[19].parse().ok()?)) }
}

/// All processes that descend from one, told from later ones of the same number by when they started.
fn descendants(root: u32) -> Vec<(u32, u64)> {
    let all: Vec<(u32, u32, u64)> = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid| stat(pid).map(|(parent, started)| (pid, parent, started)))
        .collect();
    let mut family = BTreeSet::from([root]);
    loop {
        let more: Vec<u32> = all
            .iter()
            .filter(|(pid, parent, _)| family.contains(parent) && !family.contains(pid))
            .map(|(pid, ..)| *pid)
            .collect();
        if more.is_empty() {
            break;
        }
        family.extend(more);
    }
    all.into_iter()
        .filter(|(pid, ..)| *pid != root && family.contains(pid))
        .map(|(pid, _, started)| (pid, started))
        .collect()
}

fn all_gone(processes: &[(u32, u64)]) -> bool {
    processes.iter().all(|(pid, started)| stat(*pid).is_none_or(|(_, now)| now != *started))
}

#[test]
fn an_interrupted_run_is_130_and_reported() {
    let folder = tempfile::tempdir().unwrap();
    let mut run = begin(folder.path());
    let processes = descendants(run.id());
    assert!(processes.len() > 10, "the lab's daemons are its descendants: {processes:?}");
    signal("INT", &run);
    assert_eq!(run.wait().unwrap().code(), Some(130));
    until("the lab to be gone", || all_gone(&processes));
    let report: Value = serde_json::from_slice(&fs::read(folder.path().join("report.json")).unwrap()).unwrap();
    assert_eq!((report["finished"].as_bool(), report["exit"].as_u64()), (Some(false), Some(130)));
    let junit = fs::read_to_string(folder.path().join("junit.xml")).unwrap();
    assert!(junit.contains("<error type=\"interrupted\""), "{junit}");
}

#[test]
fn a_killed_benchmark_takes_its_run_along() {
    let mut bench = Command::new(env!("CARGO_BIN_EXE_udn-conformance"))
        .args(["bench", "isolation", "--repeat", "1"])
        .env_remove("UDN_TARGET")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let is_run =
        |pid: u32| fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains("\0run\0"));
    let mut processes = Vec::new();
    until("the run and its lab", || {
        processes = descendants(bench.id());
        processes.iter().any(|(pid, _)| is_run(*pid)) && processes.len() > 10
    });
    signal("KILL", &bench);
    bench.wait().unwrap();
    within(AT_ONCE, "the run and its lab to be gone", || all_gone(&processes));
}

#[test]
fn a_killed_run_leaves_no_process_and_no_report() {
    let folder = tempfile::tempdir().unwrap();
    let mut run = begin(folder.path());
    let processes = descendants(run.id());
    assert!(processes.len() > 10, "the lab's daemons are its descendants: {processes:?}");
    signal("KILL", &run);
    run.wait().unwrap();
    within(AT_ONCE, "the lab to be gone", || all_gone(&processes));
    assert!(!folder.path().join("report.json").exists(), "nobody was left to write it");
}

#[test]
fn a_lab_in_the_foreground_ends_when_it_is_taken_down_elsewhere() {
    let name = format!("fore-{}", std::process::id());
    let lab = |verb: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_udn-conformance"));
        command.args(["lab", verb, "--name", &name]).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let mut up = lab("up").arg("--foreground").spawn().unwrap();
    until("the lab to be up", || lab("status").status().unwrap().success());
    assert_eq!(up.try_wait().unwrap(), None);
    assert!(lab("down").status().unwrap().success());
    let mut ended = None;
    within(AT_ONCE, "the program to end", || {
        ended = up.try_wait().unwrap();
        ended.is_some()
    });
    assert_eq!(ended.and_then(|status| status.code()), Some(0));
}
