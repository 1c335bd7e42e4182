//! A server that is stopped as a whole, by SIGSTOP, and goes on: the time in between counts in no deadline.

use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use procfs::net::TcpState;

use crate::common::client::Client;
use crate::common::gates::Gates;
use crate::common::launch::Launch;
use crate::common::server::Server;
use crate::common::{SOON, eventually};

/// Longer than each deadline here, all of which are 5 s.
const STOP: Duration = Duration::from_secs(7);

/// Stops every process of the server for a while.
fn stop_for_a_while(server: &Server) {
    server.signal_group(Signal::SIGSTOP);
    thread::sleep(STOP);
    server.signal_group(Signal::SIGCONT);
}

#[test]
fn clients_that_have_half_closed_get_their_answers() {
    let gates = Gates::new();
    let server = Launch::testbed("script", "process")
        .and(&["workers=2", "close-deadline=5", &gates.flag()])
        .start();
    let mut clients: Vec<Client> = (0..8).map(|_| Client::connect(server.address())).collect();
    for client in &mut clients {
        client.send(b"wait gate\n");
        client.half_close();
    }
    eventually(SOON, "the server has seen every FIN", || {
        let mut sides = clients.iter().map(Client::server_side);
        sides.all(|side| side.is_some_and(|it| it.state == TcpState::CloseWait && it.rx_queue == 0))
    });
    stop_for_a_while(&server);
    gates.open("gate");
    for client in &mut clients {
        let answer = client.read_to_end();
        assert!(answer.starts_with(b"waited "), "{answer:?}");
    }
}

#[test]
fn a_server_in_a_crash_loop_has_its_time() {
    let flags = ["--workers", "1", "--fail-on-crash-loop", "5"];
    let mut server = Launch::serve(&flags).start();
    let manager = server.manager();
    eventually(SOON, "its worker keeps dying", || {
        for worker in manager.children() {
            worker.signal(Signal::SIGABRT);
        }
        !server.log().with(&["keeps dying"]).is_empty()
    });
    stop_for_a_while(&server);
    Client::connect(server.address()).echo(b"served");
    assert!(!server.has_ended());
}

#[test]
fn a_worker_that_leaves_is_not_killed_for_it() {
    for mode in ["process", "base"] {
        let gates = Gates::new();
        let server = Launch::testbed("script", mode)
            .and(&["workers=1", "shutdown-deadline=5", &gates.flag()])
            .start();
        let old = server.workers()[0];
        let mut client = Client::connect(server.address());
        client.send(b"wait gate\n");
        eventually(SOON, "the worker is in its callback", || {
            old.is_asleep_in_a_callback()
        });
        server.signal(Signal::SIGUSR1);
        eventually(SOON, "another one has started", || {
            server.workers().len() == 2
        });
        stop_for_a_while(&server);
        gates.open("gate");
        assert_eq!(client.read_line(), format!("waited {}", old.pid), "{mode}");
        drop(client);
        eventually(SOON, "the old worker has left", || old.is_reaped());
        assert!(server.log().with(&["abnormal exit"]).is_empty(), "{mode}");
    }
}

#[test]
fn a_server_that_shuts_down_goes_on() {
    for mode in ["process", "base"] {
        let gates = Gates::new();
        let mut server = Launch::testbed("script", mode)
            .and(&["workers=1", "shutdown-deadline=5", &gates.flag()])
            .start();
        let mut client = Client::connect(server.address());
        client.send(b"wait gate\n");
        let worker = server.workers()[0];
        eventually(SOON, "the worker is in its callback", || {
            worker.is_asleep_in_a_callback()
        });
        server.signal(Signal::SIGTERM);
        server.logged(1, &["shutting down"]);
        stop_for_a_while(&server);
        gates.open("gate");
        let answer = client.read_to_end();
        assert!(answer.starts_with(b"waited "), "{mode}: {answer:?}");
        assert!(server.ended(SOON).success(), "{mode}");
        assert!(
            server.whole_log().with(&["abnormal exit"]).is_empty(),
            "{mode}"
        );
    }
}
