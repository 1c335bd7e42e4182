//! Asking a running server. Runs in any process of the same user, or of root.

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use super::{Head, Owed, Packet, SlotStatus, Status, WorkerStatus, name_of};
use crate::sys::local::LocalSocket;

/// Why a server has not answered.
#[derive(Debug)]
#[non_exhaustive]
pub enum AskError {
    /// No server answers there: it is none, or built without the feature `status`, or in another
    /// network or pid namespace, or it did not get its name.
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
                "process {pid} does not answer: it is no tine server, one without the feature `status`, or in another pid or network namespace"
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
    let mut heard = Heard::default();
    hear(pid, patience, &mut heard)?;
    if let Some(manager) = heard.manager
        && let Err(error) = hear(manager, patience, &mut heard)
    {
        log::debug!("{error}");
        heard.is_partial = true;
    }
    heard.put_together(pid).ok_or(AskError::NotUnderstood(pid))
}

/// What has been said so far.
#[derive(Default)]
struct Heard {
    /// Of who was asked first.
    head: Option<Head>,
    /// Of a master alone.
    manager: Option<i32>,
    /// How many reactors have not answered.
    missing: usize,
    workers: Vec<WorkerStatus>,
    slots: Vec<SlotStatus>,
    owed: Vec<Owed>,
    more_owed: usize,
    is_partial: bool,
}

impl Heard {
    fn add(&mut self, packet: Packet) {
        match packet {
            Packet::Master {
                head,
                manager,
                reactors,
            } => {
                self.head.get_or_insert(head);
                (self.manager, self.missing) = (Some(manager), reactors);
            }
            Packet::Manager { head, mut workers } => {
                self.head.get_or_insert(head);
                workers.iter_mut().for_each(make_printable);
                self.workers = workers;
            }
            Packet::Reactor { slots, owed, more } => {
                self.missing = self.missing.saturating_sub(1);
                self.slots.extend(slots);
                self.owed.extend(owed.into_iter().map(|owed| Owed {
                    conn: printable(&owed.conn),
                    ..owed
                }));
                self.more_owed = self.more_owed.saturating_add(more);
            }
        }
    }

    fn put_together(self, pid: i32) -> Option<Status> {
        let head = self.head?;
        let (mut workers, mut owed) = (self.workers, self.owed);
        for worker in &mut workers {
            complete(worker, &self.slots);
        }
        owed.sort_by_key(|owed| std::cmp::Reverse(owed.since));
        Some(Status {
            version: head.version,
            mode: head.mode,
            addresses: head.addresses,
            pid,
            manager: self.manager.unwrap_or(pid),
            workers,
            owed,
            more_owed: self.more_owed,
            is_partial: self.is_partial || self.missing > 0,
        })
    }
}

/// Whoever has bound the name may have answered: what it says is for a terminal, perhaps root's, and
/// must not steer it.
fn printable(text: &str) -> String {
    let escaped = text.chars().flat_map(|c| {
        let (plain, escaped) = match c.is_control() {
            true => (None, Some(c.escape_default())),
            false => (Some(c), None),
        };
        plain.into_iter().chain(escaped.into_iter().flatten())
    });
    escaped.collect()
}

fn make_printable(worker: &mut WorkerStatus) {
    worker.role = printable(&worker.role);
    if let Some(callback) = &mut worker.callback {
        callback.kind = printable(&callback.kind);
        callback.conn = printable(&callback.conn);
    }
}

/// Adds what the reactors know of a worker.
fn complete(worker: &mut WorkerStatus, slots: &[SlotStatus]) {
    let is_its = |it: &&SlotStatus| it.generation == worker.generation;
    for known in slots.iter().filter(is_its) {
        worker.waiting = worker.waiting.saturating_add(known.waiting);
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
fn hear(pid: i32, patience: Duration, heard: &mut Heard) -> Result<(), AskError> {
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
    let mut has_spoken = false;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        match socket.receive(&mut buffer, left) {
            Ok(Some(packet)) => {
                let packet = serde_json::from_slice(packet);
                heard.add(packet.map_err(|_| AskError::NotUnderstood(pid))?);
                has_spoken = true;
                if left.is_zero() {
                    // It talks without end.
                    heard.is_partial = true;
                    return Ok(());
                }
            }
            Ok(None) if has_spoken => return Ok(()),
            Ok(None) => return Err(AskError::Silent(pid)),
            Err(error) => match error.kind() {
                io::ErrorKind::Interrupted => {}
                io::ErrorKind::WouldBlock if has_spoken => {
                    heard.is_partial = true;
                    return Ok(());
                }
                // Or it has let go of us before we were through.
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
    fn what_is_said_can_not_steer_a_terminal() {
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
            owed: Vec::new(),
            more: usize::MAX,
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
        };
        Packet::Manager {
            head: Head::new(Mode::Process, &[]),
            workers: vec![worker],
        }
    }

    fn all(packets: impl IntoIterator<Item = Packet>) -> Option<Status> {
        let mut heard = Heard::default();
        packets.into_iter().for_each(|packet| heard.add(packet));
        heard.put_together(7)
    }

    #[test]
    fn an_answer_without_one_reactor_is_partial() {
        let whole = all([master(2), reactor(7, 0), reactor(7, 0), manager()]);
        assert!(!whole.expect("an answer").is_partial);
        let partial = all([master(2), reactor(7, 0), manager()]);
        assert!(partial.expect("an answer").is_partial);
    }

    #[test]
    fn what_reactors_know_of_a_worker_is_not_said_of_the_next_one_in_its_slot() {
        let status = all([master(2), reactor(7, 2), reactor(7, 3), manager()]).expect("an answer");
        let worker = &status.workers[0];
        assert_eq!(worker.waiting, 5);
        let peer = Peer::Ip(([127, 0, 0, 1], 4444).into());
        assert_eq!(
            worker.doing(peer),
            "it is in `receive` of another connection, from 127.0.0.1:5555, for at least 9.0 s, \
             and 5 messages wait behind it"
        );
        let status = all([master(1), reactor(6, 2), manager()]).expect("an answer");
        let worker = &status.workers[0];
        let callback = worker.callback.as_ref().expect("a callback");
        assert_eq!((worker.waiting, callback.at_least.as_secs()), (0, 1));
    }

    #[test]
    fn absurd_numbers_are_no_panic() {
        let reactors = (0..3).map(|_| reactor(7, usize::MAX));
        let status = all([master(0), manager()].into_iter().chain(reactors)).expect("an answer");
        assert_eq!(status.more_owed, usize::MAX);
        assert!(all([reactor(7, 0)]).is_none());
    }
}
