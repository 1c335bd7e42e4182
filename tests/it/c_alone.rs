//! The programs in `c-examples` that do without the library, built under sanitizers: a server on bare epoll,
//! and clients.

use std::net::SocketAddr;
use std::thread;

use crate::c_examples::{CLOSED, serve, states};
use crate::common::c::{ends_well, example, launch, start};
use crate::common::client::Client;
use crate::common::launch::{Ended, Launch};
use crate::common::sockets::{accept_queue, of_server};
use crate::common::traffic::pattern;
use crate::common::{SOON, eventually};

/// Runs a client of `c-examples` until it ends.
#[track_caller]
fn visit(name: &str, options: &[&str], server: SocketAddr, more: &[&str]) -> Ended {
    let (host, port) = (server.ip().to_string(), server.port().to_string());
    let arguments = [options, &[&host, &port], more].concat();
    launch(&example(name), &arguments).run()
}

#[test]
fn a_full_backlog_answers_no_client() {
    let server = Launch::serve(&["--mode", "base", "--workers", "1", "--backlog", "4"])
        .and(&["--fault", "receive:sleep=1000"])
        .start();
    let mut blocker = Client::connect(server.address());
    blocker.send(b"x");
    blocker.wait_until_read();

    let ended = visit("backlog", &[], server.address(), &["7"]);
    assert!(ended.status.success(), "{ended:?}");
    let mut expected: Vec<String> = (1..=5)
        .map(|n| format!("client  {n}: connected; {n} in the queue, limit 4"))
        .collect();
    expected.extend(
        (6..=7).map(|n| {
            format!("client  {n}: no answer, its SYN was dropped; 5 in the queue, limit 4")
        }),
    );
    assert_eq!(ended.stdout, expected.join("\n"));
    assert_eq!(accept_queue(server.address()), Some(5));
}

#[test]
fn a_master_empties_its_backlog_while_the_worker_sleeps() {
    let server = Launch::serve(&["--workers", "1", "--backlog", "4"])
        .and(&["--fault", "receive:sleep=1000"])
        .start();
    let address = server.address();
    let ended = visit("backlog", &[], address, &["12"]);
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(ended.stdout.matches(": connected; ").count(), 12);
    assert!(ended.stdout.contains("; 0 in the queue, limit 4"));
    eventually(SOON, "the queue is empty", || {
        accept_queue(address) == Some(0)
    });

    drop(server);
    let ended = visit("backlog", &[], address, &["1"]);
    assert_eq!(ended.stdout, "client  1: Connection refused");
}

#[test]
fn epoll_echo_sends_back_what_came() {
    let mut server = start(launch(&example("epoll_echo"), &["0"]), "bare");
    let mut client = Client::connect(server.address());
    client.echo(b"hello");
    let bytes = pattern(1, 1 << 20);
    thread::scope(|scope| {
        let mut sender = client.handle();
        let bytes = &bytes;
        scope.spawn(move || {
            sender.send(bytes);
            sender.half_close();
        });
        assert!(client.read_to_end() == *bytes);
    });
    assert!(!server.has_ended());
    assert_eq!(server.log().text(), "");
}

#[test]
fn in_epoll_echo_a_client_that_does_not_read_delays_no_other() {
    // No quarantine of freed memory, so that the process's memory is what the program holds.
    let options = "quarantine_size_mb=0:thread_local_quarantine_size_kb=0";
    let launch = launch(&example("epoll_echo"), &["0"]).env("ASAN_OPTIONS", options);
    let mut server = start(launch, "bare");
    let bytes = &pattern(2, 16 << 20);
    let held = server.root.memory().private;
    for reads_at_last in [true, false] {
        let mut slow = Client::connect_narrow(server.address());
        thread::scope(|scope| {
            let mut sender = slow.handle();
            let sending = scope.spawn(move || sender.try_send(bytes));
            eventually(SOON, "it is no longer read", || {
                let side = slow.server_side();
                side.is_some_and(|side| side.tx_queue > 0 && side.rx_queue > 0)
            });
            Client::connect(server.address()).echo(&pattern(3, 10_000));
            // One buffer of its unread bytes, not all of them.
            assert!(server.root.memory().private < held + (2 << 20));
            if reads_at_last {
                slow.expect(bytes);
            } else {
                slow.give_up();
            }
            assert_eq!(sending.join().unwrap().is_ok(), reads_at_last);
        });
    }
    // The other has gone with its answer unread.
    eventually(SOON, "both are forgotten", || {
        of_server(server.address()).is_empty()
    });
    Client::connect(server.address()).echo(b"still there");
    assert!(!server.has_ended());
    assert_eq!(server.log().text(), "");
}

/// Returns the ends of the connection of `client_close`, by the port that it prints.
#[track_caller]
fn its_ends(server: SocketAddr, ended: &Ended) -> (SocketAddr, SocketAddr) {
    let line = ended.stdout.lines().next().expect("a line");
    let port = line.strip_prefix("client_close: connected from port ");
    let port: u16 = port.expect("its port").parse().unwrap();
    (server, (server.ip(), port).into())
}

#[test]
fn client_close_closes_first() {
    let server = serve("echo");
    let ended = visit("client_close", &[], server.address(), &[]);
    assert!(ended.status.success(), "{ended:?}");
    assert!(ended.stdout.ends_with("\nclient_close: closed"));
    let ends = its_ends(server.address(), &ended);
    eventually(SOON, "gone, and TIME_WAIT", || states(ends) == CLOSED);

    let ended = visit("client_close", &["-s"], server.address(), &[]);
    assert!(ended.status.success(), "{ended:?}");
    let words = [
        "shut the writing side",
        "end of file after 0 bytes",
        "closed",
    ];
    let lines: Vec<&str> = ended.stdout.lines().skip(1).collect();
    assert_eq!(lines, words.map(|word| format!("client_close: {word}")));
    let ends = its_ends(server.address(), &ended);
    eventually(SOON, "gone, and TIME_WAIT", || states(ends) == CLOSED);

    let address = server.address();
    ends_well(server);
    let ended = visit("client_close", &[], address, &[]);
    assert_eq!(ended.status.code(), Some(1));
    assert_eq!(ended.stderr, "client_close: connect: Connection refused");
}
