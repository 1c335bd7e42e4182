//! How a worker process comes to be: the fork, and what the child lets go of before it runs
//! anything of the user's.

use super::handle::Handle;
use super::{End, Manager, NOTES, Supervised, failed};
use crate::control::Notes;
use crate::role::Role;
use crate::sys::epoll::Interest;
use crate::sys::pipe::pipe;
use crate::sys::process::{self, Fork, ProcessId};
use crate::sys::signal;
use crate::worker::{Body, Incarnation};

impl<'a> Manager<'a> {
    /// Forks a process for a slot. In the child, `End::Child` leaves the manager's loop.
    pub(super) fn fork(&mut self, slot: usize) -> Supervised<Handle> {
        let (notes, watched) = pipe().map_err(failed("make a worker's pipe"))?;
        // Before the fork: if it can't be watched, there is no worker that nobody hears.
        self.poller
            .add(&watched, NOTES + slot as u64, Interest::READ)
            .map_err(failed("watch a worker's notes"))?;
        let parent = ProcessId::current();
        // Blocked, so that no signal falls between the manager's handlers and the worker's own.
        let mask = signal::block().map_err(failed("block signals"))?;
        // Nobody is in the slot: what the last one was at is not what the next one is.
        self.slots[slot].memory.words.activity.reset();
        let fork = process::fork().map_err(failed("fork a worker"))?;
        self.last_generation += 1;
        let generation = self.last_generation;
        match fork {
            Fork::Parent(pid) => {
                drop(mask);
                Ok(Handle::new(pid, generation, watched))
            }
            Fork::Child => {
                process::die_with(parent);
                let seat = self.slots[slot].post.seat();
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

/// Runs what a forked process is for. A panic is logged and ends here: what is above on the stack
/// is the parent's.
pub(crate) fn guarded(run: impl FnOnce() -> i32) -> i32 {
    if log::max_level() != log::LevelFilter::Off {
        std::panic::set_hook(Box::new(|info| log::error!("{info}")));
    }
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).unwrap_or(PANICKED)
}
