//! Answers that are cut end with RST; answers that can be finished are not cut.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::common::SOON;
use crate::common::client::Client;
use crate::common::gates::Gates;
use crate::common::launch::Launch;
use crate::common::server::Server;

const MODES: [&str; 2] = ["process", "base"];

/// More than the kernel's buffers take.
const BIG: usize = 32 << 20;

fn script(mode: &str, options: &[&str]) -> Server {
    Launch::testbed("script", mode).and(options).start()
}

/// Reads the whole of an answer slowly: for 3 s, and sends a byte from time to time, which a socket that is closed answers with
/// RST.
#[track_caller]
fn read_slowly(client: &mut Client, len: usize) {
    let mut got = 0;
    let (begin, mut buffer) = (Instant::now(), vec![0; len / 60]);
    loop {
        match client.read_some(&mut buffer) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(error) => panic!("after {got} of {len} bytes: {error}"),
        }
        let _ = client.try_send(b"x");
        let due = begin + Duration::from_millis(50 * (got * 60 / len) as u64);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    assert_eq!(got, len);
}

#[test]
fn an_answer_is_not_cut_while_a_slow_client_reads_it() {
    let len = 2_500_000;
    for mode in MODES {
        for end in ["close", "half-close", "TERM"] {
            let server = script(mode, &[]);
            let mut client = Client::connect(server.address());
            let bye = match end {
                "close" => "bye\n",
                _ => "",
            };
            client.send(format!("big {len}\n").as_bytes());
            match end {
                "close" => client.send(b"close\n"),
                "half-close" => client.half_close(),
                _ => {
                    client.await_bytes();
                    server.signal(Signal::SIGTERM);
                }
            }
            read_slowly(&mut client, len + bye.len());
        }
    }
}

#[test]
fn an_answer_that_is_cut_at_the_close_deadline_ends_with_rst() {
    for mode in MODES {
        for end in ["close", "half-close"] {
            let options = ["close-deadline=1", "output-limit=67108864"];
            let server = script(mode, &options);
            let mut client = Client::connect(server.address());
            client.send(format!("big {BIG}\n").as_bytes());
            match end {
                "close" => client.send(b"close\n"),
                _ => client.half_close(),
            }
            let lines = server.logged(1, &["INFO", "is reset", "close_deadline", "are lost"]);
            let words: Vec<&str> = lines[0].split(' ').collect();
            let at = words
                .iter()
                .position(|word| *word == "bytes")
                .expect("bytes");
            let lost: usize = words[at - 1].parse().expect("a number of bytes");
            let got = client.read_until_reset().len();
            assert!(got + lost >= BIG, "{got} read, {lost} lost");
        }
    }
}

/// Less than the send buffer of a loopback connection takes, and more than the client's receive buffer.
const BUFFERED: usize = 1_000_000;

#[test]
fn an_answer_that_the_kernel_has_taken_is_cut_at_the_close_deadline_too() {
    for mode in MODES {
        let server = script(mode, &["close-deadline=1"]);
        let mut client = Client::connect(server.address());
        client.send(format!("big {BUFFERED}\n").as_bytes());
        client.half_close();
        server.logged(1, &["INFO", "is reset", "close_deadline", "are lost"]);
        assert!(client.read_until_reset().len() < BUFFERED, "{mode}");
    }
}

#[test]
fn an_answer_that_is_cut_by_a_shutdown_ends_with_rst() {
    for (mode, len) in [
        ("process", BIG),
        ("process", BUFFERED),
        ("base", BIG),
        ("base", BUFFERED),
    ] {
        let options = [
            "close-deadline=60",
            "shutdown-deadline=1",
            "output-limit=67108864",
        ];
        let server = script(mode, &options);
        let mut client = Client::connect(server.address());
        client.send(format!("big {len}\n").as_bytes());
        client.await_bytes();
        server.signal(Signal::SIGTERM);
        let mut server = server;
        server.ended(SOON);
        assert!(client.read_until_reset().len() < len, "{mode}: {len}");
    }
}

#[test]
fn what_came_before_refused_bytes_is_answered() {
    for mode in MODES {
        let server = script(mode, &["max-message=100", "close=say"]);
        let mut client = Client::connect(server.address());
        let mut bytes = b"echo one\necho two\n".to_vec();
        bytes.extend([b'x'; 200]);
        client.send(&bytes);
        let expected = "echo one\necho two\nclosed: Refused\n";
        assert_eq!(
            String::from_utf8_lossy(&client.read_to_end()),
            expected,
            "{mode}"
        );
    }
}

#[test]
fn a_callback_under_way_is_answered_although_refused_bytes_follow() {
    let gates = Gates::new();
    let server = script("process", &["max-message=100", "close=say", &gates.flag()]);
    let mut client = Client::connect(server.address());
    client.send(b"wait gate\n");
    client.send(&[b'x'; 200]);
    client.wait_until_read();
    gates.open("gate");
    assert!(client.read_line().starts_with("waited"));
    assert_eq!(client.read_to_end(), b"closed: Refused\n");
}

#[test]
fn close_can_send_or_is_told_that_it_can_not() {
    for mode in MODES {
        let server = script(mode, &["close=say"]);
        let address = server.address();
        let mut client = Client::connect(address);
        client.send(b"echo on\n");
        client.half_close();
        assert_eq!(client.read_to_end(), b"echo on\nclosed: Peer\n", "{mode}");
        for (command, answer, reason) in [("close", "bye\n", "Handler"), ("fail", "", "Crash")] {
            let mut client = Client::connect(address);
            client.send(format!("{command}\n").as_bytes());
            assert_eq!(client.read_to_end(), answer.as_bytes(), "{mode}: {command}");
            server.logged(1, &["said", reason, "Err(Closed)"]);
        }
        let mut client = Client::connect(address);
        assert_eq!(client.ask("echo on"), "echo on");
        server.signal(Signal::SIGTERM);
        assert_eq!(client.read_to_end(), b"closed: Shutdown\n", "{mode}");
    }
}

#[test]
fn a_client_that_does_not_read_takes_no_time_from_the_workers_at_a_shutdown() {
    for mode in MODES {
        let options = [
            "close-deadline=60",
            "shutdown-deadline=1",
            "output-limit=67108864",
        ];
        let mut server = script(mode, &options);
        let workers = server.workers();
        let mut client = Client::connect(server.address());
        client.send(format!("big {BIG}\n").as_bytes());
        client.await_bytes();
        server.signal(Signal::SIGTERM);
        assert!(server.ended(SOON).success(), "{mode}");
        server.logged(
            1,
            &[
                "the shutdown deadline has passed",
                "1 open connection is cut",
            ],
        );
        server.logged(workers.len(), &["stopped in order"]);
        assert!(
            server.whole_log().with(&["abnormal exit"]).is_empty(),
            "{mode}"
        );
        server.logged(1, &["close of", "reason=Shutdown"]);
    }
}

#[test]
fn each_answer_that_is_cut_at_the_end_has_a_line_or_is_counted() {
    const CLIENTS: usize = 14;
    for mode in MODES {
        let mut server = script(mode, &["workers=1", "shutdown-deadline=1"]);
        let mut clients: Vec<Client> = (0..CLIENTS)
            .map(|_| Client::connect_narrow(server.address()))
            .collect();
        for client in &mut clients {
            client.send(b"big 8000000\n");
            client.await_bytes();
        }
        server.signal(Signal::SIGTERM);
        assert!(server.ended(SOON).success(), "{mode}");
        let log = server.whole_log();
        let lines = log.with(&["bytes of output are lost"]);
        let more = |line: String| {
            let words = line
                .split_once("… and ")?
                .1
                .strip_suffix(" more answers cut")?;
            words.parse::<usize>().ok()
        };
        let counted: usize = log.lines().into_iter().filter_map(more).sum();
        assert_eq!(lines.len() + counted, CLIENTS, "{mode}: {}", log.text());
    }
}
