//! The other end of *submit* in process mode: every seat, and a link to each berth, seen from one
//! reactor.
//!
//! A seat is where connections belong; a berth is the memory that one worker works with. Whoever has
//! the seat has it in some berth, and a worker that leaves is still in another one.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::watch::{Berth, LOOK, SLOW, Seat};
use crate::config::Config;
use crate::deliver::{Deliver, Place};
use crate::id::ConnId;
use crate::ipc::frame;
use crate::ipc::layout::BerthMemory;
use crate::ipc::link::Returned;
use crate::ipc::memory::Room;
use crate::net::connection::{Connection, Step, Wait};
use crate::net::connections::Connections;
use crate::net::dispatch::Loads;
use crate::policy::{Dispatch, Dispatcher, Route, RouteFn};
#[cfg(feature = "status")]
use crate::status::BerthStatus;

/// The shortest queue that is swept.
const SWEEP: usize = 64;

/// All seats by number, and all berths by number.
pub(crate) struct Seats {
    seats: Vec<Seat>,
    berths: Vec<Berth>,
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
        memory: &[BerthMemory],
        reactor: usize,
        config: &Config,
        loads: Arc<Loads>,
    ) -> Seats {
        let budget = config.commit_budget();
        Seats {
            seats: (0..config.workers).map(|_| Seat::new()).collect(),
            berths: memory
                .iter()
                .map(|memory| Berth::new(memory, reactor, budget))
                .collect(),
            waiting: Queue::new(),
            dispatcher: config.dispatcher.clone(),
            loads,
            looked: Instant::now(),
        }
    }

    pub(super) fn berth(&mut self, berth: usize) -> &mut Berth {
        &mut self.berths[berth]
    }

    /// What is known of the workers that were given something.
    #[cfg(feature = "status")]
    pub(super) fn berths_in_use(&mut self) -> Vec<BerthStatus> {
        let now = Instant::now();
        let berths = self.berths.iter_mut();
        let in_use = berths.filter(|berth| berth.link.in_flight() > 0);
        in_use.map(|berth| berth.status(now)).collect()
    }

    /// Of the worker in that berth.
    #[cfg(feature = "status")]
    pub(super) fn generation(&self, berth: usize) -> u32 {
        self.berths[berth].link.generation()
    }

    pub(super) fn berth_count(&self) -> usize {
        self.berths.len()
    }

    /// Rings for every berth that was given frames and sleeps: once for all of them.
    pub(crate) fn ring(&mut self) {
        self.berths.iter_mut().for_each(Berth::ring);
    }

    /// Whether a worker has published something.
    pub(crate) fn have_output(&mut self) -> bool {
        self.berths.iter_mut().any(|berth| berth.link.has_output())
    }

    /// How many frames are with workers.
    pub(crate) fn in_flight(&self) -> usize {
        self.berths.iter().map(|berth| berth.link.in_flight()).sum()
    }

    // Who has which seat

    /// This worker has the seat now, in this berth. Says in which one the seat's last worker is, if
    /// it has not ended yet.
    pub(super) fn take_seat(
        &mut self,
        seat: usize,
        berth: usize,
        generation: u32,
    ) -> Option<usize> {
        let last = self.seats[seat].berth.replace(berth);
        let taken = &mut self.berths[berth];
        taken.seat = seat;
        taken.link.open(generation);
        taken.wake();
        last.filter(|last| *last != berth)
    }

    /// The worker of this berth has ended. If it still had its seat, that is empty now.
    pub(super) fn leave_berth(&mut self, berth: usize) {
        let seat = &mut self.seats[self.berths[berth].seat];
        if seat.berth == Some(berth) {
            seat.berth = None;
            seat.is_empty_since(Instant::now());
        }
        // Nothing of it is left for others to wait behind.
        self.loads.set_slow(berth, false);
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

    fn link_of(&self, seat: usize) -> Option<&Berth> {
        self.seats[seat].berth.map(|berth| &self.berths[berth])
    }

    fn has_room(&self, seat: usize, len: usize) -> bool {
        self.link_of(seat)
            .is_some_and(|berth| berth.link.has_room(len))
    }

    /// The berth where a message that may go anywhere can go now, if this seat's can.
    fn taker(&self, seat: usize, len: usize) -> Option<usize> {
        let berth = self.seats[seat].berth?;
        let takes = !self.seats[seat].is_away() && !self.loads.is_stuck(berth);
        (takes && self.has_room(seat, len)).then_some(berth)
    }

    // Frames that come back

    /// So many frames have left the inbox of a berth, done or not.
    pub(super) fn frames_end(&self, berth: usize, count: usize) {
        if self.dispatcher.is_per_message() {
            self.loads.frames_end(berth, count);
        }
    }

    /// The worker of a berth has finished frames, of which the first was `oldest`: whether it is
    /// slow is known anew.
    pub(super) fn finished(&self, berth: usize, oldest: Option<u64>, count: usize) {
        if self.dispatcher.is_per_message() {
            self.loads.frames_end(berth, count);
            let was_slow =
                count == 1 && self.berths[berth].is_older_than(oldest, SLOW, Instant::now());
            self.loads.set_slow(berth, was_slow);
        }
    }

    /// Looks which workers have not finished a frame for long, at most every few milliseconds.
    /// Returns the berths whose frames are to be taken back.
    pub(super) fn look(&mut self, io: &mut Connections, now: Instant) -> Vec<usize> {
        if now.duration_since(self.looked) < LOOK {
            return Vec::new();
        }
        self.looked = now;
        let mut stuck = self.look_at_empty_seats(io, now);
        for number in 0..self.berths.len() {
            let berth = &mut self.berths[number];
            let age = berth.look(now);
            if self.dispatcher.is_per_message() {
                if age < SLOW {
                    continue;
                }
                // Also where it has begun nothing of ours: it is at another reactor's frame, or
                // does not run at all.
                self.loads.set_slow(number, true);
                if berth.unbegun() > 0 {
                    stuck.push(number);
                }
                let seat = &mut self.seats[berth.seat];
                if seat.berth == Some(number) {
                    seat.waiting.disperse(io, |_| true);
                }
            } else {
                let queued = self.seats[berth.seat].waiting.len();
                berth.complain(age, queued);
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
                    let is_given = |berth: &usize| self.berths[*berth].unbegun() > 0;
                    deserted.extend(seat.berth.filter(is_given));
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

    fn count(&self, berth: usize) {
        if self.dispatcher.is_per_message() {
            self.loads.frame_begins(berth);
        }
    }

    // Placing

    /// Where the user's function sends it.
    fn ask(&self, function: &RouteFn, conn: &Connection, message: Option<&[u8]>) -> usize {
        let route = Route {
            conn: conn.id,
            peer: conn.peer,
            listener: usize::from(conn.listener),
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
        let berth = usize::from(conn.berth);
        let is_elsewhere = self.seats[seat].berth != Some(berth);
        let would_wait = self.dispatcher.is_per_message() && self.loads.is_stuck(berth);
        if conn.in_flight > 0 && (is_elsewhere || would_wait) {
            return Place::WhenQuiet;
        }
        Place::Seat(seat as u16)
    }

    fn looks_at_messages(&self) -> bool {
        matches!(self.dispatcher, Dispatcher::Function(_))
    }

    fn berth_of(&self, seat: u16) -> u16 {
        // Asked of a seat that was given a frame: somebody has it.
        self.seats[usize::from(seat)].berth.unwrap_or_default() as u16
    }

    fn room(&mut self, seat: u16, bounds: RangeInclusive<usize>, turn: bool) -> Option<Room<'_>> {
        let seat = &self.seats[usize::from(seat)];
        if turn || seat.waiting.is_empty() {
            let berth = seat.berth?;
            self.berths[berth].link.room(bounds)
        } else {
            None
        }
    }

    fn submit(&mut self, _: &mut Connections, seat: u16, input: &frame::Input) -> Step {
        let seat = usize::from(seat);
        if let Some(berth) = self.seats[seat].berth {
            self.berths[berth].submit(input);
            self.count(berth);
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
        let berth = self.seats[usize::from(seat)].berth?;
        self.berths[berth].submit_copy(input, body);
        self.count(berth);
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
