//! How long a seat stays empty after a death.

use std::time::Duration;

/// The first delay; each further one is twice as long.
const FIRST: Duration = Duration::from_millis(100);

/// The longest delay.
const LONGEST: Duration = Duration::from_secs(10);

/// Counts the workers of one seat that died without having finished a callback. One that has
/// finished any was of use, and is replaced at once, however young it died: its clients wait.
#[derive(Default, Debug)]
pub(crate) struct Backoff {
    useless: u32,
}

impl Backoff {
    /// A worker died. The delay until the next one: none for the first that was of no use.
    pub(crate) fn after_death(&mut self, was_useful: bool) -> Duration {
        if was_useful {
            self.useless = 0;
            return Duration::ZERO;
        }
        self.useless = self.useless.saturating_add(1);
        match self.useless.checked_sub(2) {
            None => Duration::ZERO,
            Some(doublings) => FIRST.saturating_mul(1 << doublings.min(16)).min(LONGEST),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn useless_deaths_are_followed_by_growing_delays() {
        let mut backoff = Backoff::default();
        let delays: Vec<u64> = (0..12)
            .map(|_| backoff.after_death(false).as_millis() as u64)
            .collect();
        assert_eq!(
            delays,
            [
                0, 100, 200, 400, 800, 1600, 3200, 6400, 10000, 10000, 10000, 10000
            ]
        );
    }

    #[test]
    fn a_useful_worker_is_replaced_at_once() {
        let mut backoff = Backoff::default();
        for _ in 0..5 {
            backoff.after_death(false);
        }
        assert_eq!(backoff.after_death(true), Duration::ZERO);
        assert_eq!(backoff.after_death(false), Duration::ZERO);
    }
}
