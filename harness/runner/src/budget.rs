//! Adds up where time went.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;
use udn_model::event::TimeBudget;

/// The time budget of a run, filled from all sides.
#[derive(Debug, Default)]
pub(crate) struct Budget(Mutex<TimeBudget>);

impl Budget {
    pub(crate) fn setup(&self, time: Duration) {
        self.with(|budget| budget.setup_ms += millis(time));
    }

    pub(crate) fn settling(&self, time: Duration) {
        self.with(|budget| budget.settling_ms += millis(time));
    }

    pub(crate) fn rounds(&self, spans: &RoundSpans) {
        let (probing, denying) = spans.totals();
        self.with(|budget| {
            budget.probing_ms += millis(probing);
            budget.deny_wait_ms += millis(denying);
        });
    }

    pub(crate) fn cleanup(&self, time: Duration) {
        self.with(|budget| budget.cleanup_ms += millis(time));
    }

    pub(crate) fn total(&self) -> TimeBudget {
        *self.lock()
    }

    fn with(&self, change: impl FnOnce(&mut TimeBudget)) {
        change(&mut self.lock());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, TimeBudget> {
        // Sums stay sums even if somebody panicked while adding.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Milliseconds of a duration.
pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// When the rounds of one phase sent, had all answers, and were over. Rounds overlap; time is counted once.
#[derive(Debug, Default)]
pub(crate) struct RoundSpans {
    busy: Vec<(Instant, Instant)>,
    all: Vec<(Instant, Instant)>,
}

impl RoundSpans {
    /// A round that started, got its last answer that was no silence, and ended.
    pub(crate) fn add(&mut self, started: Instant, answered: Instant, ended: Instant) {
        self.busy.push((started, answered));
        self.all.push((started, ended));
    }

    /// Time in which some answer was still to come, and time in which only silence was waited for.
    fn totals(&self) -> (Duration, Duration) {
        let (busy, all) = (covered(&self.busy), covered(&self.all));
        (busy, all.saturating_sub(busy))
    }
}

/// The length of the union of spans.
fn covered(spans: &[(Instant, Instant)]) -> Duration {
    let mut spans = spans.to_vec();
    spans.sort();
    let mut total = Duration::ZERO;
    let mut reached: Option<Instant> = None;
    for (start, end) in spans {
        let start = reached.map_or(start, |reached| reached.max(start));
        total += end.saturating_duration_since(start);
        reached = Some(reached.map_or(end, |reached| reached.max(end)));
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlapping_rounds_count_once() {
        let zero = Instant::now();
        let at = |ms| zero + Duration::from_millis(ms);
        let mut spans = RoundSpans::default();
        spans.add(at(0), at(100), at(2000));
        spans.add(at(500), at(600), at(2500));
        spans.add(at(5000), at(5200), at(5200));
        assert_eq!(spans.totals(), (Duration::from_millis(400), Duration::from_millis(2300)));
    }
}
