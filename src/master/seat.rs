//! One reactor's view of a seat: the slot of its worker, and the connections that wait for that.
//!
//! Runs in the reactor threads. Its one rule: a seat without a ready worker is abandoned after a while, and its
//! connections may leave it then.

use std::time::{Duration, Instant};

use super::queue::Queue;

/// A seat that is empty for longer is abandoned: its connections go elsewhere, if the mode allows it.
const ABANDONED: Duration = Duration::from_millis(100);

/// One reactor's view of a seat.
pub(super) struct Seat {
    /// The slot of the worker that has the seat.
    pub(super) slot: Option<usize>,
    pub(super) waiting: Queue,
    /// Since when the seat has had no ready worker.
    empty_since: Option<Instant>,
    /// It has been empty for [`ABANDONED`] or longer.
    abandoned: bool,
}

impl Seat {
    pub(super) fn new() -> Seat {
        Seat {
            slot: None,
            waiting: Queue::new(),
            empty_since: None,
            abandoned: false,
        }
    }

    pub(super) fn set_empty(&mut self, now: Instant) {
        self.empty_since.get_or_insert(now);
    }

    pub(super) fn set_ready(&mut self) {
        (self.empty_since, self.abandoned) = (None, false);
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.abandoned
    }

    /// Whether a check can change anything: the seat may be abandoned by then, or connections wait for
    /// it although it is.
    pub(super) fn needs_check(&self) -> bool {
        self.empty_since.is_some() && (!self.abandoned || !self.waiting.is_empty())
    }

    /// Returns whether the seat is abandoned, and whether it was not at the last check.
    pub(super) fn check(&mut self, now: Instant) -> (bool, bool) {
        let is_abandoned = |since: Instant| now.duration_since(since) >= ABANDONED;
        let was_abandoned = self.abandoned;
        self.abandoned = self.empty_since.is_some_and(is_abandoned);
        (self.abandoned, self.abandoned && !was_abandoned)
    }
}
