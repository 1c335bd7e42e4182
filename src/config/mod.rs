//! What the user decided: [`Settings`], checked once into a [`Config`] that can't be wrong.
//!
//! It runs before the first fork. Its one rule: checking changes nothing. What a setting needs of the
//! process (open files, sockets, memory) is seen to when the server is launched.

pub(crate) mod limits;
mod listener;
pub(crate) mod policy;
#[cfg(feature = "serde")]
mod serial;
mod settings;

use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::Deref;

pub use self::listener::{Endpoint, Listener, ListenerId};
pub use self::settings::Settings;

pub(crate) use self::limits::{LARGE_BUFFER, LEAST_READ, LINGER, READ_SIZE, charge};
pub(crate) use self::listener::ListenerConfig;
pub(crate) use self::settings::with_settings;

use self::limits::{
    DEFAULT_MAX_CONNECTIONS, LONGEST, MAX_ADDRESSES, MAX_LISTENERS, MAX_WORKERS, MIB, SPARE_FILES,
    inbox_size, longest_held,
};
use self::policy::{CrashPolicy, Deciders, Dispatch, Dispatcher, OnCrash};
use crate::conn_id::{MAX_KEYS, MAX_OWNERS};
use crate::error::{Error, Problem};
use crate::sys::limits as system;

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
    /// Each worker accepts and serves by itself: nothing between socket and callback, and nothing
    /// that outlives a worker.
    Base,
}

/// What the watchdog does about a callback that runs longer than its limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum LimitAction {
    /// The log says so, once a callback.
    #[default]
    Warn,
    /// The log says so, and the worker is killed. The crash policy decides the fate of the message.
    Kill,
}

/// The address that is listened on where none is named.
pub(crate) const DEFAULT_LISTEN: &str = "127.0.0.1:9501";

/// Settings that were found good. Those without a field here are as they were given.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    settings: Settings,
    /// By [`ListenerId`]; one at least.
    pub(crate) listeners: Vec<ListenerConfig>,
    /// How many sockets listen: one for each address of a listener.
    pub(crate) sockets: usize,
    /// 0 in base mode.
    pub(crate) reactors: usize,
    pub(crate) dispatcher: Dispatcher,
    pub(crate) crash_policy: CrashPolicy,
    /// Of one process: the master, or one worker in base mode.
    pub(crate) max_connections: usize,
    /// How many descriptors a process of the server may need.
    pub(crate) open_files: u64,
    pub(crate) output_limit: usize,
    pub(crate) memory_budget: usize,
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
    /// Looks at every setting.
    ///
    /// # Errors
    /// The first setting that is wrong.
    pub(crate) fn validate(self, deciders: Deciders) -> Result<Config, Error> {
        within("workers", self.workers, 1, MAX_WORKERS, "")?;
        within("standby", self.standby, 0, MAX_WORKERS, "")?;
        let reactors = self.reactors.unwrap_or((settings::cores() / 2).max(1));
        within("reactors", reactors, 1, MAX_OWNERS as usize, "")?;
        self.validate_limits()?;
        self.validate_policies(&deciders)?;
        let listeners = self.listeners()?;
        let memory = self.memory(&listeners, reactors)?;
        let reactors = match self.mode {
            Mode::Process => reactors,
            Mode::Base => 0,
        };
        let sockets = listeners.iter().map(|it| it.addresses.len()).sum();
        let others = (sockets + slots(self.workers, self.standby) + reactors) as u64;
        let spare = SPARE_FILES + others;
        let max_connections = self.connections(spare)?;
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
            // The manager has a bell and a pipe or two for each seat, and no connection.
            open_files: (max_connections as u64 + spare).max(spare * 4),
            max_connections,
            output_limit: memory.output_limit,
            memory_budget: memory.memory_budget,
            inbox: memory.inbox,
            outbox: MIB,
            sockets,
            listeners,
            settings: self,
        })
    }

    fn listeners(&self) -> Result<Vec<ListenerConfig>, Error> {
        let default = [Listener::tcp(DEFAULT_LISTEN)];
        let named = match self.listen.as_slice() {
            [] => &default,
            named => named,
        };
        within("listen", named.len(), 1, MAX_LISTENERS, " listeners")?;
        let mut listeners: Vec<ListenerConfig> = Vec::with_capacity(named.len());
        for (index, listener) in named.iter().enumerate() {
            let mut validated = listener.clone().validate()?;
            if listeners.iter().any(|it| it.name == validated.name) {
                if listener.name.is_some() {
                    let problem = format!("two listeners are called {:?}", validated.name);
                    return Err(setting("listen", problem));
                }
                // The kernel may well give each its own port.
                validated.name = format!("{}#{index}", validated.name);
            }
            listeners.push(validated);
        }
        let addresses = listeners.iter().map(|it| it.addresses.len()).sum();
        within("listen", addresses, 1, MAX_ADDRESSES, " addresses")?;
        Ok(listeners)
    }

    /// The limits that workers live under, and those of time.
    fn validate_limits(&self) -> Result<(), Error> {
        if let Some(limit) = self.callback_limit {
            let most = LONGEST.as_millis();
            within("callback_limit", limit.as_millis(), 1, most, " ms")?;
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

    fn validate_policies(&self, deciders: &Deciders) -> Result<(), Error> {
        match &self.on_crash {
            OnCrash::Redeliver { attempts: 0 } => {
                let problem = "redeliver with 0 attempts: 1 to 255 are allowed";
                return Err(setting("on_crash", problem));
            }
            OnCrash::Redeliver { .. } | OnCrash::Close | OnCrash::Reply(_) | OnCrash::Keep => {}
        }
        match self.mode {
            Mode::Process => Ok(()),
            Mode::Base => self.validate_base(deciders),
        }
    }

    /// What means nothing in base mode is refused there.
    fn validate_base(&self, deciders: &Deciders) -> Result<(), Error> {
        const CONNECTIONS: &str =
            "in base mode a worker's connections end with it: use process mode";
        const SEATS: &str =
            "in base mode a connection stays with the worker that accepted it: use process mode";
        let is_unfit = matches!(self.on_crash, OnCrash::Redeliver { .. } | OnCrash::Keep);
        for (name, is_set, why) in [
            ("on_crash", is_unfit, CONNECTIONS),
            ("on_crash_with", deciders.crash.is_some(), CONNECTIONS),
            ("dispatch", self.dispatch != Dispatch::default(), SEATS),
            ("dispatch_with", deciders.dispatch.is_some(), SEATS),
        ] {
            if is_set {
                return Err(setting(name, why));
            }
        }
        Ok(())
    }

    /// The settings about memory, which depend on one another.
    fn memory(&self, listeners: &[ListenerConfig], reactors: usize) -> Result<Memory, Error> {
        const BYTES: &str = " bytes";
        let high_water = self.output_high_water;
        within("output_high_water", high_water, 1, 1 << 33, BYTES)?;
        // A link serves the connections of all listeners.
        let inbox = listeners.iter().map(inbox_size).max().unwrap_or(MIB);
        let longest = listeners.iter().map(longest_held).max().unwrap_or(MIB);
        // A client whose reading is paused still gets an answer to all that is on its way.
        let on_its_way = high_water.saturating_add(inbox + longest + READ_SIZE);
        let output_limit = self.output_limit.unwrap_or(on_its_way.max(16 * MIB));
        within("output_limit", output_limit, 1, 1 << 34, BYTES)?;
        within("output_high_water", high_water, 1, output_limit, BYTES)?;
        let owners = match self.mode {
            Mode::Process => reactors,
            Mode::Base => 1,
        };
        let least = output_limit.max(longest).saturating_mul(owners);
        let memory_budget = self.memory_budget.unwrap_or((2 * least).max(256 * MIB));
        within("memory_budget", memory_budget, least, usize::MAX, BYTES)?;
        Ok(Memory {
            inbox,
            output_limit,
            memory_budget,
        })
    }

    /// How many connections fit beside `spare` other descriptors.
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

/// The settings about memory, in bytes.
struct Memory {
    inbox: usize,
    output_limit: usize,
    memory_budget: usize,
}

impl Config {
    /// The listener that accepted a connection.
    pub(crate) fn listener(&self, id: ListenerId) -> &ListenerConfig {
        &self.listeners[id.index()]
    }

    /// Whether a number of reactors was asked for.
    pub(crate) fn has_reactors_set(&self) -> bool {
        self.settings.reactors.is_some()
    }

    /// Every address, with the listener that it belongs to.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = (ListenerId, SocketAddr)> {
        let listeners = self.listeners.iter().zip(0..);
        listeners.flat_map(|(listener, index)| {
            let addresses = listener.addresses.iter();
            addresses.map(move |address| (ListenerId(index), *address))
        })
    }

    /// What one commit may count at the reactor, past which the worker is broken. More than a
    /// handler can send: it may close connections besides, which nobody counts at its side.
    pub(crate) fn commit_budget(&self) -> usize {
        2 * self.output_limit + MIB
    }

    /// How many workers there can be at once.
    pub(crate) fn slots(&self) -> usize {
        slots(self.workers, self.standby)
    }

    /// Bytes of address space that the rings take, mapped twice each.
    pub(crate) fn arena_bytes(&self) -> u64 {
        let links = self.slots() as u64 * self.reactors as u64;
        links * (self.inbox + self.outbox) as u64 * 2
    }
}

/// Beside those that have seats or stand by, there is one that leaves or is about to take over.
fn slots(workers: usize, standby: usize) -> usize {
    workers + standby + 1
}

/// A setting that is wrong.
fn setting(name: &'static str, problem: impl Into<String>) -> Error {
    let problem = problem.into();
    Problem::Setting { name, problem }.into()
}

/// Looks whether a setting is in its range, of which a message tells with the unit.
fn within<T>(name: &'static str, value: T, least: T, most: T, unit: &str) -> Result<(), Error>
where
    T: PartialOrd + Display + Copy + TryInto<usize>,
{
    if (least..=most).contains(&value) {
        return Ok(());
    }
    let is_open = most.try_into().is_ok_and(|most| most == usize::MAX);
    let problem = match is_open {
        true => format!("{value}{unit} is less than {least}{unit}, the least that is allowed here"),
        false => format!("{value} is not between {least} and {most}{unit}"),
    };
    Err(setting(name, problem))
}

#[cfg(test)]
mod tests;
