//! Messages that begin with their length as a varint, as in a stream of Protocol Buffers.
//!
//! Its one rule: every number has one encoding, the shortest, and others are refused. So each byte with
//! another one after it gives a lower bound of the number, and a message that is too long is refused
//! before its number is complete.

use super::{Refusal, Split};

/// The most bytes of a varint: 64 bits, 7 in each.
const MAX_LEN: usize = 10;

/// Set in every byte but the last.
const MORE: u8 = 0x80;

/// Finds the first message in `bytes`, which is not empty.
pub(super) fn split(bytes: &[u8], max: usize) -> Split {
    let mut number = 0;
    for (index, &byte) in bytes.iter().take(MAX_LEN).enumerate() {
        // The last byte holds only the 64th bit.
        if index == MAX_LEN - 1 && byte > 1 {
            return Split::Refused(Refusal::BadVarint);
        }
        number |= u64::from(byte & !MORE) << (7 * index);
        if byte & MORE == 0 {
            // A last byte without bits makes the encoding longer than the shortest.
            if byte == 0 && index > 0 {
                return Split::Refused(Refusal::BadVarint);
            }
            let prefix = index as u64 + 1;
            return Split::announced(number.saturating_add(prefix), bytes.len(), max);
        }
    }
    wait_for_prefix(bytes.len(), max)
}

/// Handles a varint of which the first `len` bytes, 1 to 9, have come. Its next byte has a bit set, as
/// its encoding is the shortest: that gives the least length of the message.
fn wait_for_prefix(len: usize, max: usize) -> Split {
    let least = (1_u64 << (7 * len)) + len as u64 + 1;
    if usize::try_from(least).is_ok_and(|least| least <= max) {
        Split::Partial { needed: None }
    } else {
        Split::too_long(max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 8 << 20;
    const BAD: Split = Split::Refused(Refusal::BadVarint);

    #[test]
    fn a_message_begins_with_its_length() {
        assert_eq!(split(b"\x02hi\x03", MAX), Split::Message { len: 3 });
        assert_eq!(split(b"\x02h", MAX), Split::Partial { needed: Some(3) });
        assert_eq!(split(b"\0\0", MAX), Split::Message { len: 1 });
    }

    #[test]
    fn the_first_byte_is_the_least_significant() {
        // 300, the example of the documentation of Protocol Buffers.
        let needed = Some(2 + 300);
        assert_eq!(split(b"\xac\x02hi", MAX), Split::Partial { needed });
        assert_eq!(split(b"\xac", MAX), Split::Partial { needed: None });
    }

    #[test]
    fn the_largest_number_is_read_and_refused_for_its_size_alone() {
        let largest = b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
        assert_eq!(
            split(largest, MAX),
            Split::Refused(Refusal::TooLong {
                announced: Some(u64::MAX),
                max: MAX
            })
        );
    }

    #[test]
    fn more_than_64_bits_are_refused() {
        for last in [0x02, 0x7f, 0x80, 0x81, 0xff] {
            let mut bytes = [0x80; 11];
            bytes[9] = last;
            assert_eq!(split(&bytes, usize::MAX), BAD, "{last:#x}");
        }
    }

    #[test]
    fn a_number_with_more_bytes_than_it_needs_is_refused() {
        for bytes in [
            &b"\x80\x00"[..],
            b"\xff\x00",
            b"\x81\x80\x00",
            b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00",
        ] {
            assert_eq!(split(bytes, usize::MAX), BAD, "{bytes:?}");
        }
    }

    #[test]
    fn the_maximum_counts_the_prefix() {
        assert_eq!(split(b"\x04abcd", 5), Split::Message { len: 5 });
        assert_eq!(
            split(b"\x05abcde", 5),
            Split::Refused(Refusal::TooLong {
                announced: Some(6),
                max: 5
            })
        );
    }

    #[test]
    fn no_reader_waits_for_a_number_that_must_be_too_large() {
        // Two bytes encode at least 128: a message of 130.
        assert_eq!(split(b"\x80", 130), Split::Partial { needed: None });
        assert_eq!(split(b"\x80", 129), Split::too_long(129));
        // The longest message that can be set as accepted has a prefix of 5 bytes.
        assert_eq!(split(&[0xff; 4], 1 << 30), Split::Partial { needed: None });
        assert_eq!(split(&[0xff; 5], 1 << 30), Split::too_long(1 << 30));
    }
}
