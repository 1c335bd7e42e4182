//! Settings, validated once into a [`Config`] that can't be wrong.

pub(crate) mod policy;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::policy::{CrashPolicy, Dispatch, Dispatcher, OnCrash};
use crate::conn_id::{MAX_KEYS, MAX_OWNERS};
use crate::error::Error;
use crate::ipc::link::charge;
use crate::protocol::Protocol;
use crate::sys::limits;

/// Where the connections live.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "status", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "status", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Mode {
    /// A master owns every socket, and workers run the callbacks: a worker's death or blocking is
    /// not its clients'.
    #[default]
    Process,
    /// Each worker accepts and serves by itself: nothing between socket and callback, and nothing
    /// that outlives a worker.
    Base,
}

/// What the watchdog does about a callback that runs longer than its limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum LimitAction {
    /// It says so in the log, once a callback.
    #[default]
    Warn,
    /// It says so, and kills the worker. The crash policy decides what becomes of the message.
    Kill,
}

/// The most bytes that one read takes, and so the longest raw message. With 64 KiB, messages of 1 MiB
/// take 17 % (process mode) to 42 % (base mode) more processor time; half a MiB would be a quarter of an
/// inbox.
pub(crate) const READ_SIZE: usize = 256 << 10;

/// A raw stream is read where there is room for so much, though one read may take more. It would wait
/// for more room than that at the price of two calls of epoll_ctl(2). Where messages are cut, an inbox has
/// so much beside the longest one.
pub(crate) const LEAST_READ: usize = 64 << 10;

/// Bytes of a buffer that what is to be cut into messages is read into.
pub(crate) const LARGE_BUFFER: usize = 64 << 10;

/// How long the peer's own FIN is waited for after ours, with its bytes thrown away, so that it is
/// not reset while it still reads our last bytes.
pub(crate) const LINGER: Duration = Duration::from_secs(2);

/// The longest time that can be set: a year, in seconds.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// Descriptors of one process beside connections, doorbells and listeners: standard streams, epoll,
/// pipes, and what a library opens.
const SPARE_FILES: u64 = 64;

/// The most connections where none were asked for and the limit of open files allows as many.
const DEFAULT_MAX_CONNECTIONS: u64 = 65_536;

/// What the user set, not looked at yet.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) mode: Mode,
    pub(crate) listen: Vec<SocketAddr>,
    pub(crate) listen_problem: Option<String>,
    pub(crate) workers: usize,
    pub(crate) standby: usize,
    pub(crate) callback_limit: Option<(Duration, LimitAction)>,
    pub(crate) max_requests: Option<u64>,
    pub(crate) worker_memory: Option<u64>,
    pub(crate) crash_loop: Option<Duration>,
    pub(crate) reactors: usize,
    pub(crate) backlog: u32,
    pub(crate) protocol: Protocol,
    pub(crate) max_message: usize,
    pub(crate) on_crash: CrashPolicy,
    pub(crate) dispatcher: Dispatcher,
    pub(crate) close_deadline: Option<Duration>,
    pub(crate) shutdown_deadline: Duration,
    pub(crate) max_connections: Option<usize>,
    pub(crate) pid_file: Option<PathBuf>,
    pub(crate) high_water: usize,
    pub(crate) output_limit: Option<usize>,
    pub(crate) memory_budget: Option<usize>,
}

impl Default for Settings {
    fn default() -> Settings {
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        Settings {
            mode: Mode::Process,
            listen: Vec::new(),
            listen_problem: None,
            workers: cores,
            standby: 0,
            callback_limit: None,
            max_requests: None,
            worker_memory: None,
            crash_loop: None,
            reactors: (cores / 2).max(1),
            backlog: 4096,
            protocol: Protocol::raw(),
            max_message: 8 << 20,
            on_crash: CrashPolicy::Always(OnCrash::Close),
            dispatcher: Dispatcher::Mode(Dispatch::default()),
            close_deadline: Some(Duration::from_secs(5)),
            shutdown_deadline: Duration::from_secs(10),
            max_connections: None,
            pid_file: None,
            high_water: 1 << 20,
            output_limit: None,
            memory_budget: None,
        }
    }
}

/// Settings that were found good.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) mode: Mode,
    pub(crate) listen: Vec<SocketAddr>,
    pub(crate) workers: usize,
    /// Workers that are started and have no seat.
    pub(crate) standby: usize,
    /// How long a callback may run, and what is done about it then.
    pub(crate) callback_limit: Option<(Duration, LimitAction)>,
    /// After about so many messages a worker is replaced.
    pub(crate) max_requests: Option<u64>,
    /// With more bytes of private memory a worker is replaced, with twice as many killed.
    pub(crate) worker_memory: Option<u64>,
    /// When no seat has had a worker of any use for so long, the server ends.
    pub(crate) crash_loop: Option<Duration>,
    /// 0 in base mode.
    pub(crate) reactors: usize,
    pub(crate) backlog: u32,
    pub(crate) protocol: Protocol,
    pub(crate) max_message: usize,
    pub(crate) on_crash: CrashPolicy,
    pub(crate) dispatcher: Dispatcher,
    pub(crate) close_deadline: Option<Duration>,
    pub(crate) shutdown_deadline: Duration,
    /// Of one process: the master, or one worker in base mode.
    pub(crate) max_connections: usize,
    pub(crate) pid_file: Option<PathBuf>,
    pub(crate) high_water: usize,
    pub(crate) output_limit: usize,
    pub(crate) memory_budget: usize,
    /// Bytes of one inbox ring.
    pub(crate) inbox: usize,
    /// Bytes of one outbox ring.
    pub(crate) outbox: usize,
}

/// The address that is listened on where none is named.
pub(crate) const DEFAULT_LISTEN: &str = "127.0.0.1:9501";

const MIB: usize = 1 << 20;

/// The most workers, and the most that stand by. Together, and with one more, they are no more than
/// a connection's name can tell apart.
const MAX_WORKERS: usize = 511;

impl Settings {
    /// Looks at every setting.
    ///
    /// # Errors
    /// [`Error::Setting`] for the first one that is wrong, [`Error::OpenFiles`] when so many
    /// connections do not fit.
    pub(crate) fn validate(self) -> Result<Config, Error> {
        if let Some(problem) = self.listen_problem {
            return Err(Error::Setting {
                name: "listen",
                problem,
            });
        }
        within("workers", self.workers, 1, MAX_WORKERS)?;
        within("standby", self.standby, 0, MAX_WORKERS)?;
        self.validate_limits()?;
        within("reactors", self.reactors, 1, MAX_OWNERS as usize)?;
        within("backlog", self.backlog as usize, 0, i32::MAX as usize)?;
        let Memory {
            inbox,
            output_limit,
            memory_budget,
        } = self.memory()?;
        if let CrashPolicy::Always(OnCrash::Redeliver { attempts }) = self.on_crash {
            within("on_crash attempts", usize::from(attempts), 1, 255)?;
        }
        within_a_year(
            "close_deadline (seconds)",
            self.close_deadline.unwrap_or_default(),
        )?;
        within_a_year("shutdown_deadline (seconds)", self.shutdown_deadline)?;
        let listen = match self.listen.is_empty() {
            true => vec![DEFAULT_LISTEN.parse().expect("the default address is one")],
            false => self.listen,
        };
        within("listen", listen.len(), 1, 1024)?;
        Ok(Config {
            max_connections: connections(
                self.max_connections,
                (listen.len() + slots(self.workers, self.standby) + self.reactors) as u64,
            )?,
            mode: self.mode,
            workers: self.workers,
            standby: self.standby,
            callback_limit: self.callback_limit,
            max_requests: self.max_requests,
            worker_memory: self.worker_memory,
            crash_loop: self.crash_loop,
            reactors: match self.mode {
                Mode::Process => self.reactors,
                Mode::Base => 0,
            },
            backlog: self.backlog,
            inbox,
            outbox: MIB,
            protocol: self.protocol,
            max_message: self.max_message,
            on_crash: self.on_crash,
            dispatcher: self.dispatcher,
            close_deadline: self.close_deadline,
            shutdown_deadline: self.shutdown_deadline,
            pid_file: self.pid_file,
            high_water: self.high_water,
            output_limit,
            memory_budget,
            listen,
        })
    }
}

impl Settings {
    /// The limits that workers live under.
    fn validate_limits(&self) -> Result<(), Error> {
        if let Some((limit, _)) = self.callback_limit {
            let ms = limit.as_millis() as usize;
            let most = LONGEST.as_millis() as usize;
            within("callback_limit (milliseconds)", ms, 1, most)?;
        }
        let most = usize::MAX;
        within(
            "max_requests",
            self.max_requests.unwrap_or(1) as usize,
            1,
            most,
        )?;
        let least = self.worker_memory.map_or(MIB, |bytes| bytes as usize);
        within("worker_memory", least, MIB, most)?;
        within_a_year(
            "fail_on_crash_loop (seconds)",
            self.crash_loop.unwrap_or_default(),
        )
    }
}

/// The settings that are about memory, in bytes.
struct Memory {
    inbox: usize,
    output_limit: usize,
    memory_budget: usize,
}

impl Settings {
    /// The settings about memory, which depend on one another.
    fn memory(&self) -> Result<Memory, Error> {
        within("max_message", self.max_message, 1, 1 << 30)?;
        within("output_high_water", self.high_water, 1, 1 << 33)?;
        let inbox = inbox_size(&self.protocol, self.max_message);
        let longest = if self.protocol.is_raw() {
            // What is held of a raw stream was read to be shown to a dispatch function.
            LARGE_BUFFER
        } else {
            self.max_message
        };
        // A client that is not read any more may still be owed an answer to all that is on its way.
        let on_its_way = self.high_water.saturating_add(inbox + longest + READ_SIZE);
        let output_limit = self.output_limit.unwrap_or(on_its_way.max(16 * MIB));
        within("output_limit", output_limit, 1, 1 << 34)?;
        within("output_high_water", self.high_water, 1, output_limit)?;
        let owners = match self.mode {
            Mode::Process => self.reactors,
            Mode::Base => 1,
        };
        let least = output_limit.max(longest).saturating_mul(owners);
        let memory_budget = self.memory_budget.unwrap_or((2 * least).max(256 * MIB));
        within("memory_budget", memory_budget, least, usize::MAX)?;
        Ok(Memory {
            inbox,
            output_limit,
            memory_budget,
        })
    }
}

impl Config {
    /// The longest raw message. A callback can echo it, unless its limit is below that of 64 KiB: each
    /// piece of what it sends counts some more bytes.
    pub(crate) fn longest_raw(&self) -> usize {
        let pieces = READ_SIZE / LEAST_READ;
        let echoed = self.output_limit.saturating_sub(pieces * charge(0));
        READ_SIZE.min(echoed.max(LEAST_READ)).min(self.max_message)
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

/// Beside those who have seats or stand by, there is one that leaves or is about to take over.
fn slots(workers: usize, standby: usize) -> usize {
    workers + standby + 1
}

fn within(name: &'static str, value: usize, least: usize, most: usize) -> Result<(), Error> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    let problem = match most {
        usize::MAX => format!("{value} is less than {least}, the least that is allowed here"),
        _ => format!("{value} is not between {least} and {most}"),
    };
    Err(Error::Setting { name, problem })
}

fn within_a_year(name: &'static str, time: Duration) -> Result<(), Error> {
    within(name, time.as_secs() as usize, 0, LONGEST.as_secs() as usize)
}

/// An inbox holds a whole message, and while a worker is at it, the next ones. Raw messages are
/// short.
fn inbox_size(protocol: &Protocol, max_message: usize) -> usize {
    if protocol.is_raw() {
        // With one MiB, twenty clients with 64 KiB each waited for room by turns, at two calls of
        // epoll_ctl(2) for a turn: 5 % more processor time than with two, and 8 % for 1 MiB each.
        // With four, what was read has left the cache when its turn comes.
        2 * MIB
    } else {
        (max_message + LEAST_READ).next_power_of_two().max(MIB)
    }
}

/// How many connections fit, and the limit of open files raised for them.
fn connections(asked: Option<usize>, others: u64) -> Result<usize, Error> {
    let spare = SPARE_FILES + others;
    let most = asked
        .map(|most| within("max_connections", most, 1, MAX_KEYS as usize).map(|()| most as u64));
    let connections = match most.transpose()? {
        Some(asked) => asked,
        None => DEFAULT_MAX_CONNECTIONS
            .min(limits::hard_open_files().saturating_sub(spare))
            .max(1),
    };
    // The manager has a bell and a pipe or two for each seat, and no connection.
    let needed = (connections + spare).max(spare * 4);
    limits::raise_open_files(needed).map_err(|allowed| Error::OpenFiles { needed, allowed })?;
    Ok(connections as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ZERO_ATTEMPTS: CrashPolicy = CrashPolicy::Always(OnCrash::Redeliver { attempts: 0 });

    #[track_caller]
    fn refused(change: impl FnOnce(&mut Settings)) -> String {
        let mut settings = Settings::default();
        change(&mut settings);
        settings.validate().unwrap_err().to_string()
    }

    #[test]
    fn the_defaults_are_good() {
        let config = Settings::default().validate().unwrap();
        assert_eq!(config.listen, [DEFAULT_LISTEN.parse().unwrap()]);
        assert_eq!((config.inbox, config.outbox), (2 * MIB, MIB));
    }

    #[test]
    fn a_setting_out_of_range_is_refused_by_name() {
        assert_eq!(
            refused(|s| s.workers = 0),
            "setting workers: 0 is not between 1 and 511"
        );
        assert!(refused(|s| s.output_limit = Some(s.high_water - 1)).contains("output_high_water"));
        assert!(refused(|s| s.on_crash = ZERO_ATTEMPTS).contains("attempts"));
        assert!(refused(|s| s.memory_budget = Some(1)).contains("memory_budget"));
    }

    #[test]
    fn a_raw_message_can_be_echoed_within_the_limits() {
        let longest = |max_message, output_limit| {
            let settings = Settings {
                max_message,
                output_limit: Some(output_limit),
                high_water: 1000,
                memory_budget: Some(MIB),
                ..Settings::default()
            };
            settings.validate().unwrap().longest_raw()
        };
        assert_eq!(longest(MIB, MIB), READ_SIZE);
        assert_eq!(longest(1000, MIB), 1000);
        assert_eq!(longest(MIB, 100_000), 100_000 - 4 * charge(0));
        assert_eq!(longest(MIB, 2000), LEAST_READ);
    }

    #[test]
    fn an_inbox_holds_the_longest_message() {
        let protocol: Protocol = "length=4".parse().unwrap();
        let config = Settings {
            protocol,
            ..Settings::default()
        }
        .validate()
        .unwrap();
        assert!(config.inbox > config.max_message);
    }
}
