//! How a worker process ended: for the log, and for `on_worker_exit`.

use std::fmt;

use super::roster::Name;
use crate::sys::process::{ExitStatus, Named};

/// How a worker process ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WorkerExit {
    pub(super) seat: Option<usize>,
    pub(super) pid: i32,
    pub(super) exit: ExitStatus,
    pub(super) is_abnormal: bool,
}

impl WorkerExit {
    /// Returns the worker's seat, the N of `worker#N`; `None` for a standby worker.
    pub fn seat(&self) -> Option<usize> {
        self.seat
    }

    /// Returns the pid of the process.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Returns the exit status; 0 if a signal ended the process.
    pub fn status(&self) -> i32 {
        match self.exit {
            ExitStatus::Code(code) => code,
            ExitStatus::Signal(_) => 0,
        }
    }

    /// Returns the signal that ended the process, or 0.
    pub fn signal(&self) -> i32 {
        match self.exit {
            ExitStatus::Code(_) => 0,
            ExitStatus::Signal(signal) => signal,
        }
    }

    /// Whether the exit was abnormal. An exit is normal if the worker was asked to leave, finished its
    /// callback, and exited with status 0. The log has a line for each abnormal exit.
    pub fn is_abnormal(&self) -> bool {
        self.is_abnormal
    }
}

impl fmt::Display for WorkerExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Name::new(self.seat, self.pid);
        let abnormal = if self.is_abnormal { "abnormal " } else { "" };
        let (status, signal) = (self.status(), self.signal());
        let signal_name = Named(signal);
        write!(
            f,
            "{name} {abnormal}exit, status={status}, signal={signal}{signal_name}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_line_of_an_abnormal_exit_keeps_its_form() {
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
            "worker#3[pid=7] abnormal exit, status=0, signal=9 (SIGKILL)"
        );
        let exit = WorkerExit {
            exit: ExitStatus::Signal(libc::SIGRTMIN() + 2),
            ..exit
        };
        assert!(
            exit.to_string().ends_with("signal=36 (SIGRTMIN+2)"),
            "{exit}"
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
