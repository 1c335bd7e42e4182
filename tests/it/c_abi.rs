//! The C ABI from C: refusals, and that each function does what `tine.h` says.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::common::c::{build, ends_well, launch, start};
use crate::common::client::Client;
use crate::common::server::Server;
use crate::common::{SOON, eventually};
use nix::sys::signal::Signal;

fn everything(options: &[&str]) -> Server {
    let mode = if options.contains(&"base") {
        "base"
    } else {
        "process"
    };
    let mut options = options.to_vec();
    // Base mode has no reactors.
    options.sort_by_key(|option| *option != "base");
    if !options.iter().any(|option| option.starts_with("listen=")) {
        options.push("listen=127.0.0.1:0");
    }
    start(launch(&build("tests/c/everything.c", &[]), &options), mode)
}

/// A connected client that has got its welcome.
fn welcome(server: SocketAddr) -> Client {
    let mut client = Client::connect(server);
    client.expect(b"welcome\n");
    client
}

/// Returns the address of a listener, from the program's log.
fn listener(server: &Server, number: usize) -> SocketAddr {
    let line = server.stdout().lines()[number].clone();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

fn said(server: &Server, role: &str, what: &str) {
    server.logged(1, &["LOG level=3", role, what]);
}

#[test]
fn null_invalid_and_misplaced_arguments_are_refused() {
    let ended = launch(&build("tests/c/refusals.c", &[]), &[]).run();
    assert!(ended.status.success(), "{}", ended.stderr);
    assert!(
        ended.stdout.ends_with(" checks, 0 failures"),
        "{}",
        ended.stdout
    );
    assert_eq!(ended.stderr, "");
}

#[test]
fn a_process_with_threads_is_refused() {
    let program = build("tests/c/threads.c", &[]);
    let ended = launch(&program, &[]).run();
    assert!(ended.status.success(), "{}\n{}", ended.stdout, ended.stderr);
}

#[test]
fn every_callback_runs_in_its_process() {
    let server = everything(&["standby=1"]);
    let pid = server.master().pid;
    said(&server, "manager", "runs manager_start");
    said(&server, "worker#0", "runs worker_start");
    said(&server, "worker#1", "runs worker_start");
    said(&server, "standby", "runs worker_start");
    let start = format!("runs start started mode=0 workers=2 reactors=1 pid={pid}");
    said(&server, "master", &start);

    let worker = server.named("tine worker#0")[0];
    worker.signal(Signal::SIGKILL);
    said(
        &server,
        "manager",
        "runs worker_exit seat=0 status=0 signal=9 abnormal=1",
    );
    server.logged(
        1,
        &["LOG level=2 manager", "abnormal exit, status=0, signal=9"],
    );
    let mut clients = [welcome(server.address()), welcome(server.address())];
    for client in &mut clients {
        assert!(client.ask("state").ends_with("answer=42"), "its own state");
    }
    said(&server, "worker#0", "runs worker_seated");
    assert!(
        server
            .log()
            .with(&["is more than was asked for"])
            .is_empty()
    );
    drop(clients);
    server.logged(2, &["runs close reason=0 past_deadline=0 retried=0"]);

    server.signal(Signal::SIGUSR1);
    server.logged(2, &["worker#", "runs worker_stop"]);
    let log = server.log().clone();
    ends_well(server);
    for (role, what) in [
        ("manager", "runs manager_stop"),
        ("master", "runs shutdown"),
    ] {
        assert_eq!(log.with(&["LOG level=3", role, what]).len(), 1, "{what}");
    }
    assert!(
        log.with(&["from within"]).is_empty(),
        "a line in a line was dropped"
    );
}

#[test]
fn a_callback_knows_its_connection_and_the_server() {
    for mode in [&["standby=0"], &["base"]] {
        let server = everything(&[mode[0], "listen=127.0.0.1:0", "listen=127.0.0.1:0"]);
        let second = listener(&server, 1);
        let mut client = welcome(second);
        let figures = client.ask("figures");
        let known = format!(
            "peer={} listener=1 name=listener-1 attempt=0 seat=",
            client.local
        );
        assert!(figures.starts_with(&known), "{figures}");
        let counted = " callbacks=1 connections=1 accepted=1 poisoned=0";
        assert!(figures.ends_with(counted), "{figures}");
        drop(client);
        server.logged(1, &["runs close"]);
        let mut client = welcome(second);
        eventually(SOON, "the first one is not open any more", || {
            client.ask("figures").contains(" connections=1 ")
        });
        assert_eq!(client.ask("null"), "status=0 2 2");
        assert_eq!(client.ask("size"), "status=3", "of tine_stats");
        assert_eq!(client.ask("thread"), "status=5", "outside of the callback");
        assert_eq!(client.ask("fork"), "status=5", "another process");
        server.logged(1, &["LOG level=1 worker#", "it exits here"]);
        assert_eq!(client.ask("run"), "status=4", "a server in a server");
        drop(client);
        ends_well(server);
    }
}

#[test]
fn a_callback_reaches_other_connections() {
    let server = everything(&[]);
    let (mut one, mut other) = (welcome(server.address()), welcome(server.address()));
    let name = other.ask("name");
    assert_eq!(one.ask(&format!("greet {name}")), "status=0");
    assert_eq!(other.read_line(), "hello");
    assert_eq!(
        one.ask(&format!("ask {name}")),
        "status=6 listener=77 name=3 user=0",
        "its listener is known of its own alone"
    );
    assert_eq!(one.ask(&format!("close {name}")), "status=0");
    other.expect_closed();
    assert_eq!(one.ask("greet 0"), "status=3", "no connection's name");
    assert_eq!(
        one.ask(&format!("greet {name}")),
        "status=0",
        "to a connection that is gone"
    );

    let mut third = welcome(server.address());
    let name = third.ask("name");
    assert_eq!(one.ask(&format!("reset {name}")), "status=0");
    let error = third.try_read(&mut [0; 16]).expect_err("RST");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    drop(one);
    ends_well(server);
}

#[test]
fn in_base_mode_a_connection_of_another_worker_is_refused() {
    let server = everything(&["base"]);
    // Any worker may accept a client: some pair is in different ones.
    let mut clients: Vec<Client> = (0..20).map(|_| welcome(server.address())).collect();
    let seats: Vec<String> = clients
        .iter_mut()
        .map(|client| client.ask("state"))
        .collect();
    let stranger = seats.iter().position(|seat| *seat != seats[0]);
    let stranger = stranger.expect("two workers take part");
    let name = clients[stranger].ask("name");
    assert_eq!(clients[0].ask(&format!("greet {name}")), "status=7");
    drop(clients);
    ends_well(server);
}

#[test]
fn a_function_cuts_the_messages() {
    for mode in [&[][..], &["base"]] {
        let server = everything(mode);
        let mut client = welcome(server.address());
        client.send(b"sta");
        client.wait_until_read();
        client.send(b"te\nstate\nst");
        let answer = client.read_line();
        assert_eq!(client.read_line(), answer);
        client.wait_until_read();
        client.send(b"ate\n");
        assert_eq!(client.read_line(), answer);
        client.send(b"part");
        client.wait_until_read();
        assert_eq!(client.ask(" two"), "what?");
        client.send(b"no\n");
        client.expect_closed();
        server.logged(1, &["runs close reason=5"]);
        ends_well(server);
    }
}

#[test]
fn messages_are_cut_as_each_protocol_says() {
    for (option, bytes) in [
        ("protocol=delimiter=--", &b"one--two--"[..]),
        ("delimiter=--", b"one--two--"),
        ("length=1,0,0", b"\x03one\x03two"),
        ("length=2,0,0", b"\x00\x03one\x00\x03two"),
        ("length=4,1,0", b"\x03\x00\x00\x00one\x03\x00\x00\x00two"),
        ("length=2,1,1", b"\x05\x00one\x05\x00two"),
    ] {
        let server = everything(&[option]);
        let mut client = welcome(server.address());
        client.send(bytes);
        for _ in 0..2 {
            assert_eq!(client.read_line(), "what?", "{option}");
        }
        drop(client);
        ends_well(server);
    }
}

#[test]
fn a_policy_decides_the_fate_of_a_crash() {
    for (option, answer) in [
        ("crash=reply", "sorry"),
        ("crash=redeliver=3", "survived 2"),
        ("crash=redeliver=2", ""),
    ] {
        let server = everything(&[option]);
        let mut client = welcome(server.address());
        client.send(b"die\n");
        client.expect(answer.as_bytes());
        if answer.is_empty() {
            client.expect_closed();
        }
        ends_well(server);
    }
    let server = everything(&["crash=keep"]);
    let mut client = welcome(server.address());
    client.send(b"die\n");
    server.logged(1, &["the connection stays"]);
    assert_eq!(client.ask("anything"), "what?");
    ends_well(server);
}

#[test]
fn connections_of_one_user_id_go_to_one_worker() {
    let server = everything(&["dispatch=4"]);
    let mut clients: Vec<Client> = (0..4).map(|_| welcome(server.address())).collect();
    let mut seats = Vec::new();
    for client in &mut clients {
        assert_eq!(client.ask("user 9"), "status=0");
        seats.push(client.ask("state"));
    }
    assert!(seats.iter().all(|seat| *seat == seats[0]), "{seats:?}");
    drop(clients);
    ends_well(server);
}

#[test]
fn a_function_chooses_the_worker() {
    let server = everything(&["dispatch=ask", "listen=127.0.0.1:0", "listen=127.0.0.1:0"]);
    let mut client = welcome(server.address());
    for seat in [1, 0, 1, 3, 2] {
        assert_eq!(client.ask(&format!("user {seat}")), "status=0");
        let expected = format!("seat={} answer=42", seat % 2);
        assert_eq!(client.ask("state"), expected, "of user {seat}");
    }
    let second = listener(&server, 1);
    for (address, seat) in [(second, 1), (server.address(), 0)] {
        let mut client = welcome(address);
        assert_eq!(client.ask("user 100"), "status=0");
        let expected = format!("seat={seat} answer=42");
        assert_eq!(client.ask("state"), expected, "of listener {seat}");
    }
    drop(client);
    ends_well(server);
}

#[test]
fn a_function_decides_the_fate_of_a_crash() {
    let server = everything(&["crash=ask"]);
    let mut client = welcome(server.address());
    assert_eq!(client.ask("die again"), "survived 2");
    client.send(b"die sorry\n");
    assert_eq!(client.read_to_end(), b"sorry\n");
    for message in ["die", "die wrong", "die null"] {
        let mut client = welcome(server.address());
        client.send(format!("{message}\n").as_bytes());
        assert_eq!(client.read_to_end(), b"", "{message}");
    }
    let mut client = welcome(server.address());
    client.send(b"flush, die\n");
    assert_eq!(client.read_until_reset(), b"flushed\n");
    let wrong = "LOG level=1 master";
    server.logged(1, &[wrong, "on_crash: 99 is not one of 0, 1, 2, 3"]);
    server.logged(1, &[wrong, "reply is NULL"]);
    for crash in [
        "event=1 attempts=1 failed=0 flushed=0 length=10",
        "event=1 attempts=2 failed=0 flushed=0 length=10",
        "event=1 attempts=1 failed=0 flushed=1 length=11",
    ] {
        said(&server, "master", &format!("runs crash {crash}"));
    }

    let mut client = welcome(server.address());
    client.ask("doomed");
    drop(client);
    said(
        &server,
        "master",
        "runs crash event=2 attempts=1 failed=0 flushed=0 length=0",
    );
    said(
        &server,
        "worker#",
        "runs close reason=0 past_deadline=0 retried=1",
    );
    ends_well(server);
}

#[test]
fn a_callback_that_fails_closes_its_connection_and_is_logged() {
    let server = everything(&["output-limit=2000000"]);
    for (message, why) in [
        ("fail", "the callback failed"),
        ("fail, say why", "no such thing as \u{fffd}"),
        ("77", "the callback returned 77"),
        (
            "much 3000000",
            "one callback may send at most 2000000 bytes",
        ),
    ] {
        let mut client = welcome(server.address());
        client.send(format!("{message}\n").as_bytes());
        client.expect_closed();
        server.logged(1, &["LOG level=2 worker#", "receive of connection", why]);
    }
    ends_well(server);
}

#[test]
fn a_slow_reader_causes_paused_and_resumed() {
    let server = everything(&["high-water=100000"]);
    let mut client = Client::connect_narrow(server.address());
    client.expect(b"welcome\n");
    client.send(b"much 8000000\n");
    said(&server, "worker#", "runs paused");
    client.expect(&vec![0; 8_000_000]);
    assert_eq!(client.read_line(), "sent");
    said(&server, "worker#", "runs resumed");
    drop(client);
    ends_well(server);
}

#[test]
fn each_deadline_has_its_reason_and_idle_its_callback() {
    for (option, said, reason) in [
        ("deadline=idle,300", &b""[..], 9),
        ("deadline=message,300", b"words", 8),
    ] {
        let server = everything(&[option, "deadline=keepalive,5000"]);
        let mut client = welcome(server.address());
        client.send(said);
        assert_eq!(client.read_to_end(), b"");
        let closed = format!("runs close reason={reason} past_deadline=0 retried=0");
        self::said(&server, "worker#", &closed);
        ends_well(server);
    }
    let server = everything(&["deadline=idle,300", "on-idle=call", "per-address=1"]);
    let mut client = welcome(server.address());
    for _ in 0..2 {
        assert_eq!(client.read_line(), "idle");
    }
    let second = Client::try_connect(server.address());
    assert!(second.is_err() || second.is_ok_and(|mut it| it.try_read(&mut [0]).is_err()));
    drop(client);
    ends_well(server);
}

#[test]
fn the_close_deadline_can_be_never_and_a_pid_file_is_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("pid");
    let option = format!("pid-file={}", file.display());
    let server = everything(&["never", &option]);
    let written = std::fs::read_to_string(&file).expect("the file");
    assert_eq!(written, format!("{}\n", server.master().pid));
    ends_well(server);
    assert!(!file.exists(), "it is removed");
}

/// An exception that leaves a callback ends the worker, as any crash does.
#[test]
fn an_exception_that_leaves_a_callback_ends_the_worker() {
    let program: PathBuf = build("tests/c/exception.cc", &[]);
    let server = start(launch(&program, &["127.0.0.1:0"]), "process");
    let mut client = Client::connect(server.address());
    client.send(b"throw");
    client.expect_closed();
    server.logged(1, &["abnormal exit, status=0, signal=6"]);
    Client::connect(server.address()).echo(b"hello");
    ends_well(server);
}

#[test]
fn the_default_log_is_standard_error() {
    let server = start(
        launch(&build("tests/c/leaky.c", &[]), &["127.0.0.1:0"]),
        "process",
    );
    server.workers()[0].signal(Signal::SIGKILL);
    server.logged(1, &["WARNING manager", "abnormal exit, status=0, signal=9"]);
}
