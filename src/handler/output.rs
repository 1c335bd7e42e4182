//! The interface between a callback and the worker that runs it: the callback's output.

use std::cell::RefCell;

use super::{SendError, ServerCall, Stats};
use crate::conn_id::ConnId;

/// A callback's output; there is one implementation for each mode, and one for tests.
pub(crate) trait Output {
    fn send(&mut self, conn: ConnId, bytes: &[u8]) -> Result<(), SendError>;
    fn close(&mut self, conn: ConnId) -> Result<(), SendError>;
    fn reset(&mut self, conn: ConnId) -> Result<(), SendError>;
    fn set_user(&mut self, conn: ConnId, user: u64) -> Result<(), SendError>;
    /// The last state of a callback counts, and is staged once.
    fn set_state(&mut self, conn: ConnId, state: &[u8]) -> Result<(), SendError>;
    fn call_server(&mut self, call: ServerCall);
    fn flush(&mut self);
    fn stats(&self) -> Stats;
    #[cfg(feature = "test-hooks")]
    fn forge(&mut self, _: &Forgery) {}
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
}
