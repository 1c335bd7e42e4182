//! Kills, stops and reloads of workers, at random and all at once: no client notices, in any dispatch mode.

use std::env;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::common::launch::Launch;
use crate::common::server::Server;
use crate::common::traffic::{Habit, Traffic};

/// How long each mode is tried: 2 s, or as many as `TINE_STRESS_SECONDS` says.
fn stress_time() -> Duration {
    let seconds = env::var("TINE_STRESS_SECONDS")
        .map(|text| text.parse().expect("TINE_STRESS_SECONDS is a number"));
    Duration::from_secs(seconds.unwrap_or(2))
}

/// Kills, stops or replaces a worker every few milliseconds. `dice` is the seed.
fn torment(server: &Server, mut dice: u64) {
    let begin = Instant::now();
    while begin.elapsed() < stress_time() {
        // Knuth's numbers; the high bits are the random ones.
        dice = dice
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let (what, whom, how_long) = (dice >> 60, (dice >> 40) as usize, dice >> 32 & 31);
        thread::sleep(Duration::from_millis(5 + how_long));
        let workers = server.workers();
        let Some(worker) = workers.get(whom % workers.len().max(1)) else {
            continue;
        };
        match what {
            0..6 => worker.signal(Signal::SIGKILL),
            6..12 => {
                worker.signal(Signal::SIGSTOP);
                thread::sleep(Duration::from_millis(how_long * 2));
                worker.signal(Signal::SIGCONT);
            }
            12..14 => worker.signal(Signal::SIGTERM),
            _ => server.signal(Signal::SIGUSR1),
        }
    }
}

#[track_caller]
fn no_client_notices(server: Launch) {
    let server = server.start();
    let mut traffic = Traffic::start(server.address(), 20, Habit::Stay);
    traffic.each_is_answered();
    torment(&server, u64::from(server.root.pid.unsigned_abs()));
    traffic.each_is_answered();
    traffic.finish().is_clean();
    assert!(server.log().with(&["poison"]).is_empty());
    assert!(server.log().with(&["broke the ring"]).is_empty());
}

/// Three workers that take a moment for each message.
fn serve(flags: &[&str]) -> Launch {
    Launch::serve(&["--workers", "3", "--reactors", "2", "--work", "1"])
        .and(&["--on-crash", "redeliver=100"])
        .and(flags)
}

/// With recycling, and with a standby worker.
const RECYCLED: [&str; 4] = ["--standby", "1", "--max-requests", "100"];

#[test]
fn with_connections_that_stay() {
    no_client_notices(serve(&RECYCLED));
}

#[test]
fn with_messages_that_go_anywhere() {
    no_client_notices(serve(&["--dispatch", "least-busy"]).and(&RECYCLED));
}

#[test]
fn with_whole_messages_that_go_anywhere() {
    let flags = ["--dispatch", "least-busy", "--protocol", "length=4"];
    no_client_notices(serve(&flags).and(&["--standby", "2"]));
}

#[test]
fn with_seats_that_are_the_only_ones() {
    let flags = ["--dispatch", "client-address", "--protocol", "length=4"];
    no_client_notices(serve(&flags).and(&RECYCLED));
}

#[test]
fn with_a_function_that_scatters_messages() {
    let options = ["workers=3", "dispatch=scatter", "protocol=length=4"];
    let server = Launch::testbed("liar", "process").and(&options);
    no_client_notices(server.and(&["standby=1", "max-requests=100", "on-crash=redeliver=100"]));
}
