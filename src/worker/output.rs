//! Base mode: from a callback to the sockets of its worker.
//!
//! Its one rule: a callback reaches the connections of its own worker alone.

use super::staged::Staged;
use crate::config::policy::OnCrash;
use crate::conn_id::ConnId;
use crate::event::Event;
use crate::handler::{CloseReason, Output, SendError, ServerCall, Stats};
use crate::ipc::frame;
use crate::ipc::layout::SlotMemory;
use crate::ipc::memory::SharedBytes;
use crate::net::connections::Connections;

/// Where a callback's output goes: to the sockets, when it is committed.
pub(super) struct SocketOutput<'a> {
    pub(super) staged: &'a mut Staged,
    pub(super) message: &'a [u8],
    pub(super) limit: usize,
    pub(super) io: &'a mut Connections,
    pub(super) memory: &'a SlotMemory,
    /// What it has asked of the server, and is committed.
    pub(super) asked: Vec<ServerCall>,
    pub(super) flushed: bool,
}

impl SocketOutput<'_> {
    fn is_own(&self, conn: ConnId) -> Result<(), SendError> {
        match conn.owner() == self.io.owner() {
            true => Ok(()),
            false => Err(SendError::OtherWorker),
        }
    }

    pub(super) fn commit(&mut self) {
        let apply = |output, bytes: &[u8]| self.io.apply(output, SharedBytes::of(bytes));
        self.staged
            .commit(self.message, apply, |call| self.asked.push(call));
    }

    /// The callback has returned an error. It is not run again: base mode refuses that policy.
    pub(super) fn fail(&mut self, event: Event, conn: ConnId, policy: &OnCrash) {
        self.staged.drop_all();
        if event == Event::Close {
            return;
        }
        if let (OnCrash::Reply(reply), false) = (policy, self.flushed) {
            let bytes = SharedBytes::of(reply);
            self.io.apply(frame::Output::Send(conn), bytes);
        }
        self.io.close(conn, CloseReason::Crash);
    }
}

impl Output for SocketOutput<'_> {
    fn send(&mut self, conn: ConnId, bytes: &[u8]) -> Result<(), SendError> {
        self.is_own(conn)?;
        self.staged.send(conn, bytes, self.message, self.limit)
    }

    fn close(&mut self, conn: ConnId) -> Result<(), SendError> {
        self.is_own(conn)?;
        self.staged.push(frame::Output::Close(conn));
        Ok(())
    }

    fn reset(&mut self, conn: ConnId) -> Result<(), SendError> {
        self.is_own(conn)?;
        self.staged.push(frame::Output::Reset(conn));
        Ok(())
    }

    /// A connection stays where it is.
    fn set_user(&mut self, conn: ConnId, _: u64) -> Result<(), SendError> {
        self.is_own(conn)
    }

    fn call_server(&mut self, call: ServerCall) {
        self.staged.push(frame::Output::CallServer(call));
    }

    fn flush(&mut self) {
        self.commit();
        self.flushed = true;
    }

    fn stats(&self) -> Stats {
        Stats {
            callbacks: self.memory.words.activity.completed(),
            connections: self.io.len() as u64,
            accepted: self.io.named(),
            poisoned: 0,
        }
    }
}
