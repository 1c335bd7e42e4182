//! Groups: what is published, who gets it, and how much memory it takes.

use super::*;
use crate::config::MOST_GROUPS;
use crate::handler::CloseReason;
use crate::ipc::record::Publish;
use crate::net::groups::{Publication, member_bytes};

impl World {
    fn join(&mut self, id: ConnId, name: &[u8]) {
        self.flow.apply(Output::Join(id), SharedBytes::of(name));
    }

    fn leave(&mut self, id: ConnId, name: &[u8]) {
        self.flow.apply(Output::Leave(id), SharedBytes::of(name));
    }

    fn publish(&mut self, name: &[u8], bytes: &[u8]) {
        self.publish_as(name, bytes, None, false);
    }

    fn publish_as(&mut self, name: &[u8], bytes: &[u8], except: Option<ConnId>, is_lossy: bool) {
        let publish = Publish {
            name: name.len() as u8,
            except,
            is_lossy,
        };
        let body = [name, bytes].concat();
        let body = SharedBytes::of(&body);
        self.flow.apply(Output::Publish(publish), body);
        self.settle();
    }

    /// Returns clients that are members of the group `room`.
    fn members(&mut self, count: usize) -> Vec<(ConnId, UnixStream)> {
        let members: Vec<_> = (0..count).map(|_| self.connect()).collect();
        for (id, _) in &members {
            self.join(*id, b"room");
        }
        members
    }
}

/// The client reads all, and the server writes all.
fn read_all(world: &mut World, client: &UnixStream) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        let (Got::Open(bytes) | Got::Fin(bytes)) = got(client);
        if bytes.is_empty() {
            return all;
        }
        all.extend_from_slice(&bytes);
        world.turn();
        world.assert_accounts();
    }
}

/// More than a socket takes.
fn much(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8).collect()
}

#[test]
fn members_get_what_is_published_once_and_in_order() {
    let mut world = World::raw();
    let members = world.members(40);
    let (_, stranger) = world.connect();
    world.join(members[0].0, b"room");
    world.publish(b"room", b"one ");
    world.publish_as(b"room", b"two ", Some(members[1].0), false);
    world.publish(b"another room", b"no ");
    world.leave(members[2].0, b"room");
    world.leave(members[2].0, b"never joined");
    world.publish(b"room", b"three ");
    for (number, (_, client)) in members.iter().enumerate() {
        let expected: &[u8] = match number {
            1 => b"one three ",
            2 => b"one two ",
            _ => b"one two three ",
        };
        assert_eq!(got(client), Got::Open(expected.to_vec()), "{number}");
    }
    assert_eq!(got(&stranger), Got::Open(Vec::new()));
    assert_eq!(world.flow.group_size(b"room"), 39);
    assert_eq!(world.flow.kept, 39 * member_bytes(b"room"));
}

#[test]
fn a_connection_that_ends_leaves_its_groups_when_its_close_has_run() {
    let mut world = World::raw();
    let members = world.members(2);
    world.join(members[0].0, b"other");
    world.apply(Output::Close(members[0].0));
    assert_eq!(world.workers.seen(), ["Close"]);
    assert_eq!(world.flow.group_size(b"room"), 2, "its close may ask");
    world.publish(b"room", b"news");
    world.done();
    fin(&members[0].1);
    world.await_event();
    assert_eq!(got(&members[0].1), Got::Fin(Vec::new()));
    assert_eq!(got(&members[1].1), Got::Open(b"news".to_vec()));
    assert_eq!(world.flow.group_size(b"room"), 1);
    assert_eq!(world.flow.group_size(b"other"), 0);
    assert_eq!(world.flow.kept, member_bytes(b"room"));
    world.apply(Output::Reset(members[1].0));
    world.done();
    world.assert_empty();
    assert!(world.flow.groups.is_empty());
    assert_eq!(world.flow.kept, 0);
}

#[test]
fn slow_members_share_one_copy_until_the_last_has_it() {
    let mut world = World::new(|setup| setup.settings.output_high_water = 1 << 20);
    let members = world.members(5);
    let mut expected = Vec::new();
    for round in 0..3 {
        let bytes = much(30_000 + round);
        world.publish(b"room", &bytes);
        expected.extend(bytes);
        // One of them is between the messages of a group.
        world.send(members[0].0, b"for one alone");
    }
    let (shared, own) = (world.flow.budget.shared(), world.flow.budget.held());
    assert_eq!(shared, 90_003, "for all five");
    assert!(own < 100, "{own}");
    world.assert_accounts();
    for (number, (id, client)) in members.iter().enumerate().skip(1) {
        assert!(world.conn(*id).writing.unsent.len() > 50_000);
        assert!(read_all(&mut world, client) == expected, "{number}");
        assert_eq!(world.flow.budget.shared(), 90_003, "the first has nothing");
    }
    let first = read_all(&mut world, &members[0].1);
    assert_eq!(first.len(), expected.len() + 3 * b"for one alone".len());
    assert_eq!(world.flow.budget.shared(), 0);
    assert_eq!(world.flow.budget.held(), 0);
}

#[test]
fn short_rests_are_copied() {
    let mut world = World::raw();
    let members = world.members(1);
    let mut expected = much(20_000);
    world.publish(b"room", &expected);
    let shared = world.flow.budget.shared();
    assert_eq!(shared, 20_000);
    world.publish(b"room", b"short");
    expected.extend(b"short");
    assert_eq!(
        (world.flow.budget.shared(), world.flow.budget.held()),
        (shared, 5)
    );
    assert!(read_all(&mut world, &members[0].1) == expected);
}

#[test]
fn a_slow_member_misses_what_is_published_for_quick_ones_and_gets_the_rest_whole() {
    let mut world = World::new(marked);
    let members = world.members(2);
    let [(slow, slow_client), (_, client)] = &members[..] else {
        panic!("two members")
    };
    let mut expected = Vec::new();
    while world.conn(*slow).writing.unsent.len() <= MARK {
        let bytes = much(3000);
        world.publish_as(b"room", &bytes, None, true);
        expected.extend(bytes);
        read_all(&mut world, client);
    }
    let unsent = world.conn(*slow).writing.unsent.len();
    for _ in 0..100 {
        world.publish_as(b"room", &much(3000), None, true);
        assert_eq!(read_all(&mut world, client), much(3000));
    }
    assert_eq!(world.conn(*slow).writing.unsent.len(), unsent);
    assert!(world.conn(*slow).is_open());
    world.workers.seen();
    world.done();
    assert!(read_all(&mut world, slow_client) == expected);
    world.publish_as(b"room", b"again", None, true);
    assert_eq!(read_all(&mut world, slow_client), b"again");
}

#[test]
fn a_slow_member_is_reset_over_the_output_limit_and_others_are_not() {
    let mut world = World::new(marked);
    let members = world.members(2);
    let [(slow, _), (quick, client)] = &members[..] else {
        panic!("two members")
    };
    for round in 0.. {
        assert!(round < 100, "it is never reset");
        if world.conn(*slow).socket.is_none() {
            break;
        }
        let bytes = much(5000);
        world.publish(b"room", &bytes);
        assert_eq!(read_all(&mut world, client), bytes);
        world.assert_accounts();
    }
    assert_eq!(world.conn(*slow).work.end, Some(CloseReason::SlowReader));
    assert!(world.conn(*quick).is_open());
    assert_eq!(world.flow.budget.shared(), 0);
}

#[test]
fn what_groups_hold_is_bounded_by_the_memory_budget() {
    let mut world = World::new(|setup| {
        let settings = &mut setup.settings;
        (settings.output_high_water, settings.output_limit) = (1 << 20, Some(1 << 20));
        settings.memory_budget = Some(8 << 20);
    });
    let rooms = 20;
    let members: Vec<_> = (0..3 * rooms).map(|_| world.connect()).collect();
    for (number, (id, _)) in members.iter().enumerate() {
        world.join(*id, &[(number % rooms) as u8]);
    }
    let bytes = much(60_000);
    for _ in 0..15 {
        for room in 0..rooms {
            world.publish(&[room as u8], &bytes);
            let held = world.flow.budget.shared() + world.flow.budget.held();
            assert!(held <= 8 << 20, "{held}");
        }
    }
    let is_open = |(id, _): &&(ConnId, UnixStream)| world.conn(*id).is_open();
    let open = members.iter().filter(is_open).count();
    // 9 groups are 8.1 MB.
    assert!((3 * 7..=3 * 10).contains(&open), "{open} are left");
    world.assert_accounts();
}

#[test]
fn more_groups_than_a_connection_can_have_are_a_lie() {
    let mut world = World::raw();
    let (id, _client) = world.connect();
    for number in 0..MOST_GROUPS {
        world.join(id, format!("room {number}").as_bytes());
    }
    assert_eq!(world.flow.take_lie(), None);
    world.join(id, b"one more");
    assert_eq!(world.flow.take_lie(), Some(id));
    assert_eq!(world.flow.group_size(b"one more"), 0);
    assert_eq!(world.flow.take_lie(), None);
}

#[test]
fn groups_go_along_with_a_connection_that_moves() {
    let (mut from, mut to) = (World::raw(), World::raw());
    let (id, client) = from.connect();
    for name in [&b"a"[..], b"", b"room"] {
        from.join(id, name);
    }
    let mut record = None;
    let moved = from.flow.hand_over(id, |handover, socket| {
        record = Some((handover.clone(), socket.try_clone_to_owned()?));
        Ok(true)
    });
    assert_eq!(moved, crate::flow::Move::Done);
    assert_eq!((from.flow.kept, from.flow.groups.is_empty()), (0, true));
    let (handover, socket) = record.unwrap();
    to.loads.enter();
    to.flow.take_over(&mut to.workers, socket, handover);
    to.settle();
    let [own] = to.flow.ids()[..] else {
        panic!("one connection")
    };
    let carried = to.conn(own).work.assigned();
    assert_eq!(carried.groups, b"\x01a\x00\x04room");
    to.publish(b"room", b"here");
    assert_eq!(got(&client), Got::Open(b"here".to_vec()));
}

#[test]
fn work_of_a_turn_grows_with_the_members() {
    let mut world = World::raw();
    let _members = world.members(10);
    let publish = Publish {
        name: 4,
        except: None,
        is_lossy: false,
    };
    let publication = Publication::copy_of(publish, SharedBytes::of(b"roomhello"));
    let publication = publication.for_members(10);
    assert_eq!(publication.charge(), 64 + 9 + 10 * 64);
    assert_eq!(world.flow.deliver(&publication), 10 * (512 + 5));
}
