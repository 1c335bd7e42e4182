//! Stories of deadlines: workers that take too long, and crash loops.

use std::time::Instant;

use super::stories::{CRASHED, MILLISECOND, NOTHING, SECOND, SERVED, plan, serving, starting};
use super::world::{KILLED, World};
use crate::control::Note;
use crate::manager::roster::{Event, Plan, Roster};

#[test]
fn a_worker_of_a_running_server_that_does_not_get_ready_is_killed() {
    let mut world = serving(plan(1, 0));
    world.dies(0, KILLED, SERVED);
    world.skip();
    world.pass(SECOND * 60 - MILLISECOND);
    world.is_silent();
    world.pass(MILLISECOND);
    world.tells(&[
        "log WARN: worker#0[pid=2] was not ready within 60.0s: killed",
        "kill 0",
    ]);
    world.pass(SECOND * 3600);
    world.is_silent();
}

#[test]
fn the_next_ones_have_twice_as_long_as_the_slowest_start_or_as_the_leave_deadline() {
    let mut world = starting(plan(1, 0));
    world.pass(SECOND * 100);
    world.ready(0);
    world.dies(0, KILLED, SERVED);
    world.pass(MILLISECOND * 10);
    let due = |world: &World| world.roster.next_deadline().map(|at| at - world.now);
    assert_eq!(due(&world), Some(SECOND * 200));

    let leave_deadline = SECOND * 90;
    let mut world = serving(Plan {
        leave_deadline,
        ..plan(1, 0)
    });
    world.dies(0, KILLED, SERVED);
    assert_eq!(due(&world), Some(leave_deadline));
}

#[test]
fn a_fork_that_takes_long_is_no_slow_start() {
    let start = Instant::now();
    let mut roster = Roster::new(plan(1, 0), start);
    roster.happened(Event::Started, start);
    let (slot, forked) = (0, start + SECOND * 100);
    roster.happened(Event::Forked { slot, pid: 1 }, forked);
    let notes = NOTHING.with(Note::Ready);
    let ready = forked + SECOND;
    roster.happened(Event::Noted { slot, notes }, ready);
    roster.happened(
        Event::Exited {
            slot,
            exit: CRASHED,
        },
        ready,
    );
    roster.happened(Event::Forked { slot, pid: 2 }, ready);
    assert_eq!(roster.next_deadline(), Some(ready + SECOND * 60));
}

#[test]
fn a_worker_killed_while_it_starts_has_no_deadline_any_more() {
    let mut world = serving(plan(1, 0));
    world.dies(0, KILLED, SERVED);
    let generation = 2;
    world.happened(Event::Condemned {
        slot: 0,
        generation,
    });
    assert_eq!(world.roster.next_deadline(), None);
}

#[test]
fn a_server_whose_workers_are_all_useless_ends() {
    let plan = Plan {
        crash_loop: Some(SECOND * 3),
        ..plan(2, 0)
    };
    let mut world = serving(plan);
    for slot in [0, 1] {
        world.dies(slot, CRASHED, NOTHING);
        world.useless(slot);
    }
    // The second seat is in back-off from here on.
    let since = world.now;
    while world.now < since + SECOND * 2 {
        for slot in [0, 1] {
            world.useless(slot);
        }
    }
    assert!(world.verdict.is_none());
    while world.verdict.is_none() {
        assert!(world.pass_until_due());
    }
    assert!(world.told().contains(&"end CrashLoop".to_owned()));
}

#[test]
fn a_server_in_a_crash_loop_ends_also_while_its_next_workers_start() {
    let plan = Plan {
        crash_loop: Some(SECOND * 3),
        ..plan(1, 0)
    };
    let mut world = serving(plan);
    world.dies(0, CRASHED, NOTHING);
    world.useless(0);
    world.ready(0);
    world.dies(0, CRASHED, NOTHING);
    let since = world.now;
    world.pass_until_due();
    assert!(world.processes[0].is_some() && world.verdict.is_none());
    world.pass_until_due();
    assert!(world.verdict.is_some());
    assert_eq!(world.now - since, SECOND * 3);
}

#[test]
fn one_seat_with_a_useful_worker_keeps_the_server() {
    for is_served in [true, false] {
        let plan = Plan {
            crash_loop: Some(SECOND * 3),
            ..plan(2, 0)
        };
        let mut world = serving(plan);
        for slot in [0, 1] {
            world.dies(slot, CRASHED, NOTHING);
            for _ in 0..3 {
                world.useless(slot);
            }
            world.ready(slot);
        }
        match is_served {
            true => world.note(1, Note::Served),
            false => world.pass(SECOND),
        }
        world.dies(0, CRASHED, NOTHING);
        world.pass(SECOND * 10);
        assert!(world.verdict.is_none());
    }
}
