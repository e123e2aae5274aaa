//! Every scenario on the lab, each a test; and proof that the scenarios can fail.
//!
//! [`scenarios`] has the scenarios. The faults break a running lab by
//! hand, as a person with `ovn-nbctl` and `ovs-ofctl` would, and compare the cells that fail with those that must. They and
//! whatever else brings up a lab of its own are asked for by `--ignored` or `--include-ignored`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test from end to end

#[path = "lab/beside.rs"]
mod beside;
#[path = "lab/migrations.rs"]
mod migrations;
#[path = "lab/rights.rs"]
mod rights;
#[path = "lab/scenarios.rs"]
mod scenarios;

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::Value;
use udn_fixtures::Fixtures;
use udn_model::cell::{AddressOn, Cell, Check, Expectation, Exposure, Reach, Target, VantagePoint};
use udn_model::filter::Filter;
use udn_model::plan::{Environment, Plan};
use udn_model::words::{Family, Placement, Transport};
use udn_model::world::World;

/// Verdicts by cell id.
type Verdicts = BTreeMap<String, String>;

fn main() {
    let arguments = Arguments::from_args();
    let target = scenarios::Target::asked();
    let lacks = target.lacks();
    if let Some(lacks) = &lacks {
        eprintln!("tests that need the lab are ignored: {lacks}");
    } else if !(arguments.ignored || arguments.include_ignored || arguments.list) {
        eprintln!("{OF_THEIR_OWN}");
    }
    let ignored = |trial: Trial| {
        let ignored = lacks.is_some() || trial.has_ignored_flag();
        trial.with_ignored_flag(ignored)
    };
    let mut trials = scenarios::trials(&arguments, &target);
    let waiting = faults()
        .into_iter()
        .chain(rights::tests())
        .chain([("runs::two-at-once", two_at_once as beside::Test)])
        .chain(migrations::waiting());
    let of_their_own = beside::trials(&arguments, waiting.collect()).into_iter().chain(migrations::measuring());
    trials.extend(of_their_own.map(|trial| trial.with_ignored_flag(true)));
    let trials = trials.into_iter().map(ignored).collect();
    // One after the other: each brings a lab up, and what is measured would be the other one.
    libtest_mimic::run(&Arguments { test_threads: Some(1), ..arguments }, trials).exit();
}

/// Why they are not run unasked.
const OF_THEIR_OWN: &str = "tests that bring up labs of their own (faults::, rights::, runs::) are ignored, for they take longer \
     than all others together: cargo test --test lab -- --ignored";

fn faults() -> Vec<(&'static str, beside::Test)> {
    vec![
        ("faults::isolation-acl-lost", isolation_acl_lost),
        ("faults::udp-dropped-on-one-node", udp_dropped_on_one_node),
        ("faults::snat-lost-on-one-node", snat_lost_on_one_node),
        ("faults::node-ports-cut-off-one-node", node_ports_cut_off_one_node),
        ("faults::policy-acls-lost", policy_acls_lost),
        ("faults::dns-lost-over-one-wire", dns_lost_over_one_wire),
    ]
}

fn plan(filters: &[&str]) -> Plan {
    let suites = udn_suites::all(&Fixtures::embedded()).unwrap();
    let filter = Filter::parse(filters, &udn_suites::NAMES).unwrap();
    Plan::new(&suites, &filter, &Environment::complete()).unwrap()
}

fn program(arguments: &[&str]) -> Output {
    program_with(arguments, &[])
}

fn program_with(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_udn-conformance"));
    command.args(arguments).env("NO_COLOR", "1").env_remove("UDN_TARGET");
    if scenarios::Target::asked() == scenarios::Target::Lab {
        command.env_remove("KUBECONFIG");
    }
    command.envs(environment.iter().copied()).output().unwrap()
}

/// How long a connection is out over a migration is the machine's as much as the network's where guests are emulated on two
/// cores: here it has to survive. The figures are in the reports all the same.
const PATIENT: [&str; 2] = ["--outage-budget", "20s"];
/// How long cells get to settle that are broken for good.
const HASTY: [&str; 2] = ["--settle-deadline", "12s"];

fn verdicts(options: &[&str], filters: &[&str]) -> Result<Verdicts, String> {
    let patient: &[&str] = if scenarios::Target::asked() == scenarios::Target::Lab { &PATIENT } else { &[] };
    report(&[patient, options].concat(), filters).map(|report| verdicts_of(&report))
}

/// Runs the program and reads its report, whatever it exits with: that some cells fail is what faults are for.
fn report(options: &[&str], filters: &[&str]) -> Result<Value, String> {
    let out = tempfile::tempdir().unwrap();
    let folder = out.path().to_str().unwrap();
    let output = program(&[&["run", "--out", folder], options, filters].concat());
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !matches!(output.status.code(), Some(0 | 1 | 3)) {
        return Err(format!("the run ended with {}:\n{said}", output.status));
    }
    let report = std::fs::read(out.path().join("report.json")).map_err(|error| format!("{error}:\n{said}"))?;
    let report: Value = serde_json::from_slice(&report).map_err(|error| error.to_string())?;
    println!("{said}");
    if report["cells"].is_array() { Ok(report) } else { Err("report.json has no cells".into()) }
}

fn verdicts_of(report: &Value) -> Verdicts {
    let text = |cell: &Value, field: &str| cell[field].as_str().unwrap_or_default().to_owned();
    let cells = report["cells"].as_array().into_iter().flatten();
    cells.map(|cell| (text(cell, "id"), text(cell, "verdict"))).collect()
}

/// Every cell whose id begins like this was judged, and passes, or fails as a known issue says; with `skip_allowed`
/// it may be skipped.
fn holds(of: &str, verdicts: &Verdicts, skip_allowed: bool) -> Result<(), Failed> {
    let prefix = format!("{of}::");
    let of_it = || verdicts.iter().filter(|(id, _)| id.starts_with(&prefix));
    if of_it().next().is_none() {
        return Err(format!("the run has no cell of {of}").into());
    }
    let bad: Vec<String> = of_it()
        .filter(|(_, verdict)| !matches!(verdict.as_str(), "pass" | "known"))
        .filter(|(_, verdict)| !(skip_allowed && verdict.as_str() == "skip"))
        .map(|(id, verdict)| format!("{verdict} {id}"))
        .collect();
    if bad.is_empty() { Ok(()) } else { Err(shortened(&bad).into()) }
}

fn shortened(lines: &[String]) -> String {
    let more = lines.len().saturating_sub(20);
    let shown = lines.iter().take(20).map(|line| format!("  {line}\n")).collect::<String>();
    if more == 0 { shown } else { format!("{shown}  … and {more} more") }
}

/// A lab in the background, gone with this value.
struct Lab(String);

impl Lab {
    fn up(purpose: &str) -> Self {
        Self::up_with(purpose, &[])
    }

    fn up_with(purpose: &str, environment: &[(&str, &str)]) -> Self {
        let name = format!("{purpose}-{}", std::process::id());
        let output = program_with(&["lab", "up", "--name", &name], environment);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Self(name)
    }

    fn exec(&self, node: &str, command: &[&str]) -> String {
        let output = program(&[&["lab", "exec", "--name", &self.0, node, "--"], command].concat());
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let output = program(&["lab", "down", "--name", &self.0]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// What a fault must do to a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    /// Nothing.
    None,
    /// The promise is broken.
    Broken,
    /// The promise is broken, and the run's baseline says so.
    Known,
    /// The cell cannot be judged any more: a control of it is broken.
    Unjudged,
    /// Whom the cell means, and whether anybody, depends on the addresses that this run's pods were given; or what it finds
    /// depends on when it is asked.
    Undetermined,
}

/// Runs a scenario on a broken lab and compares every cell's verdict with what the fault must do to it.
fn compare(lab: &Lab, scenario: &str, effect: impl Fn(&Cell, &World) -> Effect) -> Result<(), Failed> {
    let filter = format!("{scenario}::");
    let verdicts = verdicts(&[&HASTY[..], &["--lab", &lab.0]].concat(), &[&filter])?;
    agree(&verdicts, &[&filter], effect)
}

/// Every cell's verdict is what the fault must do to it.
fn agree(verdicts: &Verdicts, filters: &[&str], effect: impl Fn(&Cell, &World) -> Effect) -> Result<(), Failed> {
    let plan = plan(filters);
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for phase in plan.scenarios.iter().flat_map(|planned| &planned.phases) {
        for planned in &phase.cells {
            let verdict = verdicts.get(planned.cell.id.as_str()).map_or("missing", String::as_str);
            let effect = effect(&planned.cell, &phase.world);
            let right = match effect {
                Effect::None => verdict == "pass",
                Effect::Broken => verdict == "fail",
                Effect::Known => verdict == "known",
                Effect::Unjudged => matches!(verdict, "error" | "pass"),
                Effect::Undetermined => verdict != "missing",
            };
            seen.insert(format!("{effect:?}"));
            if !right {
                wrong.push(format!("{effect:?}, but {verdict}: {}", planned.cell.id));
            }
        }
    }
    if !seen.contains("Broken") && !seen.contains("Known") {
        return Err("the fault was to break nothing: the comparison proves nothing".into());
    }
    if wrong.is_empty() { Ok(()) } else { Err(shortened(&wrong).into()) }
}

/// The rules that keep the default network out of a tenant's pods are deleted from OVN.
fn isolation_acl_lost() -> Result<(), Failed> {
    let lab = Lab::up("acl");
    let found = "--bare --columns=_uuid find ACL action=drop direction=to-lport priority=1000";
    let drops = lab.exec("ovn-control-plane", &[&["ovn-nbctl"], &found.split(' ').collect::<Vec<_>>()[..]].concat());
    let drops: Vec<&str> = drops.split_whitespace().collect();
    if drops.is_empty() {
        return Err("OVN has no drop rule that could be lost".into());
    }
    for group in lab
        .exec("ovn-control-plane", &["ovn-nbctl", "--bare", "--columns=_uuid", "list", "Port_Group"])
        .split_whitespace()
    {
        for drop in &drops {
            lab.exec("ovn-control-plane", &["ovn-nbctl", "remove", "Port_Group", group, "acls", drop]);
        }
    }
    compare(&lab, "isolation::layer3", |cell, _| {
        let Check::Probe { from, to, .. } = &cell.check else { return Effect::None };
        let outsider = match from {
            VantagePoint::Pod(pod) => pod.namespace == "plain",
            VantagePoint::Node(_) => true,
            VantagePoint::External => false,
        };
        let to_tenant = matches!(to, Target::Pod { pod, on: AddressOn::Default } if pod.namespace != "plain");
        if outsider && to_tenant { Effect::Broken } else { Effect::None }
    })
}

/// One node's integration bridge drops UDP to the probed port.
fn udp_dropped_on_one_node() -> Result<(), Failed> {
    let lab = Lab::up("udp");
    for family in ["udp", "udp6"] {
        let flow = format!("table=0,priority=65535,{family},tp_dst=8080,actions=drop");
        lab.exec("ovn-worker2", &["ovs-ofctl", "add-flow", "br-int", &flow]);
    }
    compare(&lab, "isolation::layer2", |cell, world| {
        let Check::Probe { from, to, placement, transport: Transport::Udp, .. } = &cell.check else {
            return Effect::None;
        };
        let on_the_node = |slot: Option<u8>| slot == Some(1);
        let from = on_the_node(match from {
            VantagePoint::Pod(pod) => world.pod(pod).map(|pod| pod.node),
            VantagePoint::Node(slot) => Some(*slot),
            VantagePoint::External => None,
        });
        let to = match to {
            Target::Pod { pod, .. } => on_the_node(world.pod(pod).map(|pod| pod.node)),
            // An external client's way to a node's host port leads over br-ex only.
            Target::Node(_) | Target::External | Target::Service { .. } | Target::ApiServer | Target::Name(_) => false,
        };
        match &cell.expectation {
            Expectation::Open { reach: Reach::HolderIn(_), .. } => Effect::Undetermined,
            Expectation::Open { .. } if *placement != Placement::Itself && (from || to) => Effect::Broken,
            Expectation::Open { .. } => Effect::None,
            // Whoever sends from the node, or has all his peers there, has no control left.
            _ => Effect::Unjudged,
        }
    })
}

/// The default network's gateway router of one node no longer translates source addresses.
fn snat_lost_on_one_node() -> Result<(), Failed> {
    let lab = Lab::up("snat");
    lab.exec("ovn-control-plane", &["ovn-nbctl", "lr-nat-del", "GR_ovn-worker2"]);
    compare(&lab, "egress::layer3", |cell, world| {
        let Check::Probe { from: VantagePoint::Pod(pod), to, .. } = &cell.check else { return Effect::None };
        let there = pod.namespace == "plain" && world.pod(pod).is_some_and(|pod| pod.node == 1);
        // To the node itself nothing is translated, and DNS answers from pods.
        let outwards = matches!(to, Target::External | Target::ApiServer | Target::Name(_) | Target::Node(0));
        if there && outwards { Effect::Broken } else { Effect::None }
    })
}

/// The underlay lets nobody through to one node's NodePorts: open cells fail, and those that must be rejected, too.
fn node_ports_cut_off_one_node() -> Result<(), Failed> {
    let lab = Lab::up("ports");
    for line in [
        "add table bridge fault",
        "add chain bridge fault forward { type filter hook forward priority 0; }",
        "add rule bridge fault forward ip daddr 172.18.0.4 tcp dport 30000-32767 drop",
    ] {
        lab.exec("underlay", &["nft", line]);
    }
    compare(&lab, "services::layer3", |cell, world| {
        let Check::Probe { from, to, transport: Transport::Tcp, family: Family::V4, .. } = &cell.check else {
            return Effect::None;
        };
        let over_the_underlay = match from {
            VantagePoint::Pod(pod) => world.pod(pod).is_some_and(|pod| pod.node != 1),
            VantagePoint::Node(slot) => *slot != 1,
            VantagePoint::External => true,
        };
        let answered = matches!(cell.expectation, Expectation::Open { .. } | Expectation::Rejected);
        let there = matches!(to, Target::Service { via: Exposure::NodePort(1), .. });
        if over_the_underlay && there && answered { Effect::Broken } else { Effect::None }
    })
}

/// Whatever rule a policy puts into OVN to drop packets is deleted at once.
fn policy_acls_lost() -> Result<(), Failed> {
    let lab = Lab::up("policy");
    let find = "ovn-nbctl --bare --columns=_uuid find ACL action=drop tier=2".split(' ').collect::<Vec<_>>();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                for acl in lab.exec("ovn-control-plane", &find).split_whitespace() {
                    let groups = format!("--bare --columns=_uuid find Port_Group acls{{>=}}{acl}");
                    let groups: Vec<&str> = [&["ovn-nbctl"], &groups.split(' ').collect::<Vec<_>>()[..]].concat();
                    for group in lab.exec("ovn-control-plane", &groups).split_whitespace() {
                        lab.exec("ovn-control-plane", &["ovn-nbctl", "remove", "Port_Group", group, "acls", acl]);
                    }
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        let outcome = compare(&lab, "policy::layer3::ingress-denied", |cell, _| {
            let denied = cell.rule.is_policy() && cell.expectation == Expectation::Closed;
            if denied { Effect::Broken } else { Effect::None }
        });
        done.store(true, Ordering::Relaxed);
        outcome
    })
}

/// The load balancer of the DNS service loses its IPv4 address for UDP.
fn dns_lost_over_one_wire() -> Result<(), Failed> {
    let lab = Lab::up("dns");
    let balancer = "Service_kube-system/kube-dns_UDP_cluster";
    let found = ["ovn-nbctl", "--bare", "--columns=_uuid", "find", "Load_Balancer", &format!("name=\"{balancer}\"")];
    // The network writes the row anew when a DNS pod gets ready: what is taken away before both are would come back.
    let deadline = Instant::now() + Duration::from_secs(60);
    let balancer = loop {
        let balancer = lab.exec("ovn-control-plane", &found);
        let show = ["ovn-nbctl", "get", "Load_Balancer", &balancer, "vips:\"10.96.0.10:53\""];
        if !balancer.is_empty() && lab.exec("ovn-control-plane", &show).contains(',') {
            break balancer;
        }
        if Instant::now() > deadline {
            return Err("OVN has no load balancer of the DNS service with two backends that could be lost".into());
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    lab.exec("ovn-control-plane", &["ovn-nbctl", "remove", "Load_Balancer", &balancer, "vips", "\"10.96.0.10:53\""]);
    compare(&lab, "services::dns-layer2", |cell, _| match &cell.check {
        Check::Resolve { transport: Transport::Udp, family: Family::V4, .. } => Effect::Broken,
        _ => Effect::None,
    })
}

/// Two runs on one lab do not touch each other.
fn two_at_once() -> Result<(), Failed> {
    let lab = Lab::up("two");
    let runs = std::thread::scope(|scope| {
        let run = || verdicts(&["--lab", &lab.0], &["isolation::name-collision::", "objects::second-primary::"]);
        let other = scope.spawn(run);
        [run(), other.join().unwrap()]
    });
    for verdicts in runs {
        let verdicts = verdicts?;
        holds("isolation::name-collision", &verdicts, false)?;
        holds("objects::second-primary", &verdicts, false)?;
    }
    Ok(())
}
