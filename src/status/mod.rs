//! The status of a running server, for programs on the same machine: the callback that each worker is
//! in, and for each connection that its peer has closed, why this side is not closed yet.
//!
//! Runs in the master and in the manager. Its one rule: each answers from its own knowledge alone, the
//! manager for its workers, each reactor of the master for its connections. [`ask`] joins the answers.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! let status = tine::status::ask(26276, Duration::from_secs(2))?;
//! for conn in &status.unclosed {
//!     println!("{} from {}: {}", conn.local, conn.peer, status.explain(conn));
//! }
//! # Ok::<(), tine::status::AskError>(())
//! ```

mod ask;
mod desk;
mod post;
mod post_desk;

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::Mode;
use crate::peer::Peer;
use crate::sys::address::Address;
use crate::sys::listener::Listener;

pub use self::ask::{AskError, ask};
pub(crate) use self::desk::{Caller, Desk};
pub use self::post::{PostError, Refused, post};
pub(crate) use self::post_desk::PostDesk;

/// The most unclosed connections in one reactor's answer.
pub(crate) const MOST_UNCLOSED: usize = 200;

/// A server at the moment of the question.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Status {
    /// The version of this crate that the server is built with.
    pub version: String,
    /// The mode that the server runs in.
    pub mode: Mode,
    /// The IP addresses that it listens on, with the real ports.
    pub addresses: Vec<SocketAddr>,
    /// The unix sockets that it listens on, as their texts: `unix:/run/app.sock`, `unix:@name`.
    #[serde(default)]
    pub unix: Vec<String>,
    /// The process to send signals to: the master, in base mode the manager.
    pub pid: i32,
    /// The manager's process, in base mode the same as `pid`.
    pub manager: i32,
    /// All worker processes, standby workers included.
    pub workers: Vec<WorkerStatus>,
    /// Process mode: connections that the peer has closed and this side has not, the oldest first, at
    /// most 200 for each reactor.
    pub unclosed: Vec<Unclosed>,
    /// The number of unclosed connections that are not listed.
    pub more_unclosed: usize,
    /// Process mode: the number of connections that the server has ended for what their peers did not do.
    pub ended: Ended,
    /// Process mode: the connections that the master has, and may have. In base mode each worker has its own
    /// [`WorkerStatus::room`].
    #[serde(default)]
    pub room: Option<Room>,
    /// Whether a part of the server has not answered in time, or not completely.
    pub is_partial: bool,
}

/// The numbers of connections that a server has ended since its start, by the deadline of their
/// [`Listener`](crate::Listener).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Ended {
    /// [`open_deadline`](crate::Listener::open_deadline)
    pub open: u64,
    /// [`message_deadline`](crate::Listener::message_deadline)
    pub message: u64,
    /// [`idle`](crate::Listener::idle), unless the handler was called.
    pub idle: u64,
    /// [`write_deadline`](crate::Listener::write_deadline)
    pub write: u64,
    /// [`queue_deadline`](crate::Listener::queue_deadline)
    pub queue: u64,
    /// [`Conn::answer_within`](crate::Conn::answer_within)
    pub answer: u64,
    /// Connections that were reset as they came:
    /// [`max_connections_per_address`](crate::Server::max_connections_per_address).
    pub refused: u64,
    /// Connections that were reset as they came: [`allow`](crate::Listener::allow), [`deny`](crate::Listener::deny).
    pub denied: u64,
    /// Connections that were reset as they came: [`max_new_per_second`](crate::Listener::max_new_per_second).
    pub hurried: u64,
}

impl Ended {
    fn add(&mut self, other: &Ended) {
        for (sum, count) in [
            (&mut self.open, other.open),
            (&mut self.message, other.message),
            (&mut self.idle, other.idle),
            (&mut self.write, other.write),
            (&mut self.queue, other.queue),
            (&mut self.answer, other.answer),
            (&mut self.refused, other.refused),
            (&mut self.denied, other.denied),
            (&mut self.hurried, other.hurried),
        ] {
            *sum = sum.saturating_add(count);
        }
    }
}

/// The room for connections of a process that accepts them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Room {
    /// The connections that are open.
    pub connections: u64,
    /// The most that may be: [`max_connections`](crate::Settings::max_connections). Further clients wait in the
    /// accept queue.
    pub max_connections: u64,
}

impl Room {
    pub(crate) fn new(connections: u64, max_connections: usize) -> Room {
        Room {
            connections,
            max_connections: max_connections as u64,
        }
    }

    /// Whether no further client is accepted until one has left.
    pub fn is_used_up(self) -> bool {
        self.connections >= self.max_connections
    }
}

/// A worker process.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct WorkerStatus {
    /// Its name in the log and in `ps`, such as `worker#0`.
    pub role: String,
    /// Its seat: the N of `worker#N`; `None` for a standby worker.
    pub seat: Option<usize>,
    /// This worker process is the `generation`-th that the server has started. No two share it.
    pub generation: u32,
    /// Its process id.
    pub pid: i32,
    /// The callback that it is in, if that is about a connection.
    pub callback: Option<CallbackStatus>,
    /// Process mode: the number of messages and other events that it has and has not begun.
    pub waiting: usize,
    /// Base mode: the connections that it has, and may have.
    #[serde(default)]
    pub room: Option<Room>,
}

/// A callback that is running.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CallbackStatus {
    /// `connect`, `receive`, `close`, …
    pub kind: String,
    /// The connection, as the log names it.
    pub conn: String,
    /// The client's address.
    pub peer: Peer,
    /// A lower bound of the time for which it has run. In process mode a reactor looks at its workers at
    /// least every 100 ms while they are busy, so the bound is at most 100 ms short. In base mode the
    /// manager looks when it is asked: the first answer about a callback is 0, and later answers count
    /// from there.
    #[serde(with = "seconds")]
    pub at_least: Duration,
}

/// A connection that its peer has closed, and this side has not.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Unclosed {
    /// The server's address.
    pub local: SocketAddr,
    /// The client's address.
    pub peer: Peer,
    /// The other end of the connection, if that is a proxy which has named the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<SocketAddr>,
    /// The connection, as the log names it.
    pub conn: String,
    /// Why it is not closed yet.
    pub reason: Reason,
    /// The number of its messages and other events that are with a worker.
    pub messages: u32,
    /// The time since the peer's FIN was seen.
    #[serde(with = "seconds")]
    pub since: Duration,
    /// The time until the close deadline; `None` without one.
    #[serde(with = "seconds_if_any")]
    pub deadline: Option<Duration>,
    /// The generation of the worker that it waits for; `None` if it waits for no particular worker.
    /// [`Status::worker_of`] finds that worker.
    pub generation: Option<u32>,
}

/// What a connection waits for before it can be closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Reason {
    /// Its `close` callback: it is with a worker, where it runs or waits behind another callback.
    Close,
    /// The messages and other events that come before `close`: they are with a worker.
    Messages,
    /// A worker, or room in the queue of its worker.
    Room,
    /// The client, which does not read the output that is still unsent.
    Output,
    /// Nothing: its worker died, and the crash policy `keep` leaves the connection open.
    Kept,
}

impl Status {
    /// Returns the worker that a connection waits for, if it is in [`Status::workers`].
    pub fn worker_of(&self, conn: &Unclosed) -> Option<&WorkerStatus> {
        let generation = conn.generation?;
        self.workers
            .iter()
            .find(|worker| worker.generation == generation)
    }

    /// Returns the reason why a connection is not closed, with the callback that its worker is in: a
    /// clause without a full stop.
    pub fn explain(&self, conn: &Unclosed) -> String {
        let worker = self.worker_of(conn);
        let name = worker.map_or("its worker".to_owned(), WorkerStatus::name);
        let doing = worker.map_or(UNLISTED.to_owned(), |it| it.doing(conn.peer));
        match conn.reason {
            Reason::Close => format!("{name} has not finished its `close` callback: {doing}"),
            Reason::Messages => {
                let (count, s) = (conn.messages, if conn.messages == 1 { "" } else { "s" });
                format!("{name} has {count} message{s} to finish before `close`: {doing}")
            }
            Reason::Room => {
                "it waits for a worker, or for room in the queue of its worker".to_owned()
            }
            Reason::Output => "its client does not read the output that is still unsent".to_owned(),
            Reason::Kept => {
                "its worker died, and the crash policy `keep` leaves the connection open".to_owned()
            }
        }
    }
}

impl WorkerStatus {
    /// Returns its name with the pid, as in the log: `worker#0[pid=26286]`.
    pub fn name(&self) -> String {
        format!("{}[pid={}]", self.role, self.pid)
    }

    /// Returns its activity, as the reason why it has not handled the events of the connection from
    /// `peer`: a clause without a full stop.
    pub fn doing(&self, peer: Peer) -> String {
        let Some(callback) = &self.callback else {
            return "it has not begun yet".to_owned();
        };
        let (kind, time) = (&callback.kind, words(callback.at_least));
        if callback.peer == peer {
            format!("it has been in `{kind}` for {time}")
        } else {
            let (other, behind) = (callback.peer, waiting(self.waiting));
            format!(
                "it has been in `{kind}` of another connection, from {other}, for {time}{behind}"
            )
        }
    }
}

/// The activity of a worker that a reactor names, and the manager's answer does not.
const UNLISTED: &str = "it has ended, or the manager has not answered";

/// A lower bound, in words.
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

/// The part of the answer that stays the same while a server runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Head {
    version: String,
    mode: Mode,
    addresses: Vec<SocketAddr>,
    #[serde(default)]
    unix: Vec<String>,
}

impl Head {
    pub(crate) fn new(mode: Mode, listeners: &[Listener]) -> Head {
        let addresses = || listeners.iter().map(Listener::address);
        let is_unix = |address: &&Address| address.ip().is_none();
        Head {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            mode,
            addresses: addresses().filter_map(Address::ip).collect(),
            unix: addresses()
                .filter(is_unix)
                .map(Address::to_string)
                .collect(),
        }
    }
}

/// The answer of one process or one reactor, a packet each.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Packet {
    Master {
        head: Head,
        manager: i32,
        /// The number of reactors that will send a packet.
        reactors: usize,
        #[serde(default)]
        room: Option<Room>,
    },
    /// In process mode the manager does not know the addresses, so its head has none.
    Manager {
        head: Head,
        workers: Vec<WorkerStatus>,
    },
    Reactor {
        slots: Vec<SlotStatus>,
        unclosed: Vec<Unclosed>,
        more: usize,
        #[serde(default)]
        ended: Ended,
    },
}

/// A reactor's knowledge of one worker, which its generation names.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct SlotStatus {
    pub(crate) generation: u32,
    /// For how long it has been at a frame of this reactor; `None` if it is at none.
    pub(crate) under_way: Option<Duration>,
    pub(crate) waiting: usize,
}

/// The name of a process's status socket.
fn name_of(pid: i32) -> String {
    format!("tine/{pid}")
}

/// Optional durations are seconds in JSON, or null.
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
