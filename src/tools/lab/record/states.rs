//! Reads the states of connections every few milliseconds, in a thread of its own.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::lock;
use crate::lab::end::Ends;
use crate::lab::picture::Side;
use crate::sockets::{Socket, SocketTable, State};

/// Time between two readings. A shorter state may be missed: over loopback the four segments of a close
/// take 50 µs.
const INTERVAL: Duration = Duration::from_millis(1);

/// The thread, and the states that it has seen. It stops when this is dropped.
pub(super) struct States {
    pub(super) seen: Arc<Mutex<Vec<Seen>>>,
    followed: Arc<Mutex<Vec<Ends>>>,
    /// Number of times that all connections were read.
    looks: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// A state of one side, in one look after the other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) ends: Ends,
    pub(super) side: Side,
    pub(super) state: Option<State>,
    pub(super) first: Look,
    pub(super) last: Look,
}

/// A question to the kernel: its answer was true at some moment between these two.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    pub(super) asked: Instant,
    pub(super) answered: Instant,
}

/// The answer about one socket.
pub(crate) struct Found {
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    /// `None`: there is no such socket.
    pub(crate) state: Option<State>,
}

impl States {
    pub(super) fn start() -> io::Result<States> {
        let mut table = SocketTable::open()?;
        let (seen, followed) = <(Arc<Mutex<Vec<Seen>>>, Arc<Mutex<Vec<Ends>>>)>::default();
        let (looks, stop) = <(Arc<AtomicU64>, Arc<AtomicBool>)>::default();
        let counts = Arc::clone(&looks);
        let (to, of, ends) = (Arc::clone(&seen), Arc::clone(&followed), Arc::clone(&stop));
        let thread = std::thread::Builder::new()
            .name("lab states".to_owned())
            .spawn(move || {
                while !ends.load(Ordering::Relaxed) {
                    let followed = lock(&of).clone();
                    for ends in followed {
                        look(&mut table, ends, &to);
                    }
                    counts.fetch_add(1, Ordering::Release);
                    std::thread::sleep(INTERVAL);
                }
            })?;
        Ok(States {
            seen,
            followed,
            looks,
            stop,
            thread: Some(thread),
        })
    }

    pub(super) fn follow(&self, ends: Ends) {
        let mut followed = lock(&self.followed);
        if !followed.contains(&ends) {
            followed.push(ends);
        }
    }

    /// Asks the kernel for something else, and records what that shows of the connections.
    pub(super) fn look<T>(
        &self,
        ask: impl FnOnce() -> T,
        found: impl FnOnce(&T) -> Vec<Found>,
    ) -> T {
        let followed = lock(&self.followed).clone();
        record(&self.seen, &followed, ask, found)
    }

    /// Returns what was seen of this connection until a time, in the order of its first looks.
    pub(super) fn of(&self, ends: Ends, until: Instant) -> Vec<Seen> {
        let is_of = |seen: &&Seen| seen.ends == ends && seen.first.asked <= until;
        lock(&self.seen).iter().filter(is_of).copied().collect()
    }

    /// Waits until the present states are read; for 2 s at most, on a busy machine.
    pub(super) fn settle(&self) {
        let (begin, before) = (Instant::now(), self.looks.load(Ordering::Acquire));
        // The first reading may have begun before this call.
        while self.looks.load(Ordering::Acquire) < before + 2
            && begin.elapsed() < Duration::from_secs(2)
        {
            std::thread::sleep(INTERVAL);
        }
    }
}

fn look(table: &mut SocketTable, ends: Ends, seen: &Mutex<Vec<Seen>>) {
    for side in Side::BOTH {
        let (local, remote) = ends.of(side);
        let found = |found: &io::Result<Option<Socket>>| match found {
            Ok(socket) => vec![Found {
                local,
                remote,
                state: socket.as_ref().map(|socket| socket.state),
            }],
            // A query that fails is repeated in a millisecond.
            Err(_) => Vec::new(),
        };
        // The recorder's own query is not needed for anything else.
        drop(record(seen, &[ends], || table.find(local, remote), found));
    }
}

/// Asks the kernel, and records what it shows of these connections. No two looks overlap, so that they have
/// an order.
fn record<T>(
    seen: &Mutex<Vec<Seen>>,
    followed: &[Ends],
    ask: impl FnOnce() -> T,
    found: impl FnOnce(&T) -> Vec<Found>,
) -> T {
    let mut seen = lock(seen);
    let asked = Instant::now();
    let answer = ask();
    let look = Look {
        asked,
        answered: Instant::now(),
    };
    for it in found(&answer) {
        let is_it = |(ends, side): &(Ends, Side)| ends.of(*side) == (it.local, it.remote);
        let both = followed
            .iter()
            .flat_map(|ends| Side::BOTH.map(|side| (*ends, side)));
        let Some((ends, side)) = both.into_iter().find(is_it) else {
            continue;
        };
        // A socket in CLOSE is about to be removed from the table.
        let state = it.state.filter(|state| *state != State::Close);
        let last = seen
            .iter_mut()
            .rfind(|it| it.ends == ends && it.side == side);
        match last {
            Some(same) if same.state == state => same.last = look,
            _ => seen.push(Seen {
                ends,
                side,
                state,
                first: look,
                last: look,
            }),
        }
    }
    answer
}

impl Drop for States {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed already.
            let _ = thread.join();
        }
    }
}
