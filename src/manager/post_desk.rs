//! Posts of other programs in base mode, which go to the workers by their channels.
//!
//! Runs in the manager. Its one rule: it never waits. A channel that is full refuses the post.

use std::sync::Arc;
use std::time::Instant;

use super::Manager;
use super::passage::{Pace, Passage};
use crate::handler::To;
use crate::ipc::layout::SlotWords;
use crate::ipc::sync::Ordering;
use crate::net::arrival;
use crate::status::Refused;

impl Manager<'_> {
    /// Takes the posts that have come. In process mode they come to the master.
    pub(super) fn take_posts(&mut self) {
        if let Some(mut post_desk) = self.post_desk.take() {
            let poller = Arc::clone(&self.poller);
            post_desk.take(&poller, |to, bytes| self.deliver(to, bytes));
            self.post_desk = Some(post_desk);
        }
    }

    fn deliver(&mut self, to: To, bytes: &[u8]) -> Result<(), Refused> {
        let seats = self.config.workers;
        let wanted = match to {
            To::Seat(seat) if seat >= seats => return Err(Refused::NoSeat { seats }),
            To::Owner(_) => return Err(Refused::NoOwner),
            To::Seat(seat) => Some(seat),
            To::All | To::LeastBusy => None,
        };
        let (now, record) = (Instant::now(), arrival::post(bytes));
        let mut serving = self.serving(wanted, now);
        match to {
            To::All if serving.len() < seats => return Err(Refused::NoWorker),
            To::All => {}
            To::Seat(_) | To::LeastBusy | To::Owner(_) => {
                serving.sort_by_key(|(load, _)| *load);
            }
        }
        if serving.is_empty() {
            return Err(Refused::NoWorker);
        }
        let send = |(_, passage): &mut (Load, &mut Passage)| passage.try_post(&record);
        let is_taken = match to {
            // Each of them, also if one refuses.
            To::All => serving
                .iter_mut()
                .map(send)
                .fold(true, |all, one| all & one),
            To::Seat(_) | To::LeastBusy | To::Owner(_) => serving.iter_mut().any(send),
        };
        is_taken.then_some(()).ok_or(Refused::Full)
    }

    /// Returns the workers that have a seat and serve.
    fn serving(&mut self, seat: Option<usize>, now: Instant) -> Vec<(Load, &mut Passage)> {
        let roster = &self.roster;
        let slots = self.slots.iter_mut().enumerate();
        let serving = slots.filter_map(|(number, slot)| {
            let worker = roster.worker(number).filter(|it| it.serves_seat())?;
            seat.is_none_or(|seat| worker.duty.seat() == Some(seat))
                .then_some(())?;
            let passage = slot.handle.as_mut()?.passage.as_mut()?;
            let words: &SlotWords = &slot.memory.words;
            let load = (
                passage.pace(words, now),
                words.activity.is_busy(),
                words.connections.load(Ordering::Relaxed),
            );
            (!passage.is_finished).then_some((load, passage))
        });
        serving.collect()
    }
}

/// How soon a worker can be expected to take a post.
type Load = (Pace, bool, u64);
