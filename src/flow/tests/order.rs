//! The order of the frames for workers, and the waits of connections.

use super::*;
use crate::net::connection::{MAX_IN_FLIGHT, Step, Wait};

#[test]
fn a_worker_gets_connect_then_messages_then_close() {
    let mut world = World::lines();
    let (id, client) = world.adopt();
    say(&client, b"a\nbb\n");
    world.settle();
    assert_eq!(world.workers.seen(), ["Connect"]);
    world.turn();
    assert_eq!(world.workers.seen(), ["Receive a", "Receive bb"]);
    fin(&client);
    world.turn();
    assert_eq!(world.workers.seen(), ["Close"]);
    assert_eq!(got(&client), Got::Open(vec![]), "its callbacks run");
    world.done();
    assert_eq!(got(&client), Got::Fin(vec![]));
    assert_eq!(world.workers.gone, [id]);
    world.assert_empty();
    assert_eq!(world.flow.accepted(), 1);
}

#[test]
fn a_frame_names_its_connection() {
    let mut world = World::lines();
    let (id, client) = world.adopt();
    world.settle();
    say(&client, b"four\n");
    fin(&client);
    world.turn();
    world.turn();
    let now = world.flow.clock.now();
    let inputs: Vec<_> = world
        .workers
        .frames
        .iter()
        .map(|(input, _)| input)
        .collect();
    for input in &inputs {
        assert_eq!(
            (input.conn, input.listener, input.attempt),
            (id, LISTENER.0, 0)
        );
        assert_eq!(input.peer, PEER);
    }
    let lens: Vec<u32> = inputs.iter().map(|input| input.len).collect();
    let deadlines: Vec<u64> = inputs.iter().map(|input| input.deadline).collect();
    assert_eq!(lens, [0, 5, 0]);
    let never = u64::MAX;
    assert_eq!(
        deadlines,
        [never, never, now + 5000],
        "`close` alone has one"
    );
}

#[test]
fn the_deadline_of_a_close_is_firm_when_nothing_can_move_it() {
    for messages in [&b""[..], b"asked before\n"] {
        let mut world = World::lines();
        let (_, mut client) = world.connect();
        client.write_all(messages).unwrap();
        fin(&client);
        world.turn();
        let (input, _) = world.workers.frames.back().unwrap();
        assert_eq!(input.kind, Event::Close.into());
        assert_eq!(
            input.is_firm,
            messages.is_empty(),
            "an answer may be acknowledged"
        );
    }
}

#[test]
fn only_a_close_by_the_peer_has_a_deadline() {
    let mut world = World::lines();
    let (id, _client) = world.connect();
    world.apply(Output::Close(id));
    let (input, _) = &world.workers.frames[0];
    assert_eq!((input.kind, input.deadline), (Event::Close.into(), 0));
    assert_eq!(input.detail, crate::handler::CloseReason::Handler.code());
}

#[test]
fn a_connection_that_ends_before_connect_leaves_nothing() {
    let mut world = World::raw();
    world.workers.left = 0;
    let (id, client) = world.adopt();
    world.settle();
    drop(client);
    world.turn();
    assert_eq!(world.workers.seen(), Vec::<String>::new());
    assert_eq!(world.workers.gone, [id]);
    world.assert_empty();
}

#[test]
fn every_connect_is_followed_by_a_close() {
    let mut world = World::raw();
    let (_, client) = world.adopt();
    world.settle();
    // Its worker has died in `connect`, and the next one is not ready yet.
    world.hand_back(1, 1);
    world.workers.left = 0;
    drop(client);
    world.turn();
    assert_eq!(world.flow.len(), 1);
    world.workers.left = 2;
    world.give_turns();
    assert_eq!(world.workers.seen(), ["Connect", "Connect", "Close"]);
    world.done();
    world.assert_empty();
}

#[test]
fn connections_that_wait_for_room_have_turns_of_one_frame() {
    let mut world = World::lines();
    let (_, first) = world.connect();
    let (_, second) = world.connect();
    world.workers.left = 0;
    say(&first, b"a1\na2\n");
    world.turn();
    say(&second, b"b1\nb2\n");
    world.turn();
    assert_eq!(world.workers.seen(), Vec::<String>::new());
    assert_eq!(world.turn(), 0, "they are not read while they wait");
    for expected in ["a1", "b1", "a2", "b2"] {
        world.workers.left = 1;
        world.give_turns();
        assert_eq!(world.workers.seen(), [format!("Receive {expected}")]);
    }
    say(&first, b"a3\n");
    world.workers.left = 9;
    world.turn();
    assert_eq!(world.workers.seen(), ["Receive a3"], "it is read again");
}

#[test]
fn a_new_connection_waits_behind_those_that_wait() {
    let mut world = World::lines();
    let (_, first) = world.connect();
    let (_, second) = world.connect();
    world.workers.left = 0;
    say(&first, b"a\n");
    world.turn();
    world.workers.left = 9;
    say(&second, b"b\n");
    world.turn();
    assert_eq!(world.workers.seen(), Vec::<String>::new());
    world.give_turns();
    assert_eq!(world.workers.seen(), ["Receive a", "Receive b"]);
}

#[test]
fn raw_bytes_wait_in_the_socket_and_are_read_in_their_turn() {
    let mut world = World::raw();
    let (id, client) = world.connect();
    world.workers.left = 0;
    say(&client, b"raw");
    world.turn();
    assert_eq!(world.conn(id).work.wait, Wait::Room);
    assert_eq!(world.turn(), 0);
    world.workers.left = 9;
    world.give_turns();
    assert_eq!(world.workers.seen(), ["Receive raw"]);
    assert_eq!(world.conn(id).work.wait, Wait::Nothing);
}

#[test]
fn an_unused_turn_is_lost() {
    let mut world = World::raw();
    let (id, client) = world.connect();
    world.flow.take_turn(&mut world.workers, id);
    assert_eq!(world.conn(id).work.wait, Wait::Nothing);
    say(&client, b"x");
    world.workers.waiting.push_back(id);
    world.turn();
    assert_eq!(world.workers.seen(), Vec::<String>::new());
    assert_eq!(world.conn(id).work.wait, Wait::Room);
}

#[test]
fn a_connection_whose_wait_ends_asks_for_a_place_again() {
    let mut world = World::lines();
    let (id, client) = world.connect();
    world.workers.left = 0;
    say(&client, b"a\n");
    world.turn();
    world.workers.left = 1;
    world.workers.waiting.clear();
    world.flow.wait_is_over(id);
    world.settle();
    assert_eq!(world.workers.seen(), ["Receive a"]);
    // Its new user id may have another seat, with room.
    world.workers.left = 0;
    say(&client, b"b\n");
    world.turn();
    world.workers.left = 1;
    world.workers.waiting.clear();
    world.apply(Output::SetUser(id, 77));
    assert_eq!(world.workers.seen(), ["Receive b"]);
    assert_eq!(world.conn(id).work.user(), Some(77));
}

#[test]
fn a_connection_that_moves_waits_until_its_callbacks_have_returned() {
    let mut world = World::lines();
    let (id, client) = world.connect();
    say(&client, b"a\nb\n");
    world.turn();
    world.workers.seen();
    world.workers.moves = true;
    say(&client, b"c\n");
    world.turn();
    assert_eq!(world.conn(id).work.wait, Wait::Quiet);
    assert_eq!(world.turn(), 0);
    let (input, _) = world.workers.frames.pop_front().unwrap();
    world.flow.frame_done(input.conn, event(&input));
    world.settle();
    assert_eq!(world.workers.seen(), Vec::<String>::new(), "one is left");
    assert_eq!(world.workers.asked().len(), 3, "and no place was asked for");
    world.done();
    assert_eq!(world.workers.seen(), ["Receive c"]);
}

#[test]
fn the_frames_of_a_connection_in_flight_are_limited() {
    let mut world = World::lines();
    let (id, client) = world.connect();
    for number in 0..=MAX_IN_FLIGHT {
        say(&client, format!("{number}\n").as_bytes());
    }
    world.turn();
    assert_eq!(world.workers.seen().len() as u32, MAX_IN_FLIGHT);
    assert_eq!(world.conn(id).work.wait, Wait::Fewer);
    assert_eq!(world.turn(), 0);
    for _ in 0..MAX_IN_FLIGHT / 2 - 1 {
        let (input, _) = world.workers.frames.pop_front().unwrap();
        world.flow.frame_done(input.conn, event(&input));
        world.settle();
    }
    assert_eq!(world.workers.seen(), Vec::<String>::new());
    let (input, _) = world.workers.frames.pop_front().unwrap();
    world.flow.frame_done(input.conn, event(&input));
    world.settle();
    assert_eq!(world.workers.seen(), [format!("Receive {MAX_IN_FLIGHT}")]);
    assert_eq!(world.conn(id).work.in_flight, MAX_IN_FLIGHT / 2 + 1);
}

#[test]
fn returned_messages_go_before_those_read_later() {
    let mut world = World::lines();
    let (id, client) = world.connect();
    say(&client, b"a\nb\n");
    world.turn();
    world.workers.left = 0;
    say(&client, b"c\n");
    world.turn();
    world.hand_back(2, 0);
    world.settle();
    world.workers.seen();
    assert_eq!(world.conn(id).work.in_flight, 0);
    // In several turns: a message without room is put back to its place.
    for _ in 0..3 {
        world.workers.left = 1;
        world.give_turns();
    }
    assert_eq!(
        world.workers.seen(),
        ["Receive a", "Receive b", "Receive c"]
    );
    let attempts = world.workers.frames.iter().map(|(input, _)| input.attempt);
    assert_eq!(attempts.collect::<Vec<_>>(), [0, 0, 0]);
}

#[test]
fn messages_returned_twice_keep_their_order() {
    let mut world = World::lines();
    let (_, client) = world.connect();
    say(&client, b"a\nb\nc\n");
    world.turn();
    world.workers.seen();
    world.workers.left = 0;
    // First the last one, as from a living worker, then the others.
    world.hand_back(1, 0);
    world.hand_back(2, 0);
    world.workers.left = 9;
    world.settle();
    assert_eq!(
        world.workers.seen(),
        ["Receive a", "Receive b", "Receive c"]
    );
}

#[test]
fn nothing_is_read_before_returned_messages_are_done() {
    let mut world = World::raw();
    let (_, client) = world.connect();
    say(&client, b"a");
    world.turn();
    world.hand_back(1, 0);
    say(&client, b"b");
    assert_eq!(world.turn(), 1);
    world.turn();
    assert_eq!(
        world.workers.seen(),
        ["Receive a", "Receive a", "Receive b"]
    );
}

#[test]
fn a_frame_carries_its_attempts() {
    let mut world = World::lines();
    let (_, client) = world.adopt();
    world.settle();
    world.hand_back(1, 1);
    world.settle();
    let attempt = |world: &World| world.workers.frames.back().unwrap().0.attempt;
    assert_eq!(attempt(&world), 1);
    world.done();
    say(&client, b"a\n");
    world.turn();
    assert_eq!(attempt(&world), 0);
    world.hand_back(1, 2);
    world.settle();
    assert_eq!(attempt(&world), 2);
    world.done();
    fin(&client);
    world.turn();
    assert_eq!(attempt(&world), 0);
    world.hand_back(1, 1);
    world.settle();
    assert_eq!(attempt(&world), 1);
    world.done();
    assert_eq!(
        world.workers.seen(),
        [
            "Connect",
            "Connect",
            "Receive a",
            "Receive a",
            "Close",
            "Close"
        ]
    );
    world.assert_empty();
}

#[test]
fn messages_of_a_connection_closed_on_this_side_are_dropped() {
    let mut world = World::lines();
    let (id, client) = world.connect();
    say(&client, b"a\nb\n");
    world.turn();
    world.workers.seen();
    world.workers.left = 0;
    world.hand_back(1, 0);
    world.apply(Output::Close(id));
    world.hand_back(1, 0);
    world.workers.left = 9;
    world.give_turns();
    assert_eq!(world.workers.seen(), ["Close"]);
    assert!(world.conn(id).work.returned.is_empty());
}

#[test]
fn an_abandoned_close_keeps_the_socket_open() {
    let mut world = World::raw();
    let (id, client) = world.connect();
    fin(&client);
    world.turn();
    let (input, _) = world.workers.frames.pop_front().unwrap();
    world.flow.frame_abandoned(id, event(&input));
    world.settle();
    assert_eq!(world.conn(id).work.close, Step::Abandoned);
    assert_eq!(got(&client), Got::Open(vec![]));
    assert_eq!(world.turn(), 0);
    // Until the server shuts down.
    world.flow.drain();
    world.settle();
    assert_eq!(got(&client), Got::Fin(vec![]));
    world.assert_empty();
}

#[test]
fn a_frame_of_a_connection_that_is_gone_has_no_effect() {
    let mut world = World::raw();
    let (id, client) = world.connect();
    drop(client);
    world.turn();
    world.done();
    world.assert_empty();
    let (next, _client) = world.connect();
    assert_eq!(next.key(), id.key(), "the same place in the table");
    world.send(id, b"late");
    world.apply(Output::Close(id));
    world.flow.frame_done(id, Event::Close);
    world.settle();
    assert_eq!(world.conn(next).work.close, Step::Due);
    assert_eq!(world.conn(next).work.end, None);
}
