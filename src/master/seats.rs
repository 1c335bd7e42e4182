//! The other end of *submit* in process mode: every seat, and a link to each slot, seen from one
//! reactor.
//!
//! A seat is where connections belong; a slot is the memory that one worker works with. The worker that
//! has the seat has it in some slot, and a worker that leaves is still in another one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::dispatch::SeatLoads;
use super::queue::Queue;
use super::reactor::Outlet;
use super::slot::{Batch, Slot, Vacancy};
use crate::config::Config;
use crate::config::policy::Dispatcher;
use crate::conn_id::ConnId;
use crate::flow::Flow;
use crate::flow::deliver::{Deliver, For, Offer, Want};
use crate::ipc::layout::SlotMemory;
use crate::ipc::link::{Broken, Legacy, Returned};
use crate::net::connection::{Connection, Wait};
#[cfg(feature = "status")]
use crate::status::SlotStatus;

/// How often a reactor looks how its workers get on, where that can change anything.
const LOOK: Duration = Duration::from_millis(5);

/// A callback that takes longer is slow: where each message is dispatched, none waits behind it.
const SLOW: Duration = Duration::from_millis(10);

/// How long a seat may be empty before its connections go elsewhere, where they may.
const AWAY: Duration = Duration::from_millis(100);

/// All seats by number, and all slots by number.
pub(crate) struct Seats {
    pub(super) seats: Vec<Seat>,
    pub(super) slots: Vec<Slot>,
    /// Connections that wait for any seat to take a frame, where each message is dispatched.
    pub(super) waiting: Queue,
    pub(super) dispatcher: Dispatcher,
    pub(super) loads: Arc<SeatLoads>,
    looked: Instant,
}

/// Where connections belong.
pub(super) struct Seat {
    /// Where the worker is that has the seat.
    pub(super) slot: Option<usize>,
    pub(super) waiting: Queue,
    /// Since when no worker that is ready has it.
    empty_since: Option<Instant>,
    /// That is too long.
    away: bool,
}

impl Seat {
    pub(super) fn new() -> Seat {
        Seat {
            slot: None,
            waiting: Queue::new(),
            empty_since: None,
            away: false,
        }
    }

    pub(super) fn is_empty_since(&mut self, now: Instant) {
        self.empty_since.get_or_insert(now);
    }

    pub(super) fn is_ready(&mut self) {
        (self.empty_since, self.away) = (None, false);
    }

    pub(super) fn is_away(&self) -> bool {
        self.away
    }

    /// Whether a look can change anything: it may have been empty for too long by then, or
    /// connections wait for one that has.
    pub(super) fn is_to_be_looked_at(&self) -> bool {
        self.empty_since.is_some() && (!self.away || !self.waiting.is_empty())
    }

    /// Whether it has been empty for too long, and whether that is news.
    pub(super) fn look(&mut self, now: Instant) -> (bool, bool) {
        let is_away = |since: Instant| now.duration_since(since) >= AWAY;
        let was_away = self.away;
        self.away = self.empty_since.is_some_and(is_away);
        (self.away, self.away && !was_away)
    }
}

/// A worker broke the ring's protocol.
pub(super) struct Liar {
    pub(super) seat: usize,
    pub(super) generation: u32,
    pub(super) broken: Broken,
}

impl Seats {
    pub(crate) fn new(
        memory: &[SlotMemory],
        reactor: usize,
        config: &Config,
        loads: Arc<SeatLoads>,
    ) -> Seats {
        let budget = config.commit_budget();
        let slots = memory.iter();
        Seats {
            seats: (0..config.workers).map(|_| Seat::new()).collect(),
            slots: slots.map(|it| Slot::new(it, reactor, budget)).collect(),
            waiting: Queue::new(),
            dispatcher: config.dispatcher.clone(),
            loads,
            looked: Instant::now(),
        }
    }

    /// What is known of the workers that were given something.
    #[cfg(feature = "status")]
    pub(super) fn slots_in_use(&mut self) -> Vec<SlotStatus> {
        let now = Instant::now();
        let slots = self.slots.iter_mut();
        let in_use = slots.filter(|slot| slot.in_flight() > 0);
        in_use.map(|slot| slot.status(now)).collect()
    }

    /// The generation of the worker in that slot.
    pub(super) fn generation(&self, slot: usize) -> u32 {
        self.slots[slot].generation()
    }

    pub(super) fn slot_count(&self) -> usize {
        self.slots.len()
    }

    /// Rings for every slot that was given frames and sleeps: once for all of them.
    pub(super) fn ring(&mut self) {
        self.slots.iter_mut().for_each(Slot::ring);
    }

    /// Whether a worker has published something.
    pub(super) fn have_output(&mut self) -> bool {
        self.slots.iter_mut().any(Slot::has_output)
    }

    /// How many frames are with workers.
    pub(super) fn in_flight(&self) -> usize {
        self.slots.iter().map(Slot::in_flight).sum()
    }

    // Which worker has which seat

    /// This worker has the seat now, in this slot. Returns the slot of the seat's last worker, if that
    /// has not ended yet.
    pub(super) fn take_seat(&mut self, seat: usize, slot: usize, generation: u32) -> Option<usize> {
        let last = self.seats[seat].slot.replace(slot);
        self.slots[slot].open(seat, generation);
        last.filter(|last| *last != slot)
    }

    /// The seat's worker is ready.
    pub(super) fn seat_is_ready(&mut self, seat: usize) {
        self.seats[seat].is_ready();
    }

    // What workers have committed

    /// Carries out what the worker of a slot has committed, up to a batch.
    ///
    /// # Errors
    /// The worker broke the protocol. What it has committed before that counts.
    pub(super) fn collect(
        &mut self,
        slot: usize,
        most: Batch,
        to: &mut Outlet<'_>,
    ) -> Result<(), Liar> {
        let at = &mut self.slots[slot];
        let oldest = at.oldest();
        let (done, outcome) = at.collect(most, to);
        at.release();
        let (seat, generation) = (at.seat, at.generation());
        if done > 0 {
            self.note_done(slot, oldest, done);
        }
        outcome.map_err(|broken| Liar {
            seat,
            generation,
            broken,
        })
    }

    /// The worker of a slot has finished frames, of which the first was `oldest`: whether it is slow
    /// shows again.
    fn note_done(&self, slot: usize, oldest: Option<u64>, count: usize) {
        if self.dispatcher.is_per_message() {
            self.loads.frames_end(slot, count);
            let was_slow =
                count == 1 && self.slots[slot].is_older_than(oldest, SLOW, Instant::now());
            self.loads.set_slow(slot, was_slow);
        }
    }

    // Frames that come back

    /// The seat that the worker of a slot has, or has had last.
    pub(super) fn seat_of(&self, slot: usize) -> usize {
        self.slots[slot].seat
    }

    /// Takes back what the worker of a slot has not begun.
    pub(super) fn recall(&mut self, slot: usize) -> Vec<Returned> {
        self.slots[slot].recall()
    }

    /// The worker of this slot is dead: takes back everything. If it still had its seat, that is empty
    /// now. Returns the seat, too.
    pub(super) fn empty_slot(&mut self, slot: usize) -> (usize, Legacy) {
        let left = self.slots[slot].left();
        let legacy = self.slots[slot].cut();
        if self.dispatcher.is_per_message() {
            self.loads.frames_end(slot, left);
        }
        let number = self.slots[slot].seat;
        let seat = &mut self.seats[number];
        if seat.slot == Some(slot) {
            seat.slot = None;
            seat.is_empty_since(Instant::now());
        }
        // Nothing of it is left for others to wait behind.
        self.loads.set_slow(slot, false);
        (number, legacy)
    }

    // Turns

    /// Whether a connection waits for a seat that has room.
    pub(super) fn has_turns(&self) -> bool {
        self.common_turn() || (0..self.seats.len()).any(|seat| self.has_turn(seat))
    }

    /// Whether a seat has room for the one that has waited longest for it.
    fn has_turn(&self, seat: usize) -> bool {
        let asked = self.seats[seat].waiting.first_asks();
        asked.is_some_and(|len| self.has_room(seat, len))
    }

    /// Whether any seat takes a frame of the one that has waited longest for any.
    fn common_turn(&self) -> bool {
        let asked = self.waiting.first_asks();
        asked.is_some_and(|len| (0..self.seats.len()).any(|seat| self.taker(seat, len).is_some()))
    }

    /// The next connection that waits for a seat which has room for what it asked for. First come,
    /// first served: one that asks for much is not overtaken by those that ask for little.
    pub(super) fn next_turn(&mut self) -> Option<ConnId> {
        if self.common_turn() {
            return self.waiting.pop();
        }
        let seat = (0..self.seats.len()).find(|seat| self.has_turn(*seat))?;
        self.seats[seat].waiting.pop()
    }

    fn has_room(&self, seat: usize, len: usize) -> bool {
        let slot = self.seats[seat].slot;
        slot.is_some_and(|slot| self.slots[slot].has_room(len))
    }

    /// Forgets connections that are gone and have waited.
    pub(super) fn sweep(&mut self, flow: &Flow) {
        let is_there = |id| flow.conn(id).is_some();
        self.waiting.sweep(is_there);
        for seat in &mut self.seats {
            seat.waiting.sweep(is_there);
        }
    }

    /// Looks which workers have not finished a frame for long, at most every few milliseconds.
    /// Returns the slots whose frames are to be taken back.
    pub(super) fn look(&mut self, flow: &mut Flow, now: Instant) -> Vec<usize> {
        if now.duration_since(self.looked) < LOOK {
            return Vec::new();
        }
        self.looked = now;
        let mut stuck = self.look_at_empty_seats(flow, now);
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
                    disperse(&mut seat.waiting, flow, |_| true);
                }
            } else {
                let queued = self.seats[slot.seat].waiting.len();
                slot.complain(age, queued);
            }
        }
        stuck
    }

    /// Looks at seats that are empty: after a while the connections that wait for them may go elsewhere.
    fn look_at_empty_seats(&mut self, flow: &mut Flow, now: Instant) -> Vec<usize> {
        let mut deserted = Vec::new();
        if self.may_desert() {
            let dispatcher = &self.dispatcher;
            let may_go = |conn: &Connection| dispatcher.may_move(conn.work.user.is_some());
            for seat in &mut self.seats {
                let (is_away, is_news) = seat.look(now);
                if is_away {
                    disperse(&mut seat.waiting, flow, may_go);
                }
                // Of a worker that is about to get ready there. What may not go comes again, and so is
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
}

/// Connections that wait in a queue and may go elsewhere need not wait there any more.
fn disperse(queue: &mut Queue, flow: &mut Flow, may_go: impl Fn(&Connection) -> bool) {
    queue.retain(|id| {
        let Some(conn) = flow.conn(id) else {
            return false;
        };
        if !may_go(conn) {
            return true;
        }
        flow.wait_is_over(id);
        false
    });
}

impl Deliver for Seats {
    type Place<'a> = Vacancy<'a>;

    fn offer(&mut self, conn: &mut Connection, want: Want<'_>) -> Offer<Vacancy<'_>> {
        let Some(number) = self.choose(conn, want) else {
            self.waiting.push(conn.id, want.least());
            return Offer::Wait(For::Room);
        };
        let last = usize::from(conn.work.slot);
        let is_elsewhere = self.seats[number].slot != Some(last);
        let would_wait = self.dispatcher.is_per_message() && self.loads.is_stuck(last);
        if conn.work.in_flight > 0 && (is_elsewhere || would_wait) {
            return Offer::Wait(For::Quiet);
        }
        self.move_to(conn, number);
        let seat = &mut self.seats[number];
        let is_next = conn.work.wait == Wait::Turn || seat.waiting.is_empty();
        if let Some(slot) = seat.slot.filter(|_| is_next) {
            let is_counted = self.dispatcher.is_per_message();
            let frames = is_counted.then(|| self.loads.frames_of(slot));
            if let Some(place) = self.slots[slot].place(want.least(), want.most(), frames) {
                conn.work.slot = slot as u16;
                return Offer::Place(place);
            }
        }
        seat.waiting.push(conn.id, want.least());
        Offer::Wait(For::Room)
    }

    fn opened(&mut self, conn: &mut Connection) {
        conn.work.seat = self.loads.enter_seat(&self.dispatcher, conn.peer) as u16;
    }

    fn gone(&mut self, conn: &Connection) {
        self.loads.leave_seat(usize::from(conn.work.seat));
    }
}

impl Seats {
    /// The connection belongs to this seat from now on, also while it waits there.
    fn move_to(&self, conn: &mut Connection, seat: usize) {
        let last = std::mem::replace(&mut conn.work.seat, seat as u16);
        if usize::from(last) != seat {
            self.loads.move_seat(usize::from(last), seat);
        }
    }
}
