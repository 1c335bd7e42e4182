//! The cost of clients that are connected and silent: memory for each of them, over all processes of a
//! server, and processor time, of which there should be none.
//!
//! Memory is the difference between a small and a large number of clients of one server, so that the
//! server's own memory is not part of it.

use std::mem;
use std::thread;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;

use crate::Effort;
use crate::common::client::Client;
use crate::common::process::Process;
use crate::common::server;
use crate::common::{SOON, c, eventually};
use crate::peers::{BASE, PROCESS, Server};
use crate::rows::ONE;
use crate::targets::Target;

pub(crate) const NAME: &str = "idle";

const FEW: usize = 1_000;
const MANY: usize = 10_000;

/// Bytes to send first: more than the rings hold, so that all their pages are in use. That memory is the
/// server's own.
const ONCE_ROUND: usize = 4 << 20;

/// The longest message that the server reads at once.
const PIECE: usize = 64 << 10;

pub(crate) fn measure(servers: &[Server], effort: Effort) -> Vec<Target> {
    if let Err(problem) = make_room(MANY as u64 + 256) {
        println!("{NAME}: SKIPPED, {problem}");
        return Vec::new();
    }
    let servers = servers
        .iter()
        .filter(|server| [BASE, PROCESS].contains(&server.name));
    servers.flat_map(|server| of(server, effort)).collect()
}

fn of(server: &Server, effort: Effort) -> [Target; 2] {
    let mut running = c::start(server.launch(ONE), "process");
    let processes = running.processes();
    let mut talker = Client::connect(running.address());
    let piece = vec![7; PIECE];
    (0..ONCE_ROUND / PIECE).for_each(|_| talker.echo(&piece));

    let mut crowd = Vec::with_capacity(MANY);
    let mut grow_to = |count: usize| {
        let first = crowd.len();
        crowd.extend((first..count).map(|nth| connect(&running, nth)));
        wait_until_known(&processes, count, &mut talker);
        memory(&processes)
    };
    let few = grow_to(FEW);
    let many = grow_to(MANY);
    let each = (many as f64 - few as f64) / (MANY - FEW) as f64;

    // In base mode the manager looks at the accept queues once more, 100 ms after the last client has come.
    thread::sleep(Duration::from_secs(1));
    let before = run_time(&processes);
    thread::sleep(Duration::from_secs_f64(effort.idle));
    let ran = run_time(&processes) - before;

    running.signal(Signal::SIGTERM);
    running.ended(SOON);
    let (name, seconds) = (server.name, effort.idle);
    [
        Target::at_most(
            format!("{name}, {FEW} to {MANY} idle: bytes of memory for each"),
            each,
            330.0,
        ),
        Target::at_most(
            format!("{name}, {MANY} idle, {seconds} s: µs of processor time in all"),
            ran.as_secs_f64() * 1e6,
            0.0,
        ),
    ]
}

fn connect(server: &server::Server, nth: usize) -> Client {
    let client = Client::try_connect_nth(server.address(), nth);
    client.unwrap_or_else(|error| panic!("client {nth}: {error}"))
}

/// Waits until `count` clients are accepted, and their callbacks have run.
fn wait_until_known(processes: &[Process], count: usize, talker: &mut Client) {
    eventually(SOON, format_args!("{count} clients are accepted"), || {
        let descriptors = processes.iter().map(|process| process.descriptors());
        descriptors.max().is_some_and(|most| most > count)
    });
    // This message is answered after their callbacks have run.
    talker.echo(b"after all others");
    // The processes run for a moment after the answer.
    let mut before = run_time(processes);
    eventually(SOON, "no process runs", || {
        thread::sleep(Duration::from_millis(50));
        let now = run_time(processes);
        now == mem::replace(&mut before, now)
    });
}

fn memory(processes: &[Process]) -> u64 {
    processes
        .iter()
        .map(|process| process.proportional_memory())
        .sum()
}

fn run_time(processes: &[Process]) -> Duration {
    processes.iter().map(|process| process.run_time()).sum()
}

/// Raises this process's limit of open files: it holds the clients' ends.
fn make_room(needed: u64) -> Result<(), String> {
    let failed = |error: nix::Error| format!("cannot allow {needed} open files: {error}");
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(failed)?;
    match soft >= needed {
        true => Ok(()),
        false => setrlimit(Resource::RLIMIT_NOFILE, needed, hard.max(needed)).map_err(failed),
    }
}
