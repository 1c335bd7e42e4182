//! The user's [`Settings`], checked once into a valid [`Config`].
//!
//! Runs before the first fork. Its one rule: checking has no side effects. The resources that a setting
//! needs (open files, sockets, memory) are taken when the server is launched.

mod files;
mod hangup;
pub(crate) mod limits;
mod listener;
mod listeners;
mod memory;
pub(crate) mod networks;
pub(crate) mod policy;
#[cfg(feature = "serde")]
mod serial;
mod settings;
pub(crate) mod silence;
mod timers;
#[cfg(feature = "tls")]
mod tls;

use std::fmt::Display;
use std::ops::Deref;
use std::time::Duration;

pub use self::listener::{Endpoint, Inherited, Listener, ListenerId};
pub use self::settings::Settings;
pub use self::silence::OnIdle;
pub use self::timers::Run;
#[cfg(feature = "tls")]
pub use self::tls::Tls;

use self::hangup::Hangup;
pub(crate) use self::limits::{
    ANSWER_PATIENCE, CUT_PATIENCE, FILES_AT_ONCE, GRACE, LARGE_BUFFER, LAST_PATIENCE, LEAST_READ,
    LINGER, LONGEST_HOLD, LOOK, MOST_FILES, MOST_GROUPS, MOST_HANDSHAKES, MOST_NAME, MOST_ORIGIN,
    MOST_ORPHANED, MOST_POST, MOST_PROMISE, MOST_PUBLISH, MOST_REPLY, MOST_STATE, MOST_TASK, PAUSE,
    READ_SIZE, TASK_BYTES, charge,
};
pub(crate) use self::listener::{ListenerConfig, Source};
pub(crate) use self::settings::with_settings;
pub(crate) use self::timers::{ServerTimer, to_millis};

use self::limits::{
    DEFAULT_MAX_CONNECTIONS, LONGEST, MAX_WORKERS, MIB, MOST_LEAVING, MOST_QUEUED, MOST_SHOWN,
    SPARE_FILES,
};
use self::policy::{CrashPolicy, Deciders, Dispatch, Dispatcher, OnCrash, TaskFailed};
use crate::conn_id::{MAX_KEYS, MAX_OWNERS};
use crate::error::{Error, Problem};
use crate::sys::limits as system;
use crate::sys::room::{Room, room};

/// Where the connections live.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Mode {
    /// A master owns every socket, and workers run the callbacks: connections outlive a worker that
    /// dies or blocks.
    #[default]
    Process,
    /// Each worker accepts and serves its own connections: no process is between socket and callback,
    /// and no connection outlives its worker.
    Base,
}

/// The watchdog's action for a callback that runs longer than its limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum LimitAction {
    /// Log a warning, once for each callback.
    #[default]
    Warn,
    /// Log a warning and kill the worker. The crash policy decides the fate of the message.
    Kill,
}

/// The default address to listen on.
pub(crate) const DEFAULT_LISTEN: &str = "127.0.0.1:9501";

/// Valid settings. Those without a field here are unchanged.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    settings: Settings,
    /// By [`ListenerId`]; at least one.
    pub(crate) listeners: Vec<ListenerConfig>,
    /// The number of listening sockets: one for each address of a listener.
    pub(crate) sockets: usize,
    /// 0 in base mode.
    pub(crate) reactors: usize,
    pub(crate) dispatcher: Dispatcher,
    pub(crate) crash_policy: CrashPolicy,
    /// The limit of one process: the master, or one worker in base mode.
    pub(crate) max_connections: usize,
    /// The most connections of one address in one process, as above; `None` for any number.
    pub(crate) max_per_address: Option<u32>,
    /// The most descriptors that a process of the server may need.
    pub(crate) open_files: u64,
    /// The descriptors that it may need for any number of connections.
    pub(crate) fixed_files: u64,
    /// The most files that one process may be sending: the master, or one worker in base mode.
    pub(crate) most_files: usize,
    pub(crate) output_limit: usize,
    pub(crate) memory_budget: usize,
    /// The limit of memory of which the budget is more than its share.
    pub(crate) tight: Option<Room>,
    /// The most bytes of tasks.
    pub(crate) task_queue_bytes: usize,
    pub(crate) task_failed: TaskFailed,
    pub(crate) hangup: Hangup,
    /// The timers that the server has from its start.
    pub(crate) timers: Vec<ServerTimer>,
    /// Bytes of one inbox ring.
    pub(crate) inbox: usize,
    /// Bytes of one outbox ring.
    pub(crate) outbox: usize,
}

impl Deref for Config {
    type Target = Settings;

    fn deref(&self) -> &Settings {
        &self.settings
    }
}

impl Settings {
    /// Checks every setting.
    ///
    /// # Errors
    /// The first invalid setting.
    pub(crate) fn validate(self, deciders: Deciders) -> Result<Config, Error> {
        within("workers", self.workers, 1, MAX_WORKERS, "")?;
        within("standby", self.standby, 0, MAX_WORKERS, "")?;
        let most = MAX_WORKERS - self.workers;
        within("task_workers", self.task_workers, 0, most, "")?;
        let reactors = self.reactors.unwrap_or((settings::cores() / 2).max(1));
        within("reactors", reactors, 1, MAX_OWNERS as usize, "")?;
        self.validate_limits()?;
        self.validate_policies(&deciders)?;
        self.validate_name()?;
        let listeners = self.listeners()?;
        self.validate_answer(&listeners)?;
        let memory = self.memory(&listeners, reactors, room())?;
        let reactors = match self.mode {
            Mode::Process => reactors,
            Mode::Base => 0,
        };
        let sockets = listeners.iter().map(|it| it.sources.len()).sum();
        let slots = slots(self.workers + self.task_workers, self.standby);
        let others = (sockets + slots + reactors) as u64;
        // The master has a doorbell for each link.
        let links = (slots * reactors) as u64;
        // And an end for files for each worker.
        let spare = SPARE_FILES + others + links + slots as u64;
        let max_connections = self.connections(spare)?;
        let fixed_files = spare.max(SPARE_FILES * 4 + others * 7);
        // The manager has doorbells, pipes, a channel and a file for each slot. Of connections it has those that are
        // on their way from worker to worker.
        let needed = (max_connections as u64 + spare).max(fixed_files);
        let writers = if reactors > 0 { slots } else { 0 };
        let allowed = system::hard_open_files();
        let files = files::files(allowed, needed, max_connections, writers);
        Ok(Config {
            reactors,
            dispatcher: match deciders.dispatch {
                Some(function) => Dispatcher::Function(function),
                None => Dispatcher::Mode(self.dispatch),
            },
            crash_policy: match deciders.crash {
                Some(function) => CrashPolicy::Function(function),
                None => CrashPolicy::Always(self.on_crash.clone()),
            },
            task_failed: TaskFailed(deciders.task_failed),
            timers: deciders.timers,
            hangup: Hangup(deciders.hangup),
            open_files: files.needed,
            fixed_files,
            most_files: files.most,
            max_connections,
            max_per_address: self.max_connections_per_address.map(|most| most as u32),
            output_limit: memory.output_limit,
            memory_budget: memory.memory_budget,
            tight: memory.tight,
            task_queue_bytes: memory.task_queue_bytes,
            inbox: memory.inbox,
            outbox: MIB,
            sockets,
            listeners,
            settings: self,
        })
    }

    /// Checks the limits of workers, and the times.
    fn validate_limits(&self) -> Result<(), Error> {
        if let Some(limit) = self.callback_limit {
            within_time("callback_limit", limit, Duration::from_millis(1), LONGEST)?;
        }
        within("poison_shown", self.poison_shown, 0, MOST_SHOWN, " bytes")?;
        within("post_attempts", self.post_attempts, 1, u8::MAX, "")?;
        within("task_attempts", self.task_attempts, 1, u8::MAX, "")?;
        within("task_queue", self.task_queue, 1, MOST_QUEUED, "")?;
        if let Some(most) = self.max_connections_per_address {
            let largest = MAX_KEYS as usize;
            within("max_connections_per_address", most, 1, largest, "")?;
        }
        if let Some(messages) = self.max_requests {
            within("max_requests", messages, 1, u64::MAX, "")?;
        }
        if let Some(bytes) = self.worker_memory {
            within("worker_memory", bytes, MIB as u64, u64::MAX, " bytes")?;
        }
        let times = [
            ("fail_on_crash_loop", self.fail_on_crash_loop),
            ("close_deadline", self.close_deadline),
            ("shutdown_deadline", Some(self.shutdown_deadline)),
        ];
        for (name, time) in times {
            let seconds = time.unwrap_or_default().as_secs();
            within(name, seconds, 0, LONGEST.as_secs(), " s")?;
        }
        Ok(())
    }

    /// Checks the name of the server, which is a part of a pattern for pkill(1).
    fn validate_name(&self) -> Result<(), Error> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-:".contains(c);
        match &self.name {
            Some(name) if name.is_empty() || name.len() > 64 || !name.chars().all(is_plain) => {
                let problem = format!(
                    "{name:?} is no name: use 1 to 64 letters, digits and '.', '_', '-', ':'"
                );
                Err(setting("name", problem))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn validate_policies(&self, deciders: &Deciders) -> Result<(), Error> {
        match &self.on_crash {
            OnCrash::Redeliver { attempts: 0 } => {
                let problem = "redeliver with 0 attempts: 1 to 255 are allowed";
                return Err(setting("on_crash", problem));
            }
            OnCrash::Reply(reply) | OnCrash::Answer(reply) if reply.is_empty() => {
                let problem = "it is empty: to send none, use close";
                return Err(setting("on_crash", problem));
            }
            OnCrash::Redeliver { .. }
            | OnCrash::Close
            | OnCrash::Reply(_)
            | OnCrash::Answer(_)
            | OnCrash::Keep => {}
        }
        match self.mode {
            Mode::Process => Ok(()),
            Mode::Base => self.validate_base(deciders),
        }
    }

    /// Refuses an answer in the place of one that did not come, where the next message can't be told from its rest.
    fn validate_answer(&self, listeners: &[ListenerConfig]) -> Result<(), Error> {
        let raw = listeners.iter().find(|it| it.protocol.is_raw());
        match (&self.on_crash, raw) {
            (OnCrash::Answer(_), Some(raw)) => {
                let problem = format!(
                    "answer keeps the connection for its next message, and listener {} has the protocol raw, which does \
                     not know where that begins: set another protocol, or use reply",
                    raw.name
                );
                Err(setting("on_crash", problem))
            }
            _ => Ok(()),
        }
    }

    /// Refuses settings that have no meaning in base mode.
    fn validate_base(&self, deciders: &Deciders) -> Result<(), Error> {
        const CONNECTIONS: &str = "in base mode a worker's connections end with it, and close, reply and answer are allowed: \
            use one of them, or process mode";
        const SEATS: &str = "in base mode a connection stays with the worker that accepted it: leave it out, or use process \
            mode";
        const TIMERS: &str =
            "in base mode each worker has its own timers: use Run::Each, or process mode";
        const TASKS: &str =
            "in base mode a worker has no way to another one: leave it out, or use process mode";
        let is_unfit = matches!(self.on_crash, OnCrash::Redeliver { .. } | OnCrash::Keep);
        for (name, is_set, why) in [
            ("on_crash", is_unfit, CONNECTIONS),
            ("on_crash_with", deciders.crash.is_some(), CONNECTIONS),
            ("dispatch", self.dispatch != Dispatch::default(), SEATS),
            ("dispatch_with", deciders.dispatch.is_some(), SEATS),
            ("task_workers", self.task_workers > 0, TASKS),
            (
                "every",
                deciders.timers.iter().any(|it| it.run == Run::One),
                TIMERS,
            ),
        ] {
            if is_set {
                return Err(setting(name, why));
            }
        }
        Ok(())
    }

    /// Returns the most connections, beside `spare` other descriptors.
    fn connections(&self, spare: u64) -> Result<usize, Error> {
        match self.max_connections {
            Some(most) => within("max_connections", most, 1, MAX_KEYS as usize, "").map(|()| most),
            None => {
                let allowed = system::hard_open_files().saturating_sub(spare);
                Ok(DEFAULT_MAX_CONNECTIONS.min(allowed).max(1) as usize)
            }
        }
    }
}

impl Config {
    /// Returns a listener.
    pub(crate) fn listener(&self, id: ListenerId) -> &ListenerConfig {
        &self.listeners[id.index()]
    }

    /// Whether the number of reactors was set.
    pub(crate) fn has_reactors_set(&self) -> bool {
        self.settings.reactors.is_some()
    }

    /// Returns how long a worker may take to leave. In base mode it has the shutdown deadline for its
    /// connections, and then some time for itself.
    pub(crate) fn leave_deadline(&self) -> Duration {
        match self.mode {
            Mode::Process => self.shutdown_deadline,
            Mode::Base => self.shutdown_deadline + LAST_PATIENCE,
        }
    }

    /// Returns the budget of one commit at the reactor; a worker over it has broken the protocol. It is
    /// more than the output limit of a callback, as closes and the like are not counted there.
    pub(crate) fn commit_budget(&self) -> usize {
        2 * self.output_limit + MIB
    }

    /// Returns the most bytes of states and timers that one owner of connections keeps.
    pub(crate) fn most_kept(&self) -> usize {
        self.memory_budget / 2 / self.reactors.max(1)
    }

    /// Returns the number of seats: first those of the workers that serve clients, then those of task workers.
    pub(crate) fn seats(&self) -> usize {
        self.workers + self.task_workers
    }

    /// Returns the most workers at the same time.
    pub(crate) fn slots(&self) -> usize {
        slots(self.seats(), self.standby)
    }

    /// Returns the address space of the rings in bytes, each mapped twice.
    pub(crate) fn arena_bytes(&self) -> u64 {
        let links = self.slots() as u64 * self.reactors as u64;
        links * (self.inbox + self.outbox) as u64 * 2
    }
}

/// More than the workers with seats and on standby: one for a worker that is about to take a seat over, and
/// some for workers that leave their seats.
fn slots(workers: usize, standby: usize) -> usize {
    let spare = 1 + workers.min(MOST_LEAVING);
    (workers + standby + spare).min(MAX_OWNERS as usize)
}

/// Returns the error of an invalid setting.
fn setting(name: &'static str, problem: impl Into<String>) -> Error {
    let problem = problem.into();
    Problem::Setting { name, problem }.into()
}

/// Checks that a setting is in its range. The unit is part of the error's text.
fn within<T>(name: &'static str, value: T, least: T, most: T, unit: &str) -> Result<(), Error>
where
    T: PartialOrd + Display + Copy + TryInto<usize>,
{
    if (least..=most).contains(&value) {
        return Ok(());
    }
    let is_open = most.try_into().is_ok_and(|most| most == usize::MAX);
    let problem = match is_open {
        true => format!("{value}{unit} is less than the minimum, {least}{unit}"),
        false => format!("{value} is not between {least} and {most}{unit}"),
    };
    Err(setting(name, problem))
}

/// Checks a time, to the millisecond. The builder takes a time, C milliseconds, and a flag seconds.
fn within_time(
    name: &'static str,
    time: Duration,
    least: Duration,
    most: Duration,
) -> Result<(), Error> {
    if (least.as_millis()..=most.as_millis()).contains(&time.as_millis()) {
        return Ok(());
    }
    let both = |time: Duration| format!("{} s ({} ms)", time.as_secs_f64(), time.as_millis());
    let problem = format!(
        "{} is not between {} and {}",
        both(time),
        both(least),
        both(most)
    );
    Err(setting(name, problem))
}

#[cfg(test)]
mod tests;
