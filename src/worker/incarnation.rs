//! What a new worker process is born with.

use crate::control::Notes;
use crate::sys::pipe::Receiver;
use crate::sys::process::ProcessId;

/// A new worker process, before it has run anything of the user's.
pub(crate) struct Incarnation {
    /// The memory that it works with.
    pub(crate) slot: usize,
    /// `None` for one that stands by.
    pub(crate) seat: Option<usize>,
    pub(crate) generation: u32,
    /// What it tells the manager goes here.
    pub(crate) notes: Notes,
    /// End-of-file here says that the manager is dead.
    pub(crate) manager: Receiver,
    /// The manager.
    pub(crate) parent: ProcessId,
}

/// What a worker process runs; it returns the exit status.
pub(crate) type Body<'a> = Box<dyn FnOnce(Incarnation) -> i32 + 'a>;
