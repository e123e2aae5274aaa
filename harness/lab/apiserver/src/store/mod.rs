//! The objects, in memory.
//!
//! One counter numbers every write. Each kind has a shelf: its objects in key order and a log of its latest writes.
//! Watches read the log at their own pace, so that a slow one delays nobody; one that falls behind the log's
//! beginning is told that its version expired, as etcd's compaction would do.

mod shelf;

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use serde_json::Value;
use tokio::sync::watch;

use shelf::Shelf;
pub(crate) use shelf::{Change, Event};

/// What a write expects to find.
#[derive(Clone, Copy)]
pub(crate) enum Expect<'a> {
    /// No object of that name.
    Absent,
    /// Exactly this version of the object.
    Same(&'a Arc<Value>),
}

/// The object was not as the write expected it.
#[derive(Debug)]
pub(crate) struct Changed;

/// The version lies before the beginning of the log.
#[derive(Debug)]
pub(crate) struct Expired;

/// All objects.
#[derive(Default)]
pub(crate) struct Store {
    inner: RwLock<Inner>,
}

#[derive(Default)]
struct Inner {
    version: u64,
    shelves: HashMap<Arc<str>, Shelf>,
}

impl Store {
    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Version of the latest write.
    pub(crate) fn version(&self) -> u64 {
        self.read().version
    }

    pub(crate) fn get(&self, kind: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.read().shelves.get(kind)?.get(namespace, name)
    }

    /// The objects of one kind, of one namespace or all, in key order, with the version at which they were so.
    pub(crate) fn list(&self, kind: &str, namespace: Option<&str>) -> (u64, Vec<Arc<Value>>) {
        let inner = self.read();
        let objects = inner.shelves.get(kind).map(|shelf| shelf.list(namespace)).unwrap_or_default();
        (inner.version, objects)
    }

    /// Number of objects of one kind.
    pub(crate) fn count(&self, kind: &str) -> usize {
        self.read().shelves.get(kind).map(Shelf::len).unwrap_or_default()
    }

    /// Stores `object` under its next version.
    pub(crate) fn put(
        &self,
        kind: &Arc<str>,
        key: (&str, &str),
        expect: Expect<'_>,
        mut object: Value,
    ) -> Result<Arc<Value>, Changed> {
        let mut inner = self.write();
        inner.check(kind, key, expect)?;
        inner.version += 1;
        let version = inner.version;
        object["metadata"]["resourceVersion"] = version.to_string().into();
        let object = Arc::new(object);
        inner.shelves.entry(kind.clone()).or_default().put(version, key, object.clone());
        Ok(object)
    }

    /// Removes an object; `last` is its last state, which watches get with the version of the removal.
    pub(crate) fn remove(
        &self,
        kind: &Arc<str>,
        key: (&str, &str),
        expect: Expect<'_>,
        mut last: Value,
    ) -> Result<Arc<Value>, Changed> {
        let mut inner = self.write();
        inner.check(kind, key, expect)?;
        inner.version += 1;
        let version = inner.version;
        last["metadata"]["resourceVersion"] = version.to_string().into();
        let last = Arc::new(last);
        inner.shelves.entry(kind.clone()).or_default().remove(version, key, last.clone());
        Ok(last)
    }

    /// Tells of every write to a kind from now on.
    pub(crate) fn subscribe(&self, kind: &Arc<str>) -> watch::Receiver<u64> {
        if let Some(shelf) = self.read().shelves.get(kind) {
            return shelf.subscribe();
        }
        self.write().shelves.entry(kind.clone()).or_default().subscribe()
    }

    /// The writes to a kind after `version`, and the version up to which that is everything.
    pub(crate) fn since(&self, kind: &str, version: u64) -> Result<(u64, Vec<Arc<Event>>), Expired> {
        let inner = self.read();
        let events = match inner.shelves.get(kind) {
            Some(shelf) => shelf.since(version)?,
            None => Vec::new(),
        };
        Ok((inner.version, events))
    }
}

impl Inner {
    fn check(&self, kind: &str, (namespace, name): (&str, &str), expect: Expect<'_>) -> Result<(), Changed> {
        let found = self.shelves.get(kind).and_then(|shelf| shelf.get(namespace, name));
        match (expect, found) {
            (Expect::Absent, None) => Ok(()),
            (Expect::Same(expected), Some(found)) if Arc::ptr_eq(expected, &found) => Ok(()),
            _ => Err(Changed),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_write_that_lost_a_race_is_refused() {
        let store = Store::default();
        let pods: Arc<str> = "pods".into();
        let one = store.put(&pods, ("a", "x"), Expect::Absent, json!({"metadata": {}})).unwrap();
        assert!(store.put(&pods, ("a", "x"), Expect::Absent, json!({"metadata": {}})).is_err());
        let two = store.put(&pods, ("a", "x"), Expect::Same(&one), json!({"metadata": {}})).unwrap();
        assert!(store.put(&pods, ("a", "x"), Expect::Same(&one), json!({"metadata": {}})).is_err());
        assert_eq!(two["metadata"]["resourceVersion"], "2");
    }

    #[test]
    fn the_log_tells_what_happened_after_a_version() {
        let store = Store::default();
        let pods: Arc<str> = "pods".into();
        let one = store.put(&pods, ("a", "x"), Expect::Absent, json!({"metadata": {}})).unwrap();
        store.remove(&pods, ("a", "x"), Expect::Same(&one), (*one).clone()).unwrap();
        let (version, events) = store.since("pods", 1).unwrap();
        assert_eq!(version, 2);
        assert_eq!(events.iter().map(|event| event.change).collect::<Vec<_>>(), [Change::Deleted]);
        assert!(store.since("other", 0).unwrap().1.is_empty());
    }

    #[test]
    fn an_old_write_tells_what_it_told_when_it_was_new() {
        let store = Store::default();
        let pods: Arc<str> = "pods".into();
        let object = |turn: usize| json!({"metadata": {"namespace": "a", "labels": {"turn": turn.to_string()}}});
        let mut last = store.put(&pods, ("a", "x"), Expect::Absent, object(0)).unwrap();
        let told = |events: Vec<Arc<Event>>| -> Vec<_> {
            events.iter().map(|event| (event.object(), event.previous(), event.text().clone())).collect()
        };
        let mut new = Vec::new();
        for turn in 1..200 {
            last = store.put(&pods, ("a", "x"), Expect::Same(&last), object(turn)).unwrap();
            new.extend(told(store.since("pods", turn.try_into().unwrap()).unwrap().1));
        }
        assert_eq!(told(store.since("pods", 1).unwrap().1), new);
        assert_eq!(new[0].1.as_ref().unwrap()["metadata"]["labels"]["turn"], "0");
    }

    /// The log's older half is text, of which each is there once.
    #[test]
    fn an_old_write_shares_its_text_with_the_one_before() {
        let store = Store::default();
        let pods: Arc<str> = "pods".into();
        let mut last = store.put(&pods, ("a", "x"), Expect::Absent, json!({"metadata": {}})).unwrap();
        for _ in 1..100 {
            last = store.put(&pods, ("a", "x"), Expect::Same(&last), json!({"metadata": {}})).unwrap();
        }
        let events = store.since("pods", 0).unwrap().1;
        let previous = events[9].previous_text().expect("it has been condensed");
        assert_eq!(previous.as_ptr(), events[8].text().as_ptr());
    }

    #[test]
    fn a_version_before_the_log_has_expired() {
        let store = Store::default();
        let pods: Arc<str> = "pods".into();
        let mut last = store.put(&pods, ("a", "x"), Expect::Absent, json!({"metadata": {}})).unwrap();
        for _ in 0..shelf::LOG_LENGTH + 1 {
            last = store.put(&pods, ("a", "x"), Expect::Same(&last), json!({"metadata": {}})).unwrap();
        }
        assert!(store.since("pods", 1).is_err());
        assert!(store.since("pods", 2).is_ok());
    }
}
