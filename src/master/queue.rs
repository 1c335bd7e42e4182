//! The queue of connections that wait for room in an inbox, first come, first served.
//!
//! Runs in the reactor threads. Its one rule: a connection that does not wait leaves no entry for long, nor
//! does one that waits have many.

use std::collections::{HashSet, VecDeque};

use crate::conn_id::ConnId;

/// A queue shorter than this is not swept.
const SWEEP: usize = 64;

/// The waiting connections in the order of their requests.
pub(super) struct Queue {
    waiting: VecDeque<Request>,
    /// At this length, connections that do not wait are removed.
    sweep_at: usize,
}

struct Request {
    conn: ConnId,
    /// The bytes that it asks for.
    len: usize,
    /// When it was made, in microseconds.
    since: u64,
}

impl Queue {
    pub(super) fn new() -> Queue {
        Queue {
            waiting: VecDeque::new(),
            sweep_at: SWEEP,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Returns how many bytes the first connection asks for.
    pub(super) fn first_asks(&self) -> Option<usize> {
        self.waiting.front().map(|request| request.len)
    }

    /// Returns since when the first connection waits; 0 if none does.
    pub(super) fn since(&self) -> u64 {
        self.waiting.front().map_or(0, |request| request.since)
    }

    pub(super) fn push(&mut self, conn: ConnId, len: usize, since: u64) {
        // One that has waited before goes before those that have come since.
        let later = self.waiting.iter().rev();
        let later = later.take_while(|it| it.since > since).count();
        let at = self.waiting.len() - later;
        self.waiting.insert(at, Request { conn, len, since });
    }

    /// Removes and returns the first connection.
    pub(super) fn pop(&mut self) -> Option<ConnId> {
        self.waiting.pop_front().map(|request| request.conn)
    }

    /// Removes connections that do not wait, and second entries, once the queue is long: clients that
    /// connect to a stuck seat and leave again must not each leave an entry, nor must a connection that
    /// is given another user again and again.
    pub(super) fn sweep(&mut self, waits: impl Fn(ConnId) -> bool) {
        if self.waiting.len() >= self.sweep_at {
            let mut seen = HashSet::new();
            self.waiting
                .retain(|it| waits(it.conn) && seen.insert(it.conn));
            self.sweep_at = (self.waiting.len() * 2).max(SWEEP);
        }
    }

    /// Keeps the connections for which `waits` returns true.
    pub(super) fn retain(&mut self, mut waits: impl FnMut(ConnId) -> bool) {
        self.waiting.retain(|it| waits(it.conn));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU32;

    fn conn(number: usize) -> ConnId {
        ConnId::new(0, number as u32, NonZeroU32::MIN)
    }

    #[test]
    fn the_first_connection_has_the_first_turn() {
        let mut queue = Queue::new();
        queue.push(conn(1), 500, 1);
        queue.push(conn(2), 3, 1);
        assert_eq!((queue.len(), queue.first_asks()), (2, Some(500)));
        assert_eq!(queue.pop(), Some(conn(1)));
        assert_eq!(queue.first_asks(), Some(3));
        queue.retain(|id| id != conn(2));
        assert!(queue.is_empty());
        assert_eq!((queue.pop(), queue.first_asks()), (None, None));
    }

    #[test]
    fn a_connection_that_waits_again_and_again_has_one_entry() {
        let mut queue = Queue::new();
        for _ in 0..10 * SWEEP {
            queue.push(conn(1), 0, 1);
            queue.sweep(|_| true);
            assert!(queue.len() <= SWEEP);
        }
    }

    #[test]
    fn connections_that_are_gone_leave_no_entry() {
        let mut queue = Queue::new();
        // One in ten stays.
        for number in 0..100 * SWEEP {
            queue.push(conn(number), 0, 1);
            queue.sweep(|id| id.key() % 10 == 0);
            assert!(queue.len() <= SWEEP.max(number / 10 * 2 + 2));
        }
        assert!(queue.len() >= 10 * SWEEP);
    }

    #[test]
    fn a_long_queue_is_not_swept_at_each_push() {
        let mut queue = Queue::new();
        let looks = std::cell::Cell::new(0);
        for number in 0..100 * SWEEP {
            queue.push(conn(number), 0, 1);
            queue.sweep(|_| {
                looks.set(looks.get() + 1);
                true
            });
        }
        assert!(looks.get() <= 2 * queue.len(), "{} looks", looks.get());
    }
}
