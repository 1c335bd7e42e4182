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

/// A seat, as one reactor sees it.
pub(crate) struct Seat {
    pub(crate) link: ReactorLink,
    words: Shared<SeatWords>,
    bell: Doorbell,
    ringer: Ringer,
    /// Frames were submitted since the bell was last seen to.
    unrung: bool,
    /// Connections that wait for room, in the order in which they asked.
    waiting: VecDeque<ConnId>,
    /// Where the length of what the link held was last accounted for.
    pub(crate) accounted: usize,
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
            accounted: 0,
        }
    }

    fn has_turn(&self, len: usize) -> bool {
        !self.waiting.is_empty() && self.link.room(len).is_some()
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

    /// Whether somebody waits for a seat that has room, `longest` bytes of it.
    pub(crate) fn has_turns(&self, longest: usize) -> bool {
        self.0.iter().any(|seat| seat.has_turn(longest))
    }

    /// Touches those who wait for a seat that has room: as many as it may do for, if each of them
    /// takes `longest` bytes. Those who are left have their turn when these have taken theirs.
    pub(crate) fn give_turns(&mut self, io: &mut Connections, longest: usize) {
        for seat in &mut self.0 {
            let mut taken = longest;
            while seat.has_turn(taken) {
                let Some(id) = seat.waiting.pop_front() else {
                    break;
                };
                if let Some(conn) = io.get_mut(id) {
                    conn.waiting = false;
                    io.touch(id);
                    taken += longest;
                }
            }
        }
    }

    /// How many frames are with workers.
    pub(crate) fn in_flight(&self) -> usize {
        self.0.iter().map(|seat| seat.link.in_flight()).sum()
    }
}

impl Deliver for Seats {
    fn room(&mut self, seat: u16, len: usize) -> Option<Room<'_>> {
        self.seat(seat).link.room(len)
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
    ) -> Option<Step> {
        let seat = self.seat(seat);
        seat.link.room(body.len())?;
        seat.link.submit_copy(input, body);
        seat.unrung = true;
        Some(Step::Submitted)
    }

    fn wait(&mut self, io: &mut Connections, seat: u16, conn: ConnId) {
        let waiting = &mut self.seat(seat).waiting;
        if waiting.len() == waiting.capacity() {
            // Clients that come to a stuck seat and go again must not leave a trace each.
            waiting.retain(|id| io.get_mut(*id).is_some());
        }
        waiting.push_back(conn);
    }
}
