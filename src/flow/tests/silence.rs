//! Peers that are silent, slow or gone.

use std::net::{TcpListener, TcpStream};

use super::*;
use crate::handler::CloseReason;
use crate::net::ended::Deadline;

pub(super) const MS: Duration = Duration::from_millis(1);

/// A flow whose listeners have these deadlines and no others.
pub(super) fn world(deadlines: fn(Listener) -> Listener) -> World {
    World::new(|setup| {
        lines(setup);
        setup.listener = deadlines;
    })
}

pub(super) fn only(listener: Listener) -> Listener {
    listener
        .open_deadline(None)
        .message_deadline(None)
        .write_deadline(None)
}

pub(super) fn end(world: &World, id: ConnId) -> Option<CloseReason> {
    world.conn(id).work.end
}

/// A client over TCP, whose kernel acknowledges what it has room for, after its `connect`.
fn connect_by_tcp(world: &mut World) -> (ConnId, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    SockRef::from(&listener).set_recv_buffer_size(1).unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    SockRef::from(&client).set_recv_buffer_size(1).unwrap();
    let (ours, _) = listener.accept().unwrap();
    SockRef::from(&ours).set_send_buffer_size(1).unwrap();
    ours.set_nonblocking(true).unwrap();
    let id = world.adopt_socket(ours.into());
    world.settle();
    world.done();
    world.workers.seen();
    (id, client)
}

#[test]
fn a_connection_without_a_word_ends_at_the_open_deadline() {
    let mut world = world(|it| only(it).open_deadline(5 * SECOND));
    let (id, client) = world.connect();
    world.pass(5 * SECOND - MS);
    assert_eq!(end(&world, id), None);
    world.pass(MS);
    assert_eq!(end(&world, id), Some(CloseReason::OpenDeadline));
    assert_eq!(got(&client), Got::Fin(vec![]));
    assert_eq!(world.workers.seen(), ["Close"]);
    assert_eq!(world.flow.ended.at(Deadline::Open), 1);
    world.done();
    fin(&client);
    world.turn();
    world.assert_empty();
}

#[test]
fn a_word_of_either_side_is_enough_for_the_open_deadline() {
    for by_peer in [true, false] {
        let mut world = world(|it| only(it).open_deadline(5 * SECOND));
        let (id, client) = world.connect();
        world.pass(4 * SECOND);
        match by_peer {
            true => say(&client, b"hello\n"),
            false => world.send(id, b"welcome"),
        }
        world.turn();
        world.done();
        world.pass(1000 * SECOND);
        assert_eq!(end(&world, id), None);
        assert_eq!(world.flow.next_silence(), None, "nothing is armed");
    }
}

#[test]
fn the_open_deadline_waits_for_the_connect_callback() {
    let mut world = world(|it| only(it).open_deadline(5 * SECOND));
    let (id, _client) = world.adopt();
    world.settle();
    world.pass(30 * SECOND);
    world.done();
    world.pass(5 * SECOND - MS);
    assert_eq!(end(&world, id), None);
    world.pass(MS);
    assert_eq!(end(&world, id), Some(CloseReason::OpenDeadline));
}

#[test]
fn a_silent_client_ends_at_the_idle_deadline_exactly() {
    let mut world = world(|it| only(it).idle(5 * SECOND));
    let (id, client) = world.connect();
    for _ in 0..7 {
        world.pass(3 * SECOND);
        say(&client, b"a\n");
        world.turn();
        world.done();
    }
    world.pass(5 * SECOND - MS);
    assert_eq!(end(&world, id), None);
    world.pass(MS);
    assert_eq!(end(&world, id), Some(CloseReason::IdleDeadline));
    assert_eq!(got(&client), Got::Fin(vec![]));
}

#[test]
fn a_client_for_which_a_callback_runs_is_not_idle() {
    let mut world = world(|it| only(it).idle(5 * SECOND));
    let (id, client) = world.connect();
    say(&client, b"a\n");
    world.turn();
    world.pass(17 * SECOND);
    assert_eq!(end(&world, id), None);
    world.done();
    world.pass(5 * SECOND - MS);
    assert_eq!(end(&world, id), None, "it counts from the callback's end");
    world.pass(MS);
    assert_eq!(end(&world, id), Some(CloseReason::IdleDeadline));
}

#[test]
fn a_client_whose_message_waits_for_a_worker_is_not_idle() {
    let mut world = world(|it| only(it).idle(5 * SECOND));
    let (id, client) = world.connect();
    world.workers.left = 0;
    say(&client, b"a\n");
    world.turn();
    world.pass(17 * SECOND);
    assert_eq!(end(&world, id), None);
    world.workers.left = usize::MAX;
    world.give_turns();
    world.done();
    world.pass(5 * SECOND);
    assert_eq!(end(&world, id), Some(CloseReason::IdleDeadline));
}

#[test]
fn a_client_that_takes_what_it_is_sent_is_not_idle() {
    let mut world = world(|it| only(it).idle(5 * SECOND));
    let (id, client) = connect_by_tcp(&mut world);
    client.set_nonblocking(true).unwrap();
    for _ in 0..5 {
        world.pass(3 * SECOND);
        world.send(id, b"news");
    }
    assert_eq!(end(&world, id), None);
    world.pass(5 * SECOND);
    assert_eq!(end(&world, id), Some(CloseReason::IdleDeadline));
}

#[test]
fn bytes_that_are_not_read_yet_are_a_sign_of_life() {
    let mut world = world(|it| only(it).idle(5 * SECOND));
    let (id, client) = world.connect();
    say(&client, b"a\n");
    world.pass(5 * SECOND);
    assert_eq!(end(&world, id), None);
    world.turn();
    world.done();
    world.pass(5 * SECOND);
    assert_eq!(end(&world, id), Some(CloseReason::IdleDeadline));
}

#[test]
fn a_handler_may_decide_about_an_idle_client_again_and_again() {
    let mut world = world(|it| {
        only(it)
            .idle(5 * SECOND)
            .on_idle(crate::config::OnIdle::Call)
    });
    let (id, client) = world.connect();
    for _ in 0..3 {
        world.pass(5 * SECOND - MS);
        assert_eq!(world.workers.seen(), Vec::<String>::new());
        world.pass(MS);
        assert_eq!(world.workers.seen(), ["Idle"]);
        world.pass(50 * SECOND);
        assert_eq!(world.workers.seen(), Vec::<String>::new(), "it still runs");
        world.send(id, b"ping");
        world.done();
        assert_eq!(got(&client), Got::Open(b"ping".to_vec()));
    }
    world.pass(5 * SECOND);
    world.apply(Output::Close(id));
    assert_eq!(end(&world, id), Some(CloseReason::Handler));
}

#[test]
fn an_idle_client_that_speaks_before_the_callback_has_a_place_is_not_idle() {
    let mut world = world(|it| {
        only(it)
            .idle(5 * SECOND)
            .on_idle(crate::config::OnIdle::Call)
    });
    let (_, client) = world.connect();
    world.workers.left = 0;
    world.pass(5 * SECOND);
    world.pass(SECOND);
    say(&client, b"a\n");
    world.turn();
    world.workers.left = usize::MAX;
    world.give_turns();
    world.turn();
    let seen = world.workers.seen();
    assert!(seen.contains(&"Receive a".to_owned()), "{seen:?}");
}

#[test]
fn a_message_that_drips_ends_at_its_deadline() {
    let mut world = world(|it| only(it).message_deadline(5 * SECOND).idle(2 * SECOND));
    let (id, client) = world.connect();
    for second in 0..5 {
        assert_eq!(end(&world, id), None, "after {second} s");
        say(&client, b"x");
        world.turn();
        world.pass(SECOND);
    }
    assert_eq!(end(&world, id), Some(CloseReason::MessageDeadline));
    // `close` may send the last answer.
    world.send(id, b"too slow");
    assert_eq!(got(&client), Got::Open(b"too slow".to_vec()));
    world.done();
    assert_eq!(got(&client), Got::Fin(vec![]));
    assert_eq!(world.flow.ended.at(Deadline::Message), 1);
}

#[test]
fn each_message_has_its_own_deadline() {
    let mut world = world(|it| only(it).message_deadline(5 * SECOND));
    let (id, client) = world.connect();
    for _ in 0..6 {
        // The end of one message and the first bytes of the next.
        say(&client, b"b\na");
        world.turn();
        world.done();
        world.pass(4 * SECOND);
    }
    say(&client, b"b\n");
    world.turn();
    world.done();
    world.pass(1000 * SECOND);
    assert_eq!(end(&world, id), None);
    assert_eq!(world.flow.next_silence(), None);
}

#[test]
fn the_end_of_a_message_that_has_come_in_time_counts() {
    let mut world = world(|it| only(it).message_deadline(5 * SECOND));
    let (id, client) = world.connect();
    say(&client, b"a");
    world.turn();
    say(&client, b"b\n");
    world.pass(5 * SECOND);
    world.turn();
    world.done();
    world.pass(SECOND);
    assert_eq!(end(&world, id), None);
    // Bytes without an end do not hold it up for long.
    say(&client, b"a");
    world.turn();
    say(&client, b"b");
    world.pass(5 * SECOND);
    assert_eq!(end(&world, id), None);
    world.pass(100 * MS);
    assert_eq!(end(&world, id), Some(CloseReason::MessageDeadline));
}

#[test]
fn messages_before_one_that_drips_are_answered() {
    let mut world = world(|it| only(it).message_deadline(5 * SECOND));
    let (id, client) = world.connect();
    say(&client, b"whole\npart");
    world.turn();
    world.pass(5 * SECOND);
    assert_eq!(end(&world, id), Some(CloseReason::MessageDeadline));
    world.pass(60 * SECOND);
    world.send(id, b"answer");
    assert_eq!(got(&client), Got::Open(b"answer".to_vec()));
    world.done();
    assert_eq!(got(&client), Got::Fin(vec![]));
}

#[test]
fn time_in_which_a_message_is_not_read_does_not_count() {
    let mut world = World::new(|setup| {
        marked(setup);
        setup.listener = |it| only(it).message_deadline(5 * SECOND);
    });
    let (id, client) = world.connect();
    say(&client, b"part");
    world.turn();
    world.send(id, &[7; 2 * MARK]);
    world.pass(30 * SECOND);
    assert_eq!(end(&world, id), None, "it is not read");
    while !world.conn(id).writing.unsent.is_empty() {
        got(&client);
        world.turn();
    }
    world.pass(5 * SECOND);
    world.pass(5 * SECOND);
    assert_eq!(end(&world, id), Some(CloseReason::MessageDeadline));
}

#[test]
fn a_reader_that_acknowledges_nothing_is_reset_at_the_write_deadline() {
    let mut world = world(|it| only(it).write_deadline(8 * SECOND));
    let (id, mut client) = connect_by_tcp(&mut world);
    world.send(id, &[7; 1 << 20]);
    assert!(!world.conn(id).writing.unsent.is_empty());
    for _ in 0..8 {
        world.pass(SECOND);
        assert_eq!(end(&world, id), None);
    }
    world.pass(SECOND);
    assert_eq!(end(&world, id), Some(CloseReason::WriteDeadline));
    assert_eq!(world.conn(id).held(), 0);
    let error = std::io::Read::read_to_end(&mut client, &mut Vec::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_slow_reader_is_not_reset_as_long_as_it_takes_bytes() {
    let mut world = world(|it| only(it).write_deadline(8 * SECOND));
    let (id, mut client) = connect_by_tcp(&mut world);
    SockRef::from(&client)
        .set_recv_buffer_size(64 << 10)
        .unwrap();
    world.send(id, &[7; 1 << 20]);
    let mut buffer = vec![0; 16 << 10];
    for reads in 0..30 {
        assert!(client.read(&mut buffer).unwrap() > 0);
        world.turn();
        world.pass(SECOND);
        assert_eq!(end(&world, id), None, "after {reads} reads");
    }
    assert!(!world.conn(id).writing.unsent.is_empty());
    for _ in 0..10 {
        world.pass(SECOND);
    }
    assert_eq!(end(&world, id), Some(CloseReason::WriteDeadline));
}

#[test]
fn a_slow_reader_of_a_unix_socket_is_not_reset_as_long_as_it_takes_messages() {
    let mut world = world(|it| only(it).write_deadline(8 * SECOND));
    let (mut client, ours) = UnixStream::pair().unwrap();
    let peer = Peer::Unix(crate::peer::Credentials::new(1, 2, 3));
    let id = world.adopt_from(peer, ours.into());
    world.turn();
    world.done();
    // Each takes much more memory of the kernel than it has bytes.
    while world.conn(id).writing.unsent.is_empty() {
        world.send(id, &[7; 10]);
    }
    for reads in 0..30 {
        // The socket has no room for more until most of it is read.
        client.read_exact(&mut [0; 10]).unwrap();
        world.turn();
        world.pass(SECOND);
        assert_eq!(end(&world, id), None, "after {reads} reads");
    }
    for _ in 0..10 {
        world.pass(SECOND);
    }
    assert_eq!(end(&world, id), Some(CloseReason::WriteDeadline));
}

#[test]
fn what_the_kernel_holds_for_a_peer_that_is_gone_is_due_to_it() {
    let mut world = world(|it| only(it).write_deadline(8 * SECOND).idle(5 * SECOND));
    let (id, _client) = connect_by_tcp(&mut world);
    // The socket takes all of it, and the client's has no room for that much.
    let socket = world.conn(id).socket.as_ref().unwrap();
    SockRef::from(socket).set_send_buffer_size(1 << 20).unwrap();
    world.send(id, &[7; 200_000]);
    assert!(world.conn(id).writing.unsent.is_empty());
    for _ in 0..12 {
        world.pass(SECOND);
        assert_eq!(end(&world, id), None);
    }
    for _ in 0..3 {
        world.pass(SECOND);
    }
    assert_eq!(end(&world, id), Some(CloseReason::WriteDeadline));
}

#[test]
fn an_idle_callback_delays_no_other_deadline() {
    let mut world = world(|it| {
        only(it)
            .message_deadline(7 * SECOND)
            .idle(5 * SECOND)
            .on_idle(crate::config::OnIdle::Call)
    });
    let (id, client) = world.connect();
    say(&client, b"half");
    world.turn();
    world.pass(5 * SECOND);
    assert_eq!(world.workers.seen(), ["Idle"]);
    world.done();
    world.pass(2 * SECOND - MS);
    assert_eq!(end(&world, id), None);
    world.pass(MS);
    assert_eq!(end(&world, id), Some(CloseReason::MessageDeadline));
}

#[test]
fn the_message_deadline_leaves_the_write_deadline_in_force() {
    let mut world = World::new(|setup| {
        lines(setup);
        setup.settings.close_deadline = None;
        setup.listener = |it| {
            only(it)
                .message_deadline(5 * SECOND)
                .write_deadline(8 * SECOND)
        };
    });
    let (id, client) = connect_by_tcp(&mut world);
    (&client).write_all(b"half").unwrap();
    world.await_event();
    world.send(id, &[7; 1 << 20]);
    assert!(!world.conn(id).writing.unsent.is_empty());
    world.pass(5 * SECOND);
    assert_eq!(end(&world, id), Some(CloseReason::MessageDeadline));
    for _ in 0..5 {
        world.pass(SECOND);
    }
    assert!(world.conn(id).socket.is_none());
}

#[test]
fn a_connection_that_is_gone_leaves_no_timer() {
    let mut world = World::new(|setup| {
        setup.settings.close_deadline = Some(3600 * SECOND);
        setup.listener = |it| it.idle(3600 * SECOND);
    });
    for _ in 0..1000 {
        let (id, client) = world.connect();
        fin(&client);
        world.turn();
        world.done();
        assert!(world.flow.conn(id).is_none());
    }
    let close = world.flow.close_deadlines.as_ref().unwrap().len();
    let others = (world.flow.silence.len(), world.flow.looks.len());
    assert_eq!((close, others), (0, (0, 0)));
    assert_eq!(world.flow.next_deadline(), None);
    assert_eq!(world.flow.next_silence(), None);
}

#[test]
fn time_in_which_the_server_stood_still_is_not_the_silence_of_its_clients() {
    let mut world = world(|it| only(it).idle(5 * SECOND));
    let (id, _client) = world.connect();
    world.pass(SECOND);
    // It was to wake up after 4 s, and did after an hour.
    world.flow.clock.advance(3600 * SECOND);
    world.flow.begin_turn(Some(SECOND), false);
    assert_eq!(world.flow.enforce_silence(), []);
    world.settle();
    assert_eq!(end(&world, id), None);
    world.pass(3 * SECOND);
    assert_eq!(end(&world, id), None);
    world.pass(SECOND);
    assert_eq!(end(&world, id), Some(CloseReason::IdleDeadline));
}
