//! The measurement over time: throughput and latency of each interval, by the time of the reply.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::Failure;

/// The number of intervals that a measurement has at most, as long as it takes the planned time.
const MOST: u32 = 60;

/// The lengths of intervals in milliseconds, and then whole minutes.
const LENGTHS: [u64; 12] = [
    10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 30_000,
];

const MINUTE: u64 = 60_000;

/// The longest latency that is told apart, in nanoseconds: an hour.
const LONGEST: u64 = 3_600_000_000_000;

/// One interval. Latencies are in microseconds, and `None` without a reply.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub(crate) struct Point {
    /// Its end, in seconds of the measurement.
    pub(crate) until: f64,
    pub(crate) messages_per_second: f64,
    pub(crate) p50: Option<f64>,
    pub(crate) p99: Option<f64>,
    pub(crate) max: Option<f64>,
}

pub(super) struct Series {
    /// In nanoseconds.
    interval: u64,
    /// Of the interval under way.
    latency: Histogram<u64>,
    points: Vec<Point>,
}

impl Series {
    pub(super) fn new(duration: Duration) -> Result<Series, Failure> {
        let latency = Histogram::new_with_bounds(1, LONGEST, 2)
            .map_err(|error| Failure::new("count latencies", error))?;
        Ok(Series {
            interval: interval(duration).as_nanos() as u64,
            latency,
            points: Vec::new(),
        })
    }

    /// Adds a reply that came `at` nanoseconds after the beginning. Times do not go back.
    pub(super) fn add(&mut self, at: u64, latency: u64) {
        while at >= self.end_of_interval() {
            self.end_interval(self.end_of_interval());
        }
        self.latency.saturating_record(latency);
    }

    /// The measurement has taken `length` nanoseconds.
    pub(super) fn finish(&mut self, length: u64) {
        while self.end_of_interval() <= length {
            self.end_interval(self.end_of_interval());
        }
        let begin = self.interval * self.points.len() as u64;
        // A rest would be an interval of its own with few replies, and look like a stall or a peak.
        if self.points.is_empty() && length > begin {
            self.end_interval(length);
        }
    }

    pub(super) fn points(&self) -> &[Point] {
        &self.points
    }

    fn end_of_interval(&self) -> u64 {
        self.interval * (self.points.len() as u64 + 1)
    }

    fn end_interval(&mut self, end: u64) {
        let begin = self.interval * self.points.len() as u64;
        let count = self.latency.len();
        let time = |nanoseconds: u64| (count > 0).then_some(nanoseconds as f64 / 1000.0);
        self.points.push(Point {
            until: end as f64 / 1e9,
            messages_per_second: count as f64 * 1e9 / (end - begin).max(1) as f64,
            p50: time(self.latency.value_at_quantile(0.5)),
            p99: time(self.latency.value_at_quantile(0.99)),
            max: time(self.latency.max()),
        });
        self.latency.reset();
    }
}

/// Returns the shortest of some round lengths that makes at most [`MOST`] intervals.
fn interval(duration: Duration) -> Duration {
    let least = duration.as_millis().div_ceil(u128::from(MOST)) as u64;
    let round = LENGTHS.into_iter().find(|length| *length >= least);
    Duration::from_millis(round.unwrap_or(least.next_multiple_of(MINUTE)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_round_and_not_many() {
        for (seconds, ms) in [
            (0.3, 10),
            (5.0, 100),
            (60.0, 1000),
            (61.0, 2000),
            (7200.0, 120_000),
        ] {
            let length = interval(Duration::from_secs_f64(seconds));
            assert_eq!(length, Duration::from_millis(ms), "{seconds}");
        }
    }

    #[test]
    fn each_interval_has_its_replies_and_a_stall_is_seen() {
        let mut series = Series::new(Duration::from_secs(5)).unwrap();
        let ms = 1_000_000;
        for at in [0, 50, 99, 310, 399] {
            series.add(at * ms, 1000 + at);
        }
        series.finish(450 * ms);
        let rates: Vec<f64> = series
            .points()
            .iter()
            .map(|it| it.messages_per_second)
            .collect();
        assert_eq!(rates, [30.0, 0.0, 0.0, 20.0]);
        assert_eq!(series.points()[1].p99, None);
        assert!(series.points()[3].max >= Some(1.3), "{:?}", series.points());
        assert_eq!(series.points()[3].until, 0.4);
    }

    #[test]
    fn a_measurement_that_is_shorter_than_an_interval_has_one() {
        let mut series = Series::new(Duration::from_secs(3600)).unwrap();
        series.add(5, 1000);
        series.finish(500_000_000);
        let [point] = series.points() else {
            panic!("{:?}", series.points());
        };
        assert_eq!((point.until, point.messages_per_second), (0.5, 2.0));
    }
}
