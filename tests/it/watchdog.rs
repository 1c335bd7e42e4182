//! The watchdog: callbacks that run longer than `callback_limit`.

use std::time::Duration;

use crate::common::client::Client;
use crate::common::launch::Launch;
use crate::common::server::Server;
use crate::common::{SOON, eventually, keeps};
use nix::sys::signal::Signal;

const MODES: [&str; 2] = ["process", "base"];
const OVER: &str = "callback_limit is";

/// A server with one worker that sleeps for some seconds in each callback, and a limit of 200 ms.
fn slow_server(mode: &str, seconds: &str, flags: &[&str]) -> Server {
    let sleep = format!("receive:sleep={seconds}");
    let limit = ["--workers", "1", "--callback-limit", "0.2", "--fault"];
    Launch::serve(&["--mode", mode])
        .and(&limit)
        .and(&[&sleep])
        .and(flags)
        .start()
}

#[test]
fn a_callback_over_its_limit_is_logged_once_with_its_connection() {
    for mode in MODES {
        let server = slow_server(mode, "2", &[]);
        let pid = server.workers()[0].pid;
        let mut client = Client::connect(server.address());
        let (_, peer) = client.ends();
        client.send(b"hello");
        let who =
            format!("worker#0[pid={pid}] has been in receive of connection 0:0:1 from {peer}");
        server.logged(1, &["WARN", &who, "callback_limit is 0.2 s"]);
        client.expect(b"hello");
        assert_eq!(server.log().with(&[OVER]).len(), 1, "{mode}: once");
        assert_eq!(server.workers()[0].pid, pid, "{mode}: only reported");
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn the_logged_stack_names_the_stuck_function() {
    for mode in MODES {
        let server = slow_server(mode, "2", &[]);
        let mut client = Client::connect(server.address());
        client.send(b"hello");
        server.logged(1, &["stack of worker#0[pid="]);
        let sleeps = || !server.log().with(&["#", "nanosleep"]).is_empty();
        eventually(SOON, format_args!("{mode}: the call that blocks"), sleeps);
        let receives = || !server.log().with(&["#", "receive", "echo.rs"]).is_empty();
        eventually(SOON, format_args!("{mode}: the callback"), receives);
        let ours = server.log().with(&["#", "run_callback"]);
        assert!(ours.is_empty(), "{mode}: what is below it is left out");
    }
}

#[test]
fn with_kill_the_crash_policy_decides() {
    let flags = ["--on-limit", "kill", "--on-crash", "reply=too slow\\n"];
    let server = slow_server("process", "1000", &flags);
    let worker = server.workers()[0];
    let mut client = Client::connect(server.address());
    client.send(b"hello");
    client.expect(b"too slow\n");
    client.expect_closed();
    server.logged(1, &[OVER, "killed"]);
    server.logged(1, &["abnormal exit, status=0, signal=9"]);
    server.new_workers(1, &[worker]);
}

#[test]
fn a_base_worker_is_killed_and_replaced_too() {
    let server = slow_server("base", "1000", &["--on-limit", "kill"]);
    let worker = server.workers()[0];
    let mut client = Client::connect(server.address());
    client.send(b"hello");
    client.expect_closed();
    server.logged(1, &[OVER, "killed"]);
    server.new_workers(1, &[worker]);
}

#[test]
fn the_time_of_a_worker_that_is_stopped_does_not_count() {
    for mode in MODES {
        let server = slow_server(mode, "0.1", &["--on-limit", "kill"]);
        let worker = server.workers()[0];
        let mut client = Client::connect(server.address());
        client.send(b"hello");
        eventually(SOON, "it is in its callback", || {
            worker.is_asleep_in_a_callback()
        });
        worker.signal(Signal::SIGSTOP);
        server.logged(1, &["worker#0", "is stopped", "in receive of connection"]);
        keeps(Duration::from_secs(1), "it is not taken for stuck", || {
            server.log().with(&[OVER]).is_empty() && worker.is_running()
        });
        worker.signal(Signal::SIGCONT);
        client.expect(b"hello");
    }
}

#[test]
fn a_callback_within_the_limit_is_not_logged() {
    for mode in MODES {
        let flags = ["--mode", mode, "--callback-limit", "60", "--work", "20"];
        let server = Launch::serve(&flags).start();
        let mut client = Client::connect(server.address());
        (0..20).for_each(|_| client.echo(b"hello"));
        assert!(server.log().with(&[OVER]).is_empty(), "{mode}");
    }
}
