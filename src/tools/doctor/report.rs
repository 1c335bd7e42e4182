//! What an examination has found: plain data, which text, JSON, the terminal view and the verdicts
//! are made from.
//!
//! Times are seconds in JSON, addresses as people write them.

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
    /// How often the queues were looked at.
    pub(crate) looks: usize,
    /// From what age on a connection in CLOSE_WAIT, or unread bytes, are worth a line.
    #[serde(rename = "older_s", serialize_with = "as_seconds")]
    pub(crate) older: Duration,
    pub(crate) wrong: bool,
    pub(crate) verdict: String,
    pub(crate) findings: Vec<Finding>,
    pub(crate) listeners: Vec<Listener>,
    /// Connections that belong to no listener: those that processes here have made. Not where one
    /// port was asked for.
    pub(crate) outgoing: Connections,
    pub(crate) ports: Vec<PortUse>,
    pub(crate) counters: Counters,
    pub(crate) settings: Settings,
    /// Those that hold a listener, or a connection that is listed.
    pub(crate) processes: BTreeMap<i32, Holder>,
    /// What could not be seen and why, a line each.
    pub(crate) unseen: Vec<String>,
}

/// One address that is listened on. With SO_REUSEPORT it has several queues.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Listener {
    pub(crate) address: SocketAddr,
    pub(crate) queues: Vec<Queue>,
    pub(crate) connections: Connections,
}

impl Listener {
    /// The queue that was the fullest.
    pub(crate) fn fullest(&self) -> Option<&Queue> {
        self.queues.iter().max_by_key(|queue| {
            let of_a_thousand = u64::from(queue.peak) * 1000 / u64::from(queue.most()).max(1);
            (of_a_thousand, queue.now)
        })
    }

    /// Who holds it, the first few, or at least the user.
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

/// A listening socket, and the connections that wait in it to be accepted.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Queue {
    pub(crate) now: u32,
    pub(crate) peak: u32,
    pub(crate) lowest: u32,
    /// The peak since the report before this one, where it is watched for longer.
    pub(crate) recent_peak: u32,
    /// As the kernel took it from listen(2): one more than that fits.
    pub(crate) backlog: u32,
    /// By how much the namespace's counter grew while this queue was full.
    pub(crate) overflows_while_full: u64,
    pub(crate) owners: Vec<Owner>,
    /// Who made it, which is seen also where the owners are not.
    pub(crate) uid: u32,
    #[serde(skip)]
    pub(crate) cookie: u64,
}

impl Queue {
    /// How many fit: the kernel lets one in while no more than the backlog wait.
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
    /// In CLOSE_WAIT and perhaps older: keepalive probes start the kernel's clock anew.
    pub(crate) perhaps_stuck: usize,
    /// Bytes that came to a connection whose peer is there, and were not read for longer than
    /// [`Report::older`].
    pub(crate) unread: Unread,
    /// Whose peer takes nothing: its window is closed.
    pub(crate) window_closed: usize,
    /// What was sent again and again without an answer, where there is a connection.
    pub(crate) unanswered: usize,
    /// The same of SYNs: nobody lets them in.
    pub(crate) connects_unanswered: usize,
    /// In FIN_WAIT2, and a process holds it: it does not end by itself.
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
    /// The age of the oldest in this state: of TIME_WAIT by its timer, of CLOSE_WAIT and FIN_WAIT2 at
    /// least so much, of others unknown.
    #[serde(rename = "oldest_s", serialize_with = "as_seconds_if_any")]
    pub(crate) oldest: Option<Duration>,
    /// How long until the kernel has ended the last one, of TIME_WAIT.
    #[serde(rename = "all_gone_in_s", serialize_with = "as_seconds_if_any")]
    pub(crate) all_gone_in: Option<Duration>,
}

/// A connection that its peer has closed, and nobody here.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Stuck {
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    /// At least: since the last segment came, or since it was seen first.
    #[serde(rename = "age_s", serialize_with = "as_seconds")]
    pub(crate) age: Duration,
    /// Since the last data came.
    #[serde(rename = "age_at_most_s", serialize_with = "as_seconds_if_any")]
    pub(crate) age_at_most: Option<Duration>,
    pub(crate) unread: u32,
    /// Whether the program has read up to the end of file.
    pub(crate) end_read: bool,
    /// Whether a program has taken it out of the accept queue.
    pub(crate) accepted: bool,
    pub(crate) owners: Vec<Owner>,
    /// Of a tine server: who owes the close.
    pub(crate) owing: Option<Owing>,
}

/// What a tine server says about a connection that it has not closed.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct Owing {
    /// As `worker#0[4711]`; none where the worker has ended, or no worker is concerned.
    pub(crate) worker: Option<String>,
    /// What that worker is in, which may be about another connection.
    pub(crate) callback: Option<CallbackStatus>,
    pub(crate) reason: Reason,
    /// Seconds until the close deadline.
    #[serde(rename = "closes_in_s", serialize_with = "as_seconds_if_any")]
    pub(crate) closes_in: Option<Duration>,
    /// Whether that callback is about this very connection.
    pub(crate) is_its_own: bool,
    /// All that in words.
    pub(crate) says: String,
}

impl Owing {
    pub(crate) fn is_under_way(&self) -> bool {
        self.callback.is_some() && self.is_its_own
    }

    /// Whether the same explains the other one.
    pub(crate) fn is_like(&self, other: &Owing) -> bool {
        let is_same_reason =
            || std::mem::discriminant(&self.reason) == std::mem::discriminant(&other.reason);
        self.worker == other.worker && (self.worker.is_some() || is_same_reason())
    }

    /// In few words.
    pub(crate) fn short(&self) -> String {
        match (self.reason, &self.worker) {
            (Reason::Room, _) => "waits for room with a worker".to_owned(),
            (Reason::Output, _) => "its client does not read".to_owned(),
            (Reason::Kept, _) => "nobody: policy `keep`".to_owned(),
            (_, None) => "a worker that has ended".to_owned(),
            (_, Some(worker)) => match &self.callback {
                Some(CallbackStatus { kind, at_least, .. }) => {
                    let whose = if self.is_its_own { "" } else { " of another" };
                    format!("{worker}, in `{kind}`{whose} for {}", age(*at_least))
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
    /// Who should read them, each process once.
    pub(crate) owners: Vec<Owner>,
}

/// The local ports that connections to one address and port take.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct PortUse {
    pub(crate) local: IpAddr,
    pub(crate) remote: SocketAddr,
    pub(crate) used: usize,
    /// Of these, in TIME_WAIT.
    pub(crate) time_wait: usize,
    /// How many there are.
    pub(crate) of: u32,
}

/// Of the whole network namespace.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Counters {
    pub(crate) since_boot: Overflows,
    pub(crate) while_watched: Overflows,
    /// Overflows while no listener was seen full.
    pub(crate) unexplained: u64,
}

/// How much a finding matters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Weight {
    /// Worth knowing, and may be as it should be.
    Note,
    Wrong,
}

/// A verdict in words.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Finding {
    /// What scripts can ask for.
    pub(crate) kind: &'static str,
    pub(crate) weight: Weight,
    /// A listener's address, or what else it is about.
    pub(crate) about: String,
    pub(crate) says: String,
    /// What to try, a line each.
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
