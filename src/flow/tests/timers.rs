//! Timers that callbacks have set.

use super::*;
use crate::handler::Timer;
use crate::net::alarms::TIMER_BYTES;

#[test]
fn a_timer_that_has_fired_counts_until_its_callback_has_a_place() {
    let mut world = World::lines();
    let (id, client) = world.connect();
    let other = world.connect();
    for tag in 0..1000 {
        world.apply(Output::SetTimer(id, Timer { after: 0, tag }));
    }
    assert_eq!(world.flow.kept(), 1000 * TIMER_BYTES);
    world.workers.left = 0;
    world.pass(SECOND);
    // One turn looks at a limited number.
    while world.flow.next_fire().is_some() {
        world.flow.fire_timers();
        world.settle();
    }
    assert_eq!(world.flow.kept(), 1000 * TIMER_BYTES, "none has a place");
    (1..1000).for_each(|tag| world.apply(Output::CancelTimer(id, tag)));
    world.workers.left = usize::MAX;
    world.give_turns();
    assert_eq!(world.workers.seen(), ["Timer"], "the one that was left");
    assert_eq!(world.flow.kept(), 0);
    drop((client, other));
}

#[test]
fn the_timers_of_a_connection_end_with_it() {
    let mut world = World::lines();
    let (id, client) = world.connect();
    for (after, tag) in [(0, 1), (60_000, 2)] {
        world.apply(Output::SetTimer(id, Timer { after, tag }));
    }
    world.workers.left = 0;
    world.pass(SECOND);
    world.flow.fire_timers();
    drop(client);
    world.workers.left = usize::MAX;
    world.turn();
    world.done();
    world.settle();
    assert_eq!((world.flow.kept(), world.flow.next_fire()), (0, None));
    world.assert_empty();
}
