//! Deadlines and delays: seats in back-off, workers that take too long, and the crash loop.

use std::time::{Duration, Instant};

use super::worker::Seat;
use super::{Effect, Line, Roster, Verdict};
use crate::manager::life::{self, State};

/// The least time that a worker of a running server has to get ready.
const START_PATIENCE: Duration = Duration::from_secs(60);

impl Roster {
    /// Carries out everything that is due.
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
        self.reload.not_before.take_if(|at| *at <= now);
        self.reload_next();
        for slot in 0..self.slots.len() {
            self.enforce_deadlines(slot);
        }
        if self.crash_loop_at().is_some_and(|at| at <= now) {
            self.effects.push_back(Effect::End(Verdict::CrashLoop));
        }
    }

    fn enforce_deadlines(&mut self, slot: usize) {
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
                    after: self.plan.leave_deadline,
                },
                State::Starting => Line::NotReady {
                    worker: name,
                    after: now.saturating_duration_since(worker.born),
                },
                // These states have no deadline.
                State::Down | State::Ready | State::Killing | State::Failed => return,
            };
            self.log(line);
            self.step(slot, life::Event::DeadlinePassed);
        } else if is_late_in_seat {
            self.log(Line::NotSeated(name));
            self.step(slot, life::Event::Condemned);
        }
    }

    /// Returns when the next deadline or delay ends.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let seats = self.seats.iter().filter_map(|seat| seat.refill_at);
        let workers = self.slots.iter().flatten();
        seats
            .chain(workers.filter_map(|worker| worker.next_deadline()))
            .chain(self.standby.refill_at)
            .chain(self.reload.not_before)
            .chain(self.next_turn_at())
            .chain(self.crash_loop_at())
            .min()
    }

    /// Returns when every seat will have been in back-off for too long, if no worker is useful before.
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
        // The seat that had a useful worker most recently counts.
        let mut latest = None;
        for seat in &self.seats {
            latest = latest.max(Some(since(seat)?));
        }
        latest.map(|since| since + limit)
    }

    /// Returns how long a worker of a running server may take to get ready: at least twice the longest
    /// start so far.
    pub(super) fn start_patience(&self) -> Duration {
        self.plan
            .leave_deadline
            .max(START_PATIENCE)
            .max(self.slowest_start * 2)
    }
}
