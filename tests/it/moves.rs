//! Base mode: the connections of a worker that leaves go to other workers, as they are.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::common::client::Client;
use crate::common::gates::Gates;
use crate::common::launch::Launch;
use crate::common::process::Process;
use crate::common::server::Server;
use crate::common::sockets::of_server;
use crate::common::{SOON, eventually, keeps};

fn script(options: &[&str]) -> Server {
    Launch::testbed("script", "base")
        .and(&["shutdown-deadline=60"])
        .and(options)
        .start()
}

/// Replaces every worker, and waits until the old ones are gone.
#[track_caller]
fn replace(server: &Server, count: usize) {
    let old = server.workers();
    server.signal(Signal::SIGUSR1);
    server.new_workers(count, &old);
    for worker in old {
        eventually(SOON, "the old worker is reaped", || worker.is_reaped());
    }
}

#[track_caller]
fn is_orderly(server: &Server) {
    let log = server.log();
    assert!(log.with(&["abnormal exit"]).is_empty(), "{}", log.text());
    assert!(log.with(&["did not leave"]).is_empty(), "{}", log.text());
}

#[test]
fn a_connection_keeps_its_id_and_has_one_connect_and_one_close() {
    let server = script(&["workers=2"]);
    let mut client = Client::connect(server.address());
    let mut neighbour = Client::connect(server.address());
    let id = client.ask("id");
    for _ in 0..5 {
        let pid = client.ask("pid");
        replace(&server, 2);
        assert_ne!(client.ask("pid"), pid, "in a new worker");
        assert_eq!(client.ask("id"), id);
        // By its id, from its own callback.
        assert_eq!(client.ask(&format!("to {id} hello")), "hello");
        assert_eq!(client.read_line(), "Ok(())");
        let are_together = neighbour.ask("pid") == client.ask("pid");
        let answer = neighbour.ask(&format!("to {id} hello"));
        if are_together {
            assert_eq!((&answer[..], &client.read_line()[..]), ("Ok(())", "hello"));
        } else {
            assert!(answer.contains("OtherWorker"), "{answer}");
        }
    }
    let worker = Process::find(client.ask_number("pid")).expect("it runs");
    assert_eq!(server.log().with(&["connect of"]).len(), 2);
    assert!(server.log().with(&["close of"]).is_empty());
    client.half_close();
    assert_eq!(client.read_to_end(), b"");
    let closed = server.logged(1, &["close of"]);
    assert!(
        closed[0].contains(&format!("[{}]", worker.pid)),
        "{closed:?}"
    );
    is_orderly(&server);
}

#[test]
fn an_incomplete_message_moves() {
    let server = script(&["workers=1"]);
    let mut client = Client::connect(server.address());
    client.ask("pid");
    let text = "x".repeat(60_000);
    for len in [1, 5, 59_000] {
        let message = format!("echo {text}\n");
        let (first, rest) = message.split_at(len);
        client.send(first.as_bytes());
        client.wait_until_read();
        replace(&server, 1);
        client.send(rest.as_bytes());
        assert_eq!(client.read_line(), message.trim_end(), "{len}");
    }
    is_orderly(&server);
}

#[test]
fn idle_connections_all_move() {
    let server = script(&["workers=2", "shutdown-deadline=60"]);
    let mut clients: Vec<Client> = (0..300)
        .map(|_| Client::connect(server.address()))
        .collect();
    for client in &mut clients {
        client.ask("pid");
    }
    let manager = server.manager();
    let before = manager.sockets().len();
    for _ in 0..3 {
        // The deadline is a minute: none is served by an old worker until then.
        replace(&server, 2);
    }
    for client in &mut clients {
        client.ask("pid");
    }
    assert_eq!(
        manager.sockets().len(),
        before,
        "no descriptor stays behind"
    );
    assert_eq!(of_server(server.address()).len(), 300);
    is_orderly(&server);
}

#[test]
fn a_slow_reader_stays_until_it_has_its_answer() {
    let server = script(&["workers=1", "shutdown-deadline=60"]);
    let mut slow = Client::connect_narrow(server.address());
    let old = server.workers()[0];
    slow.send(b"big 3000000\n");
    slow.await_bytes();
    server.signal(Signal::SIGUSR1);
    eventually(SOON, "another worker has started", || {
        server.workers().len() == 2
    });
    keeps(Duration::from_millis(300), "the old one stays", || {
        old.is_running() && !old.is_reaped()
    });
    let mut answer = vec![0; 3_000_000];
    let mut filled = 0;
    while filled < answer.len() {
        filled += slow
            .try_read(&mut answer[filled..])
            .expect("the rest comes");
    }
    assert!(answer.iter().all(|byte| *byte == b'x'));
    assert_ne!(slow.ask_number("pid"), old.pid);
    eventually(SOON, "the old worker is reaped", || old.is_reaped());
    is_orderly(&server);
}

#[test]
fn connections_pass_by_a_worker_that_is_stuck() {
    let gates = Gates::new();
    let server = script(&["workers=3", &gates.flag()]);
    let mut stuck = Client::connect(server.address());
    let worker = Process::find(stuck.ask_number("pid")).expect("it runs");
    let mut clients: Vec<Client> = (0..60).map(|_| Client::connect(server.address())).collect();
    let mut old = Vec::new();
    for client in &mut clients {
        old.push(client.ask_number("pid"));
    }
    stuck.send(b"wait gate\n");
    eventually(SOON, "the worker is in its callback", || {
        worker.is_asleep_in_a_callback()
    });
    let leaves = server.workers();
    let leaves = leaves.iter().find(|it| **it != worker).expect("three");
    leaves.signal(Signal::SIGTERM);
    eventually(SOON, "it has left", || leaves.is_reaped());
    for (client, old) in clients.iter_mut().zip(old) {
        if old != worker.pid {
            let now = client.ask_number("pid");
            assert!(now != worker.pid && now != leaves.pid);
        }
    }
    gates.open("gate");
    assert_eq!(stuck.read_line(), format!("waited {}", worker.pid));
    is_orderly(&server);
}

#[test]
fn a_connection_whose_worker_has_forked_ends_for_its_client() {
    let server = script(&["workers=1"]);
    let mut client = Client::connect(server.address());
    assert_eq!(client.ask("fork"), "forked");
    replace(&server, 1);
    assert_eq!(client.ask("close"), "bye");
    client.expect_closed();
    is_orderly(&server);
}

#[test]
fn the_silence_of_a_client_counts_across_workers() {
    let server = script(&["workers=1", "idle=3"]);
    let mut client = Client::connect(server.address());
    client.ask("pid");
    let begin = std::time::Instant::now();
    while !client.has_news() {
        // Each worker has it for less than the deadline.
        replace(&server, 1);
        assert!(begin.elapsed() < SOON, "it is never closed");
    }
    assert_eq!(client.read_to_end(), b"");
    server.logged(1, &["ended at the idle deadline"]);
    assert!(begin.elapsed() >= Duration::from_millis(2900));
}
