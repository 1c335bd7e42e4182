//! The parts of a roster: a worker, a seat, and the workers that stand by.

use std::time::{Duration, Instant};

use super::line::Name;
use crate::control::{Note, NoteSet};
use crate::manager::backoff::{Backoff, Life};
use crate::manager::life::State;

/// The task that a worker was forked for, or was given since.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Post {
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
    pub(crate) fn seat(self) -> Option<usize> {
        match self {
            Post::Seat(seat) | Post::Successor(seat) | Post::Leaving(seat) => Some(seat),
            Post::Standby => None,
        }
    }
}

/// One incarnation, from the moment when its fork is asked for.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) generation: u32,
    pub(crate) post: Post,
    pub(crate) state: State,
    /// For log lines; 0 before the fork.
    pub(super) pid: i32,
    pub(super) born: Instant,
    /// When it got ready; of one that stood by, when it got its seat.
    pub(super) ready_at: Option<Instant>,
    pub(super) served: bool,
    pub(super) left: bool,
    /// It has asked for another worker in its place.
    pub(super) wants_to_go: bool,
    /// When a seat that it was given must be its own.
    pub(super) seated_by: Option<Instant>,
    /// When the time to leave, or to get ready, is over.
    pub(super) deadline: Option<Instant>,
}

impl Worker {
    pub(super) fn new(generation: u32, post: Post, now: Instant) -> Worker {
        Worker {
            generation,
            post,
            state: State::Down,
            pid: 0,
            born: now,
            ready_at: None,
            served: false,
            left: false,
            wants_to_go: false,
            seated_by: None,
            deadline: None,
        }
    }

    /// Whether there is a process, and not only the decision to have one: until then nothing else may
    /// be decided about it.
    pub(super) fn is_forked(&self) -> bool {
        self.pid != 0
    }

    pub(crate) fn name(&self) -> Name {
        Name::new(self.post.seat(), self.pid)
    }

    /// Remembers what notes say of the process itself.
    pub(super) fn note(&mut self, notes: NoteSet, now: Instant) {
        if notes.has(Note::Ready) {
            self.ready_at.get_or_insert(now);
        }
        if notes.has(Note::Seated) {
            self.seated_by = None;
        }
        self.served |= notes.has(Note::Served);
        // Said without having been asked, it is no excuse for an exit.
        let was_asked = matches!(self.state, State::Draining | State::Killing);
        self.left |= was_asked && notes.has(Note::Left);
        self.wants_to_go |= notes.has(Note::Replace);
    }

    /// It has a seat from now on, after it stood by, and this long for `worker_seated`.
    pub(super) fn take_seat(&mut self, patience: Duration, now: Instant) {
        // Its time in service begins here.
        self.ready_at = Some(now);
        self.seated_by = Some(now + patience);
    }

    /// Returns how far it came in its life, and its age in service.
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

    /// When the next of its deadlines passes.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadline.into_iter().chain(self.seated_by).min()
    }
}

/// The N of `worker#N`.
#[derive(Default)]
pub(super) struct Seat {
    /// The slot of the worker that has it.
    pub(super) current: Option<usize>,
    pub(super) backoff: Backoff,
    /// When the next worker is due, in an empty seat.
    pub(super) refill_at: Option<Instant>,
}

/// The workers that stand by.
pub(super) struct Standby {
    pub(super) wanted: usize,
    pub(super) backoff: Backoff,
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
