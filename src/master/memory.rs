//! The memory of new workers on its way to the reactors, and the end of the reactor threads.
//!
//! Runs in the master's main thread, as `mod.rs` does. Its one rule: nothing is waited for without a limit.

use std::convert::Infallible;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::reactor::Command;
use super::{LAST_PATIENCE, Master};
use crate::control::Order;
use crate::ipc::arena::{Sizes, SlotFiles, SlotMemory};
use crate::net::disk;
use crate::net::files::close_later;

impl Master {
    /// Descriptors of a new worker's memory have come, and `left` more follow. With the last one, all
    /// reactors get it. A worker whose memory can't be had is of no use.
    pub(super) fn memory_arrived(
        &mut self,
        (slot, generation): (usize, u32),
        descriptors: Vec<OwnedFd>,
        left: u32,
    ) {
        self.arriving.extend(descriptors);
        if left > 0 {
            return;
        }
        let descriptors = std::mem::take(&mut self.arriving);
        let count = descriptors.len();
        let mapped = match SlotFiles::received(Sizes::of(&self.config), descriptors) {
            Some(files) => files.map_for_master().map_err(|error| error.to_string()),
            None => Err(format!(
                "{count} of its descriptors have come: is the limit of open files reached?"
            )),
        };
        match mapped {
            Ok(memory) => {
                let memory = Arc::new(memory);
                self.send_all(|| Command::SlotForked {
                    slot,
                    generation,
                    memory: Arc::clone(&memory),
                });
            }
            Err(problem) => {
                log::error!(
                    "cannot map the memory of a new worker: {problem}; it is killed, and another one is started"
                );
                let slot = slot as u32;
                self.orders.send(Order::KillWorker { slot, generation });
            }
        }
    }

    /// Ends the reactor threads.
    pub(super) fn stop_reactors(&mut self) {
        self.send_all(|| Command::Stop);
        self.threads.end_within(LAST_PATIENCE);
        disk::finish();
    }
}

/// Gives back the memory of a worker that is dead, or a reactor's part in it.
pub(super) fn give_back(memory: Arc<SlotMemory>) {
    let files = memory.files.clone();
    drop(memory);
    if let Some(files) = files.filter(|files| files.has_unread()) {
        // Whatever it has left there: to close it may take long.
        close_later(files);
    }
}

/// The reactor threads.
pub(super) struct Threads {
    all: Vec<JoinHandle<()>>,
    /// Each thread has a clone, and sends nothing: it is gone with the thread.
    alive: Sender<Infallible>,
    ended: Receiver<Infallible>,
}

impl Threads {
    pub(super) fn new() -> Threads {
        let (alive, ended) = bounded(0);
        Threads {
            all: Vec::new(),
            alive,
            ended,
        }
    }

    pub(super) fn start(
        &mut self,
        name: String,
        run: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        let alive = self.alive.clone();
        let thread = Builder::new().name(name).spawn(move || {
            run();
            drop(alive);
        });
        self.all.push(thread?);
        Ok(())
    }

    /// Waits until they have ended, and leaves behind those that have not by then: a thread that the kernel
    /// holds must not keep the server from its end. Returns how many are left behind.
    pub(super) fn end_within(&mut self, patience: Duration) -> usize {
        let Threads { all, alive, ended } = std::mem::replace(self, Threads::new());
        drop(alive);
        let have_ended = ended.recv_timeout(patience) == Err(RecvTimeoutError::Disconnected);
        let mut left = 0;
        for thread in all {
            if have_ended || thread.is_finished() {
                // A panic was logged by the thread itself.
                let _ = thread.join();
            } else {
                left += 1;
                let name = thread.thread().name().unwrap_or_default();
                log::error!("{name} did not end within {patience:?}: it is left behind");
            }
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_does_not_end_is_left_behind() {
        let (go, wait) = bounded::<()>(0);
        let mut threads = Threads::new();
        threads.start("short".into(), || {}).unwrap();
        threads
            .start("stuck".into(), move || _ = wait.recv())
            .unwrap();
        assert_eq!(threads.end_within(Duration::from_millis(20)), 1);
        drop(go);
        threads.start("short".into(), || {}).unwrap();
        assert_eq!(threads.end_within(Duration::from_secs(600)), 0);
    }
}
