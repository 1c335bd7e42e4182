//! Questions of callbacks about the connections of the server.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::common::client::Client;
use crate::common::gates::Gates;
use crate::common::launch::Launch;
use crate::common::{SOON, eventually};

/// The answer to `connections` of the first of these clients, which are all.
fn expected(clients: &[&Client], user: &str) -> String {
    let mut ports: Vec<u16> = clients.iter().map(|it| it.local.port()).collect();
    ports.sort_unstable();
    let own = clients[0].local;
    format!("{ports:?} own={own} listener=0 user={user} unsent=0")
}

#[test]
fn all_connections_of_all_reactors_are_listed() {
    for reactors in ["reactors=1", "reactors=3"] {
        let server = Launch::testbed("script", "process")
            .and(&["workers=2", reactors])
            .start();
        // More than two pages.
        let mut clients: Vec<Client> = (0..300)
            .map(|_| Client::connect(server.address()))
            .collect();
        for client in &mut clients {
            assert_eq!(client.ask("echo here"), "echo here");
        }
        assert_eq!(clients[0].ask("user 7"), "user set");
        let others: Vec<&Client> = clients.iter().collect();
        let all = expected(&others, "Some(7)");
        assert_eq!(clients[0].ask("connections"), all, "{reactors}");
        let id = clients[1].ask("id");
        for asker in [0, 100, 200] {
            let exists = clients[asker].ask(&format!("exists {id}"));
            assert_eq!(exists, "Ok(true)", "{reactors}");
        }
        clients.drain(1..298);
        eventually(SOON, "those that have left are listed no more", || {
            let left: Vec<&Client> = clients.iter().collect();
            let all = expected(&left, "Some(7)");
            clients[0].ask("connections") == all
        });
        let gone = clients[2].ask(&format!("exists {id}"));
        assert_eq!(gone, "Ok(false)");
        // Of a reactor that there is not.
        let nobody = u64::from(9_u16) << 54 | 1;
        assert_eq!(clients[0].ask(&format!("exists {nobody}")), "Ok(false)");
    }
}

#[test]
fn a_connection_whose_client_does_not_read_has_unsent_bytes() {
    let server = Launch::testbed("script", "process").start();
    let mut slow = Client::connect_narrow(server.address());
    slow.send(b"big 8000000\n");
    let mut client = Client::connect(server.address());
    eventually(SOON, "its output waits", || {
        let answer = client.ask("connections");
        let unsent = answer.rsplit_once('=').expect("a number").1;
        unsent.parse::<usize>().is_ok_and(|it| it > 1_000_000)
    });
}

#[test]
fn in_base_mode_a_worker_lists_its_own_connections() {
    let server = Launch::testbed("script", "base")
        .and(&["workers=2"])
        .start();
    let mut clients: Vec<Client> = (0..20).map(|_| Client::connect(server.address())).collect();
    let seats: Vec<String> = clients.iter_mut().map(|it| it.ask("seat")).collect();
    let ids: Vec<String> = clients.iter_mut().map(|it| it.ask("id")).collect();
    let own: Vec<&Client> = (0..20)
        .filter(|number| seats[*number] == seats[0])
        .map(|number| &clients[number])
        .collect();
    let all = expected(&own, "None");
    assert_eq!(clients[0].ask("connections"), all);
    for (seat, id) in seats.iter().zip(&ids) {
        let answer = match *seat == seats[0] {
            true => "Ok(true)",
            false => "Err(OtherWorker)",
        };
        assert_eq!(clients[0].ask(&format!("exists {id}")), answer);
    }
}

/// Those that stay are all listed, and once, whatever else comes and goes and whoever dies.
#[test]
fn connections_that_stay_are_listed_once_while_others_come_and_go() {
    let server = Launch::testbed("script", "process")
        .and(&["workers=3", "reactors=2", "on-crash=redeliver=50"])
        .start();
    let (address, end) = (server.address(), Instant::now() + Duration::from_secs(4));
    let staying: Vec<Client> = (0..200).map(|_| Client::connect(address)).collect();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let some: Vec<Client> = (0..20).map(|_| Client::connect(address)).collect();
                    drop(some);
                }
            });
        }
        let askers: Vec<_> = (0..3)
            .map(|_| {
                let staying = &staying;
                scope.spawn(move || {
                    let (mut client, mut rounds) = (Client::connect(address), 0);
                    while Instant::now() < end {
                        client.send(b"connections\n");
                        let answer = client.read_line();
                        let (ports, _) =
                            answer.split_once(']').unwrap_or_else(|| panic!("{answer}"));
                        let ports: Vec<u16> = ports[1..]
                            .split(", ")
                            .filter_map(|it| it.parse().ok())
                            .collect();
                        for client in staying {
                            let port = client.local.port();
                            let listed = ports.iter().filter(|it| **it == port).count();
                            assert_eq!(listed, 1, "{port}");
                        }
                        rounds += 1;
                    }
                    rounds
                })
            })
            .collect();
        let kills = server.kill_workers(Duration::from_millis(50), || Instant::now() < end);
        let rounds: u32 = askers
            .into_iter()
            .map(|it| it.join().expect("an asker"))
            .sum();
        is_over.store(true, Ordering::Relaxed);
        assert!(rounds >= 3 && kills > 10, "{rounds} rounds, {kills} kills");
    });
}

#[test]
fn a_callback_does_not_wait_for_a_master_that_is_stopped() {
    let gates = Gates::new();
    let server = Launch::testbed("script", "process")
        .and(&[&gates.flag()])
        .start();
    let mut client = Client::connect(server.address());
    client.send(b"wait-and-ask gate\n");
    eventually(SOON, "the callback waits", || {
        server
            .workers()
            .iter()
            .any(|it| it.is_asleep_in_a_callback())
    });
    server.signal(Signal::SIGSTOP);
    gates.open("gate");
    eventually(SOON, "it has given up", || {
        gates.heard().contains("Err(NoAnswer)")
    });
    server.signal(Signal::SIGCONT);
    assert_eq!(client.read_line(), "Err(NoAnswer)");
    // The late answer is not taken for this one.
    let nobody = u64::from(9_u16) << 54 | 1;
    assert_eq!(client.ask(&format!("exists {nobody}")), "Ok(false)");
    assert_eq!(client.ask("count"), "Ok(1)");
}
