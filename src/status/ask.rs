//! Asking a running server. Runs in any process of the same user, or of root.

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use super::{BerthStatus, Owed, Packet, Status, WorkerStatus, name_of};
use crate::sys::local::LocalSocket;

/// Why a server has not answered.
#[derive(Debug)]
#[non_exhaustive]
pub enum AskError {
    /// No server answers there: it is none, or built without the feature `status`, or in another
    /// network namespace.
    Nobody(i32),
    /// Another process answers in its name.
    Impostor {
        /// Who was asked.
        asked: i32,
        /// Who has answered.
        answered: i32,
    },
    /// It said nothing: it is stopped, or belongs to another user.
    Silent(i32),
    /// What it said is not understood: it is of another version.
    NotUnderstood(i32),
    /// A system call failed.
    System(io::Error),
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AskError::Nobody(pid) => write!(
                f,
                "process {pid} does not answer: it is no tine server, or one without the feature `status`"
            ),
            AskError::Impostor { asked, answered } => {
                write!(
                    f,
                    "process {answered} answers in the name of process {asked}"
                )
            }
            AskError::Silent(pid) => write!(
                f,
                "process {pid} says nothing: it is stopped, or another user's"
            ),
            AskError::NotUnderstood(pid) => {
                write!(
                    f,
                    "what process {pid} says is not understood: it is another version"
                )
            }
            AskError::System(error) => write!(f, "cannot ask the server: {error}"),
        }
    }
}

impl std::error::Error for AskError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            AskError::System(error) => Some(error),
            _ => None,
        }
    }
}

/// Asks the server of which `pid` is the process to send signals to (the master, in base mode the
/// manager), and waits at most so long for each of its two processes.
///
/// # Errors
/// When it does not answer at all. When a part of it does not, the rest is the answer
/// ([`Status::is_partial`]).
pub fn ask(pid: i32, patience: Duration) -> Result<Status, AskError> {
    let mut status = Status {
        pid,
        manager: pid,
        workers: Vec::new(),
        owed: Vec::new(),
        more_owed: 0,
        is_partial: false,
    };
    let mut berths = Vec::new();
    hear(pid, patience, &mut status, &mut berths)?;
    if status.manager != pid {
        let manager = status.manager;
        if hear(manager, patience, &mut status, &mut berths).is_err() {
            status.is_partial = true;
        }
    }
    for worker in &mut status.workers {
        complete(worker, &berths);
    }
    let Status { workers, owed, .. } = &mut status;
    for owed in owed.iter_mut() {
        let is_its = |worker: &&WorkerStatus| owed.berth == Some(worker.berth);
        owed.worker = workers.iter().find(is_its).map(|worker| worker.pid);
    }
    owed.sort_by_key(|owed: &Owed| std::cmp::Reverse(owed.since));
    Ok(status)
}

/// Adds what the reactors know of a worker.
fn complete(worker: &mut WorkerStatus, berths: &[BerthStatus]) {
    let is_its = |it: &&BerthStatus| (it.berth, it.generation) == (worker.berth, worker.generation);
    for known in berths.iter().filter(is_its) {
        worker.waiting += known.waiting;
        if let (Some(callback), Some(time)) = (&mut worker.callback, known.under_way) {
            callback.at_least = callback.at_least.max(time);
        }
    }
}

fn connect(pid: i32, until: Instant) -> Result<LocalSocket, AskError> {
    loop {
        let error = match LocalSocket::connect(&name_of(pid)) {
            Ok(socket) => return Ok(socket),
            Err(error) => error,
        };
        match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => {
                return Err(AskError::Nobody(pid));
            }
            // Others are asking.
            io::ErrorKind::WouldBlock if Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(2));
            }
            io::ErrorKind::WouldBlock => return Err(AskError::Silent(pid)),
            _ => return Err(AskError::System(error)),
        }
    }
}

/// Hears one process to its end.
fn hear(
    pid: i32,
    patience: Duration,
    status: &mut Status,
    berths: &mut Vec<BerthStatus>,
) -> Result<(), AskError> {
    let until = Instant::now() + patience;
    let socket = connect(pid, until)?;
    let answered = socket.peer().map_err(AskError::System)?.pid;
    if answered != pid {
        return Err(AskError::Impostor {
            asked: pid,
            answered,
        });
    }
    // As large as any packet: the default of net.core.wmem_max, twice.
    let mut buffer = vec![0; 1 << 19];
    let mut heard = false;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let packet = match socket.receive(&mut buffer, left) {
            Ok(Some(packet)) => packet,
            Ok(None) if heard => return Ok(()),
            Ok(None) => return Err(AskError::Silent(pid)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && heard => {
                status.is_partial = true;
                return Ok(());
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(AskError::Silent(pid));
            }
            // It has let go of us before we were through.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                return Err(AskError::Silent(pid));
            }
            Err(error) => return Err(AskError::System(error)),
        };
        let packet = serde_json::from_slice(packet).map_err(|_| AskError::NotUnderstood(pid))?;
        heard = true;
        match packet {
            Packet::Master { manager } => status.manager = manager,
            Packet::Manager { workers } => status.workers = workers,
            Packet::Reactor {
                berths: known,
                owed,
                more,
            } => {
                berths.extend(known);
                status.owed.extend(owed);
                status.more_owed += more;
            }
        }
    }
}
