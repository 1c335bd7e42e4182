//! Connections that move from one owner to another.

use std::io::Write;
use std::os::fd::OwnedFd;

use super::*;
use crate::flow::Move;
use crate::net::handover::Handover;

/// Tries to move a connection. Returns what went to the other owner.
fn give(world: &mut World, id: ConnId) -> (Move, Option<(Handover, OwnedFd)>) {
    let mut gone = None;
    let moved = world.flow.hand_over(id, |handover, socket| {
        gone = Some((handover.clone(), socket.try_clone_to_owned()?));
        Ok(true)
    });
    (moved, gone)
}

#[test]
fn a_connection_moves_with_its_id_and_an_incomplete_message() {
    let (mut old, mut new) = (World::lines(), World::lines());
    // The ids of the two owners are different.
    let _others = [old.connect(), old.connect()];
    let (id, mut client) = old.connect();
    client.write_all(b"hel").unwrap();
    old.turn_until_quiet();
    let (moved, gone) = give(&mut old, id);
    assert_eq!((moved, old.flow.len()), (Move::Done, 2));
    assert_eq!(old.loads.connections_of(0), 2);
    assert_eq!(old.flow.own_id(id), None, "callbacks can't send to it here");
    assert!(old.workers.frames.is_empty(), "no close");

    // Another one is in its place.
    let (other, _other_client) = new.connect();
    let (handover, socket) = gone.unwrap();
    assert_eq!(handover.partial, b"hel");
    new.loads.enter();
    new.flow.take_over(&mut new.workers, socket, handover);
    client.write_all(b"lo\n").unwrap();
    new.turn_until_quiet();
    let (input, body) = new.workers.frames.pop_front().unwrap();
    assert_eq!((input.conn, &body[..]), (id, &b"hello\n"[..]));
    let own = new.flow.own_id(id).unwrap();
    assert!(own != other && own != id);
    new.flow.frame_done(own, Event::Receive);
    drop(client);
    new.turn_until_quiet();
    let (input, _) = new.workers.frames.pop_front().unwrap();
    assert_eq!((input.conn, event(&input)), (id, Event::Close));
    new.flow.frame_done(own, Event::Close);
    new.settle();
    assert_eq!((new.flow.own_id(id), new.flow.len()), (None, 1));
}

#[test]
fn a_connection_with_something_due_stays() {
    let mut world = World::lines();
    let (id, mut client) = world.adopt();
    assert_eq!(give(&mut world, id).0, Move::Stays, "connect is due");
    world.turn();
    world.done();
    client.write_all(b"hello\n").unwrap();
    world.turn_until_quiet();
    assert_eq!(give(&mut world, id).0, Move::Stays, "a callback runs");
    world.done();
    world.flow.send(id, SharedBytes::of(&[b'x'; 1 << 20]));
    assert_eq!(give(&mut world, id).0, Move::Stays, "output is unsent");
    world.flow.close(id, crate::handler::CloseReason::Handler);
    assert_eq!(give(&mut world, id).0, Move::Stays, "it ends");
    let mut world = World::lines();
    let (id, _client) = world.connect();
    let refused = world.flow.hand_over(id, |_, _| Ok(false));
    assert_eq!(refused, Move::NoRoom);
    let failed = world
        .flow
        .hand_over(id, |_, _| Err(ErrorKind::BrokenPipe.into()));
    assert_eq!(failed, Move::Stays);
    assert_eq!(world.flow.own_id(id), Some(id));
    let gone = ConnId::from_u64(999).unwrap();
    assert_eq!(give(&mut world, gone).0, Move::Done);
}
