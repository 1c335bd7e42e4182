//! Many clients and bad ones: memory stays within its budget, descriptors are freed, and a server without descriptors goes on.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::client::Client;
use crate::common::launch::Launch;
use crate::common::process::{Process, limit_descriptors};
use crate::common::server::Server;
use crate::common::sockets::{holders, of_server};
use crate::common::traffic::{Habit, Traffic, pattern};
use crate::common::{SOON, eventually, keeps};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

const MODES: [&str; 2] = ["process", "base"];
const MIB: usize = 1 << 20;

/// Budgets well below the demand of these tests' clients: reading a connection pauses above 1 MiB of unsent output, a
/// connection is closed above 8 MiB, and all together have 16 MiB.
const BUDGETS: [&str; 6] = [
    "--output-high-water",
    "1048576",
    "--output-limit",
    "8388608",
    "--memory-budget",
    "16777216",
];
const BUDGET: u64 = 16 << 20;
/// Memory that a process may use besides unsent output: its tables, its buffers, its allocator's reserve.
const BESIDES: u64 = 8 << 20;

/// Sends `bytes` in pieces and counts them.
fn send_in_pieces(mut writer: Client, bytes: &[u8], sent: &AtomicUsize) {
    for piece in bytes.chunks(64 << 10) {
        if writer.try_send(piece).is_err() {
            return;
        }
        sent.fetch_add(piece.len(), Ordering::Relaxed);
    }
}

/// Watches the memory of `process` until `sent` has not changed for 2 s or is `all`. Returns the peak.
#[track_caller]
fn peak_until_stalled(process: Process, sent: &AtomicUsize, all: usize) -> u64 {
    let (mut last, mut moved, mut peak) = (0, Instant::now(), 0);
    while moved.elapsed() < Duration::from_secs(2) && last < all {
        let now = sent.load(Ordering::Relaxed);
        if now != last {
            (last, moved) = (now, Instant::now());
        }
        let memory = process.memory();
        peak = peak.max(memory.private).max(memory.private_peak);
        thread::sleep(Duration::from_millis(10));
    }
    peak
}

#[test]
fn a_client_that_does_not_read_64_mib_is_held_back_within_the_budget() {
    for mode in MODES {
        let server = Launch::serve(&["--mode", mode, "--workers", "2", "--reactors", "1"])
            .and(&BUDGETS)
            .start();
        let mut others = Traffic::start(server.address(), 4, Habit::Leave);
        others.each_is_answered();
        let mut client = Client::connect(server.address());
        client.echo(b"up");
        let holder = holders(client.accepted().inode, &server.processes())[0];
        let before = holder.memory().private;
        let bytes = pattern(7, 64 * MIB);
        let sent = AtomicUsize::new(0);
        thread::scope(|scope| {
            let (writer, bytes, sent) = (client.handle(), &bytes, &sent);
            scope.spawn(move || send_in_pieces(writer, bytes, sent));
            let peak = peak_until_stalled(holder, sent, bytes.len());
            let took = peak.saturating_sub(before);
            eprintln!(
                "{mode}: {} MiB were received, {} KiB of memory",
                sent.load(Ordering::Relaxed) / MIB,
                took / 1024
            );
            others.each_is_answered();
            // Held back, not cut off: it receives every byte as soon as it reads.
            client.expect(bytes);
            assert!(
                took < BUDGET + BESIDES,
                "{mode}: {took} bytes more than the {before} before"
            );
        });
        others.each_is_answered();
        others.finish().is_clean();
    }
}

#[test]
fn a_hundred_clients_that_do_not_read_stay_within_the_budget_together() {
    let server = Launch::serve(&["--workers", "2", "--reactors", "1"])
        .and(&BUDGETS)
        .start();
    let mut others = Traffic::start(server.address(), 4, Habit::Stay);
    others.each_is_answered();
    let before = server.master().memory().private;
    let clients: Vec<Client> = (0..100)
        .map(|_| Client::connect_narrow(server.address()))
        .collect();
    let bytes = pattern(8, 8 * MIB);
    let sent = AtomicUsize::new(0);
    thread::scope(|scope| {
        for client in &clients {
            let (writer, bytes, sent) = (client.handle(), &bytes, &sent);
            scope.spawn(move || send_in_pieces(writer, bytes, sent));
        }
        let peak = peak_until_stalled(server.master(), &sent, bytes.len() * clients.len());
        let took = peak.saturating_sub(before);
        eprintln!(
            "{} MiB were received, {} KiB of memory",
            sent.load(Ordering::Relaxed) / MIB,
            took / 1024
        );
        others.each_is_answered();
        clients.iter().for_each(Client::give_up);
        assert!(
            took < BUDGET + BESIDES,
            "{took} bytes more than the {before} before"
        );
    });
    others.finish().is_clean();
}

/// Raises this process's limit of descriptors as far as allowed. Returns the number of connections it can hold, `wanted` at
/// most.
fn room_for(wanted: usize) -> usize {
    const OWN: u64 = 1000;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("the limit can be read");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("the soft limit can be raised");
    let room = usize::try_from(hard.saturating_sub(OWN))
        .unwrap_or(usize::MAX)
        .min(wanted);
    if room < wanted {
        eprintln!(
            "skipped in part: {room} connections instead of {wanted}, because the hard limit of descriptors is {hard}"
        );
    }
    room
}

#[test]
fn ten_thousand_connections_at_once_are_each_echoed() {
    let count = room_for(10_000);
    for mode in MODES {
        let server = Launch::serve(&[
            "--mode",
            mode,
            "--workers",
            "2",
            "--max-connections",
            "10500",
        ])
        .start();
        let connect =
            |nth| Client::try_connect_nth(server.address(), nth).expect("a client connects");
        let mut clients: Vec<Client> = (0..count).map(connect).collect();
        let held = || -> usize {
            let mut inodes = server.root.sockets();
            server
                .workers()
                .into_iter()
                .for_each(|worker| inodes.extend(worker.sockets()));
            of_server(server.address())
                .iter()
                .filter(|socket| inodes.contains(&socket.inode))
                .count()
        };
        eventually(
            SOON,
            format_args!("{mode}: the server holds them all"),
            || held() == count,
        );

        let question = |nth: usize| pattern(nth as u64, 64 + nth % 64);
        (0..)
            .zip(&mut clients)
            .for_each(|(nth, client)| client.send(&question(nth)));
        (0..)
            .zip(&mut clients)
            .for_each(|(nth, client)| client.expect(&question(nth)));
        assert_eq!(held(), count, "{mode}");
        // With an RST, no TIME_WAIT is left: thousands would lengthen the kernel's table for later tests.
        clients.into_iter().for_each(Client::reset);
        eventually(SOON, format_args!("{mode}: none is left"), || {
            of_server(server.address()).is_empty()
        });
        assert_eq!(
            server.log().with(&["abnormal exit"]),
            Vec::<String>::new(),
            "{mode}"
        );
    }
}

/// One short connection: half of them connect, send and close; the others end in other ways.
fn short_connection(server: &Server, nth: usize) {
    let question = pattern(nth as u64, 1 + nth % 2000);
    let mut client = Client::try_connect_nth(server.address(), nth).expect("a client connects");
    let kind = nth % 8;
    if kind == 0 {
        return;
    }
    client.send(&question);
    match kind {
        1 => client.expect(&question),
        2 => {
            client.half_close();
            assert!(
                client.read_to_end() == question,
                "every byte, then end of file"
            );
        }
        3 | 4 => client.reset(),
        _ => {}
    }
}

#[test]
fn twenty_thousand_short_connections_leak_no_descriptor() {
    const THREADS: usize = 7; // Coprime to the number of kinds of clients, so that each thread has all kinds.
    for (mode, clients) in [("process", 20_000), ("base", 10_000)] {
        let server = Launch::serve(&["--mode", mode, "--workers", "2"]).start();
        (0..16).for_each(|nth| short_connection(&server, nth)); // Descriptors that are opened once and kept are open now.
        eventually(SOON, "none of the first is left", || {
            of_server(server.address()).is_empty()
        });
        let count = |process: Process| (process, process.descriptors());
        let before: Vec<_> = server.processes().into_iter().map(count).collect();

        thread::scope(|scope| {
            for thread in 0..THREADS {
                let server = &server;
                scope.spawn(move || {
                    (thread..clients)
                        .step_by(THREADS)
                        .for_each(|nth| short_connection(server, nth))
                });
            }
        });
        eventually(SOON, format_args!("{mode}: no connection is left"), || {
            of_server(server.address()).is_empty()
        });
        assert_eq!(
            server.processes(),
            before
                .iter()
                .map(|(process, _)| *process)
                .collect::<Vec<_>>(),
            "{mode}"
        );
        for (process, descriptors) in before {
            let what =
                format_args!("{mode}: {process:?} has {descriptors} descriptors again").to_string();
            eventually(SOON, what, || process.descriptors() == descriptors);
        }
        Client::connect(server.address()).echo(b"and goes on");
    }
}

#[test]
fn a_server_without_descriptors_goes_on_and_does_not_spin() {
    for mode in MODES {
        let server = Launch::serve(&["--mode", mode, "--workers", "1", "--reactors", "1"]).start();
        let mut first = Client::connect(server.address());
        first.echo(b"before");
        let acceptor = holders(first.accepted().inode, &server.processes())[0];
        limit_descriptors(acceptor, acceptor.descriptors() as u64 + 4);

        let mut others: Vec<Client> = (0..40).map(|_| Client::connect(server.address())).collect();
        // A refused client may be reset before it sends.
        others
            .iter_mut()
            .for_each(|client| drop(client.try_send(b"hello")));
        let complaints = || server.log().with(&["open files"]).len();
        eventually(
            SOON,
            format_args!("{mode}: it logs the lack of descriptors"),
            || complaints() > 0,
        );
        let (begin, used, logged) = (Instant::now(), acceptor.cpu_seconds(), complaints());
        keeps(Duration::from_secs(3), "it lives", || acceptor.is_running());
        let (time, used) = (begin.elapsed().as_secs_f64(), acceptor.cpu_seconds() - used);
        assert!(
            used < time / 2.0,
            "{mode}: {used} s of processor time in {time} s"
        );
        let logged = complaints() - logged;
        assert!(
            logged as f64 <= time + 2.0,
            "{mode}: logged {logged} times in {time} s"
        );

        first.echo(b"during");
        assert!(
            !Client::is_served(server.address()),
            "{mode}: there is no descriptor for one more"
        );
        drop(others);
        eventually(SOON, format_args!("{mode}: served again"), || {
            Client::is_served(server.address())
        });
        first.echo(b"after");
    }
}

#[test]
fn a_full_server_serves_the_next_client_when_one_has_closed() {
    for mode in MODES {
        let server =
            Launch::serve(&["--mode", mode, "--workers", "1", "--max-connections", "3"]).start();
        let mut clients: Vec<Client> = (0..3).map(|_| Client::connect(server.address())).collect();
        clients.iter_mut().for_each(|client| client.echo(b"in"));
        assert!(!Client::is_served(server.address()), "{mode}: it is full");
        clients
            .iter_mut()
            .for_each(|client| client.echo(b"still in"));
        clients.pop();
        eventually(SOON, format_args!("{mode}: there is room"), || {
            Client::is_served(server.address())
        });
        clients
            .iter_mut()
            .for_each(|client| client.echo(b"still in"));
    }
}
