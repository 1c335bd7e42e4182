//! The one error type, which names the operation, its object, the cause and the remedy; and the result
//! type of callbacks.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::sys::address::Address;
use crate::sys::process::ExitStatus;

/// The result of a callback, and of any code that a callback calls: it takes every error type.
pub type Result<T = (), E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// Why a server could not start, or had to end. Its text names the operation that failed, the cause and
/// the remedy.
///
/// ```
/// use tine::{ErrorKind, Server, receive_fn};
///
/// let server = Server::new().workers(0);
/// let error = server.run(|_| receive_fn(|_, _, _| Ok(()))).unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Setting);
/// assert_eq!(error.setting(), Some("workers"));
/// assert_eq!(error.to_string(), "setting workers: 0 is not between 1 and 511");
/// assert_eq!(format!("{error:?}"), error.to_string());
/// ```
pub struct Error {
    problem: Problem,
}

/// As [`Display`](fmt::Display): a `main` that returns the error prints it by this, as the only line that its
/// user gets.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The kind of an [`Error`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A setting has an invalid value: [`Error::setting`] names it.
    Setting,
    /// The calling process has more than one thread. A fork copies the calling thread alone: locks that
    /// other threads hold, the allocator's for example, would never be released in the workers.
    Threads,
    /// A listener could not be opened.
    Listen,
    /// The limit of open files (RLIMIT_NOFILE) is too low and can't be raised that far.
    OpenFiles,
    /// The memory that the processes share could not be mapped.
    SharedMemory,
    /// The pid file could not be written, or there is another file that must not be replaced.
    PidFile,
    /// A worker exited before it was ready, while the server was starting.
    WorkerStart,
    /// For the time that [`Server::fail_on_crash_loop`](crate::Server::fail_on_crash_loop) sets,
    /// every worker has died young, before its first callback.
    CrashLoop,
    /// The manager process ended unexpectedly. Its workers died with it.
    ManagerExited,
    /// Another system call failed.
    System,
}

impl Error {
    /// Returns the kind of the problem.
    pub fn kind(&self) -> ErrorKind {
        match &self.problem {
            Problem::Setting { .. } => ErrorKind::Setting,
            Problem::Threads(_) => ErrorKind::Threads,
            Problem::Listen { .. } | Problem::Inherit { .. } => ErrorKind::Listen,
            Problem::OpenFiles { .. } => ErrorKind::OpenFiles,
            Problem::SharedMemory { .. } => ErrorKind::SharedMemory,
            Problem::PidFile { .. } | Problem::PidFileTaken { .. } => ErrorKind::PidFile,
            Problem::WorkerStart { .. } => ErrorKind::WorkerStart,
            Problem::CrashLoop => ErrorKind::CrashLoop,
            Problem::ManagerExited => ErrorKind::ManagerExited,
            Problem::System { .. } => ErrorKind::System,
        }
    }

    /// Returns the name of the invalid setting, as in [`Settings`](crate::Settings) and
    /// [`Server`](crate::Server); `None` for other kinds.
    pub fn setting(&self) -> Option<&str> {
        match &self.problem {
            Problem::Setting { name, .. } => Some(name),
            _ => None,
        }
    }

    /// Adds the name of the listener that the setting belongs to.
    pub(crate) fn about_listener(mut self, listener: &str) -> Error {
        if let Problem::Setting { problem, .. } = &mut self.problem {
            problem.push_str(&format!(" (listener {listener})"));
        }
        self
    }

    /// For `map_err`: an error of a system call, with the operation that it was part of.
    pub(crate) fn system(operation: &'static str) -> impl FnOnce(io::Error) -> Error {
        move |source| Problem::System { operation, source }.into()
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Error {
        Error { problem }
    }
}

/// The content of an [`Error`].
#[derive(Debug)]
pub(crate) enum Problem {
    Setting {
        name: &'static str,
        problem: String,
    },
    /// The number of threads in the process.
    Threads(usize),
    Listen {
        /// The listener's name.
        listener: String,
        address: Address,
        source: io::Error,
    },
    Inherit {
        /// The listener's name.
        listener: String,
        descriptor: i32,
        source: io::Error,
    },
    OpenFiles {
        /// Descriptors needed by one process of the server.
        needed: u64,
        /// Those of them that are needed for any number of connections.
        fixed: u64,
        allowed: u64,
    },
    SharedMemory {
        /// Bytes of address space asked for.
        bytes: u64,
        source: io::Error,
    },
    PidFile {
        path: PathBuf,
        source: io::Error,
    },
    PidFileTaken {
        path: PathBuf,
        /// What is there, and the remedy.
        problem: String,
    },
    WorkerStart {
        seat: usize,
        /// Its exit status, 0 if a signal ended it.
        status: i32,
        /// The signal that ended it, or 0.
        signal: i32,
    },
    CrashLoop,
    ManagerExited,
    System {
        operation: &'static str,
        source: io::Error,
    },
}

const CRASH_LOOP: &str = "every worker dies before its first callback, again and again: the log says how each one \
    ended; no process is left running";
const MANAGER_EXITED: &str = "the manager process exited unexpectedly, and the workers with it: the log has its exit status or the signal that ended \
     it; no process is left running";

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.problem {
            Problem::Setting { name, problem } => write!(f, "setting {name}: {problem}"),
            Problem::Threads(threads) => write!(
                f,
                "this process has {threads} threads, and a server forks: a worker would have the forking thread alone, and the \
                 locks of the others would never be released there; start the server before any thread"
            ),
            Problem::Listen {
                listener,
                address,
                source,
            } => not_bound(f, listener, address, source),
            Problem::Inherit {
                listener,
                descriptor,
                source,
            } => not_inherited(f, listener, *descriptor, source),
            Problem::OpenFiles {
                needed,
                fixed,
                allowed,
            } => {
                let missing = needed - allowed;
                let advice = open_files_advice(*fixed, *allowed);
                write!(
                    f,
                    "{needed} open files are needed, the limit is {allowed}, {missing} too few: {advice}"
                )
            }
            Problem::SharedMemory { bytes, source } => shared_memory(f, *bytes, source),
            Problem::PidFile { path, source } => {
                write!(
                    f,
                    "cannot write the pid file {}: {source}; its folder must exist, and be writable for this user",
                    path.display()
                )
            }
            Problem::PidFileTaken { path, problem } => {
                write!(f, "the pid file {} {problem}", path.display())
            }
            Problem::WorkerStart {
                seat,
                status,
                signal,
            } => {
                let exit = exit_status(*status, *signal);
                write!(
                    f,
                    "worker#{seat} could not start ({exit}): see its log lines above, if any; no process is left running"
                )
            }
            Problem::CrashLoop => f.write_str(CRASH_LOOP),
            Problem::ManagerExited => f.write_str(MANAGER_EXITED),
            Problem::System { operation, source } => {
                write!(f, "cannot {operation}: {source}{}", shortage(source))
            }
        }
    }
}

fn not_bound(
    f: &mut fmt::Formatter<'_>,
    listener: &str,
    address: &Address,
    source: &io::Error,
) -> fmt::Result {
    let (name, advice) = (unlike(listener, address), advice(address, source));
    write!(f, "cannot listen on {address}{name}: {source}{advice}")
}

fn not_inherited(
    f: &mut fmt::Formatter<'_>,
    listener: &str,
    descriptor: i32,
    source: &io::Error,
) -> fmt::Result {
    let advice = match source.raw_os_error() {
        Some(libc::EBADF) => "; the program that starts the server has to leave it open",
        _ => "",
    };
    write!(
        f,
        "cannot take descriptor {descriptor} for listener {listener}: {source}{advice}"
    )
}

/// Fewer connections need fewer descriptors, down to those that any number of them needs.
fn open_files_advice(fixed: u64, allowed: u64) -> String {
    const RAISE: &str = "raise the hard limit (ulimit -Hn, LimitNOFILE=)";
    match allowed < fixed {
        true => format!(
            "{RAISE}; {fixed} are needed for any max_connections, a part of them for workers, reactors and listeners"
        ),
        false => format!("{RAISE} or lower max_connections"),
    }
}

/// Writes why the memory of `bytes` could not be had, with the remedy.
fn shared_memory(f: &mut fmt::Formatter<'_>, bytes: u64, source: &io::Error) -> fmt::Result {
    let mib = bytes.div_ceil(1 << 20);
    if source.raw_os_error() == Some(libc::EFBIG) {
        return write!(
            f,
            "cannot make the memory of {mib} MiB that master and workers share: {source}; the limit of file sizes counts for it \
             too: raise it (ulimit -f, LimitFSIZE=)"
        );
    }
    write!(
        f,
        "cannot map {mib} MiB of memory for the rings between master and workers: {source}; use fewer workers or reactors, a \
         smaller max_message, or raise the limit of address space (ulimit -v)"
    )
}

/// Returns the listener's name in parentheses, unless it is its address.
fn unlike(listener: &str, address: &Address) -> String {
    match listener == address.to_string() {
        true => String::new(),
        false => format!(" (listener {listener})"),
    }
}

fn exit_status(status: i32, signal: i32) -> ExitStatus {
    match signal {
        0 => ExitStatus::Code(status),
        signal => ExitStatus::Signal(signal),
    }
}

fn advice(address: &Address, error: &io::Error) -> &'static str {
    let is_unix = address.ip().is_none();
    match error.kind() {
        io::ErrorKind::AddrInUse if is_unix => {
            "; another process has this name: stop it first, or use another name"
        }
        io::ErrorKind::PermissionDenied if is_unix => "; its folder must be writable for this user",
        io::ErrorKind::NotFound if is_unix => "; its folder must exist",
        io::ErrorKind::AddrNotAvailable if is_unix => "",
        io::ErrorKind::AddrInUse => {
            "; another socket has this port, of a listener or of a client (see ss -tanp), or the address was named twice; \
             use another port"
        }
        io::ErrorKind::PermissionDenied => "; ports below 1024 need root or CAP_NET_BIND_SERVICE",
        io::ErrorKind::AddrNotAvailable => {
            "; no interface of this machine has that address (see ip addr)"
        }
        _ => "",
    }
}

/// The remedy for a system call that failed because a resource is used up.
fn shortage(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EAGAIN) => {
            "; the limit of processes is reached: raise it (ulimit -u, TasksMax=, pids.max)"
        }
        Some(libc::EMFILE | libc::ENFILE) => {
            "; the limit of open files is reached: raise it (ulimit -n, LimitNOFILE=, fs.file-max)"
        }
        Some(libc::ENOMEM) => {
            "; the kernel has no memory for it: free some, or raise the limit (MemoryMax=, memory.max)"
        }
        Some(libc::ENOSPC) => {
            "; the limit of epoll watches is reached: raise fs.epoll.max_user_watches"
        }
        _ => "",
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.problem {
            Problem::Listen { source, .. }
            | Problem::Inherit { source, .. }
            | Problem::SharedMemory { source, .. }
            | Problem::PidFile { source, .. }
            | Problem::System { source, .. } => Some(source),
            Problem::Setting { .. }
            | Problem::Threads(_)
            | Problem::PidFileTaken { .. }
            | Problem::OpenFiles { .. }
            | Problem::WorkerStart { .. }
            | Problem::CrashLoop
            | Problem::ManagerExited => None,
        }
    }
}
