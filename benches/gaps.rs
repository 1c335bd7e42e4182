//! What clients feel of workers that die or get stuck, in figures: the gap from a SIGKILL to the next
//! reply, with and without a worker that stands by; and the 99th percentile beside a worker that is
//! stuck. Prints, and asserts nothing: how fast a machine is, is no matter of right or wrong.
//!
//! `make gaps`. On a machine that does nothing else, or the figures are that of the others' work.
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

/// Beside the connections of the stuck worker, with `--work 1` and ten workers.
const CLIENTS: usize = 20;

fn main() {
    println!("from SIGKILL to the next reply, {KILLS} times:");
    for (standby, flags) in [("0", &[][..]), ("1", &["--standby", "1"])] {
        print_times(&format!("  --standby {standby}"), gaps(flags));
    }
    println!("a reply, ten workers, {CLIENTS} clients, --work 1 --dispatch least-busy:");
    let server = Launch::serve(&["--workers", "10", "--dispatch", "least-busy", "--work", "1"]);
    let server = server.and(&["--log-level", "error"]).start();
    print_times("  undisturbed", replies(&server, Duration::from_secs(5)));
    let stuck = server.workers()[0];
    stuck.signal(Signal::SIGSTOP);
    print_times("  one is stuck", replies(&server, Duration::from_secs(10)));
    stuck.signal(Signal::SIGCONT);
}

/// The times from a worker's death to the next reply on a connection of its seat.
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
    eventually(SOON, "those who stand by are ready", || {
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

/// The processes of the manager that have this name.
fn named(server: &Server, name: &str) -> Vec<Process> {
    let mut all = server.workers();
    all.retain(|process| {
        fs::read_to_string(format!("/proc/{}/comm", process.pid))
            .is_ok_and(|comm| comm.trim_end() == name)
    });
    all
}

/// How long replies take for clients that ask again and again.
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
