//! Messages that no worker begins in time.

use super::silence::{MS, end, only, world};
use super::*;
use crate::handler::CloseReason;
use crate::net::connection::Wait;

#[test]
fn a_message_that_waits_for_a_place_for_too_long_is_reported_and_answered() {
    let mut world = world(|it| only(it).queue_deadline(5 * SECOND));
    let (id, client) = world.connect();
    world.workers.left = 0;
    say(&client, b"one\ntwo\n");
    world.turn();
    assert_eq!(world.pass(5 * SECOND - MS), []);
    assert_eq!(world.pass(MS), [id]);
    let first = world.flow.first_waiting(id).unwrap();
    assert_eq!(
        (first.kind, first.body),
        (Event::Receive, b"one\n".to_vec())
    );
    world.flow.end_late(id, b"sorry".to_vec());
    world.settle();
    assert_eq!(got(&client), Got::Fin(b"sorry".to_vec()));
    assert_eq!(end(&world, id), Some(CloseReason::QueueDeadline));
    world.workers.left = usize::MAX;
    world.give_turns();
    assert_eq!(world.workers.seen(), ["Close"], "its messages are void");
}

#[test]
fn the_reply_to_a_late_message_follows_the_answer_to_the_one_before() {
    let mut world = world(|it| only(it).queue_deadline(5 * SECOND));
    let (id, client) = world.connect();
    say(&client, b"one\n");
    world.turn();
    world.workers.left = 0;
    say(&client, b"two\n");
    world.turn();
    assert_eq!(world.pass(5 * SECOND), [id]);
    world.flow.end_late(id, b"sorry".to_vec());
    world.settle();
    world.pass(60 * SECOND);
    assert_eq!(got(&client), Got::Open(vec![]));
    world.send(id, b"1 ");
    world.done();
    assert_eq!(got(&client), Got::Fin(b"1 sorry".to_vec()));
}

#[test]
fn a_late_connection_that_changes_its_worker_is_gone_in_the_end() {
    let mut world = world(|it| only(it).queue_deadline(5 * SECOND));
    let (id, client) = world.connect();
    say(&client, b"one\n");
    world.turn();
    world.workers.moves = true;
    say(&client, b"two\n");
    world.turn();
    assert_eq!(world.conn(id).work.wait, Wait::Quiet);
    assert_eq!(world.pass(5 * SECOND), [id]);
    world.flow.end_late(id, b"sorry".to_vec());
    world.settle();
    world.done();
    assert_eq!(got(&client), Got::Fin(b"sorry".to_vec()));
    assert_eq!(world.workers.seen(), ["Receive one", "Close"]);
    fin(&client);
    world.turn();
    world.assert_empty();
}

#[test]
fn a_wait_that_is_over_does_not_count_for_the_next_message() {
    let mut world = World::new(|setup| {
        marked(setup);
        setup.listener = |it| only(it).queue_deadline(5 * SECOND);
    });
    let (id, client) = world.connect();
    say(&client, b"one\n");
    world.turn();
    // `paused` waits for the end of the callback, and is not due any more by then.
    world.workers.moves = true;
    world.send(id, &[7; 4 * MARK]);
    assert_eq!(world.conn(id).work.wait, Wait::Quiet);
    while !world.conn(id).writing.unsent.is_empty() {
        got(&client);
        world.turn();
    }
    world.done();
    world.workers.moves = false;
    assert_eq!(world.conn(id).pulse.waiting_since, None);
    world.pass(20 * SECOND);
    world.workers.left = 0;
    say(&client, b"two\n");
    world.turn();
    assert_eq!(world.pass(5 * SECOND - MS), []);
    assert_eq!(world.pass(MS), [id]);
}

#[test]
fn a_message_that_changes_its_queue_has_waited_since_it_came() {
    let mut world = world(|it| only(it).queue_deadline(5 * SECOND));
    let (id, client) = world.connect();
    world.workers.left = 0;
    say(&client, b"one\n");
    world.turn();
    assert_eq!(world.pass(3 * SECOND), []);
    world.workers.waiting.clear();
    world.flow.wait_is_over(id);
    world.settle();
    assert_eq!(world.conn(id).work.wait, Wait::Room);
    assert_eq!(world.pass(2 * SECOND), [id]);
}

#[test]
fn a_late_client_of_which_no_worker_knows_needs_no_callback() {
    let mut world = world(|it| only(it).queue_deadline(5 * SECOND));
    world.workers.left = 0;
    let (id, client) = world.adopt();
    world.settle();
    assert_eq!(world.pass(5 * SECOND), [id]);
    assert_eq!(world.flow.first_waiting(id).unwrap().kind, Event::Connect);
    world.flow.end_late(id, b"sorry".to_vec());
    world.settle();
    assert_eq!(got(&client), Got::Fin(b"sorry".to_vec()));
    fin(&client);
    world.turn();
    world.workers.left = usize::MAX;
    world.give_turns();
    assert_eq!(world.workers.seen(), Vec::<String>::new());
    world.assert_empty();
}

#[test]
fn a_connection_that_is_held_is_not_idle_while_bytes_are_unread() {
    let mut world = world(|it| only(it).idle(5 * SECOND));
    let (id, client) = world.connect();
    say(&client, b"one\n");
    world.turn();
    assert_eq!(world.workers.seen(), ["Receive one"]);
    world.done();
    world.apply(Output::Hold(id));
    say(&client, b"two\n");
    world.turn();
    world.pass(30 * SECOND);
    assert_eq!(end(&world, id), None);
    assert_eq!(world.workers.seen(), Vec::<String>::new(), "it is not read");
    world.apply(Output::Unhold(id));
    world.turn();
    assert_eq!(world.workers.seen(), ["Receive two"]);
}

#[test]
fn a_server_that_stops_reads_the_last_bytes_of_a_connection_that_is_held() {
    let mut world = World::lines();
    let (id, client) = world.connect();
    world.apply(Output::Hold(id));
    say(&client, b"last\n");
    world.turn();
    assert_eq!(world.workers.seen(), Vec::<String>::new());
    world.flow.drain();
    world.turn();
    assert_eq!(world.workers.seen(), ["Receive last", "Close"]);
}
