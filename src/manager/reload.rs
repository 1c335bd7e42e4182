//! Reload: the new worker starts while the old one serves, and takes over when it is ready. One
//! seat at a time.

use std::time::Duration;

use super::life::{Event, State};
use super::seat::Place;
use super::{Manager, Phase, Supervised};

/// The same, at least.
const START_PATIENCE: Duration = Duration::from_secs(60);

impl Manager<'_> {
    /// Replaces every worker.
    pub(super) fn reload(&mut self) -> Supervised {
        if self.phase != Phase::Running || self.ending {
            log::warn!("not reloading: the server is starting or ending");
            return Ok(());
        }
        if !self.reloading.is_empty() {
            // Begun anew, it would never come to the last seats.
            self.reload_again = true;
            return Ok(());
        }
        log::info!("reloading {} workers, one at a time", self.seats.len());
        self.reloading = self
            .seats
            .iter()
            .map(|seat| seat.last_generation)
            .enumerate()
            .collect();
        self.reload_next()
    }

    /// Replaces one worker, in its turn.
    pub(super) fn replace(&mut self, number: usize, generation: u32) -> Supervised {
        let queued = self
            .reloading
            .iter()
            .any(|(seat, old)| *seat == number && *old >= generation);
        if queued || self.ending || self.phase == Phase::Stopping {
            return Ok(());
        }
        self.reloading.push_back((number, generation));
        self.reload_next()
    }

    /// Goes on with the seats that are to be reloaded, as far as it can without waiting.
    pub(super) fn reload_next(&mut self) -> Supervised {
        if self.phase != Phase::Running || self.ending {
            return Ok(());
        }
        while let Some(&(number, old)) = self.reloading.front() {
            let seat = &self.seats[number];
            match seat.current() {
                // The new one has the seat, or the next to come there is a new one anyway.
                Some(current) if current.generation > old && current.state == State::Ready => {}
                None => {}
                Some(current) => {
                    let is_old = current.generation <= old && current.state == State::Ready;
                    if !is_old || seat.successor().is_some() {
                        return Ok(());
                    }
                    self.happen(number, Place::Successor, Event::BackoffElapsed)?;
                    return Ok(());
                }
            }
            self.reloading.pop_front();
            if self.reloading.is_empty() {
                log::info!("every worker that was to be replaced is");
            }
        }
        if std::mem::take(&mut self.reload_again) {
            self.reload()
        } else {
            Ok(())
        }
    }

    /// How long a worker of a running server may take to get ready: no less than twice what any has
    /// taken so far.
    pub(super) fn start_patience(&self) -> Duration {
        self.shutdown_deadline
            .max(START_PATIENCE)
            .max(self.slowest_start * 2)
    }

    /// A successor has died before its turn. Who was to be replaced and was not asked to leave yet
    /// stays.
    pub(super) fn reload_failed(&mut self) {
        if self.phase == Phase::Stopping || self.reloading.is_empty() {
            return;
        }
        let left = self.reloading.len();
        log::error!("the reload has failed: a new worker did not start, {left} old ones stay");
        self.reloading.clear();
        self.reload_again = false;
    }
}
