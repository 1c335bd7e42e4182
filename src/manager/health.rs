//! How much memory the workers have, looked at from time to time.

use std::time::{Duration, Instant};

use super::Manager;
use super::effects::Supervised;
use super::roster::Event;
use crate::inspect::process;

/// How often it is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// When to look next.
#[derive(Default)]
pub(super) struct Looks {
    memory: Option<Instant>,
    /// At callbacks that run for long: see [`super::watchdog`].
    pub(super) callbacks: Option<Instant>,
}

impl Manager<'_> {
    /// Tells the roster of workers that have more memory than they may, if it is time to look.
    pub(super) fn see_to_memory(&mut self, now: Instant) -> Supervised {
        let Some(limit) = self.config.worker_memory else {
            return Ok(());
        };
        if self.looks.memory.is_some_and(|at| at > now) {
            return Ok(());
        }
        self.looks.memory = Some(now + LOOK);
        for slot in 0..self.slots.len() {
            let Some(handle) = &self.slots[slot].handle else {
                continue;
            };
            let pid = handle.pid.get();
            // Pages that all workers share with the manager are only told apart where it matters.
            let memory = process::private_memory(pid).and_then(|bytes| match bytes > limit {
                // Where the kernel does not tell (before 4.14), all of it counts.
                true => process::unshared_memory(pid).or(Ok(bytes)),
                false => Ok(bytes),
            });
            match memory {
                Ok(bytes) if bytes > limit => {
                    self.happened(Event::TooLarge { slot, bytes, limit })?;
                }
                Ok(_) => {}
                // It is about to be reaped.
                Err(error) => log::debug!("the memory of process {pid}: {error}"),
            }
        }
        Ok(())
    }

    /// When something is to be looked at next.
    pub(super) fn next_look(&self) -> Option<Instant> {
        let memory = self.config.worker_memory.and(self.looks.memory);
        let callbacks = self.config.callback_limit.and(self.looks.callbacks);
        [memory, callbacks].into_iter().flatten().min()
    }
}
