//! A worker that lies to its master: it is killed and replaced, and no other client notices.

use crate::common::SOON;
use crate::common::client::Client;
use crate::common::eventually;
use crate::common::launch::Launch;

/// The lies of the testbed's liar.
const LIES: [&str; 13] = [
    "lie:length",
    "lie:long",
    "lie:kind",
    "lie:position",
    "lie:name",
    "lie:mark",
    "lie:back",
    "lie:odd",
    "lie:part",
    "lie:group",
    "lie:member",
    "lie:aside",
    "lie:garbage",
];

#[test]
fn a_worker_that_lies_is_killed_and_its_master_keeps_serving() {
    let mut server = Launch::testbed("liar", "process").start();
    let master = server.master();
    let mut others: Vec<Client> = (0..8).map(|_| Client::connect(server.address())).collect();
    for (number, lie) in LIES.iter().enumerate() {
        let mut client = Client::connect(server.address());
        client.echo(b"honest so far");
        client.send(lie.as_bytes());
        // Its callback was running when the worker was killed: the default policy closes.
        assert_eq!(client.read_to_end(), b"", "{lie}");
        server.logged(number + 1, &["ERROR master", "broke the ring protocol"]);
        server.logged(number + 1, &["abnormal exit, status=0, signal=9"]);
        for other in &mut others {
            other.echo(lie.replace("lie", "no").as_bytes());
        }
        assert!(!server.has_ended() && server.master() == master, "{lie}");
    }
    eventually(SOON, "both seats are filled", || {
        server.workers().len() == 2
    });
}

#[test]
fn a_worker_that_joins_more_groups_than_there_can_be_is_killed() {
    let mut server = Launch::testbed("liar", "process").start();
    let mut client = Client::connect(server.address());
    // Its commit is honest in all else.
    client.echo(b"lie:groups");
    server.logged(1, &["ERROR master", "more groups for connection"]);
    server.logged(1, &["abnormal exit, status=0, signal=9"]);
    client.echo(b"served by another");
    assert!(!server.has_ended());
}

#[test]
fn a_worker_that_posts_without_end_is_killed() {
    let mut server = Launch::testbed("liar", "process")
        .and(&["reactors=1", "memory-budget=60000000"])
        .start();
    let mut client = Client::connect(server.address());
    client.send(b"lie:posts");
    assert_eq!(client.read_to_end(), b"");
    server.logged(1, &["ERROR master", "posts count more than 60000000 bytes"]);
    server.logged(1, &["abnormal exit, status=0, signal=9"]);
    Client::connect(server.address()).echo(b"served by another");
    assert!(!server.has_ended());
}

#[test]
fn a_worker_that_asks_without_end_harms_nobody() {
    let mut server = Launch::testbed("liar", "process")
        .and(&["reactors=2"])
        .start();
    let mut others: Vec<Client> = (0..8).map(|_| Client::connect(server.address())).collect();
    let mut client = Client::connect(server.address());
    for _ in 0..3 {
        client.send(b"lie:asks");
        others.iter_mut().for_each(|other| other.echo(b"served"));
        client.expect(b"lie:asks");
    }
    assert!(!server.has_ended());
    assert!(server.log().with(&["abnormal exit"]).is_empty());
}

#[test]
fn output_for_a_connection_that_never_existed_is_dropped() {
    let mut server = Launch::testbed("liar", "process").start();
    let mut client = Client::connect(server.address());
    let mut other = Client::connect(server.address());
    client.echo(b"lie:stranger");
    other.echo(b"served");
    client.echo(b"served too");
    assert!(!server.has_ended());
    assert!(server.log().with(&["abnormal exit"]).is_empty());
}
