//! What is known of a pod on this node.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::ResourceExt;
use tokio::sync::{Mutex as AsyncMutex, watch};
use udn_lab_sys::pod::Sandbox;

use crate::container::job::Program;
use crate::container::spawn::{Exit, Process};
use crate::output::Output;
use crate::terminal::Terminal;

/// A pod as its worker, the status writer and the server share it.
pub(crate) struct PodCell {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// The latest version seen; `None` once the API server has it no more.
    pub object: watch::Receiver<Option<Arc<Pod>>>,
    /// The version it arrived with: its spec hardly changes.
    pub arrival: Arc<Pod>,
    /// Where the pod's processes live, once it is made.
    pub sandbox: Mutex<Option<Sandbox>>,
    record: Mutex<PodRecord>,
    /// The record has changed.
    pub changed: watch::Sender<()>,
    /// The status as written last; held while writing.
    pub written: AsyncMutex<Option<k8s_openapi::api::core::v1::PodStatus>>,
}

/// How far a pod is.
#[derive(Clone, Debug, Default)]
pub(crate) struct PodRecord {
    /// `status.podIPs`.
    pub ips: Vec<IpAddr>,
    /// When the node agent saw it first.
    pub started: Option<Timestamp>,
    /// Whether the sandbox has its networks.
    pub sandbox_ready: bool,
    /// In the order of the spec: init containers, then the others.
    pub containers: Vec<ContainerRecord>,
    /// Whether nothing will run any more, and how it went.
    pub end: Option<End>,
}

/// How a pod ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Every container ended with 0.
    Succeeded,
    /// Some did not, or the pod as a whole failed for this reason.
    Failed { reason: Option<String>, message: Option<String> },
    /// It had ended before this node agent saw it: its status stays as it is.
    Earlier,
}

/// What a container is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Runs to its end before the next one.
    Init,
    /// An init container that keeps running (`restartPolicy: Always`).
    Sidecar,
    /// An ordinary container.
    Main,
}

/// How far a container is.
#[derive(Clone, Debug)]
pub(crate) struct ContainerRecord {
    pub name: String,
    pub role: Role,
    pub image: String,
    pub image_id: String,
    pub container_id: Option<String>,
    pub state: State,
    /// The run before this one.
    pub last: Option<Ended>,
    pub restarts: i32,
    /// Its startup probe has succeeded, or it has none and runs.
    pub started: bool,
    /// Its readiness probe says so.
    pub ready: bool,
    /// The running process, for exec, attach and the end.
    pub run: Option<Arc<Run>>,
    /// What the current or latest run printed.
    pub output: Option<Arc<Output>>,
    /// What the run before printed.
    pub previous_output: Option<Arc<Output>>,
}

/// A container's state, as the API has it.
#[derive(Clone, Debug)]
pub(crate) enum State {
    Waiting { reason: String, message: Option<String> },
    Running { since: Timestamp },
    Ended(Ended),
}

/// A run that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    pub exit: Exit,
    pub reason: String,
    pub message: Option<String>,
    pub started: Option<Timestamp>,
    pub finished: Timestamp,
    pub container_id: Option<String>,
}

/// A running container.
pub(crate) struct Run {
    pub process: Process,
    /// What it was started with: `exec` takes environment, user and directory from it.
    pub program: Program,
    pub output: Arc<Output>,
    /// Where the container has one.
    pub terminal: Option<Terminal>,
    /// Where the container has standard input.
    pub stdin: Option<AsyncMutex<Option<tokio::net::unix::pipe::Sender>>>,
    /// What the container may leave as its last words.
    pub last_words: std::path::PathBuf,
    /// The tasks that read its output have come to the end.
    pub drained: watch::Receiver<bool>,
}

impl std::fmt::Debug for Run {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Run").field("argv", &self.program.argv).finish_non_exhaustive()
    }
}

impl PodCell {
    pub(crate) fn new(arrival: Arc<Pod>, object: watch::Receiver<Option<Arc<Pod>>>) -> Self {
        let record = PodRecord {
            started: arrival
                .status
                .as_ref()
                .and_then(|status| status.start_time.as_ref())
                .map(|time| time.0)
                .or_else(|| Some(Timestamp::now())),
            containers: containers(&arrival)
                .into_iter()
                .map(|(role, container)| ContainerRecord::new(role, container))
                .collect(),
            ..PodRecord::default()
        };
        Self {
            namespace: arrival.namespace().unwrap_or_default(),
            name: arrival.name_any(),
            uid: arrival.uid().unwrap_or_default(),
            object,
            arrival,
            sandbox: Mutex::default(),
            record: Mutex::new(record),
            changed: watch::channel(()).0,
            written: AsyncMutex::default(),
        }
    }

    /// A copy of what is known.
    pub(crate) fn record(&self) -> PodRecord {
        self.lock().clone()
    }

    /// Changes what is known; the status writer follows.
    pub(crate) fn update<T>(&self, change: impl FnOnce(&mut PodRecord) -> T) -> T {
        let result = change(&mut self.lock());
        self.changed.send_replace(());
        result
    }

    /// Changes what is known of one container.
    pub(crate) fn update_container<T>(
        &self,
        index: usize,
        change: impl FnOnce(&mut ContainerRecord) -> T,
    ) -> Option<T> {
        self.update(|record| record.containers.get_mut(index).map(change))
    }

    /// The latest version, or the one before it was gone.
    pub(crate) fn latest(&self) -> Arc<Pod> {
        self.object.borrow().clone().unwrap_or_else(|| Arc::clone(&self.arrival))
    }

    fn lock(&self) -> MutexGuard<'_, PodRecord> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ContainerRecord {
    fn new(role: Role, container: &Container) -> Self {
        Self {
            name: container.name.clone(),
            role,
            image: container.image.clone().unwrap_or_default(),
            image_id: String::new(),
            container_id: None,
            state: State::Waiting { reason: "PodInitializing".into(), message: None },
            last: None,
            restarts: 0,
            started: false,
            ready: false,
            run: None,
            output: None,
            previous_output: None,
        }
    }

    /// Whether it has run and ended with 0.
    pub(crate) fn succeeded(&self) -> bool {
        matches!(&self.state, State::Ended(ended) if ended.exit.code == 0)
    }
}

/// A pod's containers in the order in which they start.
pub(crate) fn containers(pod: &Pod) -> Vec<(Role, &Container)> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let role = |container: &Container| match container.restart_policy.as_deref() {
        Some("Always") => Role::Sidecar,
        _ => Role::Init,
    };
    let init = spec.init_containers.iter().flatten().map(|container| (role(container), container));
    init.chain(spec.containers.iter().map(|container| (Role::Main, container))).collect()
}
