//! What is due by the clock: seats that rest, workers that take too long, and a server whose workers
//! are all useless.

use std::time::{Duration, Instant};

use super::worker::Seat;
use super::{Effect, Line, Roster, Verdict};
use crate::manager::life::{self, State};

/// How long a worker of a running server may take to get ready, at least.
const START_PATIENCE: Duration = Duration::from_secs(60);

impl Roster {
    /// Does what is due.
    pub(super) fn time_passed(&mut self) {
        let now = self.now;
        for seat in 0..self.seats.len() {
            let refill_at = &mut self.seats[seat].refill_at;
            if refill_at.take_if(|at| *at <= now).is_some() {
                self.refill_one(seat);
            }
        }
        if self.standby.refill_at.is_some_and(|at| at <= now) {
            self.fill_standby();
        }
        if self.reload.not_before.take_if(|at| *at <= now).is_some() {
            self.reload_next();
        }
        for slot in 0..self.slots.len() {
            self.see_to_deadlines(slot);
        }
        if self.crash_loop_at().is_some_and(|at| at <= now) {
            self.effects.push_back(Effect::End(Verdict::CrashLoop));
        }
    }

    fn see_to_deadlines(&mut self, slot: usize) {
        let now = self.now;
        let Some(worker) = &mut self.slots[slot] else {
            return;
        };
        let is_late_in_seat = worker.seated_by.take_if(|at| *at <= now).is_some();
        let name = worker.name();
        if worker.deadline.take_if(|at| *at <= now).is_some() {
            let line = match worker.state {
                State::Draining => Line::NotGone {
                    worker: name,
                    after: self.plan.shutdown_deadline,
                },
                State::Starting => Line::NotReady {
                    worker: name,
                    after: now.saturating_duration_since(worker.born),
                },
                // They have no deadline.
                State::Down | State::Ready | State::Killing | State::Failed => return,
            };
            self.log(line);
            self.step(slot, life::Event::DeadlinePassed);
        } else if is_late_in_seat {
            self.log(Line::NotSeated(name));
            self.step(slot, life::Event::Condemned);
        }
    }

    /// When something is due, if nothing happens before.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let seats = self.seats.iter().filter_map(|seat| seat.refill_at);
        let workers = self.slots.iter().flatten();
        seats
            .chain(workers.filter_map(|worker| worker.next_deadline()))
            .chain(self.standby.refill_at)
            .chain(self.reload.not_before)
            .chain(self.crash_loop_at())
            .min()
    }

    /// When every seat has been in back-off for too long, if nothing changes.
    fn crash_loop_at(&self) -> Option<Instant> {
        let limit = self.plan.crash_loop?;
        if !self.phase.serves() {
            return None;
        }
        let since = |seat: &Seat| {
            let current = seat.current.and_then(|slot| self.worker(slot));
            seat.backoff
                .since(current.map(|worker| worker.life(self.now)))
        };
        // The seat that had a useful worker last counts.
        let mut latest = None;
        for seat in &self.seats {
            latest = latest.max(Some(since(seat)?));
        }
        latest.map(|since| since + limit)
    }

    /// How long a worker of a running server may take to get ready: no less than twice the longest
    /// that any has taken so far.
    pub(super) fn start_patience(&self) -> Duration {
        self.plan
            .shutdown_deadline
            .max(START_PATIENCE)
            .max(self.slowest_start * 2)
    }
}
