//! The settings of a server: one table, from which the public struct, its defaults and the builder
//! methods of [`Server`](crate::Server) are made.

use std::path::PathBuf;
use std::time::Duration;

use super::policy::{Deciders, Dispatch, OnCrash};
use super::{LimitAction, Listener, Mode};
use crate::error::Error;

/// Passes the table of settings to a macro. A new setting is an entry here, a check in
/// `Settings::validate`, a flag, and a setter of the C ABI.
///
/// An entry is: doc, name, type, default; its serialization, unless the type's own; and the builder's
/// argument, with the value made of it.
macro_rules! with_settings {
    ($macro:ident) => {
        $macro! {
            /// Where the connections live. Default: [`Mode::Process`](crate::Mode::Process).
            mode: Mode = Mode::Process;
            (mode: Mode) => mode;

            /// The number of worker processes, 1 to 511. Default: the cores of the machine.
            workers: usize = cores();
            (workers: usize) => workers;

            /// The number of reactor threads of the master, 1 to 1023, in process mode. Base mode has
            /// none: if it is set there, the log warns. Default: half the cores, at least 1.
            reactors: Option<usize> = None;
            (reactors: usize) => Some(reactors);

            /// The number of standby workers, 0 to 511: they start and make their handlers, and when a
            /// worker dies, one of them takes its seat at once. Default: 0.
            standby: usize = 0;
            (workers: usize) => workers;

            /// Which worker a connection's messages go to, in process mode. Base mode refuses any but
            /// the default: [`Dispatch::LeastConnections`](crate::Dispatch::LeastConnections).
            dispatch: Dispatch = Dispatch::LeastConnections;
            (dispatch: Dispatch) => dispatch;

            /// The fate of a callback in which a worker dies, or that returns an error. Base mode refuses
            /// `Redeliver` and `Keep`. Default: [`OnCrash::Close`](crate::OnCrash::Close).
            on_crash: OnCrash = OnCrash::Close, as "text";
            (policy: OnCrash) => policy;

            /// How long a callback may run, at least a millisecond. Time in which the worker is stopped
            /// (SIGSTOP, a debugger) or the machine is suspended does not count. With the
            /// feature `stack`, the log shows the stack of a worker over the limit, for which it is
            /// stopped for less than a millisecond. Default: no limit.
            callback_limit: Option<Duration> = None, as "seconds_if_any";
            (limit: Duration) => Some(limit);

            /// The action for a callback that runs longer than `callback_limit`. Default:
            /// [`LimitAction::Warn`](crate::LimitAction::Warn).
            on_limit: LimitAction = LimitAction::Warn;
            (action: LimitAction) => action;

            /// Recycles a worker after this many messages, at least 1, plus up to 25 % jitter so that
            /// workers are not all recycled at once. One seat at a time; the new worker starts first.
            /// Default: never.
            max_requests: Option<u64> = None;
            (messages: u64) => Some(messages);

            /// Recycles a worker with more than this many bytes of private memory, at least 1 MiB, and
            /// kills one with more than twice as many. Checked once a second. Default: no limit.
            worker_memory: Option<u64> = None;
            (bytes: u64) => Some(bytes);

            /// Ends the server with [`ErrorKind::CrashLoop`](crate::ErrorKind::CrashLoop) when every
            /// seat has been in back-off for this long: its workers died young, before their first
            /// callback. Default: the server keeps trying.
            fail_on_crash_loop: Option<Duration> = None, as "seconds_if_any";
            (after: Duration) => Some(after);

            /// How long after the peer's FIN, or after the last byte that the peer took since, the socket
            /// is closed, also if the worker has not finished. `None` means never: the socket may stay in
            /// CLOSE_WAIT. While an answer is promised ([`Conn::answer_within`](crate::Conn::answer_within)), the
            /// socket stays open. In base mode the worker has the socket: while a callback blocks, the
            /// socket stays open past the deadline, unless `callback_limit` kills the worker. Default: 5
            /// seconds.
            close_deadline: Option<Duration> = Some(Duration::from_secs(5)), as "seconds_or_never";
            (deadline: Option<Duration>) => deadline;

            /// How long a server that is shut down, or a worker that is replaced, may take to finish its
            /// work. Connections that are left then are closed; the workers have up to 3 more seconds for
            /// their last callbacks and to leave, and are killed then. Default: 10 seconds.
            shutdown_deadline: Duration = Duration::from_secs(10), as "seconds";
            (deadline: Duration) => deadline;

            /// The most connections that are open at once: of the server in process mode, of each worker
            /// in base mode. Further clients wait in the kernel. Default: 65,536, or as many as the limit
            /// of open files allows.
            max_connections: Option<usize> = None;
            (connections: usize) => Some(connections);

            /// The most connections of one client address that are open at once, 1 to 4,194,304: of the server
            /// in process mode, of each worker in base mode, where the workers do not know of each other's.
            /// Further connections from there are reset as soon as they are accepted. An IPv6 client counts by
            /// its first 64 bits, since a subscriber has as many addresses as it likes below them; see
            /// [`Listener::address_prefix`](crate::Listener::address_prefix). Clients of unix sockets count by their
            /// users. Default: no limit.
            max_connections_per_address: Option<usize> = None;
            (connections: usize) => Some(connections);

            /// A file for the pid of the process that handles signals (the master, in base mode the
            /// manager). It is written atomically, and removed at the end if it is still this server's. A file
            /// that names another process which runs is refused, and so is anything but a regular file.
            /// Default: no file.
            pid_file: Option<PathBuf> = None;
            (path: impl Into<PathBuf>) => Some(path.into());

            /// The name of the server in the titles of its processes, for `ps` and `pkill -f`:
            /// `tine[NAME] worker#0: ` and the command line. 1 to 64 letters, digits, `.`, `_`, `-` and `:`.
            /// Default: the first port that it listens on, or the name of the first unix socket.
            name: Option<String> = None;
            (name: impl Into<String>) => Some(name.into());

            /// A process, by pid, with which the server ends: by force, as after a second SIGINT. It need not be
            /// the parent of the calling process, and each of its threads may end before. Default: none.
            die_with: Option<u32> = None;
            (pid: u32) => Some(pid);

            /// Tells the supervisor of the service, systemd(1) or another one that sets `NOTIFY_SOCKET`, when the server
            /// is ready, reloads and stops, and that it is well if `WATCHDOG_USEC` asks for that, by sd_notify(3).
            /// The variables are taken out of the environment, so that nothing that a worker starts speaks in the
            /// server's name. Without them, nothing happens. Default: true.
            notify: bool = true;
            (notify: bool) => notify;

            /// The most bytes of a poisonous message that the log shows, on one line, 0 to 65,536: a message
            /// is poisonous when it has used up its attempts. With 0 the log has its length alone. Default:
            /// 256.
            poison_shown: usize = 256;
            (bytes: usize) => bytes;

            /// How many times the callback for a post is run, if its worker dies in it or it returns an error, before the
            /// post is dropped and logged: 1 to 255. Default: 3. See [`Context::post`](crate::Context::post).
            post_attempts: u8 = 3;
            (attempts: u8) => attempts;

            /// The number of task workers, in process mode: they have the seats behind those of `workers`, and run
            /// [`Handler::task`](crate::Handler::task) for what callbacks queue by
            /// [`Context::task`](crate::Context::task), and nothing for clients. Together with `workers` at most 511.
            /// Base mode refuses any but 0. Default: 0.
            task_workers: usize = 0;
            (workers: usize) => workers;

            /// How many times a task is run, if its worker dies in it or it returns an error, before it is given up: 1 to
            /// 255. See [`Server::on_task_failed`](crate::Server::on_task_failed). Default: 3.
            task_attempts: u8 = 3;
            (attempts: u8) => attempts;

            /// The most tasks that wait or run, delayed ones included, 1 to 16,777,216. Beyond it,
            /// [`Context::task`](crate::Context::task) fails. Default: 65,536.
            task_queue: usize = 1 << 16;
            (tasks: usize) => tasks;

            /// The most bytes of the tasks that wait or run: each counts 256 bytes more than it has. At most half of
            /// `memory_budget`. Default: a quarter of `memory_budget`.
            task_queue_bytes: Option<usize> = None;
            (bytes: usize) => Some(bytes);

            /// High-water mark: reading from a connection pauses while more than this many of its bytes
            /// are unsent, and resumes at half of it. Default: 1 MiB.
            output_high_water: usize = 1 << 20;
            (bytes: usize) => bytes;

            /// The most unsent bytes of a connection: one with more is closed as a slow reader. Also the
            /// most bytes that one callback can send: each call of `send` counts 64 bytes more than it
            /// sends, and a call with more than 128 KiB counts as several. Default: the high-water mark
            /// plus the size of an inbox and of the longest message, so that a client gets all answers that are in flight
            /// when its reading pauses; at least 16 MiB, where the default of `memory_budget` has room for it.
            output_limit: Option<usize> = None;
            (bytes: usize) => Some(bytes);

            /// The most bytes that the process which owns the sockets holds for all its connections:
            /// unsent output, and incomplete messages. Reactors have equal parts of it. Over the budget,
            /// the connections that hold most are closed. The output of one callback of each worker,
            /// while it is being committed, does not count. At least `output_limit` (and `max_message`,
            /// unless raw) for each reactor. Default: twice that, at least 256 MiB; but no more than a quarter of the memory
            /// that the server may use (the limits of its cgroups and of its address space, RAM; in base mode a
            /// quarter for all workers together), unless the least is more: then the log warns.
            memory_budget: Option<usize> = None;
            (bytes: usize) => Some(bytes);
        }
    };
}
pub(crate) use with_settings;

macro_rules! define_settings {
    ($(
        $(#[doc = $doc:literal])*
        $name:ident: $kind:ty = $default:expr $(, as $with:literal)?;
        ($argument:ident: $given:ty) => $value:expr;
    )*) => {
        /// The settings of a server as plain data, to be kept or read from a file. A [`Server`](crate::Server) is
        /// made of them, and sets each by a method of the same name; the rest of this documentation names these
        /// methods. Callbacks are not among the settings: the server alone has them.
        ///
        /// With the feature `serde` they can be read from a file: times are seconds, policies and
        /// protocols are their texts, and a setting that is missing there has its default.
        ///
        /// ```
        /// use tine::{OnCrash, Server, Settings};
        ///
        /// let mut settings = Settings::default();
        /// settings.listen.push("127.0.0.1:9501".into());
        /// settings.workers = 4;
        /// settings.on_crash = OnCrash::Redeliver { attempts: 3 };
        /// let server = Server::from(settings);
        /// ```
        #[derive(Clone, PartialEq, Debug)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
        #[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
        #[non_exhaustive]
        pub struct Settings {
            /// The listeners. Default, if it is empty: a raw listener on 127.0.0.1:9501.
            pub listen: Vec<Listener>,
            $(
                $(#[doc = $doc])*
                $(#[cfg_attr(feature = "serde", serde(with = $with))])?
                pub $name: $kind,
            )*
        }

        impl Default for Settings {
            fn default() -> Settings {
                Settings {
                    listen: Vec::new(),
                    $($name: $default,)*
                }
            }
        }
    };
}

with_settings!(define_settings);

impl Settings {
    /// Checks the settings as [`Server::run`](crate::Server::run) does, and starts nothing. Host names are looked up.
    ///
    /// # Errors
    /// [`ErrorKind::Setting`](crate::ErrorKind::Setting), with the name of the setting and what is allowed.
    pub fn check(&self) -> Result<(), Error> {
        self.clone().validate(Deciders::default()).map(|_| ())
    }
}

pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get())
}

#[cfg(feature = "serde")]
use super::serial::{seconds, seconds_if_any, seconds_or_never, text};
