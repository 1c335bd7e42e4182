//! The settings of a server: one table, from which the public struct, its defaults and the builder
//! methods of [`Server`](crate::Server) follow.

use std::path::PathBuf;
use std::time::Duration;

use super::policy::{Dispatch, OnCrash};
use super::{LimitAction, Listener, Mode};

/// Passes the table of settings to a macro. A new setting is an entry here, a check in
/// `Settings::validate`, a flag, and a setter of the C ABI.
///
/// An entry is: doc, name, type, default; how it is serialized, where that is not as its type says;
/// and the builder's argument, with the value that it makes.
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
            /// none: the log warns if it is set there. Default: half the cores, at least 1.
            reactors: Option<usize> = None;
            (reactors: usize) => Some(reactors);

            /// The number of workers that are started beside those that serve, and wait with their
            /// handlers made: the seat of one that dies is handed to them at once. Up to 511.
            /// Default: 0.
            standby: usize = 0;
            (workers: usize) => workers;

            /// Which worker a connection's messages go to, in process mode. Base mode refuses any but
            /// the default: [`Dispatch::LeastConnections`](crate::Dispatch::LeastConnections).
            dispatch: Dispatch = Dispatch::LeastConnections;
            (dispatch: Dispatch) => dispatch;

            /// The fate of the callback under way when its worker dies, and of one that returns an
            /// error. Base mode refuses `Redeliver` and `Keep`. Default:
            /// [`OnCrash::Close`](crate::OnCrash::Close).
            on_crash: OnCrash = OnCrash::Close, as "text";
            (policy: OnCrash) => policy;

            /// How long a callback may run, at least a millisecond. Time for which the worker is
            /// stopped (SIGSTOP, a debugger) or the whole machine sleeps does not count. The log says
            /// where the worker's stack is, for which it is stopped for less than a millisecond.
            /// Default: no limit.
            callback_limit: Option<Duration> = None, as "seconds_if_any";
            (limit: Duration) => Some(limit);

            /// What else happens to a callback that runs longer than `callback_limit`. Default:
            /// [`LimitAction::Warn`](crate::LimitAction::Warn).
            on_limit: LimitAction = LimitAction::Warn;
            (action: LimitAction) => action;

            /// Recycles a worker after this many messages, plus up to 25 % so that workers are not all
            /// recycled at once: one seat at a time, the new worker first. At least 1. Default: never.
            max_requests: Option<u64> = None;
            (messages: u64) => Some(messages);

            /// Recycles a worker that has more than this many bytes of private memory, and kills one
            /// that has twice as many. Looked at once a second. At least 1 MiB. Default: no limit.
            worker_memory: Option<u64> = None;
            (bytes: u64) => Some(bytes);

            /// Ends the server with [`ErrorKind::CrashLoop`](crate::ErrorKind::CrashLoop) when every
            /// seat has been in back-off for this long, because its workers died young without having
            /// served anybody. Default: the server goes on trying.
            fail_on_crash_loop: Option<Duration> = None, as "seconds_if_any";
            (after: Duration) => Some(after);

            /// How long after the peer's FIN, or after the last byte that it took since, the socket is
            /// closed whatever the worker does. `None` is never: the socket may then stay in
            /// CLOSE_WAIT. Default: 5 seconds.
            close_deadline: Option<Duration> = Some(Duration::from_secs(5)), as "seconds_or_never";
            (deadline: Option<Duration>) => deadline;

            /// How long a server that was asked to end, or a worker that is replaced, may take to
            /// finish its work. Default: 10 seconds.
            shutdown_deadline: Duration = Duration::from_secs(10), as "seconds";
            (deadline: Duration) => deadline;

            /// The most connections that are open at once: in process mode in all, in base mode in each
            /// worker. More wait in the kernel. Default: 65,536, or as many as the limit of open files
            /// allows.
            max_connections: Option<usize> = None;
            (connections: usize) => Some(connections);

            /// A file for the pid of the process that takes the signals (the master, in base mode the
            /// manager). It is written whole or not at all, and removed at the end. Default: no file.
            pid_file: Option<PathBuf> = None;
            (path: impl Into<PathBuf>) => Some(path.into());

            /// High-water mark: reading from a connection pauses while more than this many of its bytes
            /// are unsent, and resumes at half of it. Default: 1 MiB.
            output_high_water: usize = 1 << 20;
            (bytes: usize) => bytes;

            /// The most unsent bytes of a connection: one with more is closed as a slow reader. And the
            /// most that one callback can send. Each call of `send` counts 64 bytes besides, and more
            /// than 128 KiB count as several. Default: the high-water mark and what one inbox holds, at
            /// least 16 MiB, so that a client whose reading is paused gets all the answers that are on
            /// their way.
            output_limit: Option<usize> = None;
            (bytes: usize) => Some(bytes);

            /// The most bytes that the process which owns the sockets holds for all its connections:
            /// unsent output, and incomplete messages. Reactors have equal parts of it. Past it, the
            /// connections that hold most are closed. Besides, each worker may have the output of one
            /// callback on its way. At least `output_limit` (and `max_message`, where messages are cut)
            /// for each reactor. Default: twice that, at least 256 MiB.
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
        /// The settings of a server, as plain data. Each is a builder method of
        /// [`Server`](crate::Server) too, by the same name.
        ///
        /// With the feature `serde` they can be read from a file: times are seconds, policies and
        /// protocols are their texts, and what the file does not mention has its default.
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
            /// What the server listens on. Default, where it is empty: a raw listener on
            /// 127.0.0.1:9501.
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

pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get())
}

#[cfg(feature = "serde")]
use super::serial::{seconds, seconds_if_any, seconds_or_never, text};
