//! Groups: what a worker publishes is delivered in turns, and a worker that lies about groups is ended.

use std::os::unix::net::UnixStream;

use super::{World, one_worker};
use crate::config::MOST_GROUPS;
use crate::conn_id::ConnId;
use crate::ipc::record::{Output, Publish};
use crate::master::reactor::Report;

const TO_ROOM: Output = Output::Publish(Publish {
    name: 4,
    except: None,
    is_lossy: false,
});

/// The worker answers a message of a client with these records.
fn answer(world: &mut World, client: &UnixStream, records: &[(Output, Vec<u8>)]) {
    world.say(client, "go\n");
    let taken = world.begin(0).expect("the message");
    for (output, body) in records {
        let outbox = &mut world.workers[0].as_mut().expect("it lives").outbox;
        if !outbox.room(body.len()) {
            outbox.publish();
            world.turn();
        }
        let outbox = &mut world.workers[0].as_mut().expect("it lives").outbox;
        assert!(outbox.room(body.len()));
        outbox.stage(*output, body);
    }
    world.finish(0, &taken);
}

/// Returns the connection of a client, whose frame is begun.
fn id_of(world: &mut World, client: &UnixStream) -> ConnId {
    world.say(client, "go\n");
    let taken = world.begin(0).expect("the message");
    world.finish(0, &taken);
    taken.input.conn
}

/// Returns how many bytes a connection was sent, with those that are unsent.
fn delivered(world: &World, id: ConnId) -> usize {
    let conn = world.reactor.flow.conn(id).expect("it is there");
    conn.writing.written as usize + conn.writing.unsent.len()
}

#[test]
fn a_flood_of_what_is_published_is_delivered_in_turns() {
    let mut world = World::new(one_worker);
    let clients: [UnixStream; 8] = world.clients();
    let ids = clients.each_ref().map(|client| {
        let id = id_of(&mut world, client);
        answer(&mut world, client, &[(Output::Join(id), b"room".to_vec())]);
        id
    });
    let flood = 3000;
    let records = vec![(TO_ROOM, b"roomx".to_vec()); flood];
    answer(&mut world, &clients[0], &records);
    let (mut turns, mut before) = (0, 0);
    while before < flood {
        turns += 1;
        let now = ids.map(|id| delivered(&world, id));
        assert_eq!(now, [now[0]; 8], "all of them alike");
        let more = now[0] - before;
        assert!(
            (200..600).contains(&more) || now[0] == flood,
            "{more} in turn {turns}"
        );
        before = now[0];
        world.turn();
    }
    assert!(turns > 5, "{turns}");
}

#[test]
fn a_worker_that_joins_more_groups_than_there_can_be_is_ended() {
    let mut world = World::new(one_worker);
    let [client] = world.clients();
    let id = id_of(&mut world, &client);
    let joins = |count: usize| -> Vec<(Output, Vec<u8>)> {
        let name = |number: usize| number.to_string().into_bytes();
        (0..count).map(|it| (Output::Join(id), name(it))).collect()
    };
    answer(&mut world, &client, &joins(MOST_GROUPS));
    assert!(world.reports.is_empty());
    answer(&mut world, &client, &joins(MOST_GROUPS + 1));
    let broken = world.reports.try_iter().next();
    assert!(matches!(
        broken,
        Some(Report::ProtocolBroken { slot: 0, .. })
    ));
}
