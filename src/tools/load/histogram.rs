//! The latencies in bars, each from a limit of 1, 2 or 5 times a power of ten to the next.

use hdrhistogram::Histogram;
use serde::Serialize;

/// The messages with a latency over `over`, up to and with `up_to`, in microseconds.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub(crate) struct Bar {
    pub(crate) over: f64,
    pub(crate) up_to: f64,
    pub(crate) messages: u64,
}

/// Returns the bars from the first to the last with a message.
pub(super) fn of(nanoseconds: &Histogram<u64>) -> Vec<Bar> {
    let mut bars: Vec<Bar> = Vec::new();
    let (mut over, mut up_to) = (0, first_limit());
    for recorded in nanoseconds.iter_recorded() {
        let value = recorded.value_iterated_to();
        while value > up_to {
            (over, up_to) = (up_to, next(up_to));
            if !bars.is_empty() {
                bars.push(bar(over, up_to));
            }
        }
        if bars.is_empty() {
            bars.push(bar(over, up_to));
        }
        if let Some(last) = bars.last_mut() {
            last.messages += recorded.count_since_last_iteration();
        }
    }
    bars
}

fn bar(over: u64, up_to: u64) -> Bar {
    Bar {
        over: over as f64 / 1000.0,
        up_to: up_to as f64 / 1000.0,
        messages: 0,
    }
}

/// A microsecond: no reply comes sooner.
fn first_limit() -> u64 {
    1000
}

fn next(limit: u64) -> u64 {
    let power = 10_u64.pow(limit.ilog10());
    match limit / power {
        1 => 2 * power,
        2 => 5 * power,
        _ => 10 * power,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_have_round_limits_and_all_messages() {
        let mut histogram = Histogram::new_with_bounds(1, 3_600_000_000_000, 3).unwrap();
        for microseconds in [3, 4, 21, 300, 301] {
            histogram.record(microseconds * 1000).unwrap();
        }
        let bars = of(&histogram);
        let all: Vec<(f64, f64, u64)> = bars
            .iter()
            .map(|bar| (bar.over, bar.up_to, bar.messages))
            .collect();
        let expected = [
            (2.0, 5.0, 2),
            (5.0, 10.0, 0),
            (10.0, 20.0, 0),
            (20.0, 50.0, 1),
            (50.0, 100.0, 0),
            (100.0, 200.0, 0),
            (200.0, 500.0, 2),
        ];
        assert_eq!(all, expected);
        histogram.reset();
        assert!(of(&histogram).is_empty());
    }
}
