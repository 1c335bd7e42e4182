//! What threads of a worker post.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::common::client::Client;
use crate::common::gates::Gates;
use crate::common::launch::Launch;
use crate::common::{SOON, eventually};
use crate::posts::with_a_blocked_worker;

/// Returns the text of a post that has arrived; `None` for the answer of the callback whose thread has posted it.
fn posted(line: &str) -> Option<&str> {
    match line {
        "Ok(())" => None,
        line => Some(
            line.strip_prefix("posted ")
                .unwrap_or_else(|| panic!("{line}")),
        ),
    }
}

/// Asks for a post and waits for it. The answer of the callback and the callback of the post are in no order.
fn round_trip(client: &mut Client, command: &str) -> String {
    client.send(format!("{command}\n").as_bytes());
    let lines = [client.read_line(), client.read_line()];
    let mut arrived = lines.iter().filter_map(|line| posted(line));
    let text = arrived.next().unwrap_or_else(|| panic!("{lines:?}"));
    assert_eq!(arrived.next(), None, "{lines:?}");
    text.to_owned()
}

#[test]
fn a_thread_posts_to_the_workers_that_it_is_for() {
    for options in [&["reactors=1"][..], &["reactors=2", "dispatch=least-busy"]] {
        let server = Launch::testbed("script", "process")
            .and(&["workers=3"])
            .and(options)
            .start();
        let mut client = Client::connect(server.address());
        for seat in 0..3 {
            let text = round_trip(&mut client, &format!("thread-seat {seat} a"));
            assert_eq!(text, format!("a in {seat} attempt 0"));
        }
        let mut other = Client::connect(server.address());
        let id = other.ask("id");
        let text = round_trip(&mut client, &format!("thread-owner {id} b"));
        assert!(text.starts_with("b in "), "{text}");
        assert!(round_trip(&mut client, "thread-any c").starts_with("c in "));
        client.send(b"thread-all d\n");
        let lines: Vec<String> = (0..4).map(|_| client.read_line()).collect();
        let all: HashSet<&str> = lines.iter().filter_map(|line| posted(line)).collect();
        let seats = ["d in 0 attempt 0", "d in 1 attempt 0", "d in 2 attempt 0"];
        assert_eq!(all, HashSet::from(seats), "{lines:?}");
        let refused = client.ask("thread-seat 3 e");
        assert_eq!(refused, "Err(NoSeat { seats: 3 })");
        assert_eq!(client.ask("thread-long"), "Err(TooLong { most: 65536 })");
        let text = round_trip(&mut client, "thread-seat 1 die");
        assert_eq!(text, "die in 1 attempt 1", "it is the master's by then");
    }
}

#[test]
fn in_base_mode_a_thread_posts_to_its_own_worker() {
    let server = Launch::testbed("script", "base")
        .and(&["workers=2"])
        .start();
    let mut client = Client::connect(server.address());
    let (seat, id) = (client.ask_number("seat"), client.ask("id"));
    let expected = |text| format!("{text} in {seat} attempt 0");
    let own = format!("thread-seat {seat} a");
    assert_eq!(round_trip(&mut client, &own), expected("a"));
    assert_eq!(round_trip(&mut client, "thread-any b"), expected("b"));
    let owner = format!("thread-owner {id} c");
    assert_eq!(round_trip(&mut client, &owner), expected("c"));
    let other = client.ask(&format!("thread-seat {} d", 1 - seat));
    assert_eq!(other, "Err(OtherWorker)");
    assert_eq!(client.ask("thread-all e"), "Err(OtherWorker)");
    // While the worker sleeps, and many at once.
    assert_eq!(client.ask(&format!("thread-count {seat} 20000")), "begun");
    for number in 0..20_000 {
        let expected = format!("{number} in {seat} attempt 0");
        assert_eq!(posted(&client.read_line()), Some(expected.as_str()));
    }
}

#[test]
fn posts_of_one_thread_to_one_seat_keep_their_order() {
    let server = Launch::testbed("script", "process")
        .and(&["reactors=2"])
        .start();
    let mut client = Client::connect(server.address());
    // The worker posts while its rings are in use, and while they are not.
    for round in 0..3 {
        assert_eq!(client.ask("thread-count 1 20000"), "begun", "{round}");
        for number in 0..20_000 {
            let expected = format!("{number} in 1 attempt 0");
            assert_eq!(posted(&client.read_line()), Some(expected.as_str()));
        }
        let big = "x".repeat(30_000);
        for _ in 0..20 {
            assert_eq!(client.ask(&format!("echo {big}")).len(), 30_005);
        }
    }
}

#[test]
fn a_flood_is_refused_and_what_was_taken_arrives() {
    let gates = Gates::new();
    let server = Launch::testbed("script", "process")
        .and(&["workers=1", "reactors=1", &gates.flag()])
        .start();
    let mut client = Client::connect(server.address());
    let answer = client.ask("thread-flood");
    let (taken, refused) = answer.split_once(' ').expect("two words");
    assert!(refused.starts_with("Full { posts: 4096"), "{answer}");
    assert!(taken.parse::<usize>().is_ok_and(|it| it > 900), "{answer}");
    // Its thread posts as it can, and the worker serves.
    assert_eq!(client.ask("thread-count 0 50000"), "begun");
    let mut other = Client::connect(server.address());
    assert_eq!(other.ask("echo here"), "echo here");
    for number in 0..50_000 {
        let expected = format!("{number} in 0 attempt 0");
        assert_eq!(posted(&client.read_line()), Some(expected.as_str()));
    }
    assert!(server.log().with(&["abnormal exit"]).is_empty());
}

#[test]
fn posts_wait_while_the_server_keeps_as_much_as_it_may() {
    let gates = Gates::new();
    let (_server, mut blocked, mut client) = with_a_blocked_worker(&gates);
    eventually(SOON, "no more is kept", || {
        client.ask("post-flood 10000").starts_with("Some(Full")
    });
    // It is taken, since others may leave room before it is published.
    let long = "x".repeat(2000);
    assert_eq!(client.ask(&format!("thread-seat 1 {long}")), "Ok(())");
    assert_eq!(client.ask("echo here"), "echo here");
    gates.open("gate");
    assert!(blocked.read_line().starts_with("waited"));
    assert_eq!(client.read_line(), format!("posted {long} in 1 attempt 0"));
}

#[test]
fn what_is_posted_when_a_worker_stops_reaches_the_next_one() {
    let server = Launch::testbed("script", "process")
        .and(&["workers=1"])
        .start();
    let mut client = Client::connect(server.address());
    let pid = client.ask("pid");
    assert_eq!(client.ask("post-at-stop bye"), "noted");
    server.signal(Signal::SIGUSR1);
    assert_eq!(client.read_line(), "posted bye in 0 attempt 0");
    assert_ne!(client.ask("pid"), pid);
}

#[test]
fn a_process_that_a_callback_forks_cannot_post() {
    for mode in ["process", "base"] {
        let server = Launch::testbed("script", mode).start();
        let mut client = Client::connect(server.address());
        let refused = client.ask("fork-and-post");
        assert!(
            refused.starts_with("Exited(") && refused.ends_with(", 7)"),
            "{refused}"
        );
        let text = round_trip(&mut client, "thread-any a");
        assert!(text.starts_with("a in "), "{text}");
    }
}

#[test]
fn no_post_takes_effect_twice_while_workers_are_killed() {
    let server = Launch::testbed("script", "process")
        .and(&["on-crash=redeliver=50", "workers=3", "reactors=2"])
        .and(&["post-attempts=50"])
        .start();
    let (address, end) = (server.address(), Instant::now() + Duration::from_secs(4));
    let clients: Vec<_> = (0..6)
        .map(|number| {
            thread::spawn(move || {
                let (mut client, mut rounds) = (Client::connect(address), 0);
                let mut seen = HashSet::new();
                while Instant::now() < end {
                    let seat = (number + rounds) % 3;
                    // A callback that is run again posts again: what it posts carries its attempt.
                    client.send(format!("thread-tell {seat} {rounds}\n").as_bytes());
                    loop {
                        let line = client.read_line();
                        match posted(&line) {
                            Some(text) => {
                                let words: Vec<&str> = text.split(' ').collect();
                                // Without the attempt of the post's own callback.
                                assert!(seen.insert(words[0].to_owned()), "twice: {text}");
                            }
                            None => break,
                        }
                    }
                    rounds += 1;
                }
                assert!(seen.len() * 2 > rounds, "{} of {rounds}", seen.len());
                rounds
            })
        })
        .collect();
    server.kill_workers_under(clients, 50, || Instant::now() < end);
}

#[test]
fn a_worker_that_leaves_publishes_what_its_threads_have_posted() {
    for mode in ["process", "base"] {
        let server = Launch::testbed("script", mode).start();
        let (address, stop) = (server.address(), AtomicBool::new(false));
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut client = Client::connect(address);
                    while !stop.load(Ordering::Relaxed) {
                        round_trip(&mut client, "thread-any a");
                    }
                });
            }
            for round in 1..=5 {
                server.signal(Signal::SIGUSR1);
                server.logged(round, &["reload finished"]);
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert!(server.log().with(&["abnormal exit"]).is_empty(), "{mode}");
    }
}
