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
    // Each of the two reactors has a bell for its disk threads, from the first read on that could wait.
    eventually(SOON, "every descriptor is closed", || {
        server.workers().len() == 2 && open() <= before + 2
    });
    other.echo(b"after");
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

/// Records that a worker makes for a connection whose callback is not under way, or that are longer than they can be:
/// `KIND WORD MORE LAST LENGTH`, and the words that the log has. The kinds are those of `ipc/record.rs`.
const FORGED: [(&str, &str); 23] = [
    ("11 other 0 0 8", "whose callback is not under way"),
    ("12 other 1 1000 0", "whose callback is not under way"),
    ("13 other 1 0 0", "whose callback is not under way"),
    ("14 other 0 0 0", "whose callback is not under way"),
    ("15 other 0 0 0", "whose callback is not under way"),
    ("16 other 0 0 0", "whose callback is not under way"),
    ("21 other 1000 0 2", "whose callback is not under way"),
    ("30 other 0 0 4", "whose callback is not under way"),
    ("31 other 0 0 4", "whose callback is not under way"),
    (
        "44 me 0 0 4",
        "the result of a task where none is under way",
    ),
    (
        "11 me 0 0 65537",
        "a frame of 65537 bytes where 65536 can be",
    ),
    ("12 me 1 1000 1", "a frame of 1 bytes where 0 can be"),
    (
        "17 0 0 0 65537",
        "a frame of 65537 bytes where 65536 can be",
    ),
    ("20 0 0 0 4", "names no connection"),
    (
        "21 me 1000 0 65537",
        "a frame of 65537 bytes where 65536 can be",
    ),
    ("30 me 0 0 129", "a frame of 129 bytes where 128 can be"),
    ("32 0 200 0 300", "a frame of 200 bytes where 128 can be"),
    ("33 1 0 0 129", "a frame of 129 bytes where 128 can be"),
    ("34 0 0 0 1", "a frame of 1 bytes where 0 can be"),
    ("35 1 0 0 0", "names no connection"),
    ("36 1 0 0 4", "a frame of 4 bytes where 0 can be"),
    ("45 1 1000 0 1", "a frame of 1 bytes where 0 can be"),
    ("60 0 0 0 0", "a frame of unknown kind 60"),
];

#[test]
fn a_worker_is_killed_for_each_record_that_its_callback_can_not_make() {
    let mut server = Launch::testbed("liar", "process").start();
    let mut other = Client::connect(server.address());
    for (nth, (record, words)) in FORGED.iter().enumerate() {
        let mut client = Client::connect(server.address());
        client.send(format!("record:{record}").as_bytes());
        assert_eq!(client.read_to_end(), b"", "{record}");
        server.logged(nth + 1, &["ERROR master", "broke the ring protocol"]);
        assert!(!server.log().with(&[words]).is_empty(), "{record}");
        other.echo(record.as_bytes());
    }
    assert!(!server.has_ended());
}

/// Records that no honest worker makes, but that harm nobody: times without end and without length, seats, connections and
/// groups that do not exist.
const ABSURD: [&str; 22] = [
    "12 me 1 18446744073709551615 0",
    "12 me 1 0 0",
    "13 me 99 0 0",
    "16 me 0 0 0",
    "17 18446744073709551615 0 0 4",
    "17 65535 0 0 4",
    "20 18446744073709551615 0 0 4",
    "31 me 0 0 4",
    "31 me 0 0 0",
    "32 0 4 0 8",
    "32 18446744073709551615 4294967300 0 8",
    "33 18446744073709551615 0 0 4",
    "33 0 0 0 0",
    "34 18446744073709551615 0 0 0",
    "35 18446744073709551615 18446744073709551615 0 0",
    "36 5 18446744073709551615 0 0",
    "36 0 4294967295 0 0",
    "46 2 18446744073709551615 0 0",
    "47 3 18446744073709551615 0 0",
    "48 4 0 0 0",
    "49 99 0 0 0",
    "21 me 18446744073709551615 0 4",
];

#[test]
fn absurd_records_harm_nobody() {
    let mut server = Launch::testbed("liar", "process").start();
    let master = server.master();
    let mut other = Client::connect(server.address());
    for record in ABSURD {
        let mut client = Client::connect(server.address());
        client.echo(format!("record:{record}").as_bytes());
        other.echo(record.as_bytes());
    }
    assert!(!server.has_ended() && server.master() == master);
    let log = server.log().text();
    assert!(!log.contains("panic"), "{log}");
}
