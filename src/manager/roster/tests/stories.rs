//! The effects of events, one story a test: every effect is compared, in its order. The pid of a
//! process is its generation.

use std::time::Duration;

use super::world::{KILLED, World};
use crate::control::{Note, NoteSet};
use crate::manager::roster::{Event, Plan};
use crate::sys::process::ExitStatus;

pub(super) const CRASHED: ExitStatus = ExitStatus::Code(1);
pub(super) const NOTHING: NoteSet = NoteSet::EMPTY;
pub(super) const SERVED: NoteSet = NoteSet::EMPTY.with(Note::Served);
pub(super) const MILLISECOND: Duration = Duration::from_millis(1);
pub(super) const SECOND: Duration = Duration::from_secs(1);

pub(super) fn plan(workers: usize, standby: usize) -> Plan {
    Plan {
        workers,
        standby,
        slots: 2 * workers + standby,
        leave_deadline: SECOND * 10,
        crash_loop: None,
    }
}

/// A server that has just been started.
pub(super) fn starting(plan: Plan) -> World {
    let mut world = World::new(plan).telling();
    world.happened(Event::Started);
    world
}

/// A server with workers that have all been ready for a minute. The worker in seat N is in slot N.
pub(super) fn serving(plan: Plan) -> World {
    let mut world = starting(plan);
    while world.all_behave() {}
    world.pass(SECOND * 60);
    world.told();
    world
}

impl World {
    /// Asserts the effects since the last call.
    #[track_caller]
    pub(super) fn tells(&mut self, expected: &[&str]) {
        assert_eq!(self.told(), expected);
    }

    /// Asserts that there was no effect since the last call.
    #[track_caller]
    pub(super) fn is_silent(&mut self) {
        self.tells(&[]);
    }

    /// Ignores the effects up to here.
    pub(super) fn skip(&mut self) {
        self.told();
    }

    pub(super) fn ready(&mut self, slot: usize) {
        self.note(slot, Note::Ready);
    }

    /// A worker gets ready in this slot and dies at once, without a callback. Returns how long its
    /// seat stays empty.
    #[track_caller]
    pub(super) fn useless(&mut self, slot: usize) -> Duration {
        self.ready(slot);
        self.dies(slot, CRASHED, NOTHING);
        let pause = self.roster.next_deadline().map(|at| at - self.now);
        if self.processes[slot].is_some() {
            return Duration::ZERO;
        }
        self.pass_until_due();
        assert!(self.processes[slot].is_some(), "another one is started");
        pause.unwrap_or_default()
    }
}

// Start

#[test]
fn a_server_starts_when_every_seat_is_ready_and_then_has_standby_workers() {
    let mut world = starting(plan(2, 2));
    world.tells(&[
        "fork worker#0 in 0",
        "tell seat 0 taken by 0",
        "fork worker#1 in 1",
        "tell seat 1 taken by 1",
    ]);
    world.ready(1);
    world.tells(&["log DEBUG: worker#1[pid=2] is ready", "tell seat 1 ready"]);
    world.ready(0);
    world.tells(&[
        "log DEBUG: worker#0[pid=1] is ready",
        "tell seat 0 ready",
        "tell all ready",
        "call all_ready",
        "fork standby in 2",
        "fork standby in 3",
    ]);
    world.ready(2);
    world.tells(&["log DEBUG: standby[pid=3] is ready"]);
}

#[test]
fn a_worker_that_cannot_start_ends_a_server_that_starts() {
    let mut world = starting(plan(2, 0));
    world.ready(0);
    world.skip();
    world.dies(1, CRASHED, NOTHING);
    let exit = "worker#1[pid=2] abnormal exit, status=1, signal=0";
    let told = world.told();
    assert_eq!(
        told[..3],
        [
            format!("log WARN: {exit}"),
            "tell 1 emptied".to_owned(),
            format!("call worker_exit: {exit}")
        ]
    );
    assert!(told[3].starts_with("end CannotStart"), "{told:?}");
    assert_eq!(told.len(), 4);
}

#[test]
fn a_worker_that_was_ready_and_died_while_the_server_starts_is_replaced() {
    let mut world = starting(plan(2, 0));
    world.skip();
    // Its note was not read before it died.
    world.dies(0, CRASHED, NOTHING.with(Note::Ready));
    world.tells(&[
        "log DEBUG: worker#0[pid=1] is ready",
        "tell seat 0 ready",
        "log WARN: worker#0[pid=1] abnormal exit, status=1, signal=0",
        "tell 0 emptied",
        "tell seat 0 vacant",
        "fork worker#0 in 0",
        "tell seat 0 taken by 0",
        "call worker_exit: worker#0[pid=1] abnormal exit, status=1, signal=0",
    ]);
    assert!(world.verdict.is_none());
}

#[test]
fn a_server_that_starts_waits_for_its_workers_as_long_as_they_take() {
    let mut world = starting(plan(1, 0));
    world.skip();
    assert_eq!(world.roster.next_deadline(), None);
    world.pass(SECOND * 86_400);
    world.is_silent();
}

#[test]
fn a_fork_that_fails_ends_a_server_that_starts() {
    let mut world = World::new(plan(2, 0)).telling();
    world.failing_forks = 1;
    world.happened(Event::Started);
    let told = world.told();
    assert_eq!(told[0], "fork worker#0 in 0");
    assert!(told[1].starts_with("end CannotFork"), "{told:?}");
    assert_eq!(told.len(), 2);
}

// Deaths

#[test]
fn a_death_is_reported_and_another_worker_takes_the_seat() {
    let mut world = serving(plan(2, 0));
    world.dies(1, KILLED, SERVED);
    world.tells(&[
        "log WARN: worker#1[pid=2] abnormal exit, status=0, signal=9 (SIGKILL)",
        "tell 1 emptied",
        "tell seat 1 vacant",
        "fork worker#1 in 1",
        "tell seat 1 taken by 1",
        "call worker_exit: worker#1[pid=2] abnormal exit, status=0, signal=9 (SIGKILL)",
    ]);
    world.ready(1);
    world.tells(&["log DEBUG: worker#1[pid=3] is ready", "tell seat 1 ready"]);
    assert_eq!(world.roster.next_deadline(), None);
}

#[test]
fn workers_that_die_young_and_useless_are_replaced_ever_more_slowly() {
    let mut world = serving(plan(1, 0));
    world.dies(0, CRASHED, SERVED);
    let pauses: Vec<u128> = (0..11).map(|_| world.useless(0).as_millis()).collect();
    let expected = [0, 100, 200, 400, 800, 1600, 3200, 6400, 10000, 10000, 10000];
    assert_eq!(pauses, expected);
    let told = world.told();
    let said = |line: &&String| line.starts_with("log WARN: worker#0 keeps dying");
    assert_eq!(told.iter().filter(said).count(), 10);
    let line =
        "log WARN: worker#0 keeps dying before its first callback: the next one starts in 100ms";
    assert!(told.contains(&line.to_owned()));
}

#[test]
fn a_worker_that_had_begun_a_callback_or_grown_old_is_replaced_at_once() {
    let mut world = serving(plan(1, 0));
    for _ in 0..5 {
        world.useless(0);
    }
    world.ready(0);
    world.note(0, Note::Served);
    world.pass(MILLISECOND * 10);
    world.dies(0, CRASHED, NOTHING);
    assert_eq!(world.useless(0), Duration::ZERO, "the count is reset");
    world.useless(0);
    world.ready(0);
    world.pass(SECOND);
    // A second `Ready` makes it no younger.
    world.ready(0);
    world.dies(0, CRASHED, NOTHING);
    assert_eq!(world.useless(0), Duration::ZERO, "the count is reset");
}

#[test]
fn an_idle_worker_that_is_killed_from_outside_again_and_again_is_replaced_at_once() {
    for standby in [0, 1] {
        let mut world = serving(plan(1, standby));
        for _ in 0..20 {
            while world.all_behave() {}
            world.pass(MILLISECOND * 10);
            let slot = world.roster.seats[0].current.expect("a worker");
            world.dies(slot, KILLED, NOTHING);
            assert!(
                world.roster.seats[0].current.is_some(),
                "the seat is not empty"
            );
        }
        let told = world.told();
        assert!(
            !told.iter().any(|line| line.contains("keeps dying")),
            "{told:?}"
        );
    }
}

#[test]
fn clients_that_kill_every_worker_make_one_fork_in_ten_milliseconds() {
    let mut world = serving(plan(1, 0));
    world.dies(0, CRASHED, SERVED);
    world.ready(0);
    world.pass(MILLISECOND * 3);
    world.skip();
    world.dies(0, CRASHED, SERVED);
    world.tells(&[
        "log WARN: worker#0[pid=2] abnormal exit, status=1, signal=0",
        "tell 0 emptied",
        "tell seat 0 vacant",
        "call worker_exit: worker#0[pid=2] abnormal exit, status=1, signal=0",
    ]);
    world.pass(MILLISECOND * 6);
    world.is_silent();
    world.pass(MILLISECOND);
    world.tells(&["fork worker#0 in 0", "tell seat 0 taken by 0"]);
}

#[test]
fn an_exit_is_normal_if_it_was_asked_for_and_in_order_and_each_calls_the_callback() {
    let asked = |exit, notes| {
        let mut world = serving(plan(1, 1));
        world.note(1, Note::Replace);
        world.tells(&["ask 1 to leave"]);
        world.dies(1, exit, notes);
        world.told()
    };
    let left = NOTHING.with(Note::Left);
    let call = "call worker_exit: standby[pid=2]";
    let normal = asked(ExitStatus::Code(0), left);
    let expected = [
        "tell 1 emptied",
        "fork standby in 1",
        &format!("{call} exit, status=0, signal=0"),
    ];
    assert_eq!(normal, expected);
    for (exit, notes) in [
        (ExitStatus::Code(0), NOTHING),
        (CRASHED, left),
        (KILLED, left),
    ] {
        let abnormal = asked(exit, notes);
        let prefix = "log WARN: standby[pid=2] abnormal exit";
        assert!(abnormal[0].starts_with(prefix), "{abnormal:?}");
        let last = abnormal.last().expect("the call");
        assert!(last.starts_with(&format!("{call} abnormal")), "{last}");
    }
}

#[test]
fn a_worker_that_leaves_without_having_been_asked_has_crashed() {
    let mut world = serving(plan(1, 0));
    world.note(0, Note::Left);
    world.is_silent();
    world.dies(0, ExitStatus::Code(0), NOTHING.with(Note::Left));
    assert_eq!(
        world.told()[0],
        "log WARN: worker#0[pid=1] abnormal exit, status=0, signal=0"
    );
}

#[test]
fn a_fork_that_fails_is_tried_again_after_a_pause_that_grows() {
    let mut world = serving(plan(1, 0));
    world.failing_forks = 4;
    world.dies(0, KILLED, SERVED);
    let mut pauses = Vec::new();
    for _ in 0..4 {
        let before = world.now;
        world.pass_until_due();
        pauses.push((world.now - before).as_millis());
    }
    assert_eq!(pauses, [100, 100, 200, 400]);
    let told = world.told();
    let line =
        "log ERROR: worker#0: cannot fork a worker: operation would block; next try in 200ms";
    assert!(told.contains(&line.to_owned()), "{told:#?}");
    let end = ["fork worker#0 in 0", "tell seat 0 taken by 0"];
    assert_eq!(told[told.len() - 2..], end);
}
