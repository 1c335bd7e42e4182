//! Timers of the server: by tag, in a wheel, with the callbacks that they have under way.
//!
//! Its one rule: a timer has no callback more while those of its last time are under way. One that repeats leaves that
//! time out, another one waits for their end; so a worker that is stuck collects nothing.

use std::collections::HashMap;

use super::alarms::TIMER_BYTES;
use super::wheel::{Key, Wheel};
use crate::config::{Run, ServerTimer};
use crate::conn_id::ConnId;

/// What each callback of a timer counts, from the time that the timer is set: the mailbox that submits it.
pub(crate) const JOB_BYTES: usize = 512;

/// A callback of a timer, in a mailbox of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Job {
    pub(crate) tag: u64,
    /// The attempts so far.
    pub(crate) attempts: u8,
}

#[derive(Debug)]
struct Entry {
    timer: ServerTimer,
    /// Its place in the wheel, and its time; `None` if it has fired for the last time, or was cancelled.
    next: Option<(Key, u64)>,
    jobs: Vec<ConnId>,
    /// It has fired, and waits for the end of `jobs`.
    is_due: bool,
    charge: usize,
}

pub(crate) struct ServerTimers {
    wheel: Wheel<u64>,
    timers: HashMap<u64, Entry>,
    jobs: HashMap<ConnId, Job>,
    /// What they count against the bytes that are kept.
    charged: usize,
}

/// Returns what a timer counts with this many workers.
pub(crate) fn charge_of(timer: ServerTimer, workers: usize) -> usize {
    let copies = match timer.run {
        Run::One => 1,
        Run::Each => workers,
    };
    TIMER_BYTES + copies * JOB_BYTES
}

impl ServerTimers {
    pub(crate) fn new() -> ServerTimers {
        ServerTimers {
            wheel: Wheel::new(0),
            timers: HashMap::new(),
            jobs: HashMap::new(),
            charged: 0,
        }
    }

    pub(crate) fn charged(&self) -> usize {
        self.charged
    }

    /// Sets a timer at this time of the loop. Nothing changes if the same one is set already.
    pub(crate) fn set(&mut self, timer: ServerTimer, now: u64, charge: usize) {
        let entry = self.timers.entry(timer.tag).or_insert(Entry {
            timer,
            next: None,
            jobs: Vec::new(),
            is_due: false,
            charge: 0,
        });
        if entry.timer == timer && (entry.next.is_some() || entry.is_due) {
            return;
        }
        // The clock shows whole milliseconds: one more, so that none is missing.
        let at = now.saturating_add(timer.time).saturating_add(1);
        let key = match entry.next {
            Some((key, _)) => {
                self.wheel.restart(key, at);
                key
            }
            None => self.wheel.set(at, timer.tag),
        };
        self.charged += charge;
        self.charged -= entry.charge;
        (entry.timer, entry.next, entry.charge) = (timer, Some((key, at)), charge);
        entry.is_due = false;
    }

    /// Cancels a timer. Returns its callbacks.
    pub(crate) fn cancel(&mut self, tag: u64) -> Vec<ConnId> {
        let Some(entry) = self.timers.get_mut(&tag) else {
            return Vec::new();
        };
        if let Some((key, _)) = entry.next.take() {
            self.wheel.remove(key);
        }
        entry.is_due = false;
        let jobs = entry.jobs.clone();
        self.forget_if_over(tag);
        jobs
    }

    /// Cancels all timers. Returns their callbacks.
    pub(crate) fn cancel_all(&mut self) -> Vec<ConnId> {
        let tags: Vec<u64> = self.timers.keys().copied().collect();
        tags.into_iter().flat_map(|tag| self.cancel(tag)).collect()
    }

    /// Returns the time at which [`pop`](Self::pop) is to be called.
    pub(crate) fn next(&self) -> Option<u64> {
        self.wheel.next()
    }

    /// Returns a timer that has fired and is to have callbacks now, while there is work left ([`Wheel::pop`]).
    pub(crate) fn pop(&mut self, now: u64, work: &mut usize) -> Option<ServerTimer> {
        while let Some(tag) = self.wheel.pop(now, work) {
            let Some(entry) = self.timers.get_mut(&tag) else {
                continue;
            };
            let last = entry.next.take();
            if entry.timer.repeats {
                let time = entry.timer.time;
                let next = last.map_or(now, |(_, at)| at).saturating_add(time);
                // Times that have passed while the loop stood still are left out.
                let next = if next > now { next } else { now + time };
                entry.next = Some((self.wheel.set(next, tag), next));
            }
            if entry.jobs.is_empty() {
                return Some(entry.timer);
            }
            entry.is_due = !entry.timer.repeats;
        }
        None
    }

    /// A mailbox was opened for a callback of a timer.
    pub(crate) fn open(&mut self, tag: u64, id: ConnId) {
        if let Some(entry) = self.timers.get_mut(&tag) {
            entry.jobs.push(id);
            self.jobs.insert(id, Job { tag, attempts: 0 });
        }
    }

    /// Returns the callback of a mailbox.
    pub(crate) fn job(&self, id: ConnId) -> Option<Job> {
        self.jobs.get(&id).copied()
    }

    pub(crate) fn set_attempts(&mut self, id: ConnId, attempts: u8) {
        if let Some(job) = self.jobs.get_mut(&id) {
            job.attempts = attempts;
        }
    }

    /// The callback of a mailbox has ended. Returns its timer, if that has waited for it and is to have callbacks now.
    pub(crate) fn end(&mut self, id: ConnId) -> Option<ServerTimer> {
        let Job { tag, .. } = self.jobs.remove(&id)?;
        let entry = self.timers.get_mut(&tag)?;
        entry.jobs.retain(|job| *job != id);
        if entry.jobs.is_empty() && std::mem::take(&mut entry.is_due) {
            return Some(entry.timer);
        }
        self.forget_if_over(tag);
        None
    }

    fn forget_if_over(&mut self, tag: u64) {
        let is_over = |entry: &Entry| entry.next.is_none() && entry.jobs.is_empty();
        if self.timers.get(&tag).is_some_and(is_over)
            && let Some(entry) = self.timers.remove(&tag)
        {
            self.charged -= entry.charge;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    const BASE: ServerTimer = ServerTimer {
        tag: 7,
        time: 100,
        repeats: true,
        run: Run::One,
    };

    fn conn(number: u32) -> ConnId {
        ConnId::new(0, number, NonZeroU32::MIN)
    }

    /// Returns the tags that fire by `now`; each callback ends at once.
    fn fire(timers: &mut ServerTimers, now: u64) -> Vec<u64> {
        let (mut fired, mut work) = (Vec::new(), usize::MAX);
        while let Some(timer) = timers.pop(now, &mut work) {
            timers.open(timer.tag, conn(1));
            assert_eq!(timers.end(conn(1)), None);
            fired.push(timer.tag);
        }
        fired
    }

    #[test]
    fn a_timer_that_is_set_again_is_unchanged_unless_it_is_another_one() {
        let mut timers = ServerTimers::new();
        timers.set(BASE, 0, 10);
        timers.set(BASE, 50, 10);
        assert_eq!((timers.next(), timers.charged()), (Some(101), 10));
        assert_eq!(fire(&mut timers, 100), [0u64; 0]);
        assert_eq!(fire(&mut timers, 101), [7]);
        assert_eq!(timers.next(), Some(201), "it repeats, and does not drift");
        let other = ServerTimer { time: 30, ..BASE };
        timers.set(other, 110, 20);
        assert_eq!((timers.next(), timers.charged()), (Some(141), 20));
        assert_eq!(
            fire(&mut timers, 1000),
            [7],
            "once for all that it has missed"
        );
        assert_eq!(timers.next(), Some(1030));
        assert!(timers.cancel(7).is_empty());
        assert_eq!((timers.next(), timers.charged()), (None, 0));
    }

    #[test]
    fn a_timer_without_repetition_fires_once() {
        let mut timers = ServerTimers::new();
        let once = ServerTimer {
            repeats: false,
            ..BASE
        };
        timers.set(once, 0, 10);
        assert_eq!(fire(&mut timers, 500), [7]);
        assert_eq!((timers.next(), timers.charged()), (None, 0));
        timers.set(once, 500, 10);
        assert_eq!(timers.next(), Some(601));
    }

    #[test]
    fn a_timer_has_no_more_callbacks_while_the_last_ones_are_under_way() {
        let (mut timers, mut work) = (ServerTimers::new(), usize::MAX);
        timers.set(BASE, 0, 10);
        assert_eq!(timers.pop(101, &mut work), Some(BASE));
        timers.open(7, conn(1));
        timers.open(7, conn(2));
        assert_eq!(timers.pop(250, &mut work), None, "this time is left out");
        assert_eq!((timers.end(conn(1)), timers.end(conn(2))), (None, None));
        assert_eq!(timers.pop(301, &mut work), Some(BASE));
        // One that does not repeat waits.
        let once = ServerTimer {
            repeats: false,
            ..BASE
        };
        timers.open(7, conn(3));
        timers.set(once, 301, 10);
        assert_eq!(timers.pop(1000, &mut work), None);
        timers.set(once, 1000, 10);
        assert_eq!(timers.next(), None, "it is due already");
        assert_eq!(timers.end(conn(3)), Some(once));
        timers.open(7, conn(4));
        assert_eq!(timers.cancel(7), [conn(4)]);
        assert_eq!(timers.charged(), 10, "its callback is under way");
        assert_eq!((timers.end(conn(4)), timers.charged()), (None, 0));
    }
}
