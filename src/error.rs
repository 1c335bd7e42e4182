//! The one error type: which operation, on what, why, and what to do about it.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why a server could not start, or why it had to end.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// A setting has a value that can't be.
    Setting {
        /// The setting, by its name in the builder.
        name: &'static str,
        /// What is wrong with the value, and what is allowed.
        problem: String,
    },
    /// The calling process has so many threads. A fork copies only the thread that forks: locks
    /// that the others hold, of the allocator for example, would stay held in every worker for
    /// good.
    Threads(usize),
    /// A listener could not be opened.
    Listen {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// The limit of open files (RLIMIT_NOFILE) is too low and can't be raised that far.
    OpenFiles {
        /// Descriptors needed by one process of the server.
        needed: u64,
        /// Descriptors allowed.
        allowed: u64,
    },
    /// The memory shared by the processes could not be had.
    Arena {
        /// Bytes of address space asked for.
        bytes: u64,
        /// What the kernel said.
        source: io::Error,
    },
    /// The pid file could not be written.
    PidFile {
        /// Where it should be.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A worker ended before it was ready, while the server was starting.
    WorkerStart {
        /// The worker's seat: the N of `worker#N`.
        seat: usize,
        /// Its exit status, 0 if a signal ended it.
        status: i32,
        /// The signal that ended it, or 0.
        signal: i32,
    },
    /// For as long as [`Server::fail_on_crash_loop`](crate::Server::fail_on_crash_loop) says, every
    /// worker has died young without having served anybody.
    CrashLoop,
    /// The manager process ended although nobody asked it to. Its workers died with it.
    ManagerDied,
    /// Another system call failed.
    System {
        /// What the server was doing.
        operation: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl Error {
    /// For `map_err`: names the operation.
    pub(crate) fn system(operation: &'static str) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::System { operation, source }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Setting { name, problem } => write!(f, "setting {name}: {problem}"),
            Error::Threads(threads) => write!(
                f,
                "this process has {threads} threads, and a server forks: only the forking thread would exist in a worker, \
                 with the locks of the others held for good; start the server before any thread"
            ),
            Error::Listen { address, source } => {
                write!(f, "cannot listen on {address}: {source}{}", advice(source))
            }
            Error::OpenFiles { needed, allowed } => write!(
                f,
                "{needed} open files are needed and {allowed} are allowed, {} too few: raise the hard limit (ulimit -Hn, \
                 LimitNOFILE=) or lower max-connections",
                needed - allowed
            ),
            Error::Arena { bytes, source } => write!(
                f,
                "cannot map {} MiB of memory for the rings between master and workers: {source}; use fewer workers or \
                 reactors, a smaller max-message, or raise the limit of address space (ulimit -v)",
                bytes.div_ceil(1 << 20)
            ),
            Error::PidFile { path, source } => {
                write!(f, "cannot write the pid file {}: {source}", path.display())
            }
            Error::WorkerStart {
                seat,
                status,
                signal,
            } => write!(
                f,
                "worker#{seat} could not start (status={status}, signal={signal}): its own log line says why; nothing is \
                 left running"
            ),
            Error::CrashLoop => write!(
                f,
                "every worker keeps dying before it has served anybody: the log says how they ended; nothing is left running"
            ),
            Error::ManagerDied => write!(
                f,
                "the manager process ended unasked, and the workers with it: start the server again"
            ),
            Error::System { operation, source } => write!(f, "cannot {operation}: {source}"),
        }
    }
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "; another process listens there (see ss -ltnp), or use another port"
        }
        io::ErrorKind::PermissionDenied => "; ports below 1024 need root or CAP_NET_BIND_SERVICE",
        io::ErrorKind::AddrNotAvailable => {
            "; no interface of this machine has that address (see ip addr)"
        }
        _ => "",
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Listen { source, .. }
            | Error::Arena { source, .. }
            | Error::PidFile { source, .. }
            | Error::System { source, .. } => Some(source),
            Error::Setting { .. }
            | Error::Threads(_)
            | Error::OpenFiles { .. }
            | Error::WorkerStart { .. }
            | Error::CrashLoop
            | Error::ManagerDied => None,
        }
    }
}
