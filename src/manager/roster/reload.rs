//! Reload and recycling: the new worker starts while the old one serves, and has the seat from the
//! moment when it is ready. One seat at a time, whatever the cause.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{Line, Phase, Post, Roster, Worker};
use crate::manager::backoff::{Backoff, Life};
use crate::manager::life::{self, State};

/// The least time between a worker's getting ready and its replacement: one that asks for that at
/// its very start does not make the manager do nothing but fork.
const FLOOR: Duration = Duration::from_millis(10);

/// The shortest pause after a worker could not be replaced.
const PAUSE: Duration = Duration::from_millis(100);

/// The workers that are to be replaced.
#[derive(Default)]
pub(super) struct Reload {
    /// The first of them is being replaced.
    queue: VecDeque<Turn>,
    /// Another reload was asked for meanwhile.
    again: bool,
    /// The next turn waits until then.
    pub(super) not_before: Option<Instant>,
    backoff: Backoff,
}

/// A worker that is to be replaced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Turn {
    seat: usize,
    /// Up to this generation.
    generation: u32,
    /// Everybody is: a person has asked.
    is_reload: bool,
}

impl Reload {
    /// Nothing is replaced any more.
    pub(super) fn forget(&mut self) {
        self.queue.clear();
        self.again = false;
        self.not_before = None;
    }

    /// How many workers a reload has not come to yet.
    fn left(&self) -> usize {
        self.queue.iter().filter(|turn| turn.is_reload).count()
    }
}

impl Roster {
    /// Replaces every worker.
    pub(super) fn reload(&mut self) {
        if self.phase != Phase::Running {
            return self.log(Line::ReloadRefused);
        }
        if self.reload.left() > 0 {
            // Restarted at the first seat, it would never come to the last ones.
            self.reload.again = true;
            return;
        }
        let workers = self.seats.len();
        self.log(Line::ReloadStarted { workers });
        let generation = self.last_generation;
        self.reload.queue.extend((0..workers).map(|seat| Turn {
            seat,
            generation,
            is_reload: true,
        }));
        // They have nothing to finish. New ones come in their place; one that is about to be forked is
        // new.
        let is_old = |it: &Worker| it.post == Post::Standby && it.is_forked();
        for slot in 0..self.slots.len() {
            if self.worker(slot).is_some_and(is_old) {
                self.step(slot, life::Event::StopRequested);
            }
        }
        self.reload_next();
    }

    /// Replaces one worker, in its turn: it has asked for it, or has grown too large. Returns whether
    /// that was not decided before.
    pub(super) fn replace(&mut self, slot: usize) -> bool {
        let Some(worker) = self.worker(slot) else {
            return false;
        };
        let (post, generation) = (worker.post, worker.generation);
        let seat = match post {
            Post::Seat(seat) | Post::Successor(seat) => seat,
            Post::Standby => {
                self.step(slot, life::Event::StopRequested);
                return true;
            }
            Post::Leaving(_) => return false,
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

    /// A worker has more memory than it may: it is replaced, or killed if it has much more.
    pub(super) fn too_large(&mut self, slot: usize, bytes: u64, limit: u64) {
        let Some(worker) = self.worker(slot) else {
            return;
        };
        let (name, state) = (worker.name(), worker.state);
        let serves = matches!(worker.post, Post::Seat(_) | Post::Standby);
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

    /// Goes on with the workers that are to be replaced, as far as it can without waiting.
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
                    return self.start(Post::Successor(turn.seat));
                }
            }
            // A new one has the seat, or the next one there is new anyway.
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
            self.log(Line::ReloadFinished);
        }
    }

    fn is_a_seat_changing_hands(&self) -> bool {
        let changes =
            |worker: &Worker| matches!(worker.post, Post::Successor(_) | Post::Leaving(_));
        self.slots.iter().flatten().any(changes)
    }

    /// A successor could not start: the old worker stays. A reload is over with that; a worker that
    /// has asked for its own replacement is replaced later.
    pub(super) fn reload_failed(&mut self) {
        let Some(seat) = self.reload.queue.front().map(|turn| turn.seat) else {
            return;
        };
        match self.reload.left() {
            0 => self.log(Line::NotReplaced { seat }),
            left => self.log(Line::ReloadFailed { seat, left }),
        }
        let queue = &mut self.reload.queue;
        queue.retain(|turn| !turn.is_reload);
        queue.rotate_left(usize::from(!queue.is_empty()));
        self.reload.again = false;
        self.remember_who_wants_to_go();
        let backoff = &mut self.reload.backoff;
        let pause = backoff
            .after(Life::Idle, Duration::ZERO, self.now)
            .max(PAUSE);
        self.reload.not_before = Some(self.now + pause);
    }

    /// Queues the workers that have asked for their own replacement and were left to the reload that
    /// is over.
    fn remember_who_wants_to_go(&mut self) {
        let queue = &mut self.reload.queue;
        for worker in self.slots.iter().flatten() {
            let Post::Seat(seat) = worker.post else {
                continue;
            };
            if worker.wants_to_go && !queue.iter().any(|turn| turn.seat == seat) {
                queue.push_back(Turn {
                    seat,
                    generation: worker.generation,
                    is_reload: false,
                });
            }
        }
    }

    /// Whether there are workers to be replaced, and nothing that will come to that.
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
    }
}
