//! One kind's objects and the log of its latest writes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::watch;

use super::Expired;

/// Writes that a kind's log remembers at most. A watch that is further behind lists anew.
pub(super) const LOG_LENGTH: usize = 256;

/// Of them, those that keep objects and not text.
const RECENT: usize = 16;

/// How long a kind's log remembers a write: as long as etcd does under Kubernetes.
const LOG_AGE: Duration = Duration::from_secs(5 * 60);

/// What a write did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Added,
    Modified,
    Deleted,
}

/// One write.
///
/// A watch is seldom more than a few writes behind, so the latest writes keep their objects as they are in the store;
/// older ones keep them as text, which is a fifth of that, and read it again for whoever comes late.
pub(crate) struct Event {
    pub(crate) version: u64,
    pub(crate) change: Change,
    /// The object's namespace, empty where it has none.
    pub(crate) namespace: Box<str>,
    states: RwLock<Option<States>>,
    /// The object after the write as JSON in the version it is stored in, written once for all watches.
    text: OnceLock<Bytes>,
    /// The same of the object before the write; only where `states` are gone.
    previous: OnceLock<Bytes>,
    at: Instant,
}

/// An object around a write.
#[derive(Clone)]
struct States {
    object: Arc<Value>,
    previous: Option<Arc<Value>>,
}

impl Event {
    fn new(version: u64, change: Change, object: Arc<Value>, previous: Option<Arc<Value>>) -> Self {
        Self {
            version,
            change,
            namespace: crate::json::namespace(&object).into(),
            states: RwLock::new(Some(States { object, previous })),
            text: OnceLock::new(),
            previous: OnceLock::new(),
            at: Instant::now(),
        }
    }

    fn states(&self) -> Option<States> {
        self.states.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The object after the write; for a deletion its last state.
    pub(crate) fn object(&self) -> Arc<Value> {
        self.states().map_or_else(|| read(self.text()), |states| states.object)
    }

    /// The object before the write.
    pub(crate) fn previous(&self) -> Option<Arc<Value>> {
        match self.states() {
            Some(states) => states.previous,
            None => self.previous.get().map(read),
        }
    }

    /// `object` as JSON text.
    pub(crate) fn text(&self) -> &Bytes {
        self.text.get_or_init(|| self.states().map(|states| text(&states.object)).unwrap_or_default())
    }

    #[cfg(test)]
    pub(super) fn previous_text(&self) -> Option<&Bytes> {
        self.previous.get()
    }

    /// Keeps text only; `before`: the write that made the object as it was before this one, whose text it is then.
    fn condense(&self, before: Option<&Self>) {
        self.text();
        let mut states = self.states.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(previous) = states.take().and_then(|states| states.previous) {
            self.previous.get_or_init(|| before.map_or_else(|| text(&previous), |before| before.text().clone()));
        }
    }
}

fn text(object: &Value) -> Bytes {
    serde_json::to_vec(object).unwrap_or_default().into()
}

/// What [`text`] wrote.
fn read(text: &Bytes) -> Arc<Value> {
    Arc::new(serde_json::from_slice(text).unwrap_or_default())
}

/// The version that wrote an object; zero where none did.
fn version_of(object: &Value) -> u64 {
    let version = object["metadata"]["resourceVersion"].as_str();
    version.and_then(|version| version.parse().ok()).unwrap_or_default()
}

pub(super) struct Shelf {
    objects: BTreeMap<(Box<str>, Box<str>), Arc<Value>>,
    log: VecDeque<Arc<Event>>,
    /// Version of the latest write that fell off the log.
    forgotten: u64,
    latest: watch::Sender<u64>,
}

impl Default for Shelf {
    fn default() -> Self {
        Self { objects: BTreeMap::new(), log: VecDeque::new(), forgotten: 0, latest: watch::Sender::new(0) }
    }
}

fn key((namespace, name): (&str, &str)) -> (Box<str>, Box<str>) {
    (namespace.into(), name.into())
}

impl Shelf {
    pub(super) fn len(&self) -> usize {
        self.objects.len()
    }

    pub(super) fn get(&self, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.objects.get(&key((namespace, name))).cloned()
    }

    pub(super) fn list(&self, namespace: Option<&str>) -> Vec<Arc<Value>> {
        match namespace {
            None => self.objects.values().cloned().collect(),
            Some(namespace) => self
                .objects
                .range(key((namespace, ""))..)
                .take_while(|((of, _), _)| **of == *namespace)
                .map(|(_, object)| object.clone())
                .collect(),
        }
    }

    pub(super) fn put(&mut self, version: u64, at: (&str, &str), object: Arc<Value>) {
        let previous = self.objects.insert(key(at), object.clone());
        let change = if previous.is_some() { Change::Modified } else { Change::Added };
        self.record(Event::new(version, change, object, previous));
    }

    pub(super) fn remove(&mut self, version: u64, at: (&str, &str), last: Arc<Value>) {
        let previous = self.objects.remove(&key(at));
        self.record(Event::new(version, Change::Deleted, last, previous));
    }

    fn record(&mut self, event: Event) {
        let version = event.version;
        self.log.push_back(Arc::new(event));
        if let Some(late) = self.log.len().checked_sub(RECENT + 1).and_then(|place| self.log.get(place)) {
            let before = late.previous().and_then(|previous| self.at(version_of(&previous)));
            late.condense(before);
        }
        while let Some(oldest) = self.log.front()
            && (self.log.len() > LOG_LENGTH || oldest.at.elapsed() > LOG_AGE)
        {
            self.forgotten = oldest.version;
            self.log.pop_front();
        }
        self.latest.send_replace(version);
    }

    /// The write of this version, as long as it is remembered.
    fn at(&self, version: u64) -> Option<&Event> {
        let place = self.log.binary_search_by_key(&version, |event| event.version).ok()?;
        self.log.get(place).map(AsRef::as_ref)
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.latest.subscribe()
    }

    pub(super) fn since(&self, version: u64) -> Result<Vec<Arc<Event>>, Expired> {
        if version < self.forgotten {
            return Err(Expired);
        }
        let from = self.log.partition_point(|event| event.version <= version);
        Ok(self.log.range(from..).cloned().collect())
    }
}
