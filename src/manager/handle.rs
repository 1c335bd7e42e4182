//! A worker process as its parent sees it.

use std::fmt;
use std::time::{Duration, Instant};

use super::backoff::Life;
use super::life::State;
use super::watchdog::Watch;
use crate::control::Note;
use crate::role::Role;
use crate::sys::pipe::{Received, Receiver};
use crate::sys::process::{ExitStatus, ProcessId};

/// One incarnation.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) pid: ProcessId,
    pub(crate) generation: u32,
    pub(crate) state: State,
    pub(crate) born: Instant,
    /// The pipe of its notes, until its end.
    pub(crate) notes: Option<Receiver>,
    /// That end was seen.
    pub(super) is_mute: bool,
    /// When it got ready; of one that stood by, when it got its seat.
    pub(crate) ready_at: Option<Instant>,
    pub(crate) served: bool,
    pub(crate) left: bool,
    /// It has asked for another one in its place.
    pub(crate) wants_to_go: bool,
    /// When a seat that it was given must be its own.
    pub(crate) seated_by: Option<Instant>,
    /// When the time to leave, or to get ready, is over.
    pub(crate) deadline: Option<Instant>,
    /// What the watchdog knows of the callback that it is in.
    pub(super) watch: Option<Watch>,
    /// How it ended, once it has.
    pub(crate) exit: Option<ExitStatus>,
}

impl Handle {
    pub(crate) fn new(pid: ProcessId, generation: u32, notes: Receiver) -> Handle {
        Handle {
            pid,
            generation,
            state: State::Starting,
            born: Instant::now(),
            notes: Some(notes),
            is_mute: false,
            ready_at: None,
            served: false,
            left: false,
            wants_to_go: false,
            seated_by: None,
            deadline: None,
            watch: None,
            exit: None,
        }
    }

    /// Reads what it has told, a bounded part of it: who goes wild in there keeps nobody from the
    /// others. What concerns the process alone is remembered; the rest is returned, each note once.
    pub(crate) fn hear(&mut self) -> Vec<Note> {
        let mut bytes = [0; 256];
        let heard = match self.notes.as_mut().map(|pipe| pipe.receive(&mut bytes)) {
            Some(Ok(Received::Bytes(n))) => &bytes[..n],
            Some(Ok(Received::Nothing)) | None => &[],
            // Its process is about to be reaped: that is where it is dealt with.
            Some(Ok(Received::End) | Err(_)) => {
                self.is_mute = true;
                &[]
            }
        };
        let has = |note: &Note| heard.contains(&(*note as u8));
        let news: Vec<Note> = Note::ALL.into_iter().filter(has).collect();
        for note in &news {
            match note {
                Note::Ready => self.ready_at = self.ready_at.or(Some(Instant::now())),
                Note::Served => self.served = true,
                Note::Left => self.left = true,
                Note::Replace => self.wants_to_go = true,
                Note::Seated => self.seated_by = None,
                Note::StopServer | Note::ReloadServer => {}
            }
        }
        news
    }

    /// It has a seat from now on, after it stood by, and so long for `seated`.
    pub(crate) fn take_seat(&mut self, patience: Duration) {
        let now = Instant::now();
        // To have waited for long is no merit.
        self.ready_at = Some(now);
        self.seated_by = Some(now + patience);
    }

    /// When the next of its deadlines passes.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadline.into_iter().chain(self.seated_by).min()
    }

    /// What it has made of its life, and how old it grew in service.
    pub(crate) fn life(&self) -> (Life, Duration) {
        let age = self
            .ready_at
            .map_or(Duration::ZERO, |ready| ready.elapsed());
        match (self.left, self.served) {
            (true, _) => (Life::Complete, age),
            (false, true) => (Life::Served, age),
            (false, false) => (Life::Idle, age),
        }
    }
}

/// How a worker ended, as the log shows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct WorkerExit {
    pub(crate) seat: Option<usize>,
    pub(crate) pid: i32,
    pub(crate) exit: ExitStatus,
    pub(crate) is_abnormal: bool,
}

impl WorkerExit {
    /// Whether it ended although it was not asked to, or otherwise than it was asked to: by a signal,
    /// with another exit status than 0, or by an `exit` in a callback.
    pub fn is_abnormal(&self) -> bool {
        self.is_abnormal
    }

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
}

impl fmt::Display for WorkerExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (role, pid) = (Role::of_worker(self.seat), self.pid);
        let (status, signal) = (self.status(), self.signal());
        let how = if self.is_abnormal {
            "abnormal exit"
        } else {
            "exit"
        };
        write!(
            f,
            "{role}[pid={pid}] {how}, status={status}, signal={signal}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_reads_as_everyone_knows_it() {
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
}
