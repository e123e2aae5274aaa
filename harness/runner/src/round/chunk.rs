//! Probes that are sent together: the room that they take up, and what is learnt of how fast they are answered.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::window::{ENOUGH, Room};

/// How long probes that are not to be answered take up room: their packets are on their way no longer.
const SILENT_ROOM: Duration = Duration::from_millis(200);
/// How long those take up room at most that are: one slow answer must not hold up all others.
const ANSWERED_ROOM: Duration = Duration::from_secs(1);

/// Probes that were sent together.
pub(super) struct Chunk {
    room: Shared,
    pub(super) sent: Instant,
    /// Answers that are to come, and how many of them still are.
    answers: usize,
    missing: usize,
    /// Those that never came.
    silent: usize,
    /// When the last one came that did.
    last: Instant,
}

impl Chunk {
    /// `answers`: how many are waited for.
    pub(super) fn new(room: Option<Room>, answers: usize) -> Self {
        let room = Shared::new(room, if answers == 0 { SILENT_ROOM } else { ANSWERED_ROOM });
        let now = Instant::now();
        Self { room, sent: now, answers, missing: answers, silent: 0, last: now }
    }

    /// Takes an answer that was to come. Once nine tenths of them are there, the rest takes up no room any more: what is lost is
    /// on its way no longer, and must not hold up others until it is sent again.
    ///
    /// Returns how long nine tenths of them took, once they are there. Who does not answer at all says nothing of that: where
    /// packets are lost because there were too many, those that are sent again come late.
    pub(super) fn take(&mut self, silent: bool) -> Option<Duration> {
        self.missing -= 1;
        self.silent += usize::from(silent);
        if !silent {
            self.last = Instant::now();
        }
        if self.missing <= self.answers / 10 {
            self.room.give_back();
        }
        let came = self.answers - self.missing - self.silent;
        (self.missing == self.answers / 10 && came >= ENOUGH).then(|| self.last - self.sent)
    }
}

/// Room that is given back by whoever is first: nine tenths of the answers or the clock.
struct Shared(Arc<Mutex<Option<Room>>>);

impl Shared {
    fn new(room: Option<Room>, longest: Duration) -> Self {
        let shared = Self(Arc::new(Mutex::new(room)));
        let clock = Self(shared.0.clone());
        tokio::spawn(async move {
            sleep(longest).await;
            clock.give_back();
        });
        shared
    }

    fn give_back(&self) {
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use tokio::time::timeout;

    use super::*;
    use crate::window::{CHUNK, Window};

    const ANSWERS: usize = 100;

    /// Who answers does so after 5 ms; who does not is given up after 6 s.
    #[rstest]
    #[case::all_answer(0, Some(5))]
    #[case::some_are_silent(30, Some(5))]
    #[case::too_few_to_say(ANSWERS - ENOUGH + 1, None)]
    #[tokio::test(start_paused = true)]
    async fn silence_is_no_slow_answer(#[case] silent: usize, #[case] learnt_ms: Option<u64>) {
        let mut chunk = Chunk::new(None, ANSWERS);
        tokio::time::advance(Duration::from_millis(5)).await;
        let mut learnt: Vec<Duration> = (silent..ANSWERS).filter_map(|_| chunk.take(false)).collect();
        tokio::time::advance(Duration::from_secs(6)).await;
        learnt.extend((0..silent).filter_map(|_| chunk.take(true)));
        assert_eq!(learnt, Vec::from_iter(learnt_ms.map(Duration::from_millis)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_few_that_are_late_take_up_no_room() {
        let window = Window::new(CHUNK);
        let room = async || timeout(Duration::from_millis(1), window.take(CHUNK)).await.is_ok();
        let mut chunk = Chunk::new(window.take(CHUNK).await, ANSWERS);
        assert!(!room().await);
        let took: Vec<_> = (0..ANSWERS * 9 / 10 - 1).filter_map(|_| chunk.take(false)).collect();
        assert!(took.is_empty() && !room().await, "more than a tenth is on its way");
        assert!(chunk.take(false).is_some());
        assert!(room().await);
    }

    #[tokio::test(start_paused = true)]
    async fn late_answers_are_slow() {
        let mut chunk = Chunk::new(None, ANSWERS);
        let quick = (0..ANSWERS / 2).filter_map(|_| chunk.take(false)).count();
        tokio::time::advance(Duration::from_secs(1)).await;
        let late: Vec<Duration> = (0..ANSWERS / 2).filter_map(|_| chunk.take(false)).collect();
        assert_eq!((quick, late), (0, vec![Duration::from_secs(1)]));
    }
}
