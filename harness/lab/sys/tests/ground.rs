//! The ground on real Open vSwitch and OVN, and what is left of it when its program is killed: nothing.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)] // tests, though not of the usual harness

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};
use rustix::process::{Pid, getpriority_process, setpriority_process};
use serde_json::json;
use udn_lab_sys::ground::Ground;
use udn_lab_sys::packages::{self, Packages, tree};
use udn_lab_sys::sandbox::channel::{Channel, Event};
use udn_lab_sys::sandbox::enter::Entry;
use udn_lab_sys::sandbox::{self, Sandbox, Spec};
use udn_lab_sys::site::{NodeSite, Tools};

/// Inherited by everything that a sandbox starts.
const MARK: &str = "UDN_LAB_TEST_MARK";
/// What the log of an ovn-controller says that ends so.
const KNOWN_END: &str = "\
2026-01-01T00:00:00.000Z|00012|main|INFO|OVN internal version is : [25.03.0-20.41.0-77.6]
2026-01-01T00:00:00.000Z|01424|util|EMER|lib/ovsdb-idl.c:3598: assertion row->new_datum != NULL failed in ovsdb_idl_txn_write__()
";

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    if let Some(code) = sandbox::internal(&args) {
        return code;
    }
    let word = |index: usize| args.get(index).and_then(|arg| arg.to_str()).unwrap_or_default();
    match word(1) {
        "__parent" => parent(),
        "__poor" => poor(word(2)),
        "__main" => inside(word(2), word(3)),
        "__broken" => broken(word(2), word(3)),
        _ => {
            let trials = vec![
                Trial::test("every_library_of_the_tree_is_in_it", closure),
                Trial::test("up_connected_and_healthy", up),
                Trial::test("daemons_that_die_are_reported", death),
                Trial::test("a_daemon_that_ends_by_a_known_defect_is_started_again", defect),
                Trial::test("a_daemon_that_cannot_start_is_the_cause_given", cannot_start),
                Trial::test("dropped_packets_are_reported", recirculation),
                Trial::test("two_grounds_at_once", two),
                Trial::test("a_command_enters_a_node", enter),
                Trial::test("what_the_host_lacks_is_said_with_its_remedy", lacking),
                Trial::test("killed_at_any_moment_nothing_is_left", killed),
                Trial::test("a_detached_sandbox_outlives_its_parent_and_ends_when_told", detached),
            ];
            libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
        }
    }
}

fn packages() -> Packages {
    packages::ensure(&packages::default_folder(), &|_| {}).unwrap()
}

fn spawn(job: &str) -> Sandbox {
    let packages = packages();
    let tools = if packages.tools.root == Path::new("/") { "/" } else { sandbox::TREE };
    let main = vec!["__main".into(), tools.into(), job.into()];
    Sandbox::spawn(&Spec { tree: packages.image_root, main }, None).unwrap()
}

/// Main process of the sandbox: brings the ground up, does its job, says what came of it.
fn inside(tools: &str, job: &str) -> ExitCode {
    let channel = Channel::of_stdin().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let step = |step: &str| channel.send(&Event::Step { step: step.into(), at_ms: 0 }).unwrap();
    let ground = match runtime.block_on(Ground::up(Tools { root: tools.into() }, &step)) {
        Ok(ground) => ground,
        Err(error) => {
            channel.send(&Event::Failed { message: error.to_string() }).unwrap();
            return ExitCode::FAILURE;
        }
    };
    let site = ground.site();
    let facts = match job {
        "ping" => {
            let mut results = Vec::new();
            for node in &site.nodes {
                for target in
                    ["172.18.0.2", "172.18.0.3", "172.18.0.4", "172.18.0.100", "fc00:f853:ccd:e793::4", "198.51.100.1"]
                {
                    let mut ping = site.tools.command("ping");
                    ping.args(["-c1", "-W2", target]);
                    let output = node.netns.run(|| ping.output()).unwrap().unwrap();
                    let text = String::from_utf8_lossy(&output.stdout).into_owned();
                    let result = if output.status.success() {
                        "reached"
                    } else if text.contains("Net Unreachable") {
                        "unreachable"
                    } else {
                        "lost"
                    };
                    results.push(json!([node.name, target, result]));
                }
            }
            let switches = ground.daemons().into_iter().filter(|(name, ..)| name == "ovs-vswitchd");
            let nice: Vec<(String, i32)> = switches.flat_map(|(.., pid)| nice_of_threads(pid)).collect();
            let uplinks: Vec<u64> = site.nodes.iter().map(|node| uplink_room(&site.tools, node)).collect();
            json!({
                "pings": results, "health": ground.health(), "nice": nice, "may": may_go_first(), "uplinks": uplinks,
            })
        }
        "death" => {
            let (name, place, pid) = ground.daemons().into_iter().find(|(name, ..)| name == "ovs-vswitchd").unwrap();
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.cast_signed()), nix::sys::signal::Signal::SIGKILL)
                .unwrap();
            let problems = poll(|| Some(ground.health()).filter(|problems| !problems.is_empty()));
            json!({"killed": [name, place], "health": problems})
        }
        "defect" => {
            let of = |ground: &Ground| {
                let controller =
                    |(name, place, _): &(String, String, u32)| name == "ovn-controller" && place == "ovn-worker";
                ground.daemons().into_iter().find(controller).map(|(.., pid)| pid)
            };
            let before = of(&ground).unwrap();
            let log = site.nodes[1].ovn_run.join("ovn-controller.log");
            let mut log = fs::File::options().append(true).open(log).unwrap();
            log.write_all(KNOWN_END.as_bytes()).unwrap();
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(before.cast_signed()), nix::sys::signal::Signal::SIGABRT)
                .unwrap();
            runtime.block_on(async {
                let _ = tokio::time::timeout(Duration::from_secs(3), ground.look_after()).await;
            });
            let again = of(&ground).is_some_and(|after| after != before);
            json!({"again": again, "health": ground.health(), "known": ground.known_ends(), "lost": ground.lost()})
        }
        "recirculation" => {
            let log = site.nodes[1].ovs_run.join("ovs-vswitchd.log");
            let mut text = fs::read_to_string(&log).unwrap();
            text.push_str("2026-01-01T00:00:00Z|00099|dpif|WARN|Packet dropped. Max recirculation depth exceeded.\n");
            fs::write(&log, text).unwrap();
            json!({"health": ground.health()})
        }
        _ => json!({"health": ground.health()}),
    };
    channel.send(&Event::Ready { at_ms: 0, facts }).unwrap();
    if job == "stay" {
        loop {
            std::thread::park();
        }
    }
    ExitCode::SUCCESS
}

/// How much the switch's socket at a node's uplink may hold, bytes.
fn uplink_room(tools: &Tools, node: &NodeSite) -> u64 {
    let mut sockets = tools.command("ss");
    sockets.args(["-0", "-m", "-n", "-O"]);
    let output = node.netns.run(|| sockets.output()).unwrap().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let uplink = text.lines().find(|line| line.contains(":eth0 ")).unwrap_or_else(|| panic!("no uplink: {text}"));
    let (_, room) = uplink.split_once(",rb").unwrap();
    room.split(',').next().unwrap().parse().unwrap()
}

/// Names of a process' threads, and how nice they are.
fn nice_of_threads(pid: u32) -> Vec<(String, i32)> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().map(|entry| entry.unwrap());
    let nice = |id: &str| getpriority_process(Pid::from_raw(id.parse().unwrap())).unwrap();
    let name = |thread: &fs::DirEntry| fs::read_to_string(thread.path().join("comm")).unwrap();
    threads.map(|thread| (name(&thread), nice(thread.file_name().to_str().unwrap()))).collect()
}

/// Whether processes may be told to go before others here.
fn may_go_first() -> bool {
    std::thread::spawn(|| setpriority_process(None, -1).is_ok()).join().unwrap()
}

fn facts(sandbox: &mut Sandbox) -> Result<serde_json::Value, Failed> {
    loop {
        if let Event::Ready { facts, .. } = sandbox.event()? {
            return Ok(facts);
        }
    }
}

fn closure() -> Result<(), Failed> {
    let packages = packages();
    tree::check(&packages.image_root)?;
    for program in ["sh", "ip", "ping", "curl", "wget", "ls"] {
        assert!(
            packages.image_root.join("usr/bin").join(program).symlink_metadata().is_ok(),
            "no {program} in the image"
        );
    }
    Ok(())
}

fn up() -> Result<(), Failed> {
    let facts = facts(&mut spawn("ping"))?;
    let pings = facts["pings"].as_array().unwrap();
    assert_eq!(pings.len(), 18);
    for ping in pings {
        let expected = if ping[1] == "198.51.100.1" { "unreachable" } else { "reached" };
        assert_eq!(ping[2], expected, "{ping}");
    }
    assert_eq!(facts["health"], json!([]));
    let nice: Vec<(String, i32)> = serde_json::from_value(facts["nice"].clone())?;
    let (waiting, first): (Vec<_>, Vec<_>) = nice.into_iter().partition(|(name, _)| name.starts_with("revalidator"));
    assert!(waiting.len() == 3 && waiting.iter().all(|(_, nice)| *nice > 0), "revalidators wait: {waiting:?}");
    assert!(first.len() > 3, "three switches with several threads each: {first:?}");
    if facts["may"] == true {
        assert!(first.iter().all(|(_, nice)| *nice < 0), "what forwards goes before the rest: {first:?}");
    }
    let usual: u64 = fs::read_to_string("/proc/sys/net/core/rmem_default")?.trim().parse()?;
    let uplinks: Vec<u64> = facts["uplinks"].as_array().unwrap().iter().map(|room| room.as_u64().unwrap()).collect();
    assert!(uplinks.len() == 3 && uplinks.iter().all(|room| *room > usual), "{uplinks:?}, usual {usual}");
    Ok(())
}

fn death() -> Result<(), Failed> {
    let facts = facts(&mut spawn("death"))?;
    let problem = facts["health"][0].as_str().unwrap();
    assert!(problem.contains("ovs-vswitchd of ovn-control-plane ended (signal: 9"), "{problem}");
    Ok(())
}

fn defect() -> Result<(), Failed> {
    let facts = facts(&mut spawn("defect"))?;
    assert_eq!(
        (&facts["again"], &facts["health"], &facts["lost"]),
        (&json!(true), &json!([]), &json!([])),
        "{facts:#}"
    );
    let known = facts["known"].as_array().unwrap();
    assert!(
        known.len() == 1 && known[0].as_str().unwrap().contains("ovn-controller of ovn-worker ended: it took a port")
    );
    Ok(())
}

/// Main process of a sandbox in whose tools one daemon is another program, that ends at once.
fn broken(tools: &str, daemon: &str) -> ExitCode {
    let copy = Path::new("/run/broken");
    for folder in ["usr/bin", "usr/sbin", "usr/lib/openvswitch-switch"] {
        fs::create_dir_all(copy.join(folder)).unwrap();
        for entry in fs::read_dir(Path::new(tools).join(folder)).unwrap().map(Result::unwrap) {
            let program =
                if entry.file_name() == daemon { Path::new(tools).join("usr/bin/ovsdb-tool") } else { entry.path() };
            std::os::unix::fs::symlink(program, copy.join(folder).join(entry.file_name())).unwrap();
        }
    }
    for folder in ["usr/share", "usr/lib"] {
        let real = Path::new(tools).join(folder);
        for entry in fs::read_dir(&real).unwrap().map(Result::unwrap) {
            fs::create_dir_all(copy.join(folder)).unwrap();
            let _ = std::os::unix::fs::symlink(entry.path(), copy.join(folder).join(entry.file_name()));
        }
    }
    inside("/run/broken", "stay")
}

fn cannot_start() -> Result<(), Failed> {
    for (daemon, place) in
        [("ovsdb-server", "central"), ("ovs-vswitchd", "ovn-"), ("ovn-controller", "ovn-"), ("ovn-northd", "central")]
    {
        let packages = packages();
        let tools = if packages.tools.root == Path::new("/") { "/" } else { sandbox::TREE };
        let main = vec!["__broken".into(), tools.into(), daemon.into()];
        let mut sandbox = Sandbox::spawn(&Spec { tree: packages.image_root, main }, None)?;
        let start = Instant::now();
        let message = facts(&mut sandbox).unwrap_err().message().unwrap_or_default().to_owned();
        assert!(
            message.contains(&format!(" of {place}")) && message.contains("ended (exit status: 1)"),
            "{daemon}: {message}"
        );
        assert!(start.elapsed() < Duration::from_secs(5), "{daemon} was waited for in vain");
    }
    Ok(())
}

fn recirculation() -> Result<(), Failed> {
    let facts = facts(&mut spawn("recirculation"))?;
    let problem = facts["health"][0].as_str().unwrap();
    assert!(problem.contains("ovn-worker dropped packets") && problem.contains("recirculation depth"), "{problem}");
    Ok(())
}

fn two() -> Result<(), Failed> {
    let mut sandboxes = [spawn("ping"), spawn("ping")];
    for sandbox in &mut sandboxes {
        assert_eq!(facts(sandbox)?["health"], json!([]));
    }
    Ok(())
}

fn enter() -> Result<(), Failed> {
    let mut sandbox = spawn("stay");
    facts(&mut sandbox)?;
    let run = |netns: &str, command: &[&str]| {
        let entry =
            Entry { keeper: sandbox.keeper(), netns: netns.into(), command: command.iter().map(Into::into).collect() };
        let output = entry.command().output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(run("ovn-worker", &["ovs-ofctl", "dump-flows", "br-int"]).contains("table=0"));
    assert!(run("ovn-worker", &["ovn-sbctl", "show"]).contains("Chassis ovn-worker2"));
    assert!(run("ovn-worker2", &["ip", "address", "show", "br-ex"]).contains("172.18.0.4/16"));
    assert!(run("external", &["ip", "address", "show", "eth0"]).contains("172.18.0.100/16"));
    assert!(run("ovn-worker2", &["ovs-appctl", "version"]).contains("ovs-vswitchd"));
    Ok(())
}

/// A program on a host that lacks something: prints what it is told, and what it left.
fn poor(lack: &str) -> ExitCode {
    use nix::mount::{MsFlags, mount};
    use nix::sched::{CloneFlags, unshare};

    let tmpfs =
        |path: &Path, options: &str| mount(Some("test"), path, Some("tmpfs"), MsFlags::empty(), Some(options)).unwrap();
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
    let message = match lack {
        "tun" => {
            tmpfs(Path::new("/dev/net"), "");
            sandbox::preflight::check().unwrap_err().to_string()
        }
        "namespaces" => {
            // A limit of one's own, in a user namespace of one's own.
            unshare(CloneFlags::CLONE_NEWUSER).unwrap();
            fs::write("/proc/self/uid_map", "0 0 1").unwrap();
            fs::write("/proc/sys/user/max_net_namespaces", "0").unwrap();
            spawn("stay").event().unwrap_err().to_string()
        }
        size => {
            let cache = std::env::temp_dir();
            tmpfs(&cache, &format!("size={size}"));
            let message = packages::ensure(&cache, &|_| {}).unwrap_err().to_string();
            let left: Vec<_> =
                fs::read_dir(cache.join("packages")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            format!("{message}; left: {left:?}")
        }
    };
    println!("{message}");
    ExitCode::SUCCESS
}

fn lacking() -> Result<(), Failed> {
    let told = |lack: &str| {
        let output = Command::new("/proc/self/exe").args(["__poor", lack]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    let message = told("tun");
    assert!(message.contains("/dev/net/tun") && message.contains("modprobe tun"), "{message}");
    let message = told("namespaces");
    assert!(message.starts_with("cannot make namespaces") && message.contains("run as root"), "{message}");
    // Full while fetching, and while unpacking.
    for size in ["12m", "60m"] {
        let message = told(size);
        assert!(message.contains("no storage space") && message.contains("XDG_CACHE_HOME"), "{size}: {message}");
        assert!(message.ends_with(".lock\"]"), "{size}: {message}");
    }
    Ok(())
}

/// The program that is killed.
fn parent() -> ExitCode {
    let mut sandbox = spawn("stay");
    while sandbox.event().is_ok() {}
    ExitCode::FAILURE
}

fn killed() -> Result<(), Failed> {
    packages();
    let before = Traces::of_host();
    // From before the keeper's first line to long after the ground is up.
    for (round, delay) in [0, 2, 5, 10, 20, 40, 70, 110, 160, 220, 300, 400, 700, 1500].into_iter().enumerate() {
        let mark = format!("kill-{}-{round}", std::process::id());
        let mut parent = marked(&mark, "__parent");
        std::thread::sleep(Duration::from_millis(delay));
        parent.kill().unwrap();
        assert_eq!(parent.wait().unwrap().signal(), Some(9), "it ended before it was killed");
        gone(&mark);
    }
    // Losing the keeper, whose death nobody announces, ends it likewise.
    for (round, delay) in [0, 5, 30, 150, 600].into_iter().enumerate() {
        let mark = format!("keeper-{}-{round}", std::process::id());
        let mut parent = marked(&mark, "__parent");
        let keeper = poll(|| first_child(parent.id()));
        std::thread::sleep(Duration::from_millis(delay));
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(keeper), nix::sys::signal::Signal::SIGKILL).unwrap();
        parent.wait().unwrap();
        gone(&mark);
    }
    let after = Traces::of_host();
    assert_eq!(before.interfaces, after.interfaces);
    assert_eq!(before.mounts, after.mounts);
    assert_eq!(before.files, after.files);
    Ok(())
}

fn detached() -> Result<(), Failed> {
    let mark = format!("detach-{}", std::process::id());
    let mut sandbox = spawn("stay");
    facts(&mut sandbox)?;
    let keeper = sandbox.detach()?;
    // The socket is closed now, as it is when the parent ends.
    std::thread::sleep(Duration::from_millis(300));
    assert!(Path::new(&format!("/proc/{keeper}/task/{keeper}/children")).exists(), "{mark}");
    let children = fs::read_to_string(format!("/proc/{keeper}/task/{keeper}/children"))?;
    let init = children.split_whitespace().next().expect("its first process").to_owned();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(keeper.cast_signed()), nix::sys::signal::Signal::SIGTERM)?;
    poll(|| (!Path::new(&format!("/proc/{init}")).exists()).then_some(()));
    Ok(())
}

fn marked(mark: &str, role: &str) -> Child {
    Command::new("/proc/self/exe").arg(role).env(MARK, mark).stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn first_child(parent: u32) -> Option<i32> {
    // Any thread may have started it.
    fs::read_dir(format!("/proc/{parent}/task")).ok()?.find_map(|task| {
        let children = fs::read_to_string(task.ok()?.path().join("children")).ok()?;
        children.split_whitespace().next()?.parse().ok()
    })
}

/// Until no process has the mark in its environment.
fn gone(mark: &str) {
    let wanted = format!("{MARK}={mark}");
    let left = || -> Vec<String> {
        let processes = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
        processes
            .filter(|process| {
                let environment = fs::read(process.path().join("environ")).unwrap_or_default();
                environment.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes())
            })
            .map(|process| fs::read_to_string(process.path().join("comm")).unwrap_or_default())
            .collect()
    };
    poll(|| left().is_empty().then_some(()));
}

fn poll<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < Duration::from_secs(10), "still not so after 10 s");
        std::thread::sleep(Duration::from_millis(10));
    }
}

struct Traces {
    interfaces: BTreeSet<OsString>,
    mounts: Vec<String>,
    files: BTreeSet<OsString>,
}

impl Traces {
    fn of_host() -> Self {
        let names =
            |folder: &str| fs::read_dir(folder).unwrap().filter_map(|entry| Some(entry.ok()?.file_name())).collect();
        let ours =
            |name: &OsString| ["udn", "ovs", "ovn", "lab"].iter().any(|word| name.to_string_lossy().contains(word));
        let files: BTreeSet<OsString> = [std::env::temp_dir().to_str().unwrap(), "/run", "/var/run"]
            .into_iter()
            .flat_map(names)
            .filter(ours)
            .collect();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap().lines().map(str::to_owned).collect();
        Self { interfaces: names("/sys/class/net"), mounts, files }
    }
}
