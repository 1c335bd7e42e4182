//! The manager's end of a base mode worker's channel, and how well that worker takes connections.
//!
//! Its one rule: a worker is judged by what it publishes alone, and a false judgement only delays a connection.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use crate::ipc::layout::SlotWords;
use crate::ipc::sync::Ordering;
use crate::sys::parcel::Channel;

/// A worker that has shown progress within this time is [`Pace::Quick`].
const QUICK: Duration = Duration::from_millis(50);

/// A worker that has shown progress within this time is [`Pace::Slow`].
const SLOW: Duration = Duration::from_secs(1);

/// How soon a worker can be expected to take a connection. The first is the best.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Pace {
    /// It is in no callback, or ends one now and now, and takes connections.
    Quick,
    /// Its callbacks are longer, or it has connections that it has not taken yet.
    Slow,
    /// No progress was seen: it is stopped or blocked, or was not looked at for long enough.
    Stuck,
}

/// What the manager has seen of a worker's progress.
#[derive(Clone, Copy, Debug)]
struct Progress {
    /// How many of its connections the worker has taken, and when that changed last, or none was on its way.
    taken: (u64, Instant),
    /// How many callbacks had returned at the last look.
    callbacks: Option<(u64, Instant)>,
    /// A callback has returned after this time.
    returned_after: Option<Instant>,
}

impl Progress {
    fn new(now: Instant) -> Progress {
        Progress {
            taken: (0, now),
            callbacks: None,
            returned_after: None,
        }
    }

    fn has_taken(&mut self, taken: u64, sent: u64, now: Instant) {
        if self.taken.0 != taken || taken == sent {
            self.taken = (taken, now);
        }
    }

    /// Looks at the number of callbacks that have returned, and whether one runs.
    fn pace(&mut self, completed: u64, is_busy: bool, now: Instant) -> Pace {
        match self.callbacks.replace((completed, now)) {
            Some((before, at)) if before != completed => self.returned_after = Some(at),
            Some(_) | None => {}
        }
        let is_within = |at: Instant, time| now.saturating_duration_since(at) <= time;
        let has_returned = |time| self.returned_after.is_some_and(|at| is_within(at, time));
        let has_taken = |time| is_within(self.taken.1, time);
        if has_taken(QUICK) && (!is_busy || has_returned(QUICK)) {
            Pace::Quick
        } else if has_returned(SLOW) || !is_busy && has_taken(SLOW) {
            Pace::Slow
        } else {
            Pace::Stuck
        }
    }
}

/// The manager's end of a worker's channel.
#[derive(Debug)]
pub(super) struct Passage {
    pub(super) channel: Channel,
    /// It may have something to read.
    pub(super) has_news: bool,
    /// The worker was asked to leave while the server goes on, and gives its connections away.
    pub(super) gives: bool,
    /// The worker was told that it gets no more.
    pub(super) is_finished: bool,
    sent: u64,
    progress: Progress,
}

impl Passage {
    pub(super) fn new(channel: Channel, now: Instant) -> Passage {
        Passage {
            channel,
            has_news: false,
            gives: false,
            is_finished: false,
            sent: 0,
            progress: Progress::new(now),
        }
    }

    /// Sends a connection. Returns false if the channel takes none now.
    pub(super) fn try_send(&mut self, record: &[u8], socket: BorrowedFd<'_>) -> bool {
        match self.channel.try_send(record, socket) {
            Ok(is_sent) => {
                self.sent += u64::from(is_sent);
                is_sent
            }
            Err(error) => {
                // It is dead, and about to be reaped.
                log::debug!("cannot pass a connection on: {error}");
                self.is_finished = true;
                false
            }
        }
    }

    /// Sends a post. Returns false if the channel takes none now.
    #[cfg(feature = "status")]
    pub(super) fn try_post(&mut self, record: &[u8]) -> bool {
        let sent = self.channel.try_send_bytes(record);
        sent.unwrap_or_else(|error| {
            log::debug!("cannot pass a post on: {error}");
            false
        })
    }

    /// Tells the worker that it gets no more connections.
    pub(super) fn finish(&mut self) {
        if !std::mem::replace(&mut self.is_finished, true) {
            self.channel.finish();
        }
    }

    /// Returns the number of connections that are on their way to the worker, as far as it says.
    pub(super) fn under_way(&mut self, words: &SlotWords, now: Instant) -> u64 {
        // SYNC POINT with the worker's `publish_taken`: its number of connections is read after this.
        let taken = words.taken.load(Ordering::Acquire).min(self.sent);
        self.progress.has_taken(taken, self.sent, now);
        self.sent - taken
    }

    /// Looks at the worker's progress.
    pub(super) fn pace(&mut self, words: &SlotWords, now: Instant) -> Pace {
        let activity = &words.activity;
        self.progress
            .pace(activity.completed(), activity.is_busy(), now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks every 10 ms at a worker that is never idle, with callbacks of the length `callback`. Returns what the manager
    /// finds after the first second.
    fn paces(callback: Duration, looks: u32) -> Vec<Pace> {
        let begin = Instant::now();
        let mut progress = Progress::new(begin);
        let look = |number: u32| {
            let age = Duration::from_millis(10) * number;
            progress.has_taken(0, 0, begin + age);
            let completed = age.as_nanos() / callback.as_nanos();
            progress.pace(completed as u64, true, begin + age)
        };
        (0..looks).map(look).skip(100).collect()
    }

    #[test]
    fn a_worker_whose_callbacks_are_long_is_slow_and_not_stuck() {
        let all = |callback, pace| {
            let paces = paces(Duration::from_millis(callback), 500);
            assert!(
                paces.iter().all(|it| *it == pace),
                "{callback} ms: {paces:?}"
            );
        };
        all(5, Pace::Quick);
        all(30, Pace::Quick);
        let slow = paces(Duration::from_millis(200), 500);
        assert!(!slow.contains(&Pace::Stuck), "{slow:?}");
        assert!(slow.contains(&Pace::Slow), "{slow:?}");
        all(60_000, Pace::Stuck);
    }

    #[test]
    fn a_callback_that_goes_on_makes_a_worker_slow_and_then_stuck() {
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        let mut progress = Progress::new(begin);
        assert_eq!(progress.pace(0, true, at(0)), Pace::Stuck, "the first look");
        assert_eq!(progress.pace(1, true, at(10)), Pace::Quick);
        assert_eq!(progress.pace(1, true, at(50)), Pace::Quick);
        assert_eq!(progress.pace(1, true, at(51)), Pace::Slow);
        assert_eq!(progress.pace(1, true, at(1000)), Pace::Slow);
        assert_eq!(progress.pace(1, true, at(1001)), Pace::Stuck);
    }

    #[test]
    fn progress_between_two_looks_that_are_far_apart_may_be_old() {
        let begin = Instant::now();
        let mut progress = Progress::new(begin);
        progress.pace(0, true, begin);
        let later = begin + Duration::from_secs(5);
        assert_eq!(progress.pace(7, true, later), Pace::Stuck);
    }

    #[test]
    fn an_idle_worker_that_takes_nothing_is_stopped() {
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        let mut progress = Progress::new(begin);
        progress.has_taken(3, 3, at(5000));
        assert_eq!(progress.pace(0, false, at(5000)), Pace::Quick);
        progress.has_taken(3, 4, at(5051));
        assert_eq!(progress.pace(0, false, at(5051)), Pace::Slow);
        progress.has_taken(3, 4, at(6001));
        assert_eq!(progress.pace(0, false, at(6001)), Pace::Stuck);
        progress.has_taken(4, 4, at(6002));
        assert_eq!(progress.pace(0, false, at(6002)), Pace::Quick);
    }
}
