//! The flow's interface to the workers: it asks for a place for a frame, and the answer carries the right
//! to submit one.
//!
//! Implemented by the links in process mode ([`crate::master::seats`]), and by the handler in base mode
//! ([`crate::worker::direct`]).

use super::Flow;
use crate::ipc::frame;
use crate::ipc::memory::Room;
use crate::net::connection::Connection;

/// The workers, to which the flow submits frames.
pub(crate) trait Deliver {
    type Place<'a>: Place
    where
        Self: 'a;

    /// Asks for a place for the connection's next frame.
    ///
    /// A connection that gets [`For::Room`] is queued, and has its turn later ([`Flow::take_turn`]).
    fn offer(&mut self, conn: &mut Connection, want: Want<'_>) -> Offer<Self::Place<'_>>;

    /// A connection was opened.
    fn opened(&mut self, _conn: &mut Connection) {}

    /// A connection is gone.
    fn gone(&mut self, _conn: &Connection) {}
}

/// The frame that a place is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Want<'a> {
    /// An event without a body.
    Event,
    /// A message that was read already.
    Message(&'a [u8]),
    /// Bytes that are still in the socket: as many as fit, within these bounds.
    Bytes { least: usize, most: usize },
}

impl Want<'_> {
    /// Whether it is for bytes of the client.
    pub(crate) fn is_input(self) -> bool {
        match self {
            Want::Message(_) | Want::Bytes { .. } => true,
            Want::Event => false,
        }
    }

    /// Returns the least room that the body needs.
    pub(crate) fn least(self) -> usize {
        match self {
            Want::Event => 0,
            Want::Message(message) => message.len(),
            Want::Bytes { least, .. } => least,
        }
    }

    /// Returns the most room that the body can use.
    pub(crate) fn most(self) -> usize {
        match self {
            Want::Bytes { most, .. } => most,
            Want::Event | Want::Message(_) => self.least(),
        }
    }
}

/// The answer to [`Deliver::offer`].
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Offer<P> {
    Place(P),
    Wait(For),
}

/// The reason why a connection has to wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum For {
    /// There is no room: it waits for its turn.
    Room,
    /// Its next callback goes to another worker, and the callbacks of a connection run one at a time: it
    /// waits for the end of those in flight.
    Quiet,
}

/// The right to submit one frame. Dropping it submits nothing.
pub(crate) trait Place: Sized {
    /// Returns memory for the body, as much as is free, within the bounds that were asked for.
    fn room(&mut self) -> Room<'_>;

    /// Submits a frame. Its body of `input.len` bytes was written to the room.
    fn submit(self, flow: &mut Flow, input: &frame::Input) -> Submitted;

    /// Submits a frame, and copies its body of `input.len` bytes to the room.
    fn submit_copy(self, flow: &mut Flow, input: &frame::Input, body: &[u8]) -> Submitted;
}

/// The place of a submitted frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Submitted {
    /// With a worker. [`Flow::frame_done`] or [`Flow::frame_returned`] follows.
    InFlight,
    /// Its callback has returned already.
    Done,
}
