//! How a worker process comes to be: the fork, and what the child lets go of before it runs
//! anything of the user's.

use super::effects::{End, Supervised, failed};
use super::{Manager, NOTES};
use crate::control::Notes;
use crate::ipc::sync::Ordering;
use crate::role::Role;
use crate::sys::epoll::Interest;
use crate::sys::pipe::{Receiver, pipe};
use crate::sys::process::{self, Fork, ProcessId};
use crate::sys::signal;
use crate::worker::{Body, Incarnation};

impl<'a> Manager<'a> {
    /// Forks a worker into an empty slot, and watches its notes. In the child, `End::Child` leaves
    /// the manager's loop. `End::Failed` says that there is no process.
    pub(super) fn fork(
        &mut self,
        slot: usize,
        seat: Option<usize>,
        generation: u32,
    ) -> Supervised<(ProcessId, Receiver)> {
        let (notes, watched) = pipe().map_err(failed("make a worker's pipe"))?;
        // Before the fork: if it can't be watched, there is no worker that nobody hears.
        self.poller
            .add(&watched, NOTES + slot as u64, Interest::READ)
            .map_err(failed("watch a worker's notes"))?;
        let parent = ProcessId::current();
        let memory = &self.slots[slot].memory;
        let order = seat.map_or(0, |seat| seat as u32 + 1);
        memory.orders.seat.store(order, Ordering::Relaxed);
        // What the last worker in the slot was doing is not what the next one does.
        memory.words.activity.reset();
        // Blocked, so that no signal falls between the manager's handlers and the worker's own.
        let mask = signal::block().map_err(failed("block signals"))?;
        match process::fork().map_err(failed("fork a worker"))? {
            Fork::Parent(pid) => {
                drop(mask);
                Ok((pid, watched))
            }
            Fork::Child => {
                process::die_with(parent);
                Role::of_worker(seat).take();
                self.signals.forget();
                // The worker unblocks them when it listens itself.
                std::mem::forget(mask);
                let Some((sender, manager)) = self.alive.take() else {
                    process::exit_now(1)
                };
                drop((sender, watched));
                Err(End::Child(Incarnation {
                    slot,
                    seat,
                    generation,
                    notes: Notes::new(notes),
                    manager,
                    parent,
                }))
            }
        }
    }

    /// What a worker takes with it. Everything else of the manager's is dropped, and its
    /// descriptors closed; but for the hooks, whose captures are the manager's to drop.
    pub(super) fn into_body(self) -> Body<'a> {
        let Manager { body, hooks, .. } = self;
        std::mem::forget(hooks);
        body
    }
}

/// The exit status of a process that panicked, as of any Rust program.
pub(crate) const PANICKED: i32 = 101;

/// Runs the body of a forked process. A panic is logged and ends here: the frames above on the stack
/// are the parent's.
pub(crate) fn guarded(run: impl FnOnce() -> i32) -> i32 {
    if log::max_level() != log::LevelFilter::Off {
        std::panic::set_hook(Box::new(|info| log::error!("{info}")));
    }
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).unwrap_or(PANICKED)
}
