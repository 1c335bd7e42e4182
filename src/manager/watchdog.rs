//! The watchdog: notices a callback that runs longer than its limit, logs its stack, and kills the
//! worker if that was asked for.
//!
//! It counts only time in which the worker could run: not while a signal or a debugger has stopped
//! it, nor while it waits for its memory to come back from swap, nor while the machine was suspended.
//! CLOCK_MONOTONIC, which `Instant` is, does not run then, and of a gap in which the manager itself
//! was kept from looking only a part counts.

use std::time::{Duration, Instant};

use super::Manager;
use super::effects::{Supervised, failed};
use super::life::State;
use super::roster::{Event, Name};
use super::spawn::guarded;
use crate::config::LimitAction;
use crate::inspect::process::{Activity, state};
use crate::inspect::stack::{self, Capture, Frame};
use crate::ipc::activity::Callback;
use crate::sys::process::{self, Fork, ProcessId};
use crate::worker::callback::LAST_FRAME;

/// How many looks there are in one limit.
const LOOKS: u32 = 8;

/// The times between two looks.
const SHORTEST: Duration = Duration::from_millis(5);
const LONGEST: Duration = Duration::from_secs(1);

/// How many stacks are named at the same time. Further ones are not copied.
const MOST_NAMERS: usize = 4;

/// How many seconds naming a stack may take: a file system may hang.
const NAMING: u32 = 30;

/// What the watchdog knows of one worker's callback.
#[derive(Debug)]
pub(super) struct Watch {
    /// The number of the worker's callback.
    number: u64,
    /// For how long it has run, as far as looks can tell.
    ran: Duration,
    looked: Instant,
    major_faults: u64,
    /// The log says that it was stopped.
    stop_told: bool,
    reported: bool,
}

/// What one look found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Finding {
    Nothing,
    /// It does not count: a signal or a debugger has stopped the process.
    Stopped,
    /// Its time is over.
    Over(Duration),
}

impl Watch {
    fn new(callback: &Callback, now: Instant) -> Watch {
        Watch {
            number: callback.number,
            ran: Duration::ZERO,
            looked: now,
            major_faults: 0,
            stop_told: false,
            reported: false,
        }
    }

    /// Another look at the same callback.
    fn look(&mut self, now: Instant, limit: Duration, activity: (Activity, u64)) -> Finding {
        let gap = now.duration_since(self.looked).min(interval(limit) * 2);
        self.looked = now;
        let (activity, major_faults) = activity;
        let swapped_in = major_faults > self.major_faults;
        self.major_faults = major_faults;
        match activity {
            Activity::Stopped if self.stop_told => Finding::Nothing,
            Activity::Stopped => {
                self.stop_told = true;
                Finding::Stopped
            }
            Activity::Zombie => Finding::Nothing,
            Activity::WaitingForDisk if swapped_in => Finding::Nothing,
            Activity::Running | Activity::Sleeping | Activity::WaitingForDisk => {
                self.stop_told = false;
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
    (limit / LOOKS).clamp(SHORTEST, LONGEST)
}

impl Manager<'_> {
    /// Looks at the callback of every worker, if there is a limit and it is time.
    pub(super) fn see_to_callbacks(&mut self, now: Instant) -> Supervised {
        let Some(limit) = self.config.callback_limit else {
            return Ok(());
        };
        let action = self.config.on_limit;
        if self.looks.callbacks.is_some_and(|at| at > now) {
            return Ok(());
        }
        self.looks.callbacks = Some(now + interval(limit));
        for slot in 0..self.slots.len() {
            let Some(worker) = self.roster.worker(slot) else {
                continue;
            };
            let (name, generation, state) = (worker.name(), worker.generation, worker.state);
            // One that is being killed, or has not come to its first callback, tells nothing.
            if matches!(state, State::Starting | State::Killing) {
                continue;
            }
            match self.look_at(slot, now, limit) {
                Some((callback, Finding::Over(ran))) => {
                    let (ran, limit) = (ran.as_secs_f64(), limit.as_secs_f64());
                    let killed = match action {
                        LimitAction::Warn => "",
                        LimitAction::Kill => ": killed",
                    };
                    log::warn!(
                        "{name} has been in {callback} for {ran:.2} s, its limit is {limit} s{killed}"
                    );
                    self.see_to_stuck(slot, (name, generation), action)?;
                }
                Some((callback, Finding::Stopped)) => log::warn!(
                    "{name} is stopped, by a signal or a debugger, in {callback}: that time does not count"
                ),
                Some((_, Finding::Nothing)) | None => {}
            }
        }
        Ok(())
    }

    /// Returns the callback that the worker of a slot is in, and what is found about it.
    fn look_at(
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
        // It is about to be reaped, if there is no such process.
        let found = state(handle.pid.get()).ok()?;
        let activity = (found.activity, found.major_faults);
        Some((callback, watch.look(now, limit, activity)))
    }

    /// A callback has run for too long: copies its stack, and kills the worker if it is to be.
    fn see_to_stuck(
        &mut self,
        slot: usize,
        (name, generation): (Name, u32),
        action: LimitAction,
    ) -> Supervised {
        let Some(pid) = self.slots[slot].handle.as_ref().map(|handle| handle.pid) else {
            return Ok(());
        };
        // Before it is killed: afterwards there is no stack.
        let captured = (self.namers.len() < MOST_NAMERS).then(|| stack::capture(pid.get()));
        match action {
            LimitAction::Warn => {}
            LimitAction::Kill => self.happened(Event::Condemned { slot, generation })?,
        }
        match captured {
            Some(Ok(capture)) => self.name_stack(name, &capture),
            Some(Err(error)) => log::warn!("{name}: cannot read its stack: {error}"),
            None => {
                log::warn!("{name}: its stack is not logged, {MOST_NAMERS} others are being named");
            }
        }
        Ok(())
    }

    /// Logs the functions on a stack. Naming them reads whole programs and takes long, so that it has
    /// a process of its own.
    fn name_stack(&mut self, name: Name, capture: &Capture) {
        let parent = ProcessId::current();
        match process::fork() {
            Ok(Fork::Parent(namer)) => self.namers.push(namer),
            Ok(Fork::Child) => {
                process::die_with(parent);
                process::end_within(NAMING);
                process::set_name("tine stack");
                process::exit_now(guarded(|| {
                    // The frames below the callback are the same in every stack.
                    let is_theirs = |frame: &Frame| {
                        let function = frame.function.as_deref();
                        !function.is_some_and(|name| name.contains(LAST_FRAME))
                    };
                    let frames = capture.resolve().into_iter().take_while(is_theirs);
                    let lines: Vec<String> = frames.map(|frame| frame.to_string()).collect();
                    log::warn!("{name} was here:\n{}", lines.join("\n"));
                    0
                }))
            }
            Err(error) => log::warn!("{name}: cannot name its stack: {error}"),
        }
    }

    /// Reaps the processes that have named a stack.
    pub(super) fn reap_namers(&mut self) -> Supervised {
        let mut failure = Ok(());
        self.namers.retain(|namer| match process::reap(*namer) {
            Ok(exit) => exit.is_none(),
            Err(error) => {
                failure = Err(error);
                true
            }
        });
        failure.map_err(failed("wait for a process that names a stack"))
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

    /// What looks find that follow each other by `steps`.
    fn findings(steps: &[(Duration, Activity, u64)]) -> Vec<Finding> {
        let mut now = Instant::now();
        let mut watch = watch(now);
        let look = |(step, activity, faults): &(Duration, Activity, u64)| {
            now += *step;
            watch.look(now, LIMIT, (*activity, *faults))
        };
        steps.iter().map(look).collect()
    }

    #[test]
    fn a_callback_is_reported_once_when_its_time_is_over() {
        let found = findings(&[(STEP, Activity::Running, 0); 12]);
        assert_eq!(found[..7], [Finding::Nothing; 7]);
        assert_eq!(found[7], Finding::Over(LIMIT));
        assert_eq!(found[8..], [Finding::Nothing; 4]);
    }

    #[test]
    fn time_in_which_it_is_stopped_does_not_count_and_is_told_once() {
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
    fn of_a_gap_in_which_nobody_could_look_only_a_part_counts() {
        let hour = (Duration::from_secs(3600), Activity::Sleeping, 0);
        assert_eq!(findings(&[hour]), [Finding::Nothing]);
        assert_eq!(findings(&[hour; 4])[3], Finding::Over(LIMIT));
    }
}
