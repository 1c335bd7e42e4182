//! The clock that all processes of the server share: CLOCK_MONOTONIC, in milliseconds since boot.

use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

/// Milliseconds of CLOCK_MONOTONIC. The clock is one for the whole machine (clock_gettime(2)), so a
/// time stamped by the master can be compared in a worker, which `Instant` does not promise.
pub(crate) fn now_ms() -> u64 {
    let now =
        clock_gettime(ClockId::CLOCK_MONOTONIC).expect("CLOCK_MONOTONIC exists on every Linux");
    now.tv_sec() as u64 * 1000 + now.tv_nsec() as u64 / 1_000_000
}

/// Microseconds of CLOCK_MONOTONIC; never 0.
pub(crate) fn now_micros() -> u64 {
    let now =
        clock_gettime(ClockId::CLOCK_MONOTONIC).expect("CLOCK_MONOTONIC exists on every Linux");
    (now.tv_sec() as u64 * 1_000_000 + now.tv_nsec() as u64 / 1000).max(1)
}

/// The time of a loop that has deadlines for other processes: it stands still while this one is stopped (SIGSTOP, a
/// machine that is paused), since the others may have been stopped as well.
pub(crate) struct LoopTime {
    skipped: Duration,
    /// When the last wait ended, and when the current one began.
    woke: Instant,
    slept: Instant,
}

/// By how much a wait may be late on a busy machine, and the most time of a turn that counts: the process may be stopped
/// within a turn, too, and a deadline that the turn has set must not pass in it.
const LATE: Duration = Duration::from_secs(1);

impl LoopTime {
    pub(crate) fn new() -> LoopTime {
        LoopTime::begin(Instant::now())
    }

    fn begin(now: Instant) -> LoopTime {
        LoopTime {
            skipped: Duration::ZERO,
            woke: now,
            slept: now,
        }
    }

    pub(crate) fn now(&self) -> Instant {
        self.at(Instant::now())
    }

    /// The loop is about to wait.
    pub(crate) fn sleeps(&mut self) {
        self.sleeps_at(Instant::now());
    }

    /// The loop has waited, for `wait` at most. Of a turn in which the process was stopped nothing counts, and
    /// nothing of a wait that took much longer.
    pub(crate) fn wakes(&mut self, wait: Option<Duration>, was_stopped: bool) {
        self.wakes_at(Instant::now(), wait, was_stopped);
    }

    fn at(&self, now: Instant) -> Instant {
        // Never before the start: no more is skipped than has passed since.
        now - self.skipped - excess(now - self.woke)
    }

    fn sleeps_at(&mut self, now: Instant) {
        self.slept = now;
    }

    fn wakes_at(&mut self, now: Instant, wait: Option<Duration>, was_stopped: bool) {
        let (waited, turn) = (now - self.slept, self.slept - self.woke);
        self.skipped += match was_stopped {
            true => turn + waited,
            false if wait.is_some_and(|wait| waited > wait + LATE) => excess(turn) + waited,
            false => excess(turn),
        };
        self.woke = now;
    }
}

/// Returns the part of a turn that does not count.
fn excess(turn: Duration) -> Duration {
    turn.saturating_sub(LATE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn time_in_which_the_process_was_stopped_does_not_count() {
        let begin = Instant::now();
        let mut time = LoopTime::begin(begin);
        // In a wait, of which only its length tells, or a signal.
        time.sleeps_at(begin);
        time.wakes_at(begin + 7 * SECOND, Some(SECOND), false);
        assert_eq!(time.at(begin + 7 * SECOND), begin);
        time.sleeps_at(begin + 7 * SECOND);
        time.wakes_at(begin + 9 * SECOND, None, true);
        assert_eq!(time.at(begin + 9 * SECOND), begin);
        // A wait without a limit counts.
        time.sleeps_at(begin + 9 * SECOND);
        time.wakes_at(begin + 19 * SECOND, None, false);
        assert_eq!(time.at(begin + 19 * SECOND), begin + 10 * SECOND);
    }

    #[test]
    fn a_deadline_does_not_pass_in_the_turn_that_has_set_it() {
        let begin = Instant::now();
        let mut time = LoopTime::begin(begin);
        let deadline = time.at(begin) + 5 * SECOND;
        // The process was stopped for 7 s within the turn.
        assert_eq!(time.at(begin + 7 * SECOND), begin + SECOND);
        time.sleeps_at(begin + 7 * SECOND);
        assert_eq!(time.at(begin + 7 * SECOND), begin + SECOND);
        // The signal tells of it at the next wake-up, and then nothing of the turn counts.
        time.wakes_at(begin + 8 * SECOND, Some(4 * SECOND), true);
        assert_eq!(time.at(begin + 8 * SECOND), begin);
        assert!(time.at(begin + 8 * SECOND) < deadline);
    }
}
