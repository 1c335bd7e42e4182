//! The chaos suite: the real program under clients that check every byte, while its workers are killed, stopped, replaced
//! and made to fail in every way. It prints a line for each row, and fails on any number that breaks the promise.
//!
//! `make stress` runs it. `STRESS=full` takes five times as long; `STRESS_ROWS=1,5` runs only these rows.

#[path = "../common/mod.rs"]
mod common;

mod asker;
mod chaos;
mod crowd;
mod ending;
mod faults;
mod ghosts;
mod guests;
mod kills;
mod lasting;
mod points;
mod programs;
mod relays;
mod reloads;
mod report;
mod sealed;
mod slowloris;
mod speech;
mod steps;
mod strangers;
mod tally;
mod tracer;
mod trial;
mod turns;
mod young;

use std::env;
use std::process::ExitCode;

/// The factor over the few minutes of `make stress`.
#[derive(Clone, Copy)]
struct Scale(usize);

fn main() -> ExitCode {
    speech::tells_wrong_answers_apart();
    let scale = match env::var("STRESS").as_deref() {
        Ok("full") => Scale(5),
        Ok("") | Err(_) => Scale(1),
        Ok(other) => panic!("STRESS={other}: `full` is expected, or nothing"),
    };
    let mut report = report::Report::new(wanted_rows());
    kills::rows(&mut report, scale);
    faults::rows(&mut report, scale);
    points::rows(&mut report, scale);
    reloads::rows(&mut report, scale);
    guests::rows(&mut report, scale);
    ending::rows(&mut report, scale);
    ghosts::rows(&mut report, scale);
    slowloris::rows(&mut report, scale);
    steps::rows(&mut report, scale);
    relays::rows(&mut report, scale);
    turns::rows(&mut report, scale);
    young::rows(&mut report, scale);
    lasting::rows(&mut report, scale);
    sealed::rows(&mut report, scale);
    programs::rows(&mut report, scale);
    if report.conclude() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn wanted_rows() -> Vec<u8> {
    let rows = env::var("STRESS_ROWS").unwrap_or_default();
    let number = |word: &str| match word.trim().parse() {
        Ok(number @ 1..=15) => number,
        _ => panic!("STRESS_ROWS={rows}: numbers from 1 to 15 are expected, as in 1,5"),
    };
    rows.split(',')
        .filter(|word| !word.is_empty())
        .map(number)
        .collect()
}
