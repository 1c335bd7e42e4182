//! What a server did under load: figures as JSON or as a few lines.

use std::fmt;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::cost::{Cost, Generator};
use super::tally::Tally;
use super::{Pace, Plan};

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
    /// Messages after which a client closed, and another one came.
    pub(crate) messages_each: Option<u64>,
    /// For so long it was measured: less than it should be, if all clients were lost.
    pub(crate) seconds: f64,
    /// Messages whose reply came within this time.
    pub(crate) messages: u64,
    pub(crate) messages_per_second: f64,
    pub(crate) connections: u64,
    pub(crate) connections_per_second: f64,
    /// Of the messages that were due within this time, whenever the reply came. `None` if none did.
    pub(crate) latency: Option<Latency>,
    /// What the server's processes took for it, if they were named.
    pub(crate) cost: Option<Cost>,
    /// The part of the time in which this generator had something to do, 0 to 1: near 1 it was the slow
    /// one, and not the server. `None` where the kernel does not tell (`/proc/thread-self/schedstat`).
    pub(crate) generator_busy: Option<f64>,
    /// The part in which it had something to do, and no processor to do it on. The machine is too small
    /// for both.
    pub(crate) generator_without_processor: Option<f64>,
    pub(crate) faults: Faults,
}

impl Report {
    pub(super) fn new(
        plan: &Plan,
        seconds: f64,
        tally: Tally,
        cost: Option<Cost>,
        generator: Option<Generator>,
    ) -> Report {
        let (depth, rate) = match plan.pace {
            Pace::Closed { depth } => (Some(depth), None),
            Pace::Open { per_second } => (None, Some(per_second)),
        };
        let per_second = |count: u64| match seconds > 0.0 {
            true => count as f64 / seconds,
            false => 0.0,
        };
        Report {
            server: plan.server.to_string(),
            clients: plan.clients,
            idle: plan.idle,
            size: plan.size,
            depth,
            rate,
            messages_each: plan.messages_each,
            seconds,
            messages: tally.messages,
            messages_per_second: per_second(tally.messages),
            connections: tally.connections,
            connections_per_second: per_second(tally.connections),
            latency: tally.latency(),
            cost,
            generator_busy: generator.map(|it| it.busy),
            generator_without_processor: generator.map(|it| it.without_processor),
            faults: tally.faults,
        }
    }
}

/// From when a message was due until all of its reply was there, in microseconds.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Latency {
    /// Of so many messages. Of fewer than a thousand, `p99.9` is the slowest.
    pub(crate) count: u64,
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
    /// Messages that had no reply long after the end, or whose client was lost before.
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
    pub(super) fn of(nanoseconds: &Histogram<u64>) -> Option<Latency> {
        if nanoseconds.is_empty() {
            return None;
        }
        let at = |quantile| nanoseconds.value_at_quantile(quantile) as f64 / 1000.0;
        Some(Latency {
            count: nanoseconds.len(),
            min: nanoseconds.min() as f64 / 1000.0,
            mean: nanoseconds.mean() / 1000.0,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: nanoseconds.max() as f64 / 1000.0,
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (clients, size) = (counted(self.clients, "client"), self.size);
        write!(f, "{}: {clients}, {size} B", self.server)?;
        match (self.depth, self.rate) {
            (Some(1), _) | (None, None) => {}
            (Some(depth), _) => write!(f, ", {depth} on their way each")?,
            (None, Some(rate)) => write!(f, ", {rate} messages/s due")?,
        }
        if let Some(each) = self.messages_each {
            write!(f, ", {each} a connection")?;
        }
        if self.idle > 0 {
            write!(f, ", {}", counted(self.idle, "idle client"))?;
        }
        writeln!(f, ", {:.1} s", self.seconds)?;
        writeln!(
            f,
            "{:.0} messages/s ({} in all), {:.1} MB/s each way",
            self.messages_per_second,
            self.messages,
            self.messages_per_second * self.size as f64 / 1e6
        )?;
        if self.connections > 0 {
            writeln!(f, "{:.0} connections/s", self.connections_per_second)?;
        }
        match &self.latency {
            Some(latency) => writeln!(f, "latency: {latency}")?,
            None => writeln!(
                f,
                "latency: unknown, nothing that was due in this time was answered"
            )?,
        }
        if let Some(cost) = &self.cost {
            writeln!(
                f,
                "cost: {:.2} µs of processor time a message, {:.1} MB of memory, in {}",
                cost.cpu_per_message,
                cost.memory as f64 / 1e6,
                match cost.processes {
                    1 => "1 process".to_owned(),
                    many => format!("{many} processes"),
                }
            )?;
        }
        self.tell_of_the_generator(f)?;
        self.faults.fmt(f)
    }
}

impl Report {
    /// When it was the slow one.
    fn tell_of_the_generator(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Some(busy), Some(without)) = (self.generator_busy, self.generator_without_processor)
        else {
            return Ok(());
        };
        if busy <= 0.95 {
            return Ok(());
        }
        let waited = without * 100.0;
        match waited < 10.0 {
            true => write!(f, "the generator was busy all the time")?,
            false => write!(
                f,
                "the generator was never idle, and had no processor for {waited:.0} % of the time"
            )?,
        }
        writeln!(f, ": the server may be able to do more")
    }
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "min {}, p50 {}, p90 {}, p99 {}, p99.9 {}, max {}",
            time(self.min),
            time(self.p50),
            time(self.p90),
            time(self.p99),
            time(self.p999),
            time(self.max)
        )
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
