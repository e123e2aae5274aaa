//! Where the scenarios of the suites run, and what became of them: each phase of each scenario is a test.
//!
//! `cargo test` has all tests in one process: one run of what was asked for serves them, and shares worlds as a user's run
//! does. Under nextest each test is a process of its own: the first one of a scenario runs it, the others read what it wrote,
//! and all attach to one lab, which the last one out takes down. `UDN_TARGET=kube` (with `UDN_CONTEXT`) runs the same against
//! a cluster.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};

use libtest_mimic::{Arguments, Failed, Trial};
use udn_lab_sys::sandbox::preflight;

use crate::{Verdicts, holds, plan, program, verdicts};

/// What `UDN_TARGET` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Lab,
    Kube { context: Option<String> },
}

impl Target {
    /// Ends the process where it says something else.
    pub(crate) fn asked() -> Self {
        match std::env::var("UDN_TARGET").as_deref() {
            Err(_) | Ok("" | "lab") => Self::Lab,
            Ok("kube") => Self::Kube { context: std::env::var("UDN_CONTEXT").ok() },
            Ok(other) => {
                eprintln!("UDN_TARGET is {other:?}: set it to `lab` or `kube`");
                std::process::exit(2)
            }
        }
    }

    /// Why nothing can run there, with the remedy.
    pub(crate) fn lacks(&self) -> Option<String> {
        match self {
            Self::Lab => lab_lacks(),
            // An unreachable cluster is an error, and is said by the run.
            Self::Kube { .. } => None,
        }
    }

    fn options(&self) -> Vec<&str> {
        match self {
            Self::Lab => vec!["--fresh-lab"],
            Self::Kube { context: None } => vec!["--target", "kube"],
            Self::Kube { context: Some(context) } => vec!["--target", "kube", "--context", context],
        }
    }
}

/// Why no lab can be brought up here.
fn lab_lacks() -> Option<String> {
    if let Err(error) = preflight::check() {
        return Some(error.to_string());
    }
    let root = rustix::process::geteuid().is_root();
    let namespaces: &[&str] = if root { &["--net", "--mount"] } else { &["--user", "--map-root-user", "--net"] };
    match Command::new("unshare").args(namespaces).arg("true").output() {
        Ok(output) if !output.status.success() => Some(preflight::namespaces_refused(libc::EPERM).to_string()),
        // Without that program it is for the lab to say.
        _ => None,
    }
}

/// A test for each phase.
pub(crate) fn trials(arguments: &Arguments, target: &Target) -> Vec<Trial> {
    let mut names = Vec::new();
    for planned in plan(&[]).scenarios {
        let scenario = format!("{}::{}", planned.suite, planned.scenario.name);
        for phase in &planned.phases {
            names.push((scenario.clone(), format!("{scenario}::{}", phase.name)));
        }
    }
    // Phases build upon each other: of a scenario of which one is asked for all are run.
    let mut asked: Vec<String> = Vec::new();
    for (scenario, phase) in &names {
        if selects(arguments, phase) && asked.last() != Some(scenario) {
            asked.push(scenario.clone());
        }
    }
    let scenarios: Arc<Scenarios> = Arc::new(Scenarios {
        target: target.clone(),
        asked,
        attached: Attached::under_nextest(),
        ran: OnceLock::new(),
    });
    let trial = |(scenario, phase): (String, String)| {
        let scenarios = scenarios.clone();
        Trial::test(phase.clone(), move || scenarios.holds(&scenario, &phase))
    };
    names.into_iter().map(trial).collect()
}

/// As libtest-mimic selects.
pub(crate) fn selects(arguments: &Arguments, name: &str) -> bool {
    let matches = |filter: &String| if arguments.exact { name == filter } else { name.contains(filter.as_str()) };
    arguments.filter.as_ref().is_none_or(matches) && !arguments.skip.iter().any(matches)
}

struct Scenarios {
    target: Target,
    /// Scenarios.
    asked: Vec<String>,
    attached: Option<Attached>,
    ran: OnceLock<Result<Verdicts, String>>,
}

impl Scenarios {
    fn holds(&self, scenario: &str, phase: &str) -> Result<(), Failed> {
        let verdicts = match &self.attached {
            Some(attached) => attached.verdicts(&self.target, scenario)?,
            None => self.ran.get_or_init(|| run(&self.target.options(), &self.asked)).clone()?,
        };
        // What a cluster does not offer is skipped, and the report says why; the lab offers everything.
        holds(phase, &verdicts, self.target != Target::Lab)
    }
}

fn run(options: &[&str], scenarios: &[String]) -> Result<Verdicts, String> {
    let filters: Vec<String> = scenarios.iter().map(|name| format!("{name}::")).collect();
    verdicts(options, &filters.iter().map(String::as_str).collect::<Vec<_>>())
}

/// What the processes of one run of nextest have in common.
struct Attached {
    /// Locks, and verdicts by scenario.
    folder: PathBuf,
    lab: String,
}

impl Attached {
    fn under_nextest() -> Option<Self> {
        let run = std::env::var("NEXTEST_RUN_ID").ok()?;
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("nextest-{run}"));
        // Labs have short names.
        let lab = format!("nextest-{}", run.get(..8).unwrap_or(&run));
        Some(Self { folder, lab })
    }

    /// What became of a scenario: run here, unless another process has.
    fn verdicts(&self, target: &Target, scenario: &str) -> Result<Verdicts, String> {
        let failed = |error: std::io::Error| format!("{}: {error}", self.folder.display());
        fs::create_dir_all(&self.folder).map_err(failed)?;
        let name = scenario.replace("::", ".");
        let _first = self.locked(&format!("{name}.lock")).map_err(failed)?;
        let known = self.folder.join(format!("{name}.json"));
        if let Ok(text) = fs::read(&known) {
            return serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", known.display()))?;
        }
        let ran = match target {
            Target::Lab => {
                let visitor = Visitor::come(self)?;
                run(&["--lab", &visitor.0.lab], &[scenario.to_owned()])
            }
            Target::Kube { .. } => run(&target.options(), &[scenario.to_owned()]),
        };
        let text = serde_json::to_vec(&ran).map_err(|error| error.to_string())?;
        fs::write(&known, text).map_err(failed)?;
        ran
    }

    /// A file that no other process has locked until it is dropped.
    fn locked(&self, name: &str) -> std::io::Result<File> {
        let file = self.file(name)?;
        file.lock()?;
        Ok(file)
    }

    fn file(&self, name: &str) -> std::io::Result<File> {
        File::options().create(true).append(true).open(self.folder.join(name))
    }
}

/// Somebody who needs the lab.
struct Visitor<'a>(&'a Attached, File);

impl<'a> Visitor<'a> {
    /// Brings the lab up, unless it is.
    fn come(attached: &'a Attached) -> Result<Self, String> {
        let failed = |error: std::io::Error| format!("{}: {error}", attached.folder.display());
        let _door = attached.locked("door.lock").map_err(failed)?;
        let visitors = attached.file("visitors.lock").map_err(failed)?;
        visitors.lock_shared().map_err(failed)?;
        let output = program(&["lab", "up", "--name", &attached.lab]);
        if output.status.success() {
            Ok(Self(attached, visitors))
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }
}

impl Drop for Visitor<'_> {
    /// The last one out takes it down.
    fn drop(&mut self) {
        let Self(attached, visitors) = self;
        let _door = attached.locked("door.lock").expect("a lock that was had before");
        visitors.unlock().expect("a lock that is held");
        match visitors.try_lock() {
            Ok(()) => {
                let output = program(&["lab", "down", "--name", &attached.lab]);
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            }
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => panic!("{}: {error}", attached.folder.display()),
        }
    }
}
