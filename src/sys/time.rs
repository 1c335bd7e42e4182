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

/// By how much a wait may be late on a busy machine.
const LATE: Duration = Duration::from_secs(1);

impl LoopTime {
    pub(crate) fn new() -> LoopTime {
        let now = Instant::now();
        LoopTime {
            skipped: Duration::ZERO,
            woke: now,
            slept: now,
        }
    }

    pub(crate) fn now(&self) -> Instant {
        // Never before the start: no more is skipped than has passed since.
        Instant::now() - self.skipped
    }

    /// The loop is about to wait.
    pub(crate) fn sleeps(&mut self) {
        self.slept = Instant::now();
    }

    /// The loop has waited, for `wait` at most. Of a turn in which the process was stopped nothing counts, and
    /// nothing of a wait that took much longer.
    pub(crate) fn wakes(&mut self, wait: Option<Duration>, was_stopped: bool) {
        let now = Instant::now();
        let waited = now - self.slept;
        if was_stopped {
            self.skipped += now - self.woke;
        } else if wait.is_some_and(|wait| waited > wait + LATE) {
            self.skipped += waited;
        }
        self.woke = now;
    }
}
