//! The states of connections, looked at every few milliseconds by a thread of its own.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Turn, lock};
use crate::lab::end::Ends;
use crate::lab::picture::Side;
use crate::sockets::{SocketTable, State};

/// The time between two looks. A state that is shorter may be missed: over loopback the four segments
/// of a close take 50 µs.
const LOOK: Duration = Duration::from_millis(1);

/// It stops when it is dropped.
pub(super) struct States {
    pub(super) turns: Arc<Mutex<Vec<Turn>>>,
    followed: Arc<Mutex<Vec<Ends>>>,
    /// How often all of them were looked at.
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
                    std::thread::sleep(LOOK);
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
    /// Waits until what is so now was looked at; not for ever, on a busy machine.
    pub(super) fn settle(&self) {
        let (begin, before) = (Instant::now(), self.looks.load(Ordering::Acquire));
        // The first one may have begun before.
        while self.looks.load(Ordering::Acquire) < before + 2
            && begin.elapsed() < Duration::from_secs(2)
        {
            std::thread::sleep(LOOK);
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
        // What can't be seen now is looked for again in a millisecond.
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
            // One that panicked has said so.
            let _ = thread.join();
        }
    }
}
