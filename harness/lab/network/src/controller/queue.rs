//! Keys waiting to be reconciled: each at most once, never twice at a time, failures again after a growing pause.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt::{Debug, Display};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

/// Pauses after failures, from and to.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(crate) struct Queue<K> {
    inner: Mutex<Inner<K>>,
    ready: Notify,
}

#[derive(Debug)]
struct Inner<K> {
    order: VecDeque<K>,
    waiting: HashSet<K>,
    running: HashSet<K>,
    again: HashSet<K>,
    failures: HashMap<K, u32>,
}

impl<K> Default for Queue<K> {
    fn default() -> Self {
        let inner = Inner {
            order: VecDeque::new(),
            waiting: HashSet::new(),
            running: HashSet::new(),
            again: HashSet::new(),
            failures: HashMap::new(),
        };
        Self { inner: Mutex::new(inner), ready: Notify::new() }
    }
}

impl<K: Clone + Debug + Eq + Hash + Send + Sync + 'static> Queue<K> {
    pub(crate) fn add(&self, key: K) {
        let mut inner = self.lock();
        if inner.running.contains(&key) {
            inner.again.insert(key);
        } else if inner.waiting.insert(key.clone()) {
            inner.order.push_back(key);
            drop(inner);
            self.ready.notify_one();
        }
    }

    /// Reconciles keys for ever, one at a time; run as many of these side by side as should work at once.
    pub(crate) async fn work<E: Display, F: Future<Output = Result<(), E>>>(
        self: Arc<Self>,
        reconcile: impl Fn(K) -> F,
    ) {
        loop {
            let key = self.next().await;
            let result = reconcile(key.clone()).await;
            if let Some(pause) = self.done(&key, result.is_err()) {
                if let Err(error) = result {
                    tracing::warn!(?key, %error, ?pause, "reconciling failed; trying again");
                }
                let queue = Arc::clone(&self);
                tokio::spawn(async move {
                    tokio::time::sleep(pause).await;
                    queue.add(key);
                });
            }
        }
    }

    async fn next(&self) -> K {
        loop {
            {
                let mut inner = self.lock();
                if let Some(key) = inner.order.pop_front() {
                    inner.waiting.remove(&key);
                    inner.running.insert(key.clone());
                    // One permit wakes one worker; pass it on while there is more.
                    if !inner.order.is_empty() {
                        self.ready.notify_one();
                    }
                    return key;
                }
            }
            self.ready.notified().await;
        }
    }

    /// Ends work on a key; after a failure returns how long to wait.
    fn done(&self, key: &K, failed: bool) -> Option<Duration> {
        let mut inner = self.lock();
        inner.running.remove(key);
        let again = inner.again.remove(key);
        if !failed {
            inner.failures.remove(key);
        }
        let pause = failed.then(|| {
            let count = inner.failures.entry(key.clone()).or_insert(0);
            *count += 1;
            FIRST_PAUSE.saturating_mul(1 << (*count - 1).min(10)).min(LONGEST_PAUSE)
        });
        drop(inner);
        if again {
            self.add(key.clone());
            return None;
        }
        pause
    }

    fn lock(&self) -> MutexGuard<'_, Inner<K>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// A paced poll: a queue tells nobody.
    async fn until(what: &str, holds: impl Fn() -> bool) {
        let poll = async {
            while !holds() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), poll)
            .await
            .unwrap_or_else(|_| panic!("waited for {what} in vain"));
    }

    #[tokio::test]
    async fn a_key_is_never_worked_on_twice_at_once() {
        let queue: Arc<Queue<&str>> = Arc::default();
        let (running, most, runs) =
            (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        for _ in 0..4 {
            let (running, most, runs) = (running.clone(), most.clone(), runs.clone());
            tokio::spawn(queue.clone().work(move |_| {
                let (running, most, runs) = (running.clone(), most.clone(), runs.clone());
                async move {
                    most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    running.fetch_sub(1, Ordering::SeqCst);
                    runs.fetch_add(1, Ordering::SeqCst);
                    Ok::<(), String>(())
                }
            }));
        }
        for _ in 0..20 {
            queue.add("a");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let done = || runs.load(Ordering::SeqCst) >= 2 && running.load(Ordering::SeqCst) == 0;
        until("a change during work to be worked on", done).await;
        assert_eq!(most.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn failures_are_tried_again() {
        let queue: Arc<Queue<u8>> = Arc::default();
        let runs = Arc::new(AtomicU32::new(0));
        let counted = runs.clone();
        tokio::spawn(queue.clone().work(move |_| {
            let run = counted.fetch_add(1, Ordering::SeqCst);
            async move { if run < 2 { Err("not yet") } else { Ok(()) } }
        }));
        queue.add(1);
        until("three tries", || runs.load(Ordering::SeqCst) == 3).await;
    }
}
