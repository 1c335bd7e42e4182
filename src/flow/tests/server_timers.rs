//! Timers of the server, with an injected clock.

use super::*;
use crate::config::{Run, ServerTimer};
use crate::net::alarms::TIMER_BYTES;
use crate::net::server_timers::JOB_BYTES;

fn world() -> World {
    World::new(|setup| setup.settings.workers = 3)
}

fn set(world: &mut World, timer: ServerTimer) {
    world.apply(Output::SetServerTimer(timer));
}

/// Lets time pass, and fires what is due.
fn pass(world: &mut World, time: Duration) {
    world.pass(time);
    world.flow.fire_timers();
    world.settle();
}

#[test]
fn a_timer_fires_in_one_worker_or_in_each_and_not_early() {
    let mut world = world();
    set(&mut world, ServerTimer::once(SECOND, 1, Run::One));
    set(&mut world, ServerTimer::every(2 * SECOND, 2, Run::Each));
    assert_eq!(world.flow.kept(), 2 * TIMER_BYTES + 4 * JOB_BYTES);
    pass(&mut world, SECOND - Duration::from_millis(1));
    assert_eq!(world.workers.seen(), [""; 0]);
    pass(&mut world, Duration::from_millis(2));
    assert_eq!(world.workers.seen(), ["ServerTimer"]);
    assert_eq!(world.workers.frames[0].0.value, 1);
    world.done();
    assert_eq!(world.flow.kept(), TIMER_BYTES + 3 * JOB_BYTES);
    for _ in 0..2 {
        // Set again by each worker.
        set(&mut world, ServerTimer::every(2 * SECOND, 2, Run::Each));
        pass(&mut world, 2 * SECOND);
        assert_eq!(world.workers.seen(), ["ServerTimer"; 3]);
        world.done();
        assert_eq!(world.flow.mailboxes(), 0);
    }
    world.apply(Output::CancelServerTimer(2));
    assert_eq!((world.flow.kept(), world.flow.next_fire()), (0, None));
}

#[test]
fn a_timer_does_not_pile_up_behind_a_worker_that_is_stuck() {
    let mut world = world();
    set(&mut world, ServerTimer::every(SECOND, 1, Run::Each));
    world.workers.left = 1;
    for _ in 0..5 {
        pass(&mut world, SECOND);
    }
    assert_eq!((world.workers.seen().len(), world.flow.mailboxes()), (1, 3));
    // What no worker has ends with the timer.
    world.apply(Output::CancelServerTimer(1));
    assert_eq!(world.flow.mailboxes(), 1);
    world.workers.left = usize::MAX;
    world.give_turns();
    assert_eq!(world.workers.seen(), [""; 0]);
    world.done();
    assert_eq!((world.flow.mailboxes(), world.flow.kept()), (0, 0));
}

#[test]
fn a_callback_that_was_returned_runs_again_and_ends_with_the_server() {
    let mut world = world();
    set(&mut world, ServerTimer::once(SECOND, 1, Run::One));
    pass(&mut world, SECOND + SECOND);
    world.hand_back(1, 1);
    world.settle();
    assert_eq!(world.workers.seen(), ["ServerTimer"; 2]);
    let (input, _) = world.workers.frames[0];
    assert_eq!((input.attempt, input.value), (1, 1));
    set(&mut world, ServerTimer::every(SECOND, 2, Run::One));
    world.flow.drain();
    assert_eq!(world.flow.next_fire(), None, "it begins no more");
    pass(&mut world, 2 * SECOND);
    assert_eq!(world.workers.seen(), [""; 0]);
    world.flow.hang_up_all();
    world.hand_back(1, 0);
    world.settle();
    assert_eq!((world.flow.mailboxes(), world.flow.kept()), (0, 0));
    set(&mut world, ServerTimer::every(SECOND, 3, Run::One));
    assert_eq!(world.flow.kept(), 0, "the server ends");
}
