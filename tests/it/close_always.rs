//! `close` runs once for each connection, whichever worker dies, and once more if a worker has died in it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use procfs::net::TcpState;

use crate::common::client::Client;
use crate::common::gates::Gates;
use crate::common::launch::Launch;
use crate::common::server::Server;
use crate::common::sockets::of_server;
use crate::common::{SOON, eventually};

/// The testbed's script, with long deadlines unless a test sets others.
fn script(options: &[&str]) -> Server {
    Launch::testbed("script", "process")
        .and(options)
        .and(&["close-deadline=60"])
        .start()
}

/// A client, and the id of its connection in the log: the testbed logs it in `connect`.
#[track_caller]
fn connect_named(server: &Server) -> (Client, String) {
    let client = Client::connect(server.address());
    let words = ["connect of", &format!("from {}", client.local)];
    let line = server.logged(1, &words).pop().unwrap_or_default();
    let name = line.split_once(words[0]).map(|(_, rest)| rest.trim_start());
    let name = name.and_then(|rest| rest.split(' ').next());
    (client, name.expect("a name").to_owned())
}

/// Returns the log lines of the `close` callbacks of this connection, after its id.
fn closes_of(server: &Server, name: &str) -> Vec<String> {
    let words = format!("close of {name} reason");
    let lines = server.log().with(&[&words]);
    let rest = |line: &String| line.split_once(" reason=").map(|(_, rest)| rest.to_owned());
    lines.iter().filter_map(rest).collect()
}

/// Waits for these `close` callbacks of this connection, and checks that there are no others once every worker has served
/// another client, and that no connection is in CLOSE_WAIT.
#[track_caller]
fn closes_exactly(server: &Server, name: &str, expected: &[&str]) {
    eventually(SOON, format_args!("{expected:?} of {name}"), || {
        closes_of(server, name).len() >= expected.len()
    });
    let mut others: Vec<Client> = (0..8).map(|_| Client::connect(server.address())).collect();
    for other in &mut others {
        assert_eq!(other.ask("echo on"), "echo on");
    }
    assert_eq!(closes_of(server, name), expected);
    eventually(SOON, "no connection is in CLOSE_WAIT", || {
        let sockets = of_server(server.address());
        !sockets.iter().any(|it| it.state == TcpState::CloseWait)
    });
}

#[test]
fn close_runs_once_however_the_connection_ends() {
    let server = script(&[]);
    let (client, left) = connect_named(&server);
    drop(client);
    let (client, reset) = connect_named(&server);
    client.reset();
    let (mut client, failed) = connect_named(&server);
    client.send(b"fail\n");
    client.expect_closed();
    let (mut client, died) = connect_named(&server);
    client.send(b"die\n");
    client.expect_closed();
    for (name, reason) in [
        (left, "Peer"),
        (reset, "Broken"),
        (failed, "Crash"),
        (died, "Crash"),
    ] {
        closes_exactly(
            &server,
            &name,
            &[&format!("{reason} past_deadline=false retried=false")],
        );
    }
}

#[test]
fn close_runs_also_after_a_death_in_connect() {
    let server = script(&["connect=die"]);
    let (mut client, name) = connect_named(&server);
    client.expect_closed();
    server.logged(1, &["died in connect of", &name, "closed"]);
    server.logged(
        1,
        &[&format!(
            "close of {name} reason=Crash past_deadline=false retried=false"
        )],
    );
    let (mut other, _) = connect_named(&server);
    other.expect_closed();
    assert_eq!(closes_of(&server, &name).len(), 1);
}

#[test]
fn close_runs_a_second_time_after_a_death_in_it() {
    for policy in ["close", "redeliver=3", "reply=sorry"] {
        let server = script(&["close=die-once", &format!("on-crash={policy}")]);
        let (client, name) = connect_named(&server);
        drop(client);
        server.logged(1, &["died in close of", &name, "close runs again"]);
        let twice = [
            "Peer past_deadline=false retried=false",
            "Peer past_deadline=false retried=true",
        ];
        closes_exactly(&server, &name, &twice);
        assert!(server.log().with(&["poison"]).is_empty(), "{policy}");
    }
}

#[test]
fn a_socket_does_not_wait_for_the_second_close() {
    let gates = Gates::new();
    let server = script(&["workers=1", "close=die-once", &gates.flag()]);
    let (client, name) = connect_named(&server);
    gates.hold_starts();
    drop(client);
    // There is no worker, and its deadline is far.
    eventually(SOON, "its socket is gone", || {
        of_server(server.address()).is_empty()
    });
    assert_eq!(closes_of(&server, &name).len(), 1);
    gates.let_start();
    let twice = [
        "Peer past_deadline=false retried=false",
        "Peer past_deadline=false retried=true",
    ];
    closes_exactly(&server, &name, &twice);
}

#[test]
fn close_does_not_run_a_third_time() {
    let server = script(&["close=die"]);
    let mut bystander = Client::connect(server.address());
    assert_eq!(bystander.ask("poisoned"), "0");
    let (client, name) = connect_named(&server);
    drop(client);
    server.logged(1, &["died in close of", &name, "close does not run again"]);
    server.logged(1, &["poison: close of", &name, "2 workers"]);
    assert_eq!(bystander.ask("poisoned"), "1");
    let twice = [
        "Peer past_deadline=false retried=false",
        "Peer past_deadline=false retried=true",
    ];
    closes_exactly(&server, &name, &twice);
}

#[test]
fn with_keep_close_does_not_run_again() {
    let server = script(&["close=die-once", "on-crash=keep"]);
    let (client, name) = connect_named(&server);
    drop(client);
    server.logged(1, &["died in close of", &name, "the connection stays"]);
    let mut others: Vec<Client> = (0..8).map(|_| Client::connect(server.address())).collect();
    for other in &mut others {
        assert_eq!(other.ask("echo on"), "echo on");
    }
    assert_eq!(closes_of(&server, &name).len(), 1);
}

#[test]
fn a_death_in_another_callback_does_not_count_for_close() {
    let gates = Gates::new();
    let options = ["workers=1", "on-crash=redeliver=3", "paused=gate"];
    let server = script(&[&options[..], &[&gates.flag()]].concat());
    let (mut client, name) = connect_named(&server);
    client.send(b"big 8000000\n");
    server.logged(1, &["paused of", &name, "attempt=0"]);
    // Unsent output falls below the mark before the worker dies: the callback is not run again.
    client.expect(&vec![b'x'; 8_000_000]);
    gates.open("gate");
    server.logged(1, &["abnormal exit"]);
    assert_eq!(client.ask("attempt"), "0");
    assert_eq!(server.log().with(&["paused of"]).len(), 1);
    drop(client);
    closes_exactly(&server, &name, &["Peer past_deadline=false retried=false"]);
}

#[test]
fn close_runs_after_the_deadline_has_passed() {
    let gates = Gates::new();
    let server = script(&["workers=1", "close-deadline=0.2", &gates.flag()]);
    let mut blocker = Client::connect(server.address());
    assert_eq!(blocker.ask("echo on"), "echo on");
    let (client, name) = connect_named(&server);
    blocker.send(b"wait gate\n");
    eventually(SOON, "the worker is in its callback", || {
        server.workers()[0].is_asleep_in_a_callback()
    });
    drop(client);
    eventually(SOON, "the socket is closed without it", || {
        of_server(server.address()).len() == 1
    });
    assert!(closes_of(&server, &name).is_empty());
    gates.open("gate");
    closes_exactly(&server, &name, &["Peer past_deadline=true retried=false"]);
}

/// Connects and leaves in every possible way, until `enough` is set.
fn come_and_go(server: std::net::SocketAddr, enough: &AtomicBool) {
    for round in 0.. {
        thread::sleep(Duration::from_millis(5));
        if enough.load(Ordering::Relaxed) {
            return;
        }
        // The server closes it when a worker dies in one of its callbacks: every outcome is fine.
        let Ok(mut client) = Client::try_connect(server) else {
            continue;
        };
        let _ = client.try_send(b"echo on\n");
        let _ = client.try_read(&mut [0; 64]);
        match round % 4 {
            0 => drop(client),
            1 => client.reset(),
            2 => {
                client.half_close();
                let _ = client.try_read(&mut [0; 64]);
            }
            _ => {
                let _ = client.try_send(b"close\n");
                while client.try_read(&mut [0; 64]).is_ok_and(|read| read > 0) {}
            }
        }
    }
}

#[test]
fn every_connect_is_followed_by_one_close_or_a_second_after_a_death() {
    for policy in ["close", "redeliver=20"] {
        let gates = Gates::new();
        let on_crash = format!("on-crash={policy}");
        let server = script(&["standby=1", &on_crash, &gates.flag()]);
        let enough = AtomicBool::new(false);
        let address = server.address();
        thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| come_and_go(address, &enough));
            }
            for kill in 0..40 {
                thread::sleep(Duration::from_millis(20));
                let workers = server.workers();
                if let Some(worker) = workers.get(kill % workers.len().max(1)) {
                    worker.signal(Signal::SIGKILL);
                }
            }
            enough.store(true, Ordering::Relaxed);
        });
        eventually(SOON, "no socket is left", || of_server(address).is_empty());
        eventually(SOON, "`close` has run for every connection", || {
            let callbacks = callbacks(&gates.heard());
            callbacks.len() > 50 && callbacks.values().all(|them| them.last() != Some(&CONNECT))
        });
        for (name, callbacks) in callbacks(&gates.heard()) {
            let closes = callbacks.iter().filter(|it| **it != CONNECT);
            let closes: Vec<&str> = closes.map(String::as_str).collect();
            // The first worker may have died before it could write its line.
            let others_are_again = closes.iter().skip(1).all(|it| *it == "retried=true");
            assert!(
                !closes.is_empty() && others_are_again,
                "{policy}, {name}: {callbacks:?}"
            );
        }
    }
}

const CONNECT: String = String::new();

/// Returns the callbacks of each connection, in order: empty for `connect`, and whether it was run again for `close`.
fn callbacks(heard: &str) -> HashMap<String, Vec<String>> {
    let mut callbacks: HashMap<String, Vec<String>> = HashMap::new();
    for line in heard.lines() {
        let (_, name) = line.split_once(" of ").expect("connect or close of");
        let (name, again) = name.split_once(' ').unwrap_or((name, ""));
        callbacks
            .entry(name.to_owned())
            .or_default()
            .push(again.to_owned());
    }
    callbacks
}

#[test]
fn close_does_not_run_again_once_it_has_flushed() {
    let server = Launch::testbed("script", "process")
        .and(&["workers=1", "close=tell-and-die"])
        .start();
    let mut other = Client::connect(server.address());
    other.echo(b"echo here\n");
    let mut client = Client::connect(server.address());
    client.echo(b"echo going\n");
    client.half_close();
    assert_eq!(client.read_to_end(), b"");
    assert_eq!(other.read_line(), "left");
    server.logged(1, &["close does not run again", "flushed"]);
    // A second "left" would come before it.
    other.echo(b"echo alone\n");
}
