//! Crash policies: the fate of a message in which a worker has died.

use crate::common::client::Client;
use crate::common::launch::Launch;
use crate::common::server::Server;
use crate::common::{SOON, eventually};

fn script(options: &[&str]) -> Server {
    Launch::testbed("script", "process").and(options).start()
}

#[test]
fn with_reply_the_client_gets_exactly_that_and_the_end() {
    let flags = [
        "--fault",
        "receive:abort",
        "--on-crash",
        "reply=502 Bad\\x21\\r\\n",
    ];
    let server = Launch::serve(&flags).start();
    for _ in 0..3 {
        let mut client = Client::connect(server.address());
        client.send(b"x");
        assert_eq!(client.read_to_end(), b"502 Bad!\r\n");
    }
}

#[test]
fn a_reply_follows_earlier_answers_and_replaces_staged_output() {
    let server = script(&["on-crash=reply=sorry\\n"]);
    let mut client = Client::connect(server.address());
    client.send(b"echo before\ndie\necho behind\n");
    assert_eq!(client.read_to_end(), b"echo before\nsorry\n");
}

#[test]
fn an_answer_takes_the_place_of_the_one_that_did_not_come() {
    let server = script(&["on-crash=answer=sorry\\n"]);
    let mut client = Client::connect(server.address());
    for _ in 0..3 {
        client.send(b"echo before\ndie\nsend-and-fail\necho behind\n");
        client.expect(b"echo before\nsorry\nsorry\necho behind\n");
    }
    // Of half an answer nobody can make a whole one.
    client.send(b"flush-and-die\n");
    assert_eq!(client.read_until_reset(), b"flushed\n");
}

#[test]
fn an_answer_needs_boundaries_of_messages() {
    let output = Launch::serve(&["--on-crash", "answer=sorry"]).run();
    let says = output.stderr.clone();
    assert!(
        !output.status.success() && says.contains("has the protocol raw"),
        "{says}"
    );
    let lines = ["--on-crash", "answer=sorry\\n", "--protocol", "lines"];
    let server = Launch::serve(&lines)
        .and(&["--fault", "receive:abort"])
        .start();
    let mut client = Client::connect(server.address());
    for _ in 0..3 {
        assert_eq!(client.ask("x"), "sorry");
    }
}

#[test]
fn no_reply_follows_a_flush() {
    let server = script(&["on-crash=reply=sorry\\n"]);
    let mut client = Client::connect(server.address());
    client.send(b"flush-and-die\n");
    assert_eq!(client.read_until_reset(), b"flushed\n");
}

#[test]
fn a_function_decides_for_each_message() {
    let server = script(&["on-crash=ask"]);
    let mut bystander = Client::connect(server.address());
    let mut client = Client::connect(server.address());
    assert_eq!(client.ask("user 12"), "user set");
    // Dropped, and the connection goes on.
    client.send(b"die keep\n");
    assert_eq!(client.ask("echo on"), "echo on");
    // Answered, with the function's argument.
    client.send(b"die reply\n");
    let told = format!("(true, Some(12), 1, false) of {}\n", client.local);
    assert_eq!(client.read_to_end(), told.as_bytes());
    // Closed, without a reply.
    let mut client = Client::connect(server.address());
    client.send(b"die\n");
    assert_eq!(client.read_to_end(), b"");
    assert_eq!(server.logged(3, &["abnormal exit"]).len(), 3);
    // Run again, this many times.
    let mut client = Client::connect(server.address());
    client.send(b"die 4\n");
    assert_eq!(client.read_to_end(), b"");
    server.logged(1, &["poison", "killed 4 workers"]);
    assert_eq!(server.logged(7, &["abnormal exit"]).len(), 7);
    assert_eq!(bystander.ask("echo on"), "echo on");
}

#[test]
fn a_crash_function_that_panics_closes_the_connection_and_no_other() {
    let server = script(&["on-crash=ask"]);
    let mut bystander = Client::connect(server.address());
    let mut client = Client::connect(server.address());
    client.send(b"die panic\n");
    assert_eq!(client.read_to_end(), b"");
    server.logged(1, &["the crash function panicked"]);
    assert_eq!(bystander.ask("echo on"), "echo on");
}

#[test]
fn poison_is_shown_counted_and_closed_while_others_are_served() {
    let server = script(&["on-crash=redeliver=2"]);
    let mut bystander = Client::connect(server.address());
    assert_eq!(bystander.ask("poisoned"), "0");
    let mut client = Client::connect(server.address());
    let long = format!("die {}the-end-of-it\n", "x".repeat(300));
    client.send(long.as_bytes());
    assert_eq!(client.read_to_end(), b"");
    let peer = client.local.to_string();
    server.logged(
        1,
        &[
            "ERROR",
            "poison: receive of",
            &peer,
            "2 workers",
            "318 bytes",
        ],
    );
    // A reactor publishes its counts at the end of a turn.
    eventually(SOON, "it is counted", || bystander.ask("poisoned") == "1");
    assert_eq!(server.log().with(&["abnormal exit"]).len(), 2);
    // Its first bytes on the same line, and not its end.
    let shown = format!(
        "the first 256 of its message's 318 bytes: \"die {}\"",
        "x".repeat(252)
    );
    server.logged(1, &["poison: receive of", &shown]);
    assert!(!server.log().text().contains("the-end"));
}
