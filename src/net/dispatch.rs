//! Which reactor owns a new connection, and which seat serves it: the least loaded one.
//!
//! Loads are counters that all reactor threads of the master share. They only guide: a stale look
//! costs balance, nothing else, so relaxed order will do.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The loads of a server: its connections, by reactor and by seat.
#[derive(Debug)]
pub(crate) struct Loads {
    reactors: Vec<AtomicUsize>,
    seats: Vec<SeatLoad>,
    /// Open sockets. A connection may outlive its socket, until its `close` callback has run.
    sockets: AtomicUsize,
}

#[derive(Debug, Default)]
struct SeatLoad {
    connections: AtomicUsize,
    /// Nobody sits there who is ready.
    empty: AtomicBool,
}

impl Loads {
    pub(crate) fn new(reactors: usize, seats: usize) -> Loads {
        Loads {
            reactors: (0..reactors).map(|_| AtomicUsize::new(0)).collect(),
            seats: (0..seats).map(|_| SeatLoad::default()).collect(),
            sockets: AtomicUsize::new(0),
        }
    }

    /// Open sockets of clients in the whole process.
    pub(crate) fn sockets(&self) -> usize {
        self.sockets.load(Ordering::Relaxed)
    }

    pub(crate) fn socket_closed(&self) {
        self.sockets.fetch_sub(1, Ordering::Relaxed);
    }

    /// The reactor for a new connection, which is counted as its own from now on.
    pub(crate) fn enter_reactor(&self) -> usize {
        let load = |reactor: &usize| self.reactors[*reactor].load(Ordering::Relaxed);
        let reactor = (0..self.reactors.len()).min_by_key(load).unwrap_or(0);
        self.reactors[reactor].fetch_add(1, Ordering::Relaxed);
        self.sockets.fetch_add(1, Ordering::Relaxed);
        reactor
    }

    /// The seat for a new connection, which is counted as its own from now on. A seat that is
    /// empty, because its worker died, is only taken when all are. `turn` breaks ties,
    /// so that equal seats are taken in turn.
    pub(crate) fn enter_seat(&self, turn: usize) -> usize {
        let seats = self.seats.len();
        let rank = |seat: &usize| {
            let load = &self.seats[*seat];
            (
                load.empty.load(Ordering::Relaxed),
                load.connections.load(Ordering::Relaxed),
            )
        };
        let seat = (0..seats)
            .map(|i| (turn + i) % seats)
            .min_by_key(rank)
            .unwrap_or(0);
        self.seats[seat].connections.fetch_add(1, Ordering::Relaxed);
        seat
    }

    /// The connection is gone, and its socket was before.
    pub(crate) fn leave(&self, reactor: usize, seat: usize) {
        self.seats[seat].connections.fetch_sub(1, Ordering::Relaxed);
        self.reactors[reactor].fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn set_empty(&self, seat: usize, empty: bool) {
        self.seats[seat].empty.store(empty, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_connections_go_where_the_fewest_are() {
        let loads = Loads::new(1, 3);
        for turn in 0..7 {
            loads.enter_reactor();
            loads.enter_seat(turn);
        }
        loads.leave(0, 1);
        loads.leave(0, 1);
        assert_eq!(loads.enter_seat(0), 1);
        loads.socket_closed();
        assert_eq!(loads.sockets(), 6);
    }

    #[test]
    fn an_empty_seat_is_taken_only_when_all_are_empty() {
        let loads = Loads::new(1, 2);
        loads.set_empty(0, true);
        assert_eq!([loads.enter_seat(0), loads.enter_seat(0)], [1, 1]);
        loads.set_empty(1, true);
        assert_eq!(loads.enter_seat(0), 0);
    }
}
