//! The project's targets, and whether they are reached.

use std::fmt::Write;

use crate::peers::{BARE, BASE, PROCESS, PROCESS_C, STATE_LOAD, WITH_STATE};
use crate::table::{CPU, Figure, P50, P99, PER_SECOND, Results, Spread};

/// One target: its subject, the figure that was measured, and the figure to reach.
pub(crate) struct Target {
    what: String,
    found: f64,
    /// The least and the greatest of the rounds, if there are rounds.
    rounds: Option<(f64, f64)>,
    wanted: f64,
    /// Greater is better.
    at_least: bool,
}

impl Target {
    pub(crate) fn at_most(what: String, found: f64, wanted: f64) -> Target {
        Target {
            what,
            found,
            rounds: None,
            wanted,
            at_least: false,
        }
    }

    fn is_reached(&self) -> bool {
        match self.at_least {
            true => self.found >= self.wanted,
            false => self.found <= self.wanted,
        }
    }

    pub(crate) fn ratio(what: String, spread: Spread, wanted: f64, at_least: bool) -> Target {
        Target {
            what,
            found: spread.median,
            rounds: Some((spread.least, spread.most)),
            wanted,
            at_least,
        }
    }
}

const EVERY: [&str; 9] = [
    "64 B x 1",
    "64 B x 100",
    "64 B x 1,000",
    "64 B x 10,000",
    "64 B x 50, depth 32",
    "4 KiB x 50",
    "64 KiB x 20",
    "1 MiB x 8",
    "churn x 50",
];
const SMALL: [&str; 5] = [
    "64 B x 100",
    "64 B x 1,000",
    "64 B x 10,000",
    "64 B x 50, depth 32",
    "4 KiB x 50",
];
const LARGE: [&str; 2] = ["64 KiB x 20", "1 MiB x 8"];

/// A load with idle clients, and the same load without them.
const IDLE: (&str, &str) = ("64 B x 100, 10,000 idle", "64 B x 100");
/// A load below the limit of any server: messages are due at fixed times.
const DUE: &str = "64 B x 100, 20,000/s due";

/// Whether this load has a target.
pub(crate) fn are_of(row: &str) -> bool {
    EVERY.contains(&row) || row == IDLE.0 || row == DUE
}

pub(crate) fn look(results: &Results) -> Vec<Target> {
    let mut targets = Vec::new();
    let mut want =
        |rows: &[&str], server, other, (figure, name): (Figure, &str), wanted, at_least| {
            for row in rows {
                if let Some(ratio) = results.ratio((row, server), (row, other), figure) {
                    let what = format!("{server}, {row}: {name} against {other}");
                    targets.push(Target::ratio(what, ratio, wanted, at_least));
                }
            }
        };
    let (throughput, cpu) = ((PER_SECOND, "throughput"), (CPU, "CPU"));
    let (p50, p99) = ((P50, "p50"), (P99, "p99"));
    want(&EVERY, BASE, BARE, throughput, 0.98, true);
    want(&EVERY, BASE, BARE, cpu, 1.05, false);
    want(&SMALL, PROCESS, BARE, throughput, 0.95, true);
    want(&SMALL, PROCESS, BARE, cpu, 1.25, false);
    want(&LARGE, PROCESS, BARE, throughput, 0.90, true);
    want(&LARGE, PROCESS, BARE, cpu, 1.3, false);
    want(&["64 B x 1"], PROCESS, BARE, p50, 1.35, false);
    want(&["churn x 50"], PROCESS, BARE, cpu, 1.8, false);
    // Every load of the bare loop: a server that is quick on average may still let some clients wait.
    for server in [BASE, PROCESS, PROCESS_C] {
        want(&EVERY, server, BARE, p99, 1.5, false);
        want(&[IDLE.0, DUE], server, BARE, p99, 1.5, false);
    }
    want(&SMALL, PROCESS_C, PROCESS, throughput, 0.97, true);
    want(&[STATE_LOAD], WITH_STATE, PROCESS, throughput, 0.9, true);
    for server in [BASE, PROCESS] {
        let (idle, alone) = IDLE;
        if let Some(ratio) = results.ratio((idle, server), (alone, server), CPU) {
            let what = format!("{server}, {idle}: CPU against without them");
            targets.push(Target::ratio(what, ratio, 1.1, false));
        }
    }
    targets
}

/// Returns how many targets are missed, and their names.
pub(crate) fn summary(targets: &[Target]) -> String {
    let missed: Vec<&Target> = targets.iter().filter(|it| !it.is_reached()).collect();
    let mut text = format!("{} of {} targets are missed", missed.len(), targets.len());
    for target in &missed {
        text += "\n- ";
        text += &target.what;
    }
    text
}

pub(crate) fn markdown(targets: &[Target]) -> String {
    String::from("| wanted | | found | |\n|---|---:|---:|---|\n") + &lines(targets)
}

/// Returns a line for each target.
pub(crate) fn lines(targets: &[Target]) -> String {
    let mut text = String::new();
    for target in targets {
        let sign = if target.at_least { "≥" } else { "≤" };
        let verdict = if target.is_reached() {
            "reached"
        } else {
            "MISSED"
        };
        let rounds = target
            .rounds
            .map(|(least, most)| format!(" ({least:.2}–{most:.2})"));
        // Writing to a String does not fail.
        let _ = writeln!(
            text,
            "| {} | {sign} {:.2} | {:.3}{} | {verdict} |",
            target.what,
            target.wanted,
            target.found,
            rounds.unwrap_or_default()
        );
    }
    text
}
