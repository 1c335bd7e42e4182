//! Signals: each one to each process, twice at once, from a terminal, and to programs with handlers of their own.

use std::fs::OpenOptions;
use std::path::Path;
use std::time::Duration;

use crate::common::c::{build, launch, start};
use crate::common::client::Client;
use crate::common::launch::Launch;
use crate::common::process::Process;
use crate::common::{SOON, eventually, keeps};
use nix::sys::resource::Resource;
use nix::sys::signal::Signal;

const MODES: [&str; 2] = ["process", "base"];

/// Signals without a meaning for a server, of which each one ends a process by default.
fn meaningless() -> Vec<i32> {
    let mut all = vec![
        libc::SIGALRM,
        libc::SIGVTALRM,
        libc::SIGPROF,
        libc::SIGPOLL,
        libc::SIGSTKFLT,
        libc::SIGPWR,
        libc::SIGUSR2,
        libc::SIGHUP,
        libc::SIGPIPE,
        libc::SIGXFSZ,
    ];
    all.extend(libc::SIGRTMIN()..=libc::SIGRTMAX());
    all
}

/// Sends any signal, and waits until the process has taken it.
#[track_caller]
#[allow(unsafe_code)] // nix has no real-time signals.
fn deliver(process: Process, signal: i32) {
    // SAFETY: takes two integers.
    assert_eq!(unsafe { libc::kill(process.pid, signal) }, 0, "{process:?}");
    let bit = 1_u64 << (signal - 1);
    eventually(SOON, format_args!("signal {signal} is taken"), || {
        let status = procfs::process::Process::new(process.pid).and_then(|it| it.status());
        status.map_or(true, |status| status.shdpnd & bit == 0)
    });
}

#[test]
fn a_signal_without_a_meaning_ends_neither_master_nor_manager() {
    for mode in MODES {
        let server = Launch::serve(&["--mode", mode, "--workers", "2"]).start();
        let processes = server.processes();
        for signal in meaningless() {
            for process in [server.root, server.manager()] {
                deliver(process, signal);
            }
            Client::connect(server.address()).echo(b"still there");
            assert_eq!(
                server.processes(),
                processes,
                "{mode}: after signal {signal}"
            );
        }
    }
}

#[test]
fn hup_and_pipe_end_no_process() {
    for mode in MODES {
        let server = Launch::serve(&["--mode", mode, "--workers", "2"]).start();
        let processes = server.processes();
        let mut client = Client::connect(server.address());
        client.echo(b"before");
        for signal in [Signal::SIGHUP, Signal::SIGPIPE] {
            server.signal(signal);
            server.signal_group(signal);
            keeps(
                Duration::from_millis(500),
                format_args!("{mode}: all survive {signal}"),
                || processes.iter().all(|process| process.is_running()),
            );
        }
        client.echo(b"after");
    }
}

#[test]
fn a_signal_of_the_terminal_or_of_the_whole_group_ends_no_worker_by_force() {
    for mode in MODES {
        for signal in [Signal::SIGUSR2, Signal::SIGHUP, Signal::SIGPIPE] {
            let server = Launch::serve(&["--mode", mode, "--workers", "2"]).start();
            let processes = server.processes();
            server.signal_group(signal);
            for process in &processes {
                deliver(*process, signal as i32);
            }
            Client::connect(server.address()).echo(b"still there");
            assert_eq!(server.processes(), processes, "{mode}: after {signal}");
        }
    }
}

#[test]
fn the_echo_of_an_interrupt_does_not_turn_an_end_with_status_0_into_a_death_by_a_signal() {
    for mode in MODES {
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGQUIT] {
            let mut server = Launch::serve(&["--mode", mode, "--workers", "1"]).start();
            eventually(SOON, "the server ends", || {
                (0..20).for_each(|_| server.signal(signal));
                server.has_ended()
            });
            let status = server.ended(SOON);
            assert!(status.success(), "{mode}, {signal}: {status}");
        }
    }
}

#[test]
fn an_alarm_that_a_callback_sets_ends_its_worker() {
    for mode in MODES {
        let server = Launch::testbed("script", mode).and(&["workers=1"]).start();
        let mut client = Client::connect(server.address());
        client.send(b"alarm\n");
        client.expect_closed();
        server.logged(1, &["worker#0", "abnormal exit", "signal=14"]);
        assert_eq!(
            Client::connect(server.address()).ask("echo after"),
            "echo after"
        );
    }
}

#[test]
fn a_child_that_a_callback_forks_ends_by_the_signals_of_the_server() {
    for mode in MODES {
        for signal in [
            Signal::SIGTERM,
            Signal::SIGINT,
            Signal::SIGHUP,
            Signal::SIGUSR1,
        ] {
            let server = Launch::testbed("script", mode).and(&["workers=1"]).start();
            let worker = server.workers()[0];
            let mut client = Client::connect(server.address());
            assert_eq!(client.ask("fork"), "forked");
            let child = worker.children()[0];
            child.signal(signal);
            eventually(SOON, format_args!("{mode}: {signal} ends it"), || {
                !child.is_running()
            });
            assert_eq!(client.ask("echo after"), "echo after");
            assert_eq!(server.workers(), [worker], "{mode}: the worker serves on");
        }
    }
}

#[test]
fn a_limit_of_file_sizes_is_named_at_the_start() {
    let ended = Launch::serve(&["--workers", "1"])
        .limit(Resource::RLIMIT_FSIZE, 4096)
        .run();
    assert_eq!(ended.status.code(), Some(1), "{ended:#?}");
    assert!(ended.stderr.contains("ulimit -f"), "{ended:#?}");
}

#[test]
fn a_full_log_file_loses_lines_and_nothing_else() {
    const LIMIT: u64 = 64 << 20;
    for mode in MODES {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        let log = OpenOptions::new().create(true).append(true).open(&path);
        let log = log.expect("a file");
        // Room for about two lines.
        log.set_len(LIMIT - 300).expect("a file with a hole");
        let mut server = Launch::serve(&["--mode", mode, "--workers", "1"])
            .limit(Resource::RLIMIT_FSIZE, LIMIT)
            .stderr(log)
            .start();
        for _ in 0..5 {
            let old = server.workers();
            old[0].signal(Signal::SIGKILL);
            server.new_workers(1, &old);
            Client::connect(server.address()).echo(b"hello");
        }
        let len = |path: &Path| path.metadata().expect("it is there").len();
        assert!(len(&path) > LIMIT - 300 && len(&path) <= LIMIT, "{mode}");
        server.signal(Signal::SIGTERM);
        assert!(server.ended(SOON).success(), "{mode}");
    }
}

#[test]
fn handlers_of_the_program_are_set_aside_while_the_server_runs_and_come_back() {
    for mode in MODES {
        let mode_flag: &[&str] = if mode == "base" { &["base"] } else { &[] };
        let arguments = [&["127.0.0.1:0"], mode_flag].concat();
        let server = start(launch(&build("tests/c/signals.c", &[]), &arguments), mode);
        let said = |server: &crate::common::server::Server| server.log().with(&["HOST"]);
        for signal in [Signal::SIGHUP, Signal::SIGPIPE, Signal::SIGUSR2] {
            for process in server.processes() {
                deliver(process, signal as i32);
            }
        }
        let old = server.workers();
        server.signal(Signal::SIGUSR1);
        server.new_workers(2, &old);
        assert_eq!(said(&server), Vec::<String>::new(), "{mode}");
        // A worker has the program's handler for what is not the server's.
        let mut client = Client::connect(server.address());
        client.send(b"alarm\n");
        assert_eq!(client.read_line(), "it came");
        assert_eq!(server.logged(1, &["HOST"]), ["HOST signal=14"], "{mode}");
        // Ctrl-C loses no answer.
        client.send(b"slow\n");
        client.wait_until_read();
        eventually(SOON, "the callback sleeps", || {
            server
                .workers()
                .iter()
                .any(|it| it.is_asleep_in_a_callback())
        });
        server.signal_group(Signal::SIGINT);
        assert_eq!(client.read_line(), "done");
        drop(client);
        let mut server = server;
        assert!(server.ended(SOON).success(), "{}", server.log().text());
        let lines = server.whole_log().lines();
        let returned = lines.iter().position(|line| line == "returned 0");
        let after = lines.split_at(returned.expect("it returns")).1;
        let raised = after.iter().filter(|line| line.starts_with("HOST"));
        assert_eq!(raised.count(), 11, "{mode}: {after:?}");
        let before = lines.split_at(returned.unwrap()).0;
        let before = before.iter().filter(|line| line.starts_with("HOST"));
        assert_eq!(before.collect::<Vec<_>>(), ["HOST signal=14"], "{mode}");
        assert!(
            server.whole_log().with(&["LOST"]).is_empty(),
            "{mode}: {after:?}"
        );
    }
}

#[test]
#[allow(unsafe_code)] // nix has no real-time signals.
fn many_signals_that_come_at_once_do_no_harm() {
    for mode in MODES {
        let mut server = Launch::serve(&["--mode", mode, "--workers", "1"]).start();
        server.root.signal(Signal::SIGSTOP);
        eventually(SOON, "it is stopped", || server.root.is_stopped());
        // Those of the server, and others that it passes over.
        server.root.signal(Signal::SIGUSR1);
        for number in libc::SIGRTMIN()..=libc::SIGRTMAX() {
            // SAFETY: takes two integers.
            assert_eq!(unsafe { libc::kill(server.root.pid, number) }, 0);
        }
        server.root.signal(Signal::SIGCONT);
        server.logged(1, &["reload"]);
        Client::connect(server.address()).echo(b"still there");
        server.root.signal(Signal::SIGTERM);
        assert!(server.ended(SOON).success(), "{mode}");
    }
}
