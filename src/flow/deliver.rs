//! The flow's interface to the workers: one question, and an answer that carries the right to go on.
//!
//! In process mode the links answer ([`crate::master::seats`]), in base mode the handler itself
//! ([`crate::worker::base`]).

use super::Flow;
use crate::ipc::frame;
use crate::ipc::memory::Room;
use crate::net::connection::Connection;

/// The workers, as the flow sees them.
pub(crate) trait Deliver {
    type Place<'a>: Place
    where
        Self: 'a;

    /// Asks for a place for the connection's next frame.
    ///
    /// A connection that gets [`For::Room`] is queued, and told when it has its turn
    /// ([`Flow::take_turn`]).
    fn offer(&mut self, conn: &mut Connection, want: Want<'_>) -> Offer<Self::Place<'_>>;

    /// A connection came.
    fn opened(&mut self, _conn: &mut Connection) {}

    /// A connection is gone.
    fn gone(&mut self, _conn: &Connection) {}
}

/// The frame that a place is wanted for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Want<'a> {
    /// An event without a body.
    Event,
    /// A message that was read already.
    Message(&'a [u8]),
    /// Bytes that are still in the socket: as many as there is room for, within these bounds.
    Bytes { least: usize, most: usize },
}

impl Want<'_> {
    /// The least room that will do for the body.
    pub(crate) fn least(self) -> usize {
        match self {
            Want::Event => 0,
            Want::Message(message) => message.len(),
            Want::Bytes { least, .. } => least,
        }
    }

    /// The most room that can be used.
    pub(crate) fn most(self) -> usize {
        match self {
            Want::Bytes { most, .. } => most,
            Want::Event | Want::Message(_) => self.least(),
        }
    }
}

/// The answer.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Offer<P> {
    Place(P),
    Wait(For),
}

/// What a connection has to wait for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum For {
    /// Its turn, when there is room.
    Room,
    /// The end of its callbacks that are under way: the next one goes to another worker, and the
    /// callbacks of a connection run one at a time.
    Quiet,
}

/// The right to submit one frame. Dropped without that, it leaves nothing behind.
pub(crate) trait Place: Sized {
    /// Memory for the body, as much as there is, within the bounds that were asked for.
    fn room(&mut self) -> Room<'_>;

    /// Submits a frame, whose body of `input.len` bytes is in the room.
    fn submit(self, flow: &mut Flow, input: &frame::Input) -> Submitted;

    /// Submits a frame, whose body of `input.len` bytes is not in the room yet.
    fn submit_copy(self, flow: &mut Flow, input: &frame::Input, body: &[u8]) -> Submitted;
}

/// Where a frame is that was submitted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Submitted {
    /// With a worker. [`Flow::frame_done`] or [`Flow::frame_returned`] tells of its end.
    InFlight,
    /// Its callback has returned already.
    Done,
}
