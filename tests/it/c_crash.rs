//! Crashes in callbacks of C, with and without sanitizers, under every crash policy.

use std::thread;

use crate::common::c::{self, build_plain, ends_well, launch, start};
use crate::common::client::Client;

/// What a client sees after a message in which a worker died.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Seen {
    /// These bytes, then the end of the connection.
    End(&'static [u8]),
    /// The answer.
    Answer,
    /// Nothing; the connection is still served.
    Nothing,
}

#[track_caller]
fn tells(client: &mut Client, message: &str, expected: Seen) {
    client.send(format!("{message}\n").as_bytes());
    match expected {
        Seen::End(before) => assert_eq!(client.read_to_end(), before),
        Seen::Answer => assert_eq!(client.read_line(), message),
        Seen::Nothing => assert_eq!(client.ask("hello"), "hello"),
    }
}

#[test]
fn a_crash_in_c_has_the_fate_of_the_crash_policy() {
    // The exit without sanitizers, and with them: they catch a NULL write first.
    let crashes = [
        ("abort", "status=0, signal=6", "status=0, signal=6"),
        ("null", "status=0, signal=11", "status=1, signal=0"),
        ("exit", "status=7, signal=0", "status=7, signal=0"),
    ];
    let policies = [
        ("close", Seen::End(b""), Seen::End(b"")),
        ("reply", Seen::End(b"sorry\n"), Seen::End(b"sorry\n")),
        ("redeliver", Seen::Answer, Seen::End(b"")),
        ("keep", Seen::Nothing, Seen::Nothing),
    ];
    let plain = build_plain("tests/c/crash.c");
    let sanitized = c::build("tests/c/crash.c", &[]);
    for (program, is_plain) in [(plain, true), (sanitized, false)] {
        thread::scope(|scope| {
            for (policy, once, always) in policies {
                let program = &program;
                scope.spawn(move || {
                    let server = start(launch(program, &["127.0.0.1:0", policy]), "process");
                    let mut other = Client::connect(server.address());
                    for (crash, plainly, sanely) in crashes {
                        let end = if is_plain { plainly } else { sanely };
                        let words = ["WARN", "worker#0[pid=", "] abnormal exit, ", end];
                        let before = server.log().with(&words).len();
                        tells(&mut Client::connect(server.address()), crash, once);
                        server.logged(before + 1, &words);
                        let mut client = Client::connect(server.address());
                        tells(&mut client, &format!("always {crash}"), always);
                        let deaths = if policy == "redeliver" { 3 } else { 2 };
                        server.logged(before + deaths, &words);
                        if policy == "redeliver" {
                            server.logged(1, &["poison: receive of", "killed 2 workers"]);
                        }
                        // The other client has not noticed.
                        other.echo(b"hello\n");
                    }
                    let deaths = server.log().with(&["abnormal exit"]).len();
                    let mut client = Client::connect(server.address());
                    // An error has the same fate, except that it leaves no client waiting.
                    let failed = if policy == "keep" {
                        Seen::End(b"")
                    } else {
                        once
                    };
                    tells(&mut client, "fail", failed);
                    server.logged(1, &["WARNING worker#0[", "receive of connection", "failed"]);
                    assert_eq!(server.log().with(&["abnormal exit"]).len(), deaths);
                    if is_plain {
                        ends_well(server);
                    } else {
                        let seen = server.log().with(&["runtime error: store to null"]);
                        assert_eq!(seen.len(), if policy == "redeliver" { 3 } else { 2 });
                    }
                });
            }
        });
    }
}
