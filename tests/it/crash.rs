//! Workers that die: their clients, the log, and their replacement.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::client::Client;
use crate::common::launch::Launch;
use crate::common::process::Process;
use crate::common::server::Server;
use crate::common::traffic::{Habit, Tally, Traffic};
use crate::common::{SOON, eventually, eventually_some, keeps};
use nix::sys::signal::Signal;
use procfs::net::TcpState;

/// How long workers are killed. `make stress` does it for longer, and in more ways.
const KILLING: Duration = Duration::from_secs(10);

/// Kills a worker every 100 ms, the two in turn, while 50 clients ask. Returns the outcome of the questions, and the kills.
fn kill_workers_under_load(on_crash: &str, habit: Habit) -> (Tally, u64) {
    let server = Launch::serve(&["--workers", "2", "--work", "1", "--on-crash", on_crash]).start();
    let mut traffic = Traffic::start(server.address(), 50, habit);
    traffic.each_is_answered();
    let begin = Instant::now();
    let (mut rounds, mut kills) = (0_u32, 0);
    while begin.elapsed() < KILLING {
        rounds += 1;
        thread::sleep(
            (begin + Duration::from_millis(100) * rounds).saturating_duration_since(Instant::now()),
        );
        let workers = server.workers();
        // There is no worker while both wait to be restarted.
        if let Some(worker) = workers.get(rounds as usize % workers.len().max(1)) {
            worker.signal(Signal::SIGKILL);
            kills += 1;
        }
    }
    let tally = traffic.finish();
    eprintln!("--on-crash {on_crash}: {kills} kills, {tally:?}");
    assert!(kills >= 10, "{kills} kills prove nothing");
    (tally, kills)
}

#[test]
fn with_redeliver_no_client_notices_that_workers_are_killed() {
    // More attempts than are used up by chance; another test counts them, with a message that always kills.
    let (tally, _) = kill_workers_under_load("redeliver=20", Habit::Stay);
    tally.is_clean();
}

#[test]
fn with_close_every_unanswered_request_ends_in_a_closed_connection() {
    let (tally, kills) = kill_workers_under_load("close", Habit::ComeBack);
    assert_eq!(
        (tally.lost, tally.duplicated, tally.corrupt),
        (0, 0, 0),
        "{tally:#?}"
    );
    assert!(
        tally.dropped <= kills,
        "one message was under way for each kill at most: {kills} kills, {tally:#?}"
    );
    assert!(
        tally.longest_to_drop < SOON / 2,
        "closed at once, not by a time limit: {tally:#?}"
    );
}

#[test]
fn an_idle_worker_that_is_killed_costs_no_client_its_connection() {
    for on_crash in ["close", "redeliver", "keep"] {
        let server = Launch::serve(&["--workers", "1", "--on-crash", on_crash]).start();
        let mut clients: Vec<Client> = (0..20).map(|_| Client::connect(server.address())).collect();
        clients.iter_mut().for_each(|client| client.echo(b"before"));
        let worker = server.workers()[0];
        worker.signal(Signal::SIGKILL);
        clients.iter_mut().for_each(|client| client.echo(b"after"));
        server.logged(
            1,
            &[&format!(
                "worker#0[pid={}] abnormal exit, status=0, signal=9",
                worker.pid
            )],
        );
    }
}

#[test]
fn a_base_worker_that_is_killed_takes_only_its_own_connections() {
    let server = Launch::serve(&["--mode", "base", "--workers", "2"]).start();
    let mut clients: Vec<Client> = (0..20).map(|_| Client::connect(server.address())).collect();
    clients.iter_mut().for_each(|client| client.echo(b"before"));
    let victim = server.workers()[0];
    let held = victim.sockets();
    let is_held = |client: &Client| held.contains(&client.accepted().inode);
    let (mut taken, mut others): (Vec<Client>, Vec<Client>) =
        clients.into_iter().partition(is_held);
    victim.signal(Signal::SIGKILL);
    taken.iter_mut().for_each(Client::expect_closed);
    others.iter_mut().for_each(|client| client.echo(b"after"));
    server.new_workers(2, &[victim]);
    Client::connect(server.address()).echo(b"new");
}

#[test]
fn the_exit_of_a_worker_is_logged() {
    for mode in ["process", "base"] {
        for (fault, ending) in [
            ("exit=255", "status=255, signal=0"),
            ("abort", "status=0, signal=6 (SIGABRT)"),
            ("segv", "status=0, signal=11 (SIGSEGV)"),
        ] {
            let server = Launch::serve(&[
                "--mode",
                mode,
                "--workers",
                "1",
                "--fault",
                &format!("receive:{fault}"),
            ])
            .start();
            die_of_a_message(&server, ending);
        }
    }
}

#[test]
fn a_worker_that_a_real_time_signal_ends_is_replaced_like_any_other() {
    for mode in ["process", "base"] {
        let server = Launch::serve(&["--mode", mode, "--workers", "2"]).start();
        let workers = server.workers();
        for worker in &workers {
            let pid = worker.pid.to_string();
            let sent = Command::new("kill").args(["-34", &pid]).status();
            assert!(sent.is_ok_and(|status| status.success()), "kill is there");
        }
        server.logged(2, &["abnormal exit, status=0, signal=34 (SIGRTMIN)"]);
        server.new_workers(2, &workers);
        Client::connect(server.address()).echo(b"served");
    }
}

#[test]
fn a_worker_that_leaves_in_a_callback_ends_abnormally_also_with_status_0() {
    for mode in ["process", "base"] {
        let server = Launch::serve(&[
            "--mode",
            mode,
            "--workers",
            "1",
            "--fault",
            "receive:exit=0",
        ])
        .start();
        die_of_a_message(
            &server,
            "status=0, signal=0 (exit(0) in receive of connection ",
        );
    }
}

/// Kills the only worker by a message: the connection is closed, the exit is logged once, and a new worker starts.
#[track_caller]
fn die_of_a_message(server: &Server, ending: &str) {
    let worker = server.workers()[0];
    let mut client = Client::connect(server.address());
    client.send(b"x");
    client.expect_closed();
    server.new_workers(1, &[worker]);
    let exit = format!("worker#0[pid={}] abnormal exit, {ending}", worker.pid);
    assert_eq!(server.logged(1, &["WARN", &exit]).len(), 1, "logged once");
}

#[test]
fn a_panic_ends_the_worker_and_its_message_is_logged() {
    for mode in ["process", "base"] {
        for event in ["connect", "receive", "close"] {
            let server = Launch::serve(&[
                "--mode",
                mode,
                "--workers",
                "1",
                "--fault",
                &format!("{event}:panic"),
            ])
            .start();
            let worker = server.workers()[0];
            let mut client = Client::connect(server.address());
            // It may be closed already when `connect` panics.
            let _ = client.try_send(b"x");
            drop(client);
            server.logged(1, &[&format!("worker#0[pid={}] abnormal exit", worker.pid)]);
            let said = server
                .log()
                .with(&["panic", &worker.pid.to_string(), "worker#0"]);
            assert!(
                !said.is_empty(),
                "{mode}, {event}: the panic's message is logged"
            );
            server.new_workers(1, &[worker]);
        }
    }
}

#[test]
fn a_message_that_kills_every_worker_is_dropped_after_its_attempts() {
    let flags = [
        "--workers",
        "1",
        "--fault",
        "receive:exit=9",
        "--on-crash",
        "redeliver=3",
    ];
    let server = Launch::serve(&flags).start();
    let mut client = Client::connect(server.address());
    client.send(b"poison");
    client.expect_closed();
    let exits = server.logged(3, &["abnormal exit, status=9, signal=0"]);
    assert_eq!(exits.len(), 3, "it was run 3 times");
    let last = server.new_workers(1, &[]);
    keeps(Duration::from_secs(1), "the worker lives", || {
        server.workers() == last
    });
}

#[test]
fn with_keep_the_connection_of_a_lost_message_stays() {
    let server = Launch::serve(&[
        "--workers",
        "1",
        "--fault",
        "receive:exit=9",
        "--on-crash",
        "keep",
    ])
    .start();
    let worker = server.workers()[0];
    let mut client = Client::connect(server.address());
    client.send(b"x");
    server.new_workers(1, &[worker]);
    keeps(
        Duration::from_secs(2),
        "connected, and nothing is said",
        || {
            let state = client.server_side().map(|socket| socket.state);
            state == Some(TcpState::Established) && !client.has_news()
        },
    );
}

#[test]
fn a_message_that_was_not_begun_goes_to_the_next_worker() {
    let flags = [
        "--workers",
        "1",
        "--reactors",
        "1",
        "--work",
        "1500",
        "--on-crash",
        "close",
    ];
    let server = Launch::serve(&flags).start();
    let worker = server.workers()[0];
    let [mut first, mut second, mut third] = [(); 3].map(|()| Client::connect(server.address()));
    first.send(b"under way");
    eventually(SOON, "the worker is in its callback", || {
        worker.is_asleep_in_a_callback()
    });
    worker.signal(Signal::SIGSTOP); // It stays in its callback, however long the rest takes.
    second.send(b"not begun");
    third.send(b"not begun either");
    second.wait_until_read();
    third.wait_until_read();
    worker.signal(Signal::SIGKILL);
    first.expect_closed();
    second.expect(b"not begun");
    third.expect(b"not begun either");
}

/// Two clients on two seats, and which worker serves the first one.
#[track_caller]
fn one_client_a_seat(server: &Server) -> (Client, Client, Process) {
    let [mut first, mut second] = [(); 2].map(|()| Client::connect(server.address()));
    first.echo(b"up");
    second.echo(b"up");
    let workers = server.workers();
    workers[0].signal(Signal::SIGSTOP);
    first.send(b"?");
    second.send(b"?");
    eventually(SOON, "the worker that goes on answers", || {
        first.has_news() || second.has_news()
    });
    let of_first = if first.has_news() {
        workers[1]
    } else {
        workers[0]
    };
    workers[0].signal(Signal::SIGCONT);
    first.expect(b"?");
    second.expect(b"?");
    (first, second, of_first)
}

#[test]
fn a_worker_that_keeps_dying_is_restarted_ever_more_slowly_while_the_others_serve() {
    let server = Launch::serve(&["--workers", "2", "--reactors", "1"]).start();
    let (mut victim, mut steady, mut worker) = one_client_a_seat(&server);
    let steady_worker = *server
        .workers()
        .iter()
        .find(|other| **other != worker)
        .unwrap();
    let mut gap = Duration::ZERO;
    let mut kills = 0;
    // Killed as soon as it waits for work, before its first callback, until its seat stays empty for a second.
    while gap < Duration::from_secs(1) {
        assert!(
            kills < 20,
            "killed {kills} times in a row, and the last gap is {gap:?}"
        );
        kills += 1;
        // As if by a fault of its own.
        worker.signal(Signal::SIGABRT);
        let died = Instant::now();
        eventually(SOON, "the dead worker is reaped", || worker.is_reaped());
        let mut served = 0;
        worker = eventually_some(SOON, "another worker in its place", || {
            steady.echo(b"here");
            served += 1;
            server
                .workers()
                .into_iter()
                .find(|worker| *worker != steady_worker)
        });
        gap = died.elapsed();
        assert!(served > 0, "the other seat serves meanwhile");
        eventually(SOON, "the new worker waits for work", || {
            worker.waits_for_events()
        });
    }
    victim.echo(b"and at last");
    let exits = server.logged(kills, &["abnormal exit, status=0, signal=6"]);
    assert_eq!(exits.len(), kills, "each exit is logged once");
    assert!(steady_worker.is_running());
}

#[test]
fn an_idle_worker_that_is_killed_from_outside_again_and_again_is_no_crash_loop() {
    for standby in ["0", "1"] {
        let flags = [
            "--workers",
            "1",
            "--standby",
            standby,
            "--fail-on-crash-loop",
            "1",
        ];
        let server = Launch::serve(&flags).start();
        for _ in 0..20 {
            let worker = server.named("tine worker#0")[0];
            eventually(SOON, "the worker waits for work", || {
                worker.waits_for_events()
            });
            worker.signal(Signal::SIGKILL);
            eventually_some(SOON, "another worker has the seat", || {
                let workers = server.named("tine worker#0");
                workers.into_iter().find(|it| *it != worker)
            });
        }
        Client::connect(server.address()).echo(b"served");
        let log = server.log();
        assert!(log.with(&["keeps dying"]).is_empty(), "{}", log.text());
    }
}
