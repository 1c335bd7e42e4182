//! ALL WORKERS: which worker has which seat, which is about to take one, and the effects of each event.
//!
//! Runs in the manager. Its one rule: it is pure. It takes events, each with its time, and returns
//! effects for the manager's loop to carry out; it makes no system call, reads no clock and writes no
//! log, so that a test can play a million histories. [`life`](super::life) has the effect of an event on
//! one worker; the roster has its effects on the others:
//!
//! - here: from the fork to a ready worker;
//! - [`succession`]: from a death to the next worker in the seat;
//! - [`reload`]: one worker replaced by the next while both run;
//! - [`ending`]: the end of all workers;
//! - [`time`]: deadlines and delays.

mod ending;
mod event;
mod line;
mod reload;
mod succession;
mod time;
mod worker;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

pub(crate) use self::event::{Effect, Event, Verdict};
pub(crate) use self::line::{Line, Name, ReloadLine};
use self::reload::Reload;
pub(crate) use self::worker::{Duty, Worker};
use self::worker::{Seat, Standby};
use super::backoff::Life;
use super::life::{self, Action, State};
use crate::control::{News, Note, NoteSet};
use crate::error::Error;

/// The settings that decide how workers succeed each other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) workers: usize,
    pub(crate) standby: usize,
    /// More than the workers with seats and on standby: for workers that leave a seat, and one that is about
    /// to take one over.
    pub(crate) slots: usize,
    /// How long a worker may take to leave.
    pub(crate) leave_deadline: Duration,
    /// How long all seats may be in back-off before the server ends.
    pub(crate) crash_loop: Option<Duration>,
}

impl Plan {
    /// Returns the most workers that can leave, or be about to take a seat over, at the same time.
    fn spare(&self) -> usize {
        self.slots - self.workers - self.standby
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Some seat has not had a ready worker yet.
    Starting,
    Running,
    /// The master finishes its connections: empty seats are filled, and no worker is replaced.
    Ending,
    /// Every worker was asked to leave.
    Stopping,
}

impl Phase {
    /// Whether the server goes on when a worker dies or cannot be forked.
    fn serves(self) -> bool {
        match self {
            Phase::Running | Phase::Ending => true,
            Phase::Starting | Phase::Stopping => false,
        }
    }
}

/// All workers of a server.
pub(crate) struct Roster {
    plan: Plan,
    phase: Phase,
    seats: Vec<Seat>,
    /// The worker in each slot.
    slots: Vec<Option<Worker>>,
    standby: Standby,
    reload: Reload,
    /// The newest generation, counted over all slots.
    last_generation: u32,
    /// The longest that a worker has taken to get ready.
    slowest_start: Duration,
    /// The time of the last event.
    now: Instant,
    effects: VecDeque<Effect>,
}

impl Roster {
    pub(crate) fn new(plan: Plan, now: Instant) -> Roster {
        Roster {
            plan,
            phase: Phase::Starting,
            seats: (0..plan.workers).map(|_| Seat::default()).collect(),
            slots: (0..plan.slots).map(|_| None).collect(),
            standby: Standby::new(plan.standby),
            reload: Reload::default(),
            last_generation: 0,
            slowest_start: Duration::ZERO,
            now,
            effects: VecDeque::new(),
        }
    }

    /// Takes an event. Its effects go before those of earlier events that are not carried out yet: the
    /// answer to a fork is an event, and its effects belong to the fork.
    pub(crate) fn happened(&mut self, event: Event, now: Instant) {
        let pending = self.effects.len();
        self.now = now;
        match event {
            Event::Started => (0..self.seats.len()).for_each(|seat| self.start(Duty::Seat(seat))),
            Event::Forked { slot, pid } => self.forked(slot, pid),
            Event::ForkFailed { slot, error } => self.fork_failed(slot, error),
            Event::Noted { slot, notes } => self.noted(slot, notes),
            Event::NotesAtExit { slot, notes } => self.notes_at_exit(slot, notes),
            Event::Exited { slot, exit } => self.exited(slot, exit),
            Event::TimePassed => self.time_passed(),
            Event::ReloadRequested => self.reload(),
            Event::RefillRequested => self.refill(),
            Event::StopRequested => self.stop(),
            Event::KillRequested => self.kill_all(),
            Event::Condemned { slot, generation } => {
                if self
                    .worker(slot)
                    .is_some_and(|it| it.generation == generation)
                {
                    self.step(slot, life::Event::Condemned);
                }
            }
            Event::TooLarge { slot, bytes, limit } => self.too_large(slot, bytes, limit),
        }
        self.effects.rotate_left(pending);
    }

    /// Returns the next effect to be carried out.
    pub(crate) fn next_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Whether every worker was asked to leave, and has left.
    pub(crate) fn has_ended(&self) -> bool {
        self.phase == Phase::Stopping && self.slots.iter().all(Option::is_none)
    }

    /// Returns the worker in a slot.
    pub(crate) fn worker(&self, slot: usize) -> Option<&Worker> {
        self.slots.get(slot)?.as_ref()
    }

    /// Advances a worker by an event in its life.
    fn step(&mut self, slot: usize, event: life::Event) {
        let Some(worker) = &mut self.slots[slot] else {
            return;
        };
        let (state, action) = life::next(worker.state, event);
        worker.state = state;
        let generation = worker.generation;
        match action {
            Action::Fork => self.effects.push_back(Effect::Fork {
                slot,
                seat: worker.duty.seat(),
                generation,
            }),
            Action::Announce => self.announce(slot),
            Action::AskToLeave => {
                worker.was_asked = true;
                worker.deadline = Some(self.now + self.plan.leave_deadline);
                worker.asked_at = Some(self.now);
                self.effects
                    .push_back(Effect::AskToLeave { slot, generation });
            }
            Action::Kill => {
                worker.deadline = None;
                worker.seated_by = None;
                self.effects.push_back(Effect::Kill { slot });
            }
            // The first two come from an exit alone, which `exited` handles.
            Action::HandleExit | Action::GiveUp | Action::Nothing => {}
        }
    }

    /// Starts a worker in a free slot. There is always a free one: see [`Plan::spare`].
    fn start(&mut self, duty: Duty) {
        let Some(slot) = self.slots.iter().position(Option::is_none) else {
            self.log(Line::NoSlot { seat: duty.seat() });
            return;
        };
        self.last_generation += 1;
        self.slots[slot] = Some(Worker::new(self.last_generation, duty, self.now));
        if let Duty::Seat(seat) = duty {
            self.seats[seat].current = Some(slot);
        }
        self.step(slot, life::Event::BackoffElapsed);
    }

    fn forked(&mut self, slot: usize, pid: i32) {
        let (now, patience) = (self.now, self.start_patience());
        let Some(worker) = &mut self.slots[slot] else {
            return;
        };
        worker.pid = pid;
        worker.born = now;
        // While the server starts there is no deadline: the person who started it decides how long to
        // wait.
        worker.deadline = self.phase.serves().then(|| now + patience);
        let generation = worker.generation;
        match worker.duty {
            Duty::Seat(seat) => self.tell_taken(seat, slot, generation),
            Duty::Standby => self.fill_standby(),
            Duty::Successor(_) | Duty::Leaving(_) => {}
        }
    }

    fn fork_failed(&mut self, slot: usize, error: Error) {
        const PAUSE: Duration = Duration::from_millis(100);
        let Some(worker) = self.slots[slot].take() else {
            return;
        };
        if !self.phase.serves() {
            self.effects
                .push_back(Effect::End(Verdict::CannotFork(error)));
            return;
        }
        let (seat, now) = (worker.duty.seat(), self.now);
        let (backoff, refill_at) = match worker.duty {
            Duty::Seat(seat) => {
                let seat = &mut self.seats[seat];
                seat.current = None;
                (&mut seat.backoff, &mut seat.refill_at)
            }
            Duty::Standby => (&mut self.standby.backoff, &mut self.standby.refill_at),
            Duty::Successor(_) | Duty::Leaving(_) => {
                self.log(Line::CannotFork {
                    seat,
                    error,
                    retried_in: None,
                });
                return self.reload_failed();
            }
        };
        let pause = backoff.after(Life::Idle, Duration::ZERO, now).max(PAUSE);
        *refill_at = Some(now + pause);
        self.log(Line::CannotFork {
            seat,
            error,
            retried_in: Some(pause),
        });
        self.reload_next();
    }

    /// A worker has written notes.
    fn noted(&mut self, slot: usize, notes: NoteSet) {
        let now = self.now;
        let Some(worker) = &mut self.slots[slot] else {
            return;
        };
        let is_seated = notes.has(Note::Seated) && worker.seated_by.is_some();
        worker.note(notes, now);
        if notes.has(Note::Ready) {
            self.step(slot, life::Event::BecameReady);
        }
        if notes.has(Note::Replace) {
            self.replace(slot);
        }
        if is_seated && let Some(Duty::Seat(seat)) = self.worker(slot).map(|worker| worker.duty) {
            self.tell(News::Ready { seat: seat as u32 });
        }
    }

    /// A worker is ready.
    fn announce(&mut self, slot: usize) {
        let Some(worker) = &mut self.slots[slot] else {
            return;
        };
        worker.deadline = None;
        let (name, duty) = (worker.name(), worker.duty);
        let took = self.now.saturating_duration_since(worker.born);
        self.slowest_start = self.slowest_start.max(took);
        self.log(Line::Ready(name));
        match duty {
            Duty::Seat(seat) => self.tell(News::Ready { seat: seat as u32 }),
            Duty::Successor(seat) => self.hand_over(seat, slot),
            Duty::Leaving(_) | Duty::Standby => {}
        }
        let is_ready = |seat: &Seat| seat.current.is_some_and(|slot| self.is_ready(slot));
        if self.phase == Phase::Starting && self.seats.iter().all(is_ready) {
            self.phase = Phase::Running;
            self.tell(News::AllReady);
            self.effects.push_back(Effect::CallAllReady);
            self.fill_standby();
        }
        self.reload_next();
    }

    fn is_ready(&self, slot: usize) -> bool {
        self.worker(slot)
            .is_some_and(|worker| worker.state == State::Ready)
    }

    /// Returns the slots with a worker that has this duty.
    fn slots_of(&self, duty: Duty) -> impl Iterator<Item = usize> {
        let has = move |worker: &Worker| worker.duty == duty;
        let slots = self.slots.iter().enumerate();
        slots.filter_map(move |(slot, worker)| worker.as_ref().is_some_and(has).then_some(slot))
    }

    fn tell(&mut self, news: News) {
        self.effects.push_back(Effect::Tell(news));
    }

    fn tell_taken(&mut self, seat: usize, slot: usize, generation: u32) {
        self.tell(News::Taken {
            seat: seat as u32,
            slot: slot as u32,
            generation,
        });
    }

    fn log(&mut self, line: Line) {
        self.effects.push_back(Effect::Log(line));
    }
}
