//! Watches the pods of a world.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DynamicObject};
use kube::core::ApiResource;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch_objects};
use kube::{Client, ResourceExt};
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use crate::claims::{is_ready, pod_state};
use crate::error::{Error, right_to_watch};

/// Namespace and name.
pub(crate) type Key = (String, String);

type Known = HashMap<Key, Arc<Value>>;

/// The pods that a label selector selects, kept up to date by one watch.
#[derive(Debug)]
pub(crate) struct PodWatch {
    known: Arc<Mutex<Known>>,
    /// The right to watch pods, where it is missing.
    missing: Arc<OnceLock<String>>,
    changed: watch::Receiver<u64>,
    task: JoinHandle<()>,
}

impl Drop for PodWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl PodWatch {
    /// Begins to watch.
    pub(crate) fn start(client: Client, selector: &str) -> Self {
        let known: Arc<Mutex<Known>> = Arc::default();
        let (teller, changed) = watch::channel(0);
        let api: Api<DynamicObject> = Api::all_with(client, &ApiResource::erase::<Pod>(&()));
        let config = watcher::Config::default().labels(selector);
        let missing: Arc<OnceLock<String>> = Arc::default();
        let task = tokio::spawn(follow(api, config, known.clone(), missing.clone(), teller));
        Self { known, missing, changed, task }
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Arc<Value>> {
        lock(&self.known).get(key).cloned()
    }

    /// All pods that are known now.
    pub(crate) fn all(&self) -> Vec<(Key, Arc<Value>)> {
        lock(&self.known).iter().map(|(key, pod)| (key.clone(), pod.clone())).collect()
    }

    /// Waits until all of these are Ready, those that were replaced too.
    ///
    /// # Errors
    /// Which one is not within the deadline, and what its status says; at once where one has failed for good, or pods may not
    /// be watched.
    pub(crate) async fn wait_ready(&self, pods: &[(Key, Option<String>)], deadline: Duration) -> Result<(), Error> {
        let mut changed = self.changed.clone();
        let until = Instant::now() + deadline;
        loop {
            changed.mark_unchanged();
            let waiting: Vec<&Key> =
                pods.iter().filter(|(key, uid)| !self.is_ready(key, uid.as_deref())).map(|(key, _)| key).collect();
            let Some(first) = waiting.first() else { return Ok(()) };
            if let Some(why) = self.missing.get() {
                return Err(Error::MissingRight { attempted: "watch pods".into(), why: why.clone() });
            }
            let failed = waiting.iter().find(|key| self.get(key).is_some_and(|pod| pod["status"]["phase"] == "Failed"));
            if let Some(failed) = failed {
                return Err(self.late(failed, waiting.len(), Duration::ZERO));
            }
            match timeout_at(until, changed.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return Err(self.late(first, waiting.len(), deadline)),
            }
        }
    }

    /// Waits until a pod satisfies a condition; returns whether it does.
    pub(crate) async fn wait_for(
        &self,
        key: &Key,
        deadline: Duration,
        holds: impl Fn(&Value) -> bool + Send + Sync,
    ) -> bool {
        self.wait_until(deadline, || self.get(key).is_some_and(|pod| holds(&pod))).await
    }

    /// Waits until a pod is gone.
    ///
    /// # Errors
    /// It is not within the deadline.
    pub(crate) async fn wait_gone(&self, key: &Key, deadline: Duration) -> Result<(), Error> {
        if self.wait_until(deadline, || self.get(key).is_none_or(|pod| crate::vm::has_ended(&pod))).await {
            return Ok(());
        }
        let last = self.get(key).map_or_else(String::new, |pod| pod_state(&pod));
        Err(Error::Deadline { awaited: format!("pod {}/{} to end", key.0, key.1), after: deadline, last })
    }

    /// Waits until something holds of the pods that are known; returns whether it does.
    pub(crate) async fn wait_until(&self, deadline: Duration, holds: impl Fn() -> bool + Send + Sync) -> bool {
        let mut changed = self.changed.clone();
        let until = Instant::now() + deadline;
        loop {
            changed.mark_unchanged();
            if holds() {
                return true;
            }
            match timeout_at(until, changed.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return holds(),
            }
        }
    }

    fn is_ready(&self, (namespace, name): &Key, uid: Option<&str>) -> bool {
        let pod = self.get(&(namespace.clone(), name.clone()));
        pod.is_some_and(|pod| is_ready(&pod) && uid.is_none_or(|uid| pod["metadata"]["uid"] == uid))
    }

    fn late(&self, (namespace, name): &Key, waiting: usize, after: Duration) -> Error {
        let last = self
            .get(&(namespace.clone(), name.clone()))
            .map_or_else(|| "it is not there".into(), |pod| pod_state(&pod));
        let others = if waiting > 1 { format!(" (and {} more)", waiting - 1) } else { String::new() };
        Error::Deadline {
            awaited: format!("pod {namespace}/{name}{others} to be Ready (--ready-deadline allows more)"),
            after,
            last,
        }
    }
}

async fn follow(
    api: Api<DynamicObject>,
    config: watcher::Config,
    known: Arc<Mutex<Known>>,
    missing: Arc<OnceLock<String>>,
    teller: watch::Sender<u64>,
) {
    let mut events = std::pin::pin!(watch_objects(api, config).default_backoff());
    let mut listed: Option<Known> = None;
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed = Some(Known::new()),
            Ok(Event::InitApply(pod)) => insert(listed.get_or_insert_default(), pod),
            Ok(Event::InitDone) => *lock(&known) = listed.take().unwrap_or_default(),
            Ok(Event::Apply(pod)) => insert(&mut lock(&known), pod),
            Ok(Event::Delete(pod)) => drop(lock(&known).remove(&key(&pod))),
            Err(error) => {
                tracing::debug!(%error, "watching pods");
                if let Some(why) = right_to_watch(&error) {
                    let _ = missing.set(why.to_owned()); // The first says it.
                }
            }
        }
        teller.send_modify(|version| *version += 1);
    }
}

fn insert(known: &mut Known, pod: DynamicObject) {
    let key = key(&pod);
    match serde_json::to_value(pod) {
        Ok(value) => drop(known.insert(key, Arc::new(value))),
        Err(error) => tracing::warn!(%error, "a pod that cannot be read"),
    }
}

fn key(pod: &DynamicObject) -> Key {
    (pod.namespace().unwrap_or_default(), pod.name_any())
}

fn lock(known: &Mutex<Known>) -> MutexGuard<'_, Known> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}
