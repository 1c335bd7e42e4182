//! The limit on a worker's memory, `worker_memory`, checked at an interval.
//!
//! Runs in the manager. Its one rule: it reads /proc and reports; the roster decides.

use std::time::{Duration, Instant};

use super::Manager;
use super::effects::Supervised;
use super::roster::Event;
use crate::inspect::process;

/// The time between two checks.
const INTERVAL: Duration = Duration::from_secs(1);

/// When the next checks are due.
#[derive(Default)]
pub(super) struct Checks {
    memory: Option<Instant>,
    /// Of callbacks that run for long: see [`super::watchdog`].
    pub(super) callbacks: Option<Instant>,
}

impl Manager<'_> {
    /// Reports the workers over the memory limit to the roster, if a check is due.
    pub(super) fn check_memory(&mut self, now: Instant) -> Supervised {
        let Some(limit) = self.config.worker_memory else {
            return Ok(());
        };
        if self.checks.memory.is_some_and(|at| at > now) {
            return Ok(());
        }
        self.checks.memory = Some(now + INTERVAL);
        for slot in 0..self.slots.len() {
            let Some(handle) = &self.slots[slot].handle else {
                continue;
            };
            let pid = handle.pid.get();
            // Pages that the workers share with the manager are told apart only near the limit: that
            // costs more.
            let memory = process::private_memory(pid).and_then(|bytes| match bytes > limit {
                // A kernel before 4.14 does not tell them apart: all of it counts.
                true => process::unshared_memory(pid).or(Ok(bytes)),
                false => Ok(bytes),
            });
            match memory {
                Ok(bytes) if bytes > limit => {
                    self.happened(Event::TooLarge { slot, bytes, limit })?;
                }
                Ok(_) => {}
                // It is about to be reaped.
                Err(error) => log::debug!("cannot read the memory of process {pid}: {error}"),
            }
        }
        Ok(())
    }

    /// Returns when the next check is due.
    pub(super) fn next_check(&self) -> Option<Instant> {
        let memory = self.config.worker_memory.and(self.checks.memory);
        let callbacks = self.config.callback_limit.and(self.checks.callbacks);
        [memory, callbacks].into_iter().flatten().min()
    }
}
