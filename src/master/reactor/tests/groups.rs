//! Groups: what a worker publishes is delivered in turns, and a worker that lies about groups is ended.

use std::io::Read;
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

fn received(mut client: &UnixStream) -> usize {
    client.set_nonblocking(true).unwrap();
    let mut bytes = [0; 4096];
    let mut count = 0;
    while let Ok(n) = client.read(&mut bytes) {
        count += n;
    }
    count
}

#[test]
fn a_flood_of_what_is_published_is_delivered_in_turns() {
    let mut world = World::new(one_worker);
    let clients: [UnixStream; 8] = world.clients();
    for client in &clients {
        let id = id_of(&mut world, client);
        answer(&mut world, client, &[(Output::Join(id), b"room".to_vec())]);
    }
    let flood = 3000;
    let records = vec![(TO_ROOM, b"roomx".to_vec()); flood];
    answer(&mut world, &clients[0], &records);
    let mut turns = 0;
    let mut got = [0; 8];
    while got[7] < flood {
        turns += 1;
        assert!(turns < 1000, "{got:?}");
        let before = got[0];
        for (got, client) in got.iter_mut().zip(&clients) {
            *got += received(client);
        }
        // The worker has waited for room, which took some turns.
        let most = if turns == 1 { flood / 2 } else { 600 };
        assert!(got[0] - before < most, "in turn {turns}: {got:?}");
        world.turn();
    }
    for client in &clients {
        received(client);
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
