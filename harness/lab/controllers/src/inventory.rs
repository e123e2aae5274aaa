//! Owners, finalizers and deletion of all objects of all kinds: what the garbage collector and the namespace controller
//! need to know. Kinds that other controllers watch anyway report here from their caches; the others are watched for
//! their metadata only.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Client;
use kube::api::{Api, DynamicObject, ObjectMeta};
use kube::core::PartialObjectMeta;
use kube::runtime::watcher;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use crate::cache::{Cache, Change, Key};
use crate::kinds::{KindId, Kinds};
use crate::objects::Kind;

/// Kinds that own nothing, are owned by nobody, and change all the time.
const IGNORED: [&str; 1] = ["events"];

/// What is known of one object.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) kind: KindId,
    pub(crate) key: Key,
    pub(crate) uid: String,
    pub(crate) owners: Vec<OwnerReference>,
    pub(crate) finalizers: Vec<String>,
    pub(crate) deleting: bool,
}

impl Item {
    fn new(kind: &KindId, meta: &ObjectMeta) -> Option<Self> {
        Some(Self {
            kind: kind.clone(),
            key: Key::new(meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref()?),
            uid: meta.uid.clone()?,
            owners: meta.owner_references.clone().unwrap_or_default(),
            finalizers: meta.finalizers.clone().unwrap_or_default(),
            deleting: meta.deletion_timestamp.is_some(),
        })
    }

    pub(crate) fn has_finalizer(&self, name: &str) -> bool {
        self.finalizers.iter().any(|finalizer| finalizer == name)
    }
}

/// What happened to an item.
#[derive(Clone, Debug)]
pub(crate) enum Seen {
    Set(Arc<Item>),
    Gone(Arc<Item>),
}

type Listener = Box<dyn Fn(&Seen) + Send + Sync>;

/// All objects, by uid.
#[derive(Clone)]
pub(crate) struct Inventory {
    state: Arc<Mutex<State>>,
    listeners: Arc<Mutex<Vec<Listener>>>,
}

#[derive(Default)]
struct State {
    items: HashMap<String, Arc<Item>>,
    dependents: HashMap<String, HashSet<String>>,
    by_namespace: HashMap<String, HashSet<String>>,
    /// Kinds that a cache of another controller reports.
    reported: HashSet<KindId>,
}

impl Inventory {
    pub(crate) fn new() -> Self {
        Self { state: Arc::default(), listeners: Arc::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `listener` for everything that happens from now on.
    pub(crate) fn listen(&self, listener: impl Fn(&Seen) + Send + Sync + 'static) {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(listener));
    }

    /// Takes a kind from a cache that is watched anyway. To be called before [`Self::run`].
    pub(crate) fn report<K: Kind>(&self, cache: &Cache<K>) {
        let kind = (K::group(&()).into_owned(), K::plural(&()).into_owned());
        self.state().reported.insert(kind.clone());
        self.follow(kind, cache);
    }

    fn follow<K>(&self, kind: KindId, cache: &Cache<K>)
    where
        K: kube::Resource + Clone + std::fmt::Debug + Send + Sync + 'static,
    {
        let inventory = self.clone();
        cache.on_change(move |change| match change {
            Change::Set { new, .. } => inventory.set(&kind, new.meta()),
            Change::Gone(old) => inventory.gone(old.meta().uid.as_deref().unwrap_or_default()),
        });
    }

    /// Watches every kind that no cache reports, and follows kinds that come and go. Never ends.
    pub(crate) async fn run(self, client: Client, mut kinds: watch::Receiver<Kinds>) {
        let mut watches = JoinSet::new();
        let mut running: BTreeMap<KindId, (String, AbortHandle)> = BTreeMap::new();
        loop {
            let wanted = kinds.borrow_and_update().clone();
            running.retain(|id, (version, handle)| {
                let keep = wanted.get(id).is_some_and(|info| info.resource.api_version == *version);
                if !keep {
                    handle.abort();
                    self.drop_kind(id);
                }
                keep
            });
            for (id, info) in &wanted {
                let reported = self.state().reported.contains(id);
                if reported || running.contains_key(id) || !info.watchable || IGNORED.contains(&id.1.as_str()) {
                    continue;
                }
                let cache: Cache<PartialObjectMeta<DynamicObject>> = Cache::new();
                self.follow(id.clone(), &cache);
                let api: Api<PartialObjectMeta<DynamicObject>> = Api::all_with(client.clone(), &info.resource);
                let handle = watches.spawn(cache.watch(api, watcher::Config::default()));
                running.insert(id.clone(), (info.resource.api_version.clone(), handle));
            }
            while watches.try_join_next().is_some() {}
            if kinds.changed().await.is_err() {
                return;
            }
        }
    }

    fn set(&self, kind: &KindId, meta: &ObjectMeta) {
        let Some(item) = Item::new(kind, meta).map(Arc::new) else { return };
        let mut state = self.state();
        state.forget(&item.uid);
        for owner in &item.owners {
            state.dependents.entry(owner.uid.clone()).or_default().insert(item.uid.clone());
        }
        state.by_namespace.entry(item.key.namespace.clone()).or_default().insert(item.uid.clone());
        state.items.insert(item.uid.clone(), Arc::clone(&item));
        drop(state);
        self.tell(&Seen::Set(item));
    }

    fn gone(&self, uid: &str) {
        let gone = self.state().forget(uid);
        if let Some(item) = gone {
            self.tell(&Seen::Gone(item));
        }
    }

    fn drop_kind(&self, kind: &KindId) {
        let lost: Vec<String> =
            self.state().items.values().filter(|item| item.kind == *kind).map(|item| item.uid.clone()).collect();
        for uid in lost {
            self.gone(&uid);
        }
    }

    fn tell(&self, seen: &Seen) {
        for listener in self.listeners.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            listener(seen);
        }
    }

    pub(crate) fn get(&self, uid: &str) -> Option<Arc<Item>> {
        self.state().items.get(uid).cloned()
    }

    /// The objects that name this uid as an owner.
    pub(crate) fn dependents(&self, uid: &str) -> Vec<Arc<Item>> {
        let state = self.state();
        let uids = state.dependents.get(uid).into_iter().flatten();
        uids.filter_map(|uid| state.items.get(uid).cloned()).collect()
    }

    /// The objects of a namespace.
    pub(crate) fn in_namespace(&self, namespace: &str) -> Vec<Arc<Item>> {
        let state = self.state();
        let uids = state.by_namespace.get(namespace).into_iter().flatten();
        uids.filter_map(|uid| state.items.get(uid).cloned()).collect()
    }
}

impl State {
    fn forget(&mut self, uid: &str) -> Option<Arc<Item>> {
        let item = self.items.remove(uid)?;
        for owner in &item.owners {
            if let Some(dependents) = self.dependents.get_mut(&owner.uid) {
                dependents.remove(uid);
                if dependents.is_empty() {
                    self.dependents.remove(&owner.uid);
                }
            }
        }
        if let Some(items) = self.by_namespace.get_mut(&item.key.namespace) {
            items.remove(uid);
            if items.is_empty() {
                self.by_namespace.remove(&item.key.namespace);
            }
        }
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(name: &str, owner: Option<&str>) -> ObjectMeta {
        ObjectMeta {
            name: Some(name.into()),
            namespace: Some("a".into()),
            uid: Some(name.into()),
            owner_references: owner.map(|uid| vec![OwnerReference { uid: uid.into(), ..OwnerReference::default() }]),
            ..ObjectMeta::default()
        }
    }

    #[test]
    fn dependents_follow_changes_of_owners() {
        let inventory = Inventory::new();
        let kind = (String::new(), "pods".to_owned());
        inventory.set(&kind, &meta("owner", None));
        inventory.set(&kind, &meta("pod", Some("owner")));
        let names = |uid: &str| inventory.dependents(uid).iter().map(|item| item.uid.clone()).collect::<Vec<_>>();
        assert_eq!(names("owner"), ["pod"]);
        inventory.set(&kind, &meta("pod", Some("other")));
        assert_eq!((names("owner").len(), names("other").len()), (0, 1));
        inventory.gone("pod");
        assert!(names("other").is_empty());
        assert_eq!(inventory.in_namespace("a").len(), 1);
        inventory.drop_kind(&kind);
        assert!(inventory.in_namespace("a").is_empty());
    }
}
