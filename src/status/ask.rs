//! Asks a running server for its status, and joins the answers of its processes.
//!
//! Runs in any process of the same user, or of root. Its one rule: an answer takes bounded time,
//! and is made printable, since any process may have taken the server's name.

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use super::{Ended, Head, Packet, Room, SlotStatus, Status, Unclosed, WorkerStatus, name_of};
use crate::printable::printable;
use crate::sys::local::LocalSocket;

/// Why a server has not answered.
#[derive(Debug)]
#[non_exhaustive]
pub enum AskError {
    /// This process takes no status requests: it is no server, was built without the feature `status`,
    /// is in another network or pid namespace, or found its name taken when it started.
    NoServer(i32),
    /// Another process answers in its name.
    Impostor {
        /// The process that was asked.
        asked: i32,
        /// The process that has answered.
        answered: i32,
    },
    /// No answer in time: the process is stopped, or belongs to another user.
    Silent(i32),
    /// The answer is not understood: the server is of another version.
    NotUnderstood(i32),
    /// A system call failed.
    System(io::Error),
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AskError::NoServer(pid) => write!(
                f,
                "process {pid} takes no status requests: it is no tine server, was built without the feature `status`, or is in \
                 another pid or network namespace"
            ),
            AskError::Impostor { asked, answered } => {
                write!(
                    f,
                    "process {answered} answers in the name of process {asked}"
                )
            }
            AskError::Silent(pid) => write!(
                f,
                "process {pid} does not answer: it is stopped, or belongs to another user"
            ),
            AskError::NotUnderstood(pid) => {
                write!(
                    f,
                    "the answer of process {pid} is not understood: its version of tine is not {}",
                    env!("CARGO_PKG_VERSION")
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

/// Asks a server for its status. `pid` is the process to send signals to: the master, in base mode the
/// manager. Waits for at most `patience` for each of the server's two processes.
///
/// # Errors
/// When that process does not answer. When another part of the server does not, the answer is partial
/// ([`Status::is_partial`]).
pub fn ask(pid: i32, patience: Duration) -> Result<Status, AskError> {
    let mut heard = Heard::default();
    hear(pid, patience, &mut heard)?;
    if let Some(manager) = heard.manager
        && let Err(error) = hear(manager, patience, &mut heard)
    {
        log::debug!("the status is partial: {error}");
        heard.is_partial = true;
    }
    heard.join(pid).ok_or(AskError::NotUnderstood(pid))
}

/// The packets that have come so far.
#[derive(Default)]
struct Heard {
    /// Of the process that was asked first.
    head: Option<Head>,
    /// The manager's pid, which a master tells.
    manager: Option<i32>,
    /// The number of reactors that have not answered.
    missing: usize,
    workers: Vec<WorkerStatus>,
    slots: Vec<SlotStatus>,
    unclosed: Vec<Unclosed>,
    more_unclosed: usize,
    ended: Ended,
    room: Option<Room>,
    is_partial: bool,
}

impl Heard {
    fn add(&mut self, packet: Packet) {
        match packet {
            Packet::Master {
                head,
                manager,
                reactors,
                room,
            } => {
                self.head.get_or_insert(head);
                self.room = room;
                (self.manager, self.missing) = (Some(manager), reactors);
            }
            Packet::Manager { head, mut workers } => {
                self.head.get_or_insert(head);
                workers.iter_mut().for_each(make_printable);
                self.workers = workers;
            }
            Packet::Reactor {
                slots,
                unclosed,
                more,
                ended,
            } => {
                self.ended.add(&ended);
                self.missing = self.missing.saturating_sub(1);
                self.slots.extend(slots);
                self.unclosed
                    .extend(unclosed.into_iter().map(|it| Unclosed {
                        conn: printable(&it.conn),
                        ..it
                    }));
                self.more_unclosed = self.more_unclosed.saturating_add(more);
            }
        }
    }

    fn join(self, pid: i32) -> Option<Status> {
        let head = self.head?;
        let (mut workers, mut unclosed) = (self.workers, self.unclosed);
        for worker in &mut workers {
            complete(worker, &self.slots);
        }
        unclosed.sort_by_key(|it| std::cmp::Reverse(it.since));
        Some(Status {
            version: head.version,
            mode: head.mode,
            addresses: head.addresses,
            unix: head.unix.iter().map(|text| printable(text)).collect(),
            pid,
            manager: self.manager.unwrap_or(pid),
            workers,
            unclosed,
            more_unclosed: self.more_unclosed,
            ended: self.ended,
            room: self.room,
            is_partial: self.is_partial || self.missing > 0,
        })
    }
}

fn make_printable(worker: &mut WorkerStatus) {
    worker.role = printable(&worker.role);
    if let Some(callback) = &mut worker.callback {
        callback.kind = printable(&callback.kind);
        callback.conn = printable(&callback.conn);
    }
}

/// Adds the reactors' knowledge of a worker.
fn complete(worker: &mut WorkerStatus, slots: &[SlotStatus]) {
    let is_its = |it: &&SlotStatus| it.generation == worker.generation;
    for known in slots.iter().filter(is_its) {
        worker.waiting = worker.waiting.saturating_add(known.waiting);
        if let (Some(callback), Some(time)) = (&mut worker.callback, known.under_way) {
            callback.at_least = callback.at_least.max(time);
        }
    }
}

/// Connects to a socket of a process by its name.
pub(super) fn connect(pid: i32, name: &str, until: Instant) -> Result<LocalSocket, AskError> {
    loop {
        let error = match LocalSocket::connect(name) {
            Ok(socket) => return Ok(socket),
            Err(error) => error,
        };
        match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => {
                return Err(AskError::NoServer(pid));
            }
            // Its backlog is full of other callers.
            io::ErrorKind::WouldBlock if Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(2));
            }
            io::ErrorKind::WouldBlock => return Err(AskError::Silent(pid)),
            _ => return Err(AskError::System(error)),
        }
    }
}

/// Checks that the other end is the process that was asked: any process may have taken its name.
pub(super) fn verify(socket: &LocalSocket, asked: i32) -> Result<(), AskError> {
    let answered = socket.peer().map_err(AskError::System)?.pid;
    match answered == asked {
        true => Ok(()),
        false => Err(AskError::Impostor { asked, answered }),
    }
}

/// Receives packets from one process until it closes the connection.
fn hear(pid: i32, patience: Duration, heard: &mut Heard) -> Result<(), AskError> {
    let until = Instant::now() + patience;
    let socket = connect(pid, &name_of(pid), until)?;
    verify(&socket, pid)?;
    // No packet is larger: twice the default of net.core.wmem_max.
    let mut buffer = vec![0; 1 << 19];
    let mut has_answered = false;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        match socket.receive(&mut buffer, left) {
            Ok(Some(packet)) => {
                let packet = serde_json::from_slice(packet);
                heard.add(packet.map_err(|_| AskError::NotUnderstood(pid))?);
                has_answered = true;
                if left.is_zero() {
                    // It does not stop sending.
                    heard.is_partial = true;
                    return Ok(());
                }
            }
            Ok(None) if has_answered => return Ok(()),
            Ok(None) => return Err(AskError::Silent(pid)),
            Err(error) => match error.kind() {
                io::ErrorKind::Interrupted => {}
                io::ErrorKind::WouldBlock if has_answered => {
                    heard.is_partial = true;
                    return Ok(());
                }
                // Or it has dropped the connection during the answer.
                io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionReset => {
                    return Err(AskError::Silent(pid));
                }
                _ => return Err(AskError::System(error)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::Peer;

    #[test]
    fn an_answer_cannot_control_the_terminal_that_shows_it() {
        assert_eq!(printable("worker#0"), "worker#0");
        assert_eq!(printable("\x1b[2J\nfine"), "\\u{1b}[2J\\nfine");
    }

    use crate::config::Mode;
    use crate::status::CallbackStatus;

    fn master(reactors: usize) -> Packet {
        Packet::Master {
            head: Head::new(Mode::Process, &[]),
            manager: 8,
            reactors,
            room: Some(Room::new(3, 3)),
        }
    }

    fn reactor(generation: u32, waiting: usize) -> Packet {
        let slot = SlotStatus {
            generation,
            under_way: Some(Duration::from_secs(9)),
            waiting,
        };
        Packet::Reactor {
            slots: vec![slot],
            unclosed: Vec::new(),
            more: usize::MAX,
            ended: Ended {
                idle: u64::MAX,
                ..Ended::default()
            },
        }
    }

    fn manager() -> Packet {
        let callback = CallbackStatus {
            kind: "receive".to_owned(),
            conn: "0:0:1".to_owned(),
            peer: Peer::Ip(([127, 0, 0, 1], 5555).into()),
            at_least: Duration::from_secs(1),
        };
        let worker = WorkerStatus {
            role: "worker#0".to_owned(),
            seat: Some(0),
            generation: 7,
            pid: 9,
            callback: Some(callback),
            waiting: 0,
            room: None,
        };
        Packet::Manager {
            head: Head::new(Mode::Process, &[]),
            workers: vec![worker],
        }
    }

    fn all(packets: impl IntoIterator<Item = Packet>) -> Option<Status> {
        let mut heard = Heard::default();
        packets.into_iter().for_each(|packet| heard.add(packet));
        heard.join(7)
    }

    #[test]
    fn an_answer_without_one_reactor_is_partial() {
        let whole = all([master(2), reactor(7, 0), reactor(7, 0), manager()]);
        let whole = whole.expect("an answer");
        assert!(!whole.is_partial && whole.room.is_some_and(Room::is_used_up));
        let partial = all([master(2), reactor(7, 0), manager()]);
        assert!(partial.expect("an answer").is_partial);
    }

    #[test]
    fn a_reactors_figures_of_a_worker_do_not_count_for_the_next_worker_in_its_slot() {
        let status = all([master(2), reactor(7, 2), reactor(7, 3), manager()]).expect("an answer");
        let worker = &status.workers[0];
        assert_eq!(worker.waiting, 5);
        let peer = Peer::Ip(([127, 0, 0, 1], 4444).into());
        assert_eq!(
            worker.doing(peer),
            "it has been in `receive` of another connection, from 127.0.0.1:5555, for at least 9.0 s, \
             and 5 messages wait behind it"
        );
        let status = all([master(1), reactor(6, 2), manager()]).expect("an answer");
        let worker = &status.workers[0];
        let callback = worker.callback.as_ref().expect("a callback");
        assert_eq!((worker.waiting, callback.at_least.as_secs()), (0, 1));
    }

    #[test]
    fn absurd_numbers_do_not_panic() {
        let reactors = (0..3).map(|_| reactor(7, usize::MAX));
        let status = all([master(0), manager()].into_iter().chain(reactors)).expect("an answer");
        assert_eq!(status.more_unclosed, usize::MAX);
        assert!(all([reactor(7, 0)]).is_none());
    }
}
