//! How many rounds a phase still needs, and how fast they follow each other. Pure but for the clock.

use std::time::Duration;

use tokio::time::Instant;

use crate::options::Options;

/// Slowest pace of rounds of a matrix that does not settle.
const SLOWEST: Duration = Duration::from_secs(3);
/// How often the settle deadline may pass while there were too few rounds to say anything.
const PATIENCE: u32 = 5;

/// How many rounds are still needed, and how fast they follow each other.
#[derive(Debug)]
pub(super) struct Pace {
    settle_rounds: u32,
    hold: Duration,
    base: Duration,
    pub(super) launched: u32,
    pub(super) judged: u32,
    /// Rounds in which no more was asked of the machine than it could do.
    sound: u32,
    /// The last round that did not match.
    last_bad: u32,
    bad: u32,
    settled_at: Option<Instant>,
}

impl Pace {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            settle_rounds: options.settle_rounds.max(1),
            hold: options.hold,
            base: options.round_interval,
            launched: 0,
            judged: 0,
            sound: 0,
            last_bad: 0,
            bad: 0,
            settled_at: None,
        }
    }

    /// Optimistic: as if all rounds under way matched. So no round is launched that a healthy matrix does not need.
    pub(super) fn wants_another(&self, zero: Instant) -> bool {
        if self.launched < self.last_bad + self.settle_rounds + 1 {
            return true;
        }
        let since = self.settled_at.unwrap_or(zero);
        !self.hold.is_zero() && (self.settled_at.is_none() || since.elapsed() < self.hold)
    }

    /// Rounds that were launched before do not count to the last ones.
    pub(super) fn only_from_now(&mut self) {
        self.last_bad = self.last_bad.max(self.launched);
    }

    /// Whether the deadline has passed. Where rounds are slow because the machine is, or say more of the machine than of the
    /// network, it passes later: too few sound rounds are no reason to fail anything.
    pub(super) fn overdue(&self, zero: Instant, deadline: Duration) -> bool {
        let elapsed = zero.elapsed();
        elapsed >= deadline && (self.sound >= self.settle_rounds * 3 || elapsed >= deadline * PATIENCE)
    }

    /// `overloaded`: answers were so slow that lateness says something of the machine.
    pub(super) fn judge(&mut self, number: u32, matched: bool, settled: bool, overloaded: bool) {
        self.judged = number;
        self.sound += u32::from(!overloaded);
        if !matched {
            self.last_bad = number;
            self.bad += 1;
            self.settled_at = None;
        } else if settled && self.settled_at.is_none() {
            self.settled_at = Some(Instant::now());
        }
    }

    /// A matrix that does not settle is probed ever more slowly, so that it does not disturb the others.
    pub(super) fn interval(&self) -> Duration {
        (self.base * (1 + self.bad / 4)).min(SLOWEST).max(self.base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace() -> Pace {
        Pace::new(&Options { hold: Duration::ZERO, ..Options::default() })
    }

    #[tokio::test(start_paused = true)]
    async fn a_healthy_matrix_needs_no_round_too_many() {
        let (mut pace, zero) = (pace(), Instant::now());
        while pace.wants_another(zero) {
            pace.launched += 1;
        }
        assert_eq!(pace.launched, 4);
        pace.judge(1, false, false, false);
        assert!(pace.wants_another(zero), "the count begins anew behind a round that did not match");
        pace.launched += 1;
        assert!(!pace.wants_another(zero));
    }

    #[tokio::test(start_paused = true)]
    async fn too_few_rounds_are_no_reason_to_end() {
        let (mut pace, zero, deadline) = (pace(), Instant::now(), Duration::from_secs(30));
        tokio::time::advance(deadline).await;
        assert!(!pace.overdue(zero, deadline));
        (1..=9).for_each(|round| pace.judge(round, false, false, round % 2 == 0));
        assert!(!pace.overdue(zero, deadline), "rounds of an overloaded machine do not count");
        (10..=13).for_each(|round| pace.judge(round, false, false, false));
        assert!(pace.overdue(zero, deadline));
        let mut pace = self::pace();
        tokio::time::advance(deadline * PATIENCE).await;
        pace.judge(1, false, false, true);
        assert!(pace.overdue(zero, deadline), "but not for ever");
    }

    #[test]
    fn what_does_not_settle_is_probed_ever_more_slowly() {
        let mut pace = pace();
        let first = pace.interval();
        (1..=100).for_each(|round| pace.judge(round, false, false, false));
        assert_eq!((first, pace.interval()), (Options::default().round_interval, SLOWEST));
    }
}
