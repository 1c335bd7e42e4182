//! What the pipeline asks of whoever takes a connection's events to a worker: in process mode the links
//! ([`crate::master::seats`]), in base mode the handler itself ([`crate::worker::base`]).

use std::ops::RangeInclusive;

use crate::conn_id::ConnId;
use crate::ipc::frame;
use crate::ipc::memory::Room;
use crate::net::connection::{Connection, Step};
use crate::net::connections::Connections;

/// Where a connection's next frame goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// To this seat, as soon as there is room.
    Seat(u16),
    /// To another worker than its last frames, when those are done: the callbacks of a connection
    /// run one at a time.
    WhenQuiet,
    /// To any seat that takes it: none does now.
    Nowhere,
}

/// Whoever takes a connection's events to a worker.
///
/// Where others wait for the same seat, only a connection that has had its turn (`turn`) gets room.
pub(crate) trait Deliver {
    /// Where the next frame of a connection goes, with a body of `len` bytes at most; `message` is
    /// the body, if it is known already.
    fn place(&self, conn: &Connection, message: Option<&[u8]>, len: usize) -> Place;

    /// Whether `place` wants to see messages.
    fn looks_at_messages(&self) -> bool;

    /// The slot of whoever has this seat.
    fn slot_of(&self, seat: u16) -> u16;

    /// Memory for the body of the seat's next frame, as much as there is, within the bounds; `None`
    /// while there is less.
    fn room(&mut self, seat: u16, bounds: RangeInclusive<usize>, turn: bool) -> Option<Room<'_>>;

    /// Submits a frame, whose body of `input.len` bytes stands in the room.
    fn submit(&mut self, io: &mut Connections, seat: u16, input: &frame::Input) -> Step;

    /// Submits a frame whose body stands elsewhere; `None` while there is no room for it.
    fn submit_copy(
        &mut self,
        io: &mut Connections,
        seat: u16,
        input: &frame::Input,
        body: &[u8],
        turn: bool,
    ) -> Option<Step>;

    /// Notes that this connection waits for room for `len` bytes, in this seat or in any. It is
    /// touched when its turn comes.
    fn wait(&mut self, io: &mut Connections, seat: Option<u16>, conn: ConnId, len: usize);
}
