//! Promises: the answer to a message comes from a later callback.
//!
//! Its one rule: a promise ends. The first output to the connection keeps it; at its deadline, the reply that the
//! callback has named takes the place of the answer. Until then the next messages of the connection wait, so that
//! answers are in the order of their messages.

use super::{Flow, Next};
use crate::config::MOST_PROMISE;
use crate::conn_id::ConnId;
use crate::handler::CloseReason;
use crate::ipc::memory::SharedBytes;
use crate::net::assigned::{PROMISE_BYTES, Promise};
use crate::net::connection::Step;

impl Flow {
    /// The answer of this connection comes within this many milliseconds, or is the reply.
    pub(super) fn promise(&mut self, id: ConnId, within: u64, reply: SharedBytes<'_>) {
        let within = within.min(MOST_PROMISE.as_millis() as u64);
        // The clock shows whole milliseconds: one more, so that none is missing.
        let at = self
            .look_at_clock()
            .saturating_add(within)
            .saturating_add(1);
        let Some(conn) = self.table.get_mut(id) else {
            return;
        };
        // After a FIN of the peer its earlier messages are still answered, also when `close` is behind them in an inbox.
        if !conn.is_open() || matches!(conn.work.close, Step::Done | Step::Abandoned) {
            return;
        }
        let mut bytes = Vec::with_capacity(reply.len());
        reply.append_to(&mut bytes);
        let reply: Box<[u8]> = bytes.into();
        self.kept += PROMISE_BYTES + reply.len();
        if let Some(before) = conn.work.set_promise(Some(Promise { at, reply })) {
            self.kept -= PROMISE_BYTES + before.reply.len();
        }
        self.silence.set_earlier(id, at);
        self.table.touch(id);
    }

    /// Output goes to the connection, or it ends: there is nothing to wait for.
    pub(super) fn end_promise(&mut self, id: ConnId) {
        let Some(conn) = self.table.get_mut(id) else {
            return;
        };
        if conn.work.awaits_answer
            && let Some(promise) = conn.work.set_promise(None)
        {
            // Its next message has waited for this answer, and not for a worker.
            conn.work.waits_since = 0;
            self.kept -= PROMISE_BYTES + promise.reply.len();
            self.table.touch(id);
        }
    }

    /// No callback has kept the promise in time, or the one that should have has failed: the reply takes its place, and the
    /// connection is closed.
    pub(crate) fn break_promise(&mut self, id: ConnId, reason: CloseReason) {
        let conn = self.table.get_mut(id);
        let promise = conn.and_then(|conn| conn.work.set_promise(None));
        if let Some(promise) = promise {
            self.kept -= PROMISE_BYTES + promise.reply.len();
            if !promise.reply.is_empty() {
                self.send(id, SharedBytes::of(&promise.reply));
            }
            self.close(id, reason);
        }
    }

    /// Continues unless the connection waits for its answer.
    pub(super) fn if_answered(&self, id: ConnId) -> Next {
        match self.awaits_answer(id) {
            true => Next::Break(()),
            false => Next::Continue(()),
        }
    }

    /// Whether the connection waits for its answer from a later callback.
    pub(crate) fn awaits_answer(&self, id: ConnId) -> bool {
        let conn = self.table.get(id);
        conn.is_some_and(|conn| conn.work.awaits_answer)
    }
}
