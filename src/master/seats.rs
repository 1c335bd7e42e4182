//! The other end of *submit* in process mode: one link to each seat, seen from one reactor.

use std::collections::VecDeque;

use crate::id::ConnId;
use crate::ipc::frame;
use crate::ipc::layout::{SeatMemory, SeatWords, Shared};
use crate::ipc::link::ReactorLink;
use crate::ipc::memory::Room;
use crate::ipc::seat::Ringer;
use crate::net::connection::Step;
use crate::net::connections::Connections;
use crate::pipeline::Deliver;
use crate::sys::doorbell::Doorbell;

/// The shortest queue that is swept.
const SWEEP: usize = 64;

/// A seat, as one reactor sees it.
pub(crate) struct Seat {
    pub(crate) link: ReactorLink,
    words: Shared<SeatWords>,
    bell: Doorbell,
    ringer: Ringer,
    /// Frames were submitted since the bell was last seen to.
    unrung: bool,
    /// Connections that wait for room, in the order in which they asked, and for how many bytes.
    waiting: VecDeque<(ConnId, usize)>,
    /// At this length, those that are gone are taken out of the queue.
    sweep_at: usize,
}

impl Seat {
    fn new(memory: &SeatMemory, reactor: usize, budget: usize) -> Seat {
        Seat {
            link: ReactorLink::new(&memory.links[reactor], budget),
            words: memory.words.clone(),
            bell: memory.bell.clone(),
            ringer: Ringer::default(),
            unrung: false,
            waiting: VecDeque::new(),
            sweep_at: SWEEP,
        }
    }

    /// Whether there is room for the one who has waited longest.
    fn has_turn(&self) -> bool {
        self.waiting
            .front()
            .is_some_and(|(_, len)| self.link.room(*len).is_some())
    }

    /// Wakes whoever sits there, whatever it waits for.
    pub(crate) fn wake(&self) {
        self.bell.ring();
    }
}

/// All seats, by number.
pub(crate) struct Seats(pub(crate) Vec<Seat>);

impl Seats {
    pub(crate) fn new(memory: &[SeatMemory], reactor: usize, budget: usize) -> Seats {
        Seats(
            memory
                .iter()
                .map(|memory| Seat::new(memory, reactor, budget))
                .collect(),
        )
    }

    fn seat(&mut self, seat: u16) -> &mut Seat {
        &mut self.0[usize::from(seat)]
    }

    /// Rings for every seat that was given frames and sleeps: once for all of them.
    pub(crate) fn ring(&mut self) {
        for seat in &mut self.0 {
            if std::mem::take(&mut seat.unrung) && seat.ringer.due(&seat.words.sleeper) {
                seat.bell.ring();
            }
        }
    }

    /// Whether somebody waits for a seat that has room.
    pub(crate) fn has_turns(&self) -> bool {
        self.0.iter().any(Seat::has_turn)
    }

    /// The next connection that waits for a seat which has room for what it asked for. First come,
    /// first served: one that asks for much is not overtaken by those who ask for little.
    pub(crate) fn next_turn(&mut self) -> Option<ConnId> {
        let seat = self.0.iter_mut().find(|seat| seat.has_turn())?;
        seat.waiting.pop_front().map(|(id, _)| id)
    }

    /// How many frames are with workers.
    pub(crate) fn in_flight(&self) -> usize {
        self.0.iter().map(|seat| seat.link.in_flight()).sum()
    }
}

impl Deliver for Seats {
    fn room(&mut self, seat: u16, len: usize, turn: bool) -> Option<Room<'_>> {
        let seat = self.seat(seat);
        if turn || seat.waiting.is_empty() {
            seat.link.room(len)
        } else {
            None
        }
    }

    fn submit(&mut self, _: &mut Connections, seat: u16, input: &frame::Input) -> Step {
        let seat = self.seat(seat);
        seat.link.submit(input);
        seat.unrung = true;
        Step::Submitted
    }

    fn submit_copy(
        &mut self,
        _: &mut Connections,
        seat: u16,
        input: &frame::Input,
        body: &[u8],
        turn: bool,
    ) -> Option<Step> {
        self.room(seat, body.len(), turn)?;
        let seat = self.seat(seat);
        seat.link.submit_copy(input, body);
        seat.unrung = true;
        Some(Step::Submitted)
    }

    fn wait(&mut self, io: &mut Connections, seat: u16, conn: ConnId, len: usize) {
        let seat = self.seat(seat);
        if seat.waiting.len() >= seat.sweep_at {
            // Clients that come to a stuck seat and go again must not leave a trace each.
            seat.waiting.retain(|(id, _)| io.get_mut(*id).is_some());
            seat.sweep_at = (seat.waiting.len() * 2).max(SWEEP);
        }
        seat.waiting.push_back((conn, len));
    }
}
