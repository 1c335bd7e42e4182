//! A worker that lies to its master: it is killed and replaced, and no other client notices.

use crate::common::SOON;
use crate::common::client::Client;
use crate::common::eventually;
use crate::common::launch::Launch;

/// The lies of the testbed's liar.
const LIES: [&str; 12] = [
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

/// What is said of each lie about files.
const FILE_LIES: [(&str, &str); 11] = [
    ("none", "a file whose descriptor was not sent"),
    ("two", "a message for files that is not of one descriptor"),
    ("no-descriptor", "a message for files that is not of one"),
    ("link", "a message for files that is not of one descriptor"),
    ("pipe", "a file that is not a regular one"),
    ("folder", "a file that is not a regular one"),
    (
        "written",
        "a file that is not a regular one, open for reading",
    ),
    ("linger", "a file that is not a regular one"),
    ("two-linger", "a message for files that is not of one"),
    ("range", "bytes from 18446744073709551615 on"),
    ("flood", "descriptors of files that no record names"),
];

#[test]
fn a_worker_that_lies_about_files_is_killed_and_its_master_keeps_none() {
    let mut server = Launch::testbed("liar", "process").start();
    let mut other = Client::connect(server.address());
    other.echo(b"before");
    let open = || server.master().descriptors();
    let before = open();
    for (number, (lie, said)) in FILE_LIES.iter().enumerate() {
        let mut client = Client::connect(server.address());
        client.send(format!("lie:file-{lie}").as_bytes());
        server.logged(1, &["ERROR master", "broke the ring protocol", said]);
        server.logged(number + 1, &["abnormal exit, status=0, signal=9"]);
        other.echo(lie.as_bytes());
    }
    let mut client = Client::connect(server.address());
    client.send(b"lie:file-end");
    assert_eq!(client.read_until_reset(), b"");
    server.logged(1, &["is reset: a file", "ends before the part"]);
    drop(client);
    eventually(SOON, "every descriptor is closed", || {
        server.workers().len() == 2 && open() <= before
    });
    other.echo(b"after");
    assert!(!server.has_ended());
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
