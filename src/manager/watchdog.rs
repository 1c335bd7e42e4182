//! The watchdog: detects a callback that runs longer than `callback_limit`, logs its stack, and kills the
//! worker if `on_limit` says so.
//!
//! Runs in the manager. Its one rule: it counts only time in which the worker could run. Excluded is
//! time in which a signal or a debugger has stopped the worker, in which it waits for memory from swap,
//! and in which the machine is suspended: CLOCK_MONOTONIC, which `Instant` reads, does not advance then.
//! If the manager itself was delayed between two checks, only a part of that gap counts.

use std::time::{Duration, Instant};

use super::Manager;
use super::effects::{Supervised, failed};
use super::life::State;
use super::relay::Relay;
use super::roster::{Event, Name};
use super::spawn::guarded;
use crate::config::LimitAction;
use crate::inspect::process::{Activity, state};
use crate::inspect::stack::{self, Capture, Frame};
use crate::ipc::activity::Callback;
use crate::sys::process::{self, Fork, ProcessId};
use crate::sys::signal;
use crate::worker::callback::LAST_FRAME;

/// The number of checks within one limit.
const CHECKS: u32 = 8;

/// The bounds of the time between two checks.
const SHORTEST: Duration = Duration::from_millis(5);
const LONGEST: Duration = Duration::from_secs(1);

/// The most stacks that are resolved at the same time. Further ones are not copied.
const MAX_NAMERS: usize = 4;

/// The seconds that resolving a stack may take: a file system may hang.
const RESOLVE_SECONDS: u32 = 30;

/// The watchdog's record of one worker's current callback.
#[derive(Debug)]
pub(super) struct Watch {
    /// The number of the worker's callback.
    number: u64,
    /// How long it has run, measured from check to check.
    ran: Duration,
    checked: Instant,
    major_faults: u64,
    /// The log has a line about its being stopped.
    stop_reported: bool,
    reported: bool,
}

/// The result of one check.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Finding {
    Nothing,
    /// A signal or a debugger has stopped the process: the time does not count.
    Stopped,
    /// It has run for this time, longer than the limit.
    Over(Duration),
}

impl Watch {
    fn new(callback: &Callback, now: Instant) -> Watch {
        Watch {
            number: callback.number,
            ran: Duration::ZERO,
            checked: now,
            major_faults: 0,
            stop_reported: false,
            reported: false,
        }
    }

    /// Checks the same callback once more.
    fn check(&mut self, now: Instant, limit: Duration, activity: (Activity, u64)) -> Finding {
        let gap = now.duration_since(self.checked).min(interval(limit) * 2);
        self.checked = now;
        let (activity, major_faults) = activity;
        let swapped_in = major_faults > self.major_faults;
        self.major_faults = major_faults;
        match activity {
            Activity::Stopped if self.stop_reported => Finding::Nothing,
            Activity::Stopped => {
                self.stop_reported = true;
                Finding::Stopped
            }
            Activity::Zombie => Finding::Nothing,
            Activity::WaitingForDisk if swapped_in => Finding::Nothing,
            Activity::Running | Activity::Sleeping | Activity::WaitingForDisk => {
                self.stop_reported = false;
                self.ran += gap;
                if self.ran < limit || self.reported {
                    return Finding::Nothing;
                }
                self.reported = true;
                Finding::Over(self.ran)
            }
        }
    }
}

fn interval(limit: Duration) -> Duration {
    (limit / CHECKS).clamp(SHORTEST, LONGEST)
}

impl Manager<'_> {
    /// Checks the callback of every worker, if there is a limit and a check is due.
    pub(super) fn check_callbacks(&mut self, now: Instant) -> Supervised {
        let Some(limit) = self.config.callback_limit else {
            return Ok(());
        };
        let action = self.config.on_limit;
        if self.checks.callbacks.is_some_and(|at| at > now) {
            return Ok(());
        }
        self.checks.callbacks = Some(now + interval(limit));
        for slot in 0..self.slots.len() {
            let Some(worker) = self.roster.worker(slot) else {
                continue;
            };
            let (name, generation, state) = (worker.name(), worker.generation, worker.state);
            // The first has no callback yet, the second will not return from it.
            if matches!(state, State::Starting | State::Killing) {
                continue;
            }
            match self.check_callback(slot, now, limit) {
                Some((callback, Finding::Over(ran))) => {
                    let (ran, limit) = (ran.as_secs_f64(), limit.as_secs_f64());
                    let killed = match action {
                        LimitAction::Warn => "",
                        LimitAction::Kill => ": killed",
                    };
                    log::warn!(
                        "{name} has been in {callback} for {ran:.2} s, callback_limit is {limit} s{killed}"
                    );
                    self.handle_stuck(slot, (name, generation), action)?;
                }
                Some((callback, Finding::Stopped)) => log::warn!(
                    "{name} is stopped by a signal or a debugger in {callback}: the time does not count for callback_limit"
                ),
                Some((_, Finding::Nothing)) | None => {}
            }
        }
        Ok(())
    }

    /// Returns the callback that the worker of a slot is in, and the result of checking it.
    fn check_callback(
        &mut self,
        slot: usize,
        now: Instant,
        limit: Duration,
    ) -> Option<(Callback, Finding)> {
        let slot = &mut self.slots[slot];
        let handle = slot.handle.as_mut()?;
        let Some(callback) = slot.memory.words.activity.look() else {
            handle.watch = None;
            return None;
        };
        let is_known = |watch: &&mut Watch| watch.number == callback.number;
        let Some(watch) = handle.watch.as_mut().filter(is_known) else {
            handle.watch = Some(Watch::new(&callback, now));
            return None;
        };
        // An error means that the process is about to be reaped.
        let found = state(handle.pid.get()).ok()?;
        let activity = (found.activity, found.major_faults);
        Some((callback, watch.check(now, limit, activity)))
    }

    /// A callback has run for too long: copies its stack, and kills the worker if `action` says so.
    fn handle_stuck(
        &mut self,
        slot: usize,
        (name, generation): (Name, u32),
        action: LimitAction,
    ) -> Supervised {
        let Some(pid) = self.slots[slot].handle.as_ref().map(|handle| handle.pid) else {
            return Ok(());
        };
        // Before the kill: afterwards there is no stack.
        let captured = (self.namers.len() < MAX_NAMERS).then(|| stack::capture(pid.get()));
        match action {
            LimitAction::Warn => {}
            LimitAction::Kill => self.happened(Event::Condemned { slot, generation })?,
        }
        match captured {
            Some(Ok(capture)) => self.name_stack(name, &capture),
            Some(Err(error)) => log::warn!("cannot read the stack of {name}: {error}"),
            None => log::warn!(
                "the stack of {name} is not logged: {MAX_NAMERS} other stacks are being resolved"
            ),
        }
        Ok(())
    }

    /// Logs the functions on a stack. Resolving their names reads whole programs and takes long, so a
    /// child process does it.
    fn name_stack(&mut self, name: Name, capture: &Capture) {
        let parent = ProcessId::current();
        match process::fork() {
            Ok(Fork::Parent(namer)) => self.namers.push(namer),
            Ok(Fork::Child) => {
                process::die_with(parent);
                process::end_within(RESOLVE_SECONDS);
                // Clients would notice no close while this process has copies of their sockets.
                self.relay = Relay::default();
                process::set_name("tine stack");
                process::exit_now(guarded(|| {
                    if let Err(error) = signal::leave_to_alarm() {
                        log::debug!("cannot block signals: {error}");
                    }
                    // The frames below the callback are the library's, and the same in every stack.
                    let is_users = |frame: &Frame| {
                        let function = frame.function.as_deref();
                        !function.is_some_and(|name| name.contains(LAST_FRAME))
                    };
                    let frames = capture.resolve().into_iter().take_while(is_users);
                    let lines: Vec<String> = frames.map(|frame| frame.to_string()).collect();
                    log::warn!("stack of {name}:\n{}", lines.join("\n"));
                    0
                }))
            }
            Err(error) => log::warn!("cannot resolve the stack of {name}: {error}"),
        }
    }

    /// Reaps the processes that have resolved a stack.
    pub(super) fn reap_namers(&mut self) -> Supervised {
        let mut failure = Ok(());
        self.namers.retain(|namer| match process::reap(*namer) {
            Ok(exit) => exit.is_none(),
            Err(error) => {
                failure = Err(error);
                true
            }
        });
        failure.map_err(failed("wait for a process that resolves a stack"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conn_id::ConnId;
    use crate::peer::Peer;
    use std::num::NonZeroU32;

    const LIMIT: Duration = Duration::from_millis(800);
    const STEP: Duration = Duration::from_millis(100);

    fn watch(start: Instant) -> Watch {
        let callback = Callback {
            number: 1,
            event: crate::event::Event::Receive,
            conn: ConnId::new(0, 0, NonZeroU32::MIN),
            peer: Peer::Ip(([127, 0, 0, 1], 1).into()),
        };
        Watch::new(&callback, start)
    }

    /// Returns the results of checks that follow each other by `steps`.
    fn findings(steps: &[(Duration, Activity, u64)]) -> Vec<Finding> {
        let mut now = Instant::now();
        let mut watch = watch(now);
        let check = |(step, activity, faults): &(Duration, Activity, u64)| {
            now += *step;
            watch.check(now, LIMIT, (*activity, *faults))
        };
        steps.iter().map(check).collect()
    }

    #[test]
    fn a_callback_is_reported_once_when_its_time_is_over() {
        let found = findings(&[(STEP, Activity::Running, 0); 12]);
        assert_eq!(found[..7], [Finding::Nothing; 7]);
        assert_eq!(found[7], Finding::Over(LIMIT));
        assert_eq!(found[8..], [Finding::Nothing; 4]);
    }

    #[test]
    fn time_in_which_it_is_stopped_does_not_count_and_is_reported_once() {
        let found = findings(&[(STEP, Activity::Stopped, 0); 20]);
        assert_eq!(found[0], Finding::Stopped);
        assert_eq!(found[1..], [Finding::Nothing; 19]);
    }

    #[test]
    fn time_in_which_its_memory_comes_back_from_swap_does_not_count() {
        let swapping: Vec<_> = (1..20)
            .map(|faults| (STEP, Activity::WaitingForDisk, faults))
            .collect();
        assert!(findings(&swapping).iter().all(|it| *it == Finding::Nothing));
        let stuck_in_the_kernel = [(STEP, Activity::WaitingForDisk, 0); 8];
        assert_eq!(findings(&stuck_in_the_kernel)[7], Finding::Over(LIMIT));
    }

    #[test]
    fn of_a_gap_between_two_checks_only_a_part_counts() {
        let hour = (Duration::from_secs(3600), Activity::Sleeping, 0);
        assert_eq!(findings(&[hour]), [Finding::Nothing]);
        assert_eq!(findings(&[hour; 4])[3], Finding::Over(LIMIT));
    }
}
