//! The state, the user and the message numbers of connections: the next callback finds them, wherever it runs.

use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::common::client::Client;
use crate::common::launch::Launch;
use crate::common::process::Process;
use crate::common::server::Server;
use crate::common::{SOON, eventually};

const MODES: [&str; 2] = ["process", "base"];

/// Returns the answer to the push of message `number` that makes this the state.
fn pushed(number: usize, words: &[&str]) -> String {
    let state: String = words.iter().map(|word| format!("{word},")).collect();
    format!("{number} {state}")
}

/// Replaces every worker, and waits until the old ones are gone.
#[track_caller]
fn replace(server: &Server) {
    let old = server.workers();
    server.signal(Signal::SIGUSR1);
    server.new_workers(old.len(), &old);
    for worker in old {
        eventually(SOON, "the old worker is reaped", || worker.is_reaped());
    }
}

#[test]
fn a_callback_finds_the_state_that_the_last_one_has_left() {
    for mode in MODES {
        let server = Launch::testbed("script", mode).start();
        let mut client = Client::connect(server.address());
        let mut other = Client::connect(server.address());
        assert_eq!(client.ask("push a"), pushed(0, &["a"]));
        assert_eq!(other.ask("push x"), pushed(0, &["x"]), "{mode}");
        assert_eq!(client.ask("push b"), pushed(1, &["a", "b"]));
        assert_eq!(client.ask("clear"), "cleared");
        assert_eq!(client.ask("measure"), "0");
        assert_eq!(client.ask("push c"), pushed(4, &["c"]), "{mode}");
        assert_eq!(other.ask("number"), "Some(1)");
        assert_eq!(client.ask("who"), "None");
        assert_eq!(client.ask("user 77"), "user set");
        assert_eq!(client.ask("who"), "Some(77)", "{mode}");
        assert_eq!(other.ask("who"), "None");
        // Output is committed in two parts, and the state with each.
        client.send(b"push-flush-push d\n");
        assert_eq!(client.read_line(), pushed(8, &["c", "d"]));
        assert_eq!(client.read_line(), pushed(8, &["c", "d", "d"]), "{mode}");
        assert_eq!(client.ask("push e"), pushed(9, &["c", "d", "d", "e"]));
    }
}

#[test]
fn messages_that_arrive_together_find_the_state_of_the_ones_before() {
    for mode in MODES {
        let server = Launch::testbed("script", mode).and(&["workers=3"]).start();
        let mut clients: Vec<Client> = (0..20).map(|_| Client::connect(server.address())).collect();
        let words: Vec<String> = (0..200).map(|number| format!("w{number}")).collect();
        let lines: String = words.iter().map(|word| format!("push {word}\n")).collect();
        for client in &mut clients {
            client.send(lines.as_bytes());
        }
        for client in &mut clients {
            let mut state = String::new();
            for (number, word) in words.iter().enumerate() {
                state.push_str(&format!("{word},"));
                assert_eq!(client.read_line(), format!("{number} {state}"), "{mode}");
            }
        }
    }
}

#[test]
fn a_callback_that_fails_leaves_the_state_as_it_was() {
    let server = Launch::testbed("redeliver", "process").start();
    let mut client = Client::connect(server.address());
    client.ask("push a");
    let pid = client.ask_number("pid");
    assert_eq!(
        client.ask("push-and-die-once b"),
        pushed(2, &["a", "b"]),
        "the second attempt has the number and the state of the first"
    );
    assert_ne!(client.ask_number("pid"), pid);
    client.send(b"push c\nfail-once\npush d\n");
    assert_eq!(client.read_line(), pushed(4, &["a", "b", "c"]));
    assert_eq!(client.read_line(), "recovered 1");
    assert_eq!(client.read_line(), pushed(6, &["a", "b", "c", "d"]));
    // After three attempts the connection is closed, and its words with it.
    client.send(b"push-and-fail e\n");
    assert_eq!(client.read_to_end(), b"");
    let mut other = Client::connect(server.address());
    assert_eq!(other.ask("push x"), pushed(0, &["x"]));
}

#[test]
fn a_state_is_there_after_the_death_and_the_replacement_of_its_worker() {
    for mode in MODES {
        let server = Launch::testbed("redeliver", mode);
        let server = match mode {
            "base" => Launch::testbed("script", mode).and(&["shutdown-deadline=60"]),
            _ => server,
        };
        let server = server.start();
        let mut client = Client::connect(server.address());
        client.ask("user 5");
        let mut words = Vec::new();
        for (round, word) in ["a", "b", "c", "d"].into_iter().enumerate() {
            words.push(word);
            assert_eq!(
                client.ask(&format!("push {word}")),
                pushed(1 + 3 * round, &words)
            );
            let pid = client.ask_number("pid");
            if mode == "process" && round % 2 == 0 {
                let worker = Process::find(pid).expect("it runs");
                worker.signal(Signal::SIGKILL);
                eventually(SOON, "the killed worker is reaped", || worker.is_reaped());
            } else {
                replace(&server);
            }
            assert_eq!(client.ask("who"), "Some(5)", "{mode}");
        }
        assert_ne!(client.ask("pid"), "", "{mode}");
        assert_eq!(client.ask("push e"), pushed(14, &["a", "b", "c", "d", "e"]));
    }
}

#[test]
fn a_long_state_goes_along_and_a_longer_one_is_refused() {
    for mode in MODES {
        let server = Launch::testbed("script", mode)
            .and(&["shutdown-deadline=60"])
            .start();
        let mut client = Client::connect(server.address());
        let refused = client.ask("grow 65537");
        assert!(refused.contains("TooLong"), "{mode}: {refused}");
        assert_eq!(client.ask("measure"), "0");
        assert_eq!(client.ask("grow 65536"), "Ok(())");
        assert_eq!(client.ask("measure"), "65536", "{mode}");
        replace(&server);
        assert_eq!(client.ask("measure"), "65536", "{mode}");
        client.send("measure\n".repeat(300).as_bytes());
        for _ in 0..300 {
            assert_eq!(client.read_line(), "65536", "{mode}");
        }
    }
}

/// How long workers are killed.
const KILLING: Duration = Duration::from_secs(4);

#[test]
fn states_are_right_while_workers_are_killed_at_any_instruction() {
    for options in [
        &["workers=2"][..],
        &["workers=3", "reactors=2", "dispatch=least-busy"],
    ] {
        let server = Launch::testbed("script", "process")
            .and(&["on-crash=redeliver=50"])
            .and(options)
            .start();
        let address = server.address();
        let begin = Instant::now();
        let clients: Vec<_> = (0..8)
            .map(|_| thread::spawn(move || push_until(address, begin + KILLING)))
            .collect();
        server.kill_workers_under(clients, 100, || begin.elapsed() < KILLING);
    }
}

/// Pushes words, several at a time, and checks that each finds the ones before. Returns how many.
fn push_until(server: std::net::SocketAddr, end: Instant) -> usize {
    let mut client = Client::connect(server);
    let mut number = 0;
    while Instant::now() < end {
        // States begin anew now and then, and are short.
        client.send(b"clear\n");
        assert_eq!(client.read_line(), "cleared");
        number += 1;
        let words: Vec<String> = (number..number + 5).map(|word| word.to_string()).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let lines: String = words.iter().map(|word| format!("push {word}\n")).collect();
        client.send(lines.as_bytes());
        for so_far in 1..=words.len() {
            assert_eq!(client.read_line(), pushed(number, &words[..so_far]));
            number += 1;
        }
    }
    number
}
