//! Reads the states of connections every few milliseconds, in a thread of its own.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Turn, lock};
use crate::lab::end::Ends;
use crate::lab::picture::Side;
use crate::sockets::{SocketTable, State};

/// Time between two readings. A shorter state may be missed: over loopback the four segments of a close
/// take 50 µs.
const INTERVAL: Duration = Duration::from_millis(1);

/// The thread, and its changes of state. It stops when this is dropped.
pub(super) struct States {
    pub(super) turns: Arc<Mutex<Vec<Turn>>>,
    followed: Arc<Mutex<Vec<Ends>>>,
    /// Number of times that all connections were read.
    looks: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl States {
    pub(super) fn start() -> io::Result<States> {
        let mut table = SocketTable::open()?;
        let (turns, followed) = <(Arc<Mutex<Vec<Turn>>>, Arc<Mutex<Vec<Ends>>>)>::default();
        let (looks, stop) = <(Arc<AtomicU64>, Arc<AtomicBool>)>::default();
        let counts = Arc::clone(&looks);
        let (to, of, ends) = (Arc::clone(&turns), Arc::clone(&followed), Arc::clone(&stop));
        let thread = std::thread::Builder::new()
            .name("lab states".to_owned())
            .spawn(move || {
                let mut last: Vec<[Option<State>; 2]> = Vec::new();
                while !ends.load(Ordering::Relaxed) {
                    let followed = lock(&of).clone();
                    last.resize(followed.len(), [None; 2]);
                    for (ends, last) in followed.into_iter().zip(&mut last) {
                        look(&mut table, ends, last, &to);
                    }
                    counts.fetch_add(1, Ordering::Release);
                    std::thread::sleep(INTERVAL);
                }
            })?;
        Ok(States {
            turns,
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
}

impl States {
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

fn look(
    table: &mut SocketTable,
    ends: Ends,
    last: &mut [Option<State>; 2],
    turns: &Mutex<Vec<Turn>>,
) {
    for (side, last) in [Side::Client, Side::Server].into_iter().zip(last) {
        let (local, remote) = ends.of(side);
        // A query that fails is repeated in a millisecond.
        let Ok(found) = table.find(local, remote) else {
            continue;
        };
        let state = found.map(|socket| socket.state);
        if state != *last {
            *last = state;
            let at = Instant::now();
            let turn = Turn {
                at,
                ends,
                side,
                state,
            };
            lock(turns).push(turn);
        }
    }
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
