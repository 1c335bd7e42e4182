//! Deadlines that are all equally far away when they are set: a queue, with the next one in front.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::conn_id::ConnId;

/// Connections, each with the moment at which something must have happened to it. There is no
/// taking out: a connection that is gone by then is not found by its name.
#[derive(Debug)]
pub(crate) struct Deadlines {
    after: Duration,
    queue: VecDeque<(Instant, ConnId)>,
}

impl Deadlines {
    pub(crate) fn new(after: Duration) -> Deadlines {
        Deadlines {
            after,
            queue: VecDeque::new(),
        }
    }

    pub(crate) fn set(&mut self, conn: ConnId, now: Instant) {
        self.queue.push_back((now + self.after, conn));
    }

    /// When the next one passes.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.queue.front().map(|(at, _)| *at)
    }

    /// A connection whose deadline has passed.
    pub(crate) fn pop_passed(&mut self, now: Instant) -> Option<ConnId> {
        if self.next()? > now {
            return None;
        }
        self.queue.pop_front().map(|(_, conn)| conn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU32;

    #[test]
    fn a_deadline_passes_once_and_in_order() {
        let conn = |generation| ConnId::new(0, 0, NonZeroU32::new(generation).unwrap());
        let start = Instant::now();
        let mut deadlines = Deadlines::new(Duration::from_secs(5));
        deadlines.set(conn(1), start);
        deadlines.set(conn(2), start + Duration::from_secs(1));
        assert_eq!(deadlines.next(), Some(start + Duration::from_secs(5)));
        assert_eq!(
            deadlines.pop_passed(start + Duration::from_millis(4999)),
            None
        );
        assert_eq!(
            deadlines.pop_passed(start + Duration::from_secs(5)),
            Some(conn(1))
        );
        assert_eq!(deadlines.pop_passed(start + Duration::from_secs(5)), None);
        assert_eq!(
            deadlines.pop_passed(start + Duration::from_secs(6)),
            Some(conn(2))
        );
        assert_eq!(deadlines.next(), None);
    }
}
