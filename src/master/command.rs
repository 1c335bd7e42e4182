//! Messages between the threads of the master: to a reactor, and from a reactor to the main thread.
//!
//! Their one rule: nobody waits for an answer.

use std::io;
use std::sync::Arc;

use crossbeam_channel::Sender;

use super::inlet::Posted;
use super::questions::Asked;
use crate::handler::ServerCall;
use crate::ipc::arena::SlotMemory;
use crate::net::acceptor::Accepted;
#[cfg(feature = "status")]
use crate::status::Caller;
use crate::sys::doorbell::Doorbell;

/// A message to a reactor, from the master's main thread or from another reactor.
pub(crate) enum Command {
    /// A connection that another reactor accepted, counted as this one's.
    Adopt(Accepted),
    /// A worker was forked into this slot, with this memory.
    SlotForked {
        slot: usize,
        generation: u32,
        memory: Arc<SlotMemory>,
    },
    /// The worker in this slot is dead: waitpid(2) has returned for it.
    SlotEmptied { slot: usize, generation: u32 },
    /// The worker in this slot now has the seat.
    SeatTaken {
        seat: usize,
        slot: usize,
        generation: u32,
    },
    /// The seat's worker is ready.
    SeatReady { seat: usize },
    /// Start accepting.
    Accept,
    /// Accept the connections that are in the kernel's queues, as far as there is room, and report that.
    StopAccepting,
    /// Finish the open connections, and report when none is left. Sent once no reactor gives connections to
    /// others.
    Drain,
    /// The other reactors are drained. The first one, which has the tasks, reports that after them: a connection of
    /// theirs may have queued a task with its last commit.
    OthersAreDrained,
    /// Close every connection at once, and go on until their last callbacks have returned. Sent after
    /// [`Command::Drain`].
    HangUp,
    /// Close every connection at once, and end the thread.
    Stop,
    /// Answer by [`Report::Pong`].
    Ping,
    /// A thread of the master's process posts to workers.
    Post(Posted),
    /// Answer a question of a worker that another reactor has read.
    Asked(Asked),
    /// Answer a status request.
    #[cfg(feature = "status")]
    Status(Caller),
}

/// A message from a reactor to the master's main thread.
pub(crate) enum Report {
    /// This worker broke the ring protocol.
    ProtocolBroken { slot: usize, generation: u32 },
    /// This new worker can't be watched, so that it is of no use.
    CannotServe { slot: usize, generation: u32 },
    /// After [`Command::StopAccepting`]: from now on it accepts clients that were left in the queues, and for itself
    /// alone.
    StoppedAccepting,
    /// The answer to [`Command::Ping`].
    Pong,
    /// Much memory of the heap may be free, a while after a peak.
    PeakPassed,
    /// The memory of a worker that is dead, to be given back.
    Left(Arc<SlotMemory>),
    /// After [`Command::Drain`]: no connection and no frame is left.
    Drained,
    /// A callback has made this call to the server.
    Called(ServerCall),
    /// The reactor has ended: its epoll failed, or it panicked.
    Failed(io::Error),
}

/// A channel to a thread, with the doorbell that wakes it.
pub(crate) struct Mailbox<T> {
    pub(crate) sender: Sender<T>,
    pub(crate) bell: Doorbell,
}

impl<T> Clone for Mailbox<T> {
    fn clone(&self) -> Self {
        Mailbox {
            sender: self.sender.clone(),
            bell: self.bell.clone(),
        }
    }
}

impl<T> Mailbox<T> {
    /// Sends a message and wakes the receiver. For a receiver that has ended it does nothing.
    pub(crate) fn send(&self, message: T) {
        if self.sender.send(message).is_ok() {
            self.bell.ring();
        }
    }
}
