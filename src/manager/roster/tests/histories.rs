//! Random histories of a roster. The invariants that hold after every event are in
//! [`rules`](super::rules); here it is also tested that a server which is left alone comes to rest, and
//! that a stopped server ends.
//!
//! `PROPTEST_CASES=1000000 cargo test --release --lib histories` plays a million.

use std::time::Duration;

use proptest::prelude::*;

use super::world::{KILLED, Process, World};
use crate::control::{Note, NoteSet};
use crate::manager::roster::{Duty, Event, Phase, Plan};
use crate::sys::process::ExitStatus;

/// A step of a history. A number chooses one of the processes that it can happen to.
#[derive(Clone, Debug)]
enum Step {
    Ready(usize),
    Serve(usize),
    Seated(usize),
    AsksForSuccessor(usize),
    /// A worker writes anything, at any time.
    Babble(usize, u8),
    /// A worker that was asked to leave does so.
    Leave(usize),
    /// A worker that was killed is dead.
    Perish(usize),
    /// A worker dies, and leaves any notes.
    Die(usize, u8, u8),
    /// With a last call to the server: a stop or a reload.
    DieCalling(usize, bool),
    Pass(u16),
    PassUntilDue,
    Condemn(usize),
    CondemnTheOneBefore(usize),
    Grow(usize, u8),
    ForksFail(usize),
    Reload,
    Refill,
    Stop,
    Kill,
}

const NOTES: [Note; 5] = [
    Note::Ready,
    Note::Served,
    Note::Replace,
    Note::Left,
    Note::Seated,
];

fn any_notes(bits: u8) -> NoteSet {
    let chosen = (0..).zip(NOTES).filter(|(bit, _)| bits >> bit & 1 == 1);
    chosen.fold(NoteSet::EMPTY, |notes, (_, note)| notes.with(note))
}

fn too_large(slot: usize, times: u8) -> Event {
    let (bytes, limit) = (u64::from(times) + 2, 2);
    Event::TooLarge { slot, bytes, limit }
}

fn last_call(stops: bool) -> NoteSet {
    NoteSet::EMPTY.with(match stops {
        true => Note::StopServer,
        false => Note::ReloadServer,
    })
}

impl World {
    /// The slot of the `n`th process of which this is true.
    fn nth(&self, n: usize, is: impl Fn(&Process) -> bool) -> Option<usize> {
        let those = || {
            let all = self.processes.iter().enumerate();
            all.filter_map(|(slot, it)| it.as_ref().is_some_and(&is).then_some(slot))
        };
        let count = those().count();
        those().nth(n % count.max(1))
    }

    /// Plays a step. It does nothing if there is no process that it can happen to.
    fn step(&mut self, step: &Step) -> Option<()> {
        match *step {
            Step::Ready(n) => {
                let slot = self.nth(n, |it| it.ready_at.is_none())?;
                self.note(slot, Note::Ready);
            }
            Step::Serve(n) => {
                let slot = self.nth(n, |it| it.ready_at.is_some())?;
                self.note(slot, Note::Served);
            }
            Step::Seated(n) => {
                let slot = self.nth(n, |it| it.is_moving)?;
                self.note(slot, Note::Seated);
            }
            Step::AsksForSuccessor(n) => {
                let slot = self.nth(n, |it| it.ready_at.is_some())?;
                self.note(slot, Note::Replace);
            }
            Step::Babble(n, bits) => {
                let slot = self.nth(n, |_| true)?;
                self.notes(slot, any_notes(bits));
            }
            Step::Leave(n) => {
                let slot = self.nth(n, |it| it.is_asked)?;
                self.leaves(slot);
            }
            Step::Perish(n) => {
                let slot = self.nth(n, |it| it.is_killed)?;
                self.dies(slot, KILLED, NoteSet::EMPTY);
            }
            Step::Die(n, status, bits) => {
                let slot = self.nth(n, |_| true)?;
                let exit = ExitStatus::Code(i32::from(status % 2));
                self.dies(slot, exit, any_notes(bits));
            }
            Step::DieCalling(n, stops) => {
                let slot = self.nth(n, |_| true)?;
                self.dies(slot, KILLED, last_call(stops));
            }
            Step::Condemn(n) | Step::CondemnTheOneBefore(n) => {
                let slot = self.nth(n, |_| true)?;
                let generation = self.processes[slot]?.generation;
                let generation =
                    generation - u32::from(matches!(step, Step::CondemnTheOneBefore(_)));
                self.happened(Event::Condemned { slot, generation });
            }
            Step::Grow(n, times) => {
                let slot = self.nth(n, |_| true)?;
                self.happened(too_large(slot, times));
            }
            Step::ForksFail(n) => self.failing_forks = n,
            Step::Pass(milliseconds) => self.pass(Duration::from_millis(milliseconds.into())),
            Step::PassUntilDue => drop(self.pass_until_due()),
            Step::Reload => self.happened(Event::ReloadRequested),
            Step::Refill => self.happened(Event::RefillRequested),
            Step::Stop => self.happened(Event::StopRequested),
            Step::Kill => self.happened(Event::KillRequested),
        }
        Some(())
    }

    /// From here on no fault happens, and the server comes to rest.
    fn calms_down(&mut self) {
        self.failing_forks = 0;
        for _ in 0..500 {
            if self.verdict.is_some() || !self.all_behave() && !self.pass_until_due() {
                return;
            }
        }
        panic!("it never comes to rest");
    }

    /// Asserts that every seat is served, and that no work is left.
    fn is_at_rest(&self) {
        let workers = self.roster.slots.iter().flatten();
        let in_seats = workers.filter(|it| matches!(it.duty, Duty::Seat(_)));
        assert_eq!(in_seats.count(), self.plan.workers);
        let counts = &self.counts;
        if self.roster.phase == Phase::Running {
            let processes = self.processes.iter().flatten().count();
            assert_eq!(processes, self.plan.workers + self.plan.standby);
            assert_eq!(counts.reloads, counts.finished + counts.failed);
        }
        assert!(counts.finished + counts.failed <= counts.reloads);
    }
}

fn steps() -> impl Strategy<Value = Step> {
    let n = || 0..8_usize;
    prop_oneof![
        90 => n().prop_map(Step::Ready),
        40 => n().prop_map(Step::Serve),
        30 => n().prop_map(Step::Seated),
        30 => n().prop_map(Step::AsksForSuccessor),
        10 => (n(), 0..32_u8).prop_map(|(n, bits)| Step::Babble(n, bits)),
        50 => n().prop_map(Step::Leave),
        40 => n().prop_map(Step::Perish),
        50 => (n(), 0..2_u8, 0..32_u8).prop_map(|(n, status, bits)| Step::Die(n, status, bits)),
        10 => n().prop_map(|n| Step::DieCalling(n, false)),
        1 => n().prop_map(|n| Step::DieCalling(n, true)),
        40 => (0..2_000_u16).prop_map(Step::Pass),
        60 => Just(Step::PassUntilDue),
        15 => n().prop_map(Step::Condemn),
        5 => n().prop_map(Step::CondemnTheOneBefore),
        15 => (n(), 1..8_u8).prop_map(|(n, times)| Step::Grow(n, times)),
        15 => (0..4_usize).prop_map(Step::ForksFail),
        20 => Just(Step::Reload),
        1 => Just(Step::Refill),
        2 => Just(Step::Stop),
        1 => Just(Step::Kill),
    ]
}

fn plans() -> impl Strategy<Value = Plan> {
    let crash_loop = prop_oneof![2 => Just(None), 1 => (200..5_000_u64).prop_map(Some)];
    (1..4_usize, 0..3_usize, 1..4_usize, 0..3_000_u64, crash_loop).prop_map(
        |(workers, standby, spare, deadline, crash_loop)| Plan {
            workers,
            standby,
            slots: workers + standby + spare,
            leave_deadline: Duration::from_millis(deadline),
            crash_loop: crash_loop.map(Duration::from_millis),
        },
    )
}

/// Histories that begin with a death are often short: some start well.
fn play(plan: Plan, starts_well: bool, steps: &[Step]) {
    let mut world = World::new(plan);
    world.happened(Event::Started);
    if starts_well {
        while world.all_behave() {}
    }
    for step in steps {
        // Does nothing if there is no such process.
        let _ = world.step(step);
        if world.verdict.is_some() {
            return;
        }
    }
    world.calms_down();
    if world.verdict.is_some() {
        return;
    }
    if !world.is_stopping {
        world.is_at_rest();
        world.happened(Event::StopRequested);
        world.calms_down();
    }
    assert!(world.roster.has_ended());
}

fn cases() -> u32 {
    let asked = std::env::var("PROPTEST_CASES");
    asked.ok().and_then(|it| it.parse().ok()).unwrap_or(2_000)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn in_every_history_seats_are_served_and_a_stop_ends_the_server(
        plan in plans(),
        starts_well in prop::bool::weighted(0.9),
        steps in prop::collection::vec(steps(), 1..60),
    ) {
        play(plan, starts_well, &steps);
    }
}
