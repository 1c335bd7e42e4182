//! Answers that a later callback gives.

use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::common::client::Client;
use crate::common::launch::Launch;
use crate::common::server::Server;
use crate::common::{SOON, eventually};

const MODES: [&str; 2] = ["process", "base"];

fn script(mode: &str) -> Server {
    Launch::testbed("script", mode)
        .and(&["shutdown-deadline=60", "close-deadline=1"])
        .start()
}

#[test]
fn answers_are_in_the_order_of_their_messages() {
    for mode in MODES {
        let server = script(mode);
        let mut client = Client::connect(server.address());
        for command in ["later 30 500", "begin-later 500"] {
            // The messages behind it are with the worker already, or in the server, or come while the answer is due.
            client.send(format!("{command}\necho a\necho b\n").as_bytes());
            if command.starts_with("begin") {
                assert_eq!(client.read_line(), "begun", "{mode}");
            }
            client.send(b"echo c\n");
            for expected in ["fired 500 attempt 0", "echo a", "echo b", "echo c"] {
                assert_eq!(client.read_line(), expected, "{mode}: {command}");
            }
        }
        // Promises behind promises.
        client.send(b"later 30 501\nlater 10 502\necho d\n");
        for expected in ["fired 501 attempt 0", "fired 502 attempt 0", "echo d"] {
            assert_eq!(client.read_line(), expected, "{mode}");
        }
    }
}

#[test]
fn a_promise_that_no_callback_keeps_ends_in_its_reply() {
    for mode in MODES {
        let server = script(mode);
        let mut client = Client::connect(server.address());
        let begin = Instant::now();
        client.send(b"promise 200\necho never\n");
        assert_eq!(client.read_line(), "sorry", "{mode}");
        assert!(begin.elapsed() >= Duration::from_millis(200), "{mode}");
        assert_eq!(client.read_to_end(), b"", "{mode}: closed");
        server.logged(1, &["close of", "reason=AnswerDeadline"]);
        server.logged(1, &["ended at the answer deadline"]);
    }
}

#[test]
fn a_client_that_has_sent_its_fin_gets_its_late_answer() {
    for mode in MODES {
        let server = script(mode);
        let mut client = Client::connect(server.address());
        // Longer than the close deadline.
        client.send(b"later 2500 500\necho a\n");
        client.half_close();
        assert_eq!(client.read_line(), "fired 500 attempt 0", "{mode}");
        assert_eq!(client.read_line(), "echo a", "{mode}");
        assert_eq!(client.read_to_end(), b"", "{mode}");
        server.logged(1, &["close of", "reason=Peer"]);
    }
}

#[test]
fn a_server_that_stops_gives_the_answers_that_it_has_promised() {
    for mode in MODES {
        let mut server = script(mode);
        let mut client = Client::connect(server.address());
        client.ask("echo here");
        client.send(b"later 500 500\necho a\n");
        client.wait_until_read();
        server.signal(Signal::SIGTERM);
        assert_eq!(client.read_line(), "fired 500 attempt 0", "{mode}");
        assert_eq!(client.read_line(), "echo a", "{mode}");
        assert_eq!(client.read_to_end(), b"", "{mode}");
        assert!(server.ended(SOON).success(), "{mode}");
    }
}

#[test]
fn a_promise_outlives_the_workers() {
    for mode in MODES {
        let server = script(mode);
        let mut client = Client::connect(server.address());
        let pid = client.ask_number("pid");
        client.send(b"later 1500 500\npid\n");
        let old = server.workers();
        server.signal(Signal::SIGUSR1);
        server.new_workers(2, &old);
        for worker in old {
            eventually(SOON, "the old worker is reaped", || worker.is_reaped());
        }
        assert_eq!(client.read_line(), "fired 500 attempt 0", "{mode}");
        assert_ne!(client.read_line(), pid.to_string(), "{mode}");
    }
}

#[test]
fn each_client_has_its_late_answer_once_while_workers_are_killed() {
    let server = Launch::testbed("script", "process")
        .and(&["on-crash=redeliver=50", "workers=3"])
        .start();
    let address = server.address();
    let end = Instant::now() + Duration::from_secs(4);
    let clients: Vec<_> = (0..12)
        .map(|number| {
            thread::spawn(move || {
                let (mut client, mut rounds) = (Client::connect(address), 0);
                while Instant::now() < end {
                    let (time, tag) = (rounds % 20, 500 + number);
                    client.send(format!("later {time} {tag}\necho {rounds}\n").as_bytes());
                    let answer = client.read_line();
                    assert!(
                        answer.starts_with(&format!("fired {tag} attempt ")),
                        "{answer}"
                    );
                    assert_eq!(client.read_line(), format!("echo {rounds}"));
                    rounds += 1;
                }
                rounds
            })
        })
        .collect();
    server.kill_workers_under(clients, 100, || Instant::now() < end);
}
