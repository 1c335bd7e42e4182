//! Base mode: which worker accepts a client. Stuck workers accept none, and the others equal parts.

use std::collections::HashMap;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;

use crate::common::client::{Client, Knocking};
use crate::common::gates::Gates;
use crate::common::launch::Launch;
use crate::common::process::Process;
use crate::common::server::Server;
use crate::common::sockets::of_server;
use crate::common::{SOON, eventually, keeps};

const CLIENTS: usize = 1000;

fn script(workers: usize, gates: &Gates) -> Server {
    let workers = format!("workers={workers}");
    Launch::testbed("script", "base")
        .and(&[&workers, &gates.flag()])
        .start()
}

/// The tests hold many connections, each of which is a descriptor.
fn raise_the_limit_of_open_files() {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("limits can be read");
    setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("a limit can be raised");
}

/// A client with its worker stuck in its callback, and that worker.
#[track_caller]
fn stick(server: &Server) -> (Client, Process) {
    let mut client = Client::connect(server.address());
    let worker = worker_of(&mut client);
    client.send(b"wait gate\n");
    eventually(SOON, "the worker is in its callback", || {
        worker.is_asleep_in_a_callback()
    });
    (client, worker)
}

#[track_caller]
fn worker_of(client: &mut Client) -> Process {
    let pid = client.ask_number("pid");
    Process::find(pid).unwrap_or_else(|| panic!("no process {pid}"))
}

/// Whether no count is more than twice another.
fn are_alike(counts: &[usize]) -> bool {
    counts.iter().max() <= counts.iter().min().map(|least| least * 2).as_ref()
}

#[test]
fn clients_that_come_one_by_one_are_spread_over_the_idle_workers() {
    raise_the_limit_of_open_files();
    let gates = Gates::new();
    let server = script(4, &gates);
    let (mut blocked, stuck) = stick(&server);
    let mut clients = Vec::new();
    let mut counts = HashMap::new();
    for _ in 0..CLIENTS {
        let mut client = Client::connect(server.address());
        *counts.entry(client.ask_number("pid")).or_insert(0) += 1;
        clients.push(client);
    }
    assert!(!counts.contains_key(&stuck.pid), "{counts:?}");
    let counts: Vec<usize> = counts.into_values().collect();
    assert!(counts.len() == 3 && are_alike(&counts), "{counts:?}");
    gates.open("gate");
    assert!(blocked.read_line().starts_with("waited"));
}

#[test]
fn clients_that_come_at_once_are_spread_over_the_idle_workers() {
    raise_the_limit_of_open_files();
    let gates = Gates::new();
    let server = script(4, &gates);
    let (_blocked, stuck) = stick(&server);
    let mut idle = server.workers();
    idle.retain(|worker| *worker != stuck);
    let (before, held) = (stuck.sockets(), |worker: &Process| worker.sockets().len());
    // A worker that the machine does not let run accepts no client: then it is done again.
    let is_spread = (0..20).any(|_| {
        let had: Vec<usize> = idle.iter().map(held).collect();
        let clients: Vec<Knocking> = (0..CLIENTS)
            .map(|_| Knocking::begin(server.address()))
            .collect();
        eventually(SOON, "all are accepted", || {
            let of_server = of_server(server.address());
            of_server.len() == clients.len() + 1 && of_server.iter().all(|it| it.inode != 0)
        });
        assert_eq!(
            stuck.sockets(),
            before,
            "the stuck worker accepts no client"
        );
        let now = idle.iter().map(held);
        let counts: Vec<usize> = now.zip(had).map(|(now, had)| now - had).collect();
        assert_eq!(counts.iter().sum::<usize>(), CLIENTS, "{counts:?}");
        drop(clients);
        eventually(SOON, "all are closed", || {
            of_server(server.address()).len() == 1
        });
        are_alike(&counts)
    });
    assert!(is_spread);
}

#[test]
fn no_client_waits_for_a_stopped_worker() {
    let gates = Gates::new();
    let server = script(3, &gates);
    let mut clients: Vec<Client> = (0..30).map(|_| Client::connect(server.address())).collect();
    for client in &mut clients {
        client.ask("pid");
    }
    // The stopped worker is asleep, and looks as if it could accept.
    let stopped = [server.workers()[0], server.workers()[1]];
    for worker in stopped {
        worker.signal(Signal::SIGSTOP);
        eventually(SOON, "it is stopped", || worker.is_stopped());
    }
    for _ in 0..100 {
        let mut client = Client::connect(server.address());
        let worker = worker_of(&mut client);
        assert!(!stopped.contains(&worker));
        clients.push(client);
    }
}

#[test]
fn no_client_waits_for_a_worker_that_is_stopped_when_the_kernel_wakes_it() {
    let gates = Gates::new();
    let server = script(3, &gates);
    let workers = server.workers();
    for round in 0..200 {
        for worker in &workers {
            eventually(SOON, "it sleeps", || worker.waits_for_events());
        }
        let client = Client::connect(server.address());
        // The one that the kernel has woken is mostly among these, and has not run yet.
        let stopped = [workers[round % 3], workers[(round + 1) % 3]];
        for worker in stopped {
            worker.signal(Signal::SIGSTOP);
        }
        eventually(SOON, "some worker has accepted the client", || {
            let of_server = of_server(server.address());
            of_server.len() == 1 && of_server[0].inode != 0
        });
        for worker in stopped {
            worker.signal(Signal::SIGCONT);
        }
        drop(client);
        eventually(SOON, "it is closed", || {
            of_server(server.address()).is_empty()
        });
    }
}

#[test]
fn a_worker_that_has_forked_sleeps_when_its_clients_have_left() {
    let gates = Gates::new();
    let server = script(1, &gates);
    let (mut stays, mut leaves) = (
        Client::connect(server.address()),
        Client::connect(server.address()),
    );
    let worker = worker_of(&mut leaves);
    assert_eq!(stays.ask("fork"), "forked");
    let gone = leaves.accepted().inode;
    leaves.half_close();
    eventually(SOON, "the worker has closed its copy", || {
        !worker.sockets().contains(&gone)
    });
    drop(leaves);
    // An event that epoll reports in a loop keeps it awake.
    let used = worker.cpu_seconds();
    keeps(Duration::from_millis(500), "the worker sleeps", || {
        worker.cpu_seconds() - used < 0.2
    });
    assert_eq!(stays.ask("echo on"), "echo on");
}
