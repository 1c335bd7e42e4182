//! The connections that ended at a deadline, counted for the status.

use std::fmt;

/// A deadline of a listener's connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Deadline {
    Open,
    Message,
    Idle,
    Write,
    Queue,
    Answer,
}

impl Deadline {
    /// Returns what such connections have done.
    pub(crate) fn why(self) -> &'static str {
        match self {
            Deadline::Open => "nothing was said on it",
            Deadline::Message => "a message was incomplete for too long",
            Deadline::Idle => "nothing came from the peer, and nothing was due to it",
            Deadline::Write => "output was unsent, and the peer acknowledged nothing",
            Deadline::Queue => "no worker has begun a message in time",
            Deadline::Answer => "an answer was promised, and no callback has given it",
        }
    }
}

impl fmt::Display for Deadline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Deadline::Open => "open",
            Deadline::Message => "message",
            Deadline::Idle => "idle",
            Deadline::Write => "write",
            Deadline::Queue => "queue",
            Deadline::Answer => "answer",
        })
    }
}

/// The counts of one owner, by deadline.
#[derive(Default)]
pub(crate) struct Ended([u64; Deadline::Answer as usize + 1]);

impl Ended {
    pub(crate) fn count(&mut self, deadline: Deadline) {
        self.0[deadline as usize] += 1;
    }

    /// Returns how many connections have ended at a deadline since the start.
    #[cfg(any(test, feature = "status"))]
    pub(crate) fn at(&self, deadline: Deadline) -> u64 {
        self.0[deadline as usize]
    }
}
