//! The end of connections: which side closes, a `close` callback that blocks or dies, and no connection left in CLOSE_WAIT.

use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::common::client::Client;
use crate::common::launch::Launch;
use crate::common::server::Server;
use crate::common::sockets::{holders, of_server, state};
use crate::common::traffic::{Habit, Traffic, pattern};
use crate::common::{SOON, eventually, keeps};
use procfs::net::TcpState;

const MODES: [&str; 2] = ["process", "base"];

/// Waits until the connection between these ends is as it should be after a clean close that the client began: TIME_WAIT at
/// the client, nothing at the server.
#[track_caller]
fn is_closed_cleanly((server, client): (std::net::SocketAddr, std::net::SocketAddr)) {
    eventually(SOON, "the server's end is gone", || {
        state(server, client).is_none()
    });
    assert_eq!(
        state(client, server),
        Some(TcpState::TimeWait),
        "the client closed first"
    );
}

#[track_caller]
fn logs_exit_and_replaces(server: &Server, worker: crate::common::process::Process, status: i32) {
    server.logged(
        1,
        &[
            "WARN",
            &format!(
                "worker#0[pid={}] abnormal exit, status={status}, signal=0",
                worker.pid
            ),
        ],
    );
    server.new_workers(1, &[worker]);
    eventually(SOON, "the old worker is reaped", || worker.is_reaped());
}

#[test]
fn with_keep_a_worker_that_dies_in_close_leaks_its_connection() {
    let flags = [
        "--workers",
        "1",
        "--fault",
        "close:exit=255",
        "--on-crash",
        "keep",
        "--close-deadline",
        "never",
    ];
    let server = Launch::serve(&flags).start();
    let worker = server.workers()[0];
    let client = Client::connect(server.address());
    let (here, there) = client.ends();
    let socket = client.accepted();
    assert_eq!(
        holders(socket.inode, &server.processes()),
        [server.master()]
    );

    drop(client);
    logs_exit_and_replaces(&server, worker, 255);
    keeps(
        Duration::from_secs(2),
        "server in CLOSE_WAIT, client in FIN_WAIT2",
        || {
            (state(here, there), state(there, here))
                == (Some(TcpState::CloseWait), Some(TcpState::FinWait2))
        },
    );
    assert_eq!(
        holders(socket.inode, &server.processes()),
        [server.master()]
    );
}

#[test]
fn a_worker_that_dies_in_close_leaks_nothing_by_default() {
    let server = Launch::serve(&["--workers", "1", "--fault", "close:exit=255"]).start();
    let worker = server.workers()[0];
    let client = Client::connect(server.address());
    client.accepted();
    let ends = client.ends();
    drop(client);
    is_closed_cleanly(ends);
    logs_exit_and_replaces(&server, worker, 255);
    assert!(of_server(server.address()).is_empty());
}

#[test]
fn in_base_mode_the_kernel_closes_after_a_worker_dies_in_close() {
    let server = Launch::serve(&[
        "--mode",
        "base",
        "--workers",
        "1",
        "--fault",
        "close:exit=255",
    ])
    .start();
    let worker = server.workers()[0];
    let client = Client::connect(server.address());
    assert_eq!(
        holders(client.accepted().inode, &server.processes()),
        [worker]
    );
    let ends = client.ends();
    drop(client);
    is_closed_cleanly(ends);
    logs_exit_and_replaces(&server, worker, 255);
    assert!(of_server(server.address()).is_empty());
}

#[test]
fn a_close_callback_that_blocks_leaks_its_connection_without_a_deadline() {
    let flags = [
        "--workers",
        "1",
        "--fault",
        "close:sleep=1000",
        "--close-deadline",
        "never",
    ];
    let server = Launch::serve(&flags).start();
    let client = Client::connect(server.address());
    client.accepted();
    let (here, there) = client.ends();
    drop(client);
    eventually(SOON, "CLOSE_WAIT", || {
        state(here, there) == Some(TcpState::CloseWait)
    });
    // Longer than the default deadline of 5 s.
    keeps(Duration::from_secs(7), "CLOSE_WAIT", || {
        state(here, there) == Some(TcpState::CloseWait)
    });
}

#[test]
fn the_close_deadline_ends_a_connection_whose_callback_blocks() {
    let flags = [
        "--workers",
        "2",
        "--reactors",
        "1",
        "--fault",
        "close:sleep=1000",
        "--close-deadline",
        "1",
    ];
    let server = Launch::serve(&flags).start();
    // Two clients, two seats: the one with the fewest connections is chosen at accept. One client blocks its worker.
    let client = Client::connect(server.address());
    client.accepted();
    let mut others = Traffic::start(server.address(), 1, Habit::Stay);
    others.each_is_answered();

    let ends @ (here, there) = client.ends();
    drop(client);
    let closed = Instant::now();
    others.each_is_answered();
    eventually(SOON, "the server's end is gone", || {
        state(here, there).is_none()
    });
    // The deadline is 1 s and 2 s are allowed; the rest is for a busy machine, and less than any other deadline there is.
    assert!(
        closed.elapsed() < Duration::from_secs(4),
        "gone after {:?}",
        closed.elapsed()
    );
    is_closed_cleanly(ends);
    others.each_is_answered();
    eventually(SOON, "connections are accepted", || {
        Client::connect(server.address()).accepted().inode != 0
    });
    assert_eq!(server.log().with(&["abnormal exit"]), Vec::<String>::new());
    others.finish().is_clean();
}

#[test]
fn the_default_close_deadline_ends_a_connection_whose_callback_blocks() {
    let server = Launch::serve(&["--workers", "1", "--fault", "close:sleep=1000"]).start();
    let clients: Vec<Client> = (0..50).map(|_| Client::connect(server.address())).collect();
    let ends: Vec<_> = clients.iter().map(Client::ends).collect();
    for client in &clients {
        client.accepted();
    }
    drop(clients);
    // The first one blocks the only worker: the callbacks of the others are not even begun.
    eventually(SOON, "no server's end is left", || {
        of_server(server.address()).is_empty()
    });
    ends.into_iter().for_each(is_closed_cleanly);
}

#[test]
fn a_client_that_half_closes_gets_the_whole_reply() {
    for mode in MODES {
        let server = Launch::serve(&["--mode", mode, "--workers", "1", "--work", "200"]).start();
        let sent = pattern(6, 100_000);
        let mut client = Client::connect(server.address());
        client.send(&sent);
        client.half_close();
        assert!(
            client.read_to_end() == sent,
            "{mode}: all of it, then the end of file"
        );
        is_closed_cleanly(client.ends());
    }
}

#[test]
fn a_client_that_half_closes_gets_a_reply_bigger_than_all_buffers() {
    for mode in MODES {
        let server = Launch::serve(&["--mode", mode, "--workers", "1"]).start();
        let sent = pattern(60, 48 << 20);
        let mut client = Client::connect(server.address());
        let mut writer = client.handle();
        thread::scope(|scope| {
            scope.spawn(|| {
                writer.send(&sent);
                writer.half_close();
            });
            assert!(
                client.read_to_end() == sent,
                "{mode}: all of it, then the end of file"
            );
        });
    }
}

#[test]
fn a_client_that_half_closes_at_once_is_closed() {
    for mode in MODES {
        let server = Launch::serve(&["--mode", mode, "--workers", "1"]).start();
        let mut client = Client::connect(server.address());
        client.half_close();
        assert_eq!(client.read_to_end(), b"", "{mode}");
        is_closed_cleanly(client.ends());
    }
}

#[test]
fn a_client_that_resets_leaves_nothing_and_does_no_harm() {
    for mode in MODES {
        let server = Launch::serve(&["--mode", mode, "--workers", "1", "--work", "1"]).start();
        let mut others = Traffic::start(server.address(), 2, Habit::Stay);
        for round in 0..50 {
            let mut client = Client::connect(server.address());
            client.send(&pattern(round, 10_000));
            client.reset();
        }
        others.each_is_answered();
        eventually(SOON, "only the others' connections are left", || {
            of_server(server.address()).len() == 2
        });
        others.finish().is_clean();
        assert_eq!(
            server.log().with(&["abnormal exit"]),
            Vec::<String>::new(),
            "{mode}"
        );
    }
}

#[test]
fn connections_left_open_by_keep_do_not_delay_a_shutdown() {
    let flags = [
        "--fault",
        "close:exit=255",
        "--on-crash",
        "keep",
        "--close-deadline",
        "never",
    ];
    let mut server = Launch::serve(&flags).start();
    let idle = Client::connect(server.address());
    idle.accepted();
    let leaked = Client::connect(server.address());
    leaked.half_close();
    server.logged(1, &["abnormal exit, status=255"]);
    server.signal(Signal::SIGTERM);
    assert!(server.ended(SOON).success());
    assert!(server.whole_log().with(&["forced shutdown"]).is_empty());
}
