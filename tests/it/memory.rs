//! Memory that a peak has taken is given back, and a server that has given it back sleeps.

use std::thread;
use std::time::Duration;

use crate::common::client::Client;
use crate::common::launch::Launch;
use crate::common::process::Process;
use crate::common::server::Server;
use crate::common::{SOON, eventually};

const MIB: u64 = 1 << 20;

/// Checks that the server soon has nothing to do any more: for three seconds, none of its processes runs.
#[track_caller]
fn sleeps(server: &Server) {
    let spent = || -> Duration { server.processes().into_iter().map(Process::run_time).sum() };
    eventually(SOON, "the server sleeps", || {
        let before = spent();
        thread::sleep(Duration::from_secs(3));
        spent() == before
    });
}

#[test]
fn the_memory_of_slow_readers_is_given_back_when_they_have_left() {
    for (mode, reactors) in [("process", "reactors=2"), ("base", "workers=1")] {
        let server = Launch::testbed("script", mode).and(&[reactors]).start();
        let owner = match mode {
            "base" => server.workers()[0],
            _ => server.master(),
        };
        let mut other = Client::connect(server.address());
        assert_eq!(other.ask("echo before"), "echo before");
        let before = owner.memory().private;
        let mut readers: Vec<Client> = (0..24)
            .map(|_| Client::connect_narrow(server.address()))
            .collect();
        for reader in &mut readers {
            reader.send(b"big 6000000\n");
        }
        let held = || owner.memory().private.saturating_sub(before);
        eventually(SOON, format_args!("{mode}: the output is held"), || {
            held() > 48 * MIB
        });
        drop(readers);
        let what = format!("{mode}: the memory is given back");
        eventually(SOON, what, || held() < 16 * MIB);
        assert_eq!(other.ask("echo after"), "echo after");
        sleeps(&server);
    }
}

#[test]
fn the_pages_of_long_messages_are_given_back() {
    let server = Launch::testbed("script", "process")
        .and(&["workers=4", "reactors=2"])
        .start();
    let taken = || -> u64 {
        let all = server.processes().into_iter();
        all.map(Process::proportional_memory).sum()
    };
    // Two clients for each link.
    let mut clients: Vec<Client> = (0..16).map(|_| Client::connect(server.address())).collect();
    for client in &mut clients {
        assert_eq!(client.ask("echo before"), "echo before");
    }
    let before = taken();
    let mut message = b"echo ".to_vec();
    message.resize(7 << 20, b'x');
    message.push(b'\n');
    // On a busy machine, the first pages are given back before the last are taken.
    let mut peak = before;
    for client in &mut clients {
        let mut writer = client.handle();
        thread::scope(|scope| {
            let sent = scope.spawn(|| writer.send(&message));
            client.expect(&message);
            sent.join().expect("the message was sent");
        });
        peak = peak.max(taken());
    }
    assert!(peak > before + 16 * MIB, "{} MiB", (peak - before) / MIB);
    eventually(SOON, "the pages are given back", || {
        taken() < before + 8 * MIB
    });
    for client in &mut clients {
        assert_eq!(client.ask("echo after"), "echo after");
    }
    sleeps(&server);
}
