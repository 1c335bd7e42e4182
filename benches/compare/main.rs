//! Compares tine with a bare epoll loop and the other echo servers on this machine: `make bench`, a
//! quarter of an hour, or `QUICK=1 make bench`, less than two minutes. The quick run puts one load on the
//! other servers, and leaves out loads without a target.
//!
//! Each round starts the servers one after the other, puts the same load on each with `tine load`, and
//! reads their processor time from the kernel. Servers take turns within a round, so that other work of
//! the machine affects all; ratios are taken within a round, and their median over the rounds. Counts
//! (memory and processor time of idle connections, system calls, allocations) come last. The figures, a
//! table and charts go to `target/bench/`.
//!
//! Its one rule: it asserts only that every byte was correct, since a slow machine is not a fault.
#![allow(clippy::print_stdout)]

#[path = "../../tests/common/mod.rs"]
mod common;

mod calls;
mod charts;
mod cores;
mod heap;
mod idle;
mod lasting;
mod load;
mod peers;
mod publish;
mod rows;
mod table;
mod targets;

use std::path::PathBuf;
use std::time::Instant;
use std::{env, fs};

use peers::{Kind, Server};
use rows::{ROWS, Row};
use table::Results;
use targets::Target;

/// The length of a run.
#[derive(Clone, Copy)]
struct Effort {
    rounds: usize,
    seconds: f64,
    warm_up: f64,
    /// Seconds in which idle servers are watched.
    idle: f64,
}

const QUICK: Effort = Effort {
    rounds: 3,
    seconds: 0.3,
    warm_up: 0.1,
    idle: 2.0,
};

/// Many short rounds, because other work of the machine changes within seconds.
const THOROUGH: Effort = Effort {
    rounds: 9,
    seconds: 0.8,
    warm_up: 0.2,
    idle: 10.0,
};

/// The one load of other servers in a quick run.
const QUICK_FOR_PEERS: &str = "64 B x 100";

fn main() {
    match env::args().nth(1).as_deref() {
        Some(publish::BARE) => return publish::bare(),
        Some(publish::TINE) => return publish::tine(),
        Some(lasting::ROLE) => return lasting::serve(),
        Some(lasting::STATE) => return lasting::serve_with_state(),
        _ => {}
    }
    let quick = env::var("QUICK").is_ok_and(|value| !value.is_empty() && value != "0");
    let effort = if quick { QUICK } else { THOROUGH };
    let only: Vec<String> = env::args()
        .skip(1)
        .filter(|word| !word.is_empty() && !word.starts_with('-'))
        .collect();
    let is_wanted =
        |name: &str| only.is_empty() || only.iter().any(|word| name.contains(word.as_str()));
    let servers = peers::all();
    let is_measured = |row: &Row, server: &Server| {
        row.is_for(server) && !(quick && server.kind == Kind::Peer && row.name != QUICK_FOR_PEERS)
    };
    let is_left_out = |row: &Row| quick && only.is_empty() && !targets::are_of(row.name);
    let mut results = Results::default();
    for row in ROWS {
        if is_wanted(row.name) && !is_left_out(row) {
            let servers = servers.iter().filter(|server| is_measured(row, server));
            measure(row, &servers.collect::<Vec<_>>(), effort, &mut results);
        }
    }
    let mut targets = targets::look(&results);
    let counted: [(&str, &dyn Fn() -> Vec<Target>); 5] = [
        (idle::NAME, &|| idle::measure(&servers, effort)),
        (calls::NAME, &|| calls::measure(&servers, effort)),
        (heap::NAME, &heap::measure),
        (publish::NAME, &|| publish::measure(effort)),
        (lasting::NAME, &|| lasting::measure(&servers, effort)),
    ];
    for (name, count) in counted {
        if is_wanted(name) {
            targets.extend(timed(name, count));
        }
    }
    report(&results, &targets);
}

fn report(results: &Results, targets: &[Target]) {
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let folder = target.parent().expect("the target folder").join("bench");
    fs::create_dir_all(&folder).expect("target/bench can be made");
    let (loads, wanted) = (table::markdown(results), targets::markdown(targets));
    let table = format!("{loads}\n{wanted}");
    println!("\n{table}");
    fs::write(folder.join("table.md"), table).expect("the table can be written");
    let json = serde_json::to_vec_pretty(&results.measured).expect("figures are JSON");
    fs::write(folder.join("results.json"), json).expect("the figures can be written");
    charts::draw(results, &folder).expect("the charts can be drawn");
    println!("{}", targets::summary(targets));
    println!("figures, table and charts are in {}", folder.display());
}

/// Runs all rounds of one load, with all servers in each of them.
fn measure(row: &Row, servers: &[&Server], effort: Effort, results: &mut Results) {
    let begin = Instant::now();
    for round in 0..effort.rounds {
        // Each round begins with another server, so that none has the cold caches every time.
        let first = round % servers.len().max(1);
        for server in servers[first..].iter().chain(&servers[..first]) {
            match load::measure(row, server, effort) {
                Ok(measured) => results.add(row, server.name, round, measured),
                // Another server need not bear every load.
                Err(problem) if server.kind == Kind::Peer => {
                    println!("{}, {}: SKIPPED, {}", row.name, server.name, problem.trim());
                }
                Err(problem) => panic!("{}, {}: {problem}", row.name, server.name),
            }
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    println!(
        "{} ({seconds:.0} s)\n{}",
        row.name,
        table::lines(results, row.name)
    );
}

/// Takes counts, and prints them at once.
fn timed(name: &str, count: &dyn Fn() -> Vec<Target>) -> Vec<Target> {
    let begin = Instant::now();
    let found = count();
    let seconds = begin.elapsed().as_secs_f64();
    println!("{name} ({seconds:.0} s)\n{}", targets::lines(&found));
    found
}
