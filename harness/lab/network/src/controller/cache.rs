//! Objects of one kind as the API server last told, and the watch that keeps them so.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt;
use kube::api::Api;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

/// Objects by `<namespace>/<name>`, or by name where the kind has no namespace.
#[derive(Debug)]
pub(crate) struct Cache<K> {
    objects: Mutex<BTreeMap<String, Arc<K>>>,
    synced: watch::Sender<bool>,
}

impl<K> Default for Cache<K> {
    fn default() -> Self {
        Self { objects: Mutex::default(), synced: watch::Sender::new(false) }
    }
}

/// `<namespace>/<name>`, or the name.
pub(crate) fn key_of<K: Resource>(object: &K) -> String {
    match object.namespace() {
        Some(namespace) => format!("{namespace}/{}", object.name_any()),
        None => object.name_any(),
    }
}

impl<K> Cache<K> {
    pub(crate) fn get(&self, key: &str) -> Option<Arc<K>> {
        self.lock().get(key).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<K>> {
        self.lock().values().cloned().collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Objects of one namespace.
    pub(crate) fn in_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        let prefix = format!("{namespace}/");
        self.lock()
            .range(prefix.clone()..)
            .take_while(|(key, _)| key.starts_with(&prefix))
            .map(|(_, object)| object.clone())
            .collect()
    }

    /// Waits for the first complete list.
    pub(crate) async fn synced(&self) {
        let _ = self.synced.subscribe().wait_for(|synced| *synced).await;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<K>>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K> Cache<K>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    /// Follows all objects of `api` for ever; `changed` is told of each after the cache has it. Lost connections are
    /// renewed; what was deleted meanwhile is noticed with the new list.
    pub(crate) async fn follow(&self, api: Api<K>, changed: impl Fn(&K)) {
        let mut events = watcher(api, watcher::Config::default()).default_backoff().boxed();
        let mut listed: BTreeMap<String, Arc<K>> = BTreeMap::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(watcher::Event::Init) => listed.clear(),
                Ok(watcher::Event::InitApply(object)) => {
                    listed.insert(key_of(&object), Arc::new(object));
                }
                Ok(watcher::Event::InitDone) => {
                    let list = std::mem::take(&mut listed);
                    let old = std::mem::replace(&mut *self.lock(), list.clone());
                    self.synced.send_replace(true);
                    for (key, object) in &old {
                        if !list.contains_key(key) {
                            changed(object);
                        }
                    }
                    list.values().for_each(|object| changed(object));
                }
                Ok(watcher::Event::Apply(object)) => {
                    self.lock().insert(key_of(&object), Arc::new(object.clone()));
                    changed(&object);
                }
                Ok(watcher::Event::Delete(object)) => {
                    self.lock().remove(&key_of(&object));
                    changed(&object);
                }
                Err(error) => tracing::warn!(%error, "watching failed; trying again"),
            }
        }
    }
}
