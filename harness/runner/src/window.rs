//! How many probes may be on their way at once, all worlds together.
//!
//! A datapath in user space on two cores forwards a few thousand probes a second, and a few hundred of those whose flows
//! it does not know yet; beyond, it delays and drops packets, and cells that are right would look wrong. What is delayed
//! by a second is worse than late: TCP sends its SYN again then, and a connection tracker that takes it for a new
//! connection spoils the first one for good (docs/architecture.md, the lab's traps). So the window begins small, narrows
//! when the answers to a chunk of probes are slow and widens when they are quick, as a sender on a network does.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

/// Probes that are sent together.
pub(crate) const CHUNK: usize = 128;
/// What the window begins with, in chunks.
const FIRST: usize = 2;
/// Answers to a chunk slower than this: too many at once.
const SLOW: Duration = Duration::from_millis(500);
/// Quicker than this: there is room for more.
const QUICK: Duration = Duration::from_millis(200);
/// A twentieth of the answers of a round slower than this: lateness says something of the machine, not of the network.
pub(crate) const OVERLOADED: Duration = Duration::from_secs(1);
/// Answers to a chunk from which something is learnt.
pub(crate) const ENOUGH: usize = 20;

/// The window of a run.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    permits: Arc<Semaphore>,
    state: Arc<Mutex<State>>,
    most: usize,
}

#[derive(Debug)]
struct State {
    limit: usize,
    /// Room that is taken away as soon as it is given back.
    debt: usize,
    /// When it last became less.
    narrowed: Option<Instant>,
}

/// Room for some probes; given back when dropped.
#[derive(Debug)]
pub(crate) struct Room {
    window: Window,
    probes: usize,
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut state = self.window.state();
        let paid = state.debt.min(self.probes);
        state.debt -= paid;
        self.window.permits.add_permits(self.probes - paid);
    }
}

impl Window {
    pub(crate) fn new(most: usize) -> Self {
        let most = most.max(CHUNK);
        let limit = most.min(FIRST * CHUNK);
        let state = Arc::new(Mutex::new(State { limit, debt: 0, narrowed: None }));
        Self { permits: Arc::new(Semaphore::new(limit)), state, most }
    }

    /// Waits for room for so many probes, at most [`CHUNK`].
    pub(crate) async fn take(&self, probes: usize) -> Option<Room> {
        let probes = probes.min(CHUNK);
        let permit = self.permits.acquire_many(u32::try_from(probes).unwrap_or(1)).await.ok()?;
        permit.forget();
        Some(Room { window: self.clone(), probes })
    }

    /// Learns how long nine tenths of the answers took to a chunk that was sent then.
    ///
    /// What was sent together is slow together: all chunks that were on their way when the window was narrowed say the same
    /// thing, once.
    pub(crate) fn learn(&self, sent: Instant, took: Duration) {
        let mut state = self.state();
        let before = state.limit;
        if took > SLOW && state.narrowed.is_none_or(|narrowed| sent >= narrowed) {
            state.narrowed = Some(Instant::now());
            state.limit = (before / 2).max(CHUNK);
            let less = before - state.limit;
            state.debt += less - self.permits.forget_permits(less);
        } else if took < QUICK {
            state.limit = (before + CHUNK).min(self.most);
            let more = state.limit - before;
            let paid = state.debt.min(more);
            state.debt -= paid;
            self.permits.add_permits(more - paid);
        }
        tracing::debug!(limit = state.limit, ?took, "window");
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The duration above which so many of a hundred are; zero for none.
pub(crate) fn slowest(percent: usize, durations: &mut [Duration]) -> Duration {
    durations.sort_unstable();
    durations.get(durations.len() * (100 - percent) / 100).or_else(|| durations.last()).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn slow_answers_narrow_and_quick_ones_widen() {
        let window = Window::new(1024);
        let limit = || (window.state().limit, window.permits.available_permits());
        let learn = |took: u64| window.learn(Instant::now(), Duration::from_millis(took));
        assert_eq!(limit(), (256, 256), "it begins small");
        learn(900);
        assert_eq!(limit(), (128, 128));
        learn(2000);
        assert_eq!(limit(), (128, 128), "one chunk always fits");
        learn(300);
        assert_eq!(limit(), (128, 128));
        for _ in 0..20 {
            learn(1);
        }
        assert_eq!(limit(), (1024, 1024));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_on_its_way_together_is_slow_once() {
        let window = Window::new(1024);
        let limit = || window.state().limit;
        (0..6).for_each(|_| window.learn(Instant::now(), Duration::from_millis(1)));
        let (sent, slow) = (Instant::now(), Duration::from_millis(700));
        tokio::time::advance(slow).await;
        (0..8).for_each(|_| window.learn(sent, slow));
        assert_eq!(limit(), 512);
        let sent = Instant::now();
        tokio::time::advance(slow).await;
        window.learn(sent, slow);
        assert_eq!(limit(), 256, "what was sent after that is news");
    }

    #[tokio::test]
    async fn what_is_out_is_taken_away_when_it_comes_back() {
        let window = Window::new(256);
        let out = window.take(1000).await.unwrap();
        assert_eq!(out.probes, CHUNK);
        let more = window.take(CHUNK).await.unwrap();
        window.learn(Instant::now(), Duration::from_secs(2));
        assert_eq!((window.state().limit, window.permits.available_permits()), (128, 0));
        drop(out);
        assert_eq!(window.permits.available_permits(), 0);
        drop(more);
        assert_eq!(window.permits.available_permits(), 128);
        let out = window.take(CHUNK).await.unwrap();
        window.learn(Instant::now(), Duration::from_millis(1));
        drop(out);
        assert_eq!((window.state().limit, window.permits.available_permits()), (256, 256));
    }

    #[test]
    fn the_slowest() {
        let ms = |n: u64| Duration::from_millis(n);
        let mut hundred: Vec<Duration> = (1..=100).rev().map(ms).collect();
        assert_eq!(slowest(10, &mut []), Duration::ZERO);
        assert_eq!(slowest(10, &mut hundred), ms(91));
        assert_eq!(slowest(5, &mut hundred), ms(96));
        assert_eq!(slowest(5, &mut [ms(7)]), ms(7));
    }
}
