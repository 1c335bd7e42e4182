//! Timers of the server, which belong to no connection.

use std::collections::HashSet;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::common::client::Client;
use crate::common::gates::Gates;
use crate::common::launch::Launch;
use crate::common::{SOON, eventually, keeps};

#[test]
fn a_timer_fires_in_one_worker_or_in_each() {
    for options in [&["reactors=1"][..], &["reactors=2", "dispatch=least-busy"]] {
        let server = Launch::testbed("script", "process")
            .and(&["workers=3", "task-workers=1"])
            .and(options)
            .start();
        // With two reactors, clients of both.
        for _ in 0..3 {
            let mut client = Client::connect(server.address());
            let begin = Instant::now();
            assert_eq!(client.ask("tick-after 50 one"), "Ok(())");
            assert!(client.read_line().starts_with("tick in "));
            assert!(begin.elapsed() >= Duration::from_millis(50));
            assert_eq!(client.ask("tick-after 1 each"), "Ok(())");
            let seats: HashSet<String> = (0..3).map(|_| client.read_line()).collect();
            let all = (0..3).map(|seat| format!("tick in {seat} attempt 0"));
            assert_eq!(seats, all.collect(), "{options:?}");
            assert_eq!(client.ask("tick-every 20 one"), "Ok(())");
            (0..3).for_each(|_| assert!(client.read_line().starts_with("tick in ")));
            client.send(b"tick-cancel\n");
            while client.read_line() != "Ok(())" {}
            // One may have been on its way, also behind this.
            client.send(b"echo here\n");
            let late = (0..3).find(|_| client.read_line() == "echo here");
            assert!(late.is_some_and(|before| before <= 1), "{late:?}");
            thread::sleep(Duration::from_millis(20));
            if late == Some(0) && client.has_news() {
                client.read_line();
            }
            let quiet = || !client.has_news();
            keeps(Duration::from_millis(60), "no timer fires", quiet);
        }
    }
}

#[test]
fn setting_a_timer_again_changes_nothing_whatever_worker_does_it() {
    let server = Launch::testbed("script", "process").start();
    let mut client = Client::connect(server.address());
    let begin = Instant::now();
    assert_eq!(client.ask("tick-every 300 one"), "Ok(())");
    while !client.has_news() {
        client.send(b"tick-every 300 one\n");
        let line = client.read_line();
        if line != "Ok(())" {
            assert!(line.starts_with("tick in "), "{line}");
            break;
        }
    }
    assert!(begin.elapsed() >= Duration::from_millis(300));
    assert!(begin.elapsed() < Duration::from_secs(30), "it fires at all");
}

#[test]
fn a_timer_runs_again_after_a_death_and_survives_reloads() {
    let server = Launch::testbed("script", "process")
        .and(&["tick=die", "post-attempts=9"])
        .start();
    let mut client = Client::connect(server.address());
    assert_eq!(client.ask("tick-after 1 one"), "Ok(())");
    assert!(client.read_line().ends_with("attempt 1"));
    drop(server);
    let server = Launch::testbed("script", "process").start();
    let mut client = Client::connect(server.address());
    assert_eq!(client.ask("tick-every 50 each"), "Ok(())");
    let old = server.workers();
    server.signal(Signal::SIGUSR1);
    server.new_workers(2, &old);
    let mut seats = HashSet::new();
    eventually(SOON, "both new workers have ticked", || {
        seats.insert(client.read_line());
        seats.len() == 2
    });
}

#[test]
fn a_server_can_have_timers_from_its_start_and_refuses_a_flood() {
    for mode in ["process", "base"] {
        let gates = Gates::new();
        let server = Launch::testbed("script", mode)
            .and(&[
                "workers=2",
                "every=20",
                "memory-budget=60000000",
                &gates.flag(),
            ])
            .start();
        for seat in 0..2 {
            eventually(SOON, "each worker ticks, again and again", || {
                gates.is_heard() && {
                    let (heard, tick) = (gates.heard(), format!("tick {seat}"));
                    heard.lines().filter(|line| *line == tick).count() > 2
                }
            });
        }
        let mut client = Client::connect(server.address());
        let each = client.ask("tick-after 0 each");
        match mode {
            "process" => assert_eq!(each, "Ok(())"),
            _ => assert_eq!(each, "Err(OtherWorker)"),
        }
        while client.has_news() {
            client.read_line();
        }
        let mut flood = Client::connect(server.address());
        let refused = flood.ask("tick-flood 200000");
        assert!(refused.starts_with("Err(Full"), "{mode}: {refused}");
        assert!(!server.log().text().contains("broke the ring"), "{mode}");
        assert_eq!(flood.ask("echo here"), "echo here");
    }
}
