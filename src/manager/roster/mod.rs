//! ALL WORKERS: which one has which seat, which are about to, and what follows from an event.
//!
//! Runs in the manager. Its one rule: it is pure. It takes events, each with its time, and leaves
//! effects for the manager's loop to carry out; no system call, no clock and no log is in here, so
//! that a test can play a million histories. What an event means for one worker is in
//! [`life`](super::life); this is what it means for the others:
//!
//! - here, from the fork to a worker that is ready;
//! - in [`succession`], from a death to the next worker in the seat;
//! - in [`reload`], one worker replaced by the next while both run;
//! - in [`ending`], how all of them go;
//! - in [`time`], what is due by the clock.

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
pub(crate) use self::line::{Line, Name};
use self::reload::Reload;
pub(crate) use self::worker::{Post, Worker};
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
    /// How long a worker may take to leave.
    pub(crate) shutdown_deadline: Duration,
    /// How long all seats may be in back-off before the server ends.
    pub(crate) crash_loop: Option<Duration>,
}

impl Plan {
    /// Beside those who have seats or stand by, there is one that leaves or is about to take over.
    fn slots(&self) -> usize {
        self.workers + self.standby + 1
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Some worker has not been ready yet.
    Starting,
    Running,
    /// The master finishes its connections: seats are filled, and no worker is replaced.
    Ending,
    /// Every worker is asked to leave.
    Stopping,
}

impl Phase {
    /// Whether a worker that dies or cannot be forked is one of many, and no reason to end.
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
    /// Workers are counted over all slots.
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
            slots: (0..plan.slots()).map(|_| None).collect(),
            standby: Standby::new(plan.standby),
            reload: Reload::default(),
            last_generation: 0,
            slowest_start: Duration::ZERO,
            now,
            effects: VecDeque::new(),
        }
    }

    /// Takes an event. Its effects come before those of earlier events that are not carried out yet:
    /// the answer to a fork is one, and what follows from that belongs to the fork.
    pub(crate) fn happened(&mut self, event: Event, now: Instant) {
        let pending = self.effects.len();
        self.now = now;
        match event {
            Event::Started => (0..self.seats.len()).for_each(|seat| self.start(Post::Seat(seat))),
            Event::Forked { slot, pid } => self.forked(slot, pid),
            Event::ForkFailed { slot, error } => self.fork_failed(slot, error),
            Event::Noted { slot, notes } => self.noted(slot, notes),
            Event::LastWords { slot, notes } => self.last_words(slot, notes),
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

    /// The next effect to be carried out.
    pub(crate) fn next_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Whether every worker has left, as all were asked to.
    pub(crate) fn has_ended(&self) -> bool {
        self.phase == Phase::Stopping && self.slots.iter().all(Option::is_none)
    }

    /// The worker in a slot.
    pub(crate) fn worker(&self, slot: usize) -> Option<&Worker> {
        self.slots.get(slot)?.as_ref()
    }

    /// A worker goes one step in its life.
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
                seat: worker.post.seat(),
                generation,
            }),
            Action::Announce => self.announce(slot),
            Action::AskToLeave => {
                worker.deadline = Some(self.now + self.plan.shutdown_deadline);
                self.effects
                    .push_back(Effect::AskToLeave { slot, generation });
            }
            Action::Kill => {
                worker.deadline = None;
                worker.seated_by = None;
                self.effects.push_back(Effect::Kill { slot });
            }
            // Both follow from an exit alone, which has its own way: see `exited`.
            Action::Bury | Action::GiveUp | Action::Nothing => {}
        }
    }

    /// Starts a worker in a free slot. There always is one: see [`Plan::slots`].
    fn start(&mut self, post: Post) {
        let Some(slot) = self.slots.iter().position(Option::is_none) else {
            self.log(Line::NoSlot { seat: post.seat() });
            return;
        };
        self.last_generation += 1;
        self.slots[slot] = Some(Worker::new(self.last_generation, post, self.now));
        if let Post::Seat(seat) = post {
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
        // While the server starts, the person who waits for it decides how long is too long.
        worker.deadline = self.phase.serves().then(|| now + patience);
        let generation = worker.generation;
        match worker.post {
            Post::Seat(seat) => self.tell_taken(seat, slot, generation),
            Post::Standby => self.fill_standby(),
            Post::Successor(_) | Post::Leaving(_) => {}
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
        let (seat, now) = (worker.post.seat(), self.now);
        let (backoff, refill_at) = match worker.post {
            Post::Seat(seat) => {
                let seat = &mut self.seats[seat];
                seat.current = None;
                (&mut seat.backoff, &mut seat.refill_at)
            }
            Post::Standby => (&mut self.standby.backoff, &mut self.standby.refill_at),
            Post::Successor(_) | Post::Leaving(_) => {
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

    /// A worker has told something.
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
        if is_seated && let Some(Post::Seat(seat)) = self.worker(slot).map(|worker| worker.post) {
            self.tell(News::Ready { seat: seat as u32 });
        }
    }

    /// A worker is ready.
    fn announce(&mut self, slot: usize) {
        let Some(worker) = &mut self.slots[slot] else {
            return;
        };
        worker.deadline = None;
        let (name, post) = (worker.name(), worker.post);
        let took = self.now.saturating_duration_since(worker.born);
        self.slowest_start = self.slowest_start.max(took);
        self.log(Line::Ready(name));
        match post {
            Post::Seat(seat) => self.tell(News::Ready { seat: seat as u32 }),
            Post::Successor(seat) => self.hand_over(seat, slot),
            Post::Leaving(_) | Post::Standby => {}
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

    /// The slots with a worker that has this post.
    fn slots_of(&self, post: Post) -> impl Iterator<Item = usize> {
        let has = move |worker: &Worker| worker.post == post;
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
