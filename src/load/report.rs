//! What a server did under load: figures as JSON or as a few lines.

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::cost::Cost;

/// Everything that was measured. Times are in microseconds.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) server: String,
    pub(crate) clients: usize,
    pub(crate) idle: usize,
    pub(crate) size: usize,
    /// Messages that each client had on its way; `None` in an open loop.
    pub(crate) depth: Option<usize>,
    /// Messages a second that were due; `None` in a closed loop.
    pub(crate) rate: Option<u64>,
    pub(crate) seconds: f64,
    pub(crate) messages: u64,
    pub(crate) messages_per_second: f64,
    pub(crate) connections: u64,
    pub(crate) connections_per_second: f64,
    pub(crate) latency: Latency,
    /// What the server's processes took for it, if they were named.
    pub(crate) cost: Option<Cost>,
    /// How much of the time this generator was busy: near 1 it was the slow one, and not the server.
    pub(crate) generator_busy: f64,
    pub(crate) faults: Faults,
}

/// From when a message was due until all of its reply was there, in microseconds.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Latency {
    pub(crate) min: f64,
    pub(crate) mean: f64,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    #[serde(rename = "p99.9")]
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

/// What should not have been.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Faults {
    /// Connections that were not let in.
    pub(crate) refused: u64,
    /// Connections that the server closed.
    pub(crate) closed: u64,
    /// Connections that were reset, or broke.
    pub(crate) broken: u64,
    /// Connections on which something else came back than was sent.
    pub(crate) wrong: u64,
    /// Messages that had no reply long after the end.
    pub(crate) unanswered: u64,
    /// The first of them, in words.
    pub(crate) first: Option<String>,
}

impl Faults {
    pub(crate) fn is_none(&self) -> bool {
        *self == Faults::default()
    }
}

impl Latency {
    pub(super) fn of(nanoseconds: &Histogram<u64>) -> Latency {
        if nanoseconds.is_empty() {
            return Latency::default();
        }
        let at = |quantile| nanoseconds.value_at_quantile(quantile) as f64 / 1000.0;
        Latency {
            min: nanoseconds.min() as f64 / 1000.0,
            mean: nanoseconds.mean() / 1000.0,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: nanoseconds.max() as f64 / 1000.0,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} clients, {} B",
            self.server, self.clients, self.size
        )?;
        match (self.depth, self.rate) {
            (Some(1), _) | (None, None) => {}
            (Some(depth), _) => write!(f, ", {depth} on their way each")?,
            (None, Some(rate)) => write!(f, ", {rate} messages/s due")?,
        }
        if self.idle > 0 {
            write!(f, ", {} idle clients", self.idle)?;
        }
        writeln!(f, ", {:.1} s", self.seconds)?;
        writeln!(
            f,
            "{:.0} messages/s ({} in all), {:.1} MB/s each way",
            self.messages_per_second,
            self.messages,
            self.messages_per_second * self.size as f64 / 1e6
        )?;
        if self.connections_per_second > 0.0 {
            writeln!(f, "{:.0} connections/s", self.connections_per_second)?;
        }
        let Latency {
            min,
            p50,
            p90,
            p99,
            p999,
            max,
            mean: _,
        } = &self.latency;
        writeln!(
            f,
            "latency: min {}, p50 {}, p90 {}, p99 {}, p99.9 {}, max {}",
            time(*min),
            time(*p50),
            time(*p90),
            time(*p99),
            time(*p999),
            time(*max)
        )?;
        if let Some(cost) = &self.cost {
            writeln!(
                f,
                "cost: {:.2} µs of processor time a message, {:.1} MB of memory, in {} processes",
                cost.cpu_per_message,
                cost.memory as f64 / 1e6,
                cost.processes
            )?;
        }
        if self.generator_busy > 0.95 {
            writeln!(
                f,
                "the generator was busy all the time: the server may be able to do more"
            )?;
        }
        self.faults.fmt(f)
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_none() {
            return write!(f, "every reply was there, and every byte right");
        }
        write!(
            f,
            "FAULTS: {} not let in, {} closed, {} broken, {} with wrong bytes, {} messages unanswered",
            self.refused, self.closed, self.broken, self.wrong, self.unanswered
        )?;
        match &self.first {
            Some(first) => write!(f, "; the first: {first}"),
            None => Ok(()),
        }
    }
}

/// Microseconds in a unit that is easy to read.
fn time(microseconds: f64) -> String {
    match microseconds {
        us if us < 1000.0 => format!("{us:.0} µs"),
        us if us < 1e6 => format!("{:.2} ms", us / 1e3),
        us => format!("{:.2} s", us / 1e6),
    }
}

/// Part of a time, 0 to 1.
pub(super) fn part(of: Duration, whole: Duration) -> f64 {
    match whole.is_zero() {
        true => 0.0,
        false => of.as_secs_f64() / whole.as_secs_f64(),
    }
}
