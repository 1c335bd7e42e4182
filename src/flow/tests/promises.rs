//! Answers that a later callback gives.

use super::*;
use crate::handler::{CloseReason, Timer};
use crate::net::assigned::PROMISE_BYTES;

/// Returns what the client has received and not read.
fn received(client: &UnixStream) -> Vec<u8> {
    let (Got::Open(bytes) | Got::Fin(bytes)) = got(client);
    bytes
}

/// A connection with a message in a callback, which promises an answer within a second.
fn promised(world: &mut World) -> (ConnId, UnixStream) {
    let (id, mut client) = world.connect();
    client.write_all(b"one\n").unwrap();
    world.turn();
    world.promise(id, 1000, b"sorry");
    world.done();
    assert_eq!(world.workers.seen(), ["Receive one"]);
    (id, client)
}

#[test]
fn the_next_message_waits_for_the_answer() {
    let mut world = World::lines();
    let (id, mut client) = promised(&mut world);
    client.write_all(b"two\n").unwrap();
    world.turn_until_quiet();
    assert_eq!(world.workers.seen(), [""; 0]);
    world.send(id, b"answer");
    world.turn();
    assert_eq!(world.workers.seen(), ["Receive two"]);
    assert_eq!(world.flow.kept(), 0);
    world.pass(3 * SECOND);
    assert_eq!(received(&client), b"answer");
    drop(client);
}

#[test]
fn nothing_is_answered_twice_at_the_deadline() {
    let mut world = World::lines();
    let (id, client) = promised(&mut world);
    assert_eq!(world.flow.kept(), PROMISE_BYTES + 5);
    world.pass(SECOND - LOOK);
    assert_eq!(received(&client), b"");
    world.pass(3 * LOOK);
    assert_eq!(received(&client), b"sorry");
    world.turn();
    world.send(id, b"too late");
    assert_eq!(world.workers.seen(), ["Close"]);
    assert_eq!(world.flow.kept(), 0);
    assert_eq!(received(&client), b"");
    drop(client);
    world.turn();
    world.done();
    world.assert_empty();
}

#[test]
fn the_end_of_the_socket_is_the_end_of_the_promise() {
    let mut world = World::lines();
    let (id, client) = promised(&mut world);
    world.flow.reset(id, CloseReason::Handler);
    world.settle();
    assert_eq!(world.workers.seen(), ["Close"]);
    world.promise(id, 1000, b"never");
    world.done();
    assert_eq!(world.flow.kept(), 0);
    drop(client);
    world.assert_empty();
}

#[test]
fn a_second_promise_replaces_the_first() {
    let mut world = World::lines();
    let (id, client) = promised(&mut world);
    world.promise(id, 5000, b"later");
    world.pass(2 * SECOND);
    assert_eq!(received(&client), b"");
    assert_eq!(world.flow.kept(), PROMISE_BYTES + 5);
    world.pass(4 * SECOND);
    assert_eq!(received(&client), b"later");
}

#[test]
fn a_crash_ends_a_promise_in_its_reply() {
    let mut world = World::lines();
    let (id, client) = promised(&mut world);
    world.flow.break_promise(id, CloseReason::Crash);
    world.settle();
    assert_eq!(received(&client), b"sorry");
    assert_eq!(world.workers.seen(), ["Close"]);
    assert_eq!(world.flow.kept(), 0);
}

#[test]
fn a_message_behind_a_promise_is_not_late() {
    let mut world = World::new(|setup| {
        lines(setup);
        setup.listener = |it| it.queue_deadline(SECOND / 2);
    });
    let (id, client) = promised(&mut world);
    say(&client, b"two\n");
    world.apply(Output::SetTimer(id, Timer { after: 0, tag: 1 }));
    world.workers.left = 0;
    // The timer that is to answer waits for a worker, and the message for the answer.
    let late = world.pass(SECOND - LOOK);
    world.flow.fire_timers();
    world.settle();
    assert_eq!(late, []);
    world.workers.left = usize::MAX;
    world.give_turns();
    assert_eq!(world.workers.seen(), ["Timer"]);
    world.send(id, b"answer");
    world.turn();
    assert_eq!(received(&client), b"answer");
}

#[test]
fn nothing_sent_is_no_answer() {
    let mut world = World::lines();
    let (id, client) = promised(&mut world);
    world.send(id, b"");
    world.pass(2 * SECOND);
    assert_eq!(received(&client), b"sorry");
}

#[test]
fn a_promise_has_an_end() {
    let mut world = World::lines();
    let (id, client) = promised(&mut world);
    world.promise(id, u64::MAX, b"never");
    fin(&client);
    world.turn();
    world.pass(3601 * SECOND);
    assert_eq!(received(&client), b"never");
}
