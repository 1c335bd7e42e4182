//! The end of all workers: empty seats are filled for the last time, then every worker is asked to leave,
//! then killed.

use super::{Effect, Phase, Roster};
use crate::manager::life::{self, State};

impl Roster {
    /// The master finishes its connections: empty seats are filled now, and no worker is replaced any
    /// more.
    pub(super) fn refill(&mut self) {
        if self.phase == Phase::Running {
            self.phase = Phase::Ending;
        }
        for seat in 0..self.seats.len() {
            if self.seats[seat].refill_at.take().is_some() {
                self.refill_one(seat);
            }
        }
    }

    /// Asks every worker to leave. While the server starts, workers that are not ready are killed.
    pub(super) fn stop(&mut self) {
        if self.phase == Phase::Stopping {
            return;
        }
        let is_starting = self.phase == Phase::Starting;
        self.phase = Phase::Stopping;
        self.reload.forget();
        self.standby.refill_at = None;
        for seat in &mut self.seats {
            seat.refill_at = None;
        }
        self.effects.push_back(Effect::AnnounceStop);
        for slot in 0..self.slots.len() {
            // It has no client that would miss it, and may take long to hear of the request.
            let waits = self
                .worker(slot)
                .is_some_and(|worker| worker.state == State::Starting);
            self.step(
                slot,
                match is_starting && waits {
                    true => life::Event::Condemned,
                    false => life::Event::StopRequested,
                },
            );
        }
    }

    /// Kills every worker.
    pub(super) fn kill_all(&mut self) {
        self.stop();
        for slot in 0..self.slots.len() {
            self.step(slot, life::Event::Condemned);
        }
    }
}
