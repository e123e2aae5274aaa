//! When to try again. A real kubelet starts at 10 s and ends at 300 s; the lab has less patience, so that a test of a
//! crashing container ends within seconds.

use std::time::Duration;

/// The first wait.
const FIRST: Duration = Duration::from_millis(500);
/// The longest wait.
const LONGEST: Duration = Duration::from_secs(10);
/// A container that ran this long starts afresh.
const FORGIVEN: Duration = Duration::from_secs(20);

/// Waits that double.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    next: Duration,
    longest: Duration,
}

impl Backoff {
    /// For containers that end and images that cannot be pulled.
    pub(crate) fn restarts() -> Self {
        Self { next: FIRST, longest: LONGEST }
    }

    /// For networks and volumes that have to wait for an object, and for requests to the API server.
    pub(crate) fn retries() -> Self {
        Self { next: Duration::from_millis(100), longest: Duration::from_secs(3) }
    }

    /// The wait before the next attempt.
    pub(crate) fn next(&mut self) -> Duration {
        let wait = self.next;
        self.next = (wait * 2).min(self.longest);
        wait
    }

    /// Starts afresh if what failed had worked for `worked`.
    pub(crate) fn forgive(&mut self, worked: Duration) {
        if worked >= FORGIVEN {
            *self = Self::restarts();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_are_forgiven() {
        let mut backoff = Backoff::restarts();
        let waits: Vec<u128> = (0..7).map(|_| backoff.next().as_millis()).collect();
        assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 10_000, 10_000]);
        backoff.forgive(Duration::from_secs(1));
        assert_eq!(backoff.next(), LONGEST);
        backoff.forgive(FORGIVEN);
        assert_eq!(backoff.next(), FIRST);
    }
}
