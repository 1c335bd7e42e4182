//! Who works where: slots and the worker in each, seats and who has them, and what follows when
//! something happens to a worker.

use std::time::{Duration, Instant};

use super::backoff::{Backoff, Life};
use super::handle::{Handle, WorkerExit};
use super::life::{self, Action, Event, ExitReason, State};
use super::{End, Manager, Phase, Supervised};
use crate::control::News;
use crate::ipc::layout::SlotMemory;
use crate::ipc::sync::Ordering;
use crate::role::Role;
use crate::sys::process::{ExitStatus, ProcessId};

/// The memory that a worker works with, and the one that is there.
pub(super) struct Slot {
    pub(super) memory: SlotMemory,
    pub(super) post: Post,
    pub(super) handle: Option<Handle>,
}

/// What a worker is there for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Post {
    /// It has this seat.
    Seat(usize),
    /// It takes this seat over as soon as it is ready.
    Successor(usize),
    /// It had this seat, and is at its last callback.
    Leaving(usize),
    /// It takes the first seat that a death leaves.
    Standby,
}

impl Post {
    /// The seat that it has, is about to have, or had.
    pub(super) fn seat(self) -> Option<usize> {
        match self {
            Post::Seat(seat) | Post::Successor(seat) | Post::Leaving(seat) => Some(seat),
            Post::Standby => None,
        }
    }
}

impl Slot {
    pub(super) fn new(memory: SlotMemory) -> Slot {
        Slot {
            memory,
            post: Post::Standby,
            handle: None,
        }
    }

    pub(super) fn has(&self, process: ProcessId) -> bool {
        self.handle
            .as_ref()
            .is_some_and(|handle| handle.pid == process)
    }

    pub(super) fn is_ready(&self) -> bool {
        self.handle
            .as_ref()
            .is_some_and(|handle| handle.state == State::Ready)
    }

    /// How the log calls its worker.
    pub(super) fn name(&self) -> String {
        let pid = self.handle.as_ref().map_or(0, |handle| handle.pid.get());
        format!("{}[pid={pid}]", Role::of_worker(self.post.seat()))
    }
}

pub(super) struct Seat {
    /// The slot of whoever has it.
    pub(super) current: Option<usize>,
    pub(super) backoff: Backoff,
    /// When the next worker is due, in a seat that is empty.
    pub(super) refill_at: Option<Instant>,
}

impl Seat {
    pub(super) fn new() -> Seat {
        Seat {
            current: None,
            backoff: Backoff::default(),
            refill_at: None,
        }
    }
}

/// Those who stand by.
pub(super) struct Standby {
    wanted: usize,
    backoff: Backoff,
    /// When the next one is due, where not at once.
    pub(super) refill_at: Option<Instant>,
}

impl Standby {
    pub(super) fn new(wanted: usize) -> Standby {
        Standby {
            wanted,
            backoff: Backoff::default(),
            refill_at: None,
        }
    }
}

impl Manager<'_> {
    /// Lets something happen to the worker of a slot, and does what follows from it.
    pub(super) fn happen(&mut self, slot: usize, event: Event) -> Supervised {
        let handle = &mut self.slots[slot].handle;
        let before = handle.as_ref().map_or(State::Down, |handle| handle.state);
        let (state, action) = life::next(before, event);
        if let Some(handle) = handle {
            handle.state = state;
        }
        match action {
            Action::Nothing => Ok(()),
            Action::Fork => self.fill(slot),
            Action::Announce => self.announce(slot),
            Action::AskToLeave => {
                self.ask_to_leave(slot);
                Ok(())
            }
            Action::Kill => {
                if let Some(handle) = &mut self.slots[slot].handle {
                    handle.deadline = None;
                    handle.pid.kill();
                }
                Ok(())
            }
            Action::Bury => self.bury(slot),
            Action::GiveUp => match self.take_ended(slot) {
                Some((_, exit)) => {
                    log::warn!("{exit}");
                    Err(End::CannotStart(exit))
                }
                None => Ok(()),
            },
        }
    }

    /// What the end of this slot's worker means now.
    pub(super) fn exit_reason(&self, slot: usize) -> ExitReason {
        match (self.phase, self.slots[slot].post) {
            (Phase::Starting, Post::Seat(_)) => ExitReason::NeverStarted,
            _ => ExitReason::Replaceable,
        }
    }

    /// Starts a worker in a slot that is free. There is always one: see `Config::slots`.
    pub(super) fn start(&mut self, post: Post) -> Supervised {
        let free = self.slots.iter().position(|slot| slot.handle.is_none());
        let Some(slot) = free else {
            log::error!("there is no slot for another worker: {post:?}");
            return Ok(());
        };
        self.slots[slot].post = post;
        self.happen(slot, Event::BackoffElapsed)
    }

    fn fill(&mut self, slot: usize) -> Supervised {
        let post = self.slots[slot].post;
        let seat = post.seat().map_or(0, |seat| seat as u32 + 1);
        let orders = &self.slots[slot].memory.orders;
        orders.seat.store(seat, Ordering::Relaxed);
        let handle = match self.fork(slot) {
            Ok(handle) => handle,
            Err(End::Failed(error)) if self.phase == Phase::Running => {
                log::error!("{error}: {} is tried again", Role::of_worker(post.seat()));
                self.could_not_fork(post);
                return Ok(());
            }
            Err(end) => return Err(end),
        };
        let generation = handle.generation;
        let patience = self.start_patience();
        let handle = self.slots[slot].handle.insert(handle);
        // While the server starts, the person who waits for it decides how long is too long.
        handle.deadline = (self.phase == Phase::Running).then(|| Instant::now() + patience);
        if let Post::Seat(seat) = post {
            self.seats[seat].current = Some(slot);
            self.tell(News::Taken {
                seat: seat as u32,
                slot: slot as u32,
                generation,
            });
        }
        Ok(())
    }

    fn could_not_fork(&mut self, post: Post) {
        const PAUSE: Duration = Duration::from_millis(100);
        match post {
            Post::Seat(seat) => {
                let seat = &mut self.seats[seat];
                let delay = seat.backoff.after(Life::Idle, Duration::ZERO);
                seat.refill_at = Some(Instant::now() + delay.max(PAUSE));
            }
            Post::Standby => {
                let delay = self.standby.backoff.after(Life::Idle, Duration::ZERO);
                self.standby.refill_at = Some(Instant::now() + delay.max(PAUSE));
            }
            Post::Successor(_) | Post::Leaving(_) => self.reload_failed(),
        }
    }

    /// A worker is ready.
    fn announce(&mut self, slot: usize) -> Supervised {
        log::debug!("{} is ready", self.slots[slot].name());
        if let Some(handle) = &mut self.slots[slot].handle {
            handle.deadline = None;
            self.slowest_start = self.slowest_start.max(handle.born.elapsed());
        }
        match self.slots[slot].post {
            Post::Seat(seat) => self.tell(News::Ready { seat: seat as u32 }),
            Post::Successor(seat) => self.hand_over(seat, slot)?,
            Post::Leaving(_) | Post::Standby => {}
        }
        let is_ready = |seat: &Seat| seat.current.is_some_and(|it| self.slots[it].is_ready());
        if self.phase == Phase::Starting && self.seats.iter().all(is_ready) {
            self.phase = Phase::Running;
            self.tell(News::AllReady);
            self.hooks.all_ready();
            self.fill_standby()?;
        }
        self.reload_next()
    }

    /// The successor has the seat from here on; the one before it finishes what it has begun.
    fn hand_over(&mut self, seat: usize, slot: usize) -> Supervised {
        let last = self.seats[seat].current;
        self.give_seat(seat, slot);
        match last {
            Some(last) => {
                self.slots[last].post = Post::Leaving(seat);
                self.happen(last, Event::StopRequested)
            }
            None => Ok(()),
        }
    }

    /// A worker that has none gets a seat.
    fn give_seat(&mut self, seat: usize, slot: usize) {
        let patience = self.start_patience();
        self.seats[seat].current = Some(slot);
        self.seats[seat].refill_at = None;
        let at = &mut self.slots[slot];
        let stood_by = at.post == Post::Standby;
        at.post = Post::Seat(seat);
        at.memory
            .orders
            .seat
            .store(seat as u32 + 1, Ordering::Relaxed);
        let generation = at.handle.as_mut().map_or(0, |handle| {
            if stood_by {
                handle.take_seat(patience);
            }
            handle.generation
        });
        let (is_ready, bell) = (at.is_ready(), at.memory.bell.clone());
        self.tell(News::Taken {
            seat: seat as u32,
            slot: slot as u32,
            generation,
        });
        if is_ready && !stood_by {
            self.tell(News::Ready { seat: seat as u32 });
        }
        // In base mode nobody else wakes it.
        bell.ring();
    }

    fn ask_to_leave(&mut self, slot: usize) {
        let until = Instant::now() + self.config.shutdown_deadline;
        let slot = &mut self.slots[slot];
        if let Some(handle) = &mut slot.handle {
            handle.deadline = Some(until);
            let leave = &slot.memory.orders.leave;
            leave.store(handle.generation, Ordering::Relaxed);
            slot.memory.bell.ring();
        }
    }

    /// Takes the worker that has ended out of its slot.
    fn take_ended(&mut self, slot: usize) -> Option<(Handle, WorkerExit)> {
        let seat = self.slots[slot].post.seat();
        self.stop_hearing(slot);
        let handle = self.slots[slot].handle.take()?;
        self.slots[slot].memory.words.void_accepting();
        let exit = handle.exit.unwrap_or(ExitStatus::Code(-1));
        let exit = WorkerExit {
            seat,
            pid: handle.pid.get(),
            exit,
        };
        Some((handle, exit))
    }

    /// A worker is dead: says so, and sees to what it was there for. The user's callback comes last,
    /// so that nobody waits for it.
    fn bury(&mut self, slot: usize) -> Supervised {
        let Some((handle, exit)) = self.take_ended(slot) else {
            return Ok(());
        };
        let (life, age) = handle.life();
        let is_abnormal = life != Life::Complete || exit.exit != ExitStatus::Code(0);
        if is_abnormal {
            log::warn!("{exit}{}", self.cause_of_death(&handle, &exit));
        }
        self.tell(News::Emptied {
            slot: slot as u32,
            generation: handle.generation,
        });
        let followed = match self.slots[slot].post {
            Post::Seat(seat) => self.follow(seat, life, age),
            Post::Leaving(seat) => {
                self.seats[seat].backoff.replaced(life, age);
                self.reload_next()
            }
            Post::Successor(_) => {
                self.reload_failed();
                self.reload_next()
            }
            Post::Standby => self.follow_standby(life, age),
        };
        if is_abnormal && !matches!(followed, Err(End::Child(_))) {
            self.hooks.worker_error(&exit);
        }
        followed
    }

    /// A seat is empty: whoever is ready takes it, or a new worker does, at once or later.
    fn follow(&mut self, seat: usize, life: Life, age: Duration) -> Supervised {
        self.seats[seat].current = None;
        self.tell(News::Vacant { seat: seat as u32 });
        if let Some(successor) = self.slot_of(Post::Successor(seat)) {
            self.give_seat(seat, successor);
            return self.reload_next();
        }
        if self.phase == Phase::Stopping {
            return Ok(());
        }
        let delay = self.seats[seat].backoff.after(life, age);
        if let Some(standby) = self.ready_standby() {
            self.give_seat(seat, standby);
            // However fast workers die, new ones are forked at the same pace as without.
            let pace = Some(Instant::now() + delay);
            self.standby.refill_at = self.standby.refill_at.max(pace);
            self.fill_standby()?;
        } else if delay.is_zero() {
            self.start(Post::Seat(seat))?;
        } else {
            if life == Life::Idle {
                let pace = "keeps dying before it has served anybody";
                log::warn!("worker#{seat} {pace}: the next one is started in {delay:?}");
            }
            self.seats[seat].refill_at = Some(Instant::now() + delay);
        }
        self.reload_next()
    }

    fn follow_standby(&mut self, life: Life, age: Duration) -> Supervised {
        let delay = self.standby.backoff.after(life, age);
        self.standby.refill_at = Some(Instant::now() + delay);
        self.fill_standby()
    }

    pub(super) fn slot_of(&self, post: Post) -> Option<usize> {
        let is_there = |slot: &Slot| slot.handle.is_some() && slot.post == post;
        self.slots.iter().position(is_there)
    }

    /// Somebody who stands by and is ready.
    fn ready_standby(&self) -> Option<usize> {
        self.slots
            .iter()
            .position(|slot| slot.post == Post::Standby && slot.is_ready())
    }

    /// A worker is due for a seat: somebody who stands by, or a new one.
    pub(super) fn refill_one(&mut self, seat: usize) -> Supervised {
        match self.ready_standby() {
            Some(standby) => {
                self.give_seat(seat, standby);
                self.fill_standby()
            }
            None => self.start(Post::Seat(seat)),
        }
    }

    /// Fills the seats that rest.
    pub(super) fn refill(&mut self) -> Supervised {
        for seat in 0..self.seats.len() {
            if self.seats[seat].refill_at.take().is_some() {
                self.refill_one(seat)?;
            }
        }
        Ok(())
    }

    /// Starts as many as are to stand by, unless it is too early.
    pub(super) fn fill_standby(&mut self) -> Supervised {
        let now = Instant::now();
        if self.standby.refill_at.is_some_and(|at| at > now) {
            return Ok(());
        }
        self.standby.refill_at = None;
        while self.phase == Phase::Running
            && !self.ending
            && self.standby_count() < self.standby.wanted
        {
            self.start(Post::Standby)?;
            if self.standby.refill_at.is_some() {
                break; // There was no process to be had.
            }
        }
        Ok(())
    }

    fn standby_count(&self) -> usize {
        let stands_by = |slot: &&Slot| slot.handle.is_some() && slot.post == Post::Standby;
        self.slots.iter().filter(stands_by).count()
    }
}
