//! The time of one owner's loop, in milliseconds: it passes only while the loop runs.
//!
//! Its one rule: time in which the loop itself stood still (SIGSTOP, a suspended machine, a processor that
//! it did not get) is nobody's silence. The clock is read once a turn, and not once a message.

use std::time::Duration;

/// The most time of one turn that counts, beside its wait: that of callbacks, in base mode.
const LONGEST_TURN: u64 = 1000;

#[derive(Debug)]
pub(crate) struct Pace {
    now: u64,
    /// The time at which this turn began.
    began: u64,
    /// The clock when it was last read.
    clock: u64,
}

impl Pace {
    pub(crate) fn new(clock: u64) -> Pace {
        Pace {
            now: clock,
            began: clock,
            clock,
        }
    }

    /// Returns the time at the last look at the clock.
    pub(crate) fn now(&self) -> u64 {
        self.now
    }

    /// Returns the time at which this turn began.
    pub(crate) fn began(&self) -> u64 {
        self.began
    }

    /// A turn begins: the loop has waited for `wait` at most. `None`: for as long as it took.
    pub(crate) fn begin_turn(&mut self, clock: u64, wait: Option<Duration>) {
        let most = wait.map_or(u64::MAX, |wait| wait.as_millis() as u64);
        self.pass(clock, most.saturating_add(LONGEST_TURN));
        self.began = self.now;
    }

    /// Looks at the clock within a turn.
    pub(crate) fn look(&mut self, clock: u64) {
        self.pass(clock, LONGEST_TURN);
    }

    fn pass(&mut self, clock: u64, most: u64) {
        self.now += clock.saturating_sub(self.clock).min(most);
        self.clock = clock;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_in_which_the_loop_stood_still_does_not_count() {
        let mut pace = Pace::new(50);
        let wait = Some(Duration::from_millis(300));
        pace.begin_turn(350, wait);
        assert_eq!(pace.now(), 350);
        pace.begin_turn(100_000, wait);
        assert_eq!(pace.now(), 350 + 300 + LONGEST_TURN);
        let began = pace.began();
        pace.look(100_040);
        assert_eq!((pace.began(), pace.now()), (began, began + 40));
        pace.begin_turn(200_040, None);
        assert_eq!(pace.now(), began + 40 + 100_000, "it waited for as long");
    }

    #[test]
    fn short_turns_add_up_to_the_time_that_passes() {
        let mut pace = Pace::new(0);
        for clock in 0..5000 {
            pace.begin_turn(clock, Some(Duration::ZERO));
        }
        assert_eq!(pace.now(), 4999);
    }
}
