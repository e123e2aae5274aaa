//! Watched copies of objects, and waiting for what they say.

use std::fmt::Debug;
use std::sync::Arc;

use futures::StreamExt;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

/// All objects of a kind, as the API server tells them.
#[derive(Debug)]
pub(crate) struct Watched<K>
where
    K: 'static + Resource<DynamicType = ()>,
{
    store: Store<K>,
    changed: watch::Receiver<u64>,
}

impl<K> Clone for Watched<K>
where
    K: 'static + Resource<DynamicType = ()>,
{
    fn clone(&self) -> Self {
        Self { store: self.store.clone(), changed: self.changed.clone() }
    }
}

impl<K> Watched<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    /// Watches in the background, for ever.
    pub(crate) fn start(api: Api<K>, config: watcher::Config) -> Self {
        let (store, writer) = reflector::store();
        let (sender, changed) = watch::channel(0);
        tokio::spawn(async move {
            let mut events = watcher(api, config).default_backoff().reflect(writer).boxed();
            while let Some(event) = events.next().await {
                if let Err(error) = event {
                    tracing::debug!(%error, "a watch was interrupted");
                }
                sender.send_modify(|count| *count += 1);
            }
        });
        Self { store, changed }
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<Arc<K>> {
        self.store.state()
    }

    /// The object of this name.
    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.store.get(&ObjectRef::new(name).within(namespace))
    }

    /// Waits until `look` finds something.
    pub(crate) async fn until<T>(&self, mut look: impl FnMut(&Self) -> Option<T>) -> T {
        let mut changed = self.changed.clone();
        loop {
            changed.mark_unchanged();
            if let Some(found) = look(self) {
                return found;
            }
            if changed.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// A receiver that hears of every change.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.clone()
    }
}
