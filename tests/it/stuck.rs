//! Workers that are stuck, or do not start: which connections wait for them, and which do not.

use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::common::client::Client;
use crate::common::gates::Gates;
use crate::common::launch::Launch;
use crate::common::process::Process;
use crate::common::server::Server;
use crate::common::sockets::{is_all_read, is_listening};
use crate::common::{SOON, eventually, keeps};

fn script(dispatch: &str, gates: &Gates) -> Server {
    Launch::testbed("script", "process")
        .and(&["workers=2", "reactors=1", "shutdown-deadline=60"])
        .and(&[&format!("dispatch={dispatch}"), &gates.flag()])
        .start()
}

/// Clients by the seat that serves them, `each` in each seat.
#[track_caller]
fn by_seat(server: &Server, each: usize) -> [Vec<Client>; 2] {
    let mut seats = [Vec::new(), Vec::new()];
    let mut nth = 0;
    while seats.iter().any(|clients| clients.len() < each) {
        assert!(nth < 50, "all addresses are on one seat");
        let mut client = Client::try_connect_nth(server.address(), nth).expect("it is let in");
        let seat = client.ask_number("seat") as usize;
        if seats[seat].len() < each {
            seats[seat].push(client);
        }
        nth += 1;
    }
    seats
}

#[track_caller]
fn worker_of(client: &mut Client) -> Process {
    let pid = client.ask_number("pid");
    Process::find(pid).unwrap_or_else(|| panic!("no process {pid}"))
}

/// Returns the number before `s;` in a line of the log.
#[track_caller]
fn seconds_of(line: &str) -> f64 {
    let before = line.split(" s;").next().unwrap_or_default();
    let number = before.rsplit(' ').next().unwrap_or_default();
    number.parse().unwrap_or_else(|_| panic!("seconds: {line}"))
}

#[test]
fn a_stuck_worker_is_logged_with_what_waits_for_it() {
    let gates = Gates::new();
    let server = script("least-connections", &gates);
    let [mut others, mut stuck] = by_seat(&server, 4);
    let worker = worker_of(&mut stuck[0]);
    stuck[0].send(b"wait gate\n");
    eventually(SOON, "the worker is in its callback", || {
        worker.is_asleep_in_a_callback()
    });
    for client in &mut stuck[1..] {
        client.send(b"echo on\n");
    }
    let said = server.logged(
        2,
        &[
            "WARN",
            "worker#1 has finished no callback for",
            "waiting in its inbox: 3,",
        ],
    );
    let [first, second] = [&said[0], &said[1]].map(|line| seconds_of(line));
    assert!(
        second >= 2.0 * first - 0.1,
        "said each time it has doubled: {said:#?}"
    );
    for client in &mut others {
        assert_eq!(client.ask("seat"), "0");
    }
    assert!(
        server
            .log()
            .with(&["worker#0 has finished no callback"])
            .is_empty()
    );
    gates.open("gate");
    assert!(stuck[0].read_line().starts_with("waited"));
    for client in &mut stuck[1..] {
        assert_eq!(client.read_line(), "echo on");
    }
}

#[test]
fn a_stopped_worker_delays_only_its_own_connections() {
    let gates = Gates::new();
    let server = script("least-connections", &gates);
    let [mut others, mut stopped] = by_seat(&server, 3);
    let worker = worker_of(&mut stopped[0]);
    worker.signal(Signal::SIGSTOP);
    for client in &mut stopped {
        client.send(b"pid\necho on\n");
        client.wait_until_read();
    }
    for _ in 0..50 {
        for client in &mut others {
            assert_eq!(client.ask("seat"), "0");
        }
    }
    assert!(!stopped.iter().any(Client::has_news));
    worker.signal(Signal::SIGCONT);
    for client in &mut stopped {
        assert_eq!(client.read_line(), worker.pid.to_string());
        assert_eq!(client.read_line(), "echo on");
    }
    assert!(server.log().with(&["abnormal exit"]).is_empty());
}

#[test]
fn connections_that_may_move_do_not_wait_for_an_empty_seat() {
    for dispatch in ["least-connections", "round-robin", "least-busy", "user-id"] {
        let gates = Gates::new();
        let server = script(dispatch, &gates);
        let mut clients: Vec<Client> = (0..8).map(|_| Client::connect(server.address())).collect();
        let victim = worker_of(&mut clients[0]);
        let before = server.workers();
        gates.hold_starts();
        victim.signal(Signal::SIGKILL);
        for client in &mut clients {
            let pid = client.ask_number("pid");
            let was_there = before.iter().any(|worker| worker.pid == pid);
            assert!(was_there && pid != victim.pid, "{dispatch}");
        }
        Client::connect(server.address()).ask_number("pid");

        let after = server.new_workers(2, &[victim]);
        let is_new = |worker: &&Process| !before.contains(worker);
        let late = after.iter().find(is_new).expect("one is new");
        gates.let_start();
        eventually(SOON, "the new worker serves, too", || {
            Client::connect(server.address()).ask_number("pid") == late.pid
        });
    }
}

#[test]
fn connections_bound_to_a_seat_wait_for_its_next_worker() {
    let gates = Gates::new();
    let server = script("client-address", &gates);
    let [mut others, mut waiting] = by_seat(&server, 3);
    let victim = worker_of(&mut waiting[0]);
    gates.hold_starts();
    victim.signal(Signal::SIGKILL);
    eventually(SOON, "the dead worker is reaped", || victim.is_reaped());
    for client in &mut waiting {
        client.send(b"seat\necho on\n");
    }
    keeps(Duration::from_millis(500), "they wait", || {
        assert_eq!(others[0].ask("seat"), "0");
        !waiting.iter().any(Client::has_news)
    });
    gates.let_start();
    for client in &mut waiting {
        assert_eq!(client.read_line(), "1");
        assert_eq!(client.read_line(), "echo on");
    }
}

#[test]
fn a_server_that_shuts_down_answers_messages_behind_a_stuck_worker() {
    for dispatch in ["least-connections", "least-busy", "client-address", "route"] {
        let gates = Gates::new();
        let mut server = script(dispatch, &gates);
        let mut clients: Vec<Client> = (0..10).map(|_| Client::connect(server.address())).collect();
        clients[0].ask("seat");
        clients[0].send(b"wait gate\necho behind\n");
        eventually(SOON, "a worker is in its callback", || {
            let workers = server.workers();
            workers.iter().any(|it| it.is_asleep_in_a_callback())
        });
        for client in &mut clients[1..] {
            client.send(b"echo last\n");
        }
        eventually(SOON, "all of it is read", || is_all_read(server.address()));
        server.signal(Signal::SIGTERM);
        eventually(SOON, "it accepts no more", || {
            !is_listening(server.address())
        });
        gates.open("gate");
        assert!(clients[0].read_line().starts_with("waited"));
        assert_eq!(clients[0].read_to_end(), b"echo behind\n", "{dispatch}");
        for client in &mut clients[1..] {
            assert_eq!(client.read_to_end(), b"echo last\n", "{dispatch}");
        }
        drop(clients);
        assert!(server.ended(SOON).success(), "{dispatch}");
        let log = server.log();
        assert!(log.with(&["abnormal exit"]).is_empty(), "{}", log.text());
        assert!(log.with(&["forced shutdown"]).is_empty(), "{}", log.text());
    }
}

#[test]
fn a_server_that_shuts_down_fills_an_empty_seat_at_once() {
    let server = Launch::testbed("script", "process")
        .and(&["workers=1", "shutdown-deadline=2"])
        .start();
    let mut client = Client::connect(server.address());
    client.ask("seat");
    // It ends before its first callback, as if by a fault of its own, until its seat stays empty for longer than the deadline.
    eventually(SOON, "the next worker starts late", || {
        for worker in server.workers() {
            worker.signal(Signal::SIGABRT);
        }
        !server
            .log()
            .with(&["the next one starts in 3.2s"])
            .is_empty()
    });
    client.send(b"echo last\n");
    client.wait_until_read();
    server.signal(Signal::SIGTERM);
    assert_eq!(client.read_to_end(), b"echo last\n");
}

/// One client always has twenty short messages outstanding, and each of the others asks once meanwhile. Checks that these
/// are answered before the first client has sent all its messages.
#[track_caller]
fn no_other_client_waits_for_all_of(busy: &mut Client, others: &mut [Client]) {
    const MESSAGES: usize = 500;
    const AHEAD: usize = 20;
    let ends = |line: &str| {
        line.split(' ')
            .nth(2)
            .and_then(|end| end.parse::<u64>().ok())
    };
    let mut answered = None;
    let all_done = thread::scope(|scope| {
        busy.send("span 0 4000\n".repeat(AHEAD).as_bytes());
        busy.read_line();
        let asking = scope.spawn(|| {
            for _ in AHEAD..MESSAGES {
                busy.send(b"span 0 4000\n");
                busy.read_line();
            }
            let rest = (1..AHEAD).map(|_| ends(&busy.read_line()));
            rest.max()
        });
        for client in others {
            answered = answered.max(Some(ends(&client.ask("span 0 0"))));
        }
        asking.join().expect("it is answered")
    });
    assert!(
        answered < all_done,
        "no client waited for all messages of the busy one"
    );
}

#[test]
fn least_busy_does_not_feed_a_worker_that_is_stuck() {
    let gates = Gates::new();
    let server = script("least-busy", &gates);
    let mut clients: Vec<Client> = (0..9).map(|_| Client::connect(server.address())).collect();
    for client in &mut clients {
        client.ask_number("pid");
    }
    let mut stuck = clients.pop().expect("nine");
    stuck.send(b"wait gate\n");
    eventually(SOON, "a worker is in its callback", || {
        let workers = server.workers();
        workers.iter().any(|it| it.is_asleep_in_a_callback())
    });
    // It has no other message; the other worker always has one.
    let (busy, others) = clients.split_first_mut().expect("eight");
    no_other_client_waits_for_all_of(busy, others);
    assert!(!stuck.has_news());
}

#[test]
fn least_busy_does_not_feed_a_worker_that_is_stopped() {
    let gates = Gates::new();
    let server = script("least-busy", &gates);
    let mut clients: Vec<Client> = (0..8).map(|_| Client::connect(server.address())).collect();
    for client in &mut clients {
        client.ask_number("pid");
    }
    server.workers()[0].signal(Signal::SIGSTOP);
    let (busy, others) = clients.split_first_mut().expect("eight");
    no_other_client_waits_for_all_of(busy, others);
}
