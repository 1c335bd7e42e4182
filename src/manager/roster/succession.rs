//! From a death to the next worker: the seat goes to the successor that was started for it, to a standby
//! worker, or to a new one, at once or after a pause.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::{Duty, Effect, Line, Roster, Verdict, Worker};
use crate::control::{News, NoteSet};
use crate::manager::backoff::Life;
use crate::manager::exit::WorkerExit;
use crate::manager::life::{self, Action, ExitReason, State};
use crate::manager::roster::Phase;
use crate::sys::process::ExitStatus;

/// Whether another process ended a worker that was ready. Of the signals that a process raises by its own fault,
/// none counts.
fn was_killed_from_outside(worker: &Worker, exit: ExitStatus) -> bool {
    let is_outside = match exit {
        ExitStatus::Code(_) => false,
        ExitStatus::Signal(signal) => !OWN_FAULTS.iter().any(|own| *own as i32 == signal),
    };
    is_outside && worker.state == State::Ready
}

/// The signals that the kernel sends to a process for what the process does, and that of abort(3).
const OWN_FAULTS: [Signal; 9] = [
    Signal::SIGILL,
    Signal::SIGTRAP,
    Signal::SIGABRT,
    Signal::SIGBUS,
    Signal::SIGFPE,
    Signal::SIGSEGV,
    Signal::SIGXCPU,
    Signal::SIGXFSZ,
    Signal::SIGSYS,
];

impl Roster {
    /// Takes the notes that a dead worker left in its pipe: whether it was ready, and whether it left as
    /// asked.
    pub(super) fn notes_at_exit(&mut self, slot: usize, notes: NoteSet) {
        let now = self.now;
        let Some(worker) = &mut self.slots[slot] else {
            return;
        };
        match worker.duty {
            Duty::Seat(_) | Duty::Leaving(_) => self.noted(slot, notes),
            // A dead successor gets no seat.
            Duty::Successor(_) | Duty::Standby => worker.note(notes, now),
        }
    }

    /// A worker is dead: logs it, tells the master, and passes its duty on. The user's callback comes
    /// last, so that no client waits for it.
    pub(super) fn exited(&mut self, slot: usize, exit: ExitStatus) {
        let Some(worker) = self.slots[slot].take() else {
            return;
        };
        let (mut life, age) = worker.life(self.now);
        if life == Life::Idle && was_killed_from_outside(&worker, exit) {
            life = Life::Killed;
        }
        let reason = match (self.phase, worker.duty) {
            (Phase::Starting, Duty::Seat(_)) => ExitReason::NeverStarted,
            _ => ExitReason::Replaceable,
        };
        let (_, action) = life::next(worker.state, life::Event::Exited(reason));
        let gives_up = action == Action::GiveUp;
        let exit = WorkerExit {
            seat: worker.duty.seat(),
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
        match worker.duty {
            Duty::Seat(seat) => self.refill_after_exit(seat, life, age),
            Duty::Leaving(seat) => {
                self.seats[seat].backoff.replaced(life, age);
                self.reload_next();
            }
            Duty::Successor(_) => {
                self.reload_failed();
                self.reload_next();
            }
            Duty::Standby => self.refill_standby_after_exit(life, age),
        }
        self.effects.push_back(Effect::CallWorkerExit(exit));
    }

    /// Refills a seat after its worker has exited: with a ready worker, or with a new one at once or later.
    fn refill_after_exit(&mut self, seat: usize, life: Life, age: Duration) {
        self.seats[seat].current = None;
        self.tell(News::Vacant { seat: seat as u32 });
        let successor = self.slots_of(Duty::Successor(seat)).next();
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
            // New workers are forked at the same pace as without a standby, however fast they die.
            self.standby.refill_at = self.standby.refill_at.max(Some(now + delay));
            self.fill_standby();
        } else if delay.is_zero() {
            self.start(Duty::Seat(seat));
        } else {
            if life == Life::Idle {
                self.log(Line::KeepsDying { seat, pause: delay });
            }
            self.seats[seat].refill_at = Some(now + delay);
        }
        self.reload_next();
    }

    fn refill_standby_after_exit(&mut self, life: Life, age: Duration) {
        if self.phase != Phase::Stopping {
            let delay = self.standby.backoff.after(life, age, self.now);
            self.standby.refill_at = self.standby.refill_at.max(Some(self.now + delay));
            self.fill_standby();
        }
    }

    /// Gives the seat to its successor; the worker before it finishes its callback and leaves.
    pub(super) fn hand_over(&mut self, seat: usize, slot: usize) {
        let last = self.seats[seat].current;
        self.give_seat(seat, slot);
        if let Some(last) = last {
            if let Some(worker) = &mut self.slots[last] {
                worker.duty = Duty::Leaving(seat);
            }
            self.step(last, life::Event::StopRequested);
        }
    }

    /// Gives a seat to a worker without one.
    fn give_seat(&mut self, seat: usize, slot: usize) {
        let (now, patience) = (self.now, self.start_patience());
        self.seats[seat].current = Some(slot);
        let Some(worker) = &mut self.slots[slot] else {
            return;
        };
        let stood_by = worker.duty == Duty::Standby;
        worker.duty = Duty::Seat(seat);
        if stood_by {
            worker.take_seat(patience, now);
        }
        let (generation, is_ready) = (worker.generation, worker.state == State::Ready);
        // Before the master is told: its reactors submit frames to the worker as soon as they know.
        self.effects.push_back(Effect::AssignSeat { slot, seat });
        self.tell_taken(seat, slot, generation);
        if is_ready && !stood_by {
            self.tell(News::Ready { seat: seat as u32 });
        }
        // In base mode there is no reactor to wake it.
        self.effects.push_back(Effect::Wake { slot });
    }

    /// Returns the slot of a ready standby worker.
    fn ready_standby(&self) -> Option<usize> {
        self.slots_of(Duty::Standby)
            .find(|slot| self.is_ready(*slot))
    }

    /// Fills an empty seat with a standby worker, or with a new one.
    pub(super) fn refill_one(&mut self, seat: usize) {
        match self.ready_standby() {
            Some(standby) => {
                self.give_seat(seat, standby);
                self.fill_standby();
            }
            None => self.start(Duty::Seat(seat)),
        }
    }

    /// Starts the next standby worker, unless it is too early. Once that one is forked, it starts the one
    /// after it; a fork that fails ends the sequence.
    pub(super) fn fill_standby(&mut self) {
        if self.standby.refill_at.is_some_and(|at| at > self.now) {
            return;
        }
        self.standby.refill_at = None;
        let count = self.slots_of(Duty::Standby).count();
        if self.phase == Phase::Running && count < self.standby.wanted {
            self.start(Duty::Standby);
        }
    }
}
