//! Messages that begin with their length, as most binary protocols have it.
//!
//! The one rule: the length is the peer's word. It is compared with what is allowed before anything
//! is computed from it.

use std::fmt;

use super::{ParseProtocolError, Refusal, Split};

/// A message begins with its length, an unsigned integer.
///
/// The message is handed over as it was read: its first bytes are the prefix. A message with no
/// bytes behind its prefix is a message too.
///
/// Two of the field: DNS over TCP (RFC 1035, section 4.2.2) has two bytes, big endian, that count
/// the body; 9P (`intro(5)` of Plan 9) has four, little endian, that count themselves too.
///
/// ```
/// use tine::{ByteOrder, Counts, LengthPrefix, Width};
///
/// const DNS: LengthPrefix = LengthPrefix::new(Width::U16, ByteOrder::Big, Counts::Body);
/// const NINE_P: LengthPrefix = LengthPrefix::new(Width::U32, ByteOrder::Little, Counts::All);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LengthPrefix {
    width: Width,
    order: ByteOrder,
    counts: Counts,
}

/// How many bytes a length prefix has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// One byte.
    U8,
    /// Two bytes.
    U16,
    /// Four bytes.
    U32,
}

/// Which byte of a length prefix comes first. It makes no difference to a prefix of one byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteOrder {
    /// The most significant byte first, called network byte order.
    Big,
    /// The least significant byte first.
    Little,
}

/// What the number in a length prefix counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counts {
    /// The bytes behind the prefix.
    Body,
    /// The whole message, prefix included. A number smaller than the prefix is refused.
    All,
}

impl LengthPrefix {
    /// Describes a prefix; every combination is good.
    #[must_use]
    pub const fn new(width: Width, order: ByteOrder, counts: Counts) -> Self {
        Self {
            width,
            order,
            counts,
        }
    }

    /// `bytes` is not empty.
    pub(super) fn split(self, bytes: &[u8], max: usize) -> Split {
        let Some(announced) = self.read(bytes) else {
            return self.wait_for_prefix(max);
        };
        let prefix = self.width.bytes();
        // A number has 32 bits at most, so this sum does not overflow.
        let total = match self.counts {
            Counts::Body => announced + prefix as u64,
            Counts::All if announced < prefix as u64 => {
                return Split::Refused(Refusal::BadLength {
                    announced,
                    smallest: prefix as u64,
                });
            }
            Counts::All => announced,
        };
        match usize::try_from(total) {
            Ok(len) if len > max => Split::Refused(too_long(total, max)),
            Ok(len) if len > bytes.len() => Split::Partial { needed: Some(len) },
            Ok(len) => Split::Message { len },
            Err(_) => Split::Refused(too_long(total, max)),
        }
    }

    /// The number in the prefix, if all of the prefix is there.
    fn read(self, bytes: &[u8]) -> Option<u64> {
        match (self.width, self.order) {
            (Width::U8, ByteOrder::Big | ByteOrder::Little) => {
                bytes.first().copied().map(u64::from)
            }
            (Width::U16, ByteOrder::Big) => bytes
                .first_chunk()
                .map(|prefix| u16::from_be_bytes(*prefix).into()),
            (Width::U16, ByteOrder::Little) => bytes
                .first_chunk()
                .map(|prefix| u16::from_le_bytes(*prefix).into()),
            (Width::U32, ByteOrder::Big) => bytes
                .first_chunk()
                .map(|prefix| u32::from_be_bytes(*prefix).into()),
            (Width::U32, ByteOrder::Little) => bytes
                .first_chunk()
                .map(|prefix| u32::from_le_bytes(*prefix).into()),
        }
    }

    /// A reader that keeps `max` bytes at most would wait for ever for a prefix that is longer.
    fn wait_for_prefix(self, max: usize) -> Split {
        if self.width.bytes() > max {
            Split::Refused(Refusal::TooLong {
                announced: None,
                max,
            })
        } else {
            Split::Partial { needed: None }
        }
    }

    /// Reads what [`Display`](fmt::Display) writes. Byte order and what is counted may be left out,
    /// or change places.
    pub(super) fn parse(text: &str) -> Result<Self, ParseProtocolError> {
        let mut words = text.split(',');
        let width = match words.next().unwrap_or_default() {
            "1" => Width::U8,
            "2" => Width::U16,
            "4" => Width::U32,
            other => return Err(ParseProtocolError::width(other)),
        };
        let mut order = None;
        let mut counts = None;
        for word in words {
            match word {
                "big" if order.is_none() => order = Some(ByteOrder::Big),
                "little" if order.is_none() => order = Some(ByteOrder::Little),
                "body" if counts.is_none() => counts = Some(Counts::Body),
                "all" if counts.is_none() => counts = Some(Counts::All),
                other => return Err(ParseProtocolError::length_word(other)),
            }
        }
        Ok(Self::new(
            width,
            order.unwrap_or(ByteOrder::Big),
            counts.unwrap_or(Counts::Body),
        ))
    }
}

fn too_long(announced: u64, max: usize) -> Refusal {
    Refusal::TooLong {
        announced: Some(announced),
        max,
    }
}

impl Width {
    const fn bytes(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::U16 => 2,
            Self::U32 => 4,
        }
    }
}

/// As on the command line, with nothing left out: `4,big,body`.
impl fmt::Display for LengthPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let order = match self.order {
            ByteOrder::Big => "big",
            ByteOrder::Little => "little",
        };
        let counts = match self.counts {
            Counts::Body => "body",
            Counts::All => "all",
        };
        write!(f, "{},{order},{counts}", self.width.bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 8 << 20;
    const U8: LengthPrefix = LengthPrefix::new(Width::U8, ByteOrder::Big, Counts::Body);
    const U16: LengthPrefix = LengthPrefix::new(Width::U16, ByteOrder::Big, Counts::Body);
    const U32: LengthPrefix = LengthPrefix::new(Width::U32, ByteOrder::Big, Counts::Body);
    const U32_ALL: LengthPrefix = LengthPrefix::new(Width::U32, ByteOrder::Big, Counts::All);

    #[test]
    fn a_message_begins_with_its_prefix() {
        assert_eq!(U8.split(b"\x02hi\x03", MAX), Split::Message { len: 3 });
        assert_eq!(U16.split(b"\0\x02hi\0", MAX), Split::Message { len: 4 });
        assert_eq!(U32.split(b"\0\0\0\x02hi", MAX), Split::Message { len: 6 });
    }

    #[test]
    fn every_width_reads_both_byte_orders() {
        use {ByteOrder::*, Width::*};
        for (width, order, needed) in [
            (U8, Big, 1 + 0x01),
            (U8, Little, 1 + 0x01),
            (U16, Big, 2 + 0x0102),
            (U16, Little, 2 + 0x0201),
            (U32, Big, 4 + 0x0102_0304),
            (U32, Little, 4 + 0x0403_0201),
        ] {
            let prefix = LengthPrefix::new(width, order, Counts::Body);
            assert_eq!(
                prefix.split(b"\x01\x02\x03\x04", usize::MAX),
                match width {
                    U8 => Split::Message { len: needed },
                    U16 | U32 => Split::Partial {
                        needed: Some(needed)
                    },
                },
                "{prefix}"
            );
        }
    }

    #[test]
    fn half_a_prefix_says_nothing() {
        for len in 1..4 {
            assert_eq!(
                U32.split(&b"\0\0\0"[..len], MAX),
                Split::Partial { needed: None }
            );
        }
    }

    #[test]
    fn a_whole_prefix_says_how_much_is_needed() {
        assert_eq!(
            U16.split(b"\0\x05hi", MAX),
            Split::Partial { needed: Some(7) }
        );
    }

    #[test]
    fn an_empty_body_is_a_message() {
        assert_eq!(U16.split(b"\0\0", MAX), Split::Message { len: 2 });
        assert_eq!(U32_ALL.split(b"\0\0\0\x04", MAX), Split::Message { len: 4 });
    }

    #[test]
    fn a_length_of_all_counts_the_prefix() {
        assert_eq!(
            U32_ALL.split(b"\0\0\0\x06hi!", MAX),
            Split::Message { len: 6 }
        );
    }

    #[test]
    fn a_length_of_all_smaller_than_its_prefix_is_refused() {
        for width in [Width::U8, Width::U16, Width::U32] {
            let prefix = LengthPrefix::new(width, ByteOrder::Little, Counts::All);
            let smallest = width.bytes() as u64;
            for announced in 0..smallest {
                assert_eq!(
                    prefix.split(&[announced as u8, 0, 0, 0], MAX),
                    Split::Refused(Refusal::BadLength {
                        announced,
                        smallest
                    })
                );
            }
        }
    }

    #[test]
    fn the_maximum_counts_the_prefix() {
        assert_eq!(U16.split(b"\0\x03abc", 5), Split::Message { len: 5 });
        assert_eq!(
            U16.split(b"\0\x04abcd", 5),
            Split::Refused(too_long(6, 5)),
            "though all of it is there"
        );
    }

    #[test]
    fn a_message_too_long_is_refused_by_its_prefix_alone() {
        assert_eq!(
            U32.split(b"\xff\xff\xff\xff", MAX),
            Split::Refused(too_long((1 << 32) + 3, MAX))
        );
        assert_eq!(
            U32_ALL.split(b"\xff\xff\xff\xff", MAX),
            Split::Refused(too_long((1 << 32) - 1, MAX))
        );
    }

    #[test]
    fn a_prefix_longer_than_the_maximum_refuses_the_first_byte() {
        assert_eq!(U32.split(b"\0", 4), Split::Partial { needed: None });
        assert_eq!(
            U32.split(b"\0", 3),
            Split::Refused(Refusal::TooLong {
                announced: None,
                max: 3
            })
        );
    }

    #[test]
    fn order_and_counts_may_be_left_out() {
        use {ByteOrder::*, Counts::*, Width::*};
        for (text, width, order, counts) in [
            ("1", U8, Big, Body),
            ("2,little", U16, Little, Body),
            ("4,all", U32, Big, All),
            ("4,little,all", U32, Little, All),
            ("4,all,little", U32, Little, All),
        ] {
            let expected = LengthPrefix::new(width, order, counts);
            assert_eq!(LengthPrefix::parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_bad_word_is_named() {
        for (text, named) in [
            ("", "''"),
            ("3", "'3'"),
            ("u16", "'u16'"),
            ("2,", "''"),
            ("2,network", "'network'"),
            ("2,big,little", "'little'"),
            ("2,all,all", "'all'"),
        ] {
            let error = LengthPrefix::parse(text).expect_err(text).to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
