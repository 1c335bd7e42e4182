//! The other end of *submit* in process mode: every seat, and a link to each slot, seen from one
//! reactor.
//!
//! A seat is where connections belong; a slot is the memory that one worker works with. Whoever has
//! the seat has it in some slot, and a worker that leaves is still in another one.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::watch::{LOOK, SLOW, Seat, Slot};
use crate::config::Config;
use crate::config::policy::{Dispatch, Dispatcher, Route, RouteFn};
use crate::conn_id::ConnId;
use crate::flow::deliver::{Deliver, Place};
use crate::ipc::frame;
use crate::ipc::layout::SlotMemory;
use crate::ipc::link::Returned;
use crate::ipc::memory::Room;
use crate::net::connection::{Connection, Step, Wait};
use crate::net::connections::Connections;
use crate::net::dispatch::Loads;
#[cfg(feature = "status")]
use crate::status::SlotStatus;

/// The shortest queue that is swept.
const SWEEP: usize = 64;

/// All seats by number, and all slots by number.
pub(crate) struct Seats {
    seats: Vec<Seat>,
    slots: Vec<Slot>,
    /// Connections that wait for any seat to take a frame, where each message is dispatched.
    waiting: Queue,
    dispatcher: Dispatcher,
    loads: Arc<Loads>,
    looked: Instant,
}

/// Connections that wait, in the order in which they asked, and for how many bytes.
pub(super) struct Queue {
    waiting: VecDeque<(ConnId, usize)>,
    /// At this length, those that are gone are taken out.
    sweep_at: usize,
}

impl Queue {
    pub(super) fn new() -> Queue {
        Queue {
            waiting: VecDeque::new(),
            sweep_at: SWEEP,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// How many bytes the one who has waited longest asked for.
    fn first_asks(&self) -> Option<usize> {
        self.waiting.front().map(|(_, len)| *len)
    }

    fn pop(&mut self) -> Option<ConnId> {
        self.waiting.pop_front().map(|(id, _)| id)
    }

    fn push(&mut self, io: &Connections, conn: ConnId, len: usize) {
        if self.waiting.len() >= self.sweep_at {
            // Clients that come to a stuck seat and go again must not leave a trace each.
            self.waiting.retain(|(id, _)| io.get(*id).is_some());
            self.sweep_at = (self.waiting.len() * 2).max(SWEEP);
        }
        self.waiting.push_back((conn, len));
    }

    /// Those who wait and may go need not wait any more: each looks anew where it belongs.
    fn disperse(&mut self, io: &mut Connections, may_go: impl Fn(&Connection) -> bool) {
        self.waiting.retain(|(id, _)| {
            let Some(conn) = io.get_mut(*id) else {
                return false;
            };
            if !may_go(conn) {
                return true;
            }
            conn.wait = Wait::Nothing;
            io.touch(*id);
            false
        });
    }
}

impl Seats {
    pub(crate) fn new(
        memory: &[SlotMemory],
        reactor: usize,
        config: &Config,
        loads: Arc<Loads>,
    ) -> Seats {
        let budget = config.commit_budget();
        Seats {
            seats: (0..config.workers).map(|_| Seat::new()).collect(),
            slots: memory
                .iter()
                .map(|memory| Slot::new(memory, reactor, budget))
                .collect(),
            waiting: Queue::new(),
            dispatcher: config.dispatcher.clone(),
            loads,
            looked: Instant::now(),
        }
    }

    pub(super) fn slot(&mut self, slot: usize) -> &mut Slot {
        &mut self.slots[slot]
    }

    /// What is known of the workers that were given something.
    #[cfg(feature = "status")]
    pub(super) fn slots_in_use(&mut self) -> Vec<SlotStatus> {
        let now = Instant::now();
        let slots = self.slots.iter_mut();
        let in_use = slots.filter(|slot| slot.link.in_flight() > 0);
        in_use.map(|slot| slot.status(now)).collect()
    }

    /// Of the worker in that slot.
    #[cfg(feature = "status")]
    pub(super) fn generation(&self, slot: usize) -> u32 {
        self.slots[slot].link.generation()
    }

    pub(super) fn slot_count(&self) -> usize {
        self.slots.len()
    }

    /// Rings for every slot that was given frames and sleeps: once for all of them.
    pub(crate) fn ring(&mut self) {
        self.slots.iter_mut().for_each(Slot::ring);
    }

    /// Whether a worker has published something.
    pub(crate) fn have_output(&mut self) -> bool {
        self.slots.iter_mut().any(|slot| slot.link.has_output())
    }

    /// How many frames are with workers.
    pub(crate) fn in_flight(&self) -> usize {
        self.slots.iter().map(|slot| slot.link.in_flight()).sum()
    }

    // Who has which seat

    /// This worker has the seat now, in this slot. Says in which one the seat's last worker is, if
    /// it has not ended yet.
    pub(super) fn take_seat(&mut self, seat: usize, slot: usize, generation: u32) -> Option<usize> {
        let last = self.seats[seat].slot.replace(slot);
        let taken = &mut self.slots[slot];
        taken.seat = seat;
        taken.link.open(generation);
        taken.wake();
        last.filter(|last| *last != slot)
    }

    /// The worker of this slot has ended. If it still had its seat, that is empty now.
    pub(super) fn leave_slot(&mut self, slot: usize) {
        let seat = &mut self.seats[self.slots[slot].seat];
        if seat.slot == Some(slot) {
            seat.slot = None;
            seat.is_empty_since(Instant::now());
        }
        // Nothing of it is left for others to wait behind.
        self.loads.set_slow(slot, false);
    }

    /// Who has the seat is ready.
    pub(super) fn seat_is_ready(&mut self, seat: usize) {
        self.seats[seat].is_ready();
    }

    // Turns

    /// Whether somebody waits for a seat that has room.
    pub(crate) fn has_turns(&self) -> bool {
        self.common_turn() || (0..self.seats.len()).any(|seat| self.has_turn(seat))
    }

    /// Whether a seat has room for the one who has waited longest for it.
    fn has_turn(&self, seat: usize) -> bool {
        let asked = self.seats[seat].waiting.first_asks();
        asked.is_some_and(|len| self.has_room(seat, len))
    }

    /// Whether any seat takes a frame of the one who has waited longest for any.
    fn common_turn(&self) -> bool {
        let asked = self.waiting.first_asks();
        asked.is_some_and(|len| (0..self.seats.len()).any(|seat| self.taker(seat, len).is_some()))
    }

    /// The next connection that waits for a seat which has room for what it asked for. First come,
    /// first served: one that asks for much is not overtaken by those who ask for little.
    pub(crate) fn next_turn(&mut self) -> Option<ConnId> {
        if self.common_turn() {
            return self.waiting.pop();
        }
        let seat = (0..self.seats.len()).find(|seat| self.has_turn(*seat))?;
        self.seats[seat].waiting.pop()
    }

    fn link_of(&self, seat: usize) -> Option<&Slot> {
        self.seats[seat].slot.map(|slot| &self.slots[slot])
    }

    fn has_room(&self, seat: usize, len: usize) -> bool {
        self.link_of(seat)
            .is_some_and(|slot| slot.link.has_room(len))
    }

    /// The slot where a message that may go anywhere can go now, if this seat's can.
    fn taker(&self, seat: usize, len: usize) -> Option<usize> {
        let slot = self.seats[seat].slot?;
        let takes = !self.seats[seat].is_away() && !self.loads.is_stuck(slot);
        (takes && self.has_room(seat, len)).then_some(slot)
    }

    // Frames that come back

    /// So many frames have left the inbox of a slot, done or not.
    pub(super) fn frames_end(&self, slot: usize, count: usize) {
        if self.dispatcher.is_per_message() {
            self.loads.frames_end(slot, count);
        }
    }

    /// The worker of a slot has finished frames, of which the first was `oldest`: whether it is
    /// slow is known anew.
    pub(super) fn finished(&self, slot: usize, oldest: Option<u64>, count: usize) {
        if self.dispatcher.is_per_message() {
            self.loads.frames_end(slot, count);
            let was_slow =
                count == 1 && self.slots[slot].is_older_than(oldest, SLOW, Instant::now());
            self.loads.set_slow(slot, was_slow);
        }
    }

    /// Looks which workers have not finished a frame for long, at most every few milliseconds.
    /// Returns the slots whose frames are to be taken back.
    pub(super) fn look(&mut self, io: &mut Connections, now: Instant) -> Vec<usize> {
        if now.duration_since(self.looked) < LOOK {
            return Vec::new();
        }
        self.looked = now;
        let mut stuck = self.look_at_empty_seats(io, now);
        for number in 0..self.slots.len() {
            let slot = &mut self.slots[number];
            let age = slot.look(now);
            if self.dispatcher.is_per_message() {
                if age < SLOW {
                    continue;
                }
                // Also where it has begun nothing of ours: it is at another reactor's frame, or
                // does not run at all.
                self.loads.set_slow(number, true);
                if slot.unbegun() > 0 {
                    stuck.push(number);
                }
                let seat = &mut self.seats[slot.seat];
                if seat.slot == Some(number) {
                    seat.waiting.disperse(io, |_| true);
                }
            } else {
                let queued = self.seats[slot.seat].waiting.len();
                slot.complain(age, queued);
            }
        }
        stuck
    }

    /// Seats that nobody has filled for a while: those who wait for them may go elsewhere.
    fn look_at_empty_seats(&mut self, io: &mut Connections, now: Instant) -> Vec<usize> {
        let mut deserted = Vec::new();
        if self.may_desert() {
            let dispatcher = &self.dispatcher;
            let may_go = |conn: &Connection| dispatcher.may_move(conn.user.is_some());
            for seat in &mut self.seats {
                let (is_away, is_news) = seat.look(now);
                if is_away {
                    seat.waiting.disperse(io, may_go);
                }
                // Of whoever is about to get ready there. What may not go comes again, and so is
                // taken back once.
                if is_news || is_away && dispatcher.may_move(true) {
                    let is_given = |slot: &usize| self.slots[*slot].unbegun() > 0;
                    deserted.extend(seat.slot.filter(is_given));
                }
            }
        }
        deserted
    }

    /// Whether some connections may leave a seat that is empty, and have where to go.
    fn may_desert(&self) -> bool {
        self.dispatcher.may_move(false) && self.loads.has_filled_seat()
    }

    /// How long until it is worth looking again.
    pub(super) fn next_look(&self, now: Instant) -> Option<Duration> {
        let is_due = self.dispatcher.is_per_message() && self.in_flight() > 0
            || !self.waiting.is_empty()
            || self.seats.iter().any(Seat::is_to_be_looked_at) && self.may_desert();
        is_due.then(|| (self.looked + LOOK).saturating_duration_since(now))
    }

    fn count(&self, slot: usize) {
        if self.dispatcher.is_per_message() {
            self.loads.frame_begins(slot);
        }
    }

    // Placing

    /// Where the user's function sends it.
    fn ask(&self, function: &RouteFn, conn: &Connection, message: Option<&[u8]>) -> usize {
        let route = Route {
            conn: conn.id,
            peer: conn.peer,
            listener: conn.listener,
            user: conn.user,
            message,
            seat: usize::from(conn.seat),
            seats: self.seats.len(),
        };
        match catch_unwind(AssertUnwindSafe(|| function(&route))) {
            Ok(seat) => seat % self.seats.len(),
            Err(_) => {
                log::error!(
                    "the dispatch function has panicked: connection {} stays",
                    conn.id
                );
                usize::from(conn.seat)
            }
        }
    }

    /// The seat that this mode gives the connection's next frame; `None` while none takes any.
    fn choose(&self, conn: &Connection, message: Option<&[u8]>, len: usize) -> Option<usize> {
        let seat = usize::from(conn.seat);
        match &self.dispatcher {
            Dispatcher::Mode(Dispatch::LeastBusy) if conn.in_flight > 0 => Some(seat),
            Dispatcher::Mode(Dispatch::LeastBusy) => {
                if !conn.turn && !self.waiting.is_empty() {
                    return None;
                }
                self.loads.least_busy(|seat| self.taker(seat, len))
            }
            Dispatcher::Mode(Dispatch::UserId) if conn.user.is_some() => {
                conn.user.map(|user| self.loads.seat_of(user))
            }
            Dispatcher::Mode(Dispatch::ClientAddress) => Some(seat),
            Dispatcher::Mode(
                Dispatch::LeastConnections | Dispatch::RoundRobin | Dispatch::UserId,
            ) => Some(match self.seats[seat].is_away() {
                true => self.loads.fewest_connections(),
                false => seat,
            }),
            Dispatcher::Function(function) => Some(self.ask(function.as_ref(), conn, message)),
        }
    }
}

impl Deliver for Seats {
    fn place(&self, conn: &Connection, message: Option<&[u8]>, len: usize) -> Place {
        let Some(seat) = self.choose(conn, message, len) else {
            return Place::Nowhere;
        };
        let slot = usize::from(conn.slot);
        let is_elsewhere = self.seats[seat].slot != Some(slot);
        let would_wait = self.dispatcher.is_per_message() && self.loads.is_stuck(slot);
        if conn.in_flight > 0 && (is_elsewhere || would_wait) {
            return Place::WhenQuiet;
        }
        Place::Seat(seat as u16)
    }

    fn looks_at_messages(&self) -> bool {
        matches!(self.dispatcher, Dispatcher::Function(_))
    }

    fn slot_of(&self, seat: u16) -> u16 {
        // Asked of a seat that was given a frame: somebody has it.
        self.seats[usize::from(seat)].slot.unwrap_or_default() as u16
    }

    fn room(&mut self, seat: u16, bounds: RangeInclusive<usize>, turn: bool) -> Option<Room<'_>> {
        let seat = &self.seats[usize::from(seat)];
        if turn || seat.waiting.is_empty() {
            let slot = seat.slot?;
            self.slots[slot].link.room(bounds)
        } else {
            None
        }
    }

    fn submit(&mut self, _: &mut Connections, seat: u16, input: &frame::Input) -> Step {
        let seat = usize::from(seat);
        if let Some(slot) = self.seats[seat].slot {
            self.slots[slot].submit(input);
            self.count(slot);
        }
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
        self.room(seat, body.len()..=body.len(), turn)?;
        let slot = self.seats[usize::from(seat)].slot?;
        self.slots[slot].submit_copy(input, body);
        self.count(slot);
        Some(Step::Submitted)
    }

    fn wait(&mut self, io: &mut Connections, seat: Option<u16>, conn: ConnId, len: usize) {
        let queue = match seat {
            Some(seat) => &mut self.seats[usize::from(seat)].waiting,
            None => &mut self.waiting,
        };
        queue.push(io, conn, len);
    }
}

/// Gives frames that came back to their connections, which submit them again. Of a connection that
/// was closed on this side, messages are for nobody.
pub(super) fn give_back(io: &mut Connections, frames: Vec<Returned>) {
    // Each goes before what came back earlier: it was submitted before.
    for frame in frames.into_iter().rev() {
        io.take_back(frame);
    }
}
