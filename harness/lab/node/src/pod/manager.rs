//! Watches the node's pods and gives each a worker.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use tokio::sync::watch;

use super::record::PodCell;
use super::worker;
use crate::kubelet::Host;

/// The node's pods by namespace and name, for exec, attach and logs.
#[derive(Clone, Default)]
pub(crate) struct Pods(Arc<Mutex<ByName>>);

/// Pods by namespace and name.
type ByName = HashMap<(String, String), Arc<PodCell>>;

impl Pods {
    /// The pod of this name; the younger one where two have it.
    pub(crate) fn find(&self, namespace: &str, name: &str) -> Option<Arc<PodCell>> {
        self.lock().get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<Arc<PodCell>> {
        self.lock().values().cloned().collect()
    }

    fn insert(&self, cell: &Arc<PodCell>) {
        self.lock().insert((cell.namespace.clone(), cell.name.clone()), Arc::clone(cell));
    }

    fn remove(&self, cell: &Arc<PodCell>) {
        let key = (cell.namespace.clone(), cell.name.clone());
        let mut pods = self.lock();
        if pods.get(&key).is_some_and(|found| Arc::ptr_eq(found, cell)) {
            pods.remove(&key);
        }
    }

    fn lock(&self) -> MutexGuard<'_, ByName> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A worker at work: where its pod's versions go, and the task, which ends with this value.
struct Worker {
    object: watch::Sender<Option<Arc<Pod>>>,
    _task: AbortOnDrop,
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Follows the node's pods, for ever.
pub(crate) async fn run(host: Arc<Host>) {
    let client: Client = host.client.clone();
    let config = watcher::Config::default().fields(&format!("spec.nodeName={}", host.node.name));
    let mut events = watcher(Api::<Pod>::all(client), config).default_backoff().boxed();
    let mut workers: HashMap<String, Worker> = HashMap::new();
    let mut listed = HashSet::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Init) => listed.clear(),
            Ok(watcher::Event::InitApply(pod)) => {
                listed.extend(pod.uid());
                apply(&host, &mut workers, pod);
            }
            Ok(watcher::Event::InitDone) => {
                let gone: Vec<String> = workers.keys().filter(|uid| !listed.contains(*uid)).cloned().collect();
                for uid in gone {
                    forget(&mut workers, &uid);
                }
            }
            Ok(watcher::Event::Apply(pod)) => apply(&host, &mut workers, pod),
            Ok(watcher::Event::Delete(pod)) => forget(&mut workers, &pod.uid().unwrap_or_default()),
            Err(error) => {
                tracing::warn!(node = host.node.name, %error, "cannot watch the node's pods; trying again");
            }
        }
    }
}

fn apply(host: &Arc<Host>, workers: &mut HashMap<String, Worker>, pod: Pod) {
    let Some(uid) = pod.uid() else { return };
    let pod = Arc::new(pod);
    if let Some(worker) = workers.get(&uid) {
        worker.object.send_replace(Some(pod));
        return;
    }
    let (object, receiver) = watch::channel(Some(Arc::clone(&pod)));
    let cell = Arc::new(PodCell::new(pod, receiver));
    host.pods.insert(&cell);
    let host = Arc::clone(host);
    let task = tokio::spawn(async move {
        worker::run(&host, &cell).await;
        host.pods.remove(&cell);
    });
    workers.insert(uid, Worker { object, _task: AbortOnDrop(task) });
}

/// The pod is gone from the API server: its worker ends it without grace, and then itself.
fn forget(workers: &mut HashMap<String, Worker>, uid: &str) {
    let Some(worker) = workers.remove(uid) else { return };
    worker.object.send_replace(None);
    tokio::spawn(async move {
        let mut worker = worker;
        // An aborted or finished task gives an error or a value; either way it is over.
        let _ = (&mut worker._task.0).await;
    });
}
