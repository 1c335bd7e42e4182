//! The server as a tree of processes: signals, the death of each process, and its life as the first process of a container.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::common::client::Client;
use crate::common::gates::Gates;
use crate::common::launch::Launch;
use crate::common::process::Process;
use crate::common::server::Server;
use crate::common::sockets::{accept_queue, is_listening, of_server};
use crate::common::traffic::{Habit, Traffic};
use crate::common::{SOON, eventually, eventually_some, keeps};
use nix::sys::signal::Signal;

const MODES: [&str; 2] = ["process", "base"];

/// A server with two workers, one of them blocked by a client until the end, and one idle client.
#[track_caller]
fn busy_server(mode: &str, flags: &[&str]) -> (Server, [Client; 2]) {
    let server = Launch::serve(&[
        "--mode",
        mode,
        "--workers",
        "2",
        "--fault",
        "receive:sleep=1000",
    ])
    .and(flags)
    .start();
    let mut blocker = Client::connect(server.address());
    blocker.send(b"x");
    blocker.wait_until_read();
    let is_blocked = || {
        server
            .workers()
            .iter()
            .any(|worker| worker.is_asleep_in_a_callback())
    };
    eventually(SOON, "a worker is blocked", is_blocked);
    let idle = Client::connect(server.address());
    idle.accepted();
    (server, [blocker, idle])
}

#[test]
fn a_killed_master_leaves_no_process_and_no_port() {
    let (mut server, mut clients) = busy_server("process", &[]);
    let processes = server.processes();
    assert_eq!(processes.len(), 4, "master, manager and two workers");
    server.master().signal(Signal::SIGKILL);
    server.leaves_nothing(&processes);
    clients.iter_mut().for_each(Client::expect_closed);
}

#[test]
fn a_killed_manager_leaves_no_process_and_no_port() {
    for mode in MODES {
        let (mut server, mut clients) = busy_server(mode, &[]);
        let processes = server.processes();
        server.manager().signal(Signal::SIGKILL);
        assert!(!server.ended(SOON).success(), "{mode}: it is an error");
        server.leaves_nothing(&processes);
        clients.iter_mut().for_each(Client::expect_closed);
    }
}

#[test]
fn a_killed_worker_is_replaced_and_leaves_no_process() {
    for mode in MODES {
        let (mut server, _clients) = busy_server(mode, &[]);
        let workers = server.workers();
        for worker in &workers {
            worker.signal(Signal::SIGKILL);
        }
        server.new_workers(2, &workers);
        for worker in workers {
            eventually(SOON, "the killed worker is reaped", || worker.is_reaped());
        }
        assert_eq!(
            server
                .logged(2, &["abnormal exit, status=0, signal=9"])
                .len(),
            2,
            "{mode}"
        );
        // With new workers it still ends in order.
        let processes = server.processes();
        server.signal(Signal::SIGTERM);
        assert!(server.ended(SOON).success(), "{mode}");
        server.leaves_nothing(&processes);
    }
}

/// Stops the server while an answer is outstanding, and checks that it comes, and that the server then ends.
#[track_caller]
fn stops_gracefully(mode: &str, stop: impl FnOnce(&Server)) {
    let gates = Gates::new();
    let mut server = Launch::testbed("script", mode)
        .and(&[&gates.flag()])
        .start();
    let processes = server.processes();
    let mut idle = Client::connect(server.address());
    idle.accepted();
    // A base worker has read one request. The master reads them all: two callbacks run, and two requests wait.
    let (rounds, at_once) = if mode == "base" { (2, 1) } else { (1, 4) };
    let mut clients = Vec::new();
    for _ in 0..rounds {
        let from = clients.len();
        clients.extend((0..at_once).map(|_| Client::connect(server.address())));
        clients[from..]
            .iter_mut()
            .for_each(|client| client.send(b"wait gate\n"));
        clients[from..].iter().for_each(Client::wait_until_read);
    }
    eventually(SOON, "a worker is at work", || {
        server
            .workers()
            .iter()
            .any(|worker| worker.is_asleep_in_a_callback())
    });
    stop(&server);
    eventually(SOON, "no client is accepted any more", || {
        !is_listening(server.address())
    });
    gates.open("gate");
    for client in &mut clients {
        assert!(client.read_line().starts_with("waited "), "{mode}");
        client.expect_closed();
    }
    idle.expect_closed();
    assert!(server.ended(SOON).success(), "{mode}");
    server.leaves_nothing(&processes);
    assert_eq!(
        server.log().with(&["abnormal exit"]),
        Vec::<String>::new(),
        "{mode}"
    );
}

#[test]
fn after_term_outstanding_requests_are_answered() {
    MODES
        .iter()
        .for_each(|mode| stops_gracefully(mode, |server| server.signal(Signal::SIGTERM)));
}

#[test]
fn after_int_outstanding_requests_are_answered() {
    MODES
        .iter()
        .for_each(|mode| stops_gracefully(mode, |server| server.signal(Signal::SIGINT)));
}

#[test]
fn an_int_from_the_terminal_to_every_process_is_just_as_graceful() {
    MODES
        .iter()
        .for_each(|mode| stops_gracefully(mode, |server| server.signal_group(Signal::SIGINT)));
}

#[test]
fn a_quit_is_just_as_graceful() {
    for mode in MODES {
        stops_gracefully(mode, |server| server.signal(Signal::SIGQUIT));
        stops_gracefully(mode, |server| server.signal_group(Signal::SIGQUIT));
    }
}

#[test]
fn interrupts_that_come_together_are_one() {
    // npm, `timeout -s INT`, and a shell that passes on what the terminal sends to the group.
    let rows: [&[Signal]; 4] = [
        &[Signal::SIGINT, Signal::SIGINT],
        &[Signal::SIGINT, Signal::SIGINT, Signal::SIGINT],
        &[Signal::SIGINT, Signal::SIGTERM, Signal::SIGINT],
        &[Signal::SIGTERM, Signal::SIGINT, Signal::SIGINT],
    ];
    for mode in MODES {
        for signals in rows {
            stops_gracefully(mode, |server| {
                for signal in signals {
                    server.signal(*signal);
                    // Each one is taken before the next comes: two at once would be one anyway.
                    eventually(SOON, "the signal is taken", || {
                        !server.root.has_pending(*signal)
                    });
                }
            });
        }
    }
}

#[test]
fn a_server_that_is_stopped_while_its_workers_start_ends_at_once() {
    for mode in MODES {
        let gates = Gates::new();
        gates.hold_starts();
        let mut running = Launch::testbed("script", mode)
            .and(&[&gates.flag(), "shutdown-deadline=1000"])
            .spawn();
        let root = Process::child(running.pid());
        let starts = || {
            let all = root.descendants();
            let workers = all
                .iter()
                .filter(|it| it.name().starts_with("tine worker#"));
            workers.count() == 2 && all.iter().any(|it| it.is_asleep_in_a_callback())
        };
        eventually(SOON, "the workers start", starts);
        root.signal(Signal::SIGTERM);
        eventually(SOON, format_args!("{mode}: it ends"), || {
            running.try_wait().is_some()
        });
    }
}

#[test]
fn both_modes_log_their_ends_alike() {
    for mode in MODES {
        let (mut server, _clients) = busy_server(mode, &["--shutdown-deadline", "1000"]);
        server.signal(Signal::SIGINT);
        server.logged(
            1,
            &[
                "INFO",
                "shutting down: ",
                "then the connections (",
                "are closed",
            ],
        );
        eventually(SOON, "the server ends by force", || {
            server.signal(Signal::SIGINT);
            server.has_ended()
        });
        server.logged(
            1,
            &[
                "WARNING",
                "forced shutdown, a second SIGINT: ",
                "open connections are cut",
            ],
        );
    }
}

#[test]
fn no_client_is_accepted_once_the_server_stops() {
    for mode in MODES {
        let (mut server, _clients) = busy_server(mode, &["--shutdown-deadline", "1000"]);
        let address = server.address();
        server.signal(Signal::SIGTERM);
        eventually(SOON, "no socket listens", || !is_listening(address));
        assert!(Client::try_connect(address).is_err(), "{mode}");
        assert!(!server.has_ended(), "{mode}: a worker is still at work");
    }
}

#[test]
fn a_reactor_without_connections_does_not_end_the_server_for_another() {
    let gates = Gates::new();
    let mut server = Launch::testbed("script", "process")
        .and(&["workers=1", "reactors=2", "shutdown-deadline=60"])
        .and(&[&gates.flag()])
        .start();
    let mut client = Client::connect(server.address());
    client.send(b"wait gate\necho behind\n");
    client.wait_until_read();
    eventually(SOON, "the worker is in its callback", || {
        server.workers()[0].is_asleep_in_a_callback()
    });
    server.signal(Signal::SIGTERM);
    eventually(SOON, "no socket listens", || {
        !is_listening(server.address())
    });
    gates.open("gate");
    assert!(client.read_line().starts_with("waited"));
    assert_eq!(client.read_to_end(), b"echo behind\n");
    drop(client);
    assert!(server.ended(SOON).success());
    assert!(server.whole_log().with(&["abnormal exit"]).is_empty());
}

#[test]
fn clients_in_the_accept_queue_are_answered_by_every_reactor_of_a_server_that_stops() {
    // Which reactor has which client when it stops is up to chance.
    for _ in 0..5 {
        let mut server = Launch::testbed("script", "process")
            .and(&["workers=1", "reactors=4", "shutdown-deadline=60"])
            .start();
        server.signal(Signal::SIGSTOP);
        let mut clients: Vec<Client> = (0..400)
            .map(|_| Client::connect(server.address()))
            .collect();
        for client in &mut clients {
            client.send(b"echo last\n");
        }
        server.signal(Signal::SIGTERM);
        server.signal(Signal::SIGCONT);
        for client in &mut clients {
            assert_eq!(client.read_to_end(), b"echo last\n");
        }
        drop(clients);
        assert!(server.ended(SOON).success());
    }
}

#[test]
fn a_second_int_ends_the_server_by_force() {
    for mode in MODES {
        let (mut server, _clients) = busy_server(mode, &["--shutdown-deadline", "1000"]);
        let processes = server.processes();
        server.signal(Signal::SIGINT);
        keeps(
            Duration::from_secs(2),
            "it waits for the worker that is at work",
            || !server.has_ended(),
        );
        server.signal(Signal::SIGINT);
        server.ended(SOON);
        server.leaves_nothing(&processes);
    }
}

#[test]
fn a_forced_shutdown_does_not_wait_for_a_manager_that_is_stuck() {
    let mut server = Launch::serve(&["--workers", "2"]).start();
    let processes = server.processes();
    server.manager().signal(Signal::SIGSTOP);
    let client = Client::connect(server.address());
    client.accepted();
    server.signal(Signal::SIGINT);
    server.logged(1, &["shutting down"]);
    // Another one counts after half a second.
    eventually(SOON, "the server ends by force", || {
        server.signal(Signal::SIGINT);
        server.has_ended()
    });
    server.leaves_nothing(&processes);
}

#[test]
fn the_shutdown_deadline_ends_the_server_by_force() {
    for mode in MODES {
        let (mut server, _clients) = busy_server(mode, &["--shutdown-deadline", "1"]);
        let processes = server.processes();
        server.signal(Signal::SIGTERM);
        server.ended(SOON);
        server.leaves_nothing(&processes);
    }
}

#[test]
fn usr1_replaces_every_worker_without_a_failed_request() {
    for (mode, habit) in [
        ("process", Habit::Stay),
        ("process", Habit::Leave),
        ("base", Habit::Leave),
    ] {
        let server = Launch::serve(&["--mode", mode, "--workers", "2", "--work", "1"]).start();
        let mut traffic = Traffic::start(server.address(), 20, habit);
        for _ in 0..3 {
            traffic.each_is_answered();
            let old = server.workers();
            server.signal(Signal::SIGUSR1);
            server.new_workers(2, &old);
            for worker in old {
                eventually(SOON, "the old worker is reaped", || worker.is_reaped());
            }
        }
        traffic.each_is_answered();
        traffic.finish().is_clean();
        assert_eq!(
            server.log().with(&["abnormal exit"]),
            Vec::<String>::new(),
            "{mode}"
        );
    }
}

#[test]
fn an_answer_to_a_peer_that_is_gone_does_no_harm() {
    for mode in MODES {
        let server = Launch::serve(&["--mode", mode, "--workers", "1", "--work", "20"]).start();
        let processes = server.processes();
        for _ in 0..20 {
            let mut client = Client::connect(server.address());
            client.send(&[7; 10_000]);
            client.wait_until_read();
            client.reset();
        }
        Client::connect(server.address()).echo(b"hello");
        eventually(SOON, "no connection is left", || {
            of_server(server.address()).is_empty()
        });
        assert_eq!(server.processes(), processes, "{mode}");
        assert_eq!(accept_queue(server.address()), Some(0), "{mode}");
    }
}

/// Returns the commands to start a program as the first process of a new namespace, and to join that one; `None` if that is
/// not permitted or the commands are missing.
fn namespace() -> Option<(&'static [&'static str], &'static [&'static str])> {
    let is_root = procfs::process::Process::myself()
        .and_then(|me| me.uid())
        .is_ok_and(|uid| uid == 0);
    let (start, join): (&[&str], &[&str]) = if is_root {
        (
            &["unshare", "--pid", "--fork", "--kill-child=KILL"],
            &["--pid"],
        )
    } else {
        let start = &[
            "unshare",
            "--user",
            "--map-root-user",
            "--pid",
            "--fork",
            "--kill-child=KILL",
        ];
        (start, &["--user", "--preserve-credentials", "--pid"])
    };
    let mut attempt = Command::new(start[0]);
    attempt
        .args(&start[1..])
        .arg("true")
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    attempt
        .status()
        .is_ok_and(|status| status.success())
        .then_some((start, join))
}

/// Makes a process in the namespace of `first` with a parent that ends at once. Returns it once it is `first`'s child.
#[track_caller]
fn adopted_by(first: Process, join: &[&str]) -> Process {
    let before = first.children();
    let mut command = Command::new("nsenter");
    command
        .args(["--target", &first.pid.to_string()])
        .args(join);
    command
        .args(["sh", "-c", "sleep 1000 >/dev/null 2>&1 &"])
        .stdin(Stdio::null());
    let status = command.status().expect("nsenter is there where unshare is");
    assert!(status.success(), "{command:?}: {status}");
    let is_new = |child: &Process| !before.contains(child);
    eventually_some(SOON, "an orphan is inherited", || {
        first.children().into_iter().find(is_new)
    })
}

#[test]
fn the_server_works_as_the_first_process_of_a_container() {
    let Some((start, join)) = namespace() else {
        eprintln!("skipped: a pid namespace is not permitted here");
        return;
    };
    for mode in MODES {
        let mut server = Launch::serve(&["--mode", mode, "--workers", "2"])
            .through(start)
            .start();
        let workers = server.workers();
        assert_eq!(server.ready[0].pid, 1, "{mode}: it is the first process");
        let mut client = Client::connect(server.address());
        client.echo(b"hello");

        let orphan = adopted_by(server.root, join);
        orphan.signal(Signal::SIGKILL);
        eventually(
            SOON,
            format_args!("{mode}: it reaps what it inherits"),
            || orphan.is_reaped(),
        );
        client.echo(b"still there");
        assert_eq!(server.workers(), workers, "{mode}");

        let processes = server.processes();
        server.signal(Signal::SIGTERM);
        server.ended(SOON);
        server.leaves_nothing(&processes);
    }
}
