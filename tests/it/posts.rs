//! What callbacks post to other workers.

use std::collections::HashSet;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::client::Client;
use crate::common::gates::Gates;
use crate::common::launch::Launch;
use crate::common::server::Server;
use crate::common::{SOON, eventually};

#[test]
fn a_post_reaches_the_workers_that_it_is_for() {
    for options in [&["reactors=1"][..], &["reactors=2", "dispatch=least-busy"]] {
        let server = Launch::testbed("script", "process")
            .and(&["workers=3"])
            .and(options)
            .start();
        let mut client = Client::connect(server.address());
        for seat in 0..3 {
            assert_eq!(client.ask(&format!("post-seat {seat} a")), "Ok(())");
            assert_eq!(client.read_line(), format!("posted a in {seat} attempt 0"));
        }
        assert_eq!(client.ask("post-seat 3 a"), "Err(NoSeat { seats: 3 })");
        assert_eq!(client.ask("post-all b"), "Ok(())");
        let all: HashSet<String> = (0..3).map(|_| client.read_line()).collect();
        let expected = (0..3).map(|seat| format!("posted b in {seat} attempt 0"));
        assert_eq!(all, expected.collect(), "{options:?}");
        assert_eq!(client.ask("post-any c"), "Ok(())");
        assert!(client.read_line().starts_with("posted c in "));
        // The one that runs the callbacks of a connection.
        let mut other = Client::connect(server.address());
        let (id, seat) = (other.ask("id"), other.ask("seat"));
        assert_eq!(client.ask(&format!("post-owner {id} d")), "Ok(())");
        let line = client.read_line();
        assert!(line.starts_with("posted d in "), "{line}");
        if options.len() == 1 {
            assert_eq!(line, format!("posted d in {seat} attempt 0"));
        }
        let long = "x".repeat(70_000);
        assert!(client.ask(&format!("post-any {long}")).contains("TooLong"));
    }
}

#[test]
fn posts_of_one_connection_to_one_seat_keep_their_order() {
    for mode in ["process", "base"] {
        let server = Launch::testbed("script", mode).start();
        let mut client = Client::connect(server.address());
        let seat = match mode {
            "base" => client.ask("seat"),
            _ => "1".to_owned(),
        };
        let lines: String = (0..500)
            .map(|number| format!("post-seat {seat} {number}\n"))
            .collect();
        client.send(lines.as_bytes());
        let mut next = 0;
        while next < 500 {
            let line = client.read_line();
            if line != "Ok(())" {
                assert_eq!(line, format!("posted {next} in {seat} attempt 0"), "{mode}");
                next += 1;
            }
        }
    }
}

#[test]
fn a_post_is_handled_again_after_a_death_and_given_up_after_its_attempts() {
    let server = Launch::testbed("script", "process")
        .and(&["on-crash=redeliver=9"])
        .start();
    let mut client = Client::connect(server.address());
    assert_eq!(client.ask("post-seat 1 die"), "Ok(())");
    assert_eq!(client.read_line(), "posted die in 1 attempt 1");
    assert_eq!(client.ask("post-seat 0 fail"), "Ok(())");
    assert_eq!(client.read_line(), "posted fail in 0 attempt 1");
    assert_eq!(client.ask("post-seat 1 poison"), "Ok(())");
    assert_eq!(client.ask("post-seat 1 after"), "Ok(())");
    assert_eq!(client.read_line(), "posted after in 1 attempt 0");
    let poison = server.logged(1, &["poison: post killed 3 workers"]);
    assert!(poison[0].contains("poison"), "{poison:?}");
    assert_eq!(client.ask("poisoned"), "1");
}

/// Starts a server with little room for posts, and two clients: the worker of the first, in seat 0, waits for the gate
/// `gate`; the second one is in seat 1.
#[track_caller]
pub(crate) fn with_a_blocked_worker(gates: &Gates) -> (Server, Client, Client) {
    let server = Launch::testbed("script", "process")
        .and(&["workers=2", "reactors=1", "memory-budget=60000000"])
        .and(&[&gates.flag()])
        .start();
    let [mut blocked, mut client] = [0, 1].map(|_| Client::connect(server.address()));
    if blocked.ask("seat") != "0" {
        std::mem::swap(&mut blocked, &mut client);
    }
    assert_eq!([blocked.ask("seat"), client.ask("seat")], ["0", "1"]);
    blocked.send(b"wait gate\n");
    eventually(SOON, "a worker is in its callback", || {
        let workers = server.workers();
        workers.iter().any(|it| it.is_asleep_in_a_callback())
    });
    (server, blocked, client)
}

#[test]
fn posts_wait_for_a_worker_that_is_blocked_and_a_flood_of_them_is_refused() {
    let gates = Gates::new();
    let (_server, mut blocked, mut client) = with_a_blocked_worker(&gates);
    assert_eq!(client.ask("post-seat 0 late"), "Ok(())");
    let mut refused = String::from("None");
    for _ in 0..20 {
        refused = client.ask("post-flood 10000");
        if refused != "None" {
            break;
        }
    }
    assert!(refused.starts_with("Some(Full"), "{refused}");
    assert_eq!(client.ask("echo here"), "echo here");
    gates.open("gate");
    assert!(blocked.read_line().starts_with("waited"));
    assert_eq!(client.read_line(), "posted late in 0 attempt 0");
    eventually(SOON, "there is room again", || {
        client.ask("post-flood 1") == "None"
    });
}

#[test]
fn each_post_takes_effect_once_while_workers_are_killed() {
    let server = Launch::testbed("script", "process")
        .and(&["on-crash=redeliver=50", "workers=3", "post-attempts=50"])
        .start();
    let address = server.address();
    let end = Instant::now() + Duration::from_secs(4);
    let clients: Vec<_> = (0..6)
        .map(|number| {
            thread::spawn(move || {
                let (mut client, mut rounds) = (Client::connect(address), 0);
                while Instant::now() < end {
                    let seat = (number + rounds) % 3;
                    client.send(format!("post-seat {seat} {rounds}\n").as_bytes());
                    let expected = format!("posted {rounds} in {seat} attempt ");
                    let lines = [client.read_line(), client.read_line()];
                    let is_answer = |line: &String| line == "Ok(())";
                    let is_post = |line: &String| line.starts_with(&expected);
                    assert!(
                        lines.iter().any(is_answer) && lines.iter().any(is_post),
                        "{lines:?}"
                    );
                    rounds += 1;
                }
                assert_eq!(client.ask("echo end"), "echo end", "nothing twice");
                rounds
            })
        })
        .collect();
    server.kill_workers_under(clients, 50, || Instant::now() < end);
}

#[test]
fn in_base_mode_clients_that_come_after_posts_are_served() {
    let server = Launch::testbed("script", "base")
        .and(&["workers=1"])
        .start();
    for _ in 0..5 {
        let mut client = Client::connect(server.address());
        assert_eq!(client.ask("echo here"), "echo here");
        for number in 0..3 {
            assert_eq!(client.ask(&format!("post-any {number}")), "Ok(())");
            let posted = client.read_line();
            assert!(
                posted.starts_with(&format!("posted {number} in 0")),
                "{posted}"
            );
        }
    }
}

#[test]
fn threads_of_the_master_post_to_workers() {
    let gates = Gates::new();
    let server = Launch::testbed("script", "process")
        .and(&[
            "workers=2",
            "reactors=2",
            "posts=1",
            "memory-budget=80000000",
            &gates.flag(),
        ])
        .start();
    let mut client = Client::connect(server.address());
    let id = client.ask("id");
    for seat in 0..2 {
        gates.order(&format!("{seat} {id} a"));
        assert_eq!(client.read_line(), format!("posted a in {seat} attempt 0"));
    }
    gates.order(&format!("all {id} b"));
    let all: HashSet<String> = (0..2).map(|_| client.read_line()).collect();
    let expected = (0..2).map(|seat| format!("posted b in {seat} attempt 0"));
    assert_eq!(all, expected.collect());
    gates.order(&format!("any {id} die"));
    assert!(
        client.read_line().ends_with("attempt 1"),
        "its worker has died in it"
    );
    gates.order("long");
    server.logged(1, &["order long: Err(Post(TooLong"]);
    gates.order(&format!("2 {id} c"));
    server.logged(1, &["order 2: Err(Post(NoSeat { seats: 2 }))"]);
    // A worker that is blocked: what is posted to it is bounded.
    let mut clients: Vec<Client> = (0..2).map(|_| Client::connect(server.address())).collect();
    for client in &mut clients {
        if client.ask("seat") == "0" {
            client.send(b"wait gate\n");
        }
    }
    gates.order("flood");
    server.logged(1, &["order flood: Err(Post(Full"]);
    assert_eq!(server.log().with(&["dropped"]), [""; 0]);
    gates.open("gate");
    eventually(SOON, "there is room again", || {
        // An order is obeyed if it is another one than the last.
        let others = server.log().with(&["order 2: "]).len();
        gates.order("2 between");
        server.logged(others + 1, &["order 2: "]);
        let orders = server.log().with(&["order 1: "]).len();
        gates.order(&format!("1 {id} d"));
        server.logged(orders + 1, &["order 1: "]);
        server.log().with(&["order 1: Ok"]).len() > 1
    });
    assert_eq!(client.read_line(), "posted d in 1 attempt 0");
}
