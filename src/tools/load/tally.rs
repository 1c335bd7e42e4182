//! Counts messages, latencies, connections, faults and outstanding replies.
//!
//! Latencies and replies count within the window alone. Outstanding replies and faults count at any time:
//! a server that answers nothing at all is not a good one.

use hdrhistogram::Histogram;

use super::Failure;
use super::client::Loss;
use super::report::{Faults, Latency};
use super::schedule::Window;

pub(super) struct Tally {
    pub(super) window: Window,
    latency: Histogram<u64>,
    /// Messages that were answered within the window.
    pub(super) messages: u64,
    pub(super) answered_in_all: u64,
    pub(super) connections: u64,
    /// Messages of connected clients that have no reply yet.
    outstanding: u64,
    pub(super) faults: Faults,
}

const HOUR: u64 = 3_600_000_000_000;

impl Tally {
    pub(super) fn new() -> Result<Tally, Failure> {
        // From a nanosecond to an hour, to three digits; longer latencies count as an hour.
        let latency = Histogram::new_with_bounds(1, HOUR, 3)
            .map_err(|error| Failure::new("count latencies", error))?;
        Ok(Tally {
            window: Window::NEVER,
            latency,
            messages: 0,
            answered_in_all: 0,
            connections: 0,
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
    pub(super) fn asked_without_client(&mut self) {
        self.faults.unanswered += 1;
    }

    /// Replies arrived, to messages that were due at these times.
    pub(super) fn answered(&mut self, due: impl Iterator<Item = u64>, now: u64) {
        let counts = self.window.has(now);
        for due in due {
            self.outstanding -= 1;
            self.answered_in_all += 1;
            self.messages += u64::from(counts);
            if self.window.has(due) {
                self.latency
                    .saturating_record(now.saturating_sub(due).max(1));
            }
        }
    }

    /// A new client has taken the place of another.
    pub(super) fn replaced(&mut self, now: u64) {
        self.connections += u64::from(self.window.has(now));
    }

    /// A client is lost, with its outstanding messages.
    pub(super) fn lost(&mut self, client: usize, loss: Loss, outstanding: usize) {
        let faults = &mut self.faults;
        let (count, words) = match loss {
            Loss::Refused(error) => (&mut faults.refused, format!("refused: {}", error.desc())),
            Loss::Closed => (&mut faults.closed, "closed by the server".to_owned()),
            Loss::Broken(error) => (&mut faults.broken, error.desc().to_owned()),
            Loss::Wrong(at) => (&mut faults.wrong, format!("wrong from byte {at} on")),
        };
        *count += 1;
        faults
            .first
            .get_or_insert_with(|| format!("client {client}: {words}"));
        self.outstanding -= outstanding as u64;
        faults.unanswered += outstanding as u64;
    }

    /// Outstanding replies are no longer awaited: they count as unanswered.
    pub(super) fn close(&mut self) {
        self.faults.unanswered += std::mem::take(&mut self.outstanding);
    }

    pub(super) fn latency(&self) -> Option<Latency> {
        Latency::of(&self.latency)
    }
}
