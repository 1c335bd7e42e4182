//! A worker process as its parent sees it.

use std::fmt;
use std::time::Instant;

use super::life::State;
use crate::sys::pipe::{Received, Receiver};
use crate::sys::process::{ExitStatus, ProcessId};

/// One incarnation.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) pid: ProcessId,
    pub(crate) generation: u32,
    pub(crate) state: State,
    pub(crate) born: Instant,
    /// The pipe of its ready byte, until that or its end has come.
    pub(crate) ready: Option<Receiver>,
    /// When the time to leave, or to get ready, is over.
    pub(crate) deadline: Option<Instant>,
    /// How it ended, once it has.
    pub(crate) exit: Option<ExitStatus>,
}

impl Handle {
    /// Looks at the pipe: whether the ready byte has come.
    pub(crate) fn has_become_ready(&mut self) -> bool {
        let Some(pipe) = &mut self.ready else {
            return false;
        };
        match pipe.receive(&mut [0; 16]) {
            Ok(Received::Nothing) => false,
            Ok(Received::Bytes(_)) => {
                self.ready = None;
                true
            }
            // The process is about to be reaped: that is where it is dealt with.
            Ok(Received::End) | Err(_) => {
                self.ready = None;
                false
            }
        }
    }
}

/// How a worker ended, as the log shows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WorkerExit {
    pub(crate) seat: usize,
    pub(crate) pid: i32,
    pub(crate) exit: ExitStatus,
}

impl WorkerExit {
    /// The worker's seat: the N of `worker#N`.
    pub fn seat(&self) -> usize {
        self.seat
    }

    /// The process that ended.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Its exit status, 0 if a signal ended it.
    pub fn status(&self) -> i32 {
        match self.exit {
            ExitStatus::Code(code) => code,
            ExitStatus::Signal(_) => 0,
        }
    }

    /// The signal that ended it, or 0.
    pub fn signal(&self) -> i32 {
        match self.exit {
            ExitStatus::Code(_) => 0,
            ExitStatus::Signal(signal) => signal,
        }
    }
}

impl fmt::Display for WorkerExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seat, pid, status, signal) = (self.seat, self.pid, self.status(), self.signal());
        write!(
            f,
            "worker#{seat}[pid={pid}] abnormal exit, status={status}, signal={signal}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_reads_as_everyone_knows_it() {
        let exit = WorkerExit {
            seat: 0,
            pid: 26286,
            exit: ExitStatus::Code(255),
        };
        assert_eq!(
            exit.to_string(),
            "worker#0[pid=26286] abnormal exit, status=255, signal=0"
        );
        let exit = WorkerExit {
            seat: 3,
            pid: 7,
            exit: ExitStatus::Signal(9),
        };
        assert_eq!(
            exit.to_string(),
            "worker#3[pid=7] abnormal exit, status=0, signal=9"
        );
    }
}
