//! Numbers, times and lists as people read them.

use std::time::Duration;

/// Returns a number with a comma at every three digits.
pub(crate) fn grouped(number: impl TryInto<u64>) -> String {
    let digits = number.try_into().unwrap_or(u64::MAX).to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Returns `1 connection`, `2,000 connections`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", grouped(number))
}

/// Like [`count`], with both forms given: `1 other was`, `2 others were`.
pub(crate) fn counted(number: usize, one: &str, more: &str) -> String {
    let words = if number == 1 { one } else { more };
    format!("{} {words}", grouped(number))
}

/// Returns a time in two units at most: seconds do not matter after a day.
pub(crate) fn age(time: Duration) -> String {
    let seconds = time.as_secs();
    let two = |first: u64, first_unit: &str, second: u64, second_unit: &str| match second {
        0 => format!("{first} {first_unit}"),
        _ => format!("{first} {first_unit} {second} {second_unit}"),
    };
    match seconds {
        0..10 => format!("{:.1} s", time.as_secs_f64()),
        10..60 => format!("{seconds} s"),
        60..3600 => two(seconds / 60, "min", seconds % 60, "s"),
        3600..86_400 => two(seconds / 3600, "h", seconds / 60 % 60, "min"),
        _ => two(seconds / 86_400, "d", seconds / 3600 % 24, "h"),
    }
}

/// Returns a limit as people write it: whole seconds without a fraction.
pub(crate) fn seconds(time: Duration) -> String {
    if time.subsec_nanos() == 0 && time.as_secs() < 60 {
        format!("{} s", time.as_secs())
    } else {
        age(time)
    }
}

pub(crate) fn bytes(number: u64) -> String {
    match number {
        1 => "1 byte".to_owned(),
        0..10_240 => format!("{} bytes", grouped(number)),
        10_240..0x00a0_0000 => format!("{} KiB", grouped(number >> 10)),
        _ => format!("{} MiB", grouped(number >> 20)),
    }
}

/// Returns the first `most` items, and the number of the others.
pub(crate) fn list<T: ToString>(items: &[T], most: usize) -> String {
    let mut shown: Vec<String> = items.iter().take(most).map(T::to_string).collect();
    let more = items.len() - shown.len();
    if more > 0 {
        return format!("{} and {} more", shown.join(", "), grouped(more));
    }
    let last = shown.pop().unwrap_or_default();
    if shown.is_empty() {
        last
    } else {
        format!("{} and {last}", shown.join(", "))
    }
}

/// Returns whole percent: 0 only for nothing, and 100 only for all.
pub(crate) fn percent(part: u64, of: u64) -> u64 {
    match part {
        0 => 0,
        _ if part >= of => part.saturating_mul(100) / of.max(1),
        _ => (part.saturating_mul(100) / of).clamp(1, 99),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(grouped(0_u32), "0");
        assert_eq!(grouped(999_u32), "999");
        assert_eq!(grouped(28_232_u32), "28,232");
        assert_eq!(grouped(1_234_567_u64), "1,234,567");
        assert_eq!(count(1, "connection"), "1 connection");
        assert_eq!(count(2_000, "connection"), "2,000 connections");
    }

    #[test]
    fn ages_have_two_units_at_most() {
        for (ms, text) in [
            (0, "0.0 s"),
            (1_240, "1.2 s"),
            (12_900, "12 s"),
            (60_000, "1 min"),
            (200_000, "3 min 20 s"),
            (7_500_000, "2 h 5 min"),
            (266_400_000, "3 d 2 h"),
        ] {
            assert_eq!(age(Duration::from_millis(ms)), text);
        }
        assert_eq!(seconds(Duration::from_secs(5)), "5 s");
        assert_eq!(seconds(Duration::from_millis(500)), "0.5 s");
    }

    #[test]
    fn lists_count_what_they_leave_out() {
        assert_eq!(list::<String>(&[], 3), "");
        assert_eq!(list(&["a"], 3), "a");
        assert_eq!(list(&["a", "b", "c"], 3), "a, b and c");
        assert_eq!(list(&["a", "b", "c", "d"], 2), "a, b and 2 more");
    }

    #[test]
    fn a_little_is_not_nothing_and_nearly_all_is_not_all() {
        assert_eq!(percent(0, 10), 0);
        assert_eq!(percent(1, 1000), 1);
        assert_eq!(percent(999, 1000), 99);
        assert_eq!(percent(1000, 1000), 100);
        assert_eq!(percent(12_345, 28_232), 43);
        assert_eq!(bytes(1), "1 byte");
        assert_eq!(bytes(300), "300 bytes");
        assert_eq!(bytes(65_536), "64 KiB");
    }
}
