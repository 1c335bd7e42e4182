//! Reload and recycling: the new worker starts while the old one serves, and takes the seat when it is
//! ready. One seat at a time, for every cause.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{Duty, Line, Phase, ReloadLine, Roster, Worker};
use crate::manager::backoff::{Backoff, Life};
use crate::manager::life::{self, State};

/// The least time between a worker getting ready and its replacement: workers that ask for a replacement
/// as soon as they start do not make the manager do nothing but fork.
const FLOOR: Duration = Duration::from_millis(10);

/// How long the next replacement waits for the worker before it to leave. Afterwards they leave side by side: workers
/// that are stuck take one deadline together, and not one each.
const COURTESY: Duration = Duration::from_millis(100);

/// The shortest pause after a worker could not be replaced.
const PAUSE: Duration = Duration::from_millis(100);

/// The workers to be replaced.
#[derive(Default)]
pub(super) struct Reload {
    /// The first one is being replaced.
    queue: VecDeque<Turn>,
    /// Another reload was requested during this one.
    again: bool,
    /// The phase in which a request was refused last. A callback may repeat its request with each message;
    /// the log has one line.
    refused_in: Option<Phase>,
    /// The next turn begins no earlier.
    pub(super) not_before: Option<Instant>,
    backoff: Backoff,
}

/// A worker to be replaced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Turn {
    seat: usize,
    /// A worker up to this generation is replaced, a newer one is not.
    generation: u32,
    /// Part of a reload of all workers.
    is_reload: bool,
}

impl Reload {
    /// Gives up all replacements.
    pub(super) fn forget(&mut self) {
        self.queue.clear();
        self.again = false;
        self.not_before = None;
    }

    /// Returns how many workers the current reload has not replaced yet.
    fn left(&self) -> usize {
        self.queue.iter().filter(|turn| turn.is_reload).count()
    }
}

impl Roster {
    /// Replaces every worker.
    pub(super) fn reload(&mut self) {
        if self.phase != Phase::Running {
            if self.reload.refused_in.replace(self.phase) != Some(self.phase) {
                self.log(Line::Reload(ReloadLine::Refused));
            }
            return;
        }
        if self.reload.left() > 0 {
            // Restarted at the first seat, a reload might never reach the last ones.
            self.reload.again = true;
            return;
        }
        let workers = self.seats.len();
        self.log(Line::Reload(ReloadLine::Started { workers }));
        let generation = self.last_generation;
        self.reload.queue.extend((0..workers).map(|seat| Turn {
            seat,
            generation,
            is_reload: true,
        }));
        // Standby workers have nothing to finish: they leave, and new ones follow. One that is only about
        // to be forked is new already.
        let is_old = |it: &Worker| it.duty == Duty::Standby && it.is_forked();
        for slot in 0..self.slots.len() {
            if self.worker(slot).is_some_and(is_old) {
                self.step(slot, life::Event::StopRequested);
            }
        }
        self.reload_next();
    }

    /// Replaces one worker in its turn: it asked for that, or is too large. Returns false if its
    /// replacement was decided before.
    pub(super) fn replace(&mut self, slot: usize) -> bool {
        let Some(worker) = self.worker(slot) else {
            return false;
        };
        let (duty, generation) = (worker.duty, worker.generation);
        let seat = match duty {
            Duty::Seat(seat) | Duty::Successor(seat) => seat,
            Duty::Standby => {
                self.step(slot, life::Event::StopRequested);
                return true;
            }
            Duty::Leaving(_) => return false,
        };
        let is_queued = |turn: &Turn| turn.seat == seat && turn.generation >= generation;
        if self.reload.queue.iter().any(is_queued)
            || matches!(self.phase, Phase::Ending | Phase::Stopping)
        {
            return false;
        }
        self.reload.queue.push_back(Turn {
            seat,
            generation,
            is_reload: false,
        });
        self.reload_next();
        true
    }

    /// A worker has more memory than its limit: it is replaced, or killed if it has more than twice as
    /// much.
    pub(super) fn too_large(&mut self, slot: usize, bytes: u64, limit: u64) {
        let Some(worker) = self.worker(slot) else {
            return;
        };
        let (name, state) = (worker.name(), worker.state);
        let serves = matches!(worker.duty, Duty::Seat(_) | Duty::Standby);
        if bytes / 2 > limit {
            if state != State::Killing {
                self.log(Line::MuchTooLarge {
                    worker: name,
                    bytes,
                    limit,
                });
            }
            self.step(slot, life::Event::Condemned);
        } else if state == State::Ready && serves && self.replace(slot) {
            self.log(Line::TooLarge {
                worker: name,
                bytes,
                limit,
            });
        }
    }

    /// Continues with the replacements, as far as possible without waiting.
    pub(super) fn reload_next(&mut self) {
        if self.phase != Phase::Running || self.is_a_seat_changing_hands() {
            return;
        }
        while let Some(&turn) = self.reload.queue.front() {
            let current = self.seats[turn.seat].current;
            if let Some(current) = current.and_then(|slot| self.worker(slot)) {
                if current.state != State::Ready {
                    return;
                }
                let is_old = current.generation <= turn.generation;
                let earliest = current.ready_at.unwrap_or(current.born) + FLOOR;
                let not_before = self.reload.not_before.max(Some(earliest));
                if is_old && not_before > Some(self.now) {
                    self.reload.not_before = not_before;
                    return;
                }
                self.reload.not_before = None;
                if is_old {
                    return self.start(Duty::Successor(turn.seat));
                }
            }
            // The worker in the seat is new, or the seat is empty and its next worker will be.
            if turn.is_reload && self.reload.left() == 1 && self.leaving().next().is_some() {
                // The reload is finished when the old workers are gone.
                return;
            }
            self.turn_is_over();
        }
        if std::mem::take(&mut self.reload.again) {
            self.reload();
        }
    }

    fn turn_is_over(&mut self) {
        self.reload.backoff = Backoff::default();
        let turn = self.reload.queue.pop_front();
        if turn.is_some_and(|turn| turn.is_reload) && self.reload.left() == 0 {
            self.log(Line::Reload(ReloadLine::Finished));
        }
    }

    /// Whether the next replacement has to wait: for a worker that is about to take a seat, or for one that
    /// leaves, as long as that is likely to be soon or takes the last slot.
    fn is_a_seat_changing_hands(&self) -> bool {
        let is_successor = |worker: &Worker| matches!(worker.duty, Duty::Successor(_));
        let waits = self.courtesy_until().is_some_and(|at| at > self.now);
        waits
            || self.leaving().count() >= self.plan.spare()
            || self.slots.iter().flatten().any(is_successor)
    }

    /// Returns the workers that leave their seats.
    fn leaving(&self) -> impl Iterator<Item = &Worker> {
        let workers = self.slots.iter().flatten();
        workers.filter(|worker| matches!(worker.duty, Duty::Leaving(_)))
    }

    /// Returns until when the next replacement waits for the workers that leave.
    fn courtesy_until(&self) -> Option<Instant> {
        let asked = self.leaving().filter_map(|worker| worker.asked_at).max();
        asked.map(|at| at + COURTESY)
    }

    /// Returns when the next replacement no longer waits for the workers that leave.
    pub(super) fn next_turn_at(&self) -> Option<Instant> {
        let is_due = !self.reload.queue.is_empty() && self.phase == Phase::Running;
        let until = is_due.then(|| self.courtesy_until()).flatten();
        until.filter(|at| *at > self.now)
    }

    /// A successor did not start: the old worker stays. That ends a reload; a worker that asked for its
    /// own replacement is replaced later.
    pub(super) fn reload_failed(&mut self) {
        let Some(seat) = self.reload.queue.front().map(|turn| turn.seat) else {
            return;
        };
        match self.reload.left() {
            0 => self.log(Line::Reload(ReloadLine::NotReplaced { seat })),
            left => self.log(Line::Reload(ReloadLine::Failed { seat, left })),
        }
        let queue = &mut self.reload.queue;
        queue.retain(|turn| !turn.is_reload);
        queue.rotate_left(usize::from(!queue.is_empty()));
        self.reload.again = false;
        self.requeue_replacements();
        let backoff = &mut self.reload.backoff;
        let pause = backoff
            .after(Life::Idle, Duration::ZERO, self.now)
            .max(PAUSE);
        self.reload.not_before = Some(self.now + pause);
    }

    /// Queues the workers that asked for their own replacement and had been left to the reload that has
    /// failed.
    fn requeue_replacements(&mut self) {
        let queue = &mut self.reload.queue;
        for worker in self.slots.iter().flatten() {
            let Duty::Seat(seat) = worker.duty else {
                continue;
            };
            if worker.wants_replacement && !queue.iter().any(|turn| turn.seat == seat) {
                queue.push_back(Turn {
                    seat,
                    generation: worker.generation,
                    is_reload: false,
                });
            }
        }
    }

    /// Whether workers are to be replaced, and no event will ever cause that.
    #[cfg(test)]
    pub(super) fn is_reload_forgotten(&self) -> bool {
        let Some(turn) = self.reload.queue.front() else {
            return self.reload.again;
        };
        let current = self.seats[turn.seat].current;
        let is_due = current.is_none_or(|slot| self.is_ready(slot));
        self.phase == Phase::Running
            && is_due
            && self.reload.not_before.is_none()
            && !self.is_a_seat_changing_hands()
            && self.leaving().next().is_none()
    }
}
