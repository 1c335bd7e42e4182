//! Memory that a peak has taken is given back to the machine: malloc(3) keeps freed memory, free(3) too.
//!
//! Used by each reactor and each base mode worker. Its one rule: an owner that has had no peak never wakes for
//! it.

use std::time::{Duration, Instant};

/// How long after a peak. Many peaks in a row cost one trim a second.
const AFTER: Duration = Duration::from_secs(1);

/// When memory is given back, if it is due.
#[derive(Default)]
pub(crate) struct Trim(Option<Instant>);

impl Trim {
    /// A peak is over.
    pub(crate) fn ask(&mut self, now: Instant) {
        self.0.get_or_insert(now + AFTER);
    }

    /// Returns the time until it is due.
    pub(crate) fn next(&self, now: Instant) -> Option<Duration> {
        Some(self.0?.saturating_duration_since(now))
    }

    /// Whether memory is to be given back now. Returns true once.
    pub(crate) fn is_due(&mut self, now: Instant) -> bool {
        self.0.take_if(|at| *at <= now).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peaks_in_a_row_are_followed_by_one_trim() {
        let (mut trim, now) = (Trim::default(), Instant::now());
        assert_eq!(trim.next(now), None);
        trim.ask(now);
        trim.ask(now + AFTER / 2);
        assert_eq!(trim.next(now), Some(AFTER));
        assert!(!trim.is_due(now + AFTER / 2));
        assert_eq!(trim.next(now + AFTER), Some(Duration::ZERO));
        assert!(trim.is_due(now + AFTER));
        assert_eq!(trim.next(now + AFTER), None);
    }
}
