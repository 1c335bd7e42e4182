//! Standby workers: they wait with their handlers made, and take the seat of a worker that dies.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::common::client::Client;
use crate::common::launch::Launch;
use crate::common::process::Process;
use crate::common::server::Server;
use crate::common::sockets::{accept_queue, holders};
use crate::common::traffic::{Habit, Traffic};
use crate::common::{SOON, eventually, eventually_some, keeps};

const MODES: [&str; 2] = ["process", "base"];

/// An echo server with workers in seats and on standby, all of them ready.
fn serve(mode: &str, workers: &str, standby: usize, flags: &[&str]) -> Server {
    let server = Launch::serve(&["--mode", mode, "--workers", workers])
        .and(&["--standby", &standby.to_string()])
        .and(flags)
        .start();
    stand_by(&server, standby);
    server
}

/// Waits until `count` workers are on standby, and returns them.
#[track_caller]
fn stand_by(server: &Server, count: usize) -> Vec<Process> {
    eventually_some(SOON, format_args!("{count} stand by"), || {
        let standby = server.named("tine standby");
        let ready = standby.iter().all(|process| process.waits_for_events());
        (ready && standby.len() == count).then_some(standby)
    })
}

/// Waits until another worker than `last` has this seat.
#[track_caller]
fn successor(server: &Server, seat: usize, last: Process) -> Process {
    eventually_some(SOON, format_args!("worker#{seat} is another one"), || {
        let holders = server.named(&format!("tine worker#{seat}"));
        holders.into_iter().find(|holder| *holder != last)
    })
}

#[test]
fn a_standby_worker_takes_the_seat_of_a_dead_one_and_is_replaced() {
    for mode in MODES {
        let server = serve(mode, "2", 1, &[]);
        for seat in [0, 1, 0] {
            let standby = stand_by(&server, 1)[0];
            let victim = server.named(&format!("tine worker#{seat}"))[0];
            victim.signal(Signal::SIGKILL);
            assert_eq!(successor(&server, seat, victim), standby, "{mode}");
            let next = stand_by(&server, 1)[0];
            assert_ne!(next, standby, "{mode}");
            Client::connect(server.address()).echo(b"served");
            assert_eq!(server.workers().len(), 3, "{mode}");
        }
    }
}

#[test]
fn no_client_notices_that_seats_change_hands() {
    let server = serve(
        "process",
        "2",
        2,
        &["--work", "1", "--on-crash", "redeliver=20"],
    );
    let mut traffic = Traffic::start(server.address(), 20, Habit::Stay);
    for kill in 0..40 {
        traffic.each_is_answered();
        for worker in server.named(&format!("tine worker#{}", kill % 2)) {
            worker.signal(Signal::SIGKILL);
        }
    }
    traffic.each_is_answered();
    traffic.finish().is_clean();
    stand_by(&server, 2);
}

#[test]
fn more_workers_may_die_at_once_than_are_on_standby() {
    for mode in MODES {
        let server = serve(mode, "4", 1, &[]);
        let all = server.workers();
        assert_eq!(all.len(), 5);
        let mut clients: Vec<Client> = (0..20).map(|_| Client::connect(server.address())).collect();
        if mode == "process" {
            clients.iter_mut().for_each(|client| client.echo(b"before"));
        }
        all.iter().for_each(|worker| worker.signal(Signal::SIGKILL));
        server.new_workers(5, &all);
        stand_by(&server, 1);
        for seat in 0..4 {
            assert_eq!(server.named(&format!("tine worker#{seat}")).len(), 1);
        }
        if mode == "base" {
            clients = (0..20).map(|_| Client::connect(server.address())).collect();
        }
        clients.iter_mut().for_each(|client| client.echo(b"after"));
    }
}

#[test]
fn a_standby_worker_that_dies_is_replaced() {
    for mode in MODES {
        let server = serve(mode, "1", 1, &[]);
        let standby = stand_by(&server, 1)[0];
        standby.signal(Signal::SIGKILL);
        server.logged(1, &[&format!("standby[pid={}] abnormal exit", standby.pid)]);
        eventually(SOON, "another one stands by", || {
            stand_by(&server, 1)[0] != standby
        });
        Client::connect(server.address()).echo(b"served");
    }
}

#[test]
fn standby_workers_end_with_the_server() {
    for mode in MODES {
        let mut server = serve(mode, "2", 2, &[]);
        let processes = server.processes();
        server.signal(Signal::SIGTERM);
        assert!(server.ended(SOON).success(), "{mode}");
        server.leaves_nothing(&processes);
        assert!(
            server.whole_log().with(&["abnormal exit"]).is_empty(),
            "{mode}"
        );
    }
}

#[test]
fn a_killed_master_or_manager_leaves_no_standby_worker() {
    for (mode, victim) in [("process", 0), ("process", 1), ("base", 0)] {
        let mut server = serve(mode, "1", 2, &[]);
        let processes = server.processes();
        processes[victim].signal(Signal::SIGKILL);
        server.ended(SOON);
        server.leaves_nothing(&processes);
    }
}

#[test]
fn a_reload_replaces_standby_workers_too() {
    for mode in MODES {
        let server = serve(mode, "2", 2, &[]);
        let old = server.workers();
        server.signal(Signal::SIGUSR1);
        server.new_workers(4, &old);
        stand_by(&server, 2);
        server.logged(1, &["reload finished"]);
        assert!(server.log().with(&["abnormal exit"]).is_empty(), "{mode}");
        Client::connect(server.address()).echo(b"served");
    }
}

#[test]
fn in_base_mode_a_standby_worker_accepts_no_client() {
    let server = serve("base", "1", 1, &[]);
    let (worker, standby) = (server.named("tine worker#0")[0], stand_by(&server, 1)[0]);
    worker.signal(Signal::SIGSTOP);
    let mut client = Client::connect(server.address());
    client.send(b"hello");
    keeps(Duration::from_millis(500), "it is not accepted", || {
        accept_queue(server.address()) == Some(1)
    });
    worker.signal(Signal::SIGKILL);
    client.expect(b"hello");
    assert_eq!(
        holders(client.accepted().inode, &server.processes()),
        [standby]
    );
}

#[test]
fn seated_is_called_before_anything_else() {
    for mode in MODES {
        let options = ["workers=1", "standby=1"];
        let server = Launch::testbed("script", mode).and(&options).start();
        let standby = stand_by(&server, 1)[0];
        let victim = server.named("tine worker#0")[0];
        victim.signal(Signal::SIGKILL);
        successor(&server, 0, victim);
        // It knows its seat in the callback.
        let mut client = Client::connect(server.address());
        assert_eq!(client.ask_number("pid"), standby.pid, "{mode}");
        assert_eq!(client.ask("seat"), "0", "{mode}");
        let seated = format!("worker#0[{}] seated in Some(0)", standby.pid);
        let lines = server.logged(1, &[&seated, "was in None"]);
        assert_eq!(lines.len(), 1, "{mode}");
        let by_standby = server.log().with(&[&format!("[{}]", standby.pid)]);
        assert_eq!(by_standby.first(), lines.first(), "{mode}");
    }
}

#[test]
fn with_a_standby_worker_no_client_waits_for_a_start() {
    use crate::common::gates::Gates;
    let gates = Gates::new();
    let server = Launch::testbed("script", "process")
        .and(&[
            "workers=2",
            "standby=1",
            "dispatch=client-address",
            &gates.flag(),
        ])
        .start();
    let standby = stand_by(&server, 1)[0];
    let mut client = Client::connect(server.address());
    let pid = client.ask_number("pid");
    gates.hold_starts();
    let victim = Process::find(pid).expect("the worker that has answered");
    victim.signal(Signal::SIGKILL);
    // Only the worker in its seat can answer, and no new worker gets ready.
    assert_eq!(client.ask_number("pid"), standby.pid);
    // Now no worker is on standby: the next death has to be waited for.
    standby.signal(Signal::SIGKILL);
    eventually(SOON, "it is reaped", || standby.is_reaped());
    client.send(b"pid\n");
    keeps(Duration::from_millis(300), "it waits", || {
        !client.has_news()
    });
    gates.let_start();
    let next: i32 = client.read_line().parse().expect("a pid");
    assert!(next != standby.pid && next != victim.pid);
}
