//! The other end of *submit* in base mode: the callback runs there and then, and what it sends goes
//! straight to the sockets.
//!
//! Runs in a base mode worker. Its one rule: there is always room, so that no connection ever waits.

use super::callback::Caller;
use crate::conn_id::ConnId;
use crate::flow::Flow;
use crate::flow::deliver::{Deliver, Offer, Place, Submitted, Want};
use crate::handler::{Handler, Output, SendError, Stats, Worker};
use crate::ipc::frame;
use crate::ipc::layout::SlotMemory;
use crate::ipc::link::charge;
use crate::ipc::memory::{Room, SharedBytes};
use crate::net::buffers::Scratch;
use crate::net::connection::Connection;

/// The handler, as the flow delivers frames to it.
pub(super) struct Callbacks<H> {
    pub(super) caller: Caller<H>,
    pub(super) memory: SlotMemory,
    /// The most bytes that one callback may send.
    pub(super) limit: usize,
    /// Raw bytes are read here.
    pub(super) scratch: Scratch,
}

/// The right to one call.
pub(super) struct Call<'a, H> {
    callbacks: &'a mut Callbacks<H>,
    most: usize,
}

impl<H: Handler> Deliver for Callbacks<H> {
    type Place<'a>
        = Call<'a, H>
    where
        H: 'a;

    fn offer(&mut self, _: &mut Connection, want: Want<'_>) -> Offer<Call<'_, H>> {
        Offer::Place(Call {
            most: want.most(),
            callbacks: self,
        })
    }
}

impl<H: Handler> Place for Call<'_, H> {
    fn room(&mut self) -> Room<'_> {
        Room::of(&mut self.callbacks.scratch[..self.most])
    }

    fn submit(self, flow: &mut Flow, input: &frame::Input) -> Submitted {
        let scratch = std::mem::take(&mut self.callbacks.scratch);
        self.callbacks
            .call(flow, input, &scratch[..input.len as usize]);
        self.callbacks.scratch = scratch;
        Submitted::Done
    }

    fn submit_copy(self, flow: &mut Flow, input: &frame::Input, body: &[u8]) -> Submitted {
        self.callbacks.call(flow, input, body);
        Submitted::Done
    }
}

impl<H: Handler> Callbacks<H> {
    fn call(&mut self, flow: &mut Flow, input: &frame::Input, body: &[u8]) {
        let mut output = SocketOutput {
            sent: 0,
            limit: self.limit,
            flow,
            worker: self.caller.worker,
            memory: &self.memory,
        };
        self.caller.call(input, body, &mut output);
    }
}

/// Where a callback's output goes: to the sockets.
struct SocketOutput<'a> {
    /// What this callback has sent, against its limit.
    sent: usize,
    limit: usize,
    flow: &'a mut Flow,
    worker: Worker,
    memory: &'a SlotMemory,
}

impl Output for SocketOutput<'_> {
    fn send(&mut self, conn: ConnId, bytes: &[u8]) -> Result<(), SendError> {
        if conn.owner() != self.flow.owner() {
            return Err(SendError::Elsewhere);
        }
        let (charged, limit) = (self.sent + charge(bytes.len()), self.limit);
        if charged > limit {
            return Err(SendError::TooMuch { limit });
        }
        self.sent = charged;
        self.flow
            .apply(frame::Output::Send(conn), SharedBytes::of(bytes));
        Ok(())
    }

    fn close(&mut self, conn: ConnId) {
        self.flow
            .apply(frame::Output::Close(conn), SharedBytes::of(&[]));
    }

    fn reset(&mut self, conn: ConnId) {
        self.flow
            .apply(frame::Output::Reset(conn), SharedBytes::of(&[]));
    }

    /// A connection stays where it is.
    fn bind(&mut self, _: ConnId, _: u64) {}

    fn flush(&mut self) {
        self.sent = 0;
    }

    fn stats(&self) -> Stats {
        Stats {
            worker: self.worker,
            callbacks: self.memory.words.activity.completed(),
            connections: self.flow.len() as u64,
            accepted: self.flow.accepted(),
            poisoned: 0,
        }
    }
}
