//! What a host, a disk or an input lacks: one clear message, the right exit code, nothing left behind.
//!
//! Needs what the lab needs, and `unshare`: each host is this one in a mount namespace where something is missing.

#![allow(clippy::unwrap_used)] // the helpers are part of the tests

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long a lab may take to get up here, packages fetched first included, and to be gone.
const PATIENCE: Duration = Duration::from_secs(300);
/// In the environment of everything that a test starts, so that it can be told from the rest.
const MARK: &str = "UDN_TEST_MARK";

/// This host, with something wrong.
struct Host {
    folder: tempfile::TempDir,
    mark: String,
    /// A shell script that makes it so.
    setup: String,
    /// Namespaces of its own beside mounts, as `unshare` takes them.
    namespaces: &'static str,
    /// What starts the program.
    through: &'static str,
}

/// What the program said.
struct Told {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Host {
    fn new(setup: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        let mark = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = tempfile::tempdir().unwrap();
        let setup = setup.replace("$HERE", folder.path().to_str().unwrap());
        Self { folder, mark, setup, namespaces: "", through: "" }
    }

    fn with(mut self, namespaces: &'static str) -> Self {
        self.namespaces = namespaces;
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, args: &str) -> Command {
        // Who is not root is in a user namespace.
        let root = fs::metadata("/proc/self").unwrap().uid() == 0;
        let user = if root { "" } else { "--map-root-user" };
        let mut command = Command::new("unshare");
        command.args(["--mount"]).args(user.split_whitespace()).args(self.namespaces.split_whitespace());
        let program = env!("CARGO_BIN_EXE_udn-conformance");
        command.args(["sh", "-ec", &format!("{}\nexec {} {program} {args}", self.setup, self.through)]);
        command.current_dir(self.folder.path()).env(MARK, &self.mark).env("NO_COLOR", "1");
        command.env_remove("UDN_TARGET").env_remove("RUST_LOG").env_remove("KUBECONFIG");
        command
    }

    /// Runs the program there to its end, and sees to it that nothing of it is left.
    fn run(&self, args: &str) -> Told {
        let told = told(self.command(args).output().unwrap());
        self.nothing_is_left();
        told
    }

    /// A folder for caches there in which nothing is.
    fn with_own_cache(&self, args: &str) -> Told {
        let told = told(self.command(args).env("XDG_CACHE_HOME", self.path("cache")).output().unwrap());
        self.nothing_is_left();
        told
    }

    fn nothing_is_left(&self) {
        until("everything to be gone", || processes(&self.mark).is_empty());
    }
}

fn told(output: Output) -> Told {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Told { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

impl Told {
    /// An exit code, and a message with all of these words, told once.
    fn ends_with(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{}{}", self.out, self.err);
        // A run tells it in its report, other commands on standard error.
        let said = if self.out.is_empty() { &self.err } else { &self.out };
        let lines: Vec<&str> = said.lines().filter(|line| words.iter().all(|word| line.contains(word))).collect();
        assert!(!lines.is_empty(), "{words:?} in: {said}");
        if self.out.is_empty() {
            assert_eq!(lines.len(), 1, "told once: {said}");
            assert!(lines[0].starts_with("error: "), "{said}");
        }
        assert!(!said.contains("panicked") && !said.contains("backtrace"), "{said}");
    }
}

/// Waits until a condition holds; a paced poll, since nobody tells us.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited for {what} in vain");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Processes that have a mark in their environment.
fn processes(mark: &str) -> Vec<u32> {
    let wanted = format!("{MARK}={mark}");
    let marked = |pid: &u32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes())
    };
    let entries = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    entries.filter(marked).collect()
}

/// Everything below a folder but folders and locks.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_none_or(|extension| extension != "lock") {
            found.push(path);
        }
    }
    found
}

#[test]
fn no_tun_device() {
    let host = Host::new("mount -t tmpfs none /dev/net");
    let words = ["cannot open /dev/net/tun", "modprobe tun"];
    host.with_own_cache("lab up --name bad-tun").ends_with(5, &words);
    host.with_own_cache("run objects::in-use --out out").ends_with(5, &words);
    host.with_own_cache("bench objects").ends_with(5, &words);
    assert_eq!(files(&host.path("cache")), Vec::<PathBuf>::new(), "nothing was fetched for it");
    assert!(host.path("out/report.json").is_file(), "a run that could not begin is reported");
}

#[test]
fn no_namespaces() {
    // A limit of its own needs a user namespace of its own.
    let host = Host::new("echo 0 > /proc/sys/user/max_net_namespaces").with("--map-root-user");
    host.run("lab up --name bad-ns").ends_with(5, &["cannot make namespaces for the lab", "max_"]);
    // Without the rights of root a user namespace of the lab's own would help, were there room for one.
    let mut host = Host::new("echo 0 > /proc/sys/user/max_user_namespaces").with("--map-root-user");
    host.through = "setpriv --bounding-set=-all --inh-caps=-all";
    host.run("lab up --name bad-ns").ends_with(5, &["cannot make namespaces", "user.max_user_namespaces="]);
}

#[test]
fn a_full_disk_under_the_reports() {
    // Full while events are logged, and full when the reports are made of them.
    for (size, file) in [("4k", "events.jsonl"), ("16k", "report.json")] {
        let host = Host::new(&format!("mkdir $HERE/full\nmount -t tmpfs -o size={size} none $HERE/full"));
        let told = host.run("run objects::in-use --fresh-lab --out full/out");
        assert_eq!(told.code, Some(5), "{}{}", told.out, told.err);
        let errors: Vec<&str> = told.err.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!(errors.len(), 1, "{}", told.err);
        assert!(errors[0].contains(&format!("cannot write full/out/{file}")), "{}", told.err);
        assert!(errors[0].contains("No space left") && errors[0].contains("--out"), "{}", told.err);
        assert!(!told.err.contains("interrupted"), "nobody pressed Ctrl-C: {}", told.err);
    }
}

#[test]
fn a_full_disk_under_the_cache() {
    let host = Host::new("mkdir $HERE/cache\nmount -t tmpfs -o size=4k none $HERE/cache");
    let told = host.with_own_cache("lab up --name bad-disk");
    told.ends_with(5, &["cannot ", "No space left", "XDG_CACHE_HOME"]);
    let host = Host::new("mkdir $HERE/cache\nmount -t tmpfs -o ro none $HERE/cache");
    host.with_own_cache("lab up --name bad-disk").ends_with(5, &["cannot create", "Read-only", "XDG_CACHE_HOME"]);
}

/// Programs of Open vSwitch and OVN that say that they are old.
fn old_programs(folder: &Path) {
    fs::create_dir(folder).unwrap();
    for (programs, version) in [
        (&["ovsdb-server", "ovsdb-tool", "ovs-vswitchd", "ovs-vsctl"][..], "(Open vSwitch) 3.1.0"),
        (&["ovn-northd", "ovn-controller", "ovn-nbctl"], "23.03.1"),
    ] {
        for program in programs {
            let path = folder.join(program);
            fs::write(&path, format!("#!/bin/sh\necho '{program} {version}'\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }
}

#[test]
fn an_old_open_vswitch_and_no_network_to_fetch_a_newer_one() {
    let script = "mount --bind $HERE/old /usr/local/sbin
        for program in $HERE/old/*; do
            for folder in /usr/sbin /usr/bin /usr/lib/openvswitch-switch; do
                other=$folder/${program##*/}
                [ ! -e $other ] || mount --bind $program $other
            done
        done";
    let host = Host::new(script).with("--net");
    old_programs(&host.path("old"));
    let told = host.with_own_cache("lab up --name bad-ovs");
    told.ends_with(
        5,
        &["Open vSwitch 3.1.0 and OVN 23.03.1 are older than 3.3.0 and 24.03.0", "connect to the network"],
    );
    assert_eq!(files(&host.path("cache")), Vec::<PathBuf>::new(), "a fetch that failed leaves nothing");
}

/// The fixtures, with one file changed.
fn changed_fixtures(to: &Path, file: &str, from_text: &str, to_text: &str) {
    let original = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures");
    let areas = fs::read_dir(original).unwrap().map(|entry| entry.unwrap().path());
    for area in areas.filter(|path| path.is_dir() && !path.ends_with("src")) {
        let copy = to.join(area.file_name().unwrap());
        fs::create_dir_all(&copy).unwrap();
        for entry in fs::read_dir(area).unwrap().flatten() {
            fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
        }
    }
    let text = fs::read_to_string(to.join(file)).unwrap();
    assert!(text.contains(from_text), "{file} has {from_text}");
    fs::write(to.join(file), text.replacen(from_text, to_text, 1)).unwrap();
}

#[test]
fn a_fixture_that_is_no_yaml_is_named_with_the_line() {
    let host = Host::new("");
    changed_fixtures(&host.path("fx"), "networks/layer2.yaml", "kind: ", "kind: [");
    let told = host.run("run isolation --fixtures fx --out out");
    told.ends_with(2, &["fixture networks/layer2.yaml is not YAML: line 4 column 9"]);
    assert_eq!(told.err.lines().count(), 1, "{}", told.err);
    assert!(!host.path("out").exists(), "no run began");
}

#[test]
fn a_field_that_the_cluster_does_not_know_is_named() {
    let host = Host::new("");
    changed_fixtures(&host.path("fx"), "objects/in-use.yaml", "topology: ", "tpology: x\n  topology: ");
    let told = host.run("run objects::in-use --fresh-lab --fixtures fx --out out");
    told.ends_with(5, &["cannot apply UserDefinedNetwork", ".spec.tpology: field not declared"]);
}

#[test]
fn a_pod_that_never_gets_ready_is_named_with_the_reason() {
    let host = Host::new("");
    let told = host.run("run objects::in-use --fresh-lab --image nowhere.example/none:1 --ready-deadline 2s --out out");
    told.ends_with(5, &["-used/user", "to be Ready", "--ready-deadline", "nowhere.example/none:1"]);
}

/// A run that does not outlive its test.
struct Guarded(Child);

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn control_streams_that_are_cut_lose_no_result() {
    let host = Host::new("");
    let args = "run workshop::pods::2-connectivity-and-isolation --fresh-lab --hold 4s --out out";
    let run = host.command(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut run = Guarded(run);
    let log = host.path("out/events.jsonl");
    let rounds = || fs::read_to_string(&log).unwrap_or_default().matches("\"round-finished\"").count();
    until("the first round", || rounds() > 0);
    let attached: Vec<u32> = agents(run.0.id());
    assert!(attached.len() >= 10, "agents and what attaches to them: {attached:?}");
    let killed = Command::new("kill").arg("-9").args(attached.iter().map(u32::to_string)).status().unwrap();
    assert!(killed.success());
    let ended = run.0.wait().unwrap();
    assert_eq!(ended.code(), Some(0), "{}", fs::read_to_string(host.path("out/report.json")).unwrap());
    host.nothing_is_left();
}

/// The processes of agents among all that descend from one process.
fn agents(root: u32) -> Vec<u32> {
    let parent = |pid: u32| -> Option<u32> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
    };
    let descends = |mut pid: u32| {
        while pid > 1 && pid != root {
            pid = parent(pid).unwrap_or_default();
        }
        pid == root
    };
    let is_agent = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "agent");
    let all = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    all.filter(is_agent).filter(|pid| descends(*pid)).collect()
}
