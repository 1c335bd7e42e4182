//! The time of connections: a clock, and a queue of deadlines that are all equally far away when set.
//!
//! Their one rule: both count milliseconds of CLOCK_MONOTONIC, which master and workers share.

use std::collections::VecDeque;
use std::time::Duration;

use crate::conn_id::ConnId;
use crate::sys::time::now_ms;

/// The clock of one owner. A test can stop and advance it.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    #[cfg(test)]
    stopped_at: Option<u64>,
}

impl Clock {
    pub(crate) fn now(&self) -> u64 {
        #[cfg(test)]
        if let Some(now) = self.stopped_at {
            return now;
        }
        now_ms()
    }

    /// Stops the clock, `time` from now.
    #[cfg(test)]
    pub(crate) fn advance(&mut self, time: Duration) {
        self.stopped_at = Some(self.now() + millis(time));
    }
}

/// The deadlines of connections. They are not removed when a connection goes: its id is not found in the
/// table then.
#[derive(Debug)]
pub(crate) struct Deadlines {
    after: u64,
    queue: VecDeque<(u64, ConnId)>,
}

impl Deadlines {
    pub(crate) fn new(after: Duration) -> Deadlines {
        Deadlines {
            after: millis(after),
            queue: VecDeque::new(),
        }
    }

    /// Sets a connection's deadline. Returns the time at which it passes.
    pub(crate) fn set(&mut self, conn: ConnId, now: u64) -> u64 {
        let at = now + self.after;
        self.queue.push_back((at, conn));
        at
    }

    /// Returns the time at which the next deadline passes.
    pub(crate) fn next(&self) -> Option<u64> {
        self.queue.front().map(|(at, _)| *at)
    }

    /// Removes and returns a connection past its deadline.
    pub(crate) fn pop_passed(&mut self, now: u64) -> Option<ConnId> {
        if self.next()? > now {
            return None;
        }
        self.queue.pop_front().map(|(_, conn)| conn)
    }
}

fn millis(time: Duration) -> u64 {
    time.as_millis() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU32;

    #[test]
    fn a_deadline_passes_once_and_in_order() {
        let conn = |generation| ConnId::new(0, 0, NonZeroU32::new(generation).unwrap());
        let start = 77;
        let mut deadlines = Deadlines::new(Duration::from_secs(5));
        assert_eq!(deadlines.set(conn(1), start), start + 5000);
        assert_eq!(deadlines.set(conn(2), start + 1000), start + 6000);
        assert_eq!(deadlines.next(), Some(start + 5000));
        assert_eq!(deadlines.pop_passed(start + 4999), None);
        assert_eq!(deadlines.pop_passed(start + 5000), Some(conn(1)));
        assert_eq!(deadlines.pop_passed(start + 5000), None);
        assert_eq!(deadlines.pop_passed(start + 6000), Some(conn(2)));
        assert_eq!(deadlines.next(), None);
    }
}
