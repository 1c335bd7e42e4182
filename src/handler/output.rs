//! The interface between a callback and the worker that runs it: the callback's output.

use std::cell::RefCell;
use std::ops::Range;
use std::os::fd::OwnedFd;
#[cfg(feature = "test-hooks")]
use std::sync::Arc;
use std::time::Duration;

use super::{ConnInfo, SendError, ServerCall, Stats, TaskOrder};
use crate::config::{ServerTimer, to_millis};
use crate::conn_id::ConnId;

/// A callback's output; there is one implementation for each mode, and one for tests.
pub(crate) trait Output {
    fn send(&mut self, conn: ConnId, bytes: &[u8]) -> Result<(), SendError>;
    /// Sends a part of a file, which is not empty. The descriptor is the output's.
    fn send_file(
        &mut self,
        conn: ConnId,
        file: OwnedFd,
        range: Range<u64>,
    ) -> Result<(), SendError>;
    fn close(&mut self, conn: ConnId) -> Result<(), SendError>;
    fn reset(&mut self, conn: ConnId) -> Result<(), SendError>;
    fn set_user(&mut self, conn: ConnId, user: u64) -> Result<(), SendError>;
    /// The last state of a callback counts, and is staged once.
    fn set_state(&mut self, conn: ConnId, state: &[u8]) -> Result<(), SendError>;
    fn set_timer(&mut self, conn: ConnId, timer: Timer) -> Result<(), SendError>;
    fn cancel_timer(&mut self, conn: ConnId, tag: u64) -> Result<(), SendError>;
    fn notify_drained(&mut self, conn: ConnId) -> Result<(), SendError>;
    /// The answer comes within this many milliseconds, or is the reply.
    fn promise(&mut self, conn: ConnId, within: u64, reply: &[u8]) -> Result<(), SendError>;
    /// Stops reading from a connection, or reads from it again.
    fn hold(&mut self, conn: ConnId, is_held: bool) -> Result<(), SendError>;
    /// Reserves `bytes` of what the server keeps for its users; fails if that would be over the limit.
    fn claim(&mut self, conn: ConnId, bytes: usize) -> Result<(), SendError>;
    fn post(&mut self, to: To, bytes: &[u8]) -> Result<(), SendError>;
    fn task(&mut self, order: TaskOrder, bytes: &[u8]) -> Result<(), SendError>;
    /// Sets the result of the callback's task.
    fn finish(&mut self, result: &[u8]) -> Result<(), SendError>;
    fn join(&mut self, conn: ConnId, group: &[u8]) -> Result<(), SendError>;
    fn leave(&mut self, conn: ConnId, group: &[u8]) -> Result<(), SendError>;
    fn publish(&mut self, to: Group<'_>, bytes: &[u8]) -> Result<(), SendError>;
    fn group_size(&mut self, group: &[u8]) -> Result<usize, SendError>;
    fn exists(&mut self, conn: ConnId) -> Result<bool, SendError>;
    fn connections(&mut self) -> Result<Vec<ConnInfo>, SendError>;
    fn set_server_timer(&mut self, timer: ServerTimer) -> Result<(), SendError>;
    fn cancel_server_timer(&mut self, tag: u64) -> Result<(), SendError>;
    fn call_server(&mut self, call: ServerCall);
    fn flush(&mut self);
    fn stats(&self) -> Stats;
    #[cfg(feature = "test-hooks")]
    fn forge(&mut self, _: &Forgery) {}
}

/// The workers that get a post: [`Context::post`](super::Context::post).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum To {
    /// The worker that has this seat, from 0: the N of `worker#N`.
    Seat(usize),
    /// Every worker that has a seat, this one included.
    All,
    /// Any worker: the one with the fewest messages to handle, as far as the dispatch counts them.
    LeastBusy,
    /// The worker of this connection, by the time that the post is committed.
    Owner(ConnId),
}

/// A timer that a callback sets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Timer {
    /// The time until it fires, in milliseconds.
    pub(crate) after: u64,
    pub(crate) tag: u64,
}

impl Timer {
    /// Times are rounded up to whole milliseconds, and end before the clock does.
    pub(crate) fn new(after: Duration, tag: u64) -> Timer {
        Timer {
            after: to_millis(after),
            tag,
        }
    }
}

/// The members of a group that get what is published.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Group<'a> {
    /// Not longer than a name can be.
    pub(crate) name: &'a [u8],
    pub(crate) except: Option<ConnId>,
    /// Slow members miss it.
    pub(crate) is_lossy: bool,
}

/// The output that a callback's [`Context`](super::Context) and [`Conn`](super::Conn) share. No borrow of
/// it outlives the method that makes it.
pub(crate) type SharedOutput<'a> = &'a RefCell<&'a mut (dyn Output + 'a)>;

/// Invalid content of an outbox, as a faulty worker writes it.
#[cfg(feature = "test-hooks")]
#[derive(Clone, Debug)]
pub enum Forgery {
    /// These bytes, published as if they were frames.
    Bytes(Vec<u8>),
    /// A published mark at this distance from the true one.
    Mark(i64),
    /// A message for files, with these descriptors, for the link of this number.
    Files(u16, Vec<Arc<OwnedFd>>),
}
