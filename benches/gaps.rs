//! The delays that clients see when workers die or get stuck: the gap from a SIGKILL to the next reply,
//! with and without a standby worker; and latencies beside a stuck worker. It prints and asserts nothing,
//! since a slow machine is not a fault.
//!
//! `make gaps`, on an idle machine: otherwise the figures show the other programs' work.
#![allow(clippy::print_stdout)]

#[path = "../tests/common/mod.rs"]
mod common;

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::client::Client;
use common::launch::Launch;
use common::process::Process;
use common::server::Server;
use common::{SOON, eventually, eventually_some};
use nix::sys::signal::Signal;

const KILLS: usize = 100;

/// Number of clients, with `--work 1` and ten workers.
const CLIENTS: usize = 20;

fn main() {
    println!("time from SIGKILL to the next reply, {KILLS} kills:");
    for (standby, flags) in [("0", &[][..]), ("1", &["--standby", "1"])] {
        print_times(&format!("  --standby {standby}"), gaps(flags));
    }
    println!("time to reply, ten workers, {CLIENTS} clients, --work 1 --dispatch least-busy:");
    let server = Launch::serve(&["--workers", "10", "--dispatch", "least-busy", "--work", "1"]);
    let server = server.and(&["--log-level", "error"]).start();
    print_times("  undisturbed", replies(&server, Duration::from_secs(5)));
    let stuck = server.workers()[0];
    stuck.signal(Signal::SIGSTOP);
    print_times("  one stuck", replies(&server, Duration::from_secs(10)));
    stuck.signal(Signal::SIGCONT);
}

/// Returns the times from a worker's death to the next reply on a connection of its seat.
fn gaps(flags: &[&str]) -> Vec<Duration> {
    let server = Launch::serve(&["--workers", "1", "--reactors", "1", "--log-level", "error"])
        .and(flags)
        .start();
    let mut client = Client::connect(server.address());
    client.echo(b"up");
    let stand_by = flags.len() / 2;
    (0..KILLS)
        .map(|_| gap(&server, &mut client, stand_by))
        .collect()
}

fn gap(server: &Server, client: &mut Client, stand_by: usize) -> Duration {
    eventually(SOON, "the worker and its standby are ready", || {
        let ready = |name: &str| {
            named(server, name)
                .iter()
                .filter(|it| it.waits_for_events())
                .count()
        };
        ready("tine standby") == stand_by && ready("tine worker#0") == 1
    });
    let worker = eventually_some(SOON, "a worker", || named(server, "tine worker#0").pop());
    let killed = Instant::now();
    worker.signal(Signal::SIGKILL);
    client.echo(b"and on");
    killed.elapsed()
}

/// Returns the children of the manager that have this name.
fn named(server: &Server, name: &str) -> Vec<Process> {
    let mut all = server.workers();
    all.retain(|process| {
        fs::read_to_string(format!("/proc/{}/comm", process.pid))
            .is_ok_and(|comm| comm.trim_end() == name)
    });
    all
}

/// Returns the times to reply for clients that send one message after the other.
fn replies(server: &Server, time: Duration) -> Vec<Duration> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = Client::connect(server.address());
                    let mut times = Vec::new();
                    while !stop.load(Ordering::Relaxed) {
                        let asked = Instant::now();
                        client.echo(b"a question");
                        times.push(asked.elapsed());
                    }
                    times
                })
            })
            .collect();
        thread::sleep(time);
        stop.store(true, Ordering::Relaxed);
        clients
            .into_iter()
            .flat_map(|client| client.join().expect("a client is answered"))
            .collect()
    })
}

fn print_times(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e3;
    println!(
        "{what:<16} median {:.3} ms, p99 {:.3} ms, longest {:.3} ms ({} replies)",
        at(0.5),
        at(0.99),
        at(1.0),
        times.len()
    );
}
