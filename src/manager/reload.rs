//! Reload and recycling: the new worker starts while the old one serves, and has the seat from the
//! moment when it is ready. One seat at a time, whoever asks.

use std::time::{Duration, Instant};

use super::backoff::Life;
use super::life::{Event, State};
use super::seat::Post;
use super::{Manager, Phase, Supervised};

/// How long a worker of a running server may take to get ready, at least.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// The least time between a worker's getting ready and its replacement: one that asks for that at
/// its very start does not make the manager do nothing but fork.
const FLOOR: Duration = Duration::from_millis(10);

/// A worker that is to be replaced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Turn {
    seat: usize,
    /// Up to this generation.
    generation: u32,
    /// Everybody is: a person has asked.
    is_reload: bool,
}

impl Manager<'_> {
    /// Replaces every worker.
    pub(super) fn reload(&mut self) -> Supervised {
        if self.phase != Phase::Running || self.ending {
            log::warn!("not reloading: the server is starting or ending");
            return Ok(());
        }
        if self.reloading.iter().any(|turn| turn.is_reload) {
            // Begun anew, it would never come to the last seats.
            self.reload_again = true;
            return Ok(());
        }
        log::info!("reloading {} workers, one at a time", self.seats.len());
        let generation = self.last_generation;
        let turn = |seat| Turn {
            seat,
            generation,
            is_reload: true,
        };
        self.reloading.extend((0..self.seats.len()).map(turn));
        // They have nothing to finish. Others come in their place, which are new.
        for slot in 0..self.slots.len() {
            if self.slots[slot].post == Post::Standby {
                self.happen(slot, Event::StopRequested)?;
            }
        }
        self.reload_next()
    }

    /// Replaces one worker, in its turn: it has asked for it, or has grown too large. Says whether
    /// that is news.
    pub(super) fn replace(&mut self, slot: usize) -> Supervised<bool> {
        let Some(generation) = self.slots[slot].handle.as_ref().map(|it| it.generation) else {
            return Ok(false);
        };
        let seat = match self.slots[slot].post {
            Post::Seat(seat) | Post::Successor(seat) => seat,
            Post::Standby => return self.happen(slot, Event::StopRequested).map(|()| true),
            Post::Leaving(_) => return Ok(false),
        };
        let is_queued = |turn: &Turn| turn.seat == seat && turn.generation >= generation;
        if self.reloading.iter().any(is_queued) || self.ending || self.phase == Phase::Stopping {
            return Ok(false);
        }
        self.reloading.push_back(Turn {
            seat,
            generation,
            is_reload: false,
        });
        self.reload_next().map(|()| true)
    }

    /// Goes on with the workers that are to be replaced, as far as it can without waiting.
    pub(super) fn reload_next(&mut self) -> Supervised {
        if self.phase != Phase::Running || self.ending || self.somebody_changes() {
            return Ok(());
        }
        let now = Instant::now();
        while let Some(&turn) = self.reloading.front() {
            let current = self.seats[turn.seat].current;
            let current = current.and_then(|slot| self.slots[slot].handle.as_ref());
            if let Some(current) = current {
                if current.state != State::Ready {
                    return Ok(());
                }
                let ready_at = current.ready_at.unwrap_or(current.born);
                let not_before = self
                    .reload_at
                    .map_or(ready_at + FLOOR, |at| at.max(ready_at + FLOOR));
                if current.generation <= turn.generation && not_before > now {
                    self.reload_at = Some(not_before);
                    return Ok(());
                }
                self.reload_at = None;
                if current.generation <= turn.generation {
                    return self.start(Post::Successor(turn.seat));
                }
            }
            // A new one has the seat, or whoever comes next there is a new one anyway.
            self.turn_is_over();
        }
        if std::mem::take(&mut self.reload_again) {
            self.reload()
        } else {
            Ok(())
        }
    }

    fn turn_is_over(&mut self) {
        self.reload_backoff = super::backoff::Backoff::default();
        let turn = self.reloading.pop_front();
        let was_reload = turn.is_some_and(|turn| turn.is_reload);
        if was_reload && !self.reloading.iter().any(|turn| turn.is_reload) {
            log::info!("every worker that was to be replaced is");
        }
    }

    /// Whether a seat changes hands at this moment.
    fn somebody_changes(&self) -> bool {
        self.slots.iter().any(|slot| {
            let changes = matches!(slot.post, Post::Successor(_) | Post::Leaving(_));
            changes && slot.handle.is_some()
        })
    }

    /// How long a worker of a running server may take to get ready: no less than twice what any has
    /// taken so far.
    pub(super) fn start_patience(&self) -> Duration {
        self.config
            .shutdown_deadline
            .max(START_PATIENCE)
            .max(self.slowest_start * 2)
    }

    /// A successor could not start: the old worker stays. A reload is over with that; a worker that
    /// has asked for its own replacement is replaced later.
    pub(super) fn reload_failed(&mut self) {
        if self.phase == Phase::Stopping || self.reloading.is_empty() {
            return;
        }
        let left = self.reloading.iter().filter(|turn| turn.is_reload).count();
        if left > 0 {
            log::error!("the reload has failed: a new worker did not start, {left} old ones stay");
        } else {
            log::error!(
                "a worker could not be replaced: a new one did not start, it stays for now"
            );
        }
        self.reloading.retain(|turn| !turn.is_reload);
        self.reload_again = false;
        self.reloading
            .rotate_left(usize::from(!self.reloading.is_empty()));
        self.remember_who_wants_to_go();
        let delay = self.reload_backoff.after(Life::Idle, Duration::ZERO);
        self.reload_at = Some(Instant::now() + delay.max(Duration::from_millis(100)));
    }

    /// Workers that have asked for their own replacement, and whose turn was the reload's that is over.
    fn remember_who_wants_to_go(&mut self) {
        for slot in &self.slots {
            let (Post::Seat(seat), Some(handle)) = (slot.post, &slot.handle) else {
                continue;
            };
            let is_queued = self.reloading.iter().any(|turn| turn.seat == seat);
            if handle.wants_to_go && !is_queued {
                self.reloading.push_back(Turn {
                    seat,
                    generation: handle.generation,
                    is_reload: false,
                });
            }
        }
    }
}
