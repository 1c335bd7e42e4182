//! The role of each process of the server, for log lines and `ps`.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::sys::{process, title};

/// The role of a process in the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Role {
    /// No server has started in this process.
    Starting,
    /// The master, which owns the sockets in process mode.
    Master,
    /// The manager, which forks and restarts the workers; in base mode it owns the listeners.
    Manager,
    /// A standby worker, which is ready and has no seat yet.
    Standby,
    /// The worker in this seat, which runs callbacks.
    Worker(usize),
}

/// 0 to 3 are the first four roles; a worker is 4 plus its seat.
static ROLE: AtomicU32 = AtomicU32::new(0);

impl Role {
    /// Returns the role of the calling process, for a logger to call at every line. It is set right after
    /// the fork, and once more when a standby worker takes a seat.
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
        let title = format!("tine[{}] {self}", server_name());
        if let Err(error) = title::set(&title) {
            log::debug!("the command line does not show the title {title:?}: {error}");
        }
    }

    /// Returns the role of a worker with or without a seat.
    pub(crate) fn of_worker(seat: Option<usize>) -> Role {
        seat.map_or(Role::Standby, Role::Worker)
    }
}

/// The name of the server, for the titles of its processes.
static SERVER: Mutex<String> = Mutex::new(String::new());

fn server_name() -> String {
    SERVER
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone()
}

/// While it exists, processes of this server carry its name.
pub(crate) struct Named(());

/// Gives the server a name, before its first process takes a role.
pub(crate) fn name_server(name: &str) -> Named {
    name.clone_into(&mut SERVER.lock().unwrap_or_else(PoisonError::into_inner));
    Named(())
}

impl Drop for Named {
    fn drop(&mut self) {
        if let Err(error) = title::restore() {
            log::debug!("cannot restore the command line: {error}");
        }
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
