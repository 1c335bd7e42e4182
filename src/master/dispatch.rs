//! The dispatch modes: which seat serves a connection, and which seat gets its next frame.
//!
//! Runs in the reactor threads. Its one rule: loads only guide. They are counters that all reactors
//! share, read and written in relaxed order: a stale value costs balance and nothing else.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use super::seats::Seats;
use crate::config::Config;
use crate::config::policy::{Dispatch, Dispatcher, Route, RouteFn};
use crate::flow::deliver::Want;
use crate::limited::{Topic, limited};
use crate::net::connection::{Connection, Target, Wait};
use crate::peer::Peer;

impl Seats {
    /// Returns the seat for the connection's next frame; `None` while no seat takes one.
    pub(super) fn choose(&self, conn: &Connection, want: Want<'_>) -> Option<usize> {
        let seat = usize::from(conn.work.seat);
        match conn.target {
            Target::Dispatched => {}
            Target::Seat(seat) => return Some(usize::from(seat)),
            Target::Any => {
                let (least, workers) = (want.least(), self.workers());
                return self
                    .loads
                    .least_busy(workers, |seat| self.free_slot(seat, least));
            }
            Target::Task => {
                let (least, workers) = (want.least(), self.task_workers());
                return self
                    .loads
                    .least_busy(workers, |seat| self.free_slot(seat, least));
            }
        }
        match &self.dispatcher {
            Dispatcher::Mode(Dispatch::LeastBusy) if conn.work.in_flight > 0 => Some(seat),
            Dispatcher::Mode(Dispatch::LeastBusy) => {
                let is_newcomer = conn.work.wait != Wait::Turn;
                if is_newcomer && (!self.waiting.is_empty() || self.elder().is_some()) {
                    return None;
                }
                let least = want.least() + conn.work.carried().len();
                self.loads
                    .least_busy(self.workers(), |seat| self.free_slot(seat, least))
            }
            Dispatcher::Mode(Dispatch::UserId) if conn.work.user().is_some() => {
                conn.work.user().map(|user| self.loads.seat_of(user))
            }
            Dispatcher::Mode(Dispatch::ClientAddress) => Some(seat),
            Dispatcher::Mode(
                Dispatch::LeastConnections | Dispatch::RoundRobin | Dispatch::UserId,
            ) => Some(match self.seats[seat].is_abandoned() {
                true => self.loads.fewest_connections(),
                false => seat,
            }),
            Dispatcher::Function(function) => {
                Some(self.ask_function(function.as_ref(), conn, want))
            }
        }
    }

    /// Returns the seat that the user's function chooses.
    fn ask_function(&self, function: &RouteFn, conn: &Connection, want: Want<'_>) -> usize {
        let route = Route {
            conn: conn.id,
            peer: conn.peer,
            listener: conn.listener,
            user: conn.work.user(),
            message: match want {
                Want::Message(message) => Some(message),
                Want::Event | Want::Bytes { .. } => None,
            },
            seat: usize::from(conn.work.seat),
            seats: self.workers,
        };
        match catch_unwind(AssertUnwindSafe(|| function(&route))) {
            Ok(seat) => seat % self.workers,
            Err(_) => {
                let seat = usize::from(conn.work.seat);
                limited!(
                    error,
                    Topic::Function,
                    "the dispatch function panicked: connection {} stays at worker#{seat}",
                    conn.id
                );
                seat
            }
        }
    }

    /// Returns the seat's slot, if its worker takes a message of `len` bytes now that may go anywhere.
    pub(super) fn free_slot(&self, seat: usize, len: usize) -> Option<usize> {
        let slot = self.seats[seat].slot?;
        let takes = !self.seats[seat].is_abandoned() && !self.loads.is_full(slot);
        (takes && self.slots[slot].has_room(len)).then_some(slot)
    }
}

/// No worker has as many frames: a frame takes at least 64 bytes of an inbox. More are not counted.
const MOST_FRAMES: usize = 1 << 16;

/// The loads of the workers: connections of each seat, frames of each slot.
#[derive(Debug)]
pub(crate) struct SeatLoads {
    /// Also those of task workers, which come last.
    seats: Vec<SeatLoad>,
    /// The number of seats that serve clients.
    workers: usize,
    slots: Vec<SlotLoad>,
    /// By reactor: since when the first connection in its common queue waits, in microseconds; 0 if none does.
    waiting_since: Vec<AtomicU64>,
    /// Breaks ties: seats of equal load are taken in turn.
    turn: AtomicUsize,
}

#[derive(Debug, Default)]
struct SeatLoad {
    connections: AtomicUsize,
    /// The seat has no ready worker.
    empty: AtomicBool,
}

/// The load of the worker in a slot; counted only in modes that dispatch each message.
#[derive(Debug)]
struct SlotLoad {
    /// Frames in its inboxes, of all reactors.
    frames: AtomicUsize,
    /// Frames that it has finished, of all reactors.
    done: AtomicUsize,
    /// When it finished the last one, in microseconds.
    done_at: AtomicU64,
    /// The most frames that it is given at a time.
    most: AtomicUsize,
}

impl SlotLoad {
    fn new() -> SlotLoad {
        SlotLoad {
            frames: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
            done_at: AtomicU64::new(0),
            most: AtomicUsize::new(1),
        }
    }
}

impl SeatLoads {
    pub(crate) fn of(config: &Config) -> SeatLoads {
        let seats = (config.workers, config.seats());
        SeatLoads::new(seats, config.slots(), config.reactors)
    }

    fn new((workers, seats): (usize, usize), slots: usize, reactors: usize) -> SeatLoads {
        SeatLoads {
            workers,
            seats: (0..seats).map(|_| SeatLoad::default()).collect(),
            slots: (0..slots).map(|_| SlotLoad::new()).collect(),
            waiting_since: (0..reactors).map(|_| AtomicU64::new(0)).collect(),
            turn: AtomicUsize::new(0),
        }
    }

    /// Returns the seat for a new connection, and counts the connection there.
    pub(crate) fn enter_seat(&self, dispatcher: &Dispatcher, peer: Peer) -> usize {
        let seat = match dispatcher {
            Dispatcher::Mode(Dispatch::RoundRobin) => self.next_in_turn(),
            Dispatcher::Mode(Dispatch::ClientAddress) => self.seat_of(peer.client()),
            Dispatcher::Mode(
                Dispatch::LeastConnections | Dispatch::LeastBusy | Dispatch::UserId,
            )
            | Dispatcher::Function(_) => self.fewest_connections(),
        };
        self.seats[seat].connections.fetch_add(1, Ordering::Relaxed);
        seat
    }

    /// A connection changes its seat.
    pub(crate) fn move_seat(&self, from: usize, to: usize) {
        self.seats[from].connections.fetch_sub(1, Ordering::Relaxed);
        self.seats[to].connections.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the seat with the fewest connections. An empty seat, without a ready worker, is taken only
    /// when all seats are empty.
    pub(crate) fn fewest_connections(&self) -> usize {
        self.least(|load| {
            (
                load.empty.load(Ordering::Relaxed),
                load.connections.load(Ordering::Relaxed),
            )
        })
    }

    /// Returns the seat with the fewest frames in its worker's inboxes, among those of `among` with a slot by
    /// `slot_of`.
    pub(crate) fn least_busy(
        &self,
        among: Range<usize>,
        slot_of: impl Fn(usize) -> Option<usize>,
    ) -> Option<usize> {
        let from = self.turn.fetch_add(1, Ordering::Relaxed);
        let seats = among.len();
        (0..seats)
            .map(|i| among.start + (from + i) % seats)
            .filter_map(|seat| slot_of(seat).map(|slot| (seat, self.frames(slot))))
            .min_by_key(|(_, frames)| *frames)
            .map(|(seat, _)| seat)
    }

    /// Returns the seat of a user or an address, always the same one for the same key.
    pub(crate) fn seat_of(&self, key: impl Hash) -> usize {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        (hasher.finish() % self.workers as u64) as usize
    }

    fn next_in_turn(&self) -> usize {
        // Empty seats are passed over, unless all seats are empty.
        self.least(|load| load.empty.load(Ordering::Relaxed))
    }

    /// Returns the seat of the lowest rank; of equal ones, the next in turn.
    fn least<R: Ord>(&self, rank: impl Fn(&SeatLoad) -> R) -> usize {
        let from = self.turn.fetch_add(1, Ordering::Relaxed);
        let seats = self.workers;
        (0..seats)
            .map(|i| (from + i) % seats)
            .min_by_key(|seat| rank(&self.seats[*seat]))
            .unwrap_or(0)
    }

    /// A connection of this seat is gone.
    pub(crate) fn leave_seat(&self, seat: usize) {
        self.seats[seat].connections.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn set_empty(&self, seat: usize, empty: bool) {
        self.seats[seat].empty.store(empty, Ordering::Relaxed);
    }

    /// The number of frames in the inboxes of this slot.
    pub(crate) fn frames_of(&self, slot: usize) -> &AtomicUsize {
        &self.slots[slot].frames
    }

    /// `count` frames have left the inboxes of this slot.
    pub(crate) fn frames_end(&self, slot: usize, count: usize) {
        self.slots[slot].frames.fetch_sub(count, Ordering::Relaxed);
        self.slots[slot].done.fetch_add(count, Ordering::Relaxed);
    }

    /// The worker of this slot has finished callbacks. Returns the time since it had finished one before.
    pub(crate) fn callbacks_end(&self, slot: usize, now: u64) -> Duration {
        let before = self.slots[slot].done_at.swap(now, Ordering::Relaxed);
        Duration::from_micros(now.saturating_sub(before))
    }

    /// Returns a number that changes whenever the worker of this slot finishes a frame of any reactor.
    pub(crate) fn done(&self, slot: usize) -> usize {
        self.slots[slot].done.load(Ordering::Relaxed)
    }

    /// The first connection in a reactor's common queue waits since then, in microseconds; 0: none waits.
    pub(crate) fn set_waiting(&self, reactor: usize, since: u64) {
        self.waiting_since[reactor].store(since, Ordering::Relaxed);
    }

    /// Returns the reactor, another than this one, whose first connection has waited longest, and since when.
    pub(crate) fn longest_waiting(&self, but: usize) -> Option<(usize, u64)> {
        let all = self.waiting_since.iter().enumerate();
        all.filter(|(reactor, _)| *reactor != but)
            .map(|(reactor, since)| (reactor, since.load(Ordering::Relaxed)))
            .filter(|(_, since)| *since != 0)
            .min_by_key(|(_, since)| *since)
    }

    fn frames(&self, slot: usize) -> usize {
        self.slots[slot].frames.load(Ordering::Relaxed)
    }

    /// The worker of this slot takes long, or nothing is known of it: it is given one frame at a time.
    pub(crate) fn set_slow(&self, slot: usize) {
        self.slots[slot].most.store(1, Ordering::Relaxed);
    }

    /// The worker of this slot has finished `callbacks` quickly: it is given as many frames more at a time.
    ///
    /// So their number doubles as long as it is quick. A worker that was slow, and has only run a `connect` meanwhile,
    /// is not given all frames that wait.
    pub(crate) fn set_quick(&self, slot: usize, callbacks: usize) {
        let most = &self.slots[slot].most;
        let known = most.load(Ordering::Relaxed);
        if known < MOST_FRAMES {
            most.store(known + callbacks, Ordering::Relaxed);
        }
    }

    /// Whether the worker of this slot has as many frames as it is given at a time.
    pub(crate) fn is_full(&self, slot: usize) -> bool {
        self.frames(slot) >= self.slots[slot].most.load(Ordering::Relaxed)
    }

    /// Whether any seat that serves clients has a ready worker.
    pub(crate) fn has_ready_seat(&self) -> bool {
        let is_empty = |load: &SeatLoad| load.empty.load(Ordering::Relaxed);
        !self.seats[..self.workers].iter().all(is_empty)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULT: Dispatcher = Dispatcher::Mode(Dispatch::LeastConnections);

    fn peer(last: u8) -> Peer {
        Peer::Ip(([10, 0, 0, last], 1000).into())
    }

    #[test]
    fn new_connections_go_to_the_seat_with_the_fewest() {
        let loads = SeatLoads::new((3, 3), 4, 1);
        for _ in 0..7 {
            loads.enter_seat(&DEFAULT, peer(1));
        }
        loads.leave_seat(1);
        loads.leave_seat(1);
        assert_eq!(loads.enter_seat(&DEFAULT, peer(1)), 1);
    }

    #[test]
    fn an_empty_seat_is_taken_only_when_all_are_empty() {
        let loads = SeatLoads::new((2, 2), 3, 1);
        loads.set_empty(0, true);
        let enter = || loads.enter_seat(&DEFAULT, peer(1));
        assert_eq!([enter(), enter()], [1, 1]);
        loads.set_empty(1, true);
        assert_eq!(enter(), 0);
    }

    #[test]
    fn round_robin_ignores_the_number_of_connections() {
        let loads = SeatLoads::new((3, 3), 4, 1);
        let round_robin = Dispatcher::Mode(Dispatch::RoundRobin);
        let taken: Vec<usize> = (0..6)
            .map(|_| loads.enter_seat(&round_robin, peer(1)))
            .collect();
        assert_eq!(taken, [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn an_address_has_one_seat_for_all_its_ports() {
        let loads = SeatLoads::new((5, 5), 6, 1);
        let by_address = Dispatcher::Mode(Dispatch::ClientAddress);
        let seats: Vec<usize> = (0..50)
            .map(|last| loads.enter_seat(&by_address, peer(last)))
            .collect();
        let again =
            |last: u8| loads.enter_seat(&by_address, Peer::Ip(([10, 0, 0, last], 77).into()));
        assert_eq!(seats, (0..50).map(again).collect::<Vec<_>>());
        for seat in 0..5 {
            assert!(seats.contains(&seat), "{seats:?}");
        }
    }

    #[test]
    fn the_least_busy_seat_is_one_that_takes_a_frame() {
        let loads = SeatLoads::new((3, 3), 4, 1);
        for slot in [0, 0, 1, 3] {
            loads.frames_of(slot).fetch_add(1, Ordering::Relaxed);
        }
        // Seat 1 has changed to another slot.
        let slot_of = |seat| Some([0, 2, 1][seat]);
        assert_eq!(loads.least_busy(0..3, slot_of), Some(1));
        let but_full = |seat| slot_of(seat).filter(|slot| !loads.is_full(*slot));
        assert_eq!(loads.least_busy(0..3, but_full), Some(1));
        loads.frames_of(2).fetch_add(1, Ordering::Relaxed);
        assert_eq!(loads.least_busy(0..3, but_full), None);
        assert_eq!(loads.least_busy(0..3, |_| None), None);
    }

    #[test]
    fn a_worker_is_given_twice_as_many_frames_as_long_as_it_is_quick() {
        let loads = SeatLoads::new((1, 1), 2, 1);
        let most = || {
            let frames = loads.frames_of(0);
            frames.store(0, Ordering::Relaxed);
            while !loads.is_full(0) {
                frames.fetch_add(1, Ordering::Relaxed);
            }
            frames.load(Ordering::Relaxed)
        };
        for expected in [1, 2, 4, 8] {
            assert_eq!(most(), expected);
            loads.set_quick(0, expected);
        }
        (0..100).for_each(|_| loads.set_quick(0, most()));
        assert!(most() >= MOST_FRAMES && most() < 2 * MOST_FRAMES);
        loads.set_slow(0);
        assert_eq!(most(), 1);
    }

    #[test]
    fn the_longest_waiting_reactor_is_another_one() {
        let loads = SeatLoads::new((1, 1), 2, 3);
        assert_eq!(loads.longest_waiting(0), None);
        loads.set_waiting(0, 5);
        loads.set_waiting(1, 9);
        loads.set_waiting(2, 7);
        assert_eq!(loads.longest_waiting(0), Some((2, 7)));
        assert_eq!(loads.longest_waiting(1), Some((0, 5)));
        loads.set_waiting(2, 0);
        assert_eq!(loads.longest_waiting(0), Some((1, 9)));
    }
}
