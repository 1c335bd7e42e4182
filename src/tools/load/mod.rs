//! `tine load`: clients of an echo server, as many and as fast as one thread allows, which check every
//! byte that comes back.
//!
//! Runs in a process of its own. Its one rule: it measures the server. So it reports when the generator
//! itself was the slow side, and the latency of a message counts from the time when it was due, also if it
//! was sent late.

mod bytes;
mod client;
mod cost;
mod crowd;
mod edges;
mod entry;
mod histogram;
mod latency;
mod limits;
mod picture;
mod report;
mod schedule;
mod series;
mod tally;
mod target;
mod words;

use std::time::Duration;

pub(crate) use crowd::run;
pub(crate) use picture::{svg, text};
pub(crate) use report::Report;
pub(crate) use target::Target;

/// The load to put on a server.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// An echo server.
    pub(crate) server: Target,
    /// Clients that send messages.
    pub(crate) clients: usize,
    /// Clients that are connected and silent.
    pub(crate) idle: usize,
    /// Bytes of a message.
    pub(crate) size: usize,
    pub(crate) pace: Pace,
    /// Number of messages after which a client closes and a new one takes its place.
    pub(crate) messages_each: Option<u64>,
    /// The server's process on this machine: its cost is measured, with that of its descendants.
    pub(crate) pid: Option<i32>,
    /// Time under load before the measurement begins.
    pub(crate) warm_up: Duration,
    /// Length of the measurement; more than zero.
    pub(crate) duration: Duration,
}

/// When a client sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Pace {
    /// Closed loop: each client has `depth` outstanding messages at any time.
    Closed { depth: usize },
    /// Open loop: `per_second` messages are due over all clients, whether the server keeps up or not.
    Open { per_second: u64 },
}

/// Time to wait for outstanding replies at the end while none arrives.
const GRACE: Duration = Duration::from_secs(5);

/// Time to wait for outstanding replies at the end while some arrive.
const LONGEST_GRACE: Duration = Duration::from_secs(60);

/// Maximum of outstanding messages: each takes 8 bytes here.
const MAX_OUTSTANDING: u64 = 1 << 24;

/// Why a measurement failed.
#[derive(Debug)]
pub(crate) struct Failure(String);

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Failure {
    fn interrupted() -> Failure {
        Failure("interrupted before the measurement had begun: nothing was measured".to_owned())
    }

    fn new(doing: &str, error: impl std::fmt::Display) -> Failure {
        Failure(format!("cannot {doing}: {error}"))
    }
}
