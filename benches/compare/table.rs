//! The figures of all rounds, their medians, and ratios within a round.

use std::fmt::Write;

use serde::Serialize;

use crate::load::Measured;
use crate::peers::BARE;
use crate::rows::Row;

#[derive(Default)]
pub(crate) struct Results {
    pub(crate) measured: Vec<Entry>,
}

/// One server under one load, once.
#[derive(Serialize)]
pub(crate) struct Entry {
    row: &'static str,
    server: &'static str,
    round: usize,
    #[serde(flatten)]
    measured: Measured,
}

/// A median, and the least and greatest of the rounds.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

/// Selects one figure of a measurement.
pub(crate) type Figure = fn(&Measured) -> f64;

pub(crate) const PER_SECOND: Figure = |measured| measured.per_second;
pub(crate) const CPU: Figure = |measured| measured.cpu;
pub(crate) const P50: Figure = |measured| measured.p50;
pub(crate) const P99: Figure = |measured| measured.p99;
pub(crate) const P999: Figure = |measured| measured.p999;
pub(crate) const MEMORY: Figure = |measured| measured.memory as f64;
const BUSY: Figure = |measured| measured.generator_busy;
const WITHOUT_PROCESSOR: Figure = |measured| measured.generator_without_processor;

impl Results {
    pub(crate) fn add(
        &mut self,
        row: &Row,
        server: &'static str,
        round: usize,
        measured: Measured,
    ) {
        self.measured.push(Entry {
            row: row.name,
            server,
            round,
            measured,
        });
    }

    /// Returns the rows that were measured, in their order.
    pub(crate) fn rows(&self) -> Vec<&'static str> {
        let mut rows: Vec<&'static str> = Vec::new();
        for entry in &self.measured {
            if rows.last() != Some(&entry.row) {
                rows.push(entry.row);
            }
        }
        rows
    }

    /// Returns the servers of a row, in the order of the first round.
    pub(crate) fn servers(&self, row: &str) -> Vec<&'static str> {
        let first = self
            .measured
            .iter()
            .filter(|entry| entry.row == row && entry.round == 0);
        first.map(|entry| entry.server).collect()
    }

    fn of(&self, row: &str, server: &str) -> impl Iterator<Item = &Entry> {
        self.measured
            .iter()
            .filter(move |entry| entry.row == row && entry.server == server)
    }

    pub(crate) fn median(&self, row: &str, server: &str, figure: Figure) -> Option<f64> {
        spread(self.of(row, server).map(|entry| figure(&entry.measured)))
            .map(|spread| spread.median)
    }

    /// Returns the ratio of a server's figure to another server's, or to its own under another load, within
    /// the same round.
    pub(crate) fn ratio(
        &self,
        (row, server): (&str, &str),
        (other_row, other): (&str, &str),
        figure: Figure,
    ) -> Option<Spread> {
        spread(self.of(row, server).filter_map(|entry| {
            let other = self
                .of(other_row, other)
                .find(|other| other.round == entry.round)?;
            Some(figure(&entry.measured) / figure(&other.measured))
        }))
    }
}

fn spread(values: impl Iterator<Item = f64>) -> Option<Spread> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let (least, most) = (*values.first()?, *values.last()?);
    let middle = values.len() / 2;
    let median = match values.len() % 2 {
        0 => (values[middle - 1] + values[middle]) / 2.0,
        _ => values[middle],
    };
    Some(Spread {
        median,
        least,
        most,
    })
}

/// Returns a table of all rows.
pub(crate) fn markdown(results: &Results) -> String {
    let mut text = String::from(HEAD);
    for row in results.rows() {
        for server in results.servers(row) {
            text += &line(results, row, server);
        }
    }
    text + &busy(results)
}

/// Lists the measurements in which the generator was as slow as the server: their throughput is not the
/// server's alone.
fn busy(results: &Results) -> String {
    let mut text = String::new();
    for row in results.rows() {
        for server in results.servers(row) {
            let median = |figure| results.median(row, server, figure).unwrap_or(0.0);
            if median(BUSY) > 0.95 {
                // Writing to a String does not fail.
                let _ = writeln!(
                    text,
                    "- {row}, {server}: the generator was never idle, and had no processor for {:.0} % of \
                     the time",
                    median(WITHOUT_PROCESSOR) * 100.0
                );
            }
        }
    }
    match text.is_empty() {
        true => text,
        false => format!("\n{text}"),
    }
}

/// Returns the lines of one row.
pub(crate) fn lines(results: &Results, row: &str) -> String {
    let servers = results.servers(row).into_iter();
    servers.map(|server| line(results, row, server)).collect()
}

const HEAD: &str = "\
| load | server | messages/s | to bare | CPU µs/message | to bare | p50 µs | p99 µs | to bare | p99.9 µs | MB |
|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|
";

fn line(results: &Results, row: &str, server: &str) -> String {
    let median = |figure| results.median(row, server, figure).unwrap_or(f64::NAN);
    let ratio = |figure| match results.ratio((row, server), (row, BARE), figure) {
        Some(ratio) if server != BARE => {
            format!("{:.2} ({:.2}–{:.2})", ratio.median, ratio.least, ratio.most)
        }
        Some(_) | None => String::new(),
    };
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = writeln!(
        text,
        "| {row} | {server} | {} | {} | {} | {} | {:.0} | {:.0} | {} | {:.0} | {:.1} |",
        thousands(median(PER_SECOND)),
        ratio(PER_SECOND),
        three_digits(median(CPU)),
        ratio(CPU),
        median(P50),
        median(P99),
        ratio(P99),
        median(P999),
        median(MEMORY) / 1e6,
    );
    text
}

/// Returns a number with three significant digits.
fn three_digits(number: f64) -> String {
    match number {
        big if big >= 100.0 => format!("{big:.0}"),
        middle if middle >= 10.0 => format!("{middle:.1}"),
        small if small >= 1.0 => format!("{small:.2}"),
        least => format!("{least:.3}"),
    }
}

fn thousands(number: f64) -> String {
    match number {
        big if big >= 1e6 => format!("{:.2}M", big / 1e6),
        middle if middle >= 1e4 => format!("{:.1}k", middle / 1e3),
        small => format!("{small:.0}"),
    }
}
