//! A watched copy of all objects of one kind, shared by the controllers.
//!
//! Writers put what the API server answered into the copy at once ([`Cache::put`], [`Cache::remove`]), so that a
//! controller always sees its own writes and never creates a pod twice because the watch lags behind.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use kube::runtime::watcher::Event;
use kube::{Resource, ResourceExt};
use tokio::sync::watch;

/// How many uids of deleted objects are remembered, so that a late answer to our own write does not revive one.
const GRAVES: usize = 2048;

/// Namespace (empty for cluster-scoped objects) and name.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Key {
    pub(crate) fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned() }
    }

    pub(crate) fn of<K: ResourceExt>(object: &K) -> Self {
        Self {
            namespace: object.meta().namespace.clone().unwrap_or_default(),
            name: object.meta().name.clone().unwrap_or_default(),
        }
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.namespace.is_empty() { f.write_str(&self.name) } else { write!(f, "{}/{}", self.namespace, self.name) }
    }
}

/// What happened to an object.
pub(crate) enum Change<'a, K> {
    /// It appeared or changed.
    Set { old: Option<&'a Arc<K>>, new: &'a Arc<K> },
    /// It is gone; this was its last state that we know.
    Gone(&'a Arc<K>),
}

impl<'a, K> Change<'a, K> {
    /// The newest state, or the last one.
    pub(crate) fn object(&self) -> &'a Arc<K> {
        match self {
            Self::Set { new, .. } => new,
            Self::Gone(old) => old,
        }
    }

    /// The state before, if there was one.
    pub(crate) fn before(&self) -> Option<&'a Arc<K>> {
        match self {
            Self::Set { old, .. } => *old,
            Self::Gone(old) => Some(old),
        }
    }
}

type Handler<K> = Box<dyn Fn(&Change<'_, K>) + Send + Sync>;

/// Where a state of an object comes from.
#[derive(Clone, Copy, PartialEq)]
enum Origin {
    Watch,
    List,
    Ours,
}

/// All objects of a kind, as watched.
pub(crate) struct Cache<K>(Arc<Inner<K>>);

impl<K> Clone for Cache<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

struct Inner<K> {
    state: RwLock<State<K>>,
    /// Held while a change is made and told, so that handlers hear changes in order.
    telling: Mutex<Vec<Handler<K>>>,
    synced: watch::Sender<bool>,
}

struct State<K> {
    objects: BTreeMap<Key, Arc<K>>,
    graves: VecDeque<String>,
    /// While a list is running: what we wrote ourselves since it began, which the list may not contain.
    written: Option<HashSet<Key>>,
}

impl<K> Cache<K>
where
    K: Resource + Clone + std::fmt::Debug + Send + Sync + 'static,
{
    pub(crate) fn new() -> Self {
        Self(Arc::new(Inner {
            state: RwLock::new(State { objects: BTreeMap::new(), graves: VecDeque::new(), written: None }),
            telling: Mutex::new(Vec::new()),
            synced: watch::Sender::new(false),
        }))
    }

    fn read(&self) -> RwLockReadGuard<'_, State<K>> {
        self.0.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State<K>> {
        self.0.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `handler` for every change from now on, in order. It may read this cache, never write to it.
    pub(crate) fn on_change(&self, handler: impl Fn(&Change<'_, K>) + Send + Sync + 'static) {
        let mut handlers = self.0.telling.lock().unwrap_or_else(PoisonError::into_inner);
        for object in self.all() {
            handler(&Change::Set { old: None, new: &object });
        }
        handlers.push(Box::new(handler));
    }

    /// The object, if there is one.
    pub(crate) fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.read().objects.get(key).cloned()
    }

    /// All objects of a namespace, by name.
    pub(crate) fn in_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        let first = Key::new(namespace, "");
        self.read()
            .objects
            .range((Bound::Included(first), Bound::Unbounded))
            .take_while(|(key, _)| key.namespace == namespace)
            .map(|(_, object)| Arc::clone(object))
            .collect()
    }

    /// All objects.
    pub(crate) fn all(&self) -> Vec<Arc<K>> {
        self.read().objects.values().cloned().collect()
    }

    /// Waits until the first list has arrived.
    pub(crate) async fn synced(&self) {
        let mut synced = self.0.synced.subscribe();
        // The sender lives as long as `self`.
        let _ = synced.wait_for(|synced| *synced).await;
    }

    /// Takes over an object that the API server answered to a write of ours.
    pub(crate) fn put(&self, object: K) -> Arc<K> {
        let object = Arc::new(slim(object));
        let key = Key::of(object.as_ref());
        self.set(key, &object, Origin::Ours);
        object
    }

    /// Takes over that an object is gone.
    pub(crate) fn remove(&self, key: &Key, uid: Option<&str>) {
        self.gone(key, uid);
    }

    fn set(&self, key: Key, object: &Arc<K>, origin: Origin) {
        let handlers = self.0.telling.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.write();
        if let Some(uid) = object.meta().uid.as_ref()
            && state.graves.contains(uid)
        {
            return;
        }
        if let Some(written) = state.written.as_mut()
            && origin == Origin::Ours
        {
            written.insert(key.clone());
        }
        let old = state.objects.get(&key).cloned();
        // A list from a server that began anew counts its versions from the start again.
        let successor = |old: &Arc<K>| origin == Origin::List && old.meta().uid != object.meta().uid;
        if let Some(old) = &old
            && !successor(old)
            && !newer(old.meta().resource_version.as_deref(), object.meta().resource_version.as_deref())
        {
            return;
        }
        state.objects.insert(key, Arc::clone(object));
        drop(state);
        // Another object took the name before we heard that the first one was gone.
        let old = match old {
            Some(old) if old.meta().uid != object.meta().uid => {
                for handler in handlers.iter() {
                    handler(&Change::Gone(&old));
                }
                None
            }
            other => other,
        };
        for handler in handlers.iter() {
            handler(&Change::Set { old: old.as_ref(), new: object });
        }
    }

    fn gone(&self, key: &Key, uid: Option<&str>) {
        let handlers = self.0.telling.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.write();
        if let Some(uid) = uid {
            if state.graves.len() >= GRAVES {
                state.graves.pop_front();
            }
            state.graves.push_back(uid.to_owned());
        }
        let Some(object) = state.objects.get(key).cloned() else { return };
        if uid.is_some() && object.meta().uid.as_deref() != uid {
            return;
        }
        state.objects.remove(key);
        drop(state);
        for handler in handlers.iter() {
            handler(&Change::Gone(&object));
        }
    }

    /// Takes over what the watch tells. `listed` collects the keys of a list that is running.
    pub(crate) fn observe(&self, event: Event<K>, listed: &mut HashSet<Key>) {
        match event {
            Event::Init => {
                listed.clear();
                self.write().written = Some(HashSet::new());
            }
            Event::InitApply(object) => {
                let object = Arc::new(slim(object));
                let key = Key::of(object.as_ref());
                listed.insert(key.clone());
                self.set(key, &object, Origin::List);
            }
            Event::InitDone => {
                let mut state = self.write();
                let written = state.written.take().unwrap_or_default();
                let lost: Vec<(Key, Option<String>)> = state
                    .objects
                    .iter()
                    .filter(|(key, _)| !listed.contains(*key) && !written.contains(*key))
                    .map(|(key, object)| (key.clone(), object.meta().uid.clone()))
                    .collect();
                drop(state);
                for (key, uid) in lost {
                    self.gone(&key, uid.as_deref());
                }
                listed.clear();
                self.0.synced.send_replace(true);
            }
            Event::Apply(object) => {
                let object = Arc::new(slim(object));
                self.set(Key::of(object.as_ref()), &object, Origin::Watch);
            }
            Event::Delete(object) => self.gone(&Key::of(&object), object.meta().uid.as_deref()),
        }
    }
}

/// Managed fields are the largest part of a small object and no controller reads them.
fn slim<K: Resource>(mut object: K) -> K {
    object.meta_mut().managed_fields = None;
    object
}

/// Whether resource version `new` is to replace `old`. Versions are opaque by contract, numbers in practice; what is
/// not a number is taken as newer, as a watch delivers in order anyway.
fn newer(old: Option<&str>, new: Option<&str>) -> bool {
    match (old.and_then(|v| v.parse::<u64>().ok()), new.and_then(|v| v.parse::<u64>().ok())) {
        (Some(old), Some(new)) => new > old,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::api::ObjectMeta;

    fn map(name: &str, uid: &str, version: u64) -> ConfigMap {
        ConfigMap {
            metadata: ObjectMeta {
                name: Some(name.into()),
                namespace: Some("a".into()),
                uid: Some(uid.into()),
                resource_version: Some(version.to_string()),
                ..ObjectMeta::default()
            },
            ..ConfigMap::default()
        }
    }

    fn version(cache: &Cache<ConfigMap>, name: &str) -> Option<String> {
        cache.get(&Key::new("a", name)).and_then(|object| object.metadata.resource_version.clone())
    }

    #[test]
    fn a_late_event_does_not_undo_our_own_write() {
        let cache = Cache::new();
        let mut listed = HashSet::new();
        cache.put(map("x", "1", 9));
        cache.observe(Event::Apply(map("x", "1", 7)), &mut listed);
        assert_eq!(version(&cache, "x").as_deref(), Some("9"));
    }

    #[test]
    fn a_late_answer_does_not_revive_a_deleted_object() {
        let cache = Cache::new();
        let mut listed = HashSet::new();
        cache.observe(Event::Apply(map("x", "1", 5)), &mut listed);
        cache.observe(Event::Delete(map("x", "1", 6)), &mut listed);
        cache.put(map("x", "1", 5));
        assert_eq!(version(&cache, "x"), None);
    }

    #[test]
    fn a_new_list_drops_what_it_lacks_but_not_what_we_wrote_since() {
        let cache: Cache<ConfigMap> = Cache::new();
        let told = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&told);
        cache.on_change(move |change| {
            if let Change::Gone(object) = change {
                log.lock().unwrap().push(object.name_any());
            }
        });
        let mut listed = HashSet::new();
        cache.observe(Event::Apply(map("old", "1", 5)), &mut listed);
        cache.observe(Event::Apply(map("kept", "2", 6)), &mut listed);
        cache.observe(Event::Init, &mut listed);
        cache.put(map("ours", "3", 10));
        cache.observe(Event::InitApply(map("kept", "2", 6)), &mut listed);
        cache.observe(Event::InitDone, &mut listed);
        assert_eq!(told.lock().unwrap().as_slice(), ["old"]);
        assert_eq!(cache.in_namespace("a").len(), 2);
        assert!(version(&cache, "ours").is_some());
    }

    #[test]
    fn a_successor_with_the_same_name_is_told_as_gone_and_set() {
        let cache: Cache<ConfigMap> = Cache::new();
        let told = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&told);
        cache.on_change(move |change| {
            let word = match change {
                Change::Set { old: None, .. } => "new",
                Change::Set { .. } => "changed",
                Change::Gone(_) => "gone",
            };
            log.lock().unwrap().push(word);
        });
        cache.put(map("x", "1", 5));
        cache.put(map("x", "2", 8));
        assert_eq!(told.lock().unwrap().as_slice(), ["new", "gone", "new"]);
    }
}
