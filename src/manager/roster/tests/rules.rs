//! The invariants of a roster, which hold in every history: the order of the news to the master, and the
//! state after every event.

use std::time::Duration;

use super::world::{Process, World};
use crate::control::News;
use crate::manager::life::State;
use crate::manager::roster::{Duty, Phase, Verdict};

/// The master's view of the worker in a seat.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Holder {
    pub(super) slot: usize,
    pub(super) generation: u32,
    pub(super) is_ready: bool,
}

impl World {
    // The news to the master

    pub(super) fn handle_news(&mut self, news: News) {
        match news {
            News::AllReady => {
                let ready = self.holders.iter().flatten().filter(|it| it.is_ready);
                assert_eq!(ready.count(), self.plan.workers);
                self.counts.all_ready += 1;
                assert_eq!(self.counts.all_ready, 1);
            }
            News::Emptied { slot, generation } => {
                let untold = self.untold[slot as usize].take();
                assert_eq!(untold, Some(generation), "each death is told once");
            }
            News::Vacant { seat } => {
                let last = self.holders[seat as usize].take().expect("it was taken");
                assert!(!self.lives(last), "vacant, but {last:?} lives");
                assert_eq!(self.untold[last.slot], None, "vacant before emptied");
            }
            News::Taken {
                seat,
                slot,
                generation,
            } => self.handle_taken(seat as usize, slot as usize, generation),
            News::Ready { seat } => {
                let holder = self.holders[seat as usize].as_mut().expect("taken before");
                assert!(!holder.is_ready, "ready twice");
                holder.is_ready = true;
                let process = self.processes[holder.slot].expect("ready and alive");
                assert!(process.ready_at.is_some() && !process.is_moving);
            }
            News::CannotStart { .. }
            | News::CrashLoop
            | News::Forked { .. }
            | News::Reloading
            | News::Reloaded
            | News::Pong => {
                unreachable!("told by the manager's loop")
            }
        }
    }

    fn handle_taken(&mut self, seat: usize, slot: usize, generation: u32) {
        let holder = Holder {
            slot,
            generation,
            is_ready: false,
        };
        assert!(self.lives(holder), "taken by a dead one");
        let has_one = |it: &Holder| (it.slot, it.generation) == (slot, generation);
        assert!(!self.holders.iter().flatten().any(has_one), "one seat each");
        if let Some(last) = self.holders[seat].replace(holder) {
            assert!(self.lives(last), "taken from a dead one");
        }
    }

    fn lives(&self, holder: Holder) -> bool {
        let process = self.processes[holder.slot].as_ref();
        process.is_some_and(|it| it.generation == holder.generation)
    }

    // Invariants

    pub(super) fn check_verdict(&self, verdict: &Verdict) {
        let has_started = self.counts.all_ready > 0;
        match verdict {
            Verdict::CannotStart(_) | Verdict::CannotFork(_) => assert!(!has_started),
            Verdict::CrashLoop => {
                let holders = self.holders.iter().flatten();
                for process in holders.filter_map(|it| self.processes[it.slot]) {
                    let ready = process.ready_at.map_or(self.now, |at| at);
                    let is_old = self.now - ready >= Duration::from_secs(1);
                    assert!(has_started && !process.served && !is_old, "{process:?}");
                }
            }
        }
    }

    /// After every event.
    pub(super) fn check(&self) {
        assert!(self.untold.iter().all(Option::is_none), "a death is told");
        assert_eq!(
            self.counts.deaths, self.counts.exit_calls,
            "and its callback"
        );
        let (mut successors, mut leaving) = (0, 0);
        for (slot, process) in self.processes.iter().enumerate() {
            let worker = self.roster.worker(slot);
            let known = worker.map(|worker| worker.generation);
            assert_eq!(known, process.map(|process| process.generation));
            let (Some(worker), Some(process)) = (worker, process) else {
                continue;
            };
            match worker.duty {
                Duty::Seat(seat) => assert!(self.has(seat, slot, process), "{worker:?}"),
                Duty::Successor(_) => successors += 1,
                Duty::Leaving(_) => leaving += 1,
                Duty::Standby => {}
            }
            let is_bounded = match worker.state {
                State::Draining => worker.deadline.is_some(),
                State::Starting => worker.deadline.is_some() || self.counts.all_ready == 0,
                State::Ready => process.ready_at.is_some() && !self.is_stopping,
                State::Killing => process.is_killed,
                State::Down | State::Failed => false,
            };
            assert!(is_bounded, "{worker:?}, {process:?}");
            assert!(!self.is_killing || process.is_killed);
        }
        assert!(successors <= 1, "two seats change hands");
        assert!(leaving + successors <= self.plan.spare());
        let is_over = self.processes.iter().all(Option::is_none);
        assert_eq!(self.roster.has_ended(), self.is_stopping && is_over);
        self.check_seats();
    }

    fn has(&self, seat: usize, slot: usize, process: &Process) -> bool {
        self.holders[seat].is_some_and(|it| (it.slot, it.generation) == (slot, process.generation))
            && self.roster.seats[seat].current == Some(slot)
    }

    /// No seat, no standby and no reload is forgotten.
    fn check_seats(&self) {
        let roster = &self.roster;
        let is_serving = matches!(roster.phase, Phase::Running | Phase::Ending);
        for (seat, holder) in roster.seats.iter().zip(&self.holders) {
            assert_eq!(seat.current, holder.map(|holder| holder.slot));
            let is_due = seat.refill_at.is_some();
            assert!(!is_serving || seat.current.is_some() != is_due);
        }
        let standby = roster.slots_of(Duty::Standby).count();
        assert!(standby <= self.plan.standby);
        assert!(
            roster.phase != Phase::Running
                || standby == self.plan.standby
                || roster.standby.refill_at.is_some()
        );
        assert!(!roster.is_reload_forgotten());
    }
}
