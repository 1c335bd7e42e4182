//! Reload and recycling: workers are replaced while the server runs. No client waits for that, no message is lost, and one
//! seat changes at a time.

use std::collections::{HashMap, HashSet};

use nix::sys::signal::Signal;

use crate::common::client::Client;
use crate::common::launch::Launch;
use crate::common::process::Process;
use crate::common::server::Server;
use crate::common::traffic::{Habit, Traffic};
use crate::common::{SOON, eventually};

/// Reloads the server, and waits until all workers are new and the old ones are gone.
#[track_caller]
fn reload(server: &Server, workers: usize) {
    let old = server.workers();
    server.signal(Signal::SIGUSR1);
    server.new_workers(workers, &old);
    for worker in old {
        eventually(SOON, "the old worker is reaped", || worker.is_reaped());
    }
}

#[test]
fn twenty_reloads_under_load_fail_no_request() {
    let process = ["--mode", "process", "--dispatch"];
    for flags in [
        [&process[..], &["least-connections"]].concat(),
        [&process[..], &["least-busy"]].concat(),
        vec!["--mode", "base"],
    ] {
        let server = Launch::serve(&flags)
            .and(&["--workers", "2", "--work", "1"])
            .start();
        let mut traffic = Traffic::start(server.address(), 10, Habit::Stay);
        for _ in 0..20 {
            traffic.each_is_answered();
            reload(&server, 2);
        }
        traffic.each_is_answered();
        traffic.finish().is_clean();
        let log = server.log();
        assert!(log.with(&["abnormal exit"]).is_empty(), "{}", log.text());
        assert!(log.with(&["did not leave"]).is_empty(), "{}", log.text());
    }
}

#[test]
fn workers_over_max_requests_are_replaced_one_at_a_time() {
    for (mode, habit) in [
        ("process", Habit::Stay),
        ("base", Habit::Stay),
        ("base", Habit::Leave),
    ] {
        let flags = ["--mode", mode, "--workers", "3", "--max-requests", "20"];
        let server = Launch::serve(&flags).and(&["--work", "1"]).start();
        let traffic = Traffic::start(server.address(), 8, habit);
        let mut seen: HashSet<Process> = HashSet::new();
        let mut in_seats: HashMap<String, HashSet<Process>> = HashMap::new();
        eventually(SOON, "each seat has had several workers", || {
            let workers = server.workers();
            // Those that leave may do so side by side.
            assert!(workers.len() <= 3 + 4, "{workers:?}");
            seen.extend(&workers);
            for worker in workers {
                in_seats.entry(worker.name()).or_default().insert(worker);
            }
            let often = |seat| {
                let name = format!("tine worker#{seat}");
                in_seats.get(&name).is_some_and(|them| them.len() >= 4)
            };
            (0..3).all(often)
        });
        traffic.finish().is_clean();
        assert!(seen.len() >= 12, "{mode}: {seen:?}");
        assert!(server.log().with(&["abnormal exit"]).is_empty(), "{mode}");
    }
}

mod with_a_script {
    use super::*;
    use crate::common::gates::Gates;
    use crate::common::keeps;
    use std::thread;
    use std::time::Duration;

    fn script(mode: &str, options: &[&str]) -> Server {
        Launch::testbed("script", mode)
            .and(options)
            .and(&["shutdown-deadline=60"])
            .start()
    }

    #[test]
    fn a_stuck_worker_delays_only_its_connection_in_a_reload() {
        for dispatch in ["least-connections", "client-address", "least-busy", "route"] {
            a_stuck_worker_is_replaced(dispatch);
        }
    }

    #[track_caller]
    fn a_stuck_worker_is_replaced(dispatch: &str) {
        let gates = Gates::new();
        let dispatch = format!("dispatch={dispatch}");
        let server = script("process", &["workers=1", &dispatch, &gates.flag()]);
        let mut clients: Vec<Client> = (0..10).map(|_| Client::connect(server.address())).collect();
        for client in &mut clients {
            client.ask("pid");
        }
        let old = server.workers()[0];
        let (stuck, others) = clients.split_first_mut().expect("ten");
        stuck.send(b"wait gate\n");
        eventually(SOON, "the worker is in its callback", || {
            old.is_asleep_in_a_callback()
        });
        // They wait behind it.
        stuck.send(b"echo 1\npid\n");
        for client in others.iter_mut() {
            client.send(b"echo 1\npid\n");
        }
        server.signal(Signal::SIGUSR1);
        for client in others.iter_mut() {
            assert_eq!(client.read_line(), "echo 1");
            assert_ne!(client.read_line(), old.pid.to_string());
            assert_ne!(client.ask("pid"), old.pid.to_string());
        }
        assert!(old.is_running() && !stuck.has_news(), "{dispatch}");
        gates.open("gate");
        assert_eq!(stuck.read_line(), format!("waited {}", old.pid));
        // The messages behind it have gone to the new worker.
        assert_eq!(stuck.read_line(), "echo 1");
        assert_ne!(stuck.read_line(), old.pid.to_string());
        eventually(SOON, "the old worker is reaped", || old.is_reaped());
        assert!(server.log().with(&["abnormal exit"]).is_empty());
    }

    #[test]
    fn stuck_workers_leave_side_by_side() {
        let gates = Gates::new();
        let server = script(
            "process",
            &["workers=4", "dispatch=round-robin", &gates.flag()],
        );
        let mut clients: Vec<Client> = (0..4).map(|_| Client::connect(server.address())).collect();
        let old = server.workers();
        for client in &mut clients {
            client.send(b"wait gate\n");
        }
        for worker in &old {
            eventually(SOON, "it is in its callback", || {
                worker.is_asleep_in_a_callback()
            });
        }
        server.signal(Signal::SIGUSR1);
        // The deadline is a minute: none of the old ones has left.
        eventually(
            SOON,
            "each seat has a new worker beside the old one",
            || server.workers().len() == 8,
        );
        assert_eq!(
            Client::connect(server.address()).ask("echo served"),
            "echo served"
        );
        assert!(old.iter().all(|worker| worker.is_running()));
        gates.open("gate");
        for client in &mut clients {
            assert!(client.read_line().starts_with("waited"));
        }
        server.logged(1, &["reload finished"]);
        assert!(server.log().with(&["abnormal exit"]).is_empty());
    }

    #[test]
    fn a_stuck_worker_that_is_replaced_is_killed_at_the_deadline() {
        for (policy, end) in [("close", ""), ("redeliver=3", "waited")] {
            let gates = Gates::new();
            let server = Launch::testbed("script", "process")
                .and(&["workers=1", "shutdown-deadline=0.3", &gates.flag()])
                .and(&[&format!("on-crash={policy}")])
                .start();
            let old = server.workers()[0];
            let mut stuck = Client::connect(server.address());
            let mut other = Client::connect(server.address());
            other.ask("pid");
            stuck.send(b"wait gate\n");
            eventually(SOON, "the worker is in its callback", || {
                old.is_asleep_in_a_callback()
            });
            server.signal(Signal::SIGUSR1);
            server.logged(
                1,
                &["WARN", "worker#0", &old.pid.to_string(), "did not leave"],
            );
            eventually(SOON, "it is reaped", || old.is_reaped());
            gates.open("gate");
            stuck.half_close();
            let got = String::from_utf8_lossy(&stuck.read_to_end()).into_owned();
            assert!(
                got.starts_with(end) && got.is_empty() == end.is_empty(),
                "{got}"
            );
            assert_ne!(other.ask_number("pid"), old.pid, "{policy}");
        }
    }

    #[test]
    fn if_no_new_worker_can_start_the_old_ones_stay() {
        for mode in ["process", "base"] {
            let gates = Gates::new();
            let server = script(mode, &["workers=2", &gates.flag()]);
            let mut client = Client::connect(server.address());
            let pid = client.ask("pid");
            let old = server.workers();
            gates.fail_starts();
            server.signal(Signal::SIGUSR1);
            server.logged(1, &["ERROR", "reload failed", "2 old workers stay"]);
            assert_eq!(client.ask("pid"), pid, "{mode}");
            assert_eq!(server.workers(), old, "{mode}");
            // It is not tried again without a request.
            keeps(Duration::from_millis(500), "the old ones stay", || {
                server.workers() == old && server.log().with(&["reload failed"]).len() == 1
            });
            gates.let_start();
            server.signal(Signal::SIGUSR1);
            drop(client);
            server.new_workers(2, &old);
            Client::connect(server.address()).ask("pid");
        }
    }

    #[test]
    fn the_old_worker_serves_until_the_new_one_is_ready() {
        for mode in ["process", "base"] {
            let gates = Gates::new();
            let server = script(mode, &["workers=1", &gates.flag()]);
            let mut client = Client::connect(server.address());
            let old = server.workers()[0];
            gates.hold_starts();
            server.signal(Signal::SIGUSR1);
            eventually(SOON, "a new one starts", || server.workers().len() == 2);
            for _ in 0..20 {
                assert_eq!(client.ask_number("pid"), old.pid, "{mode}");
            }
            // A second request during the first is not forgotten, and adds no third worker.
            server.signal(Signal::SIGUSR1);
            assert_eq!(client.ask_number("pid"), old.pid, "{mode}");
            assert_eq!(server.workers().len(), 2, "{mode}");
            gates.let_start();
            drop(client);
            server.logged(2, &["reload finished"]);
            let mut client = Client::connect(server.address());
            assert_ne!(client.ask_number("pid"), old.pid, "{mode}");
        }
    }

    #[test]
    fn a_seat_does_not_change_before_the_one_before_it_has_changed() {
        let gates = Gates::new();
        let server = script("process", &["workers=2", &gates.flag()]);
        let [first, second] = [0, 1].map(|seat| server.named(&format!("tine worker#{seat}"))[0]);
        gates.hold_starts();
        server.signal(Signal::SIGUSR1);
        eventually(SOON, "the first one is about to be replaced", || {
            server.named("tine worker#0").len() == 2
        });
        keeps(Duration::from_millis(300), "the second is not", || {
            server.named("tine worker#1") == [second] && first.is_running()
        });
        gates.let_start();
        server.new_workers(2, &[first, second]);
        assert!(server.log().with(&["no slot"]).is_empty());
    }

    /// Waits until the manager has handled all its events, and the only seat has one worker.
    #[track_caller]
    fn settle(server: &Server) {
        let manager = server.manager();
        eventually(SOON, "one worker, and nothing to do", || {
            manager.waits_for_events() && server.workers().len() == 1 && manager.waits_for_events()
        });
    }

    #[test]
    fn workers_that_started_together_are_not_replaced_together() {
        let options = ["workers=1", "reactors=1", "max-requests=100"];
        let server = script("process", &options);
        let mut client = Client::connect(server.address());
        let mut lives = Vec::new();
        for _ in 0..6 {
            // No worker is replaced in its first 10 ms.
            thread::sleep(Duration::from_millis(20));
            let worker = server.workers()[0];
            let mut messages = 99;
            client.send("pid\n".repeat(messages).as_bytes());
            for _ in 0..messages {
                assert_eq!(client.read_line(), worker.pid.to_string(), "too early");
            }
            settle(&server);
            // From here on, one by one, up to its limit.
            while server.workers() == [worker] {
                assert_eq!(client.ask_number("pid"), worker.pid);
                messages += 1;
                settle(&server);
            }
            lives.push(messages);
        }
        assert!(
            lives.iter().all(|life| (100..=125).contains(life)),
            "{lives:?}"
        );
        // Six draws from 26 numbers are equal once in 10^7 times.
        assert!(lives.iter().any(|life| *life != lives[0]), "{lives:?}");
    }
}
