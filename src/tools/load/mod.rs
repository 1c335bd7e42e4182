//! `tine load`: clients of an echo server, as many and as fast as one thread can be, which check every
//! byte that comes back.
//!
//! Runs in a process of its own. Its one rule: what it measures is the server, so it says when it was
//! itself the slow one, and a reply that was late because the request was late counts from when the
//! request was due.

mod bytes;
mod client;
mod cost;
mod crowd;
mod edges;
mod entry;
mod limits;
mod report;
mod schedule;
mod tally;

use std::net::SocketAddr;
use std::time::Duration;

pub(crate) use crowd::run;
pub(crate) use report::Report;

/// What is to be done to a server.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// An echo server.
    pub(crate) server: SocketAddr,
    /// Clients that talk.
    pub(crate) clients: usize,
    /// Clients that are connected and silent.
    pub(crate) idle: usize,
    /// Bytes of a message.
    pub(crate) size: usize,
    pub(crate) pace: Pace,
    /// After so many messages a client closes, and another comes in its place.
    pub(crate) messages_each: Option<u64>,
    /// A process of this machine, whose cost is measured, with all that descend from it.
    pub(crate) pid: Option<i32>,
    /// Before anything is counted.
    pub(crate) warm_up: Duration,
    /// For so long it is counted; more than nothing.
    pub(crate) duration: Duration,
}

/// When a client sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Pace {
    /// Closed loop: so many messages of each client are on their way at any time.
    Closed { depth: usize },
    /// Open loop: so many messages a second are due, of all clients together, whether the server
    /// keeps up or not.
    Open { per_second: u64 },
}

/// How long replies that are owed at the end are waited for while nothing comes.
const GRACE: Duration = Duration::from_secs(5);

/// How long they are waited for while something does.
const LONGEST_GRACE: Duration = Duration::from_secs(60);

/// How many messages may wait for a reply: each takes 8 bytes here.
const MOST_OWED: u64 = 1 << 24;

/// Why it could not be done, or not be measured.
#[derive(Debug)]
pub(crate) struct Failure(String);

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Failure {
    fn new(doing: &str, error: impl std::fmt::Display) -> Failure {
        Failure(format!("cannot {doing}: {error}"))
    }
}
