//! Faults of migrations: what the lab does wrong to a VM that moves, and which cells have to say so.
//!
//! The table of docs/scenarios.md, as tests. The VM `red/db` moves from slot 0 to slot 1, which is `ovn-worker2`; what its
//! flows and the phase after them find there is compared cell by cell.

use std::io::Write;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use libtest_mimic::{Failed, Trial};
use serde_json::Value;
use udn_model::cell::{Cell, Check, Expectation, Target, VantagePoint};
use udn_model::fact::Fact;
use udn_model::flow::FlowPromise;
use udn_model::words::{Family, Placement};
use udn_model::world::{PodRef, ServiceRef};

use crate::{Effect, Lab, agree, beside, program, report, verdicts, verdicts_of};

/// The node that the VM comes to.
const TARGET: &str = "ovn-worker2";
/// The flows during the migration.
const THERE: &str = "vm::migration::there::";
/// A bulk transfer during one.
const BULK: &str = "vm::throughput::there::";
/// New connections, the guest's inside and what was announced, after it.
const SETTLED: &str = "vm::migration::there-settled::";

/// What finds a connection broken for good, or nothing but a line missing.
pub(crate) fn waiting() -> Vec<(&'static str, beside::Test)> {
    vec![
        ("faults::migration-not-handed-over", not_handed_over),
        ("faults::migration-to-a-wrong-bridge", to_a_wrong_bridge),
        ("faults::migration-not-announced", not_announced),
        ("faults::migration-without-gateway-announcements", without_gateway_announcements),
    ]
}

/// What measures how long one is out, and is alone then.
pub(crate) fn measuring() -> Vec<Trial> {
    vec![Trial::test("faults::migration-under-reset-and-blackout", under_reset_and_blackout)]
}

/// The target's port stays disabled.
fn not_handed_over() -> Result<(), Failed> {
    let lab = Lab::up("hand");
    annotate(&lab, "udn-conformance.io/lab-network-faults=no-hand-over");
    moved(&lab, &[], &[THERE, SETTLED], cut_off)?;
    moved(&lab, &[], &[BULK], cut_off)
}

/// The guest's tap is on a bridge without a way to the network.
fn to_a_wrong_bridge() -> Result<(), Failed> {
    let lab = Lab::up("bridge");
    annotate(&lab, "lab.udn-conformance.io/fail=wrong-bridge");
    moved(&lab, &[], &[SETTLED], cut_off)
}

/// Neither emulator nor guest says where the guest is. The network of the lab knows without: nothing is out.
fn not_announced() -> Result<(), Failed> {
    let lab = Lab::up("silent");
    annotate(&lab, "lab.udn-conformance.io/fail=announcement-suppressed");
    silent(&lab, "announced-at-", |fact| matches!(fact, Fact::AnnouncedAt(_)))
}

/// The guest is not told who its gateway is. It need not be: that stays who it was.
fn without_gateway_announcements() -> Result<(), Failed> {
    let lab = Lab::up("gateway");
    annotate(&lab, "udn-conformance.io/lab-network-faults=no-gateway-announcements");
    silent(&lab, "gateway-announced", |fact| *fact == Fact::GatewayAnnounced)
}

/// Only what is announced is missing. The baseline says so, that nobody waits for it until the deadline; it is `known`
/// only if it is missing, and whatever else is missing fails.
fn silent(lab: &Lab, cells: &str, missing: impl Fn(&Fact) -> bool) -> Result<(), Failed> {
    let mut baseline = tempfile::NamedTempFile::new().unwrap();
    let issue = format!("- name: FAULT\n  cells: [\"{SETTLED}announced::*{cells}*\"]\n  reason: asked for\n");
    baseline.write_all(issue.as_bytes()).unwrap();
    let baseline = ["--baseline", baseline.path().to_str().unwrap()];
    moved(lab, &baseline, &[THERE, SETTLED], |cell| match &cell.check {
        Check::Fact { fact: fact @ Fact::GatewayAnnounced, family: Some(Family::V6), .. } if missing(fact) => {
            ADVERTISED_ANYWAY
        }
        Check::Fact { fact, .. } if missing(fact) => Effect::Known,
        _ => Effect::None,
    })
}

fn annotate(lab: &Lab, annotation: &str) {
    let kubeconfig = program(&["lab", "kubeconfig", "--name", &lab.0]);
    let kubeconfig = String::from_utf8(kubeconfig.stdout).unwrap();
    let command = ["--kubeconfig", kubeconfig.trim(), "annotate", "node", TARGET, annotation];
    let output = Command::new("kubectl").args(command).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn moved(lab: &Lab, options: &[&str], filters: &[&str], effect: impl Fn(&Cell) -> Effect) -> Result<(), Failed> {
    let verdicts = verdicts(&[&["--lab", &lab.0], options].concat(), filters)?;
    agree(&verdicts, filters, |cell, _| effect(cell))
}

/// Routers advertise themselves now and then, and whenever they are asked to: that may fall into the seconds in which the
/// announcement has to come, and tells the guest the same.
const ADVERTISED_ANYWAY: Effect = Effect::Undetermined;

/// Nothing gets to the VM or away from it any more.
fn cut_off(cell: &Cell) -> Effect {
    let vm = PodRef::new("red", "db");
    let sends = |from: &VantagePoint| matches!(from, VantagePoint::Pod(pod) if *pod == vm);
    let is_reached = |to: &Target| match to {
        Target::Pod { pod, .. } => *pod == vm,
        Target::Service { service, .. } => *service == ServiceRef::new("red", "db"),
        Target::Node(_) | Target::External | Target::ApiServer | Target::Name(_) => false,
    };
    match &cell.check {
        Check::Probe { placement: Placement::Itself, .. } => Effect::None,
        Check::Probe { from, to, .. } if sends(from) || is_reached(to) => match cell.expectation {
            Expectation::Open { .. } => Effect::Broken,
            // It reaches nobody who could be the control.
            _ if sends(from) => Effect::Unjudged,
            _ => Effect::None,
        },
        // What was lost is counted once something comes back.
        Check::Figure { promise: FlowPromise::Loss, .. } => Effect::Unjudged,
        // All flows there are the VM's.
        Check::Figure { .. } => Effect::Broken,
        Check::Fact { fact: Fact::GatewayAnnounced, family: Some(Family::V6), .. } => ADVERTISED_ANYWAY,
        Check::Fact { fact: Fact::AnnouncedAt(_) | Fact::GatewayAnnounced, .. } => Effect::Broken,
        // A guest knows its gateway for a while without hearing of it.
        Check::Fact { fact: Fact::GatewayEntry, .. } => Effect::Undetermined,
        _ => Effect::None,
    }
}

/// How long no packet of a flow gets through. On a busy machine agents stand still for up to half of that, which is not the
/// network's: what is left has to be over the budget still.
const DARK: Duration = Duration::from_secs(10);
/// By how much later than it came the last reply before that may be read: the agent waits for a processor, too, and a flow is
/// out from when it has read a reply (9.991 s were seen once).
const READ_LATE: Duration = Duration::from_secs(1);

/// The external client's connections over IPv6 are reset, and those over IPv4 are without a packet for some seconds.
fn under_reset_and_blackout() -> Result<(), Failed> {
    let lab = Lab::up("cut");
    let done = AtomicBool::new(false);
    let (report, disturbed) = std::thread::scope(|scope| {
        let disturbed = scope.spawn(|| disturb(&lab, &done));
        // Less than half of what is injected, and more than what a busy machine adds.
        let report = report(&["--lab", &lab.0, "--outage-budget", "4s"], &[THERE]);
        done.store(true, Ordering::Relaxed);
        (report, disturbed.join().unwrap())
    });
    let report = report?;
    let disturbed = disturbed.ok_or("the run was over before its flows had got anything back")?;
    agree(&verdicts_of(&report), &[THERE], |cell, _| match &cell.check {
        Check::Probe { from: VantagePoint::External, family: Family::V6, .. } => Effect::Broken,
        Check::Figure { from: VantagePoint::External, family: Family::V6, .. } => Effect::Broken,
        Check::Figure { from: VantagePoint::External, promise: FlowPromise::Outage, .. } => Effect::Broken,
        _ => Effect::None,
    })?;
    for cell in report["cells"].as_array().into_iter().flatten() {
        let id = cell["id"].as_str().unwrap_or_default();
        let flow = &cell["evidence"]["flow"];
        let out = Duration::from_millis(flow["outage_ms"].as_u64().unwrap_or_default());
        // TCP sends again ever more slowly: it may find out as late as after the same time once more.
        if id.contains("::external::") && id.ends_with("::v4::outage") && !(DARK - READ_LATE..DARK * 3).contains(&out) {
            return Err(format!("out for {out:?}, not for about {DARK:?}: {id}").into());
        }
        if id.contains("::external::") && id.ends_with("::v6::intact") {
            ended(flow, disturbed).map_err(|why| format!("{why}: {id}"))?;
        }
    }
    Ok(())
}

/// A flow that was reset has ended, and nothing is told of it after that.
fn ended(flow: &Value, disturbed: SystemTime) -> Result<(), String> {
    if flow["ended"] == Value::Null {
        return Err("a connection that was reset did not end".into());
    }
    let disturbed = i64::try_from(disturbed.duration_since(UNIX_EPOCH).unwrap().as_micros()).unwrap();
    let late = |gap: &&Value| gap["at_us"].as_i64().is_none_or(|at| at > disturbed);
    match flow["gaps"].as_array().into_iter().flatten().find(late) {
        Some(gap) => Err(format!("gap {gap} is told of a flow that was reset at {disturbed} us")),
        None => Ok(()),
    }
}

/// Disturbs the external client's three flows once all of them have got something back; says since when.
fn disturb(lab: &Lab, done: &AtomicBool) -> Option<SystemTime> {
    let flows = ["ss", "-Htni", "state", "established", "( dport = :7007 or dport >= :30000 )"];
    while lab.exec("external", &flows).matches("bytes_received:").count() < 3 {
        if done.load(Ordering::Relaxed) {
            return None;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    // A reset comes to the client by `lo`.
    let fault = "add table inet fault
        add chain inet fault output { type filter hook output priority 0; }
        add rule inet fault output oifname != lo meta nfproto ipv4 meta l4proto tcp drop
        add rule inet fault output oifname != lo meta nfproto ipv6 meta l4proto tcp reject with tcp reset";
    lab.exec("external", &["nft", fault]);
    let disturbed = SystemTime::now();
    std::thread::sleep(DARK);
    lab.exec("external", &["nft", "delete table inet fault"]);
    Some(disturbed)
}
