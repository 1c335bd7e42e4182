//! The fork of a worker, and what the child closes and resets before it runs user code.
//!
//! Runs in the manager and in the new worker. Its one rule: a worker keeps nothing of the manager's but
//! its [`Incarnation`].

use super::effects::{End, Supervised, failed};
use super::{Manager, NOTES};
use crate::control::Notes;
use crate::ipc::sync::Ordering;
use crate::limited;
use crate::panics;
use crate::role::Role;
use crate::sys::epoll::Interest;
use crate::sys::pipe::{Receiver, pipe};
use crate::sys::process::{self, Fork, ProcessId};
use crate::sys::signal;
use crate::worker::{Body, Incarnation};

impl<'a> Manager<'a> {
    /// Forks a worker into an empty slot. Returns its pid and the pipe of its notes. The child returns
    /// `End::Child`, which leaves the manager's loop; `End::Failed` means that no process exists.
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
        // The slot still shows the last callback of the worker before.
        memory.words.activity.reset();
        // Blocked, so that no signal arrives between the manager's handlers and the worker's own.
        let mask = signal::block().map_err(failed("block signals"))?;
        match process::fork().map_err(failed("fork a worker"))? {
            Fork::Parent(pid) => {
                drop(mask);
                Ok((pid, watched))
            }
            Fork::Child => {
                process::die_with(parent);
                Role::of_worker(seat).take();
                limited::forget();
                // The worker unblocks them when it has its own handlers.
                std::mem::forget(mask);
                let Some((sender, manager)) = self.lifeline.take() else {
                    process::exit_now(1)
                };
                drop((sender, watched));
                if let Err(error) = manager.kill_at_end() {
                    log::debug!(
                        "this worker outlives its manager if a callback changes its user: {error}"
                    );
                }
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
