//! From a death to the next worker: the seat goes to a successor that was to have it anyway, to a
//! worker that stands by, or to a new one, at once or after a pause.

use std::time::Duration;

use super::{Effect, Line, Post, Roster, Verdict};
use crate::control::{News, NoteSet};
use crate::manager::backoff::Life;
use crate::manager::exit::WorkerExit;
use crate::manager::life::{self, Action, ExitReason, State};
use crate::manager::roster::Phase;
use crate::sys::process::ExitStatus;

impl Roster {
    /// A worker that is dead had told something: it says whether it was ready, and whether it was to
    /// end.
    pub(super) fn last_words(&mut self, slot: usize, notes: NoteSet) {
        let now = self.now;
        let Some(worker) = &mut self.slots[slot] else {
            return;
        };
        match worker.post {
            Post::Seat(_) | Post::Leaving(_) => self.noted(slot, notes),
            // A dead successor gets no seat.
            Post::Successor(_) | Post::Standby => worker.note(notes, now),
        }
    }

    /// A worker is dead: says so, and sees to the task that it had. The user's callback comes last,
    /// so that no client waits for it.
    pub(super) fn exited(&mut self, slot: usize, exit: ExitStatus) {
        let Some(worker) = self.slots[slot].take() else {
            return;
        };
        let (life, age) = worker.life(self.now);
        let reason = match (self.phase, worker.post) {
            (Phase::Starting, Post::Seat(_)) => ExitReason::NeverStarted,
            _ => ExitReason::Replaceable,
        };
        let (_, action) = life::next(worker.state, life::Event::Exited(reason));
        let gives_up = action == Action::GiveUp;
        let exit = WorkerExit {
            seat: worker.post.seat(),
            pid: worker.pid,
            exit,
            is_abnormal: life != Life::Complete || exit != ExitStatus::Code(0),
        };
        if exit.is_abnormal {
            let was_killed = worker.state == State::Killing;
            self.log(Line::AbnormalExit { exit, was_killed });
        }
        self.tell(News::Emptied {
            slot: slot as u32,
            generation: worker.generation,
        });
        if gives_up {
            self.effects.push_back(Effect::CallWorkerExit(exit));
            self.effects
                .push_back(Effect::End(Verdict::CannotStart(exit)));
            return;
        }
        match worker.post {
            Post::Seat(seat) => self.follow(seat, life, age),
            Post::Leaving(seat) => {
                self.seats[seat].backoff.replaced(life, age);
                self.reload_next();
            }
            Post::Successor(_) => {
                self.reload_failed();
                self.reload_next();
            }
            Post::Standby => self.follow_standby(life, age),
        }
        self.effects.push_back(Effect::CallWorkerExit(exit));
    }

    /// A seat is empty: a ready worker takes it, or a new one does, at once or later.
    fn follow(&mut self, seat: usize, life: Life, age: Duration) {
        self.seats[seat].current = None;
        self.tell(News::Vacant { seat: seat as u32 });
        let successor = self.slots_of(Post::Successor(seat)).next();
        if let Some(successor) = successor {
            // The turn goes on: it ends when the successor is ready.
            return self.give_seat(seat, successor);
        }
        if self.phase == Phase::Stopping {
            return;
        }
        let (delay, now) = (
            self.seats[seat].backoff.after(life, age, self.now),
            self.now,
        );
        if let Some(standby) = self.ready_standby() {
            self.give_seat(seat, standby);
            // However fast workers die, new ones are forked at the same pace as without a standby.
            self.standby.refill_at = self.standby.refill_at.max(Some(now + delay));
            self.fill_standby();
        } else if delay.is_zero() {
            self.start(Post::Seat(seat));
        } else {
            if life == Life::Idle {
                self.log(Line::KeepsDying { seat, pause: delay });
            }
            self.seats[seat].refill_at = Some(now + delay);
        }
        self.reload_next();
    }

    fn follow_standby(&mut self, life: Life, age: Duration) {
        if self.phase != Phase::Stopping {
            let delay = self.standby.backoff.after(life, age, self.now);
            self.standby.refill_at = self.standby.refill_at.max(Some(self.now + delay));
            self.fill_standby();
        }
    }

    /// The successor has the seat from here on; the one before it finishes what it has begun.
    pub(super) fn hand_over(&mut self, seat: usize, slot: usize) {
        let last = self.seats[seat].current;
        self.give_seat(seat, slot);
        if let Some(last) = last {
            if let Some(worker) = &mut self.slots[last] {
                worker.post = Post::Leaving(seat);
            }
            self.step(last, life::Event::StopRequested);
        }
    }

    /// A worker that has none gets a seat.
    fn give_seat(&mut self, seat: usize, slot: usize) {
        let (now, patience) = (self.now, self.start_patience());
        self.seats[seat].current = Some(slot);
        let Some(worker) = &mut self.slots[slot] else {
            return;
        };
        let stood_by = worker.post == Post::Standby;
        worker.post = Post::Seat(seat);
        if stood_by {
            worker.take_seat(patience, now);
        }
        let (generation, is_ready) = (worker.generation, worker.state == State::Ready);
        // Before the master is told, whose reactors let it in.
        self.effects.push_back(Effect::AssignSeat { slot, seat });
        self.tell_taken(seat, slot, generation);
        if is_ready && !stood_by {
            self.tell(News::Ready { seat: seat as u32 });
        }
        // In base mode nothing else wakes it.
        self.effects.push_back(Effect::Wake { slot });
    }

    /// A worker that stands by and is ready.
    fn ready_standby(&self) -> Option<usize> {
        self.slots_of(Post::Standby)
            .find(|slot| self.is_ready(*slot))
    }

    /// A worker is due for a seat: one that stands by, or a new one.
    pub(super) fn refill_one(&mut self, seat: usize) {
        match self.ready_standby() {
            Some(standby) => {
                self.give_seat(seat, standby);
                self.fill_standby();
            }
            None => self.start(Post::Seat(seat)),
        }
    }

    /// Starts the next of those that are to stand by, unless it is too early. When that one is
    /// forked, the one after it has its turn; a fork that fails ends the row.
    pub(super) fn fill_standby(&mut self) {
        if self.standby.refill_at.is_some_and(|at| at > self.now) {
            return;
        }
        self.standby.refill_at = None;
        let count = self.slots_of(Post::Standby).count();
        if self.phase == Phase::Running && count < self.standby.wanted {
            self.start(Post::Standby);
        }
    }
}
