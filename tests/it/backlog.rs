//! Blocked workers and the accept queue: in base mode they fill it, in process mode they do not.

use std::time::Duration;

use crate::common::client::{Client, Knocking};
use crate::common::launch::Launch;
use crate::common::server::Server;
use crate::common::sockets::{accept_queue, holders, of_server};
use crate::common::{SOON, eventually, keeps};
use procfs::net::{TcpNetEntry, TcpState};

const BACKLOG: [&str; 6] = [
    "--workers",
    "2",
    "--backlog",
    "4",
    "--fault",
    "receive:sleep=1000",
];

/// As many clients as there are workers, each of which has blocked one.
#[track_caller]
fn block_each_worker(server: &Server) -> Vec<Client> {
    let block = |_| {
        let mut client = Client::connect(server.address());
        client.send(b"x");
        client.wait_until_read();
        client
    };
    (0..server.workers().len()).map(block).collect()
}

#[test]
fn blocked_base_workers_fill_the_backlog() {
    let server = Launch::serve(&["--mode", "base"]).and(&BACKLOG).start();
    let blockers = block_each_worker(&server);
    for worker in server.workers() {
        let held = blockers
            .iter()
            .filter(|client| holders(client.accepted().inode, &[worker]) == [worker])
            .count();
        assert_eq!(held, 1, "each worker has one client");
    }

    // A backlog of 4 lets 5 in, https://man7.org/linux/man-pages/man2/listen.2.html says "maximum": the kernel checks with >.
    let queued: Vec<Client> = (0..5).map(|_| Client::connect(server.address())).collect();
    assert_eq!(accept_queue(server.address()), Some(5));
    let next = Knocking::begin(server.address());
    keeps(
        Duration::from_secs(3),
        "5 are queued and the next one knocks",
        || accept_queue(server.address()) == Some(5) && next.state() == Some(TcpState::SynSent),
    );
    for client in &queued {
        assert_eq!(
            client.server_side().map(|socket| socket.inode),
            Some(0),
            "accepted by no worker"
        );
    }
    assert!(!blockers.iter().any(Client::has_news));
}

#[test]
fn a_blocked_worker_does_not_fill_the_backlog() {
    let server = Launch::serve(&["--mode", "process", "--reactors", "1"])
        .and(&BACKLOG)
        .start();
    let blockers = block_each_worker(&server);
    let mut more = Vec::new();
    while more.len() < 200 {
        // No more at once than the queue takes: a client that finds it full tries again a second later.
        more.extend((0..4).map(|_| Client::connect(server.address())));
        let is_empty = || accept_queue(server.address()) == Some(0);
        eventually(SOON, "they are accepted", is_empty);
    }

    let held_by_master = || {
        let inodes = server.master().sockets();
        let is_held = |socket: &&TcpNetEntry| {
            socket.state == TcpState::Established && inodes.contains(&socket.inode)
        };
        of_server(server.address()).iter().filter(is_held).count()
    };
    eventually(SOON, "the master holds every connection", || {
        held_by_master() == blockers.len() + more.len()
    });
    keeps(
        Duration::from_secs(1),
        "no client waits to be accepted",
        || accept_queue(server.address()) == Some(0),
    );
    assert!(
        !blockers.iter().any(Client::has_news),
        "the workers are blocked"
    );
}

#[test]
fn a_base_worker_that_is_free_empties_the_queue() {
    let server = Launch::serve(&[
        "--mode",
        "base",
        "--workers",
        "2",
        "--backlog",
        "4",
        "--work",
        "500",
    ])
    .start();
    let mut blockers = block_each_worker(&server);
    let mut queued: Vec<Client> = (0..4).map(|_| Client::connect(server.address())).collect();
    queued.iter_mut().for_each(|client| client.echo(b"in turn"));
    eventually(SOON, "no client waits to be accepted", || {
        accept_queue(server.address()) == Some(0)
    });
    blockers.iter_mut().for_each(|client| client.expect(b"x"));
}
