//! The result of an examination, as plain data: text, JSON, the terminal view and the verdicts are made
//! from it.
//!
//! In JSON, times are seconds and addresses are text.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::holder::Holder;
use super::scope::Subject;
use super::words::{age, list};
use crate::sockets::counters::{Overflows, Settings};
use crate::sockets::owners::Owner;
use crate::sockets::{State, as_seconds};
use tine::status::{CallbackStatus, Reason};

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) subject: Subject,
    #[serde(rename = "watched_s", serialize_with = "as_seconds")]
    pub(crate) watched: Duration,
    /// The number of looks at the queues.
    pub(crate) looks: usize,
    /// The age from which on a connection in CLOSE_WAIT counts as stuck, and bytes as unread.
    #[serde(rename = "older_s", serialize_with = "as_seconds")]
    pub(crate) older: Duration,
    /// The time without a byte from which on a connection without keepalive counts as silent.
    #[serde(rename = "silent_s", serialize_with = "as_seconds")]
    pub(crate) silent: Duration,
    pub(crate) wrong: bool,
    pub(crate) verdict: String,
    pub(crate) findings: Vec<Finding>,
    pub(crate) listeners: Vec<Listener>,
    /// Connections of no listener: processes on this machine have made them. Empty when one port is
    /// examined.
    pub(crate) outgoing: Connections,
    /// Descriptors of TCP sockets that are in no table of the kernel, for each process that has some.
    pub(crate) departed: Vec<Departed>,
    pub(crate) ports: Vec<PortUse>,
    pub(crate) counters: Counters,
    pub(crate) settings: Settings,
    /// The processes that hold a listener, or a listed connection.
    pub(crate) processes: BTreeMap<i32, Holder>,
    /// Things that could not be seen and why, a line each.
    pub(crate) unseen: Vec<String>,
}

/// An address with a listening socket. With SO_REUSEPORT it has several, each with a queue.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Listener {
    pub(crate) address: SocketAddr,
    pub(crate) queues: Vec<Queue>,
    pub(crate) connections: Connections,
}

impl Listener {
    /// Returns the queue that was the fullest.
    pub(crate) fn fullest(&self) -> Option<&Queue> {
        self.queues.iter().max_by_key(|queue| {
            let of_a_thousand = u64::from(queue.peak) * 1000 / u64::from(queue.most()).max(1);
            (of_a_thousand, queue.now)
        })
    }

    /// Returns the processes that hold it, `most` by name, or at least the user.
    pub(crate) fn held_by(&self, most: usize) -> String {
        let owners = self.owners();
        match self.queues.first() {
            Some(queue) if owners.is_empty() => format!("not seen (user {})", queue.uid),
            _ => list(&owners, most),
        }
    }

    pub(crate) fn owners(&self) -> Vec<Owner> {
        let all = self.queues.iter().flat_map(|queue| queue.owners.iter());
        let mut owners: Vec<Owner> = Vec::new();
        for owner in all {
            if !owners.contains(owner) {
                owners.push(owner.clone());
            }
        }
        owners
    }
}

/// The accept queue of one listening socket: the number of connections in it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Queue {
    pub(crate) now: u32,
    pub(crate) peak: u32,
    pub(crate) lowest: u32,
    /// The peak since the previous report, under `--watch`.
    pub(crate) recent_peak: u32,
    /// The backlog that the kernel took from listen(2). One connection more fits.
    pub(crate) backlog: u32,
    /// The growth of the namespace's counter while this queue was full.
    pub(crate) overflows_while_full: u64,
    pub(crate) owners: Vec<Owner>,
    /// The user that made it, which is known even if the owners are not.
    pub(crate) uid: u32,
    #[serde(skip)]
    pub(crate) cookie: u64,
}

impl Queue {
    /// Returns its capacity: the kernel admits a connection while no more than the backlog wait.
    pub(crate) fn most(&self) -> u32 {
        self.backlog.saturating_add(1)
    }

    pub(crate) fn is_full(&self) -> bool {
        self.now > self.backlog
    }

    pub(crate) fn was_full(&self) -> bool {
        self.peak > self.backlog
    }
}

/// The connections of a listener, or the outgoing ones.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Connections {
    pub(crate) states: Vec<StateCount>,
    /// In CLOSE_WAIT for longer than [`Report::older`], the oldest first.
    pub(crate) stuck: Vec<Stuck>,
    /// In CLOSE_WAIT and perhaps as old: keepalive probes reset the kernel's clock.
    pub(crate) perhaps_stuck: usize,
    /// Bytes in established connections that have not been read for longer than [`Report::older`].
    pub(crate) unread: Unread,
    /// Established connections with unread bytes *and* a closed window: the program reads no further request
    /// until its peer takes the answers.
    pub(crate) held_back: Unread,
    /// Other connections with a closed window: the peer does not read.
    pub(crate) window_closed: usize,
    /// Connections in SYN_RECV to which the kernel has sent its SYN-ACK again.
    pub(crate) syn_recv_resent: usize,
    /// Established connections without a byte and without keepalive for longer than [`Report::silent`].
    pub(crate) silent: Silent,
    /// Connections that send the same segments again and again without an answer.
    pub(crate) unanswered: usize,
    /// Connections in SYN_SENT that send their SYN again and again without an answer.
    pub(crate) connects_unanswered: usize,
    /// Connections in FIN_WAIT2 that a process holds: they do not end by themselves.
    pub(crate) half_closed: usize,
}

impl Connections {
    pub(crate) fn of(&self, state: State) -> Option<&StateCount> {
        self.states.iter().find(|count| count.state == state)
    }

    pub(crate) fn number_of(&self, state: State) -> usize {
        self.of(state).map_or(0, |count| count.now)
    }
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct StateCount {
    pub(crate) state: State,
    pub(crate) now: usize,
    /// At the first look.
    pub(crate) before: usize,
    /// The age of the oldest in this state: exact for TIME_WAIT, by its timer; a lower bound for
    /// CLOSE_WAIT and FIN_WAIT2; unknown for the others.
    #[serde(rename = "oldest_s", serialize_with = "as_seconds_if_any")]
    pub(crate) oldest: Option<Duration>,
    /// The time until the kernel has ended the last one, for TIME_WAIT.
    #[serde(rename = "all_gone_in_s", serialize_with = "as_seconds_if_any")]
    pub(crate) all_gone_in: Option<Duration>,
}

/// A connection in CLOSE_WAIT for longer than [`Report::older`]: its peer has closed, this side has not.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Stuck {
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    /// A lower bound: the time since the last segment came, or since an examination first saw it.
    #[serde(rename = "age_s", serialize_with = "as_seconds")]
    pub(crate) age: Duration,
    /// An upper bound: the time since the last data came.
    #[serde(rename = "age_at_most_s", serialize_with = "as_seconds_if_any")]
    pub(crate) age_at_most: Option<Duration>,
    pub(crate) unread: u32,
    /// Whether the program has read up to the end of file.
    pub(crate) end_read: bool,
    /// Bytes that the peer has not acknowledged.
    pub(crate) unsent: u32,
    /// Whether the peer has closed its window: it takes no more of what this side sends.
    pub(crate) window_closed: bool,
    /// Whether a program has taken it out of the accept queue.
    pub(crate) accepted: bool,
    pub(crate) owners: Vec<Owner>,
    /// For a connection of a tine server: the server's answer about it.
    pub(crate) waits_for: Option<WaitsFor>,
}

/// A tine server's answer about a connection that it has not closed.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct WaitsFor {
    /// The worker, as `worker#0[4711]`; `None` if the server does not list it, or if the connection waits
    /// for no particular worker.
    pub(crate) worker: Option<String>,
    /// The callback that this worker is in, which may be about another connection.
    pub(crate) callback: Option<CallbackStatus>,
    pub(crate) reason: Reason,
    /// Seconds until the close deadline.
    #[serde(rename = "closes_in_s", serialize_with = "as_seconds_if_any")]
    pub(crate) closes_in: Option<Duration>,
    /// Whether that callback is about this very connection.
    pub(crate) is_its_own: bool,
    /// The same in words.
    pub(crate) says: String,
}

impl WaitsFor {
    pub(crate) fn is_under_way(&self) -> bool {
        self.callback.is_some() && self.is_its_own
    }

    /// Returns whether the other connection waits for the same.
    pub(crate) fn is_like(&self, other: &WaitsFor) -> bool {
        let is_same_reason =
            || std::mem::discriminant(&self.reason) == std::mem::discriminant(&other.reason);
        self.worker == other.worker && (self.worker.is_some() || is_same_reason())
    }

    /// Returns it in a few words, to follow "waits for".
    pub(crate) fn short(&self) -> String {
        match (self.reason, &self.worker) {
            (Reason::Room, _) => "room with a worker".to_owned(),
            (Reason::Output, _) => "its client to read".to_owned(),
            (Reason::Kept, _) => "nothing: policy `keep`".to_owned(),
            (_, None) => "a worker that is not listed".to_owned(),
            (_, Some(worker)) => match &self.callback {
                Some(CallbackStatus { kind, at_least, .. }) => {
                    let of = if self.is_its_own {
                        ""
                    } else {
                        " of another connection"
                    };
                    format!("{worker}, in `{kind}`{of} for {}", age(*at_least))
                }
                None => worker.clone(),
            },
        }
    }
}

#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Unread {
    pub(crate) connections: usize,
    pub(crate) bytes: u64,
    #[serde(rename = "longest_s", serialize_with = "as_seconds_if_any")]
    pub(crate) longest: Option<Duration>,
    /// The processes that should read them, each once.
    pub(crate) owners: Vec<Owner>,
}

/// Connections that may have lost their peers without notice.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Silent {
    pub(crate) connections: usize,
    #[serde(rename = "longest_s", serialize_with = "as_seconds_if_any")]
    pub(crate) longest: Option<Duration>,
    /// The processes that hold them, each once.
    pub(crate) owners: Vec<Owner>,
}

/// The descriptors that a process holds of TCP sockets without a connection: it was reset, has timed out, or
/// was never made.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Departed {
    pub(crate) owner: Owner,
    pub(crate) sockets: usize,
    /// The time since the first of them was seen.
    #[serde(rename = "longest_s", serialize_with = "as_seconds")]
    pub(crate) longest: Duration,
}

/// The local ports that connections to one remote address and port take.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct PortUse {
    pub(crate) local: IpAddr,
    pub(crate) remote: SocketAddr,
    pub(crate) used: usize,
    /// The number of these in TIME_WAIT.
    pub(crate) time_wait: usize,
    /// The number of ports that the kernel can give.
    pub(crate) of: u32,
}

/// Counters of the whole network namespace.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Counters {
    pub(crate) since_boot: Overflows,
    pub(crate) while_watched: Overflows,
    /// Overflows while no listener was seen full.
    pub(crate) unexplained: u64,
}

/// The weight of a finding.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Weight {
    /// Worth knowing, but perhaps intended.
    Note,
    Wrong,
}

/// A verdict in words.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Finding {
    /// A name for scripts.
    pub(crate) kind: &'static str,
    pub(crate) weight: Weight,
    /// Its subject: a listener's address, `outgoing`, or other words.
    pub(crate) about: String,
    pub(crate) says: String,
    /// Things to try, a line each.
    pub(crate) next: Vec<String>,
}

/// Times are seconds in JSON.
pub(crate) fn as_seconds_if_any<S: Serializer>(
    time: &Option<Duration>,
    to: S,
) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => as_seconds(time, to),
        None => to.serialize_none(),
    }
}
