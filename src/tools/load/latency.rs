//! Latencies in a few numbers. A message without a reply is slower than every other: it counts as over the
//! time for which it was awaited.

use std::fmt;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::words::time;

/// Times from when a message was due until its whole reply had arrived, in microseconds. Where a message without
/// a reply has the rank, the time is `unanswered_over`, and a lower bound.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Latency {
    /// Number of messages, answered or not. With fewer than a thousand, `p99.9` is the slowest.
    pub(crate) count: u64,
    /// The number of these without a reply.
    pub(crate) unanswered: u64,
    /// The time for which each of these was awaited at least; `None` if all were answered.
    pub(crate) unanswered_over: Option<f64>,
    pub(crate) min: f64,
    pub(crate) mean: f64,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    #[serde(rename = "p99.9")]
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

/// The quantiles that are shown, as [`Latency`] names them.
const SHOWN: [(&str, f64); 6] = [
    ("min", 0.0),
    ("p50", 0.5),
    ("p90", 0.9),
    ("p99", 0.99),
    ("p99.9", 0.999),
    ("max", 1.0),
];

impl Latency {
    /// Of answered messages, and `unanswered` others that were awaited for more than `over` nanoseconds.
    pub(super) fn of(answered: &Histogram<u64>, unanswered: u64, over: u64) -> Option<Latency> {
        let count = answered.len() + unanswered;
        if count == 0 {
            return None;
        }
        let over = over as f64 / 1000.0;
        let at = |quantile| match rank(quantile, count) {
            rank if rank > answered.len() => over,
            rank => {
                let quantile = rank as f64 / answered.len() as f64;
                answered.value_at_quantile(quantile) as f64 / 1000.0
            }
        };
        let sum = answered.mean() / 1000.0 * answered.len() as f64 + over * unanswered as f64;
        Some(Latency {
            count,
            unanswered,
            unanswered_over: (unanswered > 0).then_some(over),
            min: match answered.len() {
                0 => over,
                _ => answered.min() as f64 / 1000.0,
            },
            mean: sum / count as f64,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: at(1.0),
        })
    }

    fn value(&self, name: &str) -> f64 {
        match name {
            "min" => self.min,
            "p50" => self.p50,
            "p90" => self.p90,
            "p99" => self.p99,
            "p99.9" => self.p999,
            _ => self.max,
        }
    }
}

/// Returns the place of a quantile among `count` messages in order, from 1.
fn rank(quantile: f64, count: u64) -> u64 {
    ((quantile * count as f64).ceil() as u64).clamp(1, count)
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let answered = self.count - self.unanswered;
        let shown = SHOWN.map(|(name, quantile)| {
            let over = match rank(quantile, self.count) > answered {
                true => "over ",
                false => "",
            };
            format!("{name} {over}{}", time(self.value(name)))
        });
        f.write_str(&shown.join(", "))?;
        if self.unanswered > 0 {
            write!(f, " ({} of {} unanswered)", self.unanswered, self.count)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(microseconds: &[u64]) -> Histogram<u64> {
        let mut histogram = Histogram::new_with_bounds(1, 3_600_000_000_000, 3).unwrap();
        for time in microseconds {
            histogram.record(time * 1000).unwrap();
        }
        histogram
    }

    #[test]
    fn a_message_without_a_reply_is_slower_than_every_other() {
        let answered: Vec<u64> = (1..=95).collect();
        let latency = Latency::of(&histogram(&answered), 5, 5_000_000_000).unwrap();
        assert_eq!((latency.count, latency.unanswered), (100, 5));
        assert_eq!(latency.p50.round(), 50.0);
        assert_eq!(latency.p90.round(), 90.0);
        assert_eq!((latency.p99, latency.max), (5e6, 5e6));
        assert_eq!(
            latency.to_string(),
            "min 1 µs, p50 50 µs, p90 90 µs, p99 over 5.00 s, p99.9 over 5.00 s, max over 5.00 s \
             (5 of 100 unanswered)"
        );
    }

    #[test]
    fn all_answered_or_none() {
        let latency = Latency::of(&histogram(&[7]), 0, 0).unwrap();
        assert_eq!(latency.unanswered_over, None);
        assert!(!latency.to_string().contains("over"), "{latency}");
        let latency = Latency::of(&histogram(&[]), 3, 6_000_000_000).unwrap();
        assert!(
            latency.to_string().starts_with("min over 6.00 s, p50 over"),
            "{latency}"
        );
        assert!(Latency::of(&histogram(&[]), 0, 0).is_none());
    }
}
