//! What a running server says of itself to whoever asks on the same machine: which worker is in which
//! callback, and who owes the close of each connection whose peer has closed.
//!
//! Each process answers for what it knows, and for nothing else: the manager for its workers, each
//! reactor of the master for its connections. [`ask`] puts it together.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! let status = tine::status::ask(26276, Duration::from_secs(2))?;
//! for owed in &status.owed {
//!     println!("{} from {}: {}", owed.local, owed.peer, status.explain(owed));
//! }
//! # Ok::<(), tine::status::AskError>(())
//! ```

mod ask;
mod desk;

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::Mode;
use crate::peer::Peer;
use crate::sys::socket::Listener;

pub use self::ask::{AskError, ask};
pub(crate) use self::desk::{Desk, Visitor};

/// The most connections that one reactor tells of.
pub(crate) const MOST_OWED: usize = 200;

/// A server, as it was within the moment in which it was asked.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Status {
    /// The version of this crate that the server is built with.
    pub version: String,
    /// Where the connections live.
    pub mode: Mode,
    /// What it listens on, with the real ports.
    pub addresses: Vec<SocketAddr>,
    /// The process to send signals to: the master, in base mode the manager.
    pub pid: i32,
    /// The manager's process: the same in base mode.
    pub manager: i32,
    /// Every worker process there is, those that stand by included.
    pub workers: Vec<WorkerStatus>,
    /// Process mode: connections whose peer has closed and that are not closed on this side, the
    /// oldest first.
    pub owed: Vec<Owed>,
    /// How many more there are of these.
    pub more_owed: usize,
    /// Somebody has not answered in time, or not with everything.
    pub is_partial: bool,
}

/// A worker process.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct WorkerStatus {
    /// What log and `ps` call it, such as `worker#0`.
    pub role: String,
    /// Its seat: the N of `worker#N`; `None` for one that stands by.
    pub seat: Option<usize>,
    /// How many worker processes this server had started when this one was.
    pub generation: u32,
    /// Its process.
    pub pid: i32,
    /// The callback that it is in, of those that are about a connection.
    pub callback: Option<CallbackStatus>,
    /// Process mode: messages and other events that it was given and has not begun.
    pub waiting: usize,
}

/// A callback that runs.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CallbackStatus {
    /// `connect`, `receive`, `close`, …
    pub kind: String,
    /// The connection, as the log names it.
    pub conn: String,
    /// The client's address.
    pub peer: Peer,
    /// For how long it has run, as far as anybody has looked: never too long, and it may be longer.
    /// In process mode a reactor looks at least every 100 ms while anything is with a worker, and by
    /// so much it may be short. In base mode the manager looks when it is asked, so that the first
    /// answer about a callback is 0, and later ones count from there.
    #[serde(with = "seconds")]
    pub at_least: Duration,
}

/// A connection whose peer has closed, and which is not closed on this side.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Owed {
    /// The server's address of the connection.
    pub local: SocketAddr,
    /// The client's.
    pub peer: Peer,
    /// The connection, as the log names it.
    pub conn: String,
    /// What it waits for.
    pub reason: Reason,
    /// How many of its messages and other events are with a worker.
    pub messages: u32,
    /// Since the peer's FIN was seen.
    #[serde(with = "seconds")]
    pub since: Duration,
    /// Until the close deadline; `None` if there is none.
    #[serde(with = "seconds_if_any")]
    pub deadline: Option<Duration>,
    /// The generation of the worker that owes it something, if one does: [`Status::worker_of`] is
    /// that worker, if it has not ended meanwhile.
    pub generation: Option<u32>,
}

/// What a connection waits for before it can be closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Reason {
    /// Its `close` callback is with a worker: under way, or behind what that worker is at.
    Close,
    /// Messages and other events of it are with a worker, which come before `close`.
    Messages,
    /// Room in the queue of its worker, or a worker.
    Room,
    /// The client's side takes what is still to be sent.
    Output,
    /// Nothing ever comes: its worker has died, and the policy `keep` leaves it so.
    Kept,
}

impl Status {
    /// The worker that owes something to a connection.
    pub fn worker_of(&self, owed: &Owed) -> Option<&WorkerStatus> {
        let generation = owed.generation?;
        self.workers
            .iter()
            .find(|worker| worker.generation == generation)
    }

    /// Who owes a connection its close, and why it does not come: a phrase without a full stop.
    pub fn explain(&self, owed: &Owed) -> String {
        let worker = self.worker_of(owed);
        let name = worker.map_or("a worker that has ended".to_owned(), WorkerStatus::name);
        let busy = worker.map_or("it is being reaped".to_owned(), |it| it.doing(owed.peer));
        match owed.reason {
            Reason::Close => format!("{name} owes the close: {busy}"),
            Reason::Messages => {
                let (count, s) = (owed.messages, if owed.messages == 1 { "" } else { "s" });
                format!("{name} has {count} message{s} of it before the close: {busy}")
            }
            Reason::Room => "it waits for room in the queue of a worker".to_owned(),
            Reason::Output => "its client does not take what is still to be sent".to_owned(),
            Reason::Kept => {
                "its worker has died, and the crash policy `keep` leaves it so".to_owned()
            }
        }
    }
}

impl WorkerStatus {
    /// As the log calls it: `worker#0[pid=26286]`.
    pub fn name(&self) -> String {
        format!("{}[pid={}]", self.role, self.pid)
    }

    /// What keeps it from what it owes to the connection from `peer`: a phrase without a full stop.
    pub fn doing(&self, peer: Peer) -> String {
        let Some(callback) = &self.callback else {
            return "it has not begun that".to_owned();
        };
        let (kind, time) = (&callback.kind, words(callback.at_least));
        if callback.peer == peer {
            format!("it is in `{kind}` for {time}")
        } else {
            let (other, behind) = (callback.peer, waiting(self.waiting));
            format!("it is in `{kind}` of another connection, from {other}, for {time}{behind}")
        }
    }
}

/// At least as long as this, in words.
fn words(time: Duration) -> String {
    match time.as_secs_f64() {
        seconds if seconds < 0.1 => "a moment".to_owned(),
        seconds => format!("at least {seconds:.1} s"),
    }
}

fn waiting(messages: usize) -> String {
    match messages {
        0 => String::new(),
        1 => ", and 1 message waits behind it".to_owned(),
        more => format!(", and {more} messages wait behind it"),
    }
}

/// What a server is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Head {
    version: String,
    mode: Mode,
    addresses: Vec<SocketAddr>,
}

impl Head {
    pub(crate) fn new(mode: Mode, listeners: &[Listener]) -> Head {
        Head {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            mode,
            addresses: listeners.iter().map(Listener::address).collect(),
        }
    }
}

/// What one process says of itself, a packet each.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Packet {
    Master {
        head: Head,
        manager: i32,
        /// From how many of them a packet is to come.
        reactors: usize,
    },
    /// The head of a manager that has a master knows no addresses.
    Manager {
        head: Head,
        workers: Vec<WorkerStatus>,
    },
    Reactor {
        slots: Vec<SlotStatus>,
        owed: Vec<Owed>,
        more: usize,
    },
}

/// What a reactor knows of the worker of that generation.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct SlotStatus {
    pub(crate) generation: u32,
    /// How long it has been at a frame of this reactor, if it is at one.
    pub(crate) under_way: Option<Duration>,
    pub(crate) waiting: usize,
}

/// The name that a process of a server can be asked by.
fn name_of(pid: i32) -> String {
    format!("tine/{pid}")
}

/// Durations are seconds in JSON, those too that may be none.
mod seconds_if_any {
    use std::time::Duration;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(
        time: &Option<Duration>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        time.map(|time| time.as_secs_f64()).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Duration>, D::Error> {
        let seconds = Option::<f64>::deserialize(from)?;
        let time = seconds.map(Duration::try_from_secs_f64);
        time.transpose().map_err(D::Error::custom)
    }
}

/// Durations are seconds in JSON.
mod seconds {
    use std::time::Duration;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_f64(time.as_secs_f64())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let seconds = f64::deserialize(from)?;
        Duration::try_from_secs_f64(seconds).map_err(D::Error::custom)
    }
}
