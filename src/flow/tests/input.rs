//! Bytes become messages, and incomplete ones are kept.

use super::*;
use crate::config::LARGE_BUFFER;
use crate::net::buffers::SMALL;
use crate::net::connection::Input;
use crate::protocol::{Found, Protocol};

#[test]
fn raw_bytes_go_straight_to_their_place() {
    let mut world = World::raw();
    let (id, client) = world.connect();
    say(&client, b"one");
    say(&client, b"two");
    world.turn();
    assert_eq!(world.workers.seen(), ["Receive onetwo"]);
    let (input, body) = world.workers.frames.back().unwrap();
    assert_eq!((input.len as usize, body.as_slice()), (6, &b"onetwo"[..]));
    assert_eq!(world.workers.asked(), [64 << 10..=256 << 10]);
    assert_eq!(world.conn(id).held(), 0);
    assert_eq!(world.conn(id).work.in_flight, 1);
}

#[test]
fn a_raw_read_is_no_longer_than_the_longest_message() {
    let mut world = World::new(|setup| setup.max_message = 4);
    let (_, client) = world.connect();
    say(&client, b"abcdef");
    world.turn();
    world.turn();
    assert_eq!(world.workers.seen(), ["Receive abcd", "Receive ef"]);
    assert_eq!(world.workers.asked(), [4..=4, 4..=4]);
}

#[test]
fn a_dispatch_function_sees_a_raw_message_before_it_has_a_place() {
    let asked = |change: fn(&mut Setup)| {
        let mut world = World::new(change);
        let (_, client) = world.connect();
        say(&client, b"abc");
        world.turn();
        assert_eq!(world.workers.seen(), ["Receive abc"]);
        world.workers.asked()
    };
    let by_function = asked(|setup| setup.deciders.dispatch = Some(Arc::new(|_| 0)));
    assert_eq!(by_function, [3..=3]);
    assert_eq!(asked(|_| {}), [64 << 10..=256 << 10]);
}

#[test]
fn a_message_that_comes_in_parts_is_put_together() {
    let mut world = World::lines();
    let (id, client) = world.connect();
    for part in ["a", "b", "c\nd"] {
        say(&client, part.as_bytes());
        world.turn();
        world.assert_accounts();
    }
    assert_eq!(world.workers.seen(), ["Receive abc"]);
    let reading = &world.conn(id).reading;
    assert_eq!(reading.partial.as_slice(), b"d");
    assert!(reading.has_incomplete());
    say(&client, b"\n");
    world.turn();
    assert_eq!(world.workers.seen(), ["Receive d"]);
    assert_eq!(world.conn(id).held(), 0);
}

#[test]
fn a_long_message_is_read_into_one_buffer() {
    let mut world = World::new(|setup| {
        setup.protocol = "delimiter=\\n".parse().unwrap();
        setup.max_message = 1 << 20;
    });
    let (id, client) = world.connect();
    let mut sent = Vec::new();
    for part in 0..20u8 {
        let bytes = [b'a' + part; 10_000];
        say(&client, &bytes);
        sent.extend_from_slice(&bytes);
        world.turn_until_quiet();
        assert_eq!(world.conn(id).held(), sent.len());
        assert!(world.conn(id).reading.has_incomplete());
        world.assert_accounts();
    }
    say(&client, b"\nrest");
    world.turn_until_quiet();
    sent.push(b'\n');
    let (_, body) = world.workers.frames.back().unwrap();
    assert!(*body == sent, "{} bytes of {}", body.len(), sent.len());
    let partial = &world.conn(id).reading.partial;
    assert_eq!(
        (partial.as_slice(), partial.capacity()),
        (&b"rest"[..], SMALL)
    );
}

#[test]
fn a_buffer_that_held_a_long_message_is_not_kept_for_a_shorter_one() {
    let mut world = World::new(|setup| {
        setup.protocol = "delimiter=\\n".parse().unwrap();
        setup.max_message = 1 << 20;
    });
    let (id, client) = world.connect();
    let mut long = vec![b'a'; 500_000];
    for part in long.chunks(50_000) {
        say(&client, part);
        world.turn_until_quiet();
    }
    long.clear();
    long.push(b'\n');
    long.resize(2 * SMALL, b'b');
    say(&client, &long);
    world.turn_until_quiet();
    let partial = &world.conn(id).reading.partial;
    assert_eq!(partial.len(), 2 * SMALL - 1);
    assert!(partial.capacity() <= 2 * partial.len() + LARGE_BUFFER);
    world.assert_accounts();
}

#[test]
fn a_fin_behind_bytes_is_read_with_them() {
    let mut world = World::raw();
    let (_, client) = world.connect();
    say(&client, b"last");
    fin(&client);
    world.turn();
    assert_eq!(world.workers.seen(), ["Receive last", "Close"]);
}

#[test]
fn a_fin_is_seen_behind_bytes_that_are_not_read() {
    let mut world = World::lines();
    let (id, client) = world.connect();
    world.workers.left = 0;
    say(&client, b"a\nb\n");
    world.turn();
    let seen_at = world.flow.clock.now();
    assert_eq!(world.conn(id).ending().peer_closed_at, None);
    fin(&client);
    assert_eq!(world.turn(), 1);
    assert_eq!(world.conn(id).ending().peer_closed_at, Some(seen_at));
    assert_eq!(world.conn(id).reading.input, Input::Open);
    assert_eq!(world.turn(), 0, "it is reported once");
    assert_eq!(world.flow.next_deadline(), Some(5 * SECOND));
    world.pass(SECOND);
    assert_eq!(world.flow.next_deadline(), Some(4 * SECOND));
    world.workers.left = 9;
    world.give_turns();
    world.turn();
    assert_eq!(world.workers.seen(), ["Receive a", "Receive b", "Close"]);
    let conn = world.conn(id);
    assert_eq!(conn.reading.input, Input::Ended);
    assert_eq!(
        conn.ending().peer_closed_at,
        Some(seen_at),
        "when it was seen first"
    );
}

#[test]
fn a_message_that_is_refused_closes_the_connection() {
    let mut world = World::lines();
    let (id, client) = world.connect();
    say(&client, b"ok\n");
    say(&client, &[b'x'; 1001]);
    say(&client, b"\nlater\n");
    world.turn();
    assert_eq!(world.workers.seen(), ["Receive ok", "Close"]);
    let conn = world.conn(id);
    assert_eq!(conn.work.end, Some(crate::handler::CloseReason::Refused));
    assert_eq!((conn.held(), conn.reading.input), (0, Input::Discarded));
    world.assert_accounts();
    world.done();
    assert_eq!(got(&client), Got::Fin(vec![]));
}

#[test]
fn an_incomplete_message_before_a_fin_is_dropped() {
    let mut world = World::lines();
    let (_, client) = world.connect();
    say(&client, b"a\nno end");
    fin(&client);
    world.turn();
    assert_eq!(world.workers.seen(), ["Receive a", "Close"]);
    world.done();
    world.assert_empty();
}

#[test]
fn a_connection_that_a_callback_closes_is_not_read_on() {
    for output in [Output::Close, Output::Reset] {
        let mut world = World::lines();
        world.workers.callback = Some(Box::new(move |flow, input, body| {
            if body == b"stop\n" {
                flow.apply(output(input.conn), SharedBytes::of(&[]));
            }
        }));
        let (_, client) = world.adopt();
        say(&client, b"go\nstop\nnever\npart");
        world.settle();
        world.turn();
        world.turn();
        assert_eq!(
            world.workers.seen(),
            ["Connect", "Receive go", "Receive stop", "Close"]
        );
        world.assert_accounts();
    }
}

#[test]
fn callbacks_that_run_at_once_are_done_at_once() {
    let mut world = World::raw();
    world.workers.callback = Some(Box::new(|flow, input, body| {
        flow.apply(Output::Send(input.conn), SharedBytes::of(body));
    }));
    let (id, client) = world.adopt();
    world.settle();
    say(&client, b"echo");
    world.turn();
    assert_eq!(got(&client), Got::Open(b"echo".to_vec()));
    assert_eq!(world.conn(id).work.in_flight, 0);
    fin(&client);
    world.turn();
    assert_eq!(world.workers.seen(), ["Connect", "Receive echo", "Close"]);
    assert_eq!(got(&client), Got::Fin(vec![]));
    world.assert_empty();
}

#[test]
fn bytes_after_a_close_are_thrown_away_until_the_peers_fin() {
    for mut world in [World::lines(), World::raw()] {
        let (id, client) = world.connect();
        world.apply(Output::Close(id));
        world.done();
        assert_eq!(got(&client), Got::Fin(vec![]));
        say(&client, b"nobody reads this\n");
        assert_eq!(world.turn(), 1);
        assert_eq!(world.turn(), 0, "it is read");
        assert_eq!(world.workers.seen(), ["Close"]);
        fin(&client);
        world.turn();
        world.assert_empty();
    }
}

#[test]
fn a_short_beginning_is_read_on_as_far_as_any_other() {
    let mut world = World::new(|settings| {
        settings.protocol = "delimiter=\\n".parse().unwrap();
        settings.max_message = 1 << 20;
    });
    let (_, client) = world.connect();
    say(&client, b"a");
    world.turn();
    let mut rest = vec![b'b'; 60_000];
    rest.push(b'\n');
    say(&client, &rest);
    world.turn();
    assert_eq!(world.workers.frames.len(), 1, "in one read");
}

#[test]
fn the_memory_of_a_beginning_is_used_again() {
    let mut world = World::lines();
    let (id, client) = world.connect();
    let (mut places, mut others) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        say(&client, b"begin");
        world.turn();
        places.push(world.conn(id).reading.partial.as_ptr());
        say(&client, b"end\n");
        world.turn();
        // Takes what the allocator may have got back.
        others.push(Vec::<u8>::with_capacity(SMALL));
    }
    assert_eq!(places, [places[0]; 3]);
}

#[test]
fn a_beginning_is_kept_where_nothing_more_is_there() {
    let mut world = World::lines();
    let (id, client) = world.connect();
    say(&client, b"ab");
    world.turn();
    world.flow.take_turn(&mut world.workers, id);
    say(&client, b"c\n");
    world.turn();
    assert_eq!(world.workers.seen(), ["Receive abc"]);
}

#[test]
fn what_was_searched_is_of_one_message_alone() {
    let mut world = World::lines();
    let (_, client) = world.connect();
    say(&client, b"aaaa");
    world.turn();
    say(&client, b"\nb\nc\n");
    world.turn();
    assert_eq!(
        world.workers.seen(),
        ["Receive aaaa", "Receive b", "Receive c"]
    );
}

/// Chunks of a digit and as many letters end with the chunk 0.
fn chunks(setup: &mut Setup) {
    setup.max_message = 1000;
    setup.protocol = Protocol::function(|bytes, search| {
        assert!(search.cursor as usize <= bytes.len() && (search.seen() > 0 || search.cursor == 0));
        let mut steps = 0;
        while let Some(digit) = bytes.get(search.cursor as usize) {
            steps += 1;
            assert!(steps <= 3, "it is walked from its first byte");
            let len = usize::from(digit - b'0');
            if len == 0 {
                return Found::Message(search.cursor as usize + 1);
            }
            if bytes.len() < search.cursor as usize + 1 + len {
                break;
            }
            search.cursor += 1 + len as u64;
        }
        Found::More
    });
}

#[test]
fn a_function_goes_on_where_it_was() {
    let mut world = World::new(chunks);
    let ((id, one), (other, two)) = (world.connect(), world.connect());
    for _ in 0..100 {
        for (client, chunk) in [(&one, "3abc"), (&two, "1x2")] {
            say(client, chunk.as_bytes());
            world.turn();
        }
        say(&two, b"yz");
        world.turn();
    }
    assert_eq!(world.workers.seen(), [""; 0]);
    say(&one, b"00");
    world.turn();
    let expected = format!("Receive {}0", "3abc".repeat(100));
    assert_eq!(world.workers.seen(), [expected, "Receive 0".into()]);
    // The numbers go with their messages.
    assert_eq!(world.flow.cursors.len(), 1);
    drop((two, one));
    world.turn();
    world.done();
    assert_eq!(world.flow.cursors.len(), 0, "{id} {other}");
}

/// A client of a unix socket, after its `connect`, whose last message waits for room; and it has closed.
fn closed_while_it_waits(bytes: &[u8]) -> (World, ConnId) {
    let mut world = World::lines();
    let (client, ours) = UnixStream::pair().unwrap();
    let peer = Peer::Unix(crate::peer::Credentials::new(1, 2, 3));
    let id = world.adopt_from(peer, ours.into());
    world.turn();
    world.done();
    world.workers.left = 1;
    say(&client, bytes);
    world.turn();
    say(&client, b"c\n");
    drop(client);
    world.turn_until_quiet();
    (world, id)
}

#[test]
fn what_a_client_of_a_unix_socket_has_sent_before_it_closes_is_delivered_when_there_is_room() {
    let (mut world, id) = closed_while_it_waits(b"a\nb\n");
    assert_eq!(world.workers.seen(), ["Connect", "Receive a"]);
    assert!(world.conn(id).socket.is_some());
    world.workers.left = 9;
    world.give_turns();
    world.turn_until_quiet();
    assert_eq!(world.workers.seen(), ["Receive b", "Receive c", "Close"]);
    world.done();
    world.assert_empty();
}

#[test]
fn a_client_of_a_unix_socket_that_has_closed_is_closed_at_the_deadline() {
    let (mut world, id) = closed_while_it_waits(b"a\nb\n");
    world.pass(5 * Duration::from_secs(1));
    assert!(world.conn(id).socket.is_none());
    world.workers.left = 9;
    world.give_turns();
    world.done();
    world.assert_empty();
}
