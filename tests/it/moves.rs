//! Base mode: the connections of a worker that leaves go to other workers, as they are.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::common::client::Client;
use crate::common::gates::Gates;
use crate::common::launch::Launch;
use crate::common::process::{Process, limit_descriptors};
use crate::common::server::Server;
use crate::common::sockets::{is_listening, of_server};
use crate::common::{SOON, eventually, eventually_some};

fn script(options: &[&str]) -> Server {
    Launch::testbed("script", "base")
        .and(&["shutdown-deadline=60"])
        .and(options)
        .start()
}

/// Replaces every worker, and waits until the old ones are gone.
#[track_caller]
fn replace(server: &Server, count: usize) {
    let old = server.workers();
    server.signal(Signal::SIGUSR1);
    server.new_workers(count, &old);
    for worker in old {
        eventually(SOON, "the old worker is reaped", || worker.is_reaped());
    }
}

/// Stops the server, which has to end before its shutdown deadline, and checks that no worker died or was killed.
#[track_caller]
fn ends_in_order(mut server: Server) {
    server.signal(Signal::SIGTERM);
    assert!(server.ended(SOON).success(), "{}", server.log().text());
    let log = server.whole_log();
    for word in ["abnormal exit", "did not leave", "deadline has passed"] {
        assert!(log.with(&[word]).is_empty(), "{}", log.text());
    }
}

#[test]
fn a_connection_keeps_its_id_and_has_one_connect_and_one_close() {
    let server = script(&["workers=2"]);
    let mut client = Client::connect(server.address());
    let mut neighbour = Client::connect(server.address());
    let id = client.ask("id");
    for _ in 0..5 {
        let pid = client.ask("pid");
        replace(&server, 2);
        assert_ne!(client.ask("pid"), pid, "in a new worker");
        assert_eq!(client.ask("id"), id);
        // By its id, from its own callback.
        assert_eq!(client.ask(&format!("to {id} hello")), "hello");
        assert_eq!(client.read_line(), "Ok(())");
        let are_together = neighbour.ask("pid") == client.ask("pid");
        let answer = neighbour.ask(&format!("to {id} hello"));
        if are_together {
            assert_eq!((&answer[..], &client.read_line()[..]), ("Ok(())", "hello"));
        } else {
            assert!(answer.contains("OtherWorker"), "{answer}");
        }
    }
    let worker = Process::find(client.ask_number("pid")).expect("it runs");
    assert_eq!(server.log().with(&["connect of"]).len(), 2);
    assert!(server.log().with(&["close of"]).is_empty());
    client.half_close();
    assert_eq!(client.read_to_end(), b"");
    let closed = server.logged(1, &["close of"]);
    assert!(
        closed[0].contains(&format!("[{}]", worker.pid)),
        "{closed:?}"
    );
    ends_in_order(server);
}

#[test]
fn an_incomplete_message_moves() {
    let server = script(&["workers=1"]);
    let mut client = Client::connect(server.address());
    client.ask("pid");
    let text = "x".repeat(60_000);
    for len in [1, 5, 59_000] {
        let message = format!("echo {text}\n");
        let (first, rest) = message.split_at(len);
        client.send(first.as_bytes());
        client.wait_until_read();
        replace(&server, 1);
        client.send(rest.as_bytes());
        assert_eq!(client.read_line(), message.trim_end(), "{len}");
    }
    ends_in_order(server);
}

#[test]
fn idle_connections_all_move() {
    let server = script(&["workers=2", "shutdown-deadline=60"]);
    let mut clients: Vec<Client> = (0..300)
        .map(|_| Client::connect(server.address()))
        .collect();
    for client in &mut clients {
        client.ask("pid");
    }
    let manager = server.manager();
    let before = manager.sockets().len();
    for _ in 0..3 {
        // The deadline is a minute: none is served by an old worker until then.
        replace(&server, 2);
    }
    for client in &mut clients {
        client.ask("pid");
    }
    assert_eq!(
        manager.sockets().len(),
        before,
        "no descriptor stays behind"
    );
    assert_eq!(of_server(server.address()).len(), 300);
    ends_in_order(server);
}

#[test]
fn a_slow_reader_stays_until_it_has_its_answer() {
    let server = script(&["workers=1", "shutdown-deadline=60"]);
    let mut slow = Client::connect_narrow(server.address());
    let old = server.workers()[0];
    slow.send(b"big 3000000\n");
    slow.await_bytes();
    let mut idle = Client::connect(server.address());
    assert_eq!(idle.ask_number("pid"), old.pid);
    server.signal(Signal::SIGUSR1);
    // The old worker gives away what can be given.
    eventually(SOON, "the idle connection has moved", || {
        idle.ask_number("pid") != old.pid
    });
    assert!(old.is_running(), "it has output for its slow reader");
    let mut answer = vec![0; 3_000_000];
    let mut filled = 0;
    while filled < answer.len() {
        filled += slow
            .try_read(&mut answer[filled..])
            .expect("the rest comes");
    }
    assert!(answer.iter().all(|byte| *byte == b'x'));
    assert_ne!(slow.ask_number("pid"), old.pid);
    eventually(SOON, "the old worker is reaped", || old.is_reaped());
    ends_in_order(server);
}

#[test]
fn connections_pass_by_a_worker_that_is_stuck() {
    let gates = Gates::new();
    let server = script(&["workers=3", &gates.flag()]);
    let mut stuck = Client::connect(server.address());
    let worker = Process::find(stuck.ask_number("pid")).expect("it runs");
    let mut clients: Vec<Client> = (0..60).map(|_| Client::connect(server.address())).collect();
    let mut old = Vec::new();
    for client in &mut clients {
        old.push(client.ask_number("pid"));
    }
    stuck.send(b"wait gate\n");
    eventually(SOON, "the worker is in its callback", || {
        worker.is_asleep_in_a_callback()
    });
    let leaves = server.workers();
    let leaves = leaves.iter().find(|it| **it != worker).expect("three");
    leaves.signal(Signal::SIGTERM);
    eventually(SOON, "it has left", || leaves.is_reaped());
    for (client, old) in clients.iter_mut().zip(old) {
        if old != worker.pid {
            let now = client.ask_number("pid");
            assert!(now != worker.pid && now != leaves.pid);
        }
    }
    gates.open("gate");
    assert_eq!(stuck.read_line(), format!("waited {}", worker.pid));
    ends_in_order(server);
}

#[test]
fn a_connection_whose_worker_has_forked_ends_for_its_client() {
    let server = script(&["workers=1"]);
    let mut client = Client::connect(server.address());
    assert_eq!(client.ask("fork"), "forked");
    replace(&server, 1);
    assert_eq!(client.ask("close"), "bye");
    client.expect_closed();
    ends_in_order(server);
}

#[test]
fn the_silence_of_a_client_counts_across_workers() {
    let server = script(&["workers=1", "idle=3"]);
    let mut client = Client::connect(server.address());
    // Before its last sign of life.
    let begin = std::time::Instant::now();
    client.ask("pid");
    while !client.has_news() {
        // Each worker has it for less than the deadline.
        replace(&server, 1);
        assert!(begin.elapsed() < SOON, "it is never closed");
    }
    assert_eq!(client.read_to_end(), b"");
    server.logged(1, &["ended at the idle deadline"]);
    assert!(begin.elapsed() >= Duration::from_millis(2900));
}

/// Waits until this many connections that no worker has yet are in the manager.
#[track_caller]
fn are_in_the_manager(server: &Server, before: usize, count: std::ops::RangeInclusive<usize>) {
    let what = format!("{count:?} connections are in the manager");
    eventually(SOON, what, || {
        let sockets = server.manager().sockets().len();
        count.contains(&sockets.saturating_sub(before))
    });
}

/// A client in whose callback the worker of a server with one is blocked until `gate` is opened.
#[track_caller]
fn block(server: &Server) -> (Client, Process) {
    let mut client = Client::connect(server.address());
    let worker = server.named("tine worker#0")[0];
    client.send(b"wait gate\n");
    eventually(SOON, "the worker is in its callback", || {
        worker.is_asleep_in_a_callback()
    });
    (client, worker)
}

#[track_caller]
fn is_closed(server: &Server) {
    // Without a client, which would wait for a worker.
    eventually(SOON, "the port is closed", || {
        !is_listening(server.address())
    });
}

#[test]
fn clients_of_workers_with_long_callbacks_are_served_after_a_reload() {
    const CLIENTS: usize = 16;
    let server = script(&["workers=2"]);
    let mut clients: Vec<Client> = (0..CLIENTS)
        .map(|_| Client::connect(server.address()))
        .collect();
    // Each has a question under way all the time, of 60 ms for its worker.
    for client in &mut clients {
        client.send(b"span 0 60000\n");
    }
    // Until each client has two more answers: the first one may be older.
    let serve = |clients: &mut [Client], is_over: &dyn Fn() -> bool| {
        let mut answered = [0; CLIENTS];
        eventually(SOON, "every client is answered", || {
            for (client, count) in clients.iter_mut().zip(&mut answered) {
                if client.has_news() {
                    client.read_line();
                    client.send(b"span 0 60000\n");
                    *count += 1;
                }
            }
            is_over() && answered.iter().all(|count| *count >= 2)
        });
    };
    serve(&mut clients, &|| true);
    for _ in 0..2 {
        let old = server.workers();
        server.signal(Signal::SIGUSR1);
        serve(&mut clients, &|| old.iter().all(|it| it.is_reaped()));
        serve(&mut clients, &|| true);
    }
    for client in &mut clients {
        client.read_line();
    }
    ends_in_order(server);
}

#[test]
fn connections_go_to_a_worker_that_is_stuck_if_there_is_no_other() {
    let gates = Gates::new();
    let server = script(&["workers=1", &gates.flag()]);
    let (mut blocked, worker) = block(&server);
    let before = server.manager().sockets().len();
    let mut waiting: Vec<Client> = (0..20).map(|_| Client::connect(server.address())).collect();
    server.signal(Signal::SIGTERM);
    server.logged(1, &["shutting down"]);
    // Some are on their way, and the others have to wait for those.
    are_in_the_manager(&server, before, 1..=4);
    for client in &mut waiting {
        client.send(b"echo served\n");
    }
    gates.open("gate");
    assert_eq!(blocked.read_line(), format!("waited {}", worker.pid));
    for client in &mut waiting {
        assert_eq!(client.read_line(), "echo served");
    }
    ends_in_order(server);
}

#[test]
fn a_server_whose_worker_is_busy_when_the_port_closes_ends_as_soon_as_it_can() {
    let gates = Gates::new();
    let server = script(&["workers=1", &gates.flag()]);
    let mut client = Client::connect(server.address());
    client.accepted();
    server.signal(Signal::SIGTERM);
    server.logged(1, &["shutting down"]);
    // The worker knows of the stop, and the port is open for a moment. On a busy machine the question may come later, when
    // there is nothing to be seen.
    let asked = client.try_send(b"wait gate\n");
    is_closed(&server);
    gates.open("gate");
    let answer = asked.and_then(|()| client.try_read(&mut [0; 100]));
    eprintln!("answered: {answer:?}");
    ends_in_order(server);
}

#[test]
fn a_server_that_stops_without_a_worker_in_its_seat_does_not_wait_for_one() {
    let gates = Gates::new();
    let mut server = script(&["workers=1", "standby=1", &gates.flag()]);
    eventually(SOON, "there is a standby worker", || {
        server.workers().len() == 2
    });
    let (mut blocked, worker) = block(&server);
    let mut waiting = Client::connect(server.address());
    server.signal(Signal::SIGTERM);
    server.logged(1, &["shutting down"]);
    worker.signal(Signal::SIGKILL);
    blocked.expect_closed();
    assert_eq!(waiting.read_until_reset(), b"");
    // Before the shutdown deadline, which is a minute.
    server.ended(SOON);
    let log = server.whole_log();
    assert_eq!(log.with(&["did not leave"]), [""; 0]);
    assert_eq!(log.with(&["abnormal exit", "signal=9"]).len(), 1);
}

#[test]
fn a_worker_that_could_not_take_connections_takes_others_later() {
    let gates = Gates::new();
    let server = script(&["workers=1", &gates.flag()]);
    let old = server.workers()[0];
    let mut clients: Vec<Client> = (0..40).map(|_| Client::connect(server.address())).collect();
    for client in &mut clients {
        assert_eq!(client.ask_number("pid"), old.pid);
    }
    gates.hold_starts();
    server.signal(Signal::SIGUSR1);
    let new = eventually_some(SOON, "the new worker starts", || {
        server.workers().into_iter().find(|worker| *worker != old)
    });
    // Until it is held, it still has descriptors of the manager's.
    eventually(SOON, "its start is held", || new.is_asleep_in_a_callback());
    let limit = u64::try_from(new.descriptors() + 6).expect("some");
    limit_descriptors(new, limit);
    gates.let_start();
    // More than are on their way to a worker at a time.
    eventually(SOON, "most connections are lost", || {
        clients.iter().filter(|client| client.has_news()).count() >= 25
    });
    server.logged(1, &["a connection of another worker is closed"]);
    limit_descriptors(new, 10_000);
    eventually(SOON, "the old worker is reaped", || old.is_reaped());
    drop(clients);
    let before = server.manager().sockets().len();
    let mut blocked = Client::connect(server.address());
    blocked.send(b"wait gate\n");
    eventually(SOON, "the worker is in its callback", || {
        new.is_asleep_in_a_callback()
    });
    let mut waiting = Client::connect(server.address());
    server.signal(Signal::SIGTERM);
    server.logged(1, &["shutting down"]);
    waiting.send(b"echo served\n");
    are_in_the_manager(&server, before, 0..=0);
    gates.open("gate");
    assert_eq!(waiting.read_line(), "echo served");
    assert_eq!(blocked.read_line(), format!("waited {}", new.pid));
    ends_in_order(server);
}
