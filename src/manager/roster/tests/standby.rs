//! Stories of standby workers.

use super::stories::{CRASHED, MILLISECOND, NOTHING, SECOND, SERVED, plan, serving};
use super::world::KILLED;
use crate::control::Note;
use crate::manager::roster::Event;

#[test]
fn a_standby_worker_takes_the_seat_of_a_dead_one_and_the_next_one_is_forked() {
    let mut world = serving(plan(2, 1));
    world.dies(0, KILLED, SERVED);
    world.tells(&[
        "log WARN: worker#0[pid=1] abnormal exit, status=0, signal=9 (SIGKILL)",
        "tell 0 emptied",
        "tell seat 0 vacant",
        "assign seat 0 to 2",
        "tell seat 0 taken by 2",
        "wake 2",
        "fork standby in 0",
        "call worker_exit: worker#0[pid=1] abnormal exit, status=0, signal=9 (SIGKILL)",
    ]);
    // It is ready when `seated` has returned; that is reported once.
    world.note(2, Note::Seated);
    world.tells(&["tell seat 0 ready"]);
    world.note(2, Note::Seated);
    world.is_silent();
}

#[test]
fn a_standby_worker_that_is_not_ready_takes_no_seat() {
    let mut world = serving(plan(2, 1));
    world.dies(2, KILLED, NOTHING);
    world.skip();
    world.dies(0, KILLED, SERVED);
    let told = world.told();
    assert!(told.contains(&"fork worker#0 in 0".to_owned()), "{told:?}");
    world.ready(2);
    world.tells(&["log DEBUG: standby[pid=4] is ready"]);
}

#[test]
fn a_standby_worker_that_is_killed_is_replaced() {
    let mut world = serving(plan(1, 1));
    world.dies(1, KILLED, NOTHING);
    world.tells(&[
        "log WARN: standby[pid=2] abnormal exit, status=0, signal=9 (SIGKILL)",
        "tell 1 emptied",
        "fork standby in 1",
        "call worker_exit: standby[pid=2] abnormal exit, status=0, signal=9 (SIGKILL)",
    ]);
    // Standby workers that die at once are forked ever more slowly, as in a seat.
    let pauses: Vec<u128> = (0..4).map(|_| world.useless(1).as_millis()).collect();
    assert_eq!(pauses, [0, 100, 200, 400]);
}

#[test]
fn standby_does_not_make_workers_that_keep_dying_be_forked_faster() {
    let mut world = serving(plan(1, 1));
    world.dies(0, KILLED, SERVED);
    world.note(1, Note::Seated);
    world.ready(0);
    world.skip();
    // It had just started when a client killed it.
    world.dies(1, KILLED, SERVED);
    world.tells(&[
        "log WARN: worker#0[pid=2] abnormal exit, status=0, signal=9 (SIGKILL)",
        "tell 1 emptied",
        "tell seat 0 vacant",
        "assign seat 0 to 0",
        "tell seat 0 taken by 0",
        "wake 0",
        "call worker_exit: worker#0[pid=2] abnormal exit, status=0, signal=9 (SIGKILL)",
    ]);
    world.pass(MILLISECOND * 9);
    world.is_silent();
    world.pass(MILLISECOND);
    world.tells(&["fork standby in 1"]);
}

#[test]
fn a_seat_in_back_off_goes_to_a_standby_worker_when_the_delay_is_over() {
    let mut world = serving(plan(1, 1));
    world.dies(1, CRASHED, NOTHING);
    world.dies(0, CRASHED, SERVED);
    for _ in 0..2 {
        world.useless(0);
    }
    world.ready(0);
    world.dies(0, CRASHED, NOTHING);
    world.ready(1);
    world.skip();
    world.pass_until_due();
    world.tells(&[
        "assign seat 0 to 1",
        "tell seat 0 taken by 1",
        "wake 1",
        "fork standby in 0",
    ]);
}

#[test]
fn a_failed_fork_ends_the_sequence_of_standby_forks() {
    let mut world = serving(plan(1, 3));
    world.happened(Event::ReloadRequested);
    world.skip();
    world.failing_forks = 1;
    world.leaves(1);
    let told = world.told();
    let forks = |told: &[String]| told.iter().filter(|it| it.starts_with("fork")).count();
    assert_eq!(forks(&told), 1, "{told:?}");
    let line = "log ERROR: standby: cannot fork a worker: operation would block; next try in 100ms";
    assert_eq!(told[2], line);
    world.leaves(2);
    world.leaves(3);
    world.skip();
    world.pass(MILLISECOND * 100);
    assert_eq!(forks(&world.told()), 3);
}

#[test]
fn a_standby_worker_whose_seated_callback_does_not_return_is_killed() {
    let mut world = serving(plan(1, 1));
    world.dies(0, KILLED, SERVED);
    world.ready(0);
    world.skip();
    world.pass(SECOND * 60 - MILLISECOND);
    world.is_silent();
    let due = world.roster.next_deadline().map(|at| at - world.now);
    assert_eq!(due, Some(MILLISECOND));
    world.pass(MILLISECOND);
    world.tells(&[
        "log WARN: worker#0[pid=2] did not return from its seated callback in time: killed",
        "kill 1",
    ]);
    world.note(1, Note::Seated);
    world.is_silent();
}

#[test]
fn a_worker_killed_in_its_seated_callback_has_no_deadline_any_more() {
    let mut world = serving(plan(1, 1));
    world.dies(0, KILLED, SERVED);
    world.ready(0);
    let generation = 2;
    world.happened(Event::Condemned {
        slot: 1,
        generation,
    });
    world.skip();
    assert_eq!(world.roster.next_deadline(), None);
    world.note(1, Note::Seated);
    world.pass(SECOND * 3600);
    world.is_silent();
}
