//! The fork of a worker, and what the child closes and resets before it runs user code.
//!
//! Runs in the manager and in the new worker. Its one rule: a worker keeps nothing of the manager's but
//! its [`Incarnation`].

use super::effects::{End, Supervised, failed};
use super::handle::Handle;
use super::{Manager, NOTES};
use crate::control::{self, Notes};
use crate::ipc::arena::{Sizes, SlotFiles};
use crate::ipc::sync::Ordering;
use crate::limited;
use crate::panics;
use crate::role::Role;
use crate::sys::epoll::{Interest, Poller};
use crate::sys::pipe::pipe;
use crate::sys::process::{self, Fork, ProcessId};
use crate::sys::signal;
use crate::worker::{BELL, Body, Incarnation};

impl<'a> Manager<'a> {
    /// Forks a worker into an empty slot. Returns its handle. The child returns
    /// `End::Child`, which leaves the manager's loop; `End::Failed` means that no process exists.
    pub(super) fn fork(
        &mut self,
        slot: usize,
        seat: Option<usize>,
        generation: u32,
    ) -> Supervised<Handle> {
        let (notes, watched) = pipe().map_err(failed("make a worker's pipe"))?;
        // One for each worker: what is shared between workers is a way from one to another.
        let (lifeline, manager) = pipe().map_err(failed("make a worker's lifeline"))?;
        // Before the fork: if it can't be watched, there is no worker that nobody hears.
        self.poller
            .add(&watched, NOTES + slot as u64, Interest::READ)
            .map_err(failed("watch a worker's notes"))?;
        let (passage, channel) = self.make_passage(slot)?.unzip();
        let files = self.make_memory(slot)?;
        let parent = ProcessId::current();
        let memory = &self.slots[slot].memory;
        let poller = Poller::new().map_err(failed("make a worker's epoll"))?;
        poller
            .add(&memory.bell, BELL, Interest::BELL)
            .map_err(failed("watch a worker's doorbell"))?;
        let order = seat.map_or(0, |seat| seat as u32 + 1);
        memory.orders.seat.store(order, Ordering::Relaxed);
        // The slot still shows the last callback of the worker before.
        memory.words.activity.reset();
        // Blocked, so that no signal arrives between the manager's handlers and the worker's own.
        let mask = signal::block().map_err(failed("block signals"))?;
        match process::fork().map_err(failed("fork a worker"))? {
            Fork::Parent(pid) => {
                drop(mask);
                self.tell_forked((slot, generation), files.as_ref());
                Ok(Handle::new(pid, watched, lifeline, passage))
            }
            Fork::Child => {
                process::die_with(parent);
                Role::of_worker(seat).take();
                limited::forget();
                // The worker unblocks them when it has its own handlers.
                std::mem::forget(mask);
                drop((lifeline, watched, passage));
                if let Err(error) = manager.kill_at_end() {
                    log::debug!(
                        "this worker outlives its manager if a callback changes its user: {error}"
                    );
                }
                Err(End::Child(Box::new(Incarnation {
                    slot,
                    seat,
                    generation,
                    files,
                    poller,
                    notes: Notes::new(notes),
                    manager,
                    channel,
                    parent,
                })))
            }
        }
    }

    /// In process mode, makes new memory for the next worker in a slot: what the last one has left behind,
    /// a process or a mapping, has no part in it.
    fn make_memory(&mut self, slot: usize) -> Supervised<Option<SlotFiles>> {
        if self.master.is_none() {
            return Ok(None);
        }
        let sizes = Sizes::of(&self.config);
        let files = SlotFiles::new(sizes).map_err(failed("make a worker's memory"))?;
        let memory = files.map_for_manager();
        self.slots[slot].memory = memory.map_err(failed("map a worker's memory"))?;
        Ok(Some(files))
    }

    /// Sends the master the memory of a new worker. That a master is dead is noticed by the end of its
    /// orders.
    fn tell_forked(&self, worker: (usize, u32), files: Option<&SlotFiles>) {
        if let (Some(master), Some(files)) = (&self.master, files)
            && let Err(error) = control::tell_forked(&master.news, worker, &files.descriptors())
        {
            log::error!("cannot send the master the memory of a worker: {error}");
        }
    }

    /// Returns the body that a worker runs. Everything else of the manager's is dropped, which closes
    /// its descriptors; the hooks are forgotten, as the manager itself drops their captures.
    pub(super) fn into_body(self) -> Body<'a> {
        let Manager { body, hooks, .. } = self;
        std::mem::forget(hooks);
        body
    }
}

/// The exit status of a process that panicked, as of any Rust program.
pub(crate) const PANICKED: i32 = 101;

/// Runs the body of a forked process. A panic is logged and stops here: the stack frames above belong to
/// the parent's code.
pub(crate) fn guarded(run: impl FnOnce() -> i32) -> i32 {
    panics::log_all();
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).unwrap_or(PANICKED)
}
