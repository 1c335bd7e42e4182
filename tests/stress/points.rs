//! Row 3: a worker dies at one step of the ring protocol, for each step.
//!
//! The program kills its own workers, with SIGKILL, now and then at the step that `TINE_KILL_AT` names. Only
//! a build for tests does; `tine-testbed kill-points` prints the names.

use std::thread;
use std::time::{Duration, Instant};

use super::Scale;
use super::chaos::KILLED;
use super::crowd::{Habit, Plan};
use super::report::Report;
use super::trial::{Framing, Trial};
use crate::common::launch::Launch;
use nix::sys::signal::Signal;

/// The least kills at each step.
const HITS: usize = 50;
const PATIENCE: Duration = Duration::from_secs(20);

/// Steps that are taken only when a worker takes over from another: the row makes that happen all the time.
const HAND_OVER: [&str; 2] = ["attached", "recall"];

/// A step that only those take who send files: `tests/it/files.rs` has them killed there.
const OF_FILES: &str = "file-sent";

/// From short messages, many of which are in the ring, to those whose answer is longer than it.
const CLIENTS: [Plan; 4] = [
    Plan {
        connections: 8,
        size: 16,
        depth: 16,
        habit: Habit::Stay,
    },
    Plan {
        connections: 8,
        size: 4 << 10,
        depth: 4,
        habit: Habit::Leave { after: 8 },
    },
    Plan {
        connections: 4,
        size: 200 << 10,
        depth: 4,
        habit: Habit::HalfClose,
    },
    Plan {
        connections: 2,
        size: 2 << 20,
        depth: 2,
        habit: Habit::Stay,
    },
];

pub(crate) fn rows(report: &mut Report, scale: Scale) {
    if !report.wants(3) {
        return;
    }
    for point in &points() {
        // Copied bytes go through the outbox, and are held back if they are longer than it.
        for handler in ["echo", "copy"] {
            report.row(3, &format!("{handler}, killed at {point}"), || {
                let launch = Launch::serve(&["--handler", handler]).env("TINE_KILL_AT", point);
                // Raw bytes are answered in pieces that always fit into the ring.
                let mut trial = Trial::launch(Framing::Length, launch);
                trial.expect_deaths();
                trial.join(&CLIENTS);
                wait_for_hits(&mut trial, scale, HAND_OVER.contains(&point.as_str()));
                let done = format!("{} kills", trial.deaths(KILLED));
                trial.end(done)
            });
        }
    }
}

/// Returns the steps at which a worker can be made to die.
fn points() -> Vec<String> {
    let listed = Launch::testbed("kill-points", "process").run();
    let names = listed.stdout.lines().filter(|name| *name != OF_FILES);
    let names: Vec<String> = names.map(str::to_owned).collect();
    assert!(listed.status.success() && !names.is_empty(), "{listed:?}");
    names
}

fn wait_for_hits(trial: &mut Trial, scale: Scale, reload: bool) {
    let (begin, wanted) = (Instant::now(), HITS * scale.0);
    while trial.deaths(KILLED) < wanted && begin.elapsed() < PATIENCE * scale.0 as u32 {
        if reload {
            trial.server.signal(Signal::SIGUSR1);
        }
        thread::sleep(Duration::from_millis(20));
    }
    let hits = trial.deaths(KILLED);
    trial.demand(hits >= wanted, "the step kills");
}
