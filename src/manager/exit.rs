//! How a worker process ended, as the log and the user's callback are told.

use std::fmt;

use super::roster::Name;
use crate::sys::process::ExitStatus;

/// How a worker process ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WorkerExit {
    pub(super) seat: Option<usize>,
    pub(super) pid: i32,
    pub(super) exit: ExitStatus,
    pub(super) is_abnormal: bool,
}

impl WorkerExit {
    /// The worker's seat: the N of `worker#N`; `None` for one that stood by.
    pub fn seat(&self) -> Option<usize> {
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

    /// Whether the worker ended in any other way than this one: it was asked to leave, left in order,
    /// and exited with status 0. The log has a line for each abnormal exit.
    pub fn is_abnormal(&self) -> bool {
        self.is_abnormal
    }
}

impl fmt::Display for WorkerExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Name::new(self.seat, self.pid);
        let abnormal = if self.is_abnormal { "abnormal " } else { "" };
        let (status, signal) = (self.status(), self.signal());
        write!(f, "{name} {abnormal}exit, status={status}, signal={signal}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_abnormal_exit_reads_as_it_always_has() {
        let exit = WorkerExit {
            seat: Some(0),
            pid: 26286,
            exit: ExitStatus::Code(255),
            is_abnormal: true,
        };
        assert_eq!(
            exit.to_string(),
            "worker#0[pid=26286] abnormal exit, status=255, signal=0"
        );
        let exit = WorkerExit {
            seat: Some(3),
            pid: 7,
            exit: ExitStatus::Signal(9),
            is_abnormal: true,
        };
        assert_eq!(
            exit.to_string(),
            "worker#3[pid=7] abnormal exit, status=0, signal=9"
        );
    }

    #[test]
    fn the_exit_of_a_worker_that_left_in_order_is_not_called_abnormal() {
        let exit = WorkerExit {
            seat: None,
            pid: 7,
            exit: ExitStatus::Code(0),
            is_abnormal: false,
        };
        assert_eq!(exit.to_string(), "standby[pid=7] exit, status=0, signal=0");
    }
}
