//! Turns: which connection that waits for room is next, here and across reactors.
//!
//! Runs in the reactor threads. Its one rule: first come, first served. Connections that wait for any worker
//! have a queue in each reactor, and wait there about as long as they would in a single queue.

use super::seats::Seats;
use crate::conn_id::ConnId;
use crate::flow::Flow;
use crate::net::connection::Wait;
use crate::sys::time::now_micros;

/// By how many microseconds a connection may be served before one that has waited for longer. Waking its reactor
/// takes about as long.
const SLACK: u64 = 200;

impl Seats {
    /// Whether a connection waits for a seat that has room now.
    pub(super) fn has_turns(&self) -> bool {
        self.has_common_turn()
            || self.has_task_turn()
            || (0..self.seats.len()).any(|seat| self.has_turn(seat))
    }

    /// Whether a seat has room for the first connection in its queue.
    fn has_turn(&self, seat: usize) -> bool {
        let asked = self.seats[seat].waiting.first_asks();
        asked.is_some_and(|len| self.has_room(seat, len))
    }

    /// Whether any seat has room for the first connection that waits for any seat, and no other reactor has a
    /// right to go first.
    fn has_common_turn(&self) -> bool {
        self.has_common_room() && self.elder().is_none()
    }

    fn has_common_room(&self) -> bool {
        let asked = self.waiting.first_asks();
        asked.is_some_and(|len| {
            self.workers()
                .any(|seat| self.free_slot(seat, len).is_some())
        })
    }

    /// Whether a task worker has room for the first task in its queue.
    fn has_task_turn(&self) -> bool {
        let asked = self.tasks.first_asks();
        asked.is_some_and(|len| {
            let mut workers = self.task_workers();
            workers.any(|seat| self.free_slot(seat, len).is_some())
        })
    }

    /// Returns the reactor that goes first: its first connection has waited for longer than the first one here, by a
    /// quarter and [`SLACK`]; one that has only come has waited for no time. So connections wait about as long as in
    /// one queue of all reactors, and reactors rarely wait for each other.
    pub(super) fn elder(&self) -> Option<usize> {
        let (reactor, since) = self.loads.longest_waiting(self.reactor)?;
        let now = now_micros();
        let own = match self.waiting.since() {
            0 => 0,
            own => now.saturating_sub(own),
        };
        (now.saturating_sub(since) > own + own / 4 + SLACK).then_some(reactor)
    }

    /// The first connection in the common queue may be another one now.
    pub(super) fn publish_waiting(&mut self) {
        let since = self.waiting.since();
        // The others read it with each frame.
        if std::mem::replace(&mut self.published, since) != since {
            self.loads.set_waiting(self.reactor, since);
        }
    }

    /// Returns the reactor that is to be woken, once.
    pub(super) fn take_wake(&mut self) -> Option<usize> {
        self.wakes.take()
    }

    /// Removes and returns the next connection that waits for a seat and now fits. First come, first
    /// served: a request for much room is not overtaken by requests for little.
    pub(super) fn next_turn(&mut self) -> Option<ConnId> {
        if self.has_common_room() {
            match self.elder() {
                None => {
                    let next = self.waiting.pop();
                    self.publish_waiting();
                    return next;
                }
                elder => self.wakes = elder,
            }
        }
        if self.has_task_turn() {
            return self.tasks.pop();
        }
        let seat = (0..self.seats.len()).find(|seat| self.has_turn(*seat))?;
        self.seats[seat].waiting.pop()
    }

    fn has_room(&self, seat: usize, len: usize) -> bool {
        let slot = self.seats[seat].slot;
        slot.is_some_and(|slot| self.slots[slot].has_room(len))
    }

    /// Removes connections that are gone from the queues.
    pub(super) fn sweep(&mut self, flow: &Flow) {
        let waits = |id| flow.conn(id).is_some_and(|it| it.work.wait == Wait::Room);
        self.waiting.sweep(waits);
        self.tasks.sweep(waits);
        if self.dispatcher.is_per_message() {
            self.publish_waiting();
        }
        for seat in &mut self.seats {
            seat.waiting.sweep(waits);
        }
    }
}
