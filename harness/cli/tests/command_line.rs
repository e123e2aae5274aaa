//! The program as a user meets it: exit codes, messages, shapes. Nothing here needs a cluster or namespaces.

#![allow(clippy::unwrap_used)] // the helpers are part of the tests

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn run_in(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_udn-conformance"));
    command.args(args).current_dir(folder);
    for variable in ["KUBECONFIG", "UDN_TARGET", "RUST_LOG", "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"] {
        command.env_remove(variable);
    }
    command.env("HOME", folder).env("XDG_CACHE_HOME", folder.join("cache")).env("NO_COLOR", "1");
    command.output().unwrap()
}

/// Exit code, standard output, standard error.
fn run(args: &[&str]) -> (i32, String, String) {
    let folder = tempfile::tempdir().unwrap();
    told(run_in(folder.path(), args))
}

fn told(output: Output) -> (i32, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// A usage error: exit code 2, one message, nothing on standard output.
fn refused(args: &[&str], message: &str) {
    let (code, out, err) = run(args);
    assert_eq!(code, 2, "{args:?}: {err}");
    assert_eq!(out, "", "{args:?}");
    assert!(err.contains(message), "{args:?}: {err}");
    assert!(!err.contains("backtrace") && !err.contains("Error {"), "{args:?}: {err}");
}

fn cells(args: &[&str]) -> Vec<Value> {
    let (code, out, err) = run(args);
    assert_eq!(code, 0, "{err}");
    serde_json::from_str::<Vec<Value>>(&out).unwrap()
}

#[test]
fn help_tells_the_exit_codes() {
    for args in [&["--help"][..], &["run", "--help"]] {
        let (code, out, _) = run(args);
        assert_eq!(code, 0);
        for line in ["0  every judged cell holds", "4  nothing was selected", "130  interrupted"] {
            assert!(out.contains(line), "{args:?}: {line}");
        }
    }
}

/// Commands that `--help` lists, `help` excepted.
fn commands() -> Vec<String> {
    let (_, help, _) = run(&["--help"]);
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names = listed.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help").map(str::to_owned).collect()
}

#[test]
fn shells_complete_every_command() {
    let commands = commands();
    assert!(["run", "completions", "man"].iter().all(|name| commands.iter().any(|it| it == name)), "{commands:?}");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (code, out, err) = run(&["completions", shell]);
        assert_eq!((code, err.as_str()), (0, ""), "{shell}");
        for name in commands.iter().map(String::as_str).chain(["kubeconfig", "settle-rounds"]) {
            assert!(out.contains(name), "{shell}: {name}");
        }
    }
    refused(&["completions", "tcsh"], "possible values: bash");
}

#[test]
fn the_manual_page_has_every_command_with_its_options() {
    let (code, out, err) = run(&["man"]);
    assert_eq!((code, err.as_str()), (0, ""));
    let heading = out.lines().find(|line| line.starts_with(".TH "));
    assert!(heading.is_some_and(|line| line.contains("udn-conformance 1")), "{heading:?}");
    for name in commands().iter().map(String::as_str).chain(["lab up", "lab exec"]) {
        let section = format!(".SH \"UDN-CONFORMANCE {}\"", name.to_uppercase());
        assert!(out.lines().any(|line| line == section), "{section}");
    }
    for text in ["settle\\-rounds", "nothing was selected", "cells of these rules"] {
        assert!(out.contains(text), "{text}");
    }
    assert!(!out.contains("(1)"), "it refers to pages that there are not");
}

#[test]
fn list_gives_every_cell_to_machines() {
    let all = cells(&["list", "--format", "json"]);
    assert!(all.len() > 1_000);
    let keys = ["id", "suite", "scenario", "phase", "rule", "expectation", "topology", "transport", "family"];
    for cell in &all {
        let found: BTreeSet<&str> = cell.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(found, keys.into_iter().collect(), "{cell}");
    }
    let ids: BTreeSet<&str> = all.iter().map(|cell| cell["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), all.len(), "ids are unique");
}

#[test]
fn plan_adds_why_a_cell_would_be_skipped() {
    for cell in cells(&["plan", "objects", "--format", "json"]) {
        assert_eq!(cell["suite"], "objects");
        assert_eq!(cell.get("skip"), Some(&Value::Null), "the lab has everything: {cell}");
    }
}

#[test]
fn filters_select() {
    let overlap = cells(&["list", "rule:isolation/overlap-coexists", "--format", "json"]);
    assert!(overlap.iter().any(|cell| cell["rule"] == "isolation/overlap-coexists"));
    let without = cells(&["list", "isolation", "not:icmp", "--format", "json"]);
    let is_plain_icmp = |cell: &Value| cell["transport"] == "icmp" && cell["expectation"] == "closed";
    assert!(!without.iter().any(is_plain_icmp));
}

#[test]
fn list_is_readable() {
    let (code, out, _) = run(&["list", "objects"]);
    assert_eq!(code, 0);
    assert!(out.starts_with("objects: "), "{out}");
    assert!(!out.contains("isolation:"), "{out}");
    assert!(out.lines().last().unwrap().contains(" cells in "), "{out}");
}

#[test]
fn an_unknown_filter_is_refused_with_a_suggestion() {
    refused(&["list", "isolaton"], "did you mean `isolation`");
    refused(&["run", "isolaton"], "filter `isolaton` matches no cell");
    refused(&["plan", "rule:isolation/no-windw"], "`rule:isolation/no-window`");
    refused(&["list", "not:"], "empty behind the colon");
    refused(&["list", "[z-a"], "is not a glob");
    refused(&["bench", "isolaton"], "did you mean `isolation`");
}

#[test]
fn nothing_selected_is_4() {
    let (code, out, err) = run(&["run", "objects", "not:objects"]);
    assert_eq!((code, out.as_str()), (4, ""));
    assert!(err.contains("nothing is selected"), "{err}");
}

#[test]
fn a_wrong_command_line_is_2() {
    refused(&["frobnicate"], "unrecognized subcommand");
    refused(&["run", "--deadline", "soon"], "write a whole number and a unit");
    refused(&["run", "--deny-timeout", "1s"], "at least 2s");
    refused(&["run", "--settle-rounds", "0"], "not in 1..=100");
    refused(&["bench", "--repeat", "0"], "not in 1..=100");
    refused(&["run", "--target", "moon"], "invalid value 'moon'");
    refused(&["lab", "exec", "ovn-worker"], "required arguments");
    refused(&["lab", "down", "--name", "../x"], "letters, digits and dashes");
}

#[test]
fn options_of_clusters_do_not_silently_go_to_the_lab() {
    refused(&["run", "--context", "production"], "add `--target kube`");
    refused(&["plan", "--kubeconfig", "/nowhere"], "add `--target kube`");
}

#[test]
fn a_kubeconfig_that_is_not_there_is_named() {
    for command in ["run", "plan", "cleanup"] {
        refused(&[command, "--target", "kube", "--kubeconfig", "/nowhere/kubeconfig"], "/nowhere/kubeconfig");
    }
}

#[test]
fn fixtures_that_are_not_there_are_named() {
    refused(&["list", "--fixtures", "/nowhere"], "/nowhere");
}

#[test]
fn a_cell_is_explained_without_a_run() {
    let cells = cells(&["list", "rule:isolation/other-network-closed", "--format", "json"]);
    let cell = cells.iter().find(|cell| cell["rule"] == "isolation/other-network-closed").unwrap();
    let (code, out, _) = run(&["explain", cell["id"].as_str().unwrap()]);
    assert_eq!(code, 0);
    for text in ["isolation/other-network-closed", "KubeCon", "expected  closed", "no run has reported yet"] {
        assert!(out.contains(text), "{text}: {out}");
    }
    refused(&["explain", "no-such-cell"], "no cell has the id `no-such-cell`");
    refused(&["explain", "layer3"], "name one of them");
}

#[test]
fn no_lab_is_up() {
    let (code, out, _) = run(&["lab", "status"]);
    assert_eq!((code, out.as_str()), (1, "no lab named lab is up\n"));
    refused(&["lab", "kubeconfig"], "no lab named lab is up");
    refused(&["lab", "down"], "no lab named lab is up");
    refused(&["lab", "exec", "ovn-worker", "--", "true"], "no lab named lab is up");
    refused(&["cleanup"], "no lab named lab is up");
}

/// A kubeconfig of a server that nobody runs: port 1 of loopback.
fn dead_kubeconfig(folder: &Path) -> String {
    let path = folder.join("kubeconfig");
    let config = r#"{"apiVersion": "v1", "kind": "Config", "current-context": "dead",
        "clusters": [{"name": "dead", "cluster": {"server": "http://127.0.0.1:1"}}],
        "users": [{"name": "nobody", "user": {}}],
        "contexts": [{"name": "dead", "context": {"cluster": "dead", "user": "nobody"}}]}"#;
    std::fs::write(&path, config).unwrap();
    path.display().to_string()
}

#[test]
fn a_cluster_that_does_not_answer_is_5_and_reported() {
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = dead_kubeconfig(folder.path());
    let args = ["run", "--target", "kube", "--kubeconfig", &kubeconfig, "--out", "out"];
    let (code, out, err) = told(run_in(folder.path(), &args));
    assert_eq!(code, 5, "{out}{err}");
    assert!(out.contains("127.0.0.1:1"), "{out}");
    let report: Value = serde_json::from_slice(&std::fs::read(folder.path().join("out/report.json")).unwrap()).unwrap();
    assert_eq!((report["finished"].as_bool(), report["exit"].as_u64()), (Some(false), Some(5)));
    let junit = std::fs::read_to_string(folder.path().join("out/junit.xml")).unwrap();
    assert!(junit.contains("<error type=\"set-up failed\""), "{junit}");
    let (code, _, err) = told(run_in(folder.path(), &["plan", "--target", "kube", "--kubeconfig", &kubeconfig]));
    assert_eq!(code, 5, "{err}");
}

/// A program with an environment that points to a proxy; its exit code and standard error.
fn behind_a_proxy(server: &str, no_proxy: &str) -> (i32, String) {
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = dead_kubeconfig(folder.path());
    let text = std::fs::read_to_string(&kubeconfig).unwrap().replace("http://127.0.0.1:1", server);
    std::fs::write(&kubeconfig, text).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_udn-conformance"))
        .args(["plan", "--target", "kube", "--kubeconfig", &kubeconfig])
        .env("HTTPS_PROXY", "http://127.0.0.1:2")
        .env("NO_PROXY", no_proxy)
        .env_remove("UDN_TARGET")
        .output()
        .unwrap();
    let (code, _, err) = told(output);
    (code, err)
}

#[test]
fn a_proxy_is_used_neither_for_this_machine_nor_silently() {
    let (code, err) = behind_a_proxy("https://127.0.0.1:1", "");
    assert_eq!(code, 5, "{err}");
    assert!(err.contains("API server https://127.0.0.1:1/ cannot be reached"), "{err}");
    let (code, err) = behind_a_proxy("https://localhost.invalid:1", "example.org,.invalid");
    assert_eq!(code, 5, "{err}");
    assert!(err.contains("API server https://localhost.invalid:1/ cannot be reached"), "{err}");
    let (code, err) = behind_a_proxy("https://api.invalid:1", "example.org");
    assert_eq!(code, 5, "{err}");
    assert!(err.contains("proxy http://127.0.0.1:2/") && err.contains("NO_PROXY"), "{err}");
}

#[test]
fn a_kubeconfig_that_is_none_is_2_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kubeconfig");
    for (text, message) in [("", "no current context; choose one with --context"), ("a: [", "cannot be used: ")] {
        std::fs::write(&path, text).unwrap();
        let args = ["plan", "--target", "kube", "--kubeconfig", path.to_str().unwrap()];
        let (code, out, err) = told(run_in(folder.path(), &args));
        assert_eq!((code, out.as_str(), err.lines().count()), (2, "", 1), "{err}");
        assert!(err.contains(message), "{err}");
    }
}

/// A server that answers every connection with the same bytes; its port.
fn answering(bytes: &'static [u8]) -> u16 {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        use std::io::{Read, Write};
        while let Ok((mut stream, _)) = listener.accept() {
            // A client that went away has had its answer.
            let _ = stream.read(&mut [0; 4096]).and_then(|_| stream.write_all(bytes));
        }
    });
    port
}

#[test]
fn what_is_no_api_server_is_5_and_named() {
    let html = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 5\r\nConnection: close\r\n\r\nlogin";
    let denied = b"HTTP/1.1 401 Unauthorized\r\nContent-Type: application/json\r\nContent-Length: 61\r\n\
        Connection: close\r\n\r\n{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"code\":401,\"message\":\"\"}  ";
    for (bytes, message) in
        [(&html[..], "cannot be reached"), (&b"SSH-2.0-x\r\n"[..], "cannot be reached"), (denied, "401")]
    {
        let port = answering(bytes);
        let folder = tempfile::tempdir().unwrap();
        let kubeconfig = dead_kubeconfig(folder.path());
        let text = std::fs::read_to_string(&kubeconfig).unwrap().replace("127.0.0.1:1", &format!("127.0.0.1:{port}"));
        std::fs::write(&kubeconfig, text).unwrap();
        let (code, out, err) = told(run_in(folder.path(), &["plan", "--target", "kube", "--kubeconfig", &kubeconfig]));
        assert_eq!((code, out.as_str(), err.lines().count()), (5, "", 1), "{err}");
        assert!(err.contains(message) && err.contains(&format!("http://127.0.0.1:{port}/")), "{err}");
    }
}

#[test]
fn an_unknown_context_is_2() {
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = dead_kubeconfig(folder.path());
    let args = ["plan", "--target", "kube", "--kubeconfig", &kubeconfig, "--context", "alive"];
    let (code, _, err) = told(run_in(folder.path(), &args));
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("`alive`") && err.contains("dead"), "{err}");
}

#[test]
fn an_out_folder_that_cannot_be_is_5_and_named() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "").unwrap();
    let (code, _, err) = told(run_in(folder.path(), &["run", "objects", "--out", "file/out"]));
    assert_eq!(code, 5, "{err}");
    assert!(err.contains("cannot write file/out"), "{err}");
}

#[test]
fn reports_go_beside_the_user_or_into_the_workspace() {
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = dead_kubeconfig(folder.path());
    let args = ["run", "--target", "kube", "--kubeconfig", &kubeconfig];
    run_in(folder.path(), &args);
    assert!(folder.path().join("udn-conformance-report/report.json").is_file());
    std::fs::write(folder.path().join("Cargo.toml"), "").unwrap();
    std::fs::create_dir_all(folder.path().join("target")).unwrap();
    std::fs::create_dir_all(folder.path().join("src")).unwrap();
    run_in(&folder.path().join("src"), &args);
    assert!(folder.path().join("target/udn-conformance/report.json").is_file());
}

#[test]
fn a_reader_that_had_enough_is_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    let program = env!("CARGO_BIN_EXE_udn-conformance");
    let script = format!("{program} list --cells | head -n 1; exit ${{PIPESTATUS[0]}}");
    let output = Command::new("bash").args(["-c", &script]).current_dir(folder.path()).output().unwrap();
    assert_eq!(told(output).0, 0);
}
