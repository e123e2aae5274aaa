//! Whole labs: two at once, in the background, killed at any moment, behind an API server that was there before.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)] // tests, though not of the usual harness

#[path = "lifecycle/joins.rs"]
mod joins;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use kube::api::{AttachParams, ListParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use libtest_mimic::{Arguments, Failed, Trial};
use tokio::io::AsyncReadExt;
use udn_lab::{Error, Lab, Options, default_folder};

/// Inherited by everything that a lab starts on the host's side of its containers.
const MARK: &str = "UDN_LAB_TEST_MARK";

fn main() -> ExitCode {
    if let Some(code) = udn_lab::internal(std::env::args_os(), || ()) {
        return code;
    }
    let args: Vec<String> = std::env::args().collect();
    match args.get(1).map(String::as_str) {
        Some("__start") => role(&Options { name: args.get(2).cloned(), ..Options::default() }),
        Some("__up") => role(&Options { name: args.get(2).cloned(), background: true, ..Options::default() }),
        _ => {
            let trials = vec![
                Trial::test("kubectl_and_exec_work_on_two_labs_at_once", two),
                Trial::test("a_background_lab_lives_until_it_is_told_to_end", background),
                Trial::test("an_api_server_that_was_there_is_joined_and_left", joins::joins),
                Trial::test("killed_at_any_moment_nothing_is_left", killed),
            ];
            libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
        }
    }
}

/// A program that starts a lab; in the foreground it waits to be killed.
fn role(options: &Options) -> ExitCode {
    match Lab::start(options, &|_| {}) {
        Ok(_lab) if !options.background => loop {
            std::thread::park();
        },
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn start() -> Lab {
    Lab::start(&Options::default(), &|_| {}).unwrap()
}

async fn client(kubeconfig: &Path) -> Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    config.proxy_url = None;
    Client::try_from(config).unwrap()
}

fn two() -> Result<(), Failed> {
    let labs = [start(), start()];
    let runtime = tokio::runtime::Runtime::new()?;
    for lab in &labs {
        assert_eq!(fs::metadata(lab.kubeconfig())?.permissions().mode() & 0o777, 0o600);
        runtime.block_on(look(&lab.kubeconfig()));
        let status = lab.status()?;
        assert_eq!(status.problems, Vec::<String>::new());
        assert_eq!((status.nodes.len(), status.daemons.len()), (3, 12));
        assert_eq!(&status.versions, lab.versions());
    }
    let [first, second] = labs;
    let folder = first.kubeconfig();
    first.stop()?;
    assert!(!folder.exists());
    runtime.block_on(look(&second.kubeconfig()));
    let folder = second.kubeconfig();
    drop(second);
    assert!(!folder.exists());
    Ok(())
}

/// What a cluster must have, and that a command gets through to a pod.
async fn look(kubeconfig: &Path) {
    let client = client(kubeconfig).await;
    let nodes = Api::<Node>::all(client.clone()).list(&ListParams::default()).await.unwrap();
    let names: Vec<_> = nodes.iter().filter_map(|node| node.metadata.name.as_deref()).collect();
    assert_eq!(names, ["ovn-control-plane", "ovn-worker", "ovn-worker2"]);
    let service = Api::<Service>::namespaced(client.clone(), "default").get("kubernetes").await.unwrap();
    assert_eq!(service.spec.unwrap().cluster_ips.unwrap(), ["10.96.0.1", "fd00:10:96::1"]);
    let external = Api::<Pod>::namespaced(client.clone(), "udn-external").get("external").await.unwrap();
    assert_eq!(external.metadata.labels.unwrap()["udn-conformance.io/vantage-point"], "external");
    let pods = Api::<Pod>::namespaced(client, "ovn-kubernetes");
    let command = ["ovs-vsctl", "get", "open", ".", "external_ids:system-id"];
    let component = ListParams::default().labels("app=ovnkube-node").fields("spec.nodeName=ovn-worker2");
    let component = pods.list(&component).await.unwrap().items.remove(0).metadata.name.unwrap();
    let mut process = pods.exec(&component, command, &AttachParams::default()).await.unwrap();
    let mut text = String::new();
    process.stdout().unwrap().read_to_string(&mut text).await.unwrap();
    assert_eq!(text.trim(), "ovn-worker2");
}

fn background() -> Result<(), Failed> {
    let (cache, name) = (default_folder(), format!("test-{}", std::process::id()));
    assert!(Command::new("/proc/self/exe").args(["__up", &name]).status()?.success());
    let running = udn_lab::find(&cache, &name)?;
    assert!(udn_lab::list(&cache).iter().any(|lab| lab.name() == name));
    tokio::runtime::Runtime::new()?.block_on(look(&running.kubeconfig()));
    assert_eq!(running.status()?.problems, Vec::<String>::new());
    let again = Lab::start(&Options { name: Some(name.clone()), ..Options::default() }, &|_| {}).unwrap_err();
    assert!(matches!(&again, Error::AlreadyUp { .. }), "{again}");
    assert!(again.to_string().contains("lab down"), "{again}");

    let run = |place: &str, words: &[&str]| {
        let words: Vec<OsString> = words.iter().map(Into::into).collect();
        let output = udn_lab::command(&cache, &name, place, &words).unwrap().output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(run("ovn-worker", &["ovs-ofctl", "dump-flows", "br-int"]).contains("table=0"));
    assert!(run("ovn-control-plane", &["ovn-nbctl", "show"]).contains("router"));
    let missing = udn_lab::command(&cache, &name, "mars", &[]).unwrap_err().to_string();
    assert!(missing.contains("ovn-worker2, external"), "{missing}");

    // A daemon that dies is a problem of the lab from then on.
    let pid = run("ovn-worker", &["cat", "/run/openvswitch/ovs-vswitchd.pid"]);
    run("ovn-worker", &["kill", "-9", pid.trim()]);
    let problem = poll(|| running.status().ok()?.problems.into_iter().next());
    assert!(problem.contains("ovs-vswitchd of ovn-worker ended"), "{problem}");

    udn_lab::down(&cache, &name)?;
    assert!(!cache.join("labs").join(&name).exists());
    assert!(matches!(udn_lab::down(&cache, &name), Err(Error::NotUp { .. })));
    assert!(matches!(udn_lab::find(&cache, &name), Err(Error::NotUp { .. })));
    forget(&name);
    Ok(())
}

fn killed() -> Result<(), Failed> {
    let (interfaces, mounts, files) = traces();
    for (round, delay) in [0, 10, 60, 150, 300, 500, 800, 1200, 3000].into_iter().enumerate() {
        let mark = format!("lab-{}-{round}", std::process::id());
        let mut program = marked(&mark, "__start");
        std::thread::sleep(Duration::from_millis(delay));
        program.kill().unwrap();
        assert_eq!(program.wait().unwrap().signal(), Some(9), "it ended before it was killed");
        gone(&mark);
    }
    // `up` in the background is killable until it has said that the lab is up.
    let mark = format!("lab-{}-up", std::process::id());
    let mut program = marked(&mark, "__up");
    std::thread::sleep(Duration::from_millis(400));
    program.kill().unwrap();
    program.wait().unwrap();
    gone(&mark);
    assert_eq!((interfaces, mounts, files), traces());
    Ok(())
}

fn marked(mark: &str, role: &str) -> Child {
    Command::new("/proc/self/exe")
        .args([role, mark])
        .env(MARK, mark)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Until no process has the mark in its environment, and none is in a pid namespace of one that had.
fn gone(mark: &str) {
    let wanted = format!("{MARK}={mark}");
    let is_left = |pid: &Path| {
        let environment = fs::read(pid.join("environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes())
    };
    poll(|| (!fs::read_dir("/proc").unwrap().filter_map(Result::ok).any(|entry| is_left(&entry.path()))).then_some(()));
    forget(mark);
}

/// Removes what a killed program left in the cache folder under a name of ours.
fn forget(name: &str) {
    let _ = udn_lab::down(&default_folder(), name);
    assert!(!default_folder().join("labs").join(name).with_extension("lock").exists(), "the lock of {name} stays");
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

fn traces() -> (BTreeSet<OsString>, Vec<String>, BTreeSet<OsString>) {
    let names = |folder: &Path| -> Vec<OsString> {
        fs::read_dir(folder).unwrap().filter_map(|entry| Some(entry.ok()?.file_name())).collect()
    };
    let ours = |name: &OsString| ["udn", "ovs", "ovn"].iter().any(|word| name.to_string_lossy().contains(word));
    let files = [std::env::temp_dir(), "/run".into()].iter().flat_map(|folder| names(folder)).filter(ours).collect();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap().lines().map(str::to_owned).collect();
    (names(Path::new("/sys/class/net")).into_iter().collect(), mounts, files)
}
