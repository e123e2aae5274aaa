//! The cluster that a command talks to: a lab, or what a kubeconfig points at.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::anyhow;
use udn_cluster::{Connect, Error, Kube};
use udn_lab::Lab;
use udn_lab_sys::packages::{self, Progress as Packages};
use udn_model::cell::Feature;
use udn_model::plan::Environment;

use crate::args::{Target, TargetKind};
use crate::failure::Failure;
use crate::reporting::{Events, Stage};

/// What a run needs to know beyond the target.
#[derive(Clone, Debug)]
pub(crate) struct Wishes {
    /// The run's id.
    pub run: String,
    /// Image of the probing pods.
    pub image: Option<String>,
    /// Image of guests.
    pub guest_image: Option<String>,
    /// Make no pods in host networks.
    pub without_host_network: bool,
    /// How long pods may take to get ready.
    pub ready_deadline: Duration,
    /// Start a lab even if one is up.
    pub fresh_lab: bool,
    /// A lab that is started may have to outlive the program.
    pub may_stay: bool,
}

impl Wishes {
    fn connect(self, kubeconfig: Option<PathBuf>, context: Option<String>, external_name: Option<String>) -> Connect {
        Connect {
            kubeconfig,
            context,
            image: self.image,
            guest_image: self.guest_image,
            run: self.run,
            without_host_network: self.without_host_network,
            ready_deadline: Some(self.ready_deadline),
            external_name,
        }
    }
}

/// A target, connected.
pub(crate) struct Connected {
    /// Its API.
    pub kube: Kube,
    /// `lab` or `kube`.
    pub target: &'static str,
    /// The lab's name or the kubeconfig's context.
    pub context: String,
    /// What it runs on.
    pub versions: BTreeMap<String, String>,
    /// The lab, if it is one.
    pub lab: Option<LabInUse>,
}

/// A lab in use.
pub(crate) enum LabInUse {
    /// Started for this run.
    Own(Lab),
    /// Found up.
    Found(udn_lab::Running),
}

impl LabInUse {
    fn kubeconfig(&self) -> PathBuf {
        match self {
            Self::Own(lab) => lab.kubeconfig(),
            Self::Found(lab) => lab.kubeconfig(),
        }
    }

    /// Its name.
    #[must_use]
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Own(lab) => lab.name(),
            Self::Found(lab) => lab.name(),
        }
    }

    /// The lab, however it came about.
    #[must_use]
    pub(crate) fn running(&self) -> &udn_lab::Running {
        match self {
            Self::Own(lab) => lab.running(),
            Self::Found(lab) => lab,
        }
    }

    /// What is wrong with the lab itself: a run on it says nothing about the network then.
    #[must_use]
    pub(crate) fn problems(&self) -> Vec<String> {
        match self.running().status() {
            Ok(status) => status.problems,
            Err(error) => vec![error.to_string()],
        }
    }

    /// What ended in the lab and was there again at once: no reason to doubt a run.
    #[must_use]
    pub(crate) fn mended(&self) -> Vec<String> {
        self.running().status().map(|status| status.mended).unwrap_or_default()
    }
}

/// Options that only fit another target.
///
/// # Errors
/// Usage.
pub(crate) fn check(target: &Target) -> Result<(), Failure> {
    let misplaced = match target.target {
        TargetKind::Lab => [("--kubeconfig", target.kubeconfig.is_some()), ("--context", target.context.is_some())],
        TargetKind::Kube => [("", false); 2],
    };
    if let Some((option, _)) = misplaced.into_iter().find(|(_, given)| *given) {
        return Err(Failure::usage(anyhow!(
            "{option} is for clusters: add `--target kube`, or leave it out to use the lab"
        )));
    }
    match &target.kubeconfig {
        Some(path) if !path.is_file() => Err(Failure::usage(anyhow!(
            "there is no kubeconfig {}: name one that exists with --kubeconfig",
            path.display()
        ))),
        _ => Ok(()),
    }
}

/// What the target offers, for a plan: the lab offers everything, a cluster is asked.
///
/// # Errors
/// Misplaced options (usage); a cluster that cannot be asked.
pub(crate) async fn environment(target: &Target, without_host_network: bool) -> Result<Environment, Failure> {
    check(target)?;
    match target.target {
        TargetKind::Lab => {
            let mut environment = Environment::complete();
            if without_host_network {
                environment.features.remove(&Feature::HostNetworkPods);
            }
            Ok(environment)
        }
        TargetKind::Kube => {
            let connect = Connect {
                kubeconfig: target.kubeconfig.clone(),
                context: target.context.clone(),
                run: udn_cluster::new_run_id(),
                without_host_network,
                external_name: target.external_name.clone(),
                ..Connect::default()
            };
            Ok(kube(connect).await?.environment().clone())
        }
    }
}

/// Connects to a cluster.
///
/// # Errors
/// It cannot be reached, or the kubeconfig not be used.
pub(crate) async fn kube(connect: Connect) -> Result<Kube, Failure> {
    Kube::connect(connect).await.map_err(failure)
}

/// A kubeconfig that cannot be used is an input file that is wrong; the rest is a target that cannot be set up.
fn failure(error: Error) -> Failure {
    match error {
        Error::KubeconfigFile { .. }
        | Error::NoKubeconfig
        | Error::NoContext { .. }
        | Error::Context { .. }
        | Error::Kubeconfig { .. } => Failure::usage(error),
        _ => Failure::setup(error),
    }
}

/// Connects to the target; starts a lab where none is up.
///
/// # Errors
/// What could not be set up.
pub(crate) async fn connect(target: &Target, wishes: Wishes, events: &Events) -> Result<Connected, Failure> {
    match target.target {
        TargetKind::Kube => {
            let stage = events.stage("cluster");
            let connect =
                wishes.connect(target.kubeconfig.clone(), target.context.clone(), target.external_name.clone());
            let kube = end(stage, kube(connect).await)?;
            let (context, versions) = (kube.context().to_owned(), kube.versions().clone());
            Ok(Connected { kube, target: "kube", context, versions, lab: None })
        }
        TargetKind::Lab => {
            let lab = lab(target, &wishes, events).await?;
            let kube = kube(wishes.connect(Some(lab.kubeconfig()), None, None)).await?;
            let versions = kube.versions().clone();
            Ok(Connected { kube, target: "lab", context: lab.name().to_owned(), versions, lab: Some(lab) })
        }
    }
}

async fn lab(target: &Target, wishes: &Wishes, events: &Events) -> Result<LabInUse, Failure> {
    let cache = udn_lab::default_folder();
    if !wishes.fresh_lab
        && let Ok(running) = udn_lab::find(&cache, &target.lab)
    {
        let stage = events.stage(&format!("lab `{}`, which is up", running.name()));
        let up = running.status().map(|_| running).map_err(Failure::setup);
        return end(stage, up).map(LabInUse::Found);
    }
    let options = udn_lab::Options { cache, background: wishes.may_stay, ..udn_lab::Options::default() };
    start(options, events.clone()).await.map(LabInUse::Own)
}

/// Starts a lab and tells how it goes.
///
/// # Errors
/// What the host lacks, or what failed inside.
pub(crate) async fn start(options: udn_lab::Options, events: Events) -> Result<Lab, Failure> {
    let stage = events.stage("lab");
    let telling = stage.clone();
    let started = tokio::task::spawn_blocking(move || Lab::start(&options, &|progress| tell(&telling, progress))).await;
    let lab = match started {
        Ok(lab) => lab.map_err(Failure::lab),
        Err(error) => Err(Failure::setup(anyhow::Error::new(error).context("starting the lab ended early"))),
    };
    end(stage, lab)
}

/// Fetches what the lab's virtual machines run on, where it is not there yet: the first that asks would else wait for it
/// without a word. Where that fails, the lab says so of each of them.
pub(crate) async fn machines(events: &Events) {
    let (events, stage) = (events.clone(), Arc::new(OnceLock::new()));
    let telling = stage.clone();
    let ensure = move || {
        let tell = |progress: Packages| {
            telling.get_or_init(|| events.stage("virtual machines")).progress(words(&progress));
        };
        packages::machines::ensure(&udn_lab::default_folder(), &tell).map_err(Failure::setup)
    };
    let Ok(ensured) = tokio::task::spawn_blocking(ensure).await else { return };
    if let Some(stage) = Arc::into_inner(stage).and_then(OnceLock::into_inner) {
        stage.end(ensured.as_ref().err());
    }
}

fn tell(stage: &Stage, progress: udn_lab::Progress) {
    match progress {
        udn_lab::Progress::Packages(packages) => stage.progress(words(&packages)),
        udn_lab::Progress::Step { step, at } => stage.progress(format!("{step} after {}", seconds(at))),
        udn_lab::Progress::Ready { at } => stage.progress(format!("ready after {}", seconds(at))),
    }
}

pub(crate) fn words(packages: &Packages) -> String {
    match packages {
        Packages::WaitingForOther => "another program fetches packages into the same folder: waiting for it".into(),
        Packages::HostTooOld { open_vswitch, ovn } => {
            format!(
                "this host's Open vSwitch {open_vswitch} and OVN {ovn} are too old: packages are used instead, nothing is installed"
            )
        }
        Packages::Listing { origin } => format!("fetching the list of packages of {origin}"),
        Packages::Fetching { number, of, bytes, name } => {
            format!("fetching package {number} of {of} (once; {} kB in all): {name}", bytes / 1_000)
        }
        Packages::Unpacking { number, of } => format!("unpacking package {number} of {of}"),
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

fn end<T>(stage: Stage, result: Result<T, Failure>) -> Result<T, Failure> {
    stage.end(result.as_ref().err());
    result
}
