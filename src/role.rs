//! Which of the server's processes this is, for log lines and `ps`.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::sys::process;

/// A process's part in the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Role {
    /// No server has started in this process.
    Starting,
    /// It owns the sockets, in process mode.
    Master,
    /// It forks the workers and restarts them; in base mode it owns the listeners.
    Manager,
    /// It is a worker that is ready and has no seat yet.
    Standby,
    /// It runs the callbacks: the worker in this seat.
    Worker(usize),
}

/// 0 to 3 are the first four roles; a worker is its seat and 4.
static ROLE: AtomicU32 = AtomicU32::new(0);

impl Role {
    /// The role of the calling process. Set right after its fork, so that a logger can ask at every
    /// line, and once more when a worker that stood by takes a seat.
    pub fn current() -> Role {
        match ROLE.load(Ordering::Relaxed) {
            0 => Role::Starting,
            1 => Role::Master,
            2 => Role::Manager,
            3 => Role::Standby,
            worker => Role::Worker(worker as usize - 4),
        }
    }

    pub(crate) fn take(self) {
        let code = match self {
            Role::Starting => 0,
            Role::Master => 1,
            Role::Manager => 2,
            Role::Standby => 3,
            Role::Worker(seat) => seat as u32 + 4,
        };
        ROLE.store(code, Ordering::Relaxed);
        process::set_name(&format!("tine {self}"));
    }

    /// Of a worker, by the seat that it has or has not.
    pub(crate) fn of_worker(seat: Option<usize>) -> Role {
        seat.map_or(Role::Standby, Role::Worker)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Role::Starting => f.write_str("tine"),
            Role::Master => f.write_str("master"),
            Role::Manager => f.write_str("manager"),
            Role::Standby => f.write_str("standby"),
            Role::Worker(seat) => write!(f, "worker#{seat}"),
        }
    }
}
