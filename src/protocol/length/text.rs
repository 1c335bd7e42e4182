//! The text of a length prefix, on the command line and in files: `4,big,body`.

use std::fmt;

use super::{ByteOrder, LengthPrefix};
use crate::protocol::ParseProtocolError;
use crate::protocol::error::Problem;

impl LengthPrefix {
    /// Reads the text that [`Display`](fmt::Display) writes, with the words after the width in any order.
    pub(in crate::protocol) fn parse(text: &str) -> Result<Self, ParseProtocolError> {
        let mut words = text.split(',');
        let prefix = words
            .next()
            .and_then(|width| Self::new(width.parse().ok()?).ok());
        let Some(mut prefix) = prefix else {
            let width = text.split(',').next().unwrap_or_default();
            return Err(Problem::Width(width.to_owned()).into());
        };
        let (mut order, mut counts, mut offset) = (None, None, None);
        for word in words {
            match (word, word.split_once('=')) {
                ("big", _) if order.is_none() => order = Some(ByteOrder::Big),
                ("little", _) if order.is_none() => order = Some(ByteOrder::Little),
                ("body", _) if counts.is_none() => counts = Some(Counts::Adjusted(0)),
                ("all", _) if counts.is_none() => counts = Some(Counts::All),
                (_, Some(("adjust", bytes))) if counts.is_none() => {
                    counts = Some(Counts::Adjusted(number(word, bytes, ADJUSTS)?));
                }
                (_, Some(("offset", bytes))) if offset.is_none() => {
                    offset = Some(number(word, bytes, OFFSETS)?);
                }
                (_, None | Some(_)) => return Err(Problem::LengthWord(word.to_owned()).into()),
            }
        }
        prefix = prefix
            .order(order.unwrap_or(prefix.order))
            .offset(offset.unwrap_or(prefix.offset));
        Ok(match counts {
            None => prefix,
            Some(Counts::Adjusted(bytes)) => prefix.adjust(bytes),
            Some(Counts::All) => prefix.adjust(prefix.counts_all()),
        })
    }
}

/// The bytes that a length counts, in the words of its text.
enum Counts {
    All,
    Adjusted(i64),
}

const OFFSETS: &str = "offset=N with 0 to 4294967295";
const ADJUSTS: &str = "adjust=N with -9223372036854775808 to 9223372036854775807";

/// Reads the number of a word `name=digits`.
fn number<T: std::str::FromStr>(
    word: &str,
    digits: &str,
    allowed: &'static str,
) -> Result<T, ParseProtocolError> {
    digits.parse().map_err(|_| {
        Problem::Number {
            word: word.to_owned(),
            allowed,
        }
        .into()
    })
}

/// The form of the command line: `4,big,body`, with the offset unless it is 0.
impl fmt::Display for LengthPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let order = match self.order {
            ByteOrder::Big => "big",
            ByteOrder::Little => "little",
        };
        write!(f, "{},{order}", self.width)?;
        match self.adjust {
            0 => f.write_str(",body")?,
            adjust if adjust == self.counts_all() => f.write_str(",all")?,
            adjust => write!(f, ",adjust={adjust}")?,
        }
        match self.offset {
            0 => Ok(()),
            offset => write!(f, ",offset={offset}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::length::tests::{of_all, prefix};

    #[test]
    fn words_may_be_left_out_and_change_places() {
        let little = ByteOrder::Little;
        for (text, expected) in [
            ("1", prefix(1)),
            ("8,big", prefix(8)),
            ("2,little", prefix(2).order(little)),
            ("4,all", of_all()),
            ("4,little,all", of_all().order(little)),
            ("4,all,little", of_all().order(little)),
            ("4,all,offset=2", prefix(4).offset(2).adjust(-6)),
            ("4,offset=2,all", prefix(4).offset(2).adjust(-6)),
            ("3,adjust=6", prefix(3).adjust(6)),
            ("4,offset=1,adjust=-4,big", prefix(4).offset(1).adjust(-4)),
        ] {
            assert_eq!(LengthPrefix::parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn defaults_other_than_order_and_counts_are_not_written() {
        for (prefix, text) in [
            (prefix(4), "4,big,body"),
            (of_all(), "4,big,all"),
            (prefix(4).offset(1).adjust(-5), "4,big,all,offset=1"),
            (prefix(4).offset(1).adjust(-4), "4,big,adjust=-4,offset=1"),
            (prefix(3).adjust(6), "3,big,adjust=6"),
        ] {
            assert_eq!(prefix.to_string(), text);
        }
    }

    #[test]
    fn a_bad_word_is_named() {
        for (text, named) in [
            ("", "''"),
            ("0", "'0'"),
            ("9", "'9'"),
            ("u16", "'u16'"),
            ("2,", "''"),
            ("2,network", "'network'"),
            ("2,big,little", "'little'"),
            ("2,all,all", "'all'"),
            ("2,all,adjust=3", "'adjust=3'"),
            ("2,adjust=3,body", "'body'"),
            ("2,offset=1,offset=1", "'offset=1'"),
            ("2,adjust", "'adjust'"),
            ("2,offset=", "'offset='"),
            ("2,offset=-1", "'offset=-1'"),
            ("2,offset=4294967296", "'offset=4294967296'"),
            (
                "2,adjust=9223372036854775808",
                "'adjust=9223372036854775808'",
            ),
        ] {
            let error = LengthPrefix::parse(text).expect_err(text).to_string();
            assert!(error.contains(named), "{error}");
            assert!(error.contains("allowed"), "{error}");
        }
    }
}
