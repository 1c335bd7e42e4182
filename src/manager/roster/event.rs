//! The roster's interface: the events that it takes, and the effects that it asks for.

use super::line::Line;
use crate::control::{News, NoteSet};
use crate::error::Error;
use crate::manager::exit::WorkerExit;
use crate::sys::process::ExitStatus;

/// A fact that the manager reports to the roster.
#[derive(Debug)]
pub(crate) enum Event {
    /// The manager has started.
    Started,
    /// The fork that was asked for has worked.
    Forked { slot: usize, pid: i32 },
    /// The fork that was asked for has failed.
    ForkFailed { slot: usize, error: Error },
    /// The worker in this slot has written notes.
    Noted { slot: usize, notes: NoteSet },
    /// waitpid(2) has returned for the worker in this slot, and these notes were left in its pipe.
    /// [`Event::Exited`] follows.
    NotesAtExit { slot: usize, notes: NoteSet },
    /// The worker in this slot is dead.
    Exited { slot: usize, exit: ExitStatus },
    /// Time has passed; a deadline may be due.
    TimePassed,
    /// SIGUSR1, the master or a callback asks for every worker to be replaced.
    ReloadRequested,
    /// The server is about to end: empty seats are filled now, so that messages for them are handled.
    RefillRequested,
    /// Every worker is to be asked to leave.
    StopRequested,
    /// Every worker is to be killed at once.
    KillRequested,
    /// This incarnation is to be killed: it broke the protocol, or a callback ran over its limit.
    Condemned { slot: usize, generation: u32 },
    /// The worker in this slot has more private memory than its limit.
    TooLarge { slot: usize, bytes: u64, limit: u64 },
}

/// An action for the manager's loop, to be carried out in order.
#[derive(Debug)]
pub(crate) enum Effect {
    /// Fork a worker. [`Event::Forked`] or [`Event::ForkFailed`] answers before the next effect.
    Fork {
        slot: usize,
        /// `None` for a standby worker.
        seat: Option<usize>,
        generation: u32,
    },
    /// Send SIGKILL.
    Kill {
        slot: usize,
    },
    /// Ask this incarnation to finish its frame and to leave.
    AskToLeave {
        slot: usize,
        generation: u32,
    },
    /// Tell a standby worker or a successor which seat it has.
    AssignSeat {
        slot: usize,
        seat: usize,
    },
    /// Ring the doorbell of a slot.
    Wake {
        slot: usize,
    },
    /// Tell all workers, and the listeners of base mode, that the whole server stops.
    AnnounceStop,
    /// Send the master this news.
    Tell(News),
    /// Call the user's `on_start`.
    CallAllReady,
    /// Call the user's `on_worker_exit`.
    CallWorkerExit(WorkerExit),
    Log(Line),
    /// End supervision.
    End(Verdict),
}

/// Why supervision ends with an error.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// A worker of a starting server exited before it was ready.
    CannotStart(WorkerExit),
    /// Every seat has been in back-off for longer than `fail_on_crash_loop`.
    CrashLoop,
    /// A worker of a starting server could not be forked.
    CannotFork(Error),
}
