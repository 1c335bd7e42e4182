//! Stories of the end of all workers.

use super::stories::{CRASHED, MILLISECOND, NOTHING, SECOND, SERVED, plan, serving, starting};
use super::world::{KILLED, World};
use crate::control::{Note, NoteSet};
use crate::manager::roster::{Event, Plan};
use crate::sys::process::ExitStatus;

#[test]
fn a_server_that_is_stopped_ends_when_every_worker_has_left() {
    let mut world = serving(plan(2, 1));
    world.happened(Event::StopRequested);
    world.tells(&[
        "announce stop",
        "ask 0 to leave",
        "ask 1 to leave",
        "ask 2 to leave",
    ]);
    world.happened(Event::StopRequested);
    world.is_silent();
    world.leaves(1);
    world.tells(&[
        "tell 1 emptied",
        "tell seat 1 vacant",
        "call worker_exit: worker#1[pid=2] exit, status=0, signal=0",
    ]);
    // Also if they crash.
    world.dies(2, CRASHED, NOTHING);
    world.skip();
    assert!(!world.roster.has_ended());
    world.pass(SECOND * 10);
    world.tells(&[
        "log WARN: worker#0[pid=1] did not leave within 10s: killed",
        "kill 0",
    ]);
    world.dies(0, KILLED, NOTHING);
    assert!(world.roster.has_ended());
    assert_eq!(world.roster.next_deadline(), None);
}

#[test]
fn a_stop_ends_replacements_and_back_off() {
    let mut world = serving(plan(2, 0));
    world.dies(1, CRASHED, SERVED);
    world.useless(1);
    world.ready(1);
    world.dies(1, CRASHED, NOTHING);
    world.reload();
    world.skip();
    world.happened(Event::StopRequested);
    world.tells(&["announce stop", "ask 0 to leave", "ask 1 to leave"]);
    // It may get ready before it has seen the request.
    world.ready(1);
    world.is_silent();
    world.leaves(1);
    world.tells(&[
        "tell 1 emptied",
        "call worker_exit: worker#0[pid=5] exit, status=0, signal=0",
    ]);
    world.leaves(0);
    assert!(world.roster.has_ended());
}

#[test]
fn a_stop_leaves_no_other_deadline_than_that_to_leave() {
    let mut world = serving(plan(1, 1));
    world.note(0, Note::Replace);
    world.dies(2, CRASHED, NOTHING);
    world.dies(1, CRASHED, NOTHING);
    for _ in 0..2 {
        world.ready(1);
        world.dies(1, CRASHED, NOTHING);
    }
    let due = |world: &World| world.roster.next_deadline().map(|at| at - world.now);
    assert_eq!(due(&world), Some(MILLISECOND * 100));
    world.happened(Event::StopRequested);
    assert_eq!(due(&world), Some(SECOND * 10));
}

#[test]
fn a_server_can_be_stopped_while_it_starts() {
    let mut world = starting(plan(2, 1));
    world.ready(0);
    world.skip();
    world.happened(Event::StopRequested);
    world.tells(&["announce stop", "ask 0 to leave", "kill 1"]);
    world.ready(1);
    world.dies(1, KILLED, NOTHING);
    world.leaves(0);
    assert!(world.verdict.is_none() && world.roster.has_ended());
    assert_eq!(world.counts.all_ready, 0);
}

#[test]
fn a_note_that_it_leaves_does_not_make_the_exit_of_a_worker_normal_that_was_not_asked() {
    const LEFT: NoteSet = NOTHING.with(Note::Left);
    let done = ExitStatus::Code(0);
    let mut world = serving(plan(1, 0));
    world.note(0, Note::Left);
    world.dies(0, done, LEFT);
    world.tells(&[
        "log WARN: worker#0[pid=1] abnormal exit, status=0, signal=0",
        "tell 0 emptied",
        "tell seat 0 vacant",
        "fork worker#0 in 0",
        "tell seat 0 taken by 0",
        "call worker_exit: worker#0[pid=1] abnormal exit, status=0, signal=0",
    ]);
    // One that broke the protocol, and says so on its way out.
    let mut pauses = Vec::new();
    for _ in 0..5 {
        world.ready(0);
        world.happened(Event::Condemned {
            slot: 0,
            generation: world.processes[0].expect("it lives").generation,
        });
        world.dies(0, done, LEFT);
        let before = world.now;
        if world.processes[0].is_none() {
            world.pass_until_due();
        }
        pauses.push((world.now - before).as_millis());
    }
    assert_eq!(pauses, [0, 100, 200, 400, 800]);
}

#[test]
fn a_forced_end_kills_every_worker() {
    let mut world = serving(plan(1, 1));
    world.happened(Event::StopRequested);
    world.skip();
    world.happened(Event::KillRequested);
    world.tells(&["kill 0", "kill 1"]);
    let mut world = serving(plan(1, 0));
    world.happened(Event::KillRequested);
    world.tells(&["announce stop", "ask 0 to leave", "kill 0"]);
    world.dies(0, KILLED, NOTHING);
    assert!(world.roster.has_ended());
}

#[test]
fn a_server_that_is_about_to_end_fills_empty_seats_and_replaces_no_worker() {
    let plan = Plan {
        crash_loop: Some(SECOND * 3),
        ..plan(2, 1)
    };
    let mut world = serving(plan);
    world.dies(2, CRASHED, NOTHING);
    world.dies(1, CRASHED, SERVED);
    world.useless(1);
    world.ready(1);
    world.dies(1, CRASHED, NOTHING);
    world.skip();
    world.happened(Event::RefillRequested);
    world.tells(&["fork worker#1 in 1", "tell seat 1 taken by 1"]);
    // No worker is replaced or put on standby any more; but seats are filled.
    world.grows(0, 65);
    world.note(0, Note::Replace);
    world.is_silent();
    world.dies(2, CRASHED, NOTHING);
    world.pass(SECOND * 5);
    let told = world.told();
    assert!(!told.iter().any(|it| it.starts_with("fork")), "{told:?}");
    world.dies(0, KILLED, SERVED);
    assert_eq!(world.told()[3], "fork worker#0 in 0");
    // A fork that fails is no reason to end either.
    world.failing_forks = 1;
    world.dies(0, KILLED, SERVED);
    world.pass_until_due();
    assert!(world.processes[0].is_none() && world.failing_forks == 0);
    world.pass_until_due();
    assert!(world.processes[0].is_some());
}
