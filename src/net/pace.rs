//! The time of one owner's loop, in milliseconds: it passes only while the loop runs.
//!
//! Its one rule: time in which the loop itself stood still (SIGSTOP, a suspended machine, a processor that
//! it did not get) is nobody's silence. The clock is read once a turn, and not once a message.

use std::time::Duration;

/// The most time of callbacks that counts in one turn, in base mode; and by how much a wait may be late.
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

    /// Returns the clock when it was last read; all owners have the same one.
    pub(crate) fn clock(&self) -> u64 {
        self.clock
    }

    /// Returns the time at which this turn began.
    pub(crate) fn began(&self) -> u64 {
        self.began
    }

    /// A turn begins: the loop has waited for `wait` at most. `None`: for as long as it took. Of a wait that
    /// took much longer nothing counts, and none of one in which the process was stopped: it is not known which
    /// part of it the loop stood still.
    pub(crate) fn begin_turn(&mut self, clock: u64, wait: Option<Duration>, was_stopped: bool) {
        let most = wait.map_or(u64::MAX, |wait| wait.as_millis() as u64);
        let passed = clock.saturating_sub(self.clock);
        if !was_stopped && passed <= most.saturating_add(LONGEST_TURN) {
            self.now += passed;
        }
        (self.began, self.clock) = (self.now, clock);
    }

    /// Looks at the clock within a turn.
    pub(crate) fn look(&mut self, clock: u64) {
        self.now += clock.saturating_sub(self.clock).min(LONGEST_TURN);
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
        pace.begin_turn(350, wait, false);
        assert_eq!(pace.now(), 350);
        pace.begin_turn(100_000, wait, false);
        assert_eq!(pace.now(), 350);
        pace.look(200_000);
        assert_eq!(pace.now(), 350 + LONGEST_TURN);
        let began = pace.began();
        pace.look(200_040);
        assert_eq!((pace.began(), pace.now()), (began, 350 + LONGEST_TURN + 40));
        pace.begin_turn(300_040, None, false);
        assert_eq!(pace.now(), 350 + LONGEST_TURN + 40 + 100_000);
        pace.begin_turn(300_050, wait, true);
        assert_eq!(pace.now(), 350 + LONGEST_TURN + 40 + 100_000);
    }

    #[test]
    fn short_turns_add_up_to_the_time_that_passes() {
        let mut pace = Pace::new(0);
        for clock in 0..5000 {
            pace.begin_turn(clock, Some(Duration::ZERO), false);
        }
        assert_eq!(pace.now(), 4999);
    }
}
