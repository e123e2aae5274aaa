//! One kind's objects and the log of its latest writes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::watch;

use super::Expired;

/// Writes that a kind's log remembers at most. Each keeps one old version of an object alive (some KiB), and a watch that
/// is further behind lists anew. Most of a busy server's memory is here.
pub(super) const LOG_LENGTH: usize = 384;

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
pub(crate) struct Event {
    pub(crate) version: u64,
    pub(crate) change: Change,
    /// The object after the write; for a deletion its last state.
    pub(crate) object: Arc<Value>,
    /// The object before the write.
    pub(crate) previous: Option<Arc<Value>>,
    /// `object` as JSON in the version it is stored in, written once for all watches.
    text: OnceLock<Bytes>,
    at: Instant,
}

impl Event {
    /// `object` as JSON text.
    pub(crate) fn text(&self) -> &Bytes {
        self.text.get_or_init(|| serde_json::to_vec(&*self.object).unwrap_or_default().into())
    }
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
        self.record(Event { version, change, object, previous, text: OnceLock::new(), at: Instant::now() });
    }

    pub(super) fn remove(&mut self, version: u64, at: (&str, &str), last: Arc<Value>) {
        let previous = self.objects.remove(&key(at));
        self.record(Event {
            version,
            change: Change::Deleted,
            object: last,
            previous,
            text: OnceLock::new(),
            at: Instant::now(),
        });
    }

    fn record(&mut self, event: Event) {
        let version = event.version;
        self.log.push_back(Arc::new(event));
        while let Some(oldest) = self.log.front()
            && (self.log.len() > LOG_LENGTH || oldest.at.elapsed() > LOG_AGE)
        {
            self.forgotten = oldest.version;
            self.log.pop_front();
        }
        self.latest.send_replace(version);
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
