//! The window that is measured, and the times at which messages are due in an open loop.

/// The measured time, in nanoseconds of the run.
#[derive(Clone, Copy)]
pub(super) struct Window {
    pub(super) begin: u64,
    pub(super) end: u64,
}

impl Window {
    /// The window before the measurement begins.
    pub(super) const NEVER: Window = Window {
        begin: u64::MAX,
        end: u64::MAX,
    };

    pub(super) fn has(self, time: u64) -> bool {
        (self.begin..self.end).contains(&time)
    }

    /// Ends the window now, if it has not ended before.
    pub(super) fn cut(&mut self, now: u64) {
        self.end = self.end.min(now);
        self.begin = self.begin.min(self.end);
    }

    pub(super) fn seconds(self) -> f64 {
        (self.end - self.begin) as f64 / 1e9
    }
}

/// The times at which messages are due in an open loop. None is left out: a message that is overdue is
/// still the next.
pub(super) struct Schedule {
    pub(super) begin: u64,
    pub(super) end: u64,
    pub(super) per_second: u64,
    /// Number of the next message, from 0.
    pub(super) next: u64,
}

impl Schedule {
    /// Returns the time when the next message is due; `None` after the last.
    pub(super) fn due(&self) -> Option<u64> {
        let since = u128::from(self.next) * 1_000_000_000 / u128::from(self.per_second);
        let due = u128::from(self.begin) + since;
        (due < u128::from(self.end)).then_some(due as u64)
    }

    /// Returns the number of messages that are left.
    pub(super) fn left(&self) -> u64 {
        let time = u128::from(self.end - self.begin);
        let all = (time * u128::from(self.per_second)).div_ceil(1_000_000_000);
        (all as u64).saturating_sub(self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_that_is_left_becomes_due() {
        for per_second in [1, 3, 7, 1000, 999_999] {
            let mut schedule = Schedule {
                begin: 5,
                end: 5 + 1_200_000_000,
                per_second,
                next: 0,
            };
            let all = schedule.left();
            while let Some(due) = schedule.due() {
                assert!((5..5 + 1_200_000_000).contains(&due));
                schedule.next += 1;
                assert_eq!(schedule.left() + schedule.next, all, "{per_second}");
            }
            assert_eq!(schedule.left(), 0, "{per_second}");
        }
    }

    #[test]
    fn a_window_that_is_cut_before_it_begins_is_empty() {
        let mut window = Window { begin: 10, end: 20 };
        window.cut(5);
        assert!(window.seconds() == 0.0 && !window.has(5));
        let mut window = Window { begin: 10, end: 20 };
        window.cut(30);
        assert!(window.has(19) && !window.has(20));
    }
}
