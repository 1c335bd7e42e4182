//! Connections that wait for room, first come, first served.

use std::collections::VecDeque;

use crate::conn_id::ConnId;

/// The shortest queue that is swept.
const SWEEP: usize = 64;

/// Connections that wait, in the order in which they asked, and for how many bytes.
pub(super) struct Queue {
    waiting: VecDeque<(ConnId, usize)>,
    /// At this length, those that are gone are taken out.
    sweep_at: usize,
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

    /// How many bytes the one that has waited longest asked for.
    pub(super) fn first_asks(&self) -> Option<usize> {
        self.waiting.front().map(|(_, len)| *len)
    }

    pub(super) fn push(&mut self, conn: ConnId, len: usize) {
        self.waiting.push_back((conn, len));
    }

    /// Takes the one out that has waited longest.
    pub(super) fn pop(&mut self) -> Option<ConnId> {
        self.waiting.pop_front().map(|(id, _)| id)
    }

    /// Takes out all that are gone, when it has become long: clients that come to a stuck seat and go
    /// again must not leave a trace each.
    pub(super) fn sweep(&mut self, is_there: impl Fn(ConnId) -> bool) {
        if self.waiting.len() >= self.sweep_at {
            self.waiting.retain(|(id, _)| is_there(*id));
            self.sweep_at = (self.waiting.len() * 2).max(SWEEP);
        }
    }

    /// Takes out those that need not wait here any more.
    pub(super) fn retain(&mut self, mut waits: impl FnMut(ConnId) -> bool) {
        self.waiting.retain(|(id, _)| waits(*id));
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
    fn whoever_came_first_has_its_turn_first() {
        let mut queue = Queue::new();
        queue.push(conn(1), 500);
        queue.push(conn(2), 3);
        assert_eq!((queue.len(), queue.first_asks()), (2, Some(500)));
        assert_eq!(queue.pop(), Some(conn(1)));
        assert_eq!(queue.first_asks(), Some(3));
        queue.retain(|id| id != conn(2));
        assert!(queue.is_empty());
        assert_eq!((queue.pop(), queue.first_asks()), (None, None));
    }

    #[test]
    fn connections_that_are_gone_leave_no_trace() {
        let mut queue = Queue::new();
        // One of ten stays, and every one is gone from a queue that is short.
        for number in 0..100 * SWEEP {
            queue.push(conn(number), 0);
            queue.sweep(|id| id.key() % 10 == 0);
            assert!(queue.len() <= SWEEP.max(number / 10 * 2 + 2));
        }
        assert!(queue.len() >= 10 * SWEEP);
    }
}
