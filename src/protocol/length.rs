//! Messages with their length at a fixed place near the beginning, as in most binary protocols.
//!
//! Its one rule: the length is untrusted. It is compared with the longest accepted message before any
//! other use, and no sum with it overflows.

#[cfg(test)]
mod tests;
mod text;

use super::{ProtocolError, Refusal, Split};

/// The most bytes of a length.
pub(super) const MAX_WIDTH: usize = 8;

/// The place of a message's length, an unsigned integer, and the bytes that the length counts.
///
/// ```text
/// | offset bytes | length, width bytes | length + adjust bytes |
/// |<------------- prefix ------------->|<------- body -------->|
/// ```
///
/// The prefix ends with the length; `length + adjust` bytes follow it. So `adjust` is
/// - 0 if the length counts all bytes after it,
/// - positive if the length leaves out the rest of a header: the bytes of that rest,
/// - negative if the length counts bytes of the prefix too: `-(offset + width)` if it counts the whole
///   message.
///
/// A callback gets a message as it was read, prefix included. A prefix alone is a message too; a sum
/// below zero is refused ([`Refusal::BadLength`]).
///
/// Some well-known formats:
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

/// The byte order of a length. It has no effect on a length of one byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ByteOrder {
    /// The most significant byte first: network byte order.
    Big,
    /// The least significant byte first.
    Little,
}

impl LengthPrefix {
    /// Returns a length of `width` bytes, 1 to 8, at the beginning of the message: big endian, counting
    /// the bytes after it. The other methods change that, and take every value.
    ///
    /// # Errors
    /// The width is not 1 to 8.
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

    /// Sets the number of bytes before the length. Default: 0.
    #[must_use]
    pub const fn offset(self, bytes: u32) -> Self {
        Self {
            offset: bytes,
            ..self
        }
    }

    /// Sets the byte order. Default: [`ByteOrder::Big`].
    #[must_use]
    pub const fn order(self, order: ByteOrder) -> Self {
        Self { order, ..self }
    }

    /// Sets the number to be added to the length to get the number of bytes after it. Default: 0.
    #[must_use]
    pub const fn adjust(self, bytes: i64) -> Self {
        Self {
            adjust: bytes,
            ..self
        }
    }

    /// Returns the bytes of the prefix: everything up to the end of the length.
    const fn prefix(self) -> u64 {
        self.offset as u64 + self.width as u64
    }

    /// Returns the `adjust` of a length that counts the whole message.
    const fn counts_all(self) -> i64 {
        -(self.prefix() as i64)
    }

    /// Finds the first message in `bytes`, which is not empty.
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

    /// Returns the length, if the prefix is complete.
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

    /// Refuses a prefix longer than `max`: a reader that keeps at most `max` bytes would wait forever.
    fn wait_for_prefix(self, max: usize) -> Split {
        if self.prefix() > max as u64 {
            Split::too_long(max)
        } else {
            Split::Partial { needed: None }
        }
    }
}
