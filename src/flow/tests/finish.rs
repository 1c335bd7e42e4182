//! How the last bytes of connections leave.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use super::close::connect_by_tcp;
use super::*;
use crate::config::{LINGER, MOST_ORPHANED};
use crate::handler::CloseReason;
use crate::net::connection::Fin;

/// Sends until bytes are unsent. Returns the number of all bytes.
fn fill(world: &mut World, id: ConnId) -> usize {
    let chunk = vec![b'x'; 1 << 20];
    let sent = (1..100).find(|_| {
        world.send(id, &chunk);
        !world.conn(id).writing.unsent.is_empty()
    });
    sent.unwrap() * chunk.len()
}

/// Sends as much as the kernel takes, and nothing that stays unsent.
fn fill_the_kernel(world: &mut World, id: ConnId) -> usize {
    let socket = world.conn(id).socket.as_ref().unwrap();
    SockRef::from(socket).set_send_buffer_size(1 << 20).unwrap();
    let mut sent = 0;
    while sent < 500_000 {
        world.send(id, &[b'x'; 10_000]);
        sent += 10_000;
    }
    assert!(world.conn(id).writing.unsent.is_empty());
    sent
}

/// Keeps the kernel from acknowledging, and keeping for the client, far more than the client has read: its receive
/// buffer would grow to megabytes.
fn limit_receive_buffer(client: &TcpStream) {
    SockRef::from(client)
        .set_recv_buffer_size(64 << 10)
        .unwrap();
}

#[test]
fn a_socket_lingers_from_when_the_peer_has_everything() {
    let mut world = World::new(|setup| setup.settings.close_deadline = None);
    let (id, client) = world.connect();
    world.send(id, b"answer");
    world.apply(Output::Close(id));
    world.done();
    world.pass(10 * LINGER);
    assert_eq!(world.flow.len(), 1);
    say(&client, b"a byte that would be answered by RST");
    world.turn();
    assert_eq!(got(&client), Got::Fin(b"answer".to_vec()));
    world.pass(LINGER);
    assert_eq!(world.flow.len(), 1);
    world.pass(LOOK);
    world.assert_empty();
}

#[test]
fn a_slow_reader_gets_everything_after_our_fin() {
    let mut world = World::raw();
    let (id, mut client) = connect_by_tcp(&mut world);
    limit_receive_buffer(&client);
    let answer = fill(&mut world, id);
    world.apply(Output::Close(id));
    world.done();
    let mut read = 0;
    let mut buffer = vec![0; 1 << 20];
    for round in 0.. {
        // Between two readings passes less than the close deadline, and all in all much more.
        world.pass(3 * SECOND);
        client.write_all(b"x").unwrap();
        world.turn();
        match client.read(&mut buffer).unwrap() {
            0 => break,
            n => read += n,
        }
        assert!(round < 10_000);
    }
    assert_eq!(read, answer);
}

#[test]
fn a_socket_that_both_sides_have_closed_waits_for_a_peer_that_takes_its_output() {
    for takes in [false, true] {
        let mut world = World::raw();
        let (id, mut client) = connect_by_tcp(&mut world);
        let buffered = fill_the_kernel(&mut world, id);
        assert!(buffered > MOST_ORPHANED as usize);
        client.shutdown(Shutdown::Write).unwrap();
        world.await_event();
        world.done();
        // The kernel reports a hang-up as soon as both sides have sent their FIN.
        world.turn_until_quiet();
        world.pass(4 * SECOND);
        assert_eq!(
            world.conn(id).writing.fin,
            Fin::Sent,
            "but it is not closed"
        );
        if takes {
            assert_eq!(client.read_to_end(&mut Vec::new()).unwrap(), buffered);
            world.turn_until_quiet();
            world.pass(LOOK);
        } else {
            world.pass(5 * SECOND);
            let error = client.read_to_end(&mut Vec::new()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        }
        world.assert_empty();
    }
}

#[test]
fn an_answer_that_is_broken_off_ends_with_rst_behind_its_part() {
    let mut world = World::raw();
    let (id, mut client) = connect_by_tcp(&mut world);
    let sent = fill(&mut world, id);
    world.flow.break_off(id, CloseReason::Crash);
    world.settle();
    assert_eq!(world.workers.seen(), ["Close"]);
    world.done();
    let (mut part, mut buffer) = (0, vec![0; 1 << 20]);
    let error = loop {
        match client.read(&mut buffer) {
            Ok(n) => part += n,
            Err(error) => break error,
        }
        world.turn_until_quiet();
        world.pass(LOOK);
        assert!(part <= sent);
    };
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(part, sent);
    world.assert_empty();
}

#[test]
fn a_part_that_was_flushed_does_not_look_whole_at_the_close_deadline() {
    for has_flushed in [false, true] {
        let mut world = World::lines();
        let (id, mut client) = connect_by_tcp(&mut world);
        client.write_all(b"a\n").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        world.await_event();
        world.send(id, b"part");
        if has_flushed {
            world.flow.flushed(id);
        }
        world.pass(10 * SECOND);
        assert!(world.conn(id).socket.is_none());
        let mut bytes = Vec::new();
        let end = client.read_to_end(&mut bytes);
        assert_eq!(end.is_err(), has_flushed, "{end:?}");
    }
}

#[test]
fn output_that_was_unsent_is_not_left_to_the_kernel_either() {
    let mut world = World::raw();
    let (id, mut client) = connect_by_tcp(&mut world);
    limit_receive_buffer(&client);
    let answer = fill(&mut world, id);
    client.shutdown(Shutdown::Write).unwrap();
    world.await_event();
    world.done();
    let (mut read, mut buffer) = (0, vec![0; 16 << 10]);
    while !world.conn(id).writing.unsent.is_empty() {
        read += client.read(&mut buffer).unwrap();
        world.turn();
    }
    world.turn_until_quiet();
    assert!(world.conn(id).unacknowledged() > MOST_ORPHANED as usize);
    assert!(world.conn(id).socket.is_some());
    read += client.read_to_end(&mut Vec::new()).unwrap();
    assert_eq!(read, answer);
    world.turn_until_quiet();
    world.pass(LOOK);
    world.assert_empty();
}

#[test]
fn a_peer_that_resets_ends_a_socket_that_waits_for_it() {
    let mut world = World::raw();
    let (id, client) = connect_by_tcp(&mut world);
    fill_the_kernel(&mut world, id);
    client.shutdown(Shutdown::Write).unwrap();
    world.await_event();
    world.done();
    world.turn_until_quiet();
    assert!(world.conn(id).socket.is_some());
    // With bytes unread, closing resets.
    drop(client);
    world.await_event();
    world.assert_empty();
}

#[test]
fn a_forced_end_leaves_little_to_the_kernel() {
    let mut world = World::raw();
    let (id, mut client) = connect_by_tcp(&mut world);
    let sent = fill_the_kernel(&mut world, id);
    world.flow.hang_up_all();
    let lost = world.conn(id).ending().lost as usize;
    assert!(MOST_ORPHANED as usize <= lost && lost <= sent, "{lost}");
    let error = client.read_to_end(&mut Vec::new()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[test]
fn a_part_that_was_flushed_is_one_although_later_messages_are_recalled() {
    let mut world = World::lines();
    let (id, mut client) = connect_by_tcp(&mut world);
    client.write_all(b"a\nb\n").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    world.await_event();
    world.send(id, b"part");
    world.flow.flushed(id);
    world.workers.left = 0;
    world.hand_back(1, 0);
    world.settle();
    world.pass(10 * SECOND);
    assert!(world.conn(id).socket.is_none());
    assert!(client.read_to_end(&mut Vec::new()).is_err());
}

#[test]
fn an_answer_that_was_flushed_behind_its_close_is_whole() {
    for fails in [false, true] {
        let mut world = World::lines();
        let (id, mut client) = connect_by_tcp(&mut world);
        client.write_all(b"a\n").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        world.await_event();
        let answer = vec![b'x'; 60_000];
        // One commit, in a callback that goes on.
        let bytes = SharedBytes::of(&answer);
        world.flow.apply(Output::Send(id), bytes);
        world.flow.apply(Output::Close(id), SharedBytes::of(&[]));
        world.flow.flushed(id);
        if fails {
            world.flow.break_off(id, CloseReason::Crash);
        }
        client.set_nonblocking(true).unwrap();
        let (mut read, mut buffer) = (0, vec![0; answer.len()]);
        loop {
            match client.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => read += n,
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
            world.pass(LOOK);
        }
        assert_eq!(read, answer.len());
    }
}

#[test]
fn an_answer_that_is_cut_ends_with_rst() {
    for is_forced in [false, true] {
        let mut world = World::raw();
        let (id, mut client) = connect_by_tcp(&mut world);
        // More than the kernel's buffers take.
        world.send(id, &vec![b'x'; 16 << 20]);
        assert!(!world.conn(id).writing.unsent.is_empty());
        client.shutdown(std::net::Shutdown::Write).unwrap();
        world.turn();
        if is_forced {
            world.flow.hang_up_all();
        } else {
            world.pass(5 * SECOND);
            world.pass(5 * SECOND);
        }
        let error = client.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{is_forced}");
        world.done();
        world.assert_empty();
    }
}

#[test]
fn output_that_the_peer_does_not_take_is_no_progress() {
    let mut world = World::raw();
    let (id, client) = connect_by_tcp(&mut world);
    client.shutdown(Shutdown::Write).unwrap();
    world.await_event();
    // Its socket's buffers are full; what another callback sends is taken by the kernel alone.
    fill(&mut world, id);
    world.pass(5 * SECOND);
    fill(&mut world, id);
    for _ in 0..5 {
        world.send(id, &[7; 100]);
        world.pass(SECOND);
    }
    assert!(world.conn(id).socket.is_none());
    assert!(world.conn(id).ending().lost > 500);
}

#[test]
fn a_socket_lingers_for_a_bounded_time() {
    let mut world = World::raw();
    let (id, _client) = world.connect();
    world.pass(SECOND);
    world.apply(Output::Close(id));
    world.done();
    assert_eq!(world.flow.next_deadline(), Some(LOOK));
    world.pass(LINGER - Duration::from_millis(1));
    assert_eq!(world.flow.len(), 1);
    world.pass(Duration::from_millis(1));
    world.assert_empty();
}

#[test]
fn a_socket_closed_on_this_side_lingers_until_the_peers_fin() {
    let mut world = World::raw();
    let (id, client) = world.connect();
    world.apply(Output::Close(id));
    assert_eq!(world.workers.seen(), ["Close"]);
    assert_eq!(got(&client), Got::Fin(vec![]), "not after the callback");
    assert_eq!(world.conn(id).writing.fin, Fin::Sent);
    world.done();
    assert_eq!(world.flow.len(), 1);
    assert_eq!(world.workers.gone, []);
    fin(&client);
    world.turn();
    world.assert_empty();
    assert_eq!(world.workers.seen(), Vec::<String>::new());
}

#[test]
fn sending_unsent_bytes_is_progress_too() {
    let mut world = World::raw();
    let (id, client) = world.connect();
    world.send(id, &[7; 300_000]);
    assert!(world.conn(id).writing.unsent.len() > 50_000);
    world.apply(Output::Close(id));
    world.pass(4 * SECOND);
    got(&client);
    world.turn();
    world.pass(SECOND);
    assert!(world.conn(id).socket.is_some());
    // The client reads no more.
    world.pass(5 * SECOND);
    assert!(world.conn(id).socket.is_none());
    world.done();
    world.assert_empty();
}

#[test]
fn a_peer_that_takes_bytes_gets_a_new_close_deadline() {
    let mut world = World::raw();
    let (id, client) = world.connect();
    world.send(id, b"before");
    fin(&client);
    world.turn();
    world.pass(4 * SECOND);
    assert_eq!(got(&client), Got::Open(b"before".to_vec()));
    world.pass(SECOND);
    assert!(world.conn(id).socket.is_some());
    assert_eq!(world.flow.next_deadline(), Some(5 * SECOND));
    world.pass(5 * SECOND);
    assert!(world.conn(id).socket.is_none());
    assert_eq!(got(&client), Got::Fin(vec![]));
}
