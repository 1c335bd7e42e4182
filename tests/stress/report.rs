//! The table: a line as soon as its row is done, and whether every line keeps the promise.
#![allow(clippy::print_stdout, reason = "the table is what this program is for")]

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use super::trial::Outcome;

/// The rows to be run, and the outcome of those that were run.
pub(crate) struct Report {
    /// By number; none means all.
    only: Vec<u8>,
    begin: Instant,
    passed: usize,
    failed: usize,
}

impl Report {
    pub(crate) fn new(only: Vec<u8>) -> Self {
        println!(
            "{:<50} {:<38} {:>9} {:>5} {:>10} {:>7} {:>7} {:>11}",
            "row", "done", "answered", "lost", "duplicated", "corrupt", "dropped", "longest gap"
        );
        Self {
            only,
            begin: Instant::now(),
            passed: 0,
            failed: 0,
        }
    }

    pub(crate) fn wants(&self, number: u8) -> bool {
        self.only.is_empty() || self.only.contains(&number)
    }

    /// Runs a row, if it was selected, and prints its line.
    pub(crate) fn row(&mut self, number: u8, name: &str, run: impl FnOnce() -> Outcome) {
        if !self.wants(number) {
            return;
        }
        let name = format!("{number} {name}");
        match catch_unwind(AssertUnwindSafe(run)) {
            Ok(outcome) => self.line(&name, &outcome),
            Err(_) => {
                println!("{name:<50} FAILED: see above");
                self.failed += 1;
            }
        }
    }

    /// Prints the line of a row that cannot be run here.
    pub(crate) fn skip(&mut self, number: u8, name: &str, why: &str) {
        println!("{:<50} SKIPPED: {why}", format!("{number} {name}"));
    }

    fn line(&mut self, name: &str, Outcome { done, tally }: &Outcome) {
        let is_kept = tally.keeps_the_promise();
        println!(
            "{name:<50} {done:<38} {:>9} {:>5} {:>10} {:>7} {:>7} {:>8} ms  {}",
            tally.answered,
            tally.lost,
            tally.duplicated,
            tally.corrupt,
            tally.dropped,
            tally.longest_gap.as_millis(),
            if is_kept { "ok" } else { "FAILED" }
        );
        tally.notes.iter().for_each(|note| println!("    {note}"));
        // For readers through a pipe.
        let _ = std::io::stdout().flush();
        if is_kept {
            self.passed += 1;
        } else {
            self.failed += 1;
        }
    }

    /// Whether every row that was run keeps the promise, and there was one.
    pub(crate) fn conclude(self) -> bool {
        let time = self.begin.elapsed().as_secs();
        println!("{} rows ok, {} FAILED, {time} s", self.passed, self.failed);
        self.failed == 0 && self.passed > 0
    }
}
