//! The receiving end of *submit* in base mode: the callback runs at once, and its output goes to the
//! sockets when it is committed.
//!
//! Runs in a base mode worker. Its one rule: there is always room, so that no connection waits for it.

use std::sync::Arc;

use super::callback::{Caller, Outcome, is_closed_to};
use super::output::SocketOutput;
use super::staged::Staged;
use crate::config::Config;
use crate::control::Notes;
use crate::flow::Flow;
use crate::flow::deliver::{Deliver, Offer, Place, Submitted, Want};
use crate::handler::{Handler, Session};
use crate::ipc::arena::SlotMemory;
use crate::ipc::frame;
use crate::ipc::memory::Room;
use crate::net::buffers::Scratch;
use crate::net::connection::Connection;

/// The handler, to which the flow delivers frames.
pub(super) struct Callbacks<H> {
    pub(super) caller: Caller<H>,
    pub(super) notes: Notes,
    pub(super) memory: SlotMemory,
    pub(super) config: Arc<Config>,
    /// The buffer that raw bytes are read into.
    pub(super) scratch: Scratch,
    pub(super) staged: Staged,
    /// Of the callback under way.
    pub(super) session: Session,
}

/// The right to run one callback.
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
    /// Runs a callback and commits its output; on an error it applies the crash policy instead.
    fn call(&mut self, flow: &mut Flow, input: &frame::Input, body: &[u8]) {
        let Some(event) = input.kind.event() else {
            return;
        };
        let session = &mut self.session;
        let carried = flow.carried(input.conn);
        session.fill(carried.user, carried.state, carried.groups, carried.origin);
        let mut output = SocketOutput {
            staged: &mut self.staged,
            message: body,
            limit: self.config.output_limit,
            flow,
            memory: &self.memory,
            notes: &self.notes,
            flushed: false,
            seat: self.caller.worker.seat,
            most_kept: self.config.most_kept(),
            kept: 0,
            current: input.conn,
            is_closed: is_closed_to(event, input),
        };
        match self.caller.call(event, input, body, session, &mut output) {
            Outcome::Done => output.commit(),
            Outcome::Failed => output.fail(event, input.conn, &self.config.on_crash),
        }
    }
}
