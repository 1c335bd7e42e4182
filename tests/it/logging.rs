//! The log: what clients can make it say, and how often.

use std::time::Instant;

use crate::common::client::Client;
use crate::common::launch::Launch;
use crate::common::server::Server;
use crate::common::{SOON, eventually};

const MODES: [&str; 2] = ["process", "base"];

/// Has the log say `count` times what one call of `cause` does, and checks that it is said at most ten times in a second,
/// and that each one is counted.
#[track_caller]
fn floods(server: &Server, line: &str, rest: &str, count: usize, mut cause: impl FnMut()) {
    let begin = Instant::now();
    (0..count).for_each(|_| cause());
    let counted = || {
        let reports = server.log().with(&["… and ", rest]);
        let number = |line: &String| {
            let number = line.split("… and ").nth(1)?.split(' ').next()?;
            number.parse::<usize>().ok()
        };
        reports.iter().filter_map(number).sum::<usize>()
    };
    let written = || server.log().with(&[line]).len();
    eventually(SOON, format_args!("{count} times {line:?}"), || {
        written() + counted() == count
    });
    let seconds = usize::try_from(begin.elapsed().as_secs()).unwrap() + 1;
    assert!(written() <= 10 * seconds, "{}", server.log().text());
    assert!(counted() > 0, "there is a rest");
}

#[test]
fn a_flood_of_refusals_is_limited_and_counted() {
    for mode in MODES {
        let server = Launch::serve(&["--mode", mode, "--workers", "1"])
            .and(&["--protocol", "lines", "--max-message", "10"])
            .start();
        let words = "is closed: a message is longer";
        floods(&server, words, "more connections refused", 350, || {
            let mut client = Client::connect(server.address());
            client.send(b"more than ten bytes");
            client.expect_closed();
        });
    }
}

#[test]
fn a_flood_of_failed_callbacks_is_limited_and_counted() {
    for mode in MODES {
        let server = Launch::testbed("script", mode).and(&["workers=1"]).start();
        floods(
            &server,
            "failed: because",
            "more failed callbacks",
            100,
            || {
                let mut client = Client::connect(server.address());
                client.send(b"error because\n");
                client.expect_closed();
            },
        );
        if mode == "process" {
            let fates = "more callbacks that did not complete";
            assert!(!server.logged(1, &["INFO master", fates]).is_empty());
        }
    }
}

#[test]
fn text_of_a_client_neither_begins_a_line_nor_controls_a_terminal() {
    for mode in MODES {
        let server = Launch::testbed("script", mode).and(&["workers=1"]).start();
        for command in ["error", "panic"] {
            let mut client = Client::connect(server.address());
            client.send(format!("{command} \x1b[2J\r2026 ERROR \u{202e}\n").as_bytes());
            client.expect_closed();
        }
        let shown = r"\u{1b}[2J\r2026 ERROR \u{202e}";
        server.logged(1, &["receive of connection", "failed: ", shown]);
        server.logged(1, &["ERROR worker#0", "panicked at ", shown]);
    }
}

#[test]
fn a_full_server_is_said_once_a_second() {
    for mode in MODES {
        let server = Launch::serve(&["--mode", mode, "--workers", "1"])
            .and(&["--max-connections", "2", "--close-deadline", "never"])
            .start();
        let mut open: Vec<Client> = (0..2).map(|_| Client::connect(server.address())).collect();
        open.iter_mut().for_each(|client| client.echo(b"in"));
        assert!(
            server.log().with(&["max_connections"]).is_empty(),
            "no client waits"
        );
        let begin = Instant::now();
        let _waiting: Vec<Client> = (0..3).map(|_| Client::connect(server.address())).collect();
        let words = [
            "WARNING",
            "max_connections is reached: clients (3) wait in the queue of",
        ];
        server.logged(3, &words);
        let lines = server.log().with(&["max_connections"]).len();
        let seconds = usize::try_from(begin.elapsed().as_secs()).unwrap();
        assert!(lines <= seconds + 1, "{mode}: {lines} lines in {seconds} s");
    }
}

#[test]
fn a_poisonous_message_can_be_left_out() {
    let server = Launch::serve(&["--workers", "1", "--fault", "receive:abort"])
        .and(&["--on-crash", "redeliver=1", "--poison-shown", "0"])
        .start();
    let mut client = Client::connect(server.address());
    client.send(b"secret");
    client.expect_closed();
    let lines = server.logged(1, &["poison: receive of"]);
    assert!(
        lines[0].ends_with("its message has 6 bytes"),
        "{}",
        lines[0]
    );
    assert!(!server.log().text().contains("secret"));
}
