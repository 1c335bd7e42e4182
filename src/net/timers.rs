//! The time of connections: a clock, and one timer of each connection.
//!
//! Their one rule: they count milliseconds of CLOCK_MONOTONIC, which master and workers share.

use std::time::Duration;

use super::wheel::{Key, Wheel};
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

/// A timer of each connection that has one. It is to be removed with its connection.
pub(crate) struct Timers {
    wheel: Wheel<ConnId>,
    /// By a connection's place in the table.
    keys: Vec<Key>,
}

impl Timers {
    pub(crate) fn new() -> Timers {
        Timers {
            wheel: Wheel::new(0),
            keys: Vec::new(),
        }
    }

    /// Sets a connection's timer, whether or not it has one.
    pub(crate) fn set(&mut self, conn: ConnId, at: u64) {
        match self.key_of(conn) {
            Some(key) => self.wheel.restart(key, at),
            None => self.add(conn, at),
        }
    }

    /// Sets a connection's timer, unless it has an earlier one.
    pub(crate) fn set_earlier(&mut self, conn: ConnId, at: u64) {
        match self.key_of(conn) {
            Some(key) if self.wheel.time_of(key) <= at => {}
            Some(key) => self.wheel.restart(key, at),
            None => self.add(conn, at),
        }
    }

    fn key_of(&self, conn: ConnId) -> Option<Key> {
        let key = self.keys.get(conn.key()).copied();
        key.filter(|key| *key != Key::NONE)
    }

    fn add(&mut self, conn: ConnId, at: u64) {
        if self.keys.len() <= conn.key() {
            self.keys.resize(conn.key() + 1, Key::NONE);
        }
        self.keys[conn.key()] = self.wheel.set(at, conn);
    }

    /// Removes a connection's timer, if it has one.
    pub(crate) fn remove(&mut self, conn: ConnId) {
        if let Some(key) = self.key_of(conn) {
            self.wheel.remove(key);
            self.keys[conn.key()] = Key::NONE;
        }
    }

    /// Returns the time at which [`pop`](Self::pop) is to be called.
    pub(crate) fn next(&self) -> Option<u64> {
        self.wheel.next()
    }

    /// Removes and returns a timer that has passed, while there is work left ([`Wheel::pop`]).
    pub(crate) fn pop(&mut self, now: u64, work: &mut usize) -> Option<ConnId> {
        let conn = self.wheel.pop(now, work)?;
        self.keys[conn.key()] = Key::NONE;
        Some(conn)
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.wheel.len()
    }
}

/// Deadlines that are all equally far away when set.
pub(crate) struct Deadlines {
    after: u64,
    timers: Timers,
}

impl Deadlines {
    pub(crate) fn new(after: Duration) -> Deadlines {
        Deadlines {
            after: millis(after),
            timers: Timers::new(),
        }
    }

    /// Sets a connection's deadline. Returns the time at which it passes.
    pub(crate) fn set(&mut self, conn: ConnId, now: u64) -> u64 {
        let at = now + self.after;
        self.timers.set(conn, at);
        at
    }

    /// Removes the deadline of a connection that is gone.
    pub(crate) fn remove(&mut self, conn: ConnId) {
        self.timers.remove(conn);
    }

    /// Returns the time at which the next deadline passes.
    pub(crate) fn next(&self) -> Option<u64> {
        self.timers.next()
    }

    /// Removes and returns a connection past its deadline.
    pub(crate) fn pop_passed(&mut self, now: u64) -> Option<ConnId> {
        let mut work = usize::MAX;
        self.timers.pop(now, &mut work)
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.timers.len()
    }
}

fn millis(time: Duration) -> u64 {
    time.as_millis() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU32;

    fn conn(number: u32) -> ConnId {
        ConnId::new(0, number, NonZeroU32::new(number + 1).unwrap())
    }

    #[test]
    fn a_deadline_passes_once_and_in_order() {
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

    #[test]
    fn a_deadline_leaves_with_its_connection() {
        let mut deadlines = Deadlines::new(Duration::from_secs(5));
        deadlines.set(conn(1), 0);
        deadlines.set(conn(2), 0);
        deadlines.remove(conn(1));
        deadlines.remove(conn(1));
        assert_eq!(deadlines.len(), 1);
        assert_eq!(deadlines.pop_passed(9000), Some(conn(2)));
        deadlines.remove(conn(2));
        assert_eq!((deadlines.len(), deadlines.next()), (0, None));
    }

    #[test]
    fn an_earlier_timer_stays_and_a_later_one_is_replaced() {
        let mut timers = Timers::new();
        timers.set_earlier(conn(1), 50);
        timers.set_earlier(conn(1), 70);
        assert_eq!(timers.next(), Some(50));
        timers.set_earlier(conn(1), 30);
        timers.set_earlier(conn(2), 60);
        let mut work = usize::MAX;
        assert_eq!(timers.pop(40, &mut work), Some(conn(1)));
        assert_eq!(timers.pop(59, &mut work), None);
        assert_eq!(timers.pop(60, &mut work), Some(conn(2)));
    }
}
