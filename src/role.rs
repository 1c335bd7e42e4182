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
    /// It runs the callbacks: the worker in this seat.
    Worker(usize),
}

/// 0, 1 and 2 are the first three roles; a worker is its seat and 3.
static ROLE: AtomicU32 = AtomicU32::new(0);

impl Role {
    /// The role of the calling process. Set once a process, right after its fork, so that a logger
    /// can ask at every line.
    pub fn current() -> Role {
        match ROLE.load(Ordering::Relaxed) {
            0 => Role::Starting,
            1 => Role::Master,
            2 => Role::Manager,
            worker => Role::Worker(worker as usize - 3),
        }
    }

    pub(crate) fn take(self) {
        let code = match self {
            Role::Starting => 0,
            Role::Master => 1,
            Role::Manager => 2,
            Role::Worker(seat) => seat as u32 + 3,
        };
        ROLE.store(code, Ordering::Relaxed);
        process::set_name(&format!("tine {self}"));
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Role::Starting => f.write_str("tine"),
            Role::Master => f.write_str("master"),
            Role::Manager => f.write_str("manager"),
            Role::Worker(seat) => write!(f, "worker#{seat}"),
        }
    }
}
