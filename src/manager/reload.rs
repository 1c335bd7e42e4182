//! Reload: the new worker starts while the old one serves, and takes over when it is ready. One
//! seat at a time.

use std::time::{Duration, Instant};

use super::life::{Event, State};
use super::seat::Place;
use super::{Manager, Phase, Supervised};

/// How long a successor may take to get ready, at least.
const START_PATIENCE: Duration = Duration::from_secs(60);

impl Manager<'_> {
    /// Replaces every worker.
    pub(super) fn reload(&mut self) -> Supervised {
        if self.phase != Phase::Running {
            log::warn!("not reloading: the server is {:?}", self.phase);
            return Ok(());
        }
        log::info!("reloading {} workers, one at a time", self.seats.len());
        // Those that wait for their turn have it still to come; all that are there now are old.
        self.reloading = self
            .seats
            .iter()
            .map(|seat| seat.last_generation)
            .enumerate()
            .collect();
        self.reload_next()
    }

    /// Goes on with the seats that are to be reloaded, as far as it can without waiting.
    pub(super) fn reload_next(&mut self) -> Supervised {
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
                log::info!("every worker is reloaded");
            }
        }
        Ok(())
    }

    pub(super) fn set_start_deadline(&mut self, number: usize) {
        let until = Instant::now() + self.shutdown_deadline.max(START_PATIENCE);
        if let Some(successor) = self.seats[number].at(Place::Successor) {
            successor.deadline = Some(until);
        }
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
    }
}
