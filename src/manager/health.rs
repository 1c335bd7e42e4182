//! What the manager looks at from time to time: whether workers are of any use at all, and how much
//! memory they have.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::handle::{Handle, WorkerExit};
use super::life::{Event, State};
use super::seat::{Post, Seat};
use super::{End, Manager, Phase, Supervised};
use crate::inspect::process;
use crate::sys::process::ExitStatus;

/// How often the memory of the workers is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// When to look next.
#[derive(Default)]
pub(super) struct Looks {
    memory: Option<Instant>,
    /// At callbacks that run for long: see [`super::watchdog`].
    pub(super) callbacks: Option<Instant>,
}

impl Manager<'_> {
    /// Ends the server when every seat has been in back-off for too long.
    pub(super) fn see_to_crash_loop(&mut self, now: Instant) -> Supervised {
        match self.crash_loop_at() {
            Some(at) if at <= now => Err(End::CrashLoop),
            Some(_) | None => Ok(()),
        }
    }

    /// When that is, if nothing changes.
    fn crash_loop_at(&self) -> Option<Instant> {
        let limit = self.config.fail_on_crash_loop?;
        if self.phase != Phase::Running {
            return None;
        }
        let since = |seat: &Seat| {
            let current = seat.current.and_then(|at| self.slots[at].handle.as_ref());
            seat.backoff.since(current.map(|handle| handle.life()))
        };
        // The one that was of use last counts.
        let all: Option<Vec<Instant>> = self.seats.iter().map(since).collect();
        all?.into_iter().max().map(|since| since + limit)
    }

    /// Replaces workers that have grown too large, and kills those that have grown much too large.
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
            let (pid, state) = (handle.pid.get(), handle.state);
            // What all workers have in common with the manager is only told apart where it matters.
            let memory = process::private_memory(pid).and_then(|bytes| match bytes > limit {
                // Where the kernel does not tell (before 4.14), all of it counts.
                true => process::unshared_memory(pid).or(Ok(bytes)),
                false => Ok(bytes),
            });
            match memory {
                Ok(bytes) if bytes > limit => self.too_large(slot, state, bytes, limit)?,
                Ok(_) => {}
                // It is about to be reaped.
                Err(error) => log::debug!("the memory of process {pid}: {error}"),
            }
        }
        Ok(())
    }

    /// What else is known about an end: whether the kernel was out of memory.
    pub(super) fn cause_of_death(&mut self, handle: &Handle, exit: &WorkerExit) -> &'static str {
        let was_killed = exit.exit == ExitStatus::Signal(Signal::SIGKILL as i32);
        // Also looked at where it was us, so that the next one is not taken for that.
        let is_more = was_killed && self.oom_kills.explains_one();
        if is_more && handle.state != State::Killing {
            " (out of memory: the kernel's OOM killer has killed in this control group)"
        } else {
            ""
        }
    }

    fn too_large(&mut self, slot: usize, state: State, bytes: u64, limit: u64) -> Supervised {
        let name = self.slots[slot].name();
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        let (has, limit_mib) = (mib(bytes), mib(limit));
        if bytes / 2 > limit {
            if state != State::Killing {
                let much = "more than twice its limit";
                log::warn!("{name} has {has} MiB of memory, {much} of {limit_mib} MiB: killed");
            }
            return self.happen(slot, Event::Condemned);
        }
        let is_serving = matches!(self.slots[slot].post, Post::Seat(_) | Post::Standby);
        if state == State::Ready && is_serving && self.replace(slot)? {
            let over = format!("over its limit of {limit_mib} MiB");
            log::warn!("{name} has {has} MiB of memory, {over}: it is replaced");
        }
        Ok(())
    }

    /// When something is to be looked at next.
    pub(super) fn next_health_look(&self) -> Option<Instant> {
        let memory = self.config.worker_memory.and(self.looks.memory);
        let callbacks = self.config.callback_limit.and(self.looks.callbacks);
        let looks = [memory, callbacks, self.crash_loop_at()];
        looks.into_iter().flatten().min()
    }
}
