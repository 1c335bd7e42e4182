//! The inheritance of a new worker process.

use crate::conn_id::FIRST_TOKEN;
use crate::control::Notes;
use crate::ipc::arena::SlotFiles;
use crate::sys::epoll::Poller;
use crate::sys::parcel::Channel;
use crate::sys::pipe::Receiver;
use crate::sys::process::ProcessId;

/// A new worker process, before it has run anything of the user's.
pub(crate) struct Incarnation {
    /// The slot that it works in.
    pub(crate) slot: usize,
    /// `None` for a standby worker.
    pub(crate) seat: Option<usize>,
    pub(crate) generation: u32,
    /// Its memory in process mode.
    pub(crate) files: Option<SlotFiles>,
    /// Its epoll, which watches the doorbell that the manager rings, and the master in process mode, with
    /// the token [`BELL`]. The worker does not have that doorbell itself.
    pub(crate) poller: Poller,
    /// Its notes to the manager.
    pub(crate) notes: Notes,
    /// The lifeline: end-of-file means that the manager is dead.
    pub(crate) manager: Receiver,
    /// For connections of other workers, in base mode.
    pub(crate) channel: Option<Channel>,
    /// The pid of the manager.
    pub(crate) parent: ProcessId,
}

/// The token of the doorbell that wakes a worker.
pub(crate) const BELL: u64 = FIRST_TOKEN;

/// The main function of a worker process; it returns the exit status.
pub(crate) type Body<'a> = Box<dyn FnOnce(Incarnation) -> i32 + 'a>;
