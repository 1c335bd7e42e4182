//! Counts messages, latencies, connections, faults and outstanding replies.
//!
//! Latencies and replies count within the window alone. Outstanding replies and faults count at any time:
//! a server that answers nothing at all is not a good one.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::Failure;
use super::client::Loss;
use super::histogram::{self, Bar};
use super::latency::Latency;
use super::report::Faults;
use super::schedule::Window;
use super::series::Series;

pub(super) struct Tally {
    pub(super) window: Window,
    latency: Histogram<u64>,
    /// Messages that were answered within the window.
    pub(super) messages: u64,
    pub(super) answered_in_all: u64,
    pub(super) connections: u64,
    pub(super) series: Series,
    missed: Missed,
    /// Messages whose replies were not awaited.
    pub(super) not_awaited: u64,
    /// Messages of connected clients that have no reply yet.
    outstanding: u64,
    pub(super) faults: Faults,
}

/// Messages that had no reply when the measurement was over, and were outstanding within the window.
#[derive(Clone, Copy, Default)]
struct Missed {
    count: u64,
    /// When the last of them was due.
    latest: u64,
}

const HOUR: u64 = 3_600_000_000_000;

impl Tally {
    pub(super) fn new(duration: Duration) -> Result<Tally, Failure> {
        // From a nanosecond to an hour, to three digits; longer latencies count as an hour.
        let latency = Histogram::new_with_bounds(1, HOUR, 3)
            .map_err(|error| Failure::new("count latencies", error))?;
        Ok(Tally {
            window: Window::NEVER,
            latency,
            messages: 0,
            answered_in_all: 0,
            connections: 0,
            series: Series::new(duration)?,
            missed: Missed::default(),
            not_awaited: 0,
            outstanding: 0,
            faults: Faults::default(),
        })
    }

    pub(super) fn outstanding(&self) -> u64 {
        self.outstanding
    }

    pub(super) fn asked(&mut self) {
        self.outstanding += 1;
    }

    /// A message is due, but its client was lost.
    pub(super) fn asked_without_client(&mut self, due: u64) {
        self.faults.unanswered += 1;
        self.miss(due, due);
    }

    /// A message gets no reply, as is known from `now` on. One of the warm-up counts too if it was awaited within
    /// the window: the server has left it unanswered there.
    fn miss(&mut self, due: u64, now: u64) {
        if now >= self.window.begin && due < self.window.end {
            self.missed.count += 1;
            self.missed.latest = self.missed.latest.max(due);
        }
    }

    /// Replies arrived, to messages that were due at these times.
    pub(super) fn answered(&mut self, due: impl Iterator<Item = u64>, now: u64) {
        let counts = self.window.has(now);
        for due in due {
            self.outstanding -= 1;
            self.answered_in_all += 1;
            self.messages += u64::from(counts);
            let latency = now.saturating_sub(due).max(1);
            if counts {
                self.series.add(now - self.window.begin, latency);
            }
            if self.window.has(due) {
                self.latency.saturating_record(latency);
            }
        }
    }

    /// A new client has taken the place of another.
    pub(super) fn replaced(&mut self, now: u64) {
        self.connections += u64::from(self.window.has(now));
    }

    /// A client is lost at `now`, with its outstanding messages.
    pub(super) fn lost(
        &mut self,
        client: usize,
        loss: Loss,
        outstanding: impl Iterator<Item = u64>,
        now: u64,
    ) {
        let faults = &mut self.faults;
        let (count, words) = match loss {
            Loss::Refused(error) => (&mut faults.refused, format!("refused: {}", error.desc())),
            Loss::Closed => (&mut faults.closed, "closed by the server".to_owned()),
            Loss::Broken(error) => (&mut faults.broken, error.desc().to_owned()),
            Loss::Wrong(wrong) => (&mut faults.wrong, wrong.to_string()),
        };
        *count += 1;
        faults
            .first
            .get_or_insert_with(|| format!("client {client}: {words}"));
        for due in outstanding {
            self.outstanding -= 1;
            self.faults.unanswered += 1;
            self.miss(due, now);
        }
    }

    /// The outstanding replies are no longer awaited: their messages were due at these times. If the wait was
    /// cut short they are no faults, since the server had no time for them.
    pub(super) fn close(
        &mut self,
        outstanding: impl Iterator<Item = u64>,
        is_cut_short: bool,
        now: u64,
    ) {
        for due in outstanding {
            self.outstanding -= 1;
            if is_cut_short {
                self.not_awaited += 1;
            } else {
                self.faults.unanswered += 1;
                self.miss(due, now);
            }
        }
        let length = self.window.end.saturating_sub(self.window.begin);
        self.series.finish(length);
    }

    /// Returns the latencies. `end` is the time until which replies were awaited.
    pub(super) fn latency(&self, end: u64) -> Option<Latency> {
        let over = end.saturating_sub(self.missed.latest);
        Latency::of(&self.latency, self.missed.count, over)
    }

    pub(super) fn histogram(&self) -> Vec<Bar> {
        histogram::of(&self.latency)
    }
}
