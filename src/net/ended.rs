//! The connections that ended at a deadline: counted for the status, and reported in the log, once a second
//! at most.

use std::fmt;

use crate::config::{Config, ListenerId};
use crate::peer::Peer;

/// The least time between two reports, in milliseconds.
const BETWEEN: u64 = 1000;

/// A deadline of a listener's connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Deadline {
    Open,
    Message,
    Idle,
    Write,
    Queue,
}

impl Deadline {
    const ALL: [Deadline; 5] = [
        Deadline::Open,
        Deadline::Message,
        Deadline::Idle,
        Deadline::Write,
        Deadline::Queue,
    ];

    /// Returns what such connections have done.
    fn why(self) -> &'static str {
        match self {
            Deadline::Open => "nothing was said on them",
            Deadline::Message => "a message was incomplete for too long",
            Deadline::Idle => "nothing came from the peer, and nothing was due to it",
            Deadline::Write => "output was unsent, and the peer acknowledged nothing",
            Deadline::Queue => "no worker has begun a message in time",
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
        })
    }
}

/// The counts of one owner.
#[derive(Default)]
pub(crate) struct Ended {
    /// Since the start, by deadline.
    counts: [u64; Deadline::ALL.len()],
    /// Those that are not in a report yet, and the last of them.
    unsaid: [(u64, Option<(ListenerId, Peer)>); Deadline::ALL.len()],
    has_unsaid: bool,
    /// The time from which on a report may be made.
    next: u64,
}

impl Ended {
    pub(crate) fn count(&mut self, deadline: Deadline, listener: ListenerId, peer: Peer) {
        self.counts[deadline as usize] += 1;
        let (count, last) = &mut self.unsaid[deadline as usize];
        *count += 1;
        *last = Some((listener, peer));
        self.has_unsaid = true;
    }

    /// Returns how many connections have ended at a deadline since the start.
    #[cfg(any(test, feature = "status"))]
    pub(crate) fn at(&self, deadline: Deadline) -> u64 {
        self.counts[deadline as usize]
    }

    /// Returns the time of the next report, if there is something to report.
    pub(crate) fn next_report(&self) -> Option<u64> {
        self.has_unsaid.then_some(self.next)
    }

    /// Logs what was not in a report yet, if it is time.
    pub(crate) fn report(&mut self, now: u64, config: &Config) {
        if !self.has_unsaid || now < self.next {
            return;
        }
        (self.has_unsaid, self.next) = (false, now + BETWEEN);
        for deadline in Deadline::ALL {
            let (count, last) = std::mem::take(&mut self.unsaid[deadline as usize]);
            let Some((listener, peer)) = last else {
                continue;
            };
            let (name, why) = (&config.listener(listener).name, deadline.why());
            let s = if count == 1 { "" } else { "s" };
            log::info!(
                "{count} connection{s} closed at the {deadline} deadline: {why}; the last from {peer}, listener {name}"
            );
        }
    }
}
