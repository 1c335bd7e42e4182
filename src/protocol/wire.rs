//! The writing side of every protocol, for tests: it shares no code with the reading side.

use super::*;

/// A protocol, by the form of its bytes.
#[derive(Clone, Debug)]
pub(super) enum Wire {
    Raw,
    Delimiter(Vec<u8>),
    Length(Length),
    Varint,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Length {
    pub(super) offset: u32,
    pub(super) width: usize,
    pub(super) order: ByteOrder,
    pub(super) adjust: i64,
}

impl Wire {
    pub(super) fn protocol(&self) -> Protocol {
        match self {
            Wire::Raw => Protocol::raw(),
            Wire::Delimiter(bytes) => Protocol::delimiter(bytes.as_slice()).expect("a delimiter"),
            Wire::Length(length) => Protocol::length_prefix(length.prefix()),
            Wire::Varint => Protocol::varint(),
        }
    }

    /// Returns `body` as one message, changed as far as this protocol can't express it.
    pub(super) fn framed(&self, body: &[u8]) -> Vec<u8> {
        match self {
            Wire::Raw => body.to_vec(),
            Wire::Delimiter(end) => delimited(body, end),
            Wire::Length(length) => length.framed(body),
            Wire::Varint => [varint(body.len() as u64), body.to_vec()].concat(),
        }
    }
}

/// Returns `body` with the delimiter at its end and nowhere else: earlier ones lose their first byte.
fn delimited(body: &[u8], end: &[u8]) -> Vec<u8> {
    let mut message = [body, end].concat();
    let early = |message: &Vec<u8>| {
        let at = message.windows(end.len()).position(|window| window == end);
        at.filter(|at| at + end.len() < message.len())
    };
    while let Some(at) = early(&message) {
        message.remove(at);
    }
    message
}

impl Length {
    pub(super) fn prefix(self) -> LengthPrefix {
        LengthPrefix::new(self.width)
            .expect("a width")
            .offset(self.offset)
            .order(self.order)
            .adjust(self.adjust)
    }

    /// Returns `body` as one message. A body shorter than the part that the length leaves out is padded.
    fn framed(self, body: &[u8]) -> Vec<u8> {
        let mut body = body.to_vec();
        let shortest = usize::try_from(self.adjust).unwrap_or(0);
        body.resize(body.len().max(shortest), b'.');
        let number = u64::try_from(body.len() as i64 - self.adjust).expect("not below zero");
        let mut length = number.to_le_bytes()[..self.width].to_vec();
        assert_eq!(self.read(&length, ByteOrder::Little), u128::from(number));
        if self.order == ByteOrder::Big {
            length.reverse();
        }
        [vec![b'#'; self.offset as usize], length, body].concat()
    }

    /// Returns the number in the length, for [`defined`](Self::defined).
    fn read(self, length: &[u8], order: ByteOrder) -> u128 {
        let place = |index: usize| match order {
            ByteOrder::Big => self.width - 1 - index,
            ByteOrder::Little => index,
        };
        let digits = length.iter().enumerate();
        digits
            .map(|(index, &byte)| u128::from(byte) << (8 * place(index)))
            .sum()
    }

    /// Returns the result by definition, in numbers that can't overflow.
    pub(super) fn defined(self, bytes: &[u8], max: usize) -> Split {
        let prefix = self.offset as usize + self.width;
        let Some(length) = bytes.get(self.offset as usize..prefix) else {
            return if prefix > max {
                Split::too_long(max)
            } else {
                Split::Partial { needed: None }
            };
        };
        let number = self.read(length, self.order) as i128;
        let body = number + i128::from(self.adjust);
        let total = body + prefix as i128;
        if body < 0 {
            Split::Refused(Refusal::BadLength {
                announced: number as u64,
                smallest: self.adjust.unsigned_abs(),
            })
        } else if total > max as i128 {
            Split::Refused(Refusal::TooLong {
                announced: Some(u64::try_from(total).unwrap_or(u64::MAX)),
                max,
            })
        } else if total > bytes.len() as i128 {
            Split::Partial {
                needed: Some(total as usize),
            }
        } else {
            Split::Message {
                len: total as usize,
            }
        }
    }
}

/// Returns the shortest encoding.
pub(super) fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

/// The result of reading bytes in pieces.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reading {
    pub(super) messages: Vec<Vec<u8>>,
    pub(super) left: Vec<u8>,
    pub(super) refused: bool,
}

/// Reads as a server does: bytes that were searched without finding an end are not searched again.
#[track_caller]
pub(super) fn read<'a>(
    protocol: &Protocol,
    pieces: impl IntoIterator<Item = &'a [u8]>,
    max: usize,
) -> Reading {
    let mut reading = Reading {
        messages: Vec::new(),
        left: Vec::new(),
        refused: false,
    };
    let mut seen = 0;
    for piece in pieces {
        reading.left.extend_from_slice(piece);
        while !reading.left.is_empty() && !reading.refused {
            match protocol.split(&reading.left, seen, max) {
                Split::Message { len } => {
                    reading.messages.push(reading.left.drain(..len).collect());
                    seen = 0;
                }
                Split::Partial { needed } => {
                    let there = reading.left.len();
                    assert!(there < max, "{protocol} waits for more than {max}");
                    assert!(needed.is_none_or(|needed| needed > there && needed <= max));
                    seen = there;
                    break;
                }
                Split::Refused(_) => reading.refused = true,
            }
        }
    }
    reading
}
