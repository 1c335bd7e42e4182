//! Messages with their length at a fixed place near the beginning, as most binary protocols have it.
//!
//! The one rule: the length is the peer's word. It is compared with the longest message allowed
//! before anything is computed from it, and no sum with it overflows.

use std::fmt;

use super::error::Problem;
use super::{ParseProtocolError, ProtocolError, Refusal, Split};

/// The most bytes of a length.
pub(super) const MAX_WIDTH: usize = 8;

/// Where a message has its length, an unsigned integer, and which of its bytes the length counts.
///
/// ```text
/// | offset bytes | length, width bytes | length + adjust bytes |
/// |<------------- prefix ------------->|<------- body -------->|
/// ```
///
/// The prefix ends with the length; `length + adjust` bytes follow it. So `adjust` is
/// - 0 where the length counts all bytes that follow it,
/// - positive where it leaves out the rest of a header: as many bytes as that has,
/// - negative where it counts bytes of the prefix too: `-(offset + width)` where it counts the whole
///   message.
///
/// A message is handed over as it was read, prefix included. A message with nothing behind its
/// prefix is a message too; a sum below zero is refused ([`Refusal::BadLength`]).
///
/// Some formats of the field:
///
/// | format | message | prefix |
/// |---|---|---|
/// | DNS over TCP (RFC 1035, section 4.2.2) | length (2), body | `new(2)?` |
/// | 9P (`intro(5)` of Plan 9) | length of all (4, little endian), body | `new(4)?.order(Little).adjust(-4)` |
/// | PostgreSQL, "Message Formats" | type (1), length of all but the type (4), body | `new(4)?.offset(1).adjust(-4)` |
/// | Modbus/TCP | transaction (2), protocol (2), length (2), body | `new(2)?.offset(4)` |
/// | HTTP/2 (RFC 9113, section 4.1) | length of the payload (3), type (1), flags (1), stream (4), payload | `new(3)?.adjust(6)` |
///
/// ```
/// use tine::{ByteOrder, LengthPrefix, Protocol};
///
/// # fn main() -> Result<(), tine::ProtocolError> {
/// let nine_p = LengthPrefix::new(4)?.order(ByteOrder::Little).adjust(-4);
/// let protocol = Protocol::length_prefix(nine_p);
/// assert_eq!(protocol.to_string(), "length=4,little,all");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LengthPrefix {
    offset: u32,
    /// 1 to [`MAX_WIDTH`].
    width: u8,
    order: ByteOrder,
    adjust: i64,
}

/// Which byte of a length comes first. It makes no difference to a length of one byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ByteOrder {
    /// The most significant byte first, called network byte order.
    Big,
    /// The least significant byte first.
    Little,
}

impl LengthPrefix {
    /// A length of `width` bytes, 1 to 8, at the beginning of the message: big endian, and it counts
    /// the bytes that follow it. The other functions change that; every value of theirs is good.
    ///
    /// # Errors
    /// There are no integers of that width.
    pub const fn new(width: usize) -> Result<Self, ProtocolError> {
        match width {
            1..=MAX_WIDTH => Ok(Self {
                offset: 0,
                width: width as u8,
                order: ByteOrder::Big,
                adjust: 0,
            }),
            _ => Err(ProtocolError::width(width)),
        }
    }

    /// How many bytes of the message come before the length. Default: 0.
    #[must_use]
    pub const fn offset(self, bytes: u32) -> Self {
        Self {
            offset: bytes,
            ..self
        }
    }

    /// Default: [`ByteOrder::Big`].
    #[must_use]
    pub const fn order(self, order: ByteOrder) -> Self {
        Self { order, ..self }
    }

    /// Added to the length, it gives the number of bytes that follow the length. Default: 0.
    #[must_use]
    pub const fn adjust(self, bytes: i64) -> Self {
        Self {
            adjust: bytes,
            ..self
        }
    }

    /// How many bytes the prefix has: everything up to the end of the length.
    const fn prefix(self) -> u64 {
        self.offset as u64 + self.width as u64
    }

    /// What `adjust` is where the length counts the whole message.
    const fn counts_all(self) -> i64 {
        -(self.prefix() as i64)
    }

    /// `bytes` is not empty.
    pub(super) fn split(self, bytes: &[u8], max: usize) -> Split {
        let Some(length) = self.read(bytes) else {
            return self.wait_for_prefix(max);
        };
        let distance = self.adjust.unsigned_abs();
        let body = if self.adjust >= 0 {
            length.saturating_add(distance)
        } else {
            match length.checked_sub(distance) {
                Some(body) => body,
                None => {
                    return Split::Refused(Refusal::BadLength {
                        announced: length,
                        smallest: distance,
                    });
                }
            }
        };
        Split::announced(body.saturating_add(self.prefix()), bytes.len(), max)
    }

    /// The length, if all of the prefix is there.
    fn read(self, bytes: &[u8]) -> Option<u64> {
        let field = bytes
            .get(self.offset as usize..)?
            .get(..usize::from(self.width))?;
        let append = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
        Some(match self.order {
            ByteOrder::Big => field.iter().fold(0, append),
            ByteOrder::Little => field.iter().rev().fold(0, append),
        })
    }

    /// A reader that keeps `max` bytes at most would wait for a longer prefix without end.
    fn wait_for_prefix(self, max: usize) -> Split {
        if self.prefix() > max as u64 {
            Split::too_long(max)
        } else {
            Split::Partial { needed: None }
        }
    }

    /// Reads the text that [`Display`](fmt::Display) writes, the words behind the width in any order.
    pub(super) fn parse(text: &str) -> Result<Self, ParseProtocolError> {
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

/// Which bytes a length counts, as a text says it.
enum Counts {
    All,
    Adjusted(i64),
}

const OFFSETS: &str = "offset=N with 0 to 4294967295";
const ADJUSTS: &str = "adjust=N with -9223372036854775808 to 9223372036854775807";

/// `word` is a name and its number in decimal digits.
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

/// As on the command line: `4,big,body`, and an offset only if there is one.
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

    const MAX: usize = 8 << 20;

    #[track_caller]
    fn prefix(width: usize) -> LengthPrefix {
        LengthPrefix::new(width).expect("a width")
    }

    /// A length of four bytes that counts itself.
    fn of_all() -> LengthPrefix {
        prefix(4).adjust(-4)
    }

    fn too_long(announced: u64, max: usize) -> Split {
        Split::Refused(Refusal::TooLong {
            announced: Some(announced),
            max,
        })
    }

    #[test]
    fn integers_have_one_to_eight_bytes() {
        for width in 1..=8 {
            assert!(LengthPrefix::new(width).is_ok(), "{width}");
        }
        for width in [0, 9, 16, 257, usize::MAX] {
            let error = LengthPrefix::new(width).expect_err("no integer");
            assert_eq!(
                error.to_string(),
                format!("the length prefix has a width of {width} bytes, 1 to 8 are allowed")
            );
        }
    }

    #[test]
    fn a_message_begins_with_its_prefix() {
        assert_eq!(
            prefix(1).split(b"\x02hi\x03", MAX),
            Split::Message { len: 3 }
        );
        assert_eq!(
            prefix(2).split(b"\0\x02hi\0", MAX),
            Split::Message { len: 4 }
        );
        assert_eq!(
            prefix(3).split(b"\0\0\x02hi\0", MAX),
            Split::Message { len: 5 }
        );
        assert_eq!(
            prefix(4).split(b"\0\0\0\x02hi", MAX),
            Split::Message { len: 6 }
        );
        assert_eq!(
            prefix(8).split(b"\0\0\0\0\0\0\0\x02hi", MAX),
            Split::Message { len: 10 }
        );
    }

    #[test]
    fn every_width_reads_both_byte_orders() {
        let bytes = b"\x01\x02\x03\x04\x05\x06\x07\x08";
        for (width, big, little) in [
            (1, 0x01, 0x01),
            (2, 0x0102, 0x0201),
            (3, 0x01_0203, 0x03_0201),
            (4, 0x0102_0304, 0x0403_0201),
            (5, 0x01_0203_0405, 0x05_0403_0201),
            (6, 0x0102_0304_0506, 0x0605_0403_0201),
            (7, 0x01_0203_0405_0607, 0x07_0605_0403_0201),
            (8, 0x0102_0304_0506_0708, 0x0807_0605_0403_0201),
        ] {
            let of = |order| prefix(width).order(order).split(bytes, 0);
            let prefix = width as u64;
            assert_eq!(of(ByteOrder::Big), too_long(prefix + big, 0), "{width}");
            assert_eq!(
                of(ByteOrder::Little),
                too_long(prefix + little, 0),
                "{width}"
            );
        }
    }

    #[test]
    fn half_a_prefix_says_nothing() {
        for len in 1..7 {
            assert_eq!(
                prefix(4).offset(3).split(&[0; 7][..len], MAX),
                Split::Partial { needed: None },
                "{len}"
            );
        }
    }

    #[test]
    fn a_whole_prefix_says_how_much_is_needed() {
        assert_eq!(
            prefix(2).split(b"\0\x05hi", MAX),
            Split::Partial { needed: Some(7) }
        );
    }

    #[test]
    fn an_empty_body_is_a_message() {
        assert_eq!(prefix(2).split(b"\0\0", MAX), Split::Message { len: 2 });
        assert_eq!(
            of_all().split(b"\0\0\0\x04", MAX),
            Split::Message { len: 4 }
        );
    }

    #[test]
    fn the_length_may_stand_inside_a_header() {
        // PostgreSQL: a query of 8 bytes, its type not counted.
        let postgres = prefix(4).offset(1).adjust(-4);
        let query = b"Q\0\0\0\x0cSELECT 1";
        assert_eq!(query[5..].len() + 4, 12);
        assert_eq!(postgres.split(query, MAX), Split::Message { len: 13 });
        assert_eq!(
            postgres.split(&query[..9], MAX),
            Split::Partial { needed: Some(13) }
        );
        // HTTP/2: a PING has a payload of 8 bytes, behind 9 of the header.
        let http2 = prefix(3).adjust(6);
        let ping = b"\0\0\x08\x06\0\0\0\0\0pingpingPRI";
        assert_eq!(http2.split(ping, MAX), Split::Message { len: 17 });
    }

    #[test]
    fn a_length_smaller_than_what_it_counts_is_refused() {
        for width in 1..=8 {
            let prefix = prefix(width).order(ByteOrder::Little);
            let of_all = prefix.adjust(prefix.counts_all());
            let smallest = width as u64;
            for announced in 0..smallest {
                let bytes = [announced as u8, 0, 0, 0, 0, 0, 0, 0];
                assert_eq!(
                    of_all.split(&bytes, MAX),
                    Split::Refused(Refusal::BadLength {
                        announced,
                        smallest
                    })
                );
            }
        }
    }

    #[test]
    fn no_length_and_no_adjustment_overflows() {
        let largest = [0xff; 8];
        for adjust in [0, 1, i64::MAX] {
            let split = prefix(8).adjust(adjust).split(&largest, MAX);
            assert_eq!(split, too_long(u64::MAX, MAX), "{adjust}");
        }
        assert_eq!(
            prefix(8).adjust(i64::MIN).split(&largest, MAX),
            too_long((1 << 63) - 1 + 8, MAX)
        );
        assert_eq!(
            prefix(8).adjust(i64::MIN).split(&[0; 8], MAX),
            Split::Refused(Refusal::BadLength {
                announced: 0,
                smallest: 1 << 63
            })
        );
        let far = prefix(8).offset(u32::MAX);
        assert_eq!(far.split(&largest, MAX), Split::too_long(MAX));
        assert_eq!(
            far.split(&largest, 1 << 33),
            Split::Partial { needed: None }
        );
    }

    #[test]
    fn the_maximum_counts_the_prefix() {
        assert_eq!(prefix(2).split(b"\0\x03abc", 5), Split::Message { len: 5 });
        assert_eq!(
            prefix(2).split(b"\0\x04abcd", 5),
            too_long(6, 5),
            "though all of it is there"
        );
    }

    #[test]
    fn a_message_too_long_is_refused_by_its_prefix_alone() {
        let bytes = b"\xff\xff\xff\xff";
        assert_eq!(prefix(4).split(bytes, MAX), too_long((1 << 32) + 3, MAX));
        assert_eq!(of_all().split(bytes, MAX), too_long((1 << 32) - 1, MAX));
    }

    #[test]
    fn a_prefix_longer_than_the_maximum_refuses_the_first_byte() {
        for prefix in [prefix(4), prefix(2).offset(2), prefix(1).offset(3)] {
            assert_eq!(prefix.split(b"\0", 4), Split::Partial { needed: None });
            assert_eq!(prefix.split(b"\0", 3), Split::too_long(3));
        }
    }

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
    fn only_what_is_not_usual_is_written_beside_order_and_counts() {
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
