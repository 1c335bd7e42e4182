//! The log lines that the roster asks for. An operator greps them: each names the worker, what happened
//! to it, and what follows.

use std::fmt;
use std::time::Duration;

use log::Level;

use crate::error::Error;
use crate::manager::exit::WorkerExit;
use crate::role::Role;
use crate::words::Count;

/// The name of a worker in log lines: `worker#0[pid=7]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Name {
    seat: Option<usize>,
    pid: i32,
}

impl Name {
    pub(crate) fn new(seat: Option<usize>, pid: i32) -> Name {
        Name { seat, pid }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[pid={}]", Role::of_worker(self.seat), self.pid)
    }
}

/// A line of the log.
#[derive(Debug)]
pub(crate) enum Line {
    Ready(Name),
    AbnormalExit {
        exit: WorkerExit,
        /// The manager has sent SIGKILL.
        was_killed: bool,
    },
    CannotFork {
        seat: Option<usize>,
        error: Error,
        /// `None` for a successor: the line about its reload follows.
        retried_in: Option<Duration>,
    },
    /// There are always enough slots: a bug.
    NoSlot {
        seat: Option<usize>,
    },
    /// Not ready after this time.
    NotReady {
        worker: Name,
        after: Duration,
    },
    /// Still running this long after it was asked to leave.
    NotGone {
        worker: Name,
        after: Duration,
    },
    /// It was given a seat, and the handler's `seated` has not returned in time.
    NotSeated(Name),
    KeepsDying {
        seat: usize,
        pause: Duration,
    },
    Reload(ReloadLine),
    TooLarge {
        worker: Name,
        bytes: u64,
        limit: u64,
    },
    MuchTooLarge {
        worker: Name,
        bytes: u64,
        limit: u64,
    },
}

/// A line about the replacement of workers.
#[derive(Debug)]
pub(crate) enum ReloadLine {
    Started {
        workers: usize,
    },
    Refused,
    Finished,
    Failed {
        seat: usize,
        /// The number of workers that were not replaced.
        left: usize,
    },
    /// A single worker was to be replaced: it asked for that, or is too large.
    NotReplaced {
        seat: usize,
    },
}

impl Line {
    pub(crate) fn level(&self) -> Level {
        match self {
            Line::Ready(_) => Level::Debug,
            Line::Reload(ReloadLine::Started { .. } | ReloadLine::Finished) => Level::Info,
            Line::AbnormalExit { .. }
            | Line::NotReady { .. }
            | Line::NotGone { .. }
            | Line::NotSeated(_)
            | Line::KeepsDying { .. }
            | Line::Reload(ReloadLine::Refused)
            | Line::TooLarge { .. }
            | Line::MuchTooLarge { .. } => Level::Warn,
            Line::CannotFork { .. }
            | Line::NoSlot { .. }
            | Line::Reload(ReloadLine::Failed { .. } | ReloadLine::NotReplaced { .. }) => {
                Level::Error
            }
        }
    }
}

/// Bytes as mebibytes, rounded up.
fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Line::Ready(worker) => write!(f, "{worker} is ready"),
            Line::AbnormalExit { exit, .. } => write!(f, "{exit}"),
            Line::CannotFork {
                seat,
                error,
                retried_in,
            } => {
                write!(f, "{}: {error}", Role::of_worker(*seat))?;
                match retried_in {
                    Some(pause) => write!(f, "; next try in {pause:?}"),
                    None => Ok(()),
                }
            }
            Line::NoSlot { seat } => {
                let worker = Role::of_worker(*seat);
                write!(f, "no slot is free for {worker}: this is a bug in tine")
            }
            Line::NotReady { worker, after } => {
                write!(f, "{worker} was not ready within {after:.1?}: killed")
            }
            Line::NotGone { worker, after } => {
                write!(f, "{worker} did not leave within {after:?}: killed")
            }
            Line::NotSeated(worker) => {
                write!(
                    f,
                    "{worker} did not return from its seated callback in time: killed"
                )
            }
            Line::KeepsDying { seat, pause } => write!(
                f,
                "worker#{seat} keeps dying before its first callback: the next one starts in {pause:?}"
            ),
            Line::Reload(line) => write!(f, "{line}"),
            Line::TooLarge {
                worker,
                bytes,
                limit,
            } => write!(
                f,
                "{worker} has {} MiB of memory, over worker_memory ({} MiB): it is replaced",
                mib(*bytes),
                mib(*limit)
            ),
            Line::MuchTooLarge {
                worker,
                bytes,
                limit,
            } => write!(
                f,
                "{worker} has {} MiB of memory, more than twice worker_memory ({} MiB): killed",
                mib(*bytes),
                mib(*limit)
            ),
        }
    }
}

impl fmt::Display for ReloadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReloadLine::Started { workers } => {
                let workers = Count(*workers, "worker");
                write!(f, "reloading {workers}, one at a time")
            }
            ReloadLine::Refused => {
                f.write_str("reload refused: the server is starting or stopping")
            }
            ReloadLine::Finished => f.write_str("reload finished"),
            ReloadLine::Failed { seat, left } => write!(
                f,
                "reload failed: the new worker#{seat} did not start, {} {}; fix the cause and reload again",
                Count(*left, "old worker"),
                if *left == 1 { "stays" } else { "stay" }
            ),
            ReloadLine::NotReplaced { seat } => write!(
                f,
                "worker#{seat} could not be replaced: the new one did not start; the old one stays, and another try follows"
            ),
        }
    }
}
