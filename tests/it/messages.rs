//! Messages: each is answered as a whole, wherever the network cuts it, and one that is too long is refused.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::client::Client;
use crate::common::launch::Launch;
use crate::common::traffic::{Habit, Traffic, pattern};
use crate::common::{SOON, eventually, keeps};

const MODES: [&str; 2] = ["process", "base"];

/// Protocols, each with messages.
const MESSAGES: [(&str, &[u8]); 10] = [
    ("lines", b"PING\n"),
    ("varint", b"\x04ping"),
    // The formats of PostgreSQL and HTTP/2.
    ("length=4,offset=1,adjust=-4", b"Q\x00\x00\x00\x08ping"),
    (
        "length=3,adjust=6",
        b"\x00\x00\x04\x00\x00\x00\x00\x00\x00ping",
    ),
    (r"delimiter=\r\n", b"PING\r\n"),
    ("length=1", b"\x04ping"),
    ("length=2,little", b"\x04\x00ping"),
    ("length=2,big,all", b"\x00\x06ping"),
    ("length=4", b"\x00\x00\x00\x04ping"),
    ("length=4,little,all", b"\x08\x00\x00\x00ping"),
];

#[test]
fn a_message_is_answered_when_its_end_has_come() {
    for mode in MODES {
        for (protocol, message) in MESSAGES {
            let server =
                Launch::serve(&["--mode", mode, "--workers", "1", "--protocol", protocol]).start();
            let mut client = Client::connect(server.address());
            let (last, most) = message.split_last().unwrap();
            for piece in most.chunks(2) {
                client.send(piece);
                client.wait_until_read();
            }
            keeps(Duration::from_millis(100), "no answer to a part", || {
                !client.has_news()
            });
            client.send(&[*last]);
            client.expect(message);
        }
    }
}

#[test]
fn messages_that_arrive_together_are_answered_one_by_one() {
    let work = Duration::from_millis(100);
    for mode in MODES {
        for (protocol, message) in MESSAGES {
            let server = Launch::serve(&[
                "--mode",
                mode,
                "--workers",
                "1",
                "--work",
                "100",
                "--protocol",
                protocol,
            ])
            .start();
            let mut client = Client::connect(server.address());
            let begin = Instant::now();
            client.echo(&message.repeat(3));
            assert!(
                begin.elapsed() >= work * 3,
                "{mode}, {protocol}: 3 callbacks took {:?}",
                begin.elapsed()
            );
        }
    }
}

#[test]
fn a_message_of_8_mib_passes_in_both_directions() {
    let mut message = pattern(8, 8 << 20);
    let body = u32::try_from(message.len() - 4).unwrap();
    message[..4].copy_from_slice(&body.to_be_bytes());
    for mode in MODES {
        let flags = [
            "--mode",
            mode,
            "--workers",
            "1",
            "--protocol",
            "length=4",
            "--max-message",
            "8388608",
        ];
        let server = Launch::serve(&flags).start();
        let others = Traffic::start(server.address(), 2, Habit::Stay);
        let mut client = Client::connect(server.address());
        for _ in 0..3 {
            let mut writer = client.handle();
            thread::scope(|scope| {
                scope.spawn(|| writer.send(&message));
                client.expect(&message);
            });
        }
        others.finish().is_clean();
    }
}

#[test]
fn a_message_that_is_too_long_is_refused_and_logged() {
    for mode in MODES {
        let fits_in_length = [b"\x03\xe6".to_vec(), vec![b'x'; 998]].concat();
        let fits_with_delimiter = [vec![b'x'; 999], b";".to_vec()].concat();
        let fits_in_varint = [b"\xe6\x07".to_vec(), vec![b'x'; 998]].concat();
        for (protocol, fits, long) in [
            ("length=2", fits_in_length, b"\x03\xe7".to_vec()),
            ("varint", fits_in_varint, b"\xe7\x07".to_vec()),
            ("delimiter=;", fits_with_delimiter, vec![b'x'; 1001]),
        ] {
            let flags = [
                "--mode",
                mode,
                "--workers",
                "1",
                "--protocol",
                protocol,
                "--max-message",
                "1000",
            ];
            let server = Launch::serve(&flags).start();
            let mut polite = Client::connect(server.address());
            polite.echo(&fits);
            let mut client = Client::connect(server.address());
            client.send(&long);
            client.expect_closed();
            server.logged(1, &["1000", &client.local.to_string()]);
            polite.echo(&fits);
        }
    }
}

#[test]
fn short_messages_do_not_overtake_a_long_one_without_end() {
    let server = Launch::serve(&[
        "--workers",
        "1",
        "--reactors",
        "1",
        "--protocol",
        "length=4",
    ])
    .start();
    let stop = AtomicBool::new(false);
    let short = b"\0\0\0\x01x".repeat(4096);
    thread::scope(|scope| {
        let mut busy = Client::connect(server.address());
        let mut reader = busy.handle();
        let stop = &stop;
        scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) && busy.try_send(&short).is_ok() {}
            busy.half_close();
        });
        scope.spawn(move || while matches!(reader.try_read(&mut [0; 65_536]), Ok(1..)) {});
        let mut long = vec![7; 4 << 20];
        long[..4].copy_from_slice(&((4u32 << 20) - 4).to_be_bytes());
        let mut client = Client::connect(server.address());
        let mut sender = client.handle();
        let message = long.clone();
        scope.spawn(move || sender.send(&message));
        client.expect(&long);
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn messages_kept_for_a_slow_reader_are_answered_also_after_its_fin() {
    let mut message = vec![7; 50_000];
    message[..4].copy_from_slice(&(50_000u32 - 4).to_be_bytes());
    let all = message.repeat(400);
    for mode in MODES {
        let flags = [
            "--protocol",
            "length=4",
            "--output-high-water",
            "65536",
            "--workers",
            "1",
        ];
        let server = Launch::serve(&flags).and(&["--mode", mode]).start();
        let mut client = Client::connect(server.address());
        let mut sender = client.handle();
        thread::scope(|scope| {
            scope.spawn(|| {
                sender.send(&all);
                sender.half_close();
            });
            eventually(SOON, "the server has stopped reading", || {
                client
                    .server_side()
                    .is_some_and(|socket| socket.rx_queue > 0)
            });
            client.expect(&all);
        });
        assert_eq!(client.read_to_end(), b"", "{mode}");
    }
}
