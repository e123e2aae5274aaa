//! A work queue with the semantics of client-go's: a key waits once however often it is added, is never worked on by
//! two workers at a time, and comes back after a growing delay when it failed.

use std::collections::{HashMap, HashSet, VecDeque};
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::Error;

/// First delay after a failure; doubles each time. client-go's default is the same.
const FIRST_DELAY: Duration = Duration::from_millis(5);
/// Longest delay after a failure.
const LONGEST_DELAY: Duration = Duration::from_secs(10);

/// Keys waiting to be reconciled.
pub(crate) struct Queue<T>(Arc<Inner<T>>);

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

struct Inner<T> {
    state: Mutex<State<T>>,
    wake: Notify,
}

struct State<T> {
    ready: VecDeque<T>,
    waiting: HashSet<T>,
    working: HashSet<T>,
    delayed: HashMap<T, Instant>,
    failures: HashMap<T, u32>,
}

impl<T: Clone + Eq + Hash + Send + 'static> Queue<T> {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Inner {
            state: Mutex::new(State {
                ready: VecDeque::new(),
                waiting: HashSet::new(),
                working: HashSet::new(),
                delayed: HashMap::new(),
                failures: HashMap::new(),
            }),
            wake: Notify::new(),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a key; one that already waits is not added again, one being worked on is worked on again afterwards.
    pub(crate) fn add(&self, key: T) {
        let mut state = self.state();
        if state.waiting.insert(key.clone()) && !state.working.contains(&key) {
            state.ready.push_back(key);
            drop(state);
            self.0.wake.notify_one();
        }
    }

    /// Adds a key after a delay; the earliest of several delays counts.
    pub(crate) fn add_after(&self, key: T, delay: Duration) {
        let due = Instant::now() + delay;
        let mut state = self.state();
        let entry = state.delayed.entry(key).or_insert(due);
        *entry = (*entry).min(due);
        drop(state);
        self.0.wake.notify_one();
    }

    /// Adds a failed key after a delay that grows with each failure in a row.
    fn retry(&self, key: T) {
        let mut state = self.state();
        let failures = state.failures.entry(key.clone()).or_insert(0);
        let delay = FIRST_DELAY.saturating_mul(1 << (*failures).min(16)).min(LONGEST_DELAY);
        *failures += 1;
        drop(state);
        self.add_after(key, delay);
    }

    fn succeeded(&self, key: &T) {
        self.state().failures.remove(key);
    }

    /// Ends the work on a key taken by [`Self::next`] and tries it again if it failed.
    pub(crate) fn settle(&self, key: T, outcome: Result<(), Error>)
    where
        T: std::fmt::Debug,
    {
        match outcome {
            Ok(()) => self.succeeded(&key),
            Err(error) => {
                tracing::debug!(?key, %error, "retrying");
                self.retry(key.clone());
            }
        }
        self.done(&key);
    }

    fn done(&self, key: &T) {
        let mut state = self.state();
        state.working.remove(key);
        if state.waiting.contains(key) {
            state.ready.push_back(key.clone());
            drop(state);
            self.0.wake.notify_one();
        }
    }

    /// The next key, or when the earliest delayed one is due.
    fn take(&self) -> Result<T, Option<Instant>> {
        let mut state = self.state();
        if !state.delayed.is_empty() {
            let now = Instant::now();
            let due: Vec<T> = state.delayed.iter().filter(|(_, at)| **at <= now).map(|(key, _)| key.clone()).collect();
            for key in due {
                state.delayed.remove(&key);
                if state.waiting.insert(key.clone()) && !state.working.contains(&key) {
                    state.ready.push_back(key);
                }
            }
        }
        match state.ready.pop_front() {
            Some(key) => {
                state.waiting.remove(&key);
                state.working.insert(key.clone());
                Ok(key)
            }
            None => Err(state.delayed.values().min().copied()),
        }
    }

    /// Waits for the next key. Cancelling it loses nothing.
    pub(crate) async fn next(&self) -> T {
        loop {
            let woken = self.0.wake.notified();
            match self.take() {
                Ok(key) => return key,
                Err(None) => woken.await,
                Err(Some(due)) => {
                    let _ = tokio::time::timeout_at(due, woken).await;
                }
            }
        }
    }
}

/// Marks a key as no longer worked on, even if its reconciliation panics.
struct Working<T: Clone + Eq + Hash + Send + 'static>(Queue<T>, T);

impl<T: Clone + Eq + Hash + Send + 'static> Drop for Working<T> {
    fn drop(&mut self) {
        self.0.done(&self.1);
    }
}

/// Reconciles the keys of a queue for ever, at most `parallel` at a time. `Ok(Some(delay))` asks to see the key again
/// after the delay.
pub(crate) async fn drive<T, F, W>(controller: &'static str, queue: Queue<T>, parallel: usize, reconcile: F)
where
    T: Clone + Eq + Hash + Send + std::fmt::Debug + 'static,
    F: Fn(T) -> W,
    W: Future<Output = Result<Option<Duration>, Error>> + Send + 'static,
{
    let mut running = JoinSet::new();
    loop {
        tokio::select! {
            key = queue.next(), if running.len() < parallel => {
                let work = reconcile(key.clone());
                let working = Working(queue.clone(), key);
                running.spawn(async move {
                    let queue = &working.0;
                    match work.await {
                        Ok(again) => {
                            queue.succeeded(&working.1);
                            if let Some(delay) = again {
                                queue.add_after(working.1.clone(), delay);
                            }
                        }
                        Err(error) => {
                            if error.is_ordinary() {
                                tracing::debug!(controller, key = ?working.1, %error, "retrying");
                            } else {
                                tracing::warn!(controller, key = ?working.1, %error, "retrying");
                            }
                            queue.retry(working.1.clone());
                        }
                    }
                });
            }
            Some(ended) = running.join_next() => {
                if let Err(error) = ended && error.is_panic() {
                    tracing::error!(controller, %error, "a reconciliation panicked");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_key_added_while_worked_on_comes_back_once() {
        let queue = Queue::new();
        queue.add("a");
        queue.add("a");
        assert_eq!(queue.next().await, "a");
        queue.add("a");
        queue.add("a");
        assert!(queue.take().is_err(), "it is being worked on");
        queue.done(&"a");
        assert_eq!(queue.next().await, "a");
        queue.done(&"a");
        assert!(queue.take().is_err());
    }

    #[tokio::test]
    async fn failures_wait_longer_each_time_and_success_forgets() {
        let queue = Queue::new();
        let wait = async || {
            let begin = Instant::now();
            queue.retry(1);
            let key = queue.next().await;
            queue.done(&key);
            begin.elapsed()
        };
        for least in [5, 10, 20, 40] {
            assert!(wait().await >= Duration::from_millis(least));
        }
        queue.succeeded(&1);
        assert!(wait().await < Duration::from_millis(80), "the next one would have been 80 ms");
    }

    #[tokio::test]
    async fn the_earliest_delay_counts() {
        let queue = Queue::new();
        let begin = Instant::now();
        queue.add_after(1, Duration::from_secs(9));
        queue.add_after(1, Duration::from_millis(20));
        queue.add_after(1, Duration::from_secs(5));
        assert_eq!(queue.next().await, 1);
        assert!((20..4000).contains(&begin.elapsed().as_millis()));
        queue.done(&1);
        assert_eq!(queue.take(), Err(None), "the later ones are forgotten");
    }
}
