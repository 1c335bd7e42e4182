//! Timers that callbacks set for their connections.

use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::common::client::Client;
use crate::common::launch::Launch;
use crate::common::server::Server;
use crate::common::{SOON, eventually, keeps};

const MODES: [&str; 2] = ["process", "base"];

fn script(mode: &str) -> Server {
    Launch::testbed("script", mode)
        .and(&["shutdown-deadline=60"])
        .start()
}

#[test]
fn a_timer_fires_once_and_not_early() {
    for mode in MODES {
        let server = script(mode);
        let mut client = Client::connect(server.address());
        for time in [0, 1, 30, 100] {
            let begin = Instant::now();
            assert_eq!(client.ask(&format!("after {time} 500")), "Ok(())");
            assert_eq!(client.read_line(), "fired 500 attempt 0", "{mode}");
            assert!(
                begin.elapsed() >= Duration::from_millis(time),
                "{mode}: {time}"
            );
        }
        // Each sets the next one.
        client.ask("clear");
        assert_eq!(client.ask("after 5 20"), "Ok(())");
        for tag in (0..=20).rev() {
            assert_eq!(client.read_line(), format!("fired {tag} attempt 0"));
        }
        assert_eq!(
            client.ask("measure"),
            "53",
            "the states of all of them: {mode}"
        );
        keeps(Duration::from_millis(100), "no timer fires", || {
            !client.has_news()
        });
    }
}

#[test]
fn a_timer_that_is_set_again_or_cancelled_does_not_fire_at_its_old_time() {
    for mode in MODES {
        let server = script(mode);
        let mut client = Client::connect(server.address());
        assert_eq!(client.ask("after 3600000 500"), "Ok(())");
        assert_eq!(client.ask("after 3600000 501"), "Ok(())");
        assert_eq!(client.ask("after 20 502"), "Ok(())");
        assert_eq!(client.ask("cancel 502"), "Ok(())");
        assert_eq!(client.ask("cancel 77"), "Ok(())", "there is none");
        assert_eq!(client.ask("after 50 501"), "Ok(())");
        assert_eq!(client.read_line(), "fired 501 attempt 0", "{mode}");
        keeps(Duration::from_millis(100), "no timer fires", || {
            !client.has_news()
        });
        // Those of a connection that is gone fire for no other.
        assert_eq!(client.ask("after 100 503"), "Ok(())");
        drop(client);
        let mut next = Client::connect(server.address());
        next.ask("echo here");
        keeps(Duration::from_millis(200), "no timer fires", || {
            !next.has_news()
        });
    }
}

#[test]
fn a_timer_is_committed_with_its_answer() {
    let server = Launch::testbed("script", "process")
        .and(&["on-crash=redeliver=2"])
        .start();
    let mut client = Client::connect(server.address());
    // Its connection is closed after two failures, and no timer was set before.
    client.send(b"after-and-fail 500\n");
    assert_eq!(client.read_to_end(), b"");
    // The callback of a timer runs again, as that of a message does.
    let mut client = Client::connect(server.address());
    let pid = client.ask_number("pid");
    assert_eq!(client.ask("after 10 1000"), "Ok(())");
    assert_eq!(client.read_line(), "fired 1000 attempt 1");
    assert_ne!(client.ask_number("pid"), pid);
    assert_eq!(client.ask("measure"), "5", "its state was set once");
}

#[test]
fn timers_fire_in_whichever_worker_is_there() {
    for mode in MODES {
        let server = script(mode);
        let mut client = Client::connect(server.address());
        let pid = client.ask_number("pid");
        assert_eq!(client.ask("after 1500 500"), "Ok(())");
        assert_eq!(client.ask("after 3600000 501"), "Ok(())");
        let old = server.workers();
        server.signal(Signal::SIGUSR1);
        server.new_workers(2, &old);
        for worker in old {
            eventually(SOON, "the old worker is reaped", || worker.is_reaped());
        }
        assert_eq!(client.read_line(), "fired 500 attempt 0", "{mode}");
        assert_ne!(client.ask_number("pid"), pid, "{mode}");
        assert_eq!(client.ask("after 1 501"), "Ok(())");
        assert_eq!(client.read_line(), "fired 501 attempt 0", "{mode}");
    }
}

#[test]
fn a_flood_of_timers_is_refused_and_harms_no_other_connection() {
    for mode in MODES {
        let server = Launch::testbed("script", mode)
            .and(&["workers=1", "reactors=1", "memory-budget=60000000"])
            .start();
        let mut flood = Client::connect(server.address());
        let mut other = Client::connect(server.address());
        for _ in 0..30 {
            flood.send(b"flood 200000\n");
        }
        let refused = flood.read_line();
        assert!(refused.starts_with("Some(Full"), "{mode}: {refused}");
        assert_eq!(other.ask("echo here"), "echo here");
        let full = other.ask("after 1 500");
        assert!(full.contains("Full"), "{mode}: {full}");
        drop(flood);
        eventually(SOON, "there is room again", || {
            other.ask("after 3600000 500") == "Ok(())"
        });
    }
}

#[test]
fn timers_fire_exactly_once_while_workers_are_killed() {
    let server = Launch::testbed("script", "process")
        .and(&["on-crash=redeliver=50", "workers=3"])
        .start();
    let address = server.address();
    let begin = Instant::now();
    let end = begin + Duration::from_secs(4);
    let clients: Vec<_> = (0..8)
        .map(|_| {
            thread::spawn(move || {
                let (mut client, mut rounds) = (Client::connect(address), 0);
                while Instant::now() < end {
                    client.ask("clear");
                    assert_eq!(client.ask("after 1 9"), "Ok(())");
                    for tag in (0..=9).rev() {
                        let line = client.read_line();
                        let expected = format!("fired {tag} attempt ");
                        assert!(line.starts_with(&expected), "{line} instead of {expected}");
                    }
                    assert_eq!(client.ask("measure"), "20");
                    rounds += 1;
                }
                rounds
            })
        })
        .collect();
    server.kill_workers_under(clients, 10, || Instant::now() < end);
}
