//! How connections end.

use std::io::{self, Read};
use std::net::{TcpListener, TcpStream};

use super::*;
use crate::config::{LINGER, LOOK, Mode};
use crate::handler::CloseReason;
use crate::net::connection::{Input, Level, Step};

/// A TCP client, which can be reset, after its `connect`.
pub(super) fn connect_by_tcp(world: &mut World) -> (ConnId, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (ours, _) = listener.accept().unwrap();
    let id = world.adopt_socket(ours.into());
    world.settle();
    world.done();
    world.workers.seen();
    (id, client)
}

fn end(world: &World, id: ConnId) -> Option<CloseReason> {
    world.conn(id).work.end
}

#[test]
fn after_refused_bytes_answers_have_their_time_and_close_has_the_deadline() {
    let mut world = World::lines();
    let (id, client) = world.connect();
    say(&client, &[b"slow\n".as_slice(), &[b'x'; 2000]].concat());
    world.turn();
    world.pass(100 * SECOND);
    assert!(world.conn(id).socket.is_some(), "its answer is due");
    let (input, _) = world.workers.frames.pop_front().unwrap();
    world.flow.frame_done(id, event(&input));
    world.settle();
    assert_eq!(world.workers.frames.len(), 1, "close is stuck");
    world.pass(10 * SECOND);
    assert!(world.conn(id).socket.is_none());
    assert_eq!(got(&client), Got::Fin(vec![]));
    world.done();
    world.assert_empty();
}

#[test]
fn messages_before_refused_bytes_are_answered() {
    let mut world = World::lines();
    let (id, client) = world.connect();
    let mut bytes = b"ok\nok2\n".to_vec();
    bytes.extend(&[b'x'; 2000]);
    say(&client, &bytes);
    world.turn();
    assert_eq!(world.workers.seen(), ["Receive ok", "Receive ok2", "Close"]);
    assert_eq!(end(&world, id), Some(CloseReason::Refused));
    world.send(id, b"one");
    world.send(id, b"two");
    world.send(id, b"refused");
    assert_eq!(got(&client), Got::Open(b"onetworefused".to_vec()));
    world.done();
    assert_eq!(got(&client), Got::Fin(vec![]));
    fin(&client);
    world.turn();
    world.assert_empty();
}

#[test]
fn a_peer_that_closes_gets_our_fin_when_its_callbacks_have_returned() {
    let mut world = World::lines();
    let (id, client) = world.connect();
    say(&client, b"a\n");
    fin(&client);
    world.turn();
    assert_eq!(end(&world, id), Some(CloseReason::Peer));
    world.send(id, b"answer");
    assert_eq!(got(&client), Got::Open(b"answer".to_vec()));
    let (input, _) = world.workers.frames.pop_front().unwrap();
    world.flow.frame_done(id, event(&input));
    world.settle();
    assert_eq!(got(&client), Got::Open(vec![]));
    world.done();
    assert_eq!(got(&client), Got::Fin(vec![]));
    world.assert_empty();
}

#[test]
fn at_the_close_deadline_the_socket_is_closed_and_close_stays_due() {
    let mut world = World::raw();
    let (id, client) = world.connect();
    fin(&client);
    world.turn();
    world.pass(5 * SECOND - Duration::from_millis(1));
    assert_eq!(got(&client), Got::Open(vec![]));
    world.pass(Duration::from_millis(1));
    assert_eq!(got(&client), Got::Fin(vec![]));
    assert_eq!(world.loads.sockets(), 0);
    assert_eq!(world.conn(id).work.close, Step::Submitted);
    assert_eq!(world.flow.next_deadline(), None);
    world.done();
    world.assert_empty();
}

#[test]
fn without_a_close_deadline_a_connection_waits_for_its_callback() {
    let mut world = World::new(|setup| setup.settings.close_deadline = None);
    let (id, client) = world.connect();
    fin(&client);
    world.turn();
    assert_eq!(world.flow.next_deadline(), None);
    world.pass(1000 * SECOND);
    assert!(world.conn(id).socket.is_some());
    assert_eq!(world.workers.frames[0].0.deadline, 0);
}

#[test]
fn a_reset_sends_rst_to_the_client() {
    let mut world = World::raw();
    let (id, mut client) = connect_by_tcp(&mut world);
    world.apply(Output::Reset(id));
    let error = client.read(&mut [0; 10]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(end(&world, id), Some(CloseReason::Handler));
    assert_eq!(world.workers.seen(), ["Close"]);
    world.done();
    world.assert_empty();
}

#[test]
fn a_client_that_resets_is_gone() {
    let mut world = World::raw();
    let (id, client) = connect_by_tcp(&mut world);
    // Also while it is not read.
    world.workers.left = 0;
    (&client).write_all(b"x").unwrap();
    world.await_event();
    SockRef::from(&client)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(client);
    world.await_event();
    assert!(world.conn(id).socket.is_none());
    assert_eq!(end(&world, id), Some(CloseReason::Broken));
    world.workers.left = 9;
    world.give_turns();
    world.done();
    assert_eq!(world.workers.seen(), ["Close"]);
    world.assert_empty();
}

#[test]
fn close_reports_the_first_reason() {
    let mut world = World::raw();
    let (id, client) = world.connect();
    world.apply(Output::Close(id));
    fin(&client);
    world.turn();
    world.apply(Output::Reset(id));
    assert_eq!(end(&world, id), Some(CloseReason::Handler));
    let (id, client) = world.connect();
    fin(&client);
    world.turn();
    world.apply(Output::Close(id));
    assert_eq!(end(&world, id), Some(CloseReason::Peer));
}

#[test]
fn input_that_arrived_before_a_shutdown_is_answered() {
    let mut world = World::lines();
    let (id, client) = world.connect();
    let (idle, silent) = world.connect();
    say(&silent, b"earlier\n");
    world.turn();
    world.done();
    world.workers.seen();
    say(&client, b"a\nb\n");
    world.flow.drain();
    assert_eq!(world.conn(id).reading.input, Input::Last { left: 4 });
    say(&client, b"too late\n");
    world.settle();
    assert_eq!(end(&world, idle), Some(CloseReason::Shutdown));
    assert_eq!(end(&world, id), Some(CloseReason::Shutdown));
    let seen = world.workers.seen();
    assert!(seen.contains(&"Receive a".to_owned()), "{seen:?}");
    world.send(id, b"answer");
    world.done();
    assert_eq!(got(&client), Got::Fin(b"answer".to_vec()));
    assert_eq!(got(&silent), Got::Fin(vec![]));
    world.pass(LINGER + LOOK);
    world.assert_empty();
}

#[test]
fn a_client_that_goes_on_sending_does_not_delay_a_shutdown() {
    let mut world = World::new(|setup| setup.max_message = 10);
    let (id, client) = world.connect();
    say(&client, &[b'x'; 25]);
    world.flow.drain();
    say(&client, &[b'y'; 100]);
    world.settle();
    let messages = world.workers.seen();
    assert_eq!(messages.len(), 4, "{messages:?}");
    assert_eq!(messages[3], "Close");
    assert_eq!(world.conn(id).reading.input, Input::Discarded);
}

#[test]
fn a_server_that_shuts_down_waits_for_room_for_its_last_input() {
    let mut world = World::raw();
    let (id, client) = world.connect();
    world.workers.left = 0;
    say(&client, b"a");
    world.turn();
    world.flow.drain();
    world.settle();
    assert_eq!(end(&world, id), None);
    world.workers.left = 9;
    world.give_turns();
    world.turn();
    assert_eq!(world.workers.seen(), ["Receive a", "Close"]);
    world.done();
    assert_eq!(got(&client), Got::Fin(vec![]));
}

#[test]
fn a_server_that_shuts_down_does_not_end_a_connection_for_want_of_room() {
    let mut world = World::new(|settings| settings.max_message = 4);
    let (id, client) = world.connect();
    say(&client, b"one!two!");
    world.workers.left = 1;
    world.flow.drain();
    world.settle();
    assert_eq!(world.workers.seen(), ["Receive one!"]);
    assert_eq!(end(&world, id), None);
    world.workers.left = 9;
    world.give_turns();
    assert_eq!(world.workers.seen(), ["Receive two!", "Close"]);
}

#[test]
fn a_slow_reader_is_read_once_more_when_the_server_shuts_down() {
    let mut world = World::new(marked);
    let (id, client) = world.connect();
    for _ in 0..1000 {
        if world.conn(id).writing.level == Level::Low {
            world.send(id, &[7; 500]);
        }
    }
    assert_eq!(world.conn(id).writing.level, Level::High);
    say(&client, b"last\n");
    assert_eq!(world.turn(), 0);
    world.workers.seen();
    world.flow.drain();
    world.settle();
    assert_eq!(world.workers.seen(), ["Resumed", "Receive last", "Close"]);
}

#[test]
fn a_forced_end_closes_every_connection() {
    let mut world = World::raw();
    let (_, one) = world.connect();
    let (id, two) = world.connect();
    world.send(id, b"sent");
    world.flow.hang_up_all();
    assert_eq!(world.loads.sockets(), 0);
    assert_eq!(got(&one), Got::Fin(vec![]));
    assert_eq!(got(&two), Got::Fin(b"sent".to_vec()));
    world.settle();
    world.done();
    world.assert_empty();
}

#[test]
fn a_socket_that_a_child_still_holds_is_not_reported_in_base_mode() {
    let mut world = World::new(|setup| setup.settings.mode = Mode::Base);
    let (id, client) = world.connect();
    let copy = world.conn(id).socket.as_ref().unwrap().try_clone();
    world.apply(Output::Reset(id));
    world.done();
    world.assert_empty();
    say(&client, b"to the copy");
    assert_eq!(world.turn(), 0);
    drop(copy);
}

#[test]
fn a_connection_that_cannot_be_watched_is_closed() {
    let mut world = World::raw();
    let (_, _client) = world.connect();
    // epoll refuses a descriptor that is always ready.
    let file = std::fs::File::open("/proc/self/exe").unwrap();
    world.loads.enter();
    let accepted = Accepted {
        socket: file.into(),
        peer: PEER,
        listener: LISTENER,
    };
    world.flow.adopt(&mut world.workers, accepted);
    assert_eq!((world.flow.len(), world.loads.sockets()), (1, 1));
    assert_eq!(world.loads.connections_of(0), 1);
    assert_eq!(world.workers.opened.len(), 1);
}

#[test]
fn a_client_that_has_just_come_is_served_when_the_server_shuts_down() {
    let mut world = World::lines();
    let (id, client) = world.connect();
    let (silent_id, silent) = world.connect();
    world.pass(SECOND / 2);
    world.flow.drain();
    world.settle();
    assert_eq!(world.workers.seen(), Vec::<String>::new());
    say(&client, b"a\nb\n");
    world.turn();
    say(&client, b"too late\n");
    world.turn();
    assert_eq!(world.workers.seen(), ["Receive a", "Receive b", "Close"]);
    world.send(id, b"answer");
    world.done();
    assert_eq!(got(&client), Got::Fin(b"answer".to_vec()));
    assert_eq!(end(&world, silent_id), None);
    world.pass(SECOND / 2);
    world.done();
    assert_eq!(end(&world, silent_id), Some(CloseReason::Shutdown));
    assert_eq!(got(&silent), Got::Fin(vec![]));
}

#[test]
fn first_bytes_that_come_in_time_are_read_when_there_is_a_place() {
    let mut world = World::lines();
    world.workers.left = 0;
    let (id, client) = world.adopt();
    world.turn();
    world.flow.drain();
    world.settle();
    say(&client, b"a\n");
    world.turn();
    world.pass(2 * SECOND);
    assert_eq!(end(&world, id), None);
    world.workers.left = usize::MAX;
    world.give_turns();
    world.turn();
    assert_eq!(world.workers.seen(), ["Connect", "Receive a", "Close"]);
    assert_eq!(end(&world, id), Some(CloseReason::Shutdown));
}

#[test]
fn the_rest_of_a_message_is_waited_for_behind_one_that_waits_for_room() {
    let mut world = World::lines();
    let (id, client) = world.connect();
    world.workers.left = 0;
    say(&client, b"a\nbegin");
    world.flow.drain();
    world.settle();
    world.pass(2 * SECOND);
    assert_eq!(end(&world, id), None);
    world.workers.left = usize::MAX;
    world.give_turns();
    assert_eq!(world.conn(id).reading.input, Input::Rest);
    say(&client, b"ning\nnext\n");
    world.turn();
    assert_eq!(
        world.workers.seen(),
        ["Receive a", "Receive beginning", "Close"]
    );
}

#[test]
fn the_rest_of_a_message_that_has_come_is_not_dropped_for_want_of_time() {
    let mut world = World::lines();
    let (id, client) = world.connect();
    say(&client, b"begin");
    world.flow.drain();
    world.settle();
    assert_eq!(world.conn(id).reading.input, Input::Rest);
    say(&client, b"ning\n");
    // This turn of the loop looks at the deadlines first.
    world.pass(SECOND);
    world.turn();
    assert_eq!(world.workers.seen(), ["Receive beginning", "Close"]);
}

#[test]
fn close_is_told_until_when_it_can_send() {
    let mut world = World::lines();
    let (_, client) = world.connect();
    let now = world.flow.clock.now();
    say(&client, &[b'x'; 2000]);
    world.turn();
    let (input, _) = world.workers.frames.pop_front().unwrap();
    assert_eq!(input.detail, CloseReason::Refused.code());
    assert_eq!((input.deadline, input.is_gone), (now + 5000, false));
}

#[test]
fn close_has_no_deadline_while_answers_before_it_are_due() {
    let mut world = World::lines();
    let (_, client) = world.connect();
    say(&client, &[b"slow\n".as_slice(), &[b'x'; 2000]].concat());
    world.turn();
    let (input, _) = world.workers.frames.pop_back().unwrap();
    assert_eq!(input.detail, CloseReason::Refused.code());
    assert_eq!((input.deadline, input.is_gone), (0, false));
}

#[test]
fn close_is_told_that_the_socket_is_gone() {
    let mut world = World::lines();
    let (_, client) = world.connect();
    world.workers.left = 0;
    fin(&client);
    world.turn();
    world.flow.hang_up_all();
    world.workers.left = 1;
    world.give_turns();
    let (input, _) = world.workers.frames.pop_front().unwrap();
    assert_eq!(input.detail, CloseReason::Peer.code());
    assert!(input.is_gone);
}

#[test]
fn after_refused_bytes_messages_that_were_returned_have_their_time() {
    let mut world = World::lines();
    let (id, client) = world.connect();
    say(&client, &[b"slow\n".as_slice(), &[b'x'; 2000]].concat());
    world.turn();
    world.workers.left = 0;
    world.hand_back(2, 0);
    world.settle();
    world.pass(100 * SECOND);
    assert!(world.conn(id).socket.is_some(), "its answer is due");
}

#[test]
fn a_client_that_has_said_nothing_for_long_delays_no_shutdown() {
    let mut world = World::lines();
    let (id, client) = world.connect();
    world.pass(10 * SECOND);
    world.flow.drain();
    world.pass(Duration::from_millis(1));
    assert_eq!(end(&world, id), Some(CloseReason::Shutdown));
    world.done();
    assert_eq!(got(&client), Got::Fin(vec![]));
}

#[test]
fn the_rest_of_a_message_is_read_while_it_comes_when_the_server_shuts_down() {
    let mut world = World::lines();
    let (id, client) = world.connect();
    let (drip_id, drip) = world.connect();
    for client in [&client, &drip] {
        say(client, b"whole\nbeg");
    }
    world.flow.drain();
    world.settle();
    world.pass(SECOND / 2);
    say(&client, b"in");
    world.turn();
    world.pass(SECOND / 2);
    assert_eq!(
        (end(&world, id), end(&world, drip_id)),
        (None, Some(CloseReason::Shutdown))
    );
    say(&client, b"ning\nnext\n");
    world.turn();
    assert_eq!(end(&world, id), Some(CloseReason::Shutdown));
    let mut seen = world.workers.seen();
    seen.sort();
    assert_eq!(
        seen,
        [
            "Close",
            "Close",
            "Receive beginning",
            "Receive whole",
            "Receive whole"
        ]
    );
    drop(drip);
}

#[test]
fn messages_that_wait_for_room_are_not_lost_when_the_server_shuts_down() {
    let mut world = World::lines();
    let (id, client) = world.connect();
    world.workers.left = 1;
    say(&client, b"a\nb\nc\n");
    world.turn();
    world.flow.drain();
    world.settle();
    world.workers.left = 9;
    world.give_turns();
    world.settle();
    world.give_turns();
    assert_eq!(
        world.workers.seen(),
        ["Receive a", "Receive b", "Receive c", "Close"]
    );
    assert_eq!(end(&world, id), Some(CloseReason::Shutdown));
}
