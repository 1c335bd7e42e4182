//! Callbacks that return an error, seen by their clients. Each line that a client sends is a command for
//! the testbed's `script`.

use crate::common::client::Client;
use crate::common::launch::Launch;
use crate::common::server::Server;

const MODES: [&str; 2] = ["process", "base"];

fn script(mode: &str) -> Server {
    Launch::testbed("script", mode).start()
}

#[track_caller]
fn ask(client: &mut Client, command: &str) -> String {
    client.send(format!("{command}\n").as_bytes());
    client.read_line()
}

#[test]
fn output_of_a_callback_that_fails_is_never_sent() {
    for mode in MODES {
        let server = script(mode);
        let mut client = Client::connect(server.address());
        client.send(b"echo before\nsend-and-fail\necho never answered\n");
        assert_eq!(client.read_to_end(), b"echo before\n", "{mode}");
        server.logged(1, &["reason=Crash"]);
        let mut client = Client::connect(server.address());
        client.send(b"flush-and-fail\n");
        assert_eq!(client.read_until_reset(), b"flushed\n", "{mode}");
        assert!(server.log().with(&["abnormal exit"]).is_empty(), "{mode}");
    }
}

#[test]
fn a_callback_that_fails_has_the_fate_of_the_crash_policy() {
    for mode in MODES {
        let server = Launch::testbed("script", mode)
            .and(&["on-crash=reply=sorry\\n"])
            .start();
        let mut client = Client::connect(server.address());
        client.send(b"send-and-fail\necho never answered\n");
        assert_eq!(client.read_to_end(), b"sorry\n", "{mode}");
        let mut client = Client::connect(server.address());
        client.send(b"flush-and-fail\n");
        assert_eq!(
            client.read_until_reset(),
            b"flushed\n",
            "{mode}: no reply to half of one"
        );
    }
    for mode in MODES {
        let server = Launch::testbed("script", mode)
            .and(&["on-crash=answer=sorry\\n"])
            .start();
        let mut client = Client::connect(server.address());
        client.send(b"send-and-fail\necho on\n");
        client.expect(b"sorry\necho on\n");
    }
    let server = Launch::testbed("script", "process")
        .and(&["on-crash=keep"])
        .start();
    let mut client = Client::connect(server.address());
    client.send(b"send-and-fail\n");
    assert_eq!(
        client.read_to_end(),
        b"",
        "an error leaves no client waiting"
    );
}

#[test]
fn a_callback_that_fails_is_run_again_before_later_messages() {
    let server = Launch::testbed("redeliver", "process")
        .and(&["workers=1"])
        .start();
    let mut bystander = Client::connect(server.address());
    let mut client = Client::connect(server.address());
    for _ in 0..20 {
        client.send(b"fail-once\necho one\nfail-once\necho two\n");
        bystander.send(b"echo on\n");
        client.expect(b"recovered 1\necho one\nrecovered 1\necho two\n");
        bystander.expect(b"echo on\n");
    }
    client.send(b"fail\necho never answered\n");
    assert_eq!(client.read_to_end(), b"");
    server.logged(3, &["receive of connection", "asked to fail"]);
    server.logged(1, &["poison: receive of", "in 3 attempts"]);
    assert_eq!(ask(&mut bystander, "echo on"), "echo on");
    assert!(server.log().with(&["abnormal exit"]).is_empty());
}

#[test]
fn an_error_of_a_callback_closes_its_connection_and_no_other() {
    for mode in MODES {
        let server = script(mode);
        let mut bystander = Client::connect(server.address());
        let mut client = Client::connect(server.address());
        client.send(b"fail\n");
        assert_eq!(client.read_to_end(), b"", "{mode}");
        server.logged(
            1,
            &["WARNING worker#", "receive of connection", "asked to fail"],
        );
        assert_eq!(ask(&mut bystander, "echo on"), "echo on", "{mode}");
        assert!(server.log().with(&["abnormal exit"]).is_empty(), "{mode}");
    }
}
