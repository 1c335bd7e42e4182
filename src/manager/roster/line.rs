//! The log lines that the roster asks for.

use std::fmt;
use std::time::Duration;

use log::Level;

use crate::error::Error;
use crate::manager::exit::WorkerExit;
use crate::role::Role;

/// A worker as log lines call it: `worker#0[pid=7]`.
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
    /// It was asked to leave this long ago.
    NotGone {
        worker: Name,
        after: Duration,
    },
    /// It was given a seat, and `worker_seated` has not returned.
    NotSeated(Name),
    KeepsDying {
        seat: usize,
        pause: Duration,
    },
    ReloadStarted {
        workers: usize,
    },
    ReloadRefused,
    ReloadFinished,
    ReloadFailed {
        seat: usize,
        /// How many workers have not been replaced.
        left: usize,
    },
    /// It asked for its own replacement.
    NotReplaced {
        seat: usize,
    },
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

impl Line {
    pub(crate) fn level(&self) -> Level {
        match self {
            Line::Ready(_) => Level::Debug,
            Line::ReloadStarted { .. } | Line::ReloadFinished => Level::Info,
            Line::AbnormalExit { .. }
            | Line::NotReady { .. }
            | Line::NotGone { .. }
            | Line::NotSeated(_)
            | Line::KeepsDying { .. }
            | Line::ReloadRefused
            | Line::TooLarge { .. }
            | Line::MuchTooLarge { .. } => Level::Warn,
            Line::CannotFork { .. }
            | Line::NoSlot { .. }
            | Line::ReloadFailed { .. }
            | Line::NotReplaced { .. } => Level::Error,
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
                let worker = Role::of_worker(*seat);
                match retried_in {
                    Some(pause) => write!(f, "{worker}: {error}; next try in {pause:?}"),
                    None => write!(f, "{worker}: {error}"),
                }
            }
            Line::NoSlot { seat } => {
                write!(f, "there is no slot for another {}", Role::of_worker(*seat))
            }
            Line::NotReady { worker, after } => {
                write!(f, "{worker} did not get ready within {after:.1?}: killed")
            }
            Line::NotGone { worker, after } => {
                write!(f, "{worker} did not leave within {after:?}: killed")
            }
            Line::NotSeated(worker) => {
                write!(
                    f,
                    "{worker} did not return from worker_seated in time: killed"
                )
            }
            Line::KeepsDying { seat, pause } => write!(
                f,
                "worker#{seat} keeps dying before its first callback: the next one starts in {pause:?}"
            ),
            Line::ReloadStarted { workers } => {
                write!(f, "reloading {workers} workers, one at a time")
            }
            Line::ReloadRefused => {
                write!(f, "reload refused: the server is starting or stopping")
            }
            Line::ReloadFinished => write!(f, "reload finished"),
            Line::ReloadFailed { seat, left } => write!(
                f,
                "reload failed: the new worker#{seat} did not start, {left} old workers stay; fix that and reload again"
            ),
            Line::NotReplaced { seat } => write!(
                f,
                "worker#{seat} could not be replaced: the new one did not start, the old one stays for now"
            ),
            Line::TooLarge {
                worker,
                bytes,
                limit,
            } => write!(
                f,
                "{worker} has {} MiB of memory, over its limit of {} MiB: it is replaced",
                mib(*bytes),
                mib(*limit)
            ),
            Line::MuchTooLarge {
                worker,
                bytes,
                limit,
            } => write!(
                f,
                "{worker} has {} MiB of memory, more than twice its limit of {} MiB: killed",
                mib(*bytes),
                mib(*limit)
            ),
        }
    }
}
