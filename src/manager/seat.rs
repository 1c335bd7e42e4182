//! A seat: who sits in it, who is next, and what follows when something happens to them.

use std::time::{Duration, Instant};

use super::backoff::{Backoff, Life};
use super::handle::{Handle, WorkerExit};
use super::life::{self, Action, Event, ExitReason, State};
use super::wire::News;
use super::{End, Manager, NOTES, Phase, Supervised, failed};
use crate::ipc::layout::SeatMemory;
use crate::ipc::sync::Ordering;
use crate::sys::epoll::Interest;
use crate::sys::process::{ExitStatus, ProcessId};

pub(super) struct Seat {
    pub(super) memory: SeatMemory,
    /// Whoever has the seat.
    current: Option<Handle>,
    /// Whoever takes it next, and may be ready already.
    successor: Option<Handle>,
    pub(super) last_generation: u32,
    backoff: Backoff,
    /// When the next process is due, in a seat that is empty.
    pub(super) refill_at: Option<Instant>,
}

/// Which of a seat's two processes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    Current,
    Successor,
}

impl Seat {
    pub(super) fn new(memory: SeatMemory) -> Seat {
        Seat {
            memory,
            current: None,
            successor: None,
            last_generation: 0,
            backoff: Backoff::default(),
            refill_at: None,
        }
    }

    pub(super) fn at(&mut self, place: Place) -> &mut Option<Handle> {
        match place {
            Place::Current => &mut self.current,
            Place::Successor => &mut self.successor,
        }
    }

    pub(super) fn current(&self) -> Option<&Handle> {
        self.current.as_ref()
    }

    pub(super) fn successor(&self) -> Option<&Handle> {
        self.successor.as_ref()
    }

    pub(super) fn is_ready(&self) -> bool {
        self.current
            .as_ref()
            .is_some_and(|current| current.state == State::Ready)
    }

    /// Whether the one who has the seat is on its way out.
    fn is_leaving(&self) -> bool {
        let current = self.current.as_ref();
        current.is_some_and(|it| matches!(it.state, State::Draining | State::Killing))
    }

    pub(super) fn is_vacant(&self) -> bool {
        self.current.is_none() && self.successor.is_none()
    }

    pub(super) fn has(&self, process: ProcessId) -> bool {
        self.current
            .iter()
            .chain(&self.successor)
            .any(|handle| handle.pid == process)
    }

    pub(super) fn next_timer(&self) -> Option<Instant> {
        let deadlines = self
            .current
            .iter()
            .chain(&self.successor)
            .filter_map(|it| it.deadline);
        deadlines.chain(self.refill_at).min()
    }
}

/// The token of a worker's notes.
fn token(number: usize, place: Place) -> u64 {
    NOTES + number as u64 * 2 + u64::from(place == Place::Successor)
}

impl Manager<'_> {
    /// Lets something happen to a process of a seat, and does what follows from it.
    pub(super) fn happen(&mut self, number: usize, place: Place, event: Event) -> Supervised {
        let handle = self.seats[number].at(place);
        let before = handle.as_ref().map_or(State::Down, |handle| handle.state);
        let (state, action) = life::next(before, event);
        if let Some(handle) = handle {
            handle.state = state;
        }
        match action {
            Action::Nothing => Ok(()),
            Action::Fork => self.fill(number, place),
            Action::Announce => self.announce(number, place),
            Action::AskToLeave => {
                self.ask_to_leave(number, place);
                Ok(())
            }
            Action::Kill => {
                if let Some(handle) = self.seats[number].at(place) {
                    handle.deadline = None;
                    handle.pid.kill();
                }
                Ok(())
            }
            Action::Bury => self.bury(number, place),
            Action::GiveUp => match self.take_ended(number, place) {
                Some((_, exit)) => {
                    log::warn!("{exit}");
                    Err(End::CannotStart(exit))
                }
                None => Ok(()),
            },
        }
    }

    /// What an end means now.
    pub(super) fn exit_reason(&self) -> ExitReason {
        match self.phase {
            Phase::Starting => ExitReason::NeverStarted,
            Phase::Running | Phase::Stopping => ExitReason::Replaceable,
        }
    }

    fn fill(&mut self, number: usize, place: Place) -> Supervised {
        let handle = match self.fork(number) {
            Ok(handle) => handle,
            Err(End::Failed(error)) if self.phase == Phase::Running => {
                log::error!("{error}: worker#{number} is tried again");
                self.could_not_fork(number, place);
                return Ok(());
            }
            Err(end) => return Err(end),
        };
        let generation = handle.generation;
        let patience = self.start_patience();
        let handle = self.seats[number].at(place).insert(handle);
        // While the server starts, the person who waits for it decides how long is too long.
        handle.deadline = (self.phase == Phase::Running).then(|| Instant::now() + patience);
        if let Some(pipe) = &handle.notes {
            let watched = self.poller.add(pipe, token(number, place), Interest::READ);
            watched.map_err(failed("watch a worker's notes"))?;
        }
        if place == Place::Current {
            self.tell(News::Taken {
                seat: number as u32,
                generation,
            });
        }
        Ok(())
    }

    fn could_not_fork(&mut self, number: usize, place: Place) {
        if place == Place::Successor && !self.seats[number].is_leaving() {
            return self.reload_failed();
        }
        let seat = &mut self.seats[number];
        let delay = seat.backoff.after(Life::Idle, Duration::ZERO);
        seat.refill_at = Some(Instant::now() + delay.max(Duration::from_millis(100)));
    }

    fn announce(&mut self, number: usize, place: Place) -> Supervised {
        if let Some(handle) = self.seats[number].at(place) {
            log::debug!("worker#{number}[pid={}] is ready", handle.pid.get());
            handle.deadline = None;
            self.slowest_start = self.slowest_start.max(handle.born.elapsed());
        }
        if place == Place::Successor {
            return self.happen(number, Place::Current, Event::StopRequested);
        }
        self.tell(News::Ready {
            seat: number as u32,
        });
        if self.phase == Phase::Starting && self.seats.iter().all(Seat::is_ready) {
            self.phase = Phase::Running;
            self.tell(News::AllReady);
            self.hooks.all_ready();
        }
        self.reload_next()
    }

    fn ask_to_leave(&mut self, number: usize, place: Place) {
        let until = Instant::now() + self.shutdown_deadline;
        let seat = &mut self.seats[number];
        let orders = seat.memory.orders.clone();
        if let Some(handle) = seat.at(place) {
            handle.deadline = Some(until);
            // Up to this generation: the successor is asked after the one that it follows.
            orders.leave.store(handle.generation, Ordering::Relaxed);
            seat.memory.bell.ring();
        }
    }

    /// Takes the one that has ended out of its place.
    fn take_ended(&mut self, number: usize, place: Place) -> Option<(Handle, WorkerExit)> {
        let handle = self.seats[number].at(place).take()?;
        let exit = handle.exit.unwrap_or(ExitStatus::Code(-1));
        let exit = WorkerExit {
            seat: number,
            pid: handle.pid.get(),
            exit,
        };
        Some((handle, exit))
    }

    /// A worker is dead: says so, and fills its seat. The user's callback comes last, so that
    /// nobody waits for it.
    fn bury(&mut self, number: usize, place: Place) -> Supervised {
        let Some((handle, exit)) = self.take_ended(number, place) else {
            return Ok(());
        };
        let (life, age) = handle.life();
        let is_abnormal = life != Life::Complete || exit.exit != ExitStatus::Code(0);
        if is_abnormal {
            log::warn!("{exit}");
        }
        let followed = match place {
            Place::Current => self.follow(number, handle.generation, life, age),
            Place::Successor => self.follow_successor(number, life, age),
        };
        if is_abnormal && !matches!(followed, Err(End::Child(_))) {
            self.hooks.worker_error(&exit);
        }
        followed
    }

    /// The successor is dead. Where the one before it is leaving already, there must be another.
    fn follow_successor(&mut self, number: usize, life: Life, age: Duration) -> Supervised {
        if self.phase == Phase::Stopping || !self.seats[number].is_leaving() {
            self.reload_failed();
            return Ok(());
        }
        let seat = &mut self.seats[number];
        let delay = seat.backoff.after(life, age);
        if delay.is_zero() {
            return self.happen(number, Place::Successor, Event::BackoffElapsed);
        }
        seat.refill_at = Some(Instant::now() + delay);
        Ok(())
    }

    /// A process is due: for the seat, or beside the one that is leaving it.
    pub(super) fn refill_one(&mut self, number: usize) -> Supervised {
        let place = match self.seats[number].is_leaving() {
            true => Place::Successor,
            false => Place::Current,
        };
        self.happen(number, place, Event::BackoffElapsed)
    }

    /// The seat is empty: the successor takes it, or a new process does, at once or later.
    fn follow(&mut self, number: usize, last: u32, life: Life, age: Duration) -> Supervised {
        self.tell(News::Emptied {
            seat: number as u32,
            generation: last,
        });
        let seat = &mut self.seats[number];
        if let Some(successor) = seat.successor.take() {
            let (generation, is_ready) = (successor.generation, successor.state == State::Ready);
            let current = seat.current.insert(successor);
            if let Some(pipe) = &current.notes {
                let token = token(number, Place::Current);
                let watched = self.poller.modify(pipe, token, Interest::READ);
                watched.map_err(failed("watch a worker's notes"))?;
            }
            self.tell(News::Taken {
                seat: number as u32,
                generation,
            });
            if is_ready {
                self.tell(News::Ready {
                    seat: number as u32,
                });
            }
            return self.reload_next();
        }
        if self.phase == Phase::Stopping {
            return Ok(());
        }
        let delay = seat.backoff.after(life, age);
        if delay.is_zero() {
            self.happen(number, Place::Current, Event::BackoffElapsed)?;
        } else {
            if life == Life::Idle {
                let pace = "keeps dying before it has served anybody";
                log::warn!("worker#{number} {pace}: the next one is started in {delay:?}");
            }
            self.seats[number].refill_at = Some(Instant::now() + delay);
        }
        self.reload_next()
    }

    /// Fills the seats that rest.
    pub(super) fn refill(&mut self) -> Supervised {
        for number in 0..self.seats.len() {
            if self.seats[number].refill_at.take().is_some() {
                self.refill_one(number)?;
            }
        }
        Ok(())
    }
}
