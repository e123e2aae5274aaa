//! Pods on a node agent, by way of a real API server: in namespaces of their own, as root.
// Without the usual test harness clippy does not see that this is a test.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod support;

use std::process::{Command, ExitCode};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use kube::api::{AttachParams, LogParams, Patch, PatchParams};
use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::json;
use support::spdy::{self, Spdy};
use support::{World, condition, container, is_ready};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const INSIDE: &str = "UDN_NODE_TEST_INSIDE";
const AGNHOST: &str = "registry.k8s.io/e2e-test-images/agnhost:2.45";
const SLEEP: &str = "trap 'exit 0' TERM; while true; do sleep 0.1; done";

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().collect();
    if args.get(1).is_some_and(|argument| argument == udn_lab_node::CONTAINER_COMMAND) {
        return udn_lab_node::container_main(args.into_iter().skip(2));
    }
    if std::env::var_os(INSIDE).is_none() {
        // Nothing of this touches the host: other network, mount and pid namespaces, which end with this program.
        let status = Command::new("unshare")
            .args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
            .arg("--")
            .arg(std::env::current_exe().expect("this program has a path"))
            .args(&args[1..])
            .env(INSIDE, "1")
            .status()
            .expect("unshare (util-linux) starts");
        return if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let world = Arc::new(runtime.block_on(World::start(scratch.path())));
    world.network.watch_labels(world.pods());
    let handle = runtime.handle().clone();
    let mut trials = Vec::new();
    macro_rules! trials {
        ($($name:ident),* $(,)?) => {$({
            let (world, handle) = (Arc::clone(&world), handle.clone());
            trials.push(Trial::test(stringify!($name), move || {
                handle.block_on($name(&world));
                Ok::<(), Failed>(())
            }));
        })*};
    }
    trials!(
        a_pod_gets_ready_serves_and_goes,
        a_container_has_its_own_file_system,
        exec_loses_nothing_and_knows_the_exit_code,
        exec_with_a_terminal,
        exec_over_spdy,
        exec_with_a_terminal_over_spdy,
        attach_over_spdy,
        spdy_without_a_known_protocol_is_forbidden,
        many_execs_at_once,
        a_failed_exec_does_not_keep_the_pod_from_ending,
        init_containers_come_first_and_share_volumes,
        a_crashing_container_is_restarted_later_and_later,
        an_unknown_image_waits_until_the_pod_names_another,
        a_dead_container_is_restarted,
        a_pod_without_network_waits_and_says_so_once,
        the_end_is_graceful,
        a_deaf_process_is_killed_when_the_grace_period_is_over,
        a_container_takes_its_children_along,
        a_missing_config_map_is_waited_for,
        logs_follow_a_container,
    );
    let conclusion = libtest_mimic::run(&Arguments::from_args(), trials);
    runtime.shutdown_background();
    conclusion.exit_code()
}

fn shell(script: &str) -> serde_json::Value {
    json!({ "name": "c", "image": "busybox", "command": ["sh", "-c", script] })
}

async fn a_pod_gets_ready_serves_and_goes(world: &World) {
    let begun = Instant::now();
    world
        .create(
            "web",
            json!({
                "terminationGracePeriodSeconds": 10,
                "containers": [{
                    "name": "c", "image": AGNHOST, "args": ["netexec", "--http-port=8080"],
                    "readinessProbe": { "httpGet": { "path": "/healthz", "port": "web" } },
                    "livenessProbe": { "tcpSocket": { "port": 8080 } },
                    "ports": [{ "name": "web", "containerPort": 8080 }],
                }],
            }),
        )
        .await;
    let pod = world.ready("web").await;
    let took = begun.elapsed();
    let status = pod.status.as_ref().unwrap();
    let ip = status.pod_ip.clone().unwrap();
    assert!(ip.starts_with("10.244.2."), "{ip}");
    assert_eq!(status.host_ip.as_deref(), Some("127.0.0.1"));
    assert!(
        ["Initialized", "ContainersReady", "PodReadyToStartContainers"].into_iter().all(|kind| condition(&pod, kind))
    );
    let networks = &pod.metadata.annotations.as_ref().unwrap()["k8s.v1.cni.cncf.io/network-status"];
    assert!(networks.contains(&ip), "{networks}");
    assert_eq!(container(&pod)["image"], AGNHOST);
    assert!(took < Duration::from_secs(5), "a pod takes {took:?} to get ready");

    world.delete("web", None).await;
    assert!(world.network.detached.lock().unwrap().contains(&"web".to_owned()));
    let uid = pod.metadata.uid.unwrap();
    assert!(!world.scratch.join("ovn-worker/pods").join(uid).exists(), "the pod's directory stays");
}

async fn a_container_has_its_own_file_system(world: &World) {
    let mut spec = json!({
        "hostname": "own-name",
        "containers": [shell(SLEEP)],
        "volumes": [{ "name": "fields", "downwardAPI": { "items": [
            { "path": "labels/name", "fieldRef": { "fieldPath": "metadata.name" } },
        ] } }],
    });
    spec["containers"][0]["volumeMounts"] = json!([{ "name": "fields", "mountPath": "/var/run/fields" }]);
    spec["containers"][0]["env"] = json!([
        { "name": "IP", "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } },
        { "name": "BOTH", "value": "$(IP)/$(NODE)" },
    ]);
    world.create("files", spec).await;
    let ip = world.ready("files").await.status.unwrap().pod_ip.unwrap();
    for (command, expected) in [
        ("hostname", "own-name\n"),
        ("cat /var/run/fields/labels/name", "files"),
        ("touch /opt/x 2>&1 | grep -c 'Read-only'", "1\n"),
        ("echo 1 2>/dev/null > /proc/sys/kernel/sysrq; echo $?", "2\n"),
        ("echo x > /tmp/x && cat /tmp/x", "x\n"),
        ("head -1 /etc/resolv.conf", "search default.svc.cluster.local svc.cluster.local cluster.local\n"),
        ("grep -c own-name /etc/hosts", "1\n"),
        ("test -w /dev/null && test -d /dev/pts && echo yes", "yes\n"),
        ("echo \"$BOTH\"", &format!("{ip}/$(NODE)\n")),
        // The first process of the container is process 1, and the lab's are out of sight.
        ("cat /proc/1/comm", "sh\n"),
        ("ls / | tr '\\n' ' '", "bin dev etc home lib lib64 mnt opt proc root run sbin srv sys tmp usr var "),
        ("grep CapEff /proc/self/status", "CapEff:\t00000000a80425fb\n"),
    ] {
        let (text, _) = world.sh("files", command).await;
        let text = text.replace("lib32 ", "").replace("libx32 ", "");
        assert_eq!(text, expected, "{command}");
    }
    world.delete("files", Some(0)).await;
}

async fn exec_loses_nothing_and_knows_the_exit_code(world: &World) {
    static MEGABYTES: LazyLock<Vec<u8>> =
        LazyLock::new(|| (0..20_000_000_u32).map(|number| (number % 251) as u8).collect());
    world.create("exec", json!({ "containers": [shell(SLEEP)] })).await;
    world.ready("exec").await;
    let (text, code) = world.exec("exec", &["sh", "-c", "cat > /tmp/big; wc -c < /tmp/big; exit 3"], &MEGABYTES).await;
    assert_eq!((text.trim(), code), ("20000000", 3));
    let parameters = AttachParams::default().stderr(false);
    let mut process = world.pods().exec("exec", ["cat", "/tmp/big"], &parameters).await.unwrap();
    let mut back = Vec::new();
    process.stdout().unwrap().read_to_end(&mut back).await.unwrap();
    assert!(back == *MEGABYTES, "{} bytes came back", back.len());
    assert_eq!(world.sh("exec", "kill -9 $$").await.1, 137);
    world.delete("exec", Some(0)).await;
}

async fn exec_with_a_terminal(world: &World) {
    world.create("tty", json!({ "containers": [shell(SLEEP)] })).await;
    world.ready("tty").await;
    let parameters = AttachParams::interactive_tty();
    let mut process = world.pods().exec("tty", ["sh"], &parameters).await.unwrap();
    process.terminal_size().unwrap().try_send(kube::api::TerminalSize { width: 77, height: 33 }).unwrap();
    let mut stdin = process.stdin().unwrap();
    stdin.write_all(b"sleep 0.3; stty size; tty; exit 4\n").await.unwrap();
    let mut text = String::new();
    process.stdout().unwrap().read_to_string(&mut text).await.unwrap();
    assert!(text.contains("33 77") && text.contains("/dev/pts/0"), "{text}");
    let status = process.take_status().unwrap().await.unwrap();
    assert_eq!(status.reason.as_deref(), Some("NonZeroExitCode"), "{status:?}");
    world.delete("tty", Some(0)).await;
}

async fn exec_over_spdy(world: &World) {
    world.create("spdy", json!({ "containers": [shell(SLEEP)] })).await;
    world.ready("spdy").await;
    let path = "spdy/exec?stdin=1&stdout=1&stderr=1&command=sh&command=-c&command=cat;echo%20err%3E%262;exit%207";
    let mut spdy = Spdy::open(world, path, &["error", "stdin", "stdout", "stderr"]).await;
    spdy.writer.ping(5).await;
    let input: Vec<u8> = (0..300_000_u32).map(|number| (number % 251) as u8).collect();
    for piece in input.chunks(70_000) {
        spdy.writer.send("stdin", piece, false).await;
    }
    spdy.writer.send("stdin", b"", true).await;
    let answers = spdy.answers().await;
    assert!(answers.streams["stdout"].0 == input, "{} bytes came back", answers.streams["stdout"].0.len());
    assert_eq!(String::from_utf8_lossy(&answers.streams["stderr"].0), "err\n");
    let status: serde_json::Value = serde_json::from_slice(&answers.streams["error"].0).unwrap();
    assert_eq!(status["details"]["causes"][0], json!({ "reason": "ExitCode", "message": "7" }));
    assert!(answers.streams.values().all(|(_, ended)| *ended), "{answers:?}");
    assert_eq!((answers.pings, answers.gone_away), (vec![vec![0, 0, 0, 5]], true));
    world.delete("spdy", Some(0)).await;
}

async fn exec_with_a_terminal_over_spdy(world: &World) {
    world.create("spdytty", json!({ "containers": [shell(SLEEP)] })).await;
    world.ready("spdytty").await;
    // Clients ask for standard error although a terminal has none.
    let path = "spdytty/exec?stdin=1&stdout=1&stderr=1&tty=1&command=sh";
    let mut spdy = Spdy::open(world, path, &["error", "stdin", "stdout", "resize"]).await;
    spdy.writer.send("resize", b"{\"Width\":77,\"Height\":33}\n", false).await;
    spdy.writer.send("stdin", b"sleep 0.3; stty size; tty; exit\n", false).await;
    let answers = spdy.answers().await;
    let text = String::from_utf8_lossy(&answers.streams["stdout"].0);
    assert!(text.contains("33 77") && text.contains("/dev/pts/0"), "{text}");
    let status: serde_json::Value = serde_json::from_slice(&answers.streams["error"].0).unwrap();
    assert_eq!(status["status"], "Success");
    world.delete("spdytty", Some(0)).await;
}

async fn attach_over_spdy(world: &World) {
    let mut spec = json!({ "restartPolicy": "Never", "containers": [shell("read x; echo got $x; echo err >&2")] });
    spec["containers"][0]["stdin"] = true.into();
    world.create("spdyattach", spec).await;
    world.ready("spdyattach").await;
    let path = "spdyattach/attach?stdin=1&stdout=1&stderr=1";
    let mut spdy = Spdy::open(world, path, &["error", "stdin", "stdout", "stderr"]).await;
    spdy.writer.send("stdin", b"word\n", false).await;
    let answers = spdy.answers().await;
    assert_eq!(String::from_utf8_lossy(&answers.streams["stdout"].0), "got word\n");
    assert_eq!(String::from_utf8_lossy(&answers.streams["stderr"].0), "err\n");
    world.delete("spdyattach", Some(0)).await;
}

async fn spdy_without_a_known_protocol_is_forbidden(world: &World) {
    world.create("spdyold", json!({ "containers": [shell(SLEEP)] })).await;
    world.ready("spdyold").await;
    let answer = spdy::ask(world, "spdyold/exec?stdout=1&command=true", "v2.channel.k8s.io,channel.k8s.io").await;
    assert_eq!(answer.status(), http::StatusCode::FORBIDDEN);
    assert_eq!(answer.headers()["x-accepted-stream-protocol-versions"], "v4.channel.k8s.io");
    world.delete("spdyold", Some(0)).await;
}

async fn many_execs_at_once(world: &World) {
    world.create("many", json!({ "containers": [shell(SLEEP)] })).await;
    world.ready("many").await;
    let commands: Vec<String> = (0..40).map(|number| format!("echo {number}; exit {number}")).collect();
    let results = futures::future::join_all(commands.iter().map(|command| world.sh("many", command))).await;
    for (number, result) in results.into_iter().enumerate() {
        assert_eq!(result, (format!("{number}\n"), i32::try_from(number).unwrap()));
    }
    world.delete("many", Some(0)).await;
}

async fn a_failed_exec_does_not_keep_the_pod_from_ending(world: &World) {
    world.create("noexec", json!({ "containers": [shell(SLEEP)] })).await;
    world.ready("noexec").await;
    assert_eq!(world.exec("noexec", &["/no/such/program"], &[]).await.1, -1);
    // A zombie of that in the container's pid namespace would keep its first process from ending, for ever.
    world.delete("noexec", Some(5)).await;
}

async fn init_containers_come_first_and_share_volumes(world: &World) {
    let mounted = |name: &str, script: &str| {
        json!({
            "name": name, "image": "busybox", "command": ["sh", "-c", script],
            "volumeMounts": [{ "name": "shared", "mountPath": "/data" }],
        })
    };
    world
        .create(
            "init",
            json!({
                "restartPolicy": "Never",
                "initContainers": [mounted("one", "echo one > /data/x"), mounted("two", "echo two >> /data/x")],
                "containers": [mounted("c", "cat /data/x; echo last words > /dev/termination-log")],
                "volumes": [{ "name": "shared", "emptyDir": {} }],
            }),
        )
        .await;
    let phase = |pod: &k8s_openapi::api::core::v1::Pod| pod.status.as_ref().and_then(|status| status.phase.clone());
    let pod = world.wait("init", "succeeded", |pod| phase(pod).as_deref() == Some("Succeeded")).await;
    assert_eq!(
        world.pods().logs("init", &LogParams { container: Some("c".into()), ..LogParams::default() }).await.unwrap(),
        "one\ntwo\n"
    );
    let state = container(&pod)["state"]["terminated"].clone();
    assert_eq!((&state["exitCode"], &state["message"]), (&json!(0), &json!("last words\n")));
    assert!(
        world.network.detached.lock().unwrap().contains(&"init".to_owned()),
        "a pod that has ended keeps its network"
    );
    world.delete("init", None).await;
}

async fn a_crashing_container_is_restarted_later_and_later(world: &World) {
    world.create("crash", json!({ "containers": [shell("echo run; exit 3")] })).await;
    let pod = world
        .wait("crash", "backing off", |pod| {
            let status = container(pod);
            status["restartCount"].as_i64() >= Some(2) && status["state"]["waiting"]["reason"] == "CrashLoopBackOff"
        })
        .await;
    assert_eq!(container(&pod)["lastState"]["terminated"]["exitCode"], 3);
    assert_eq!(pod.status.as_ref().unwrap().phase.as_deref(), Some("Running"));
    let previous = LogParams { previous: true, ..LogParams::default() };
    assert_eq!(world.pods().logs("crash", &previous).await.unwrap(), "run\n");
    world.delete("crash", None).await;
}

async fn an_unknown_image_waits_until_the_pod_names_another(world: &World) {
    let mut spec = json!({ "containers": [shell(SLEEP)] });
    spec["containers"][0]["image"] = "quay.io/no/such:1".into();
    world.create("image", spec).await;
    for reason in ["ErrImagePull", "ImagePullBackOff"] {
        let pod = world.wait("image", reason, |pod| container(pod)["state"]["waiting"]["reason"] == reason).await;
        let message = container(&pod)["state"]["waiting"]["message"].to_string();
        assert!(message.contains("quay.io/no/such:1: not found"), "{message}");
    }
    let patch = json!({ "spec": { "containers": [{ "name": "c", "image": "busybox" }] } });
    world.pods().patch("image", &PatchParams::default(), &Patch::Strategic(patch)).await.unwrap();
    world.ready("image").await;
    world.delete("image", Some(0)).await;
}

async fn a_dead_container_is_restarted(world: &World) {
    let mut spec = json!({ "containers": [shell(SLEEP)], "terminationGracePeriodSeconds": 1 });
    spec["containers"][0]["livenessProbe"] = json!({ "exec": { "command": ["sh", "-c", "echo broken; exit 1"] }, "periodSeconds": 1, "failureThreshold": 1 });
    world.create("dead", spec).await;
    world.wait("dead", "restarted", |pod| container(pod)["restartCount"].as_i64() >= Some(1)).await;
    let events = world.events("dead", "Unhealthy").await;
    assert_eq!(events[0].message.as_deref(), Some("Liveness probe failed: broken\n"));
    world.delete("dead", Some(0)).await;
}

async fn a_pod_without_network_waits_and_says_so_once(world: &World) {
    world.create("waits", json!({ "containers": [shell(SLEEP)] })).await;
    let begun = Instant::now();
    let events = loop {
        let events = world.events("waits", "FailedCreatePodSandBox").await;
        if !events.is_empty() || begun.elapsed() > support::DEADLINE {
            break events;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(events[0].message.as_ref().unwrap().ends_with("no label yet"));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let events = world.events("waits", "FailedCreatePodSandBox").await;
    assert_eq!((events.len(), events[0].count), (1, Some(1)));
    assert!(!is_ready(&world.pods().get("waits").await.unwrap()));
    let patch = json!({ "metadata": { "labels": { "go": "" } } });
    world.pods().patch("waits", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    world.ready("waits").await;
    world.delete("waits", Some(0)).await;
}

async fn the_end_is_graceful(world: &World) {
    let mut spec = json!({
        "containers": [shell("trap 'echo end >> /data/order; exit 0' TERM; while true; do sleep 0.1; done")],
        "volumes": [{ "name": "out", "hostPath": { "path": world.scratch.join("graceful"), "type": "DirectoryOrCreate" } }],
    });
    spec["containers"][0]["volumeMounts"] = json!([{ "name": "out", "mountPath": "/data" }]);
    spec["containers"][0]["lifecycle"] = json!({
        "postStart": { "exec": { "command": ["sh", "-c", "echo begin >> /data/order"] } },
        "preStop": { "exec": { "command": ["sh", "-c", "echo stop >> /data/order"] } },
    });
    world.create("graceful", spec).await;
    world.ready("graceful").await;
    let order = world.scratch.join("graceful/order");
    let begun = Instant::now();
    while !order.exists() && begun.elapsed() < support::DEADLINE {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    world.delete("graceful", None).await;
    assert_eq!(std::fs::read_to_string(order).unwrap(), "begin\nstop\nend\n");
}

async fn a_deaf_process_is_killed_when_the_grace_period_is_over(world: &World) {
    world.create("deaf", json!({ "containers": [shell("trap '' TERM; while true; do sleep 0.1; done")] })).await;
    world.ready("deaf").await;
    let begun = Instant::now();
    world.delete("deaf", Some(2)).await;
    let took = begun.elapsed();
    assert!(took >= Duration::from_secs(2) && took < Duration::from_secs(5), "{took:?}");
}

async fn a_container_takes_its_children_along(world: &World) {
    let script = "for number in 1 2 3; do sleep 98765 & done; setsid sleep 98765 & trap 'exit 0' TERM; wait";
    world.create("children", json!({ "containers": [shell(script)] })).await;
    world.ready("children").await;
    let sleeping = || {
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let lines = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
        lines.filter(|line| line == b"sleep\x0098765\0").count()
    };
    let begun = Instant::now();
    while sleeping() < 4 && begun.elapsed() < support::DEADLINE {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(sleeping(), 4);
    world.delete("children", None).await;
    assert_eq!(sleeping(), 0);
}

async fn a_missing_config_map_is_waited_for(world: &World) {
    let mut spec = json!({ "containers": [shell(SLEEP)] });
    spec["containers"][0]["envFrom"] = json!([{ "configMapRef": { "name": "later" } }]);
    world.create("config", spec).await;
    let reason = "CreateContainerConfigError";
    let pod = world.wait("config", reason, |pod| container(pod)["state"]["waiting"]["reason"] == reason).await;
    assert_eq!(container(&pod)["state"]["waiting"]["message"], "configmap \"later\" not found");
    let maps: kube::Api<k8s_openapi::api::core::v1::ConfigMap> = kube::Api::default_namespaced(world.client.clone());
    let map = serde_json::from_value(json!({ "metadata": { "name": "later" }, "data": { "COLOUR": "blue" } })).unwrap();
    maps.create(&kube::api::PostParams::default(), &map).await.unwrap();
    world.ready("config").await;
    assert_eq!(world.sh("config", "echo $COLOUR").await.0, "blue\n");
    world.delete("config", Some(0)).await;
}

async fn logs_follow_a_container(world: &World) {
    use futures::{AsyncBufReadExt, TryStreamExt};
    let script = "trap 'echo three; exit 0' TERM; echo one; sleep 0.5; echo two; while true; do sleep 0.1; done";
    world.create("logs", json!({ "containers": [shell(script)] })).await;
    world.ready("logs").await;
    let following = LogParams { follow: true, ..LogParams::default() };
    let mut lines = world.pods().log_stream("logs", &following).await.unwrap().lines();
    for expected in ["one", "two"] {
        assert_eq!(lines.try_next().await.unwrap().as_deref(), Some(expected));
    }
    tokio::join!(world.delete("logs", None), async {
        assert_eq!(lines.try_next().await.unwrap().as_deref(), Some("three"));
        assert_eq!(lines.try_next().await.unwrap(), None, "the stream ends with the container");
    });
}
