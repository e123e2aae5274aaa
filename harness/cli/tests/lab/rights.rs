//! `deploy/rbac.yaml`: a run by its service account gets by on the lab, uses every right that is in it, and says which one it
//! lacks where one is taken away. `deploy/job.yaml`: its command line finds that account where a pod has it.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use libtest_mimic::Failed;
use serde_json::Value;

use crate::{Lab, beside, program};

const ROLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/rbac.yaml");
const JOB: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/job.yaml");
const NAME: &str = "udn-conformance";
const USER: &str = "system:serviceaccount:udn-conformance:udn-conformance";
/// What the lab's API server says of every request.
const AUDIT: (&str, &str) = ("UDN_LAB_LOG", "info,udn_lab_apiserver::audit=debug");
/// Between them these need every right.
const SCENARIOS: [&str; 8] = [
    "addressing::static-requests::",
    "objects::admission",
    "objects::in-use::",
    "services::endpoint-changes-layer2::",
    "vm::conflicts::",
    "vm::failed-migration::",
    "vm::restart::",
    "vm::policy::",
];
/// A small one that makes networks and pods.
const SMALL: &str = "objects::in-use::";
/// Needed where an object does not go at once when it is deleted; in the lab it does.
const UNUSED: [&str; 1] = ["watch vteps.k8s.ovn.org"];

pub(crate) fn tests() -> Vec<(&'static str, beside::Test)> {
    vec![
        ("rights::the-role-is-what-a-run-needs", the_role_is_what_a_run_needs),
        ("rights::a-missing-right-is-named", a_missing_right_is_named),
        ("rights::a-job-runs-by-the-account-of-its-pod", a_job_runs_by_the_account_of_its_pod),
    ]
}

/// A lab with the role, and a kubeconfig of its service account.
struct Site {
    lab: Lab,
    admin: PathBuf,
    folder: tempfile::TempDir,
}

impl Site {
    fn up(purpose: &str) -> Self {
        let lab = Lab::up_with(purpose, &[AUDIT]);
        let printed = program(&["lab", "kubeconfig", "--name", &lab.0]);
        let admin = PathBuf::from(String::from_utf8(printed.stdout).unwrap().trim());
        let site = Self { lab, admin, folder: tempfile::tempdir().unwrap() };
        site.kubectl(&["apply", "-f", ROLE], "");
        let token = site.kubectl(&["create", "token", NAME, "-n", NAME], "");
        std::fs::copy(&site.admin, site.account()).unwrap();
        let credentials = format!("--token={}", token.trim());
        let account = site.account();
        let set =
            ["--kubeconfig", account.to_str().unwrap(), "config", "set-credentials", "udn-lab-admin", &credentials];
        told(kubectl(&set, ""));
        site
    }

    /// The service account's kubeconfig.
    fn account(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    fn kubectl(&self, arguments: &[&str], input: &str) -> String {
        told(kubectl(&[&["--kubeconfig", self.admin.to_str().unwrap()], arguments].concat(), input))
    }

    /// Runs scenarios as the service account.
    fn run(&self, filters: &[&str]) -> (Option<i32>, String) {
        let (account, out) = (self.account(), self.folder.path().join("out"));
        let options = [
            ["--target", "kube"],
            ["--kubeconfig", account.to_str().unwrap()],
            ["--out", out.to_str().unwrap()],
            ["--external-name", "external.lab.example"],
            ["--outage-budget", "20s"],
        ];
        let output = program(&[&["run"], &options.concat()[..], filters].concat());
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout) + &text(&output.stderr))
    }

    fn role(&self) -> Value {
        serde_json::from_str(&self.kubectl(&["get", "clusterrole", NAME, "-o", "json"], "")).unwrap()
    }

    /// What the service account asked for: `verb resource.group` of what it got, and of what it was refused.
    fn asked(&self) -> (BTreeSet<String>, BTreeSet<String>) {
        let log = self.admin.parent().map(|folder| folder.join("log")).unwrap();
        asked(&log)
    }
}

fn kubectl(arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new("kubectl");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("kubectl is installed");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn told(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn asked(log: &Path) -> (BTreeSet<String>, BTreeSet<String>) {
    let log = std::fs::read_to_string(log).unwrap();
    let lines = log.lines().filter_map(|line| line.split_once("udn_lab_apiserver::audit: "));
    let (mut allowed, mut refused) = (BTreeSet::new(), BTreeSet::new());
    for entry in lines.filter_map(|(_, json)| serde_json::from_str::<Value>(json).ok()) {
        let action = &entry["asked"]["resource"];
        if entry["user"] != USER || !action.is_object() {
            continue;
        }
        let field = |key: &str| action[key].as_str().unwrap_or_default();
        let right = right(field("verb"), field("group"), field("resource"), field("subresource"));
        if entry["allowed"] == true { &mut allowed } else { &mut refused }.insert(right);
    }
    (allowed, refused)
}

/// `create pods/exec`, `list nodes`, `get vteps.k8s.ovn.org`.
fn right(verb: &str, group: &str, resource: &str, subresource: &str) -> String {
    let below = if subresource.is_empty() { String::new() } else { format!("/{subresource}") };
    let group = if group.is_empty() { String::new() } else { format!(".{group}") };
    format!("{verb} {resource}{group}{below}")
}

fn texts<'a>(rule: &'a Value, key: &str) -> impl Iterator<Item = &'a str> {
    rule[key].as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn rights(role: &Value) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for rule in role["rules"].as_array().into_iter().flatten() {
        for (group, resource) in
            texts(rule, "apiGroups").flat_map(|group| texts(rule, "resources").map(move |it| (group, it)))
        {
            let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
            all.extend(texts(rule, "verbs").map(|verb| right(verb, group, resource, subresource)));
        }
    }
    all
}

fn the_role_is_what_a_run_needs() -> Result<(), Failed> {
    let site = Site::up("role");
    let (code, said) = site.run(&SCENARIOS);
    println!("{said}");
    let (used, refused) = site.asked();
    if !refused.is_empty() {
        return Err(format!("the role lacks {refused:?}").into());
    }
    let rights = rights(&site.role());
    let unused: Vec<&String> =
        rights.iter().filter(|right| !used.contains(*right) && !UNUSED.contains(&right.as_str())).collect();
    if !unused.is_empty() {
        return Err(format!("nobody used {unused:?}: take them out of deploy/rbac.yaml").into());
    }
    if code == Some(0) { Ok(()) } else { Err(format!("the run ended with {code:?}").into()) }
}

fn a_missing_right_is_named() -> Result<(), Failed> {
    let site = Site::up("lack");
    let role = site.role();
    // Without it there is nothing to begin with, or no world (5), or cells cannot be judged (3).
    for (resource, verb, group, place, code) in [
        ("nodes", "list", "", "at the cluster scope", 5),
        ("customresourcedefinitions", "get", "apiextensions.k8s.io", "at the cluster scope", 5),
        ("userdefinednetworks", "create", "k8s.ovn.org", "in the namespace", 5),
        ("pods", "watch", "", "at the cluster scope", 5),
        ("pods/exec", "create", "", "in the namespace", 5),
        ("userdefinednetworks", "delete", "k8s.ovn.org", "in the namespace", 3),
    ] {
        let mut lesser = role.clone();
        for rule in lesser["rules"].as_array_mut().into_iter().flatten() {
            let meant = texts(rule, "resources").any(|it| it == resource);
            if let (true, Some(verbs)) = (meant, rule["verbs"].as_array_mut()) {
                verbs.retain(|it| it != verb);
            }
        }
        // A rule without a verb is none.
        lesser["rules"].as_array_mut().unwrap().retain(|rule| texts(rule, "verbs").next().is_some());
        lesser["metadata"]["resourceVersion"] = Value::Null;
        site.kubectl(&["replace", "-f", "-"], &lesser.to_string());
        let (ended, said) = site.run(&[SMALL]);
        let missing = format!("User \"{USER}\" cannot {verb} resource \"{resource}\" in API group \"{group}\" {place}");
        if ended != Some(code) || !said.contains(&missing) || !said.contains("deploy/rbac.yaml") {
            return Err(
                format!("without {verb} {resource}: expected {code} and {missing}, not {ended:?}:\n{said}").into()
            );
        }
    }
    drop(site.lab);
    Ok(())
}

/// Where a pod has its account's files; a file system of its own for whoever is told to mount it.
const POD: &str = "mount -t tmpfs none /run && mkdir -p /run/secrets/kubernetes.io/serviceaccount && \
     cp \"$FILES\"/* /run/secrets/kubernetes.io/serviceaccount/ && exec \"$0\" \"$@\"";

fn a_job_runs_by_the_account_of_its_pod() -> Result<(), Failed> {
    let site = Site::up("job");
    let accepted = ["apply", "--dry-run=server", "--validate=strict", "-o", "json", "-f", JOB];
    let accepted: Value = serde_json::from_str(&site.kubectl(&accepted, "")).unwrap();
    let objects = accepted["items"].as_array().unwrap();
    let pod = &objects.iter().find(|object| object["kind"] == "Job").unwrap()["spec"]["template"]["spec"];
    assert_eq!(pod["serviceAccountName"], NAME);
    let container = &pod["containers"][0];
    let results = container["volumeMounts"][0]["mountPath"].as_str().unwrap();

    let files = site.folder.path().join("account");
    std::fs::create_dir(&files).unwrap();
    let view = site.kubectl(&["config", "view", "--raw", "--flatten", "-o", "json"], "");
    let cluster = &serde_json::from_str::<Value>(&view).unwrap()["clusters"][0]["cluster"];
    let server = cluster["server"].as_str().unwrap();
    let (host, port) = server.trim_start_matches("https://").split_once(':').unwrap();
    let authority =
        site.kubectl(&["get", "configmap", "kube-root-ca.crt", "-n", NAME, "-o", "jsonpath={.data.ca\\.crt}"], "");
    let token = site.kubectl(&["create", "token", NAME, "-n", NAME], "");
    for (name, text) in [("ca.crt", authority.as_str()), ("token", token.trim()), ("namespace", NAME)] {
        std::fs::write(files.join(name), text).unwrap();
    }

    let out = site.folder.path().join("results");
    let out = out.to_str().unwrap();
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-c", POD, env!("CARGO_BIN_EXE_udn-conformance")]);
    command.args(texts(container, "args").map(|it| if it == results { out } else { it })).arg(SMALL);
    command.env("FILES", &files).env("HOME", "/nowhere").env("NO_COLOR", "1");
    command.env("KUBERNETES_SERVICE_HOST", host).env("KUBERNETES_SERVICE_PORT", port);
    let output = command.env_remove("UDN_TARGET").env_remove("KUBECONFIG").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    if output.status.code() != Some(0) || !said.contains("kube in-cluster") {
        return Err(format!("the Job's program ended with {}:\n{said}", output.status).into());
    }
    let (used, _) = site.asked();
    if used.contains("create pods/exec") { Ok(()) } else { Err("nothing was asked by the account".into()) }
}
