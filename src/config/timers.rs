//! Timers of the server: what callbacks set, and what a server has from its start.

use std::time::Duration;

/// The workers that run the callback of a timer of the server: [`Context::every`](crate::Context::every).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Run {
    /// One worker each time: the one with the fewest messages to handle, as far as the dispatch counts them.
    One,
    /// Each worker that has a seat, but for task workers.
    Each,
}

/// A timer of the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ServerTimer {
    pub(crate) tag: u64,
    /// The time until it fires, in milliseconds.
    pub(crate) time: u64,
    pub(crate) repeats: bool,
    pub(crate) run: Run,
}

impl ServerTimer {
    pub(crate) fn once(after: Duration, tag: u64, run: Run) -> ServerTimer {
        ServerTimer {
            tag,
            time: to_millis(after),
            repeats: false,
            run,
        }
    }

    /// The shortest interval is a millisecond.
    pub(crate) fn every(interval: Duration, tag: u64, run: Run) -> ServerTimer {
        let once = ServerTimer::once(interval, tag, run);
        ServerTimer {
            time: once.time.max(1),
            repeats: true,
            ..once
        }
    }
}

/// Returns a time in milliseconds: rounded up, and so that it ends before the clock does.
pub(crate) fn to_millis(time: Duration) -> u64 {
    const LONGEST: u128 = 100 * 366 * 24 * 3600 * 1000;
    time.as_nanos().div_ceil(1_000_000).min(LONGEST) as u64
}
