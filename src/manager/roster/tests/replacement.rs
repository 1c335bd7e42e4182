//! Stories of replacement: reload and recycling.

use super::stories::{CRASHED, MILLISECOND, NOTHING, SECOND, SERVED, plan, serving, starting};
use super::world::{KILLED, World};
use crate::control::{Note, NoteSet};
use crate::manager::roster::Event;

impl World {
    pub(super) fn reload(&mut self) {
        self.happened(Event::ReloadRequested);
    }

    pub(super) fn grows(&mut self, slot: usize, mib: u64) {
        let (bytes, limit) = (mib << 20, 64 << 20);
        self.happened(Event::TooLarge { slot, bytes, limit });
    }
}

// Reload

#[test]
fn a_reload_replaces_one_seat_after_the_other() {
    let mut world = serving(plan(2, 0));
    world.reload();
    world.tells(&[
        "log INFO: reloading 2 workers, one at a time",
        "fork worker#0 in 2",
    ]);
    world.ready(2);
    world.tells(&[
        "log DEBUG: worker#0[pid=3] is ready",
        "assign seat 0 to 2",
        "tell seat 0 taken by 2",
        "tell seat 0 ready",
        "wake 2",
        "ask 0 to leave",
    ]);
    // The next seat has its turn when the old worker is gone.
    world.pass(MILLISECOND * 99);
    world.is_silent();
    world.leaves(0);
    world.tells(&[
        "tell 0 emptied",
        "fork worker#1 in 0",
        "call worker_exit: worker#0[pid=1] exit, status=0, signal=0",
    ]);
    world.ready(0);
    world.skip();
    world.leaves(1);
    world.tells(&[
        "tell 1 emptied",
        "log INFO: reload finished",
        "call worker_exit: worker#1[pid=2] exit, status=0, signal=0",
    ]);
    assert_eq!(world.roster.next_deadline(), None);
}

#[test]
fn old_workers_that_are_stuck_leave_side_by_side() {
    let mut world = serving(plan(3, 0));
    world.reload();
    for (old, new) in [(0, 3), (1, 4), (2, 5)] {
        world.ready(new);
        let told = world.told();
        assert!(told.contains(&format!("ask {old} to leave")), "{told:?}");
        world.pass(MILLISECOND * 100);
    }
    world.pass(SECOND * 10);
    let killed = world.told();
    for old in 0..3 {
        assert!(killed.contains(&format!("kill {old}")), "{killed:?}");
        world.dies(old, KILLED, NOTHING);
    }
    let finished = "log INFO: reload finished".to_owned();
    assert!(world.told().contains(&finished));
}

#[test]
fn a_second_reload_waits_for_the_old_workers_of_the_first() {
    let mut world = serving(plan(2, 0));
    world.reload();
    for new in [2, 3] {
        world.ready(new);
        world.pass(MILLISECOND * 100);
    }
    world.reload();
    world.leaves(0);
    world.skip();
    world.pass(SECOND);
    world.is_silent();
    world.leaves(1);
    assert!(world.told().contains(&"fork worker#0 in 0".to_owned()));
}

#[test]
fn a_reload_that_is_asked_for_during_a_reload_follows_it_once() {
    let mut world = serving(plan(1, 0));
    for _ in 0..3 {
        world.reload();
    }
    world.tells(&[
        "log INFO: reloading 1 worker, one at a time",
        "fork worker#0 in 1",
    ]);
    world.ready(1);
    world.skip();
    world.leaves(0);
    world.tells(&[
        "tell 0 emptied",
        "log INFO: reload finished",
        "log INFO: reloading 1 worker, one at a time",
        "call worker_exit: worker#0[pid=1] exit, status=0, signal=0",
    ]);
    world.pass(MILLISECOND * 10);
    world.tells(&["fork worker#0 in 0"]);
    world.ready(0);
    world.leaves(1);
    assert_eq!((world.counts.reloads, world.counts.finished), (2, 2));
}

#[test]
fn a_reload_replaces_the_standby_workers_too() {
    let mut world = serving(plan(1, 2));
    world.reload();
    world.tells(&[
        "log INFO: reloading 1 worker, one at a time",
        "ask 1 to leave",
        "ask 2 to leave",
        "fork worker#0 in 3",
    ]);
    // A worker that was asked to leave takes no seat.
    world.dies(0, KILLED, SERVED);
    world.tells(&[
        "log WARN: worker#0[pid=1] abnormal exit, status=0, signal=9 (SIGKILL)",
        "tell 0 emptied",
        "tell seat 0 vacant",
        "assign seat 0 to 3",
        "tell seat 0 taken by 3",
        "wake 3",
        "call worker_exit: worker#0[pid=1] abnormal exit, status=0, signal=9 (SIGKILL)",
    ]);
    world.leaves(2);
    assert_eq!(world.told()[..2], ["tell 2 emptied", "fork standby in 0"]);
}

#[test]
fn a_reload_asks_none_to_leave_that_is_about_to_be_forked() {
    let mut world = serving(plan(1, 1));
    world.reload();
    world.reload();
    world.leaves(1);
    world.ready(1);
    world.dies(0, KILLED, SERVED);
    world.skip();
    // The successor had the seat. That the next one has it ends the first reload and begins the second.
    world.dies(2, CRASHED, NOTHING);
    world.tells(&[
        "log WARN: worker#0[pid=3] abnormal exit, status=1, signal=0",
        "tell 2 emptied",
        "tell seat 0 vacant",
        "assign seat 0 to 1",
        "tell seat 0 taken by 1",
        "wake 1",
        "fork standby in 0",
        "log INFO: reload finished",
        "log INFO: reloading 1 worker, one at a time",
        "call worker_exit: worker#0[pid=3] abnormal exit, status=1, signal=0",
    ]);
}

#[test]
fn a_reload_is_refused_while_the_server_starts_or_ends() {
    let refused = ["log WARN: reload refused: the server is starting or stopping"];
    let mut world = starting(plan(1, 0));
    world.skip();
    world.reload();
    world.tells(&refused);
    for end in [Event::RefillRequested, Event::StopRequested] {
        let mut world = serving(plan(1, 0));
        world.happened(end);
        world.skip();
        world.reload();
        world.tells(&refused);
        // A callback may ask with each message.
        world.reload();
        world.tells(&[]);
    }
}

#[test]
fn if_the_new_worker_does_not_start_the_old_ones_stay() {
    let mut world = serving(plan(2, 0));
    world.reload();
    world.reload();
    world.skip();
    world.dies(2, CRASHED, NOTHING);
    world.tells(&[
        "log WARN: worker#0[pid=3] abnormal exit, status=1, signal=0",
        "tell 2 emptied",
        "log ERROR: reload failed: the new worker#0 did not start, 2 old workers stay; fix the cause and reload again",
        "call worker_exit: worker#0[pid=3] abnormal exit, status=1, signal=0",
    ]);
    // A failed reload is not tried again by itself.
    world.pass(SECOND * 3600);
    world.is_silent();
    world.reload();
    world.tells(&[
        "log INFO: reloading 2 workers, one at a time",
        "fork worker#0 in 2",
    ]);
}

#[test]
fn a_reload_fails_too_if_the_new_worker_cannot_be_forked_or_is_dead_when_it_is_ready() {
    let mut world = serving(plan(1, 0));
    world.failing_forks = 1;
    world.reload();
    let told = world.told();
    let line = "log ERROR: worker#0: cannot fork a worker: operation would block";
    assert_eq!(told[2], line);
    assert!(told[3].starts_with("log ERROR: reload failed"), "{told:?}");

    let mut world = serving(plan(1, 0));
    world.reload();
    world.skip();
    world.dies(1, CRASHED, NOTHING.with(Note::Ready));
    let told = world.told();
    assert!(told[2].starts_with("log ERROR: reload failed"), "{told:?}");
    assert_eq!(told.len(), 4, "it had no seat: {told:?}");
}

#[test]
fn if_the_old_worker_dies_first_the_new_one_has_the_seat_at_once() {
    let mut world = serving(plan(2, 1));
    world.reload();
    world.leaves(2);
    world.ready(2);
    world.skip();
    world.dies(0, KILLED, SERVED);
    world.tells(&[
        "log WARN: worker#0[pid=1] abnormal exit, status=0, signal=9 (SIGKILL)",
        "tell 0 emptied",
        "tell seat 0 vacant",
        "assign seat 0 to 3",
        "tell seat 0 taken by 3",
        "wake 3",
        "call worker_exit: worker#0[pid=1] abnormal exit, status=0, signal=9 (SIGKILL)",
    ]);
    // The next seat has its turn when this one is ready.
    world.pass(SECOND);
    world.is_silent();
    world.ready(3);
    world.tells(&[
        "log DEBUG: worker#0[pid=4] is ready",
        "tell seat 0 ready",
        "fork worker#1 in 0",
    ]);
}

#[test]
fn an_old_worker_that_does_not_leave_is_killed() {
    let mut world = serving(plan(1, 0));
    world.reload();
    world.ready(1);
    world.skip();
    world.pass(SECOND * 10 - MILLISECOND);
    world.is_silent();
    world.pass(MILLISECOND);
    world.tells(&[
        "log WARN: worker#0[pid=1] did not leave within 10s: killed",
        "kill 0",
    ]);
    world.dies(0, KILLED, NOTHING);
    let told = world.told();
    assert!(
        told.contains(&"log INFO: reload finished".to_owned()),
        "{told:?}"
    );
}

// Recycling

#[test]
fn a_worker_that_asks_for_it_is_replaced_once() {
    let mut world = serving(plan(2, 0));
    world.note(1, Note::Replace);
    world.tells(&["fork worker#1 in 2"]);
    world.note(1, Note::Replace);
    world.is_silent();
    world.ready(2);
    world.skip();
    world.note(1, Note::Replace);
    world.is_silent();
    world.leaves(1);
    world.tells(&[
        "tell 1 emptied",
        "call worker_exit: worker#1[pid=2] exit, status=0, signal=0",
    ]);
}

#[test]
fn two_workers_that_ask_for_it_have_their_turns() {
    let mut world = serving(plan(2, 0));
    world.note(1, Note::Replace);
    world.note(0, Note::Replace);
    world.tells(&["fork worker#1 in 2"]);
    world.ready(2);
    world.skip();
    world.leaves(1);
    assert_eq!(world.told()[1], "fork worker#0 in 1");
}

#[test]
fn a_worker_that_asks_for_it_at_once_is_replaced_after_ten_milliseconds() {
    let mut world = serving(plan(1, 0));
    world.dies(0, KILLED, SERVED);
    let both = NoteSet::EMPTY.with(Note::Ready).with(Note::Replace);
    world.skip();
    world.notes(0, both);
    world.tells(&["log DEBUG: worker#0[pid=2] is ready", "tell seat 0 ready"]);
    world.pass(MILLISECOND * 9);
    world.is_silent();
    world.pass(MILLISECOND);
    world.tells(&["fork worker#0 in 1"]);
}

#[test]
fn a_worker_that_asks_for_it_while_the_server_starts_is_replaced_when_it_has_started() {
    let mut world = starting(plan(2, 0));
    world.ready(0);
    world.skip();
    world.note(0, Note::Replace);
    world.pass(SECOND);
    world.is_silent();
    world.ready(1);
    let told = world.told();
    let end = ["tell all ready", "call all_ready", "fork worker#0 in 2"];
    assert_eq!(told[2..], end);
}

#[test]
fn a_worker_that_cannot_be_replaced_stays_and_is_tried_again_ever_later() {
    let mut world = serving(plan(1, 0));
    world.note(0, Note::Replace);
    let mut pauses = Vec::new();
    for _ in 0..4 {
        world.skip();
        world.dies(1, CRASHED, NOTHING);
        assert_eq!(
            world.told()[2],
            "log ERROR: worker#0 could not be replaced: the new one did not start; the old one stays, and another try follows"
        );
        let before = world.now;
        world.pass_until_due();
        world.tells(&["fork worker#0 in 1"]);
        pauses.push((world.now - before).as_millis());
    }
    assert_eq!(pauses, [100, 100, 200, 400]);
    // A successful replacement resets the count.
    world.ready(1);
    world.leaves(0);
    world.pass(SECOND);
    world.note(1, Note::Replace);
    let before = world.now;
    world.dies(0, CRASHED, NOTHING);
    world.pass_until_due();
    assert_eq!(world.now - before, MILLISECOND * 100);
}

#[test]
fn if_one_worker_cannot_be_replaced_another_one_has_its_turn_first() {
    let mut world = serving(plan(2, 0));
    world.note(0, Note::Replace);
    world.note(1, Note::Replace);
    world.skip();
    world.dies(2, CRASHED, NOTHING);
    world.skip();
    world.pass_until_due();
    world.tells(&["fork worker#1 in 2"]);
}

#[test]
fn a_worker_that_dies_before_its_next_try_holds_up_no_other() {
    let mut world = serving(plan(2, 0));
    world.note(0, Note::Replace);
    world.dies(2, CRASHED, NOTHING);
    world.dies(0, KILLED, SERVED);
    world.ready(0);
    world.skip();
    world.note(1, Note::Replace);
    world.tells(&["fork worker#1 in 2"]);
}

#[test]
fn a_worker_that_asked_for_it_is_not_forgotten_with_a_failed_reload() {
    let mut world = serving(plan(2, 0));
    world.reload();
    world.note(1, Note::Replace);
    world.dies(2, CRASHED, NOTHING);
    world.skip();
    world.pass_until_due();
    world.tells(&["fork worker#1 in 2"]);
}

#[test]
fn a_worker_that_served_and_was_replaced_resets_the_back_off() {
    let mut world = serving(plan(1, 0));
    for _ in 0..4 {
        world.useless(0);
    }
    world.ready(0);
    world.pass(MILLISECOND * 10);
    world.note(0, Note::Served);
    world.note(0, Note::Replace);
    world.ready(1);
    world.leaves(0);
    world.skip();
    world.dies(1, CRASHED, NOTHING);
    let told = world.told();
    assert!(told.contains(&"fork worker#0 in 0".to_owned()), "{told:?}");
}

#[test]
fn a_worker_that_is_too_large_is_replaced_and_one_that_is_much_too_large_is_killed() {
    let mut world = serving(plan(2, 1));
    let line = |name: &str| {
        format!(
            "log WARN: {name} has 65 MiB of memory, over worker_memory (64 MiB): it is replaced"
        )
    };
    world.grows(0, 65);
    world.tells(&["fork worker#0 in 3", &line("worker#0[pid=1]")]);
    world.grows(0, 65);
    world.is_silent();
    world.grows(2, 65);
    world.tells(&["ask 2 to leave", &line("standby[pid=3]")]);
    // The first of these two is not ready yet, the second is leaving.
    world.grows(3, 65);
    world.grows(2, 65);
    world.is_silent();
    world.grows(1, 128);
    world.skip();
    world.grows(1, 130);
    world.tells(&[
        "log WARN: worker#1[pid=2] has 130 MiB of memory, more than twice worker_memory (64 MiB): killed",
        "kill 1",
    ]);
    world.grows(1, 130);
    world.is_silent();
}

#[test]
fn only_the_condemned_incarnation_is_killed() {
    let mut world = serving(plan(1, 0));
    world.dies(0, KILLED, SERVED);
    world.skip();
    let condemned = |generation| Event::Condemned {
        slot: 0,
        generation,
    };
    world.happened(condemned(1));
    world.is_silent();
    world.happened(condemned(2));
    world.tells(&["kill 0"]);
    let was_killed = "log WARN: worker#0[pid=2] abnormal exit, status=0, signal=9 (SIGKILL) (killed by the manager)";
    world.dies(0, KILLED, NOTHING);
    assert_eq!(world.told()[0], was_killed);
}
