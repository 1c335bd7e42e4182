//! The values of flags: each is refused with the values that are allowed, and not with std's words.

use std::fmt::Display;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

/// A whole number from `least` to `most`.
pub(super) fn number<T>(
    least: T,
    most: T,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static
where
    T: FromStr + PartialOrd + Display + Copy + TryInto<u64> + Send + Sync + 'static,
{
    move |text| {
        let number = text.parse().ok();
        number
            .filter(|number| (least..=most).contains(number))
            .ok_or_else(|| match most.try_into() {
                Ok(u64::MAX) => format!("expected a whole number, {least} or more"),
                _ => format!("expected a whole number from {least} to {most}"),
            })
    }
}

/// A number of bytes, as 65536, 64K, 64M or 1G.
pub(super) fn size(
    least: u64,
    most: u64,
) -> impl Fn(&str) -> Result<usize, String> + Clone + Send + Sync + 'static {
    move |text| {
        let bytes = bytes(text).filter(|bytes| (least..=most).contains(bytes));
        let bytes = bytes.and_then(|bytes| usize::try_from(bytes).ok());
        bytes.ok_or_else(|| {
            let (least, most) = (short(least), short(most));
            format!("expected a size from {least} to {most} bytes, such as 65536, 64K, 64M or 1G")
        })
    }
}

/// The letters of sizes, each 1024 times the one before.
const UNITS: [char; 4] = ['K', 'M', 'G', 'T'];

fn bytes(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit());
    let (number, unit) = text.split_at(end.unwrap_or(text.len()));
    let number: u64 = number.parse().ok()?;
    let unit = unit.to_ascii_uppercase();
    let letter = unit.strip_suffix("IB").unwrap_or(&unit);
    let power = match letter {
        "" if unit.is_empty() => 0,
        _ => UNITS.iter().position(|it| letter == it.to_string())? as u32 + 1,
    };
    number.checked_mul(1024_u64.checked_pow(power)?)
}

/// Writes a size with the largest unit that divides it.
fn short(bytes: u64) -> String {
    let (mut number, mut unit) = (bytes, String::new());
    for letter in UNITS {
        if number == 0 || number % 1024 != 0 {
            break;
        }
        (number, unit) = (number / 1024, letter.to_string());
    }
    format!("{number}{unit}")
}

/// A number of seconds, which may have a fraction.
pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let number = text
        .parse::<f64>()
        .ok()
        .and_then(|number| Duration::try_from_secs_f64(number).ok());
    let most = Duration::from_secs(366 * 24 * 3600);
    number
        .filter(|time| *time <= most)
        .ok_or_else(|| format!("{text:?} is not a number of seconds from 0 to a year"))
}

/// An IP address or a host name, and a port. The name is looked up later.
pub(super) fn place(text: &str) -> Result<String, String> {
    let is_place = |(host, port): (&str, &str)| {
        let is_name = !host.is_empty() && !host.contains(':');
        (is_name || text.parse::<SocketAddr>().is_ok()) && port.parse::<u16>().is_ok()
    };
    match text.rsplit_once(':').is_some_and(is_place) {
        true => Ok(text.to_owned()),
        false => Err(
            "expected an IP address or a host name, and a port up to 65535, such as 127.0.0.1:9501, [::1]:9501 or \
             localhost:9501"
                .to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_may_have_a_fraction_and_not_a_sign() {
        assert_eq!(seconds("0.25"), Ok(Duration::from_millis(250)));
        for text in ["-1", "nan", "inf", "1e30", "", "5s"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_may_have_a_unit() {
        let size = size(1, 1 << 40);
        for (text, bytes) in [
            ("1", 1),
            ("65536", 65_536),
            ("64K", 65_536),
            ("64k", 65_536),
            ("64KiB", 65_536),
            ("64M", 64 << 20),
            ("1G", 1 << 30),
            ("1T", 1 << 40),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "0",
            "M",
            "64X",
            "64MB",
            "iB",
            "64iB",
            "-1",
            "1.5M",
            "2T",
            "99999999999G",
        ] {
            let error = size(text).unwrap_err();
            assert!(error.contains("from 1 to 1T bytes"), "{text}: {error}");
        }
    }

    #[test]
    fn a_number_is_refused_with_the_allowed_ones() {
        assert_eq!(number(1, 511)("511"), Ok(511));
        let error = number(1, 511)("abc").unwrap_err();
        assert_eq!(error, "expected a whole number from 1 to 511");
        let error = number(1, u64::MAX)("0").unwrap_err();
        assert_eq!(error, "expected a whole number, 1 or more");
    }

    #[test]
    fn a_place_may_be_a_name() {
        for text in ["localhost:80", "127.0.0.1:0", "[::1]:9501", "[::]:1"] {
            assert_eq!(place(text), Ok(text.to_owned()));
        }
        for text in ["nonsense", "localhost", ":80", "a:70000", "::1:80", "a:b:1"] {
            assert!(place(text).is_err(), "{text}");
        }
    }
}
