//! Peers that are silent, slow or gone: each deadline in each mode, and the limit for each client address.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::common::client::Client;
use crate::common::gates::Gates;
use crate::common::launch::Launch;
use crate::common::server::Server;
use crate::common::{SOON, eventually, keeps};

const MODES: [&str; 2] = ["process", "base"];

/// A server that carries out commands in lines, with these options.
fn script(mode: &str, options: &[&str]) -> Server {
    Launch::testbed("script", mode).and(options).start()
}

/// Waits for the end of a connection with these bytes. Returns how long that took.
#[track_caller]
fn ends_with(client: &mut Client, bytes: &[u8]) -> Duration {
    let begin = Instant::now();
    assert_eq!(
        String::from_utf8_lossy(&client.read_to_end()),
        String::from_utf8_lossy(bytes)
    );
    begin.elapsed()
}

#[track_caller]
fn takes(time: Duration, deadline: f64) {
    let seconds = time.as_secs_f64();
    // How much later depends on the machine.
    assert!(seconds >= deadline - 0.01, "{seconds} s of {deadline} s");
}

#[test]
fn a_silent_client_is_closed_with_its_own_reason() {
    for mode in MODES {
        for (option, reason) in [("open=0.5", "OpenDeadline"), ("idle=0.5", "IdleDeadline")] {
            let server = script(mode, &[option]);
            let mut client = Client::connect(server.address());
            takes(ends_with(&mut client, b""), 0.5);
            server.logged(1, &["close of", &format!("reason={reason}")]);
            server.logged(1, &["INFO", "ended at the", "deadline of listener"]);
            drop(client);
            eventually(SOON, "no connection is left", || {
                // The one that asks. How many have asked before depends on the machine.
                let stats = Client::connect(server.address()).ask("stats");
                stats.starts_with("1 ")
            });
        }
    }
}

#[test]
fn a_client_that_speaks_in_time_stays() {
    for mode in MODES {
        let server = script(mode, &["open=1", "idle=1", "workers=1"]);
        let mut client = Client::connect(server.address());
        keeps(Duration::from_secs(3), "it is answered", || {
            client.ask("peer") == client.local.to_string()
        });
        let silent = Instant::now();
        ends_with(&mut client, b"");
        takes(silent.elapsed(), 0.9);
    }
}

#[test]
fn silent_clients_do_not_fill_a_server_for_good() {
    for mode in MODES {
        let flags = [
            "--mode",
            mode,
            "--workers",
            "1",
            "--max-connections",
            "20",
            "--idle",
            "1",
        ];
        let server = Launch::serve(&flags).start();
        let silent: Vec<Client> = (0..20)
            .map(|_| {
                let mut client = Client::connect(server.address());
                client.echo(b"hello");
                client
            })
            .collect();
        let mut late = Client::connect(server.address());
        late.echo(b"served");
        drop(silent);
    }
}

#[test]
fn the_idle_callback_may_ping_or_close() {
    for mode in MODES {
        let server = script(mode, &["idle=0.3", "on-idle=ping"]);
        let mut client = Client::connect(server.address());
        for _ in 0..3 {
            assert_eq!(client.read_line(), "ping");
        }
        assert_eq!(client.ask("peer"), client.local.to_string());
        let server = script(mode, &["idle=0.3", "on-idle=close"]);
        let mut client = Client::connect(server.address());
        ends_with(&mut client, b"");
        server.logged(1, &["close of", "reason=Handler"]);
    }
}

#[test]
fn a_message_that_drips_is_closed_and_others_are_served() {
    for mode in MODES {
        let server = script(mode, &["message=1", "workers=1"]);
        let mut slow = Client::connect(server.address());
        let mut other = Client::connect(server.address());
        slow.send(b"pe");
        let begin = Instant::now();
        while slow.try_send(b"e").is_ok() && !slow.has_news() {
            assert_eq!(other.ask("peer"), other.local.to_string());
            std::thread::sleep(Duration::from_millis(20));
            assert!(begin.elapsed() < SOON, "it is still open");
        }
        takes(begin.elapsed(), 1.0);
        slow.expect_closed();
        server.logged(1, &["close of", "reason=MessageDeadline"]);
        assert_eq!(other.ask("peer"), other.local.to_string());
    }
}

#[test]
fn a_reader_that_takes_nothing_is_reset_and_one_that_is_slow_is_not() {
    for mode in MODES {
        let server = script(mode, &["write=1", "workers=1"]);
        let mut stalled = Client::connect_narrow(server.address());
        let mut slow = Client::connect_narrow(server.address());
        for client in [&mut stalled, &mut slow] {
            client.send(b"big 8000000\n");
        }
        let mut buffer = vec![0; 4 << 10];
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(3) {
            assert!(slow.try_read(&mut buffer).expect("it takes bytes") > 0);
            std::thread::sleep(Duration::from_millis(20));
        }
        server.logged(1, &["close of", "reason=WriteDeadline"]);
        let error = loop {
            match stalled.try_read(&mut buffer) {
                Ok(0) => panic!("an answer that is cut looks whole"),
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert!(slow.try_read(&mut buffer).expect("it is open") > 0);
    }
}

#[test]
fn a_message_that_no_worker_begins_gets_the_policys_reply() {
    let gates = Gates::new();
    let options = ["workers=1", "queue=1", "on-crash=ask", &gates.flag()];
    let server = script("process", &options);
    let mut stuck = Client::connect(server.address());
    stuck.send(b"wait gate\n");
    stuck.wait_until_read();
    let mut late = Client::connect(server.address());
    late.send(b"echo\n");
    takes(
        ends_with(&mut late, b"(Connect, 0, false, \"\") is late\n"),
        0.9,
    );
    gates.open("gate");
    assert!(stuck.read_line().starts_with("waited"));
    drop(late);
    let mut client = Client::connect(server.address());
    eventually(SOON, "the late one is gone", || {
        client.ask("stats") == "2 3"
    });
    let connects = gates.heard().matches("connect of").count();
    assert_eq!(connects, 2, "no callback of the late one has run");
    server.logged(1, &["ended at the queue deadline"]);
}

#[test]
fn every_late_client_of_a_stuck_worker_gets_its_reply_and_the_callback_under_way_its_answer() {
    let gates = Gates::new();
    let options = [
        "workers=1",
        "queue=1",
        "on-crash=reply=late\\n",
        &gates.flag(),
    ];
    let server = script("process", &options);
    let mut clients: Vec<Client> = (0..50).map(|_| Client::connect(server.address())).collect();
    for client in &mut clients {
        assert_eq!(client.ask("peer"), client.local.to_string());
    }
    // Its second message waits behind its first, whose callback is under way.
    let mut stuck = Client::connect(server.address());
    stuck.send(b"wait gate\npeer\n");
    stuck.wait_until_read();
    for client in &mut clients {
        client.send(b"echo 1\necho 2\n");
    }
    for client in &mut clients {
        ends_with(client, b"late\n");
    }
    assert!(!stuck.has_news());
    gates.open("gate");
    assert!(stuck.read_line().starts_with("waited"));
    ends_with(&mut stuck, b"late\n");
    server.logged(51, &["close of", "reason=QueueDeadline"]);
}

#[test]
fn clients_behind_a_full_inbox_get_their_reply_too() {
    let gates = Gates::new();
    let options = [
        "workers=1",
        "queue=1",
        "on-crash=reply=late\\n",
        &gates.flag(),
    ];
    let server = script("process", &options);
    let mut stuck = Client::connect(server.address());
    stuck.send(b"wait gate\n");
    stuck.wait_until_read();
    let mut clients: Vec<Client> = (0..8).map(|_| Client::connect(server.address())).collect();
    let message = [vec![b'x'; 4 << 20], b"\n".to_vec()].concat();
    let senders: Vec<_> = clients
        .iter()
        .map(|client| {
            let (mut client, message) = (client.handle(), message.clone());
            // It may be closed before it has sent everything.
            std::thread::spawn(move || client.try_send(&message).is_ok())
        })
        .collect();
    for client in &mut clients {
        ends_with(client, b"late\n");
    }
    for sender in senders {
        sender.join().expect("it does not panic");
    }
    gates.open("gate");
    assert!(stuck.read_line().starts_with("waited"));
}

#[test]
fn a_worker_that_is_in_time_loses_nothing_to_the_queue_deadline() {
    let options = ["workers=2", "queue=0.5", "on-crash=reply=late\\n"];
    let server = script("process", &options);
    let mut client = Client::connect(server.address());
    for _ in 0..4 {
        // Each waits behind those before it, and the last for longer than the deadline would allow.
        for number in 0..8 {
            client.send(format!("span {number} 50000\n").as_bytes());
        }
        for number in 0..8 {
            let line = client.read_line();
            assert!(line.starts_with(&format!("{number} ")), "{line}");
        }
    }
}

#[test]
fn an_address_has_its_number_of_connections_over_all_reactors() {
    for (mode, options) in [
        ("process", ["per-address=5", "reactors=2"]),
        ("base", ["per-address=5", "workers=1"]),
    ] {
        let server = script(mode, &options);
        let open = || {
            let mut client = Client::try_connect(server.address()).ok()?;
            let is_open = client.try_send(b"peer\n").is_ok();
            let is_served = is_open && client.try_read(&mut [0; 100]).is_ok_and(|n| n > 0);
            is_served.then_some(client)
        };
        let mut clients: Vec<Client> = (0..5)
            .map(|_| open().expect("one of the first five"))
            .collect();
        for _ in 0..20 {
            assert!(open().is_none(), "a sixth");
        }
        let other = Client::try_connect_nth(server.address(), 7);
        let mut other = other.expect("another address");
        assert_eq!(other.ask("peer"), other.local.to_string());
        clients.pop();
        eventually(SOON, "a place is free again", || {
            open().map(|client| clients.push(client)).is_some()
        });
        assert!(open().is_none());
        server.logged(1, &["WARN", "refused", "max_connections_per_address"]);
    }
}

#[test]
fn a_server_that_was_stopped_takes_no_client_for_silent() {
    for mode in MODES {
        let server = script(mode, &["idle=1", "workers=1"]);
        let mut clients: Vec<Client> = (0..20).map(|_| Client::connect(server.address())).collect();
        for client in &mut clients {
            client.ask("peer");
        }
        let processes = server.processes();
        for process in &processes {
            process.signal(Signal::SIGSTOP);
        }
        std::thread::sleep(Duration::from_secs(3));
        for process in &processes {
            process.signal(Signal::SIGCONT);
        }
        for client in &mut clients {
            assert_eq!(client.ask("peer"), client.local.to_string());
        }
    }
}

#[test]
fn a_client_that_is_served_after_a_long_callback_was_heard_then() {
    for mode in MODES {
        let server = script(mode, &["idle=0.7", "workers=1"]);
        let (mut busy, mut other) = (
            Client::connect(server.address()),
            Client::connect(server.address()),
        );
        for client in [&mut busy, &mut other] {
            client.ask("peer");
        }
        // Longer than the deadline, and in the same turn of a worker in base mode.
        busy.send(b"span 1 900000\n");
        assert_eq!(other.ask("peer"), other.local.to_string());
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(other.ask("peer"), other.local.to_string());
    }
}
