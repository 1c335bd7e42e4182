//! The results of a measurement, as JSON or as a few lines.

use std::fmt;

use serde::Serialize;

use super::cost::{Cost, Generator};
use super::histogram::Bar;
use super::latency::Latency;
use super::series::Point;
use super::tally::Tally;
use super::words::counted;
use super::{Pace, Plan};

/// Everything that was measured. Times are in microseconds.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) server: String,
    pub(crate) clients: usize,
    pub(crate) idle: usize,
    pub(crate) size: usize,
    /// Outstanding messages of each client; `None` in an open loop.
    pub(crate) depth: Option<usize>,
    /// Messages per second that were due; `None` in a closed loop.
    pub(crate) rate: Option<u64>,
    /// Number of messages after which a client closed and a new one took its place.
    pub(crate) messages_each: Option<u64>,
    /// Length of the measurement: shorter than planned if all clients were lost, or if it was interrupted.
    pub(crate) seconds: f64,
    /// Messages that were answered within this time.
    pub(crate) messages: u64,
    pub(crate) messages_per_second: f64,
    pub(crate) connections: u64,
    pub(crate) connections_per_second: f64,
    /// Of the messages that were due within this time, whenever the reply came. `None` without a reply.
    pub(crate) latency: Option<Latency>,
    /// The same latencies in bars, without the unanswered messages.
    pub(crate) histogram: Vec<Bar>,
    /// Throughput and latency over time.
    pub(crate) series: Vec<Point>,
    /// Whether the measurement was ended by a signal.
    pub(crate) interrupted: bool,
    /// Messages whose replies were not awaited, after a second signal.
    pub(crate) not_awaited: u64,
    /// The cost of the server's processes, if `--pid` named them.
    pub(crate) cost: Option<Cost>,
    /// The share of the time in which this generator had work to do, 0 to 1: near 1 the generator was the
    /// slow side, and not the server. `None` where the kernel does not keep it
    /// (`/proc/thread-self/schedstat`).
    pub(crate) generator_busy: Option<f64>,
    /// The share of the time in which it had work to do and waited for a processor: the machine is too
    /// small for generator and server.
    pub(crate) generator_without_processor: Option<f64>,
    pub(crate) faults: Faults,
}

/// The end of a run.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    /// Replies were awaited until then, in nanoseconds of the run.
    pub(super) awaited_until: u64,
    pub(super) is_interrupted: bool,
}

impl Report {
    pub(super) fn new(
        plan: &Plan,
        end: End,
        tally: Tally,
        cost: Option<Cost>,
        generator: Option<Generator>,
    ) -> Report {
        let (depth, rate) = match plan.pace {
            Pace::Closed { depth } => (Some(depth), None),
            Pace::Open { per_second } => (None, Some(per_second)),
        };
        let seconds = tally.window.seconds();
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
            latency: tally.latency(end.awaited_until),
            histogram: tally.histogram(),
            series: tally.series.points().to_vec(),
            interrupted: end.is_interrupted,
            not_awaited: tally.not_awaited,
            cost,
            generator_busy: generator.map(|it| it.busy),
            generator_without_processor: generator.map(|it| it.without_processor),
            faults: tally.faults,
        }
    }
}

/// Faults of the server: all zero for a good one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Faults {
    /// Connections that could not be made.
    pub(crate) refused: u64,
    /// Connections that the server closed.
    pub(crate) closed: u64,
    /// Connections that were reset, or broke.
    pub(crate) broken: u64,
    /// Connections on which other bytes came back than were sent.
    pub(crate) wrong: u64,
    /// Messages without a reply long after the end, and outstanding messages of lost clients.
    pub(crate) unanswered: u64,
    /// The first fault of a connection, in words.
    pub(crate) first: Option<String>,
}

impl Faults {
    pub(crate) fn is_none(&self) -> bool {
        *self == Faults::default()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (clients, size) = (counted(self.clients, "client"), self.size);
        write!(f, "{}: {clients}, {size} B", self.server)?;
        match (self.depth, self.rate) {
            (Some(1), _) | (None, None) => {}
            (Some(depth), _) => write!(f, ", {depth} outstanding each")?,
            (None, Some(rate)) => write!(f, ", {rate} messages/s due")?,
        }
        if let Some(each) = self.messages_each {
            write!(f, ", {each} per connection")?;
        }
        if self.idle > 0 {
            write!(f, ", {}", counted(self.idle, "idle client"))?;
        }
        let interrupted = if self.interrupted {
            " (interrupted)"
        } else {
            ""
        };
        writeln!(f, ", {:.1} s{interrupted}", self.seconds)?;
        writeln!(
            f,
            "{:.0} messages/s ({} in total), {:.1} MB/s each way",
            self.messages_per_second,
            self.messages,
            self.messages_per_second * self.size as f64 / 1e6
        )?;
        if self.connections > 0 {
            writeln!(f, "{:.0} connections/s", self.connections_per_second)?;
        }
        match &self.latency {
            Some(latency) => writeln!(f, "latency: {latency}")?,
            None => writeln!(f, "latency: unknown, no message was due in this time")?,
        }
        if let Some(cost) = &self.cost {
            writeln!(
                f,
                "cost: {:.2} µs of processor time per message, {:.1} MB of memory, in {}",
                cost.cpu_per_message,
                cost.memory as f64 / 1e6,
                match cost.processes {
                    1 => "1 process".to_owned(),
                    many => format!("{many} processes"),
                }
            )?;
        }
        self.write_generator(f)?;
        match self.not_awaited {
            0 => self.faults.fmt(f),
            some if self.faults.is_none() => write!(
                f,
                "every byte that arrived was correct; {some} replies were not awaited"
            ),
            some => write!(f, "{}; {some} replies were not awaited", self.faults),
        }
    }
}

impl Report {
    /// Writes a line when the generator was the slow side.
    fn write_generator(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
                "the generator was busy all the time, and waited for a processor for {waited:.0} % of it"
            )?,
        }
        writeln!(f, ": the server may be able to do more")
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_none() {
            return write!(f, "all replies arrived, every byte correct");
        }
        write!(
            f,
            "FAULTS: {} connections refused, {} closed, {} broken, {} with wrong bytes, {} messages \
             unanswered",
            self.refused, self.closed, self.broken, self.wrong, self.unanswered
        )?;
        match &self.first {
            Some(first) => write!(f, "; first fault: {first}"),
            None => Ok(()),
        }
    }
}
