//! The receiving end of *submit* in process mode: all seats, and one reactor's link to each slot.
//!
//! Runs in the reactor threads. Its one rule: a connection belongs to a seat, never to a slot. The slot
//! is the memory of one worker process: the seat's worker works in one slot, while a worker that leaves
//! the seat still works in another.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::dispatch::SeatLoads;
use super::outlet::Outlet;
use super::queue::Queue;
use super::seat::Seat;
use super::slot::{Batch, Done, Slot, Vacancy};
use super::transit::Transit;
use crate::config::Config;
use crate::config::policy::Dispatcher;
use crate::flow::Flow;
use crate::flow::deliver::{Deliver, For, Offer, Want};
use crate::ipc::arena::SlotMemory;
use crate::ipc::link::{Broken, Legacy, Returned};
use crate::net::connection::{Connection, Target, Wait};
#[cfg(feature = "status")]
use crate::status::SlotStatus;
use crate::sys::time::now_micros;

/// How often a reactor checks the progress of its workers, while that can change anything.
const CHECK_INTERVAL: Duration = Duration::from_millis(5);

/// A callback that takes longer is slow: in modes that dispatch each message, no message waits behind it.
const SLOW: Duration = Duration::from_millis(10);

/// The pause between two looks for pages that long messages have used: messages that go on coming do not
/// take them anew all the time.
const LONG_AGO: Duration = Duration::from_secs(1);

/// All seats by number, and all slots by number.
pub(crate) struct Seats {
    pub(super) seats: Vec<Seat>,
    pub(super) slots: Vec<Slot>,
    /// Connections that wait for any seat, in modes that dispatch each message.
    pub(super) waiting: Queue,
    /// Mailboxes with tasks that wait for a task worker.
    pub(super) tasks: Queue,
    /// The number of seats that serve clients; those behind them are those of task workers.
    pub(super) workers: usize,
    pub(super) dispatcher: Dispatcher,
    pub(super) loads: Arc<SeatLoads>,
    transit: Arc<Transit>,
    /// A reactor that is to be woken: it may have a turn before this one.
    pub(super) wakes: Option<usize>,
    /// Since when the first connection in the common queue waits, as the other reactors know it.
    pub(super) published: u64,
    checked: Instant,
    /// Much output of some worker was held back, and is no more.
    freed_much: bool,
    /// When pages are given back next, if there are any.
    give_back_at: Instant,
    /// The number of the reactor, and the most bytes that one commit may send.
    pub(super) reactor: usize,
    budget: usize,
    /// The memory of a slot without a worker.
    vacant: Arc<SlotMemory>,
}

/// A worker broke the ring protocol.
pub(super) struct Violation {
    pub(super) seat: usize,
    pub(super) generation: u32,
    pub(super) broken: Broken,
}

impl Seats {
    pub(crate) fn new(
        vacant: Arc<SlotMemory>,
        reactor: usize,
        config: &Config,
        loads: Arc<SeatLoads>,
        transit: Arc<Transit>,
    ) -> Seats {
        let budget = config.commit_budget();
        let vacate = |_| Slot::new(Arc::clone(&vacant), 0, reactor, budget);
        Seats {
            seats: (0..config.seats()).map(|_| Seat::new()).collect(),
            slots: (0..config.slots()).map(vacate).collect(),
            waiting: Queue::new(),
            tasks: Queue::new(),
            workers: config.workers,
            dispatcher: config.dispatcher.clone(),
            loads,
            transit,
            wakes: None,
            published: 0,
            checked: Instant::now(),
            freed_much: false,
            give_back_at: Instant::now(),
            reactor,
            budget,
            vacant,
        }
    }

    /// Returns the status of the slots with frames in flight.
    #[cfg(feature = "status")]
    pub(super) fn slots_in_use(&mut self) -> Vec<SlotStatus> {
        let now = Instant::now();
        let slots = self.slots.iter_mut();
        let in_use = slots.filter(|slot| slot.in_flight() > 0);
        in_use.map(|slot| slot.status(now)).collect()
    }

    /// Returns the generation of the worker that a slot's link is open for; 0 for none.
    #[cfg(feature = "status")]
    pub(super) fn generation(&self, slot: usize) -> u32 {
        self.slots[slot].generation()
    }

    /// Returns the generation of the worker that was forked into a slot; 0 for none.
    pub(super) fn filled_by(&self, slot: usize) -> u32 {
        self.slots[slot].filled_by()
    }

    pub(super) fn slot_count(&self) -> usize {
        self.slots.len()
    }

    /// Wakes every sleeping worker that was given frames, once for all its frames.
    pub(super) fn ring(&mut self) {
        self.slots.iter_mut().for_each(Slot::ring);
    }

    /// Whether any worker has published output.
    pub(super) fn have_output(&mut self) -> bool {
        let (transit, own) = (&self.transit, self.reactor);
        let mut slots = self.slots.iter_mut();
        slots.any(|slot| slot.has_output(transit, own))
    }

    /// Returns the number of frames with workers.
    pub(super) fn in_flight(&self) -> usize {
        self.slots.iter().map(Slot::in_flight).sum()
    }

    // Which seats are whose

    /// Returns the seats that serve clients.
    pub(super) fn workers(&self) -> Range<usize> {
        0..self.workers
    }

    /// Returns the seats of task workers.
    pub(super) fn task_workers(&self) -> Range<usize> {
        self.workers..self.seats.len()
    }

    /// Whether the frames of a seat's worker are counted, so that none waits behind a slow one.
    fn counts_frames(&self, seat: usize) -> bool {
        self.dispatcher.is_per_message() || seat >= self.workers
    }

    /// Whether a task worker has frames that wait behind another one. One long task alone is not looked at.
    fn has_tasks_behind(&self) -> bool {
        let mut slots = self.task_workers().filter_map(|seat| self.seats[seat].slot);
        slots.any(|slot| self.slots[slot].unbegun() > 0)
    }

    // Which worker has which seat

    /// The worker in this slot now has the seat. Returns the slot of the worker before it, if that one is
    /// still alive.
    pub(super) fn take_seat(&mut self, seat: usize, slot: usize, generation: u32) -> Option<usize> {
        let last = self.seats[seat].slot.take();
        // A worker whose memory did not come is about to be killed.
        if self.slots[slot].filled_by() == generation {
            self.seats[seat].slot = Some(slot);
            self.slots[slot].open(seat, generation);
        }
        last.filter(|last| *last != slot)
    }

    /// A worker was forked into an empty slot.
    pub(super) fn fill_slot(&mut self, slot: usize, generation: u32, memory: Arc<SlotMemory>) {
        self.slots[slot] = Slot::new(memory, generation, self.reactor, self.budget);
    }

    /// Leaves the memory of a worker that is dead, and whose frames are taken back. Returns the memory.
    pub(super) fn vacate(&mut self, slot: usize) -> Arc<SlotMemory> {
        let vacant = Slot::new(Arc::clone(&self.vacant), 0, self.reactor, self.budget);
        std::mem::replace(&mut self.slots[slot], vacant).into_memory()
    }

    /// The seat's worker is ready.
    pub(super) fn seat_is_ready(&mut self, seat: usize) {
        self.seats[seat].set_ready();
    }

    // Commits of the workers

    /// Applies the commits of a slot's worker, at most a batch.
    ///
    /// # Errors
    /// The worker broke the protocol. Its earlier commits are applied.
    pub(super) fn collect(
        &mut self,
        slot: usize,
        most: Batch,
        to: &mut Outlet<'_>,
    ) -> Result<(), Violation> {
        let at = &mut self.slots[slot];
        if most.keeps_credit && at.is_held(&self.transit, self.reactor) {
            return Ok(());
        }
        let oldest = at.oldest();
        let (done, outcome) = at.collect(most, to);
        at.release();
        self.freed_much |= at.has_freed_much();
        let (seat, generation) = (at.seat, at.generation());
        if done.frames > 0 {
            self.note_done(slot, oldest, done);
        }
        outcome.map_err(|broken| Violation {
            seat,
            generation,
            broken,
        })
    }

    /// The worker of a slot has finished `count` frames, `oldest` first: whether it is slow is decided
    /// again.
    fn note_done(&mut self, slot: usize, oldest: Option<u64>, done: Done) {
        if !self.counts_frames(self.slots[slot].seat) {
            return;
        }
        self.loads.frames_end(slot, done.frames);
        if self.dispatcher.is_per_message() {
            self.wakes = self.elder();
        }
        // Recalled frames, over which the worker has only passed, say nothing.
        if done.callbacks > 0 {
            // A slow worker is quick again when it has shown that: it was not idle for longer either.
            let passed = self.loads.callbacks_end(slot, now_micros());
            if passed < SLOW * done.callbacks as u32 {
                self.loads.set_quick(slot, done.callbacks);
            } else if self.slots[slot].is_older_than(oldest, SLOW, Instant::now()) {
                self.loads.set_slow(slot);
            }
        }
    }

    // Frames that are taken back

    /// Returns the seat that the worker of a slot has or had last.
    pub(super) fn seat_of(&self, slot: usize) -> usize {
        self.slots[slot].seat
    }

    /// Takes back the frames that the worker of a slot has not begun.
    pub(super) fn recall(&mut self, slot: usize) -> Vec<Returned> {
        self.slots[slot].recall()
    }

    /// Returns the time until a message may expire that no worker has begun.
    pub(super) fn next_expiry(&self, now: u64) -> Option<Duration> {
        let next = self.slots.iter().map(Slot::expires).min()?;
        (next != u64::MAX).then(|| Duration::from_millis(next.saturating_sub(now)))
    }

    /// Takes back the messages that have expired unbegun, and all frames of their connections behind them,
    /// oldest first.
    pub(super) fn take_expired(&mut self, now: u64) -> Vec<Returned> {
        let slots = self.slots.iter_mut().filter(|slot| slot.expires() <= now);
        slots.flat_map(|slot| slot.take_expired(now)).collect()
    }

    /// The worker of this slot is dead: nothing counts that is published from now on.
    pub(super) fn look_last(&mut self, slot: usize) {
        self.slots[slot].link.look_last();
    }

    /// The worker of this slot is dead: takes back all its frames, and empties the seat if it still had
    /// one. Returns its seat, too.
    pub(super) fn empty_slot(&mut self, slot: usize) -> (usize, Legacy) {
        let left = self.slots[slot].left();
        let legacy = self.slots[slot].cut();
        let number = self.slots[slot].seat;
        if self.counts_frames(number) {
            self.loads.frames_end(slot, left);
        }
        let seat = &mut self.seats[number];
        if seat.slot == Some(slot) {
            seat.slot = None;
            seat.set_empty(Instant::now());
        }
        // Nothing is known of the next worker.
        self.loads.set_slow(slot);
        (number, legacy)
    }

    // Progress

    /// Checks, at most once in [`CHECK_INTERVAL`], which workers have not finished a frame for long.
    /// Returns the slots from which frames are to be taken back.
    pub(super) fn check_progress(&mut self, flow: &mut Flow, now: Instant) -> Vec<usize> {
        if now.duration_since(self.checked) < CHECK_INTERVAL {
            return Vec::new();
        }
        self.checked = now;
        let mut stuck = self.check_empty_seats(flow, now);
        for number in 0..self.slots.len() {
            let done = self.loads.done(number);
            let is_counted = self.counts_frames(self.slots[number].seat);
            let slot = &mut self.slots[number];
            let age = slot.check(done, now);
            slot.ring_again(age, now);
            if is_counted {
                if age < SLOW {
                    continue;
                }
                // Also when it has begun no frame of this reactor: it runs another reactor's, or does not
                // run at all.
                self.loads.set_slow(number);
                if slot.unbegun() > 0 {
                    stuck.push(number);
                }
                let seat = &mut self.seats[slot.seat];
                if seat.slot == Some(number) {
                    disperse(&mut seat.waiting, flow, |_| true);
                }
            } else {
                let queued = self.seats[slot.seat].waiting.len();
                slot.warn_if_stuck(age, queued);
            }
        }
        stuck
    }

    /// Checks the empty seats: connections that wait for an abandoned one may go elsewhere. Returns the
    /// slots from which frames are to be taken back.
    fn check_empty_seats(&mut self, flow: &mut Flow, now: Instant) -> Vec<usize> {
        let mut abandoned = Vec::new();
        if self.may_leave_seats() {
            let dispatcher = &self.dispatcher;
            let may_go = |conn: &Connection| dispatcher.may_move(conn.work.user().is_some());
            for seat in &mut self.seats {
                let (is_abandoned, is_new) = seat.check(now);
                if is_abandoned {
                    disperse(&mut seat.waiting, flow, may_go);
                }
                // The worker there is still starting. Frames of connections that may not move are
                // submitted to it again, so they are taken back only once.
                if is_new || is_abandoned && dispatcher.may_move(true) {
                    let is_given = |slot: &usize| self.slots[*slot].unbegun() > 0;
                    abandoned.extend(seat.slot.filter(is_given));
                }
            }
        }
        abandoned
    }

    /// Whether the mode lets connections leave an empty seat, and another seat has a ready worker.
    fn may_leave_seats(&self) -> bool {
        self.dispatcher.may_move(false) && self.loads.has_ready_seat()
    }

    /// Whether much output of some worker was held back, and is no more. Returns true once for each time.
    pub(super) fn have_freed_much(&mut self) -> bool {
        std::mem::take(&mut self.freed_much)
    }

    /// Gives back the pages of inboxes that long messages have used, some at a time.
    pub(super) fn give_back_pages(&mut self, now: Instant) {
        if now < self.give_back_at {
            return;
        }
        let spread = self.slots.iter_mut().filter(|slot| slot.is_spread());
        let more = spread.map(Slot::give_back_pages).filter(|more| *more);
        let pause = if more.count() > 0 {
            CHECK_INTERVAL
        } else {
            LONG_AGO
        };
        self.give_back_at = now + pause;
    }

    /// Returns the time until pages are given back, if there are any.
    pub(super) fn next_give_back(&self, now: Instant) -> Option<Duration> {
        let is_due = self.slots.iter().any(Slot::is_spread);
        is_due.then(|| self.give_back_at.saturating_duration_since(now))
    }

    /// Returns the time until the next check, if one is needed.
    pub(super) fn next_check(&self, now: Instant) -> Option<Duration> {
        let is_due = self.dispatcher.is_per_message() && self.in_flight() > 0
            || !self.waiting.is_empty()
            || self.has_tasks_behind()
            || self.seats.iter().any(Seat::needs_check) && self.may_leave_seats();
        is_due.then(|| (self.checked + CHECK_INTERVAL).saturating_duration_since(now))
    }
}

/// Removes the connections from a queue that may go elsewhere; each of them chooses a seat again.
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
        let carried = conn.work.carried().len();
        let least = want.least() + carried;
        let Some(number) = self.choose(conn, want) else {
            if conn.work.waits_since == 0 {
                conn.work.waits_since = now_micros();
            }
            if conn.target == Target::Task {
                self.tasks.push(conn.id, least, conn.work.waits_since);
                return Offer::Wait(For::Room);
            }
            self.waiting.push(conn.id, least, conn.work.waits_since);
            self.publish_waiting();
            self.wakes = self.elder();
            return Offer::Wait(For::Room);
        };
        let last = usize::from(conn.work.slot);
        let is_elsewhere = self.seats[number].slot != Some(last);
        let would_wait = self.dispatcher.is_per_message() && self.loads.is_full(last);
        if conn.work.in_flight > 0 && (is_elsewhere || would_wait) {
            return Offer::Wait(For::Quiet);
        }
        self.move_to(conn, number);
        let is_counted = self.counts_frames(number);
        let seat = &mut self.seats[number];
        let is_next = conn.work.wait == Wait::Turn || seat.waiting.is_empty();
        if let Some(slot) = seat.slot.filter(|_| is_next) {
            let frames = is_counted.then(|| self.loads.frames_of(slot));
            if let Some(mut place) =
                self.slots[slot].place(want.least(), want.most(), carried, frames)
            {
                conn.work.slot = slot as u16;
                place.waited_since = std::mem::take(&mut conn.work.waits_since);
                return Offer::Place(place);
            }
        }
        seat.waiting.push(conn.id, least, 1);
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
    /// Moves the connection to this seat, also while it only waits there.
    fn move_to(&self, conn: &mut Connection, seat: usize) {
        let last = std::mem::replace(&mut conn.work.seat, seat as u16);
        // A mailbox is no load.
        if usize::from(last) != seat && conn.target == Target::Dispatched {
            self.loads.move_seat(usize::from(last), seat);
        }
    }
}
