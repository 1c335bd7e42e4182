//! The roster's interface: the events it takes, and the effects it asks for.

use super::line::Line;
use crate::control::{News, NoteSet};
use crate::error::Error;
use crate::manager::exit::WorkerExit;
use crate::sys::process::ExitStatus;

/// A past fact.
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
    LastWords { slot: usize, notes: NoteSet },
    /// The worker in this slot is dead.
    Exited { slot: usize, exit: ExitStatus },
    /// Time has passed; some deadline may be due.
    TimePassed,
    /// A person wants every worker replaced.
    ReloadRequested,
    /// The server is about to end: empty seats are filled now, so that what waits for them is
    /// finished.
    RefillRequested,
    /// Every worker is to leave.
    StopRequested,
    /// Every worker is to end at once.
    KillRequested,
    /// This incarnation is to be killed: it broke the protocol, or a callback ran over its limit.
    Condemned { slot: usize, generation: u32 },
    /// The worker in this slot has more private memory than it may.
    TooLarge { slot: usize, bytes: u64, limit: u64 },
}

/// An order to the manager's loop, to be carried out in turn.
#[derive(Debug)]
pub(crate) enum Effect {
    /// Fork a worker. [`Event::Forked`] or [`Event::ForkFailed`] answers before the next effect.
    Fork {
        slot: usize,
        /// `None` for one that stands by.
        seat: Option<usize>,
        generation: u32,
    },
    /// SIGKILL.
    Kill {
        slot: usize,
    },
    /// Ask this incarnation to finish its frame and leave.
    AskToLeave {
        slot: usize,
        generation: u32,
    },
    /// Tell a worker that stood by or took over which seat it has.
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
    /// Tell the master.
    Tell(News),
    /// Call the user's `on_start`.
    CallAllReady,
    /// Call the user's `on_worker_exit`.
    CallWorkerExit(WorkerExit),
    Log(Line),
    /// End supervision.
    End(Verdict),
}

/// Why supervision can't go on.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// A worker could not start, and so the server can't.
    CannotStart(WorkerExit),
    /// No seat has had a useful worker for too long.
    CrashLoop,
    /// A server that starts needs all its workers.
    CannotFork(Error),
}
