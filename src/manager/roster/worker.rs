//! The parts of a roster: a worker, a seat, and the standby workers.

use std::time::{Duration, Instant};

use super::line::Name;
use crate::control::{Note, NoteSet};
use crate::manager::backoff::{Backoff, Life};
use crate::manager::life::State;

/// The duty that a worker was forked for, or was given since.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Duty {
    /// It has this seat.
    Seat(usize),
    /// It takes this seat over as soon as it is ready.
    Successor(usize),
    /// It had this seat, and finishes its last callback.
    Leaving(usize),
    /// It takes the seat of the first worker that dies.
    Standby,
}

impl Duty {
    /// Returns the seat that the worker has, is about to have, or had.
    pub(crate) fn seat(self) -> Option<usize> {
        match self {
            Duty::Seat(seat) | Duty::Successor(seat) | Duty::Leaving(seat) => Some(seat),
            Duty::Standby => None,
        }
    }
}

/// One incarnation, from the request for its fork on.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) generation: u32,
    pub(crate) duty: Duty,
    pub(crate) state: State,
    /// For log lines; 0 before the fork.
    pub(super) pid: i32,
    pub(super) born: Instant,
    /// When it got ready; for a former standby worker, when it got its seat.
    pub(super) ready_at: Option<Instant>,
    pub(super) served: bool,
    /// It was asked to leave.
    pub(super) was_asked: bool,
    pub(super) left: bool,
    /// It has asked for its own replacement.
    pub(super) wants_replacement: bool,
    /// The deadline for its `seated` callback.
    pub(super) seated_by: Option<Instant>,
    /// The deadline to get ready, or to leave.
    pub(super) deadline: Option<Instant>,
    /// When it was asked to leave.
    pub(super) asked_at: Option<Instant>,
}

impl Worker {
    pub(super) fn new(generation: u32, duty: Duty, now: Instant) -> Worker {
        Worker {
            generation,
            duty,
            state: State::Down,
            pid: 0,
            born: now,
            ready_at: None,
            served: false,
            was_asked: false,
            left: false,
            wants_replacement: false,
            seated_by: None,
            deadline: None,
            asked_at: None,
        }
    }

    /// Whether the process exists. Before the fork, no other decision about it may be made.
    pub(super) fn is_forked(&self) -> bool {
        self.pid != 0
    }

    /// Whether it has a seat and serves.
    pub(crate) fn serves_seat(&self) -> bool {
        matches!(self.duty, Duty::Seat(_)) && self.state == State::Ready && self.seated_by.is_none()
    }

    /// Whether it has served in the seat that it has, and may have been asked to leave with the whole server.
    pub(crate) fn has_served_seat(&self) -> bool {
        matches!(self.duty, Duty::Seat(_))
            && self.ready_at.is_some()
            && matches!(self.state, State::Ready | State::Draining)
    }

    /// Whether it serves in a seat, or may do so before the server has stopped.
    pub(crate) fn may_serve_seat(&self) -> bool {
        matches!(self.duty, Duty::Seat(_))
            && matches!(self.state, State::Starting | State::Ready | State::Draining)
    }

    pub(crate) fn name(&self) -> Name {
        Name::new(self.duty.seat(), self.pid)
    }

    /// Records the notes that concern this worker alone.
    pub(super) fn note(&mut self, notes: NoteSet, now: Instant) {
        if notes.has(Note::Ready) {
            self.ready_at.get_or_insert(now);
        }
        if notes.has(Note::Seated) {
            self.seated_by = None;
        }
        self.served |= notes.has(Note::Served);
        // From a worker that was not asked to leave, the note does not make its exit a normal one, also
        // when it is being killed by then.
        self.left |= self.was_asked && notes.has(Note::Left);
        self.wants_replacement |= notes.has(Note::Replace);
    }

    /// A standby worker gets a seat, and has `patience` for its `seated` callback.
    pub(super) fn take_seat(&mut self, patience: Duration, now: Instant) {
        // Its age in service counts from here.
        self.ready_at = Some(now);
        self.seated_by = Some(now + patience);
    }

    /// Returns how far the worker came in its life, and its age in service.
    pub(super) fn life(&self, now: Instant) -> (Life, Duration) {
        let age = self
            .ready_at
            .map_or(Duration::ZERO, |ready| now.saturating_duration_since(ready));
        match (self.left, self.served) {
            (true, _) => (Life::Complete, age),
            (false, true) => (Life::Served, age),
            (false, false) => (Life::Idle, age),
        }
    }

    /// Returns the next of its deadlines.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadline.into_iter().chain(self.seated_by).min()
    }
}

/// The N of `worker#N`.
#[derive(Default)]
pub(super) struct Seat {
    /// The slot of its worker.
    pub(super) current: Option<usize>,
    pub(super) backoff: Backoff,
    /// When an empty seat is refilled.
    pub(super) refill_at: Option<Instant>,
}

/// The standby workers.
pub(super) struct Standby {
    pub(super) wanted: usize,
    pub(super) backoff: Backoff,
    /// When the next one is started, if it has to wait.
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
