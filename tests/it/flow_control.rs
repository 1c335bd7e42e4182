//! Long answers at the pace of their clients, and clients that a handler slows down.

use std::thread;
use std::time::{Duration, Instant};

use crate::common::client::Client;
use crate::common::launch::Launch;
use crate::common::{SOON, eventually, keeps};

const MODES: [&str; 2] = ["process", "base"];

/// More than the output limit of the server, and than the kernel's buffers.
const LONG: usize = 48 << 20;

/// Reads a stream of this length and checks each byte.
#[track_caller]
fn read_stream(client: &mut Client, len: usize) {
    let mut buffer = vec![0; 1 << 20];
    let mut left = len;
    while left > 0 {
        let most = buffer.len().min(left);
        let read = client.try_read(&mut buffer[..most]).expect("more bytes");
        assert_ne!(read, 0, "an end with {left} bytes left");
        for byte in &buffer[..read] {
            assert_eq!(
                *byte,
                b'0' + (left % 10) as u8,
                "{left} bytes before the end"
            );
            left -= 1;
        }
    }
    assert_eq!(client.read_line(), "");
}

#[test]
fn an_answer_of_any_length_is_streamed() {
    for mode in MODES {
        let server = Launch::testbed("script", mode)
            .and(&["output-limit=300000"])
            .start();
        let mut client = Client::connect(server.address());
        let mut other = Client::connect(server.address());
        client.send(format!("stream {LONG}\n").as_bytes());
        eventually(SOON, "the client has bytes", || client.has_news());
        // It does not read: the server waits for it, and serves others.
        keeps(Duration::from_millis(300), "others are served", || {
            other.ask("echo here") == "echo here"
        });
        read_stream(&mut client, LONG);
        assert_eq!(client.ask("echo after"), "echo after", "{mode}");
        let log = server.log();
        assert!(log.with(&["is reset"]).is_empty(), "{mode}: {}", log.text());
    }
}

#[test]
fn a_stream_goes_on_when_its_workers_are_killed() {
    let server = Launch::testbed("script", "process")
        .and(&["on-crash=redeliver=50", "output-limit=300000"])
        .start();
    let address = server.address();
    let reader = thread::spawn(move || {
        let mut client = Client::connect(address);
        client.send(format!("stream {LONG}\n").as_bytes());
        read_stream(&mut client, LONG);
    });
    let begin = Instant::now();
    let kills = server.kill_workers(Duration::from_millis(20), || {
        !reader.is_finished() && begin.elapsed() < SOON
    });
    reader.join().expect("the stream is whole");
    eprintln!("{kills} kills");
    assert!(kills > 0);
}

#[test]
fn a_connection_that_is_held_is_not_read_for_that_time() {
    for mode in MODES {
        let server = Launch::testbed("script", mode).start();
        let mut client = Client::connect(server.address());
        let mut other = Client::connect(server.address());
        assert_eq!(client.ask("hold 300"), "held");
        client.send(b"echo now\n");
        assert_eq!(other.ask("echo here"), "echo here");
        assert_eq!(
            client.read_line(),
            "fired 600 attempt 0",
            "{mode}: it was not read before"
        );
        assert_eq!(client.read_line(), "echo now", "{mode}");
        // The end of its client is noticed meanwhile.
        assert_eq!(client.ask("hold 3600000"), "held");
        client.half_close();
        assert_eq!(client.read_to_end(), b"", "{mode}");
    }
}
