//! The scheduler: gives every pod without a node one, through the binding subresource.

mod affinity;
mod decide;
mod quantity;
mod spread;
mod world;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Binding, Namespace, Node, ObjectReference, Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, ObjectMeta, PostParams};
use kube::{Client, ResourceExt};
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::Error;
use crate::cache::{Change, Key};
use crate::events::{Recorder, Severity};
use crate::objects::{Objects, failed};
use crate::pods;
use crate::queue::Queue;
use world::World;

/// The name that pods without another scheduler's name have.
const NAME: &str = "default-scheduler";
/// Bindings in flight.
const BINDING: usize = 16;

#[derive(Clone)]
pub(crate) struct Scheduler {
    client: Client,
    pods: Objects<Pod>,
    nodes: Objects<Node>,
    namespaces: Objects<Namespace>,
    events: Recorder,
    queue: Queue<Key>,
    /// Pods being bound, by uid: their nodes.
    assumed: Arc<Mutex<HashMap<String, String>>>,
    /// Pods for which no node was found.
    parked: Arc<Mutex<HashSet<Key>>>,
}

impl Scheduler {
    pub(crate) fn new(
        client: Client,
        pods: Objects<Pod>,
        nodes: Objects<Node>,
        namespaces: Objects<Namespace>,
        events: Recorder,
    ) -> Self {
        let (assumed, parked) = (Arc::default(), Arc::default());
        Self { client, pods, nodes, namespaces, events: events.named(NAME), queue: Queue::new(), assumed, parked }
    }

    pub(crate) async fn run(self) {
        self.listen();
        self.pods.cache.synced().await;
        self.nodes.cache.synced().await;
        self.namespaces.cache.synced().await;
        let permits = Arc::new(Semaphore::new(BINDING));
        let mut running = JoinSet::new();
        loop {
            let key = self.queue.next().await;
            // One decision at a time, so that each sees the ones before; the requests overlap.
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
            let decision = self.decide(&key);
            let scheduler = self.clone();
            running.spawn(async move {
                let _permit = permit;
                let outcome = match decision {
                    Some((pod, Ok(node))) => scheduler.bind(&pod, &node).await,
                    Some((pod, Err(message))) => scheduler.park(&pod, &message).await,
                    None => Ok(()),
                };
                scheduler.queue.settle(key, outcome);
            });
            while running.try_join_next().is_some() {}
        }
    }

    fn listen(&self) {
        let this = self.clone();
        self.pods.cache.on_change(move |change| {
            let pod = change.object();
            let placed = !pods::node_name(pod).is_empty();
            if placed || matches!(change, Change::Gone(_)) {
                if let Some(uid) = pod.metadata.uid.as_ref() {
                    lock(&this.assumed).remove(uid);
                }
                lock(&this.parked).remove(&Key::of(pod.as_ref()));
            }
            match change {
                // Room was made, or a companion arrived.
                Change::Gone(_) => this.unpark(),
                Change::Set { old, new } if placed => {
                    let was_placed = old.is_some_and(|old| !pods::node_name(old).is_empty());
                    let finished = pods::is_finished(new) && old.is_none_or(|old| !pods::is_finished(old));
                    if !was_placed || finished {
                        this.unpark();
                    }
                }
                Change::Set { old, new } => {
                    let same =
                        old.is_some_and(|old| old.spec == new.spec && old.metadata.labels == new.metadata.labels);
                    if !same {
                        this.queue.add(Key::of(new.as_ref()));
                    }
                }
            }
        });
        let this = self.clone();
        self.nodes.cache.on_change(move |change| {
            if let Change::Set { old: Some(old), new } = change
                && summary(old) == summary(new)
            {
                return;
            }
            this.unpark();
        });
    }

    fn unpark(&self) {
        for key in lock(&self.parked).drain() {
            self.queue.add(key);
        }
    }

    /// Chooses a node for a pod that needs one, and counts it as taken.
    fn decide(&self, key: &Key) -> Option<(Arc<Pod>, Result<String, String>)> {
        let pod = self.pods.get(key)?;
        let spec = pod.spec.as_ref()?;
        let uid = pod.metadata.uid.clone()?;
        let gated = spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty());
        let ours = spec.scheduler_name.as_deref().is_none_or(|name| name.is_empty() || name == NAME);
        let done = !pods::node_name(&pod).is_empty() || !pods::is_active(&pod);
        if gated || !ours || done || lock(&self.assumed).contains_key(&uid) {
            return None;
        }
        let assumed = lock(&self.assumed).clone();
        let world = World::new(self.nodes.cache.all(), &self.pods.cache.all(), &assumed, &self.namespaces.cache.all());
        let decision = decide::decide(&pod, &world);
        if let Ok(node) = &decision {
            lock(&self.assumed).insert(uid, node.clone());
        }
        Some((pod, decision))
    }

    async fn bind(&self, pod: &Pod, node: &str) -> Result<(), Error> {
        let key = Key::of(pod);
        let binding = Binding {
            metadata: ObjectMeta {
                name: Some(key.name.clone()),
                namespace: Some(key.namespace.clone()),
                uid: pod.metadata.uid.clone(),
                ..ObjectMeta::default()
            },
            target: ObjectReference {
                kind: Some("Node".to_owned()),
                name: Some(node.to_owned()),
                ..ObjectReference::default()
            },
        };
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        let bound: Result<Value, _> =
            api.create_subresource("binding", &key.name, &PostParams::default(), &binding).await;
        match bound {
            Ok(_) => {
                let message = format!("Successfully assigned {key} to {node}");
                self.events.record(pod, Severity::Normal, "Scheduled", &message);
                Ok(())
            }
            Err(error) => {
                if let Some(uid) = pod.metadata.uid.as_ref() {
                    lock(&self.assumed).remove(uid);
                }
                let error = failed::<Pod>("bind", &key, error);
                if error.is_not_found() { Ok(()) } else { Err(error) }
            }
        }
    }

    /// Remembers a pod until something changes, and says why it has no node.
    async fn park(&self, pod: &Pod, message: &str) -> Result<(), Error> {
        let key = Key::of(pod);
        lock(&self.parked).insert(key.clone());
        let mut status = pod.status.clone().unwrap_or_default();
        let conditions = status.conditions.get_or_insert_default();
        let before = conditions.iter().position(|condition| condition.type_ == "PodScheduled");
        let known = before.is_some_and(|index| conditions[index].message.as_deref() == Some(message));
        if known {
            return Ok(());
        }
        self.events.record(pod, Severity::Warning, "FailedScheduling", message);
        let before = before.map(|index| conditions.remove(index));
        let since = before.filter(|old| old.status == "False").and_then(|old| old.last_transition_time);
        conditions.push(PodCondition {
            type_: "PodScheduled".to_owned(),
            status: "False".to_owned(),
            reason: Some("Unschedulable".to_owned()),
            message: Some(message.to_owned()),
            last_transition_time: since.or_else(|| Some(Time(Timestamp::now()))),
            ..PodCondition::default()
        });
        status.phase.get_or_insert_with(|| "Pending".to_owned());
        match self.pods.update_status(pod, pod.status.as_ref(), &status).await {
            Err(error) if error.is_not_found() => Ok(()),
            other => other.map(drop),
        }
    }
}

/// What of a node matters to scheduling: not its heartbeats.
fn summary(node: &Node) -> impl PartialEq + use<> {
    let status = node.status.as_ref();
    let ready = status.and_then(|status| {
        let conditions = status.conditions.as_ref()?;
        conditions.iter().find(|condition| condition.type_ == "Ready").map(|ready| ready.status.clone())
    });
    let allocatable = status.and_then(|status| status.allocatable.clone());
    (node.labels().clone(), node.spec.clone(), allocatable, ready)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
