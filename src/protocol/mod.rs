//! How bytes become messages.
//!
//! TCP carries a stream: what one `send` of the peer wrote may arrive in pieces, or glued to the
//! next. A protocol finds where a message ends, so that a callback is run once for each message and
//! gets all of it.
//!
//! This runs where the socket is read: in the master's reactor threads in process mode, in a worker
//! in base mode. Its one rule: it only looks. It reads no socket, keeps no bytes and copies none,
//! so what it says depends on nothing but the bytes it is shown.

mod delimiter;
mod length;

use std::error::Error;
use std::fmt;
use std::str::FromStr;

pub use delimiter::Delimiter;
pub use length::{ByteOrder, Counts, LengthPrefix, Width};

/// How the bytes of a connection become messages.
///
/// A message is handed to the callback as it was read, with its framing: the delimiter at its end
/// or the prefix at its beginning. The longest message accepted is a setting of the server, and it
/// counts the framing too. A connection that breaks the protocol is refused with a [`Refusal`].
///
/// As a text, on the command line for instance, it is one of these, which [`Display`](fmt::Display)
/// writes too:
///
/// | text | meaning |
/// |---|---|
/// | `raw` | [`Raw`](Self::Raw) |
/// | `delimiter=TEXT` | [`Delimiter`](Self::Delimiter); in TEXT `\r`, `\n`, `\t`, `\0`, `\\` and `\xHH` stand for a byte |
/// | `length=1\|2\|4[,big\|little][,body\|all]` | [`Length`](Self::Length) of so many bytes; `big` and `body` if not given |
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use tine::{Delimiter, Protocol};
///
/// let lines: Protocol = r"delimiter=\r\n".parse()?;
/// assert_eq!(lines, Protocol::Delimiter(Delimiter::new("\r\n")?));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Protocol {
    /// No framing: a message is whatever has been read, one byte or more, up to the longest message
    /// accepted. Where the peer's bytes are cut is chance.
    #[default]
    Raw,
    /// A message ends with a delimiter.
    Delimiter(Delimiter),
    /// A message begins with its length.
    Length(LengthPrefix),
}

/// What some bytes begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Split {
    /// The first `len` bytes are a message, framing included; one byte at least.
    Message { len: usize },
    /// The message goes on. `needed` is its whole length, framing included, where that is known
    /// already.
    Partial { needed: Option<usize> },
    /// No message can be made of these bytes, whatever follows them.
    Refused(Refusal),
}

/// Why a connection's bytes can't be a message, whatever follows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// The message is longer than the longest accepted.
    TooLong {
        /// How long the peer says it is, in bytes, framing included; `None` where messages don't
        /// say.
        announced: Option<u64>,
        /// The longest message accepted, in bytes, framing included.
        max: usize,
    },
    /// A length that counts its own prefix is smaller than that prefix.
    BadLength {
        /// The number in the prefix.
        announced: u64,
        /// The smallest number that is possible there.
        smallest: u64,
    },
}

impl Protocol {
    /// What `bytes` begin with.
    ///
    /// - `seen`: how many of the first bytes an earlier call has looked at in vain, so that a
    ///   search need not start over; 0 when they are new.
    /// - `max`: the longest message accepted, in bytes, framing included.
    ///
    /// No bytes are always `Partial`; `max` bytes or more never are, so a reader that keeps room
    /// for `max` bytes never waits for what it can't hold.
    pub(crate) fn split(&self, bytes: &[u8], seen: usize, max: usize) -> Split {
        if bytes.is_empty() {
            return Split::Partial { needed: None };
        }
        match self {
            Self::Raw => split_raw(bytes, max),
            Self::Delimiter(delimiter) => delimiter.split(bytes, seen, max),
            Self::Length(prefix) => prefix.split(bytes, max),
        }
    }
}

fn split_raw(bytes: &[u8], max: usize) -> Split {
    match bytes.len().min(max) {
        0 => Split::Refused(Refusal::TooLong {
            announced: None,
            max,
        }),
        len => Split::Message { len },
    }
}

impl FromStr for Protocol {
    type Err = ParseProtocolError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            None if text == "raw" => Ok(Self::Raw),
            Some(("delimiter", delimiter)) => Delimiter::parse(delimiter).map(Self::Delimiter),
            Some(("length", prefix)) => LengthPrefix::parse(prefix).map(Self::Length),
            None | Some(_) => Err(ParseProtocolError(Problem::Kind(text.to_owned()))),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Raw => f.write_str("raw"),
            Self::Delimiter(delimiter) => write!(f, "delimiter={delimiter}"),
            Self::Length(prefix) => write!(f, "length={prefix}"),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong {
                announced: Some(announced),
                max,
            } => write!(
                f,
                "a message of {announced} bytes is announced, {max} are allowed"
            ),
            Self::TooLong {
                announced: None,
                max,
            } => write!(
                f,
                "a message is longer than the {max} bytes that are allowed"
            ),
            Self::BadLength {
                announced,
                smallest,
            } => write!(
                f,
                "a length of {announced} is announced, but it counts its own prefix of {smallest} bytes"
            ),
        }
    }
}

impl Error for Refusal {}

/// A protocol that can't be.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProtocolError {
    /// A delimiter without bytes would be found everywhere.
    EmptyDelimiter,
    /// A delimiter is longer than [`Delimiter::MAX_LEN`].
    LongDelimiter {
        /// Its length in bytes.
        len: usize,
    },
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let max = Delimiter::MAX_LEN;
        match self {
            Self::EmptyDelimiter => {
                write!(f, "the delimiter is empty, 1 to {max} bytes are allowed")
            }
            Self::LongDelimiter { len } => {
                write!(f, "the delimiter has {len} bytes, 1 to {max} are allowed")
            }
        }
    }
}

impl Error for ProtocolError {}

/// A text is no [`Protocol`]. It says what was wrong and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseProtocolError(Problem);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Problem {
    Kind(String),
    Escape(String),
    Delimiter(ProtocolError),
    Width(String),
    LengthWord(String),
}

impl ParseProtocolError {
    fn escape(found: String) -> Self {
        Self(Problem::Escape(found))
    }

    fn width(found: &str) -> Self {
        Self(Problem::Width(found.to_owned()))
    }

    fn length_word(found: &str) -> Self {
        Self(Problem::LengthWord(found.to_owned()))
    }
}

impl From<ProtocolError> for ParseProtocolError {
    fn from(error: ProtocolError) -> Self {
        Self(Problem::Delimiter(error))
    }
}

impl fmt::Display for ParseProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Problem::Kind(found) => write!(
                f,
                "'{found}' is not a protocol, allowed are raw, delimiter=TEXT and \
                 length=1|2|4[,big|little][,body|all]"
            ),
            Problem::Escape(found) => write!(
                f,
                r"'{found}' is not an escape, allowed are \r, \n, \t, \0, \\ and \xHH with two hexadecimal digits"
            ),
            Problem::Delimiter(error) => error.fmt(f),
            Problem::Width(found) => {
                write!(
                    f,
                    "'{found}' is not the width of a length, allowed are 1, 2 and 4 bytes"
                )
            }
            Problem::LengthWord(found) => write!(
                f,
                "'{found}' cannot stand here in a length, allowed behind the width are one of big and little, \
                 and one of body and all"
            ),
        }
    }
}

impl Error for ParseProtocolError {}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 64;

    #[track_caller]
    fn protocol(text: &str) -> Protocol {
        text.parse().expect(text)
    }

    fn every_protocol() -> impl Iterator<Item = Protocol> {
        let lengths = ["1", "2", "4"].into_iter().flat_map(|width| {
            ["big", "little"].into_iter().flat_map(move |order| {
                ["body", "all"].map(|counts| format!("length={width},{order},{counts}"))
            })
        });
        ["raw", r"delimiter=\n", r"delimiter=\r\n", "delimiter=aab"]
            .into_iter()
            .map(str::to_owned)
            .chain(lengths)
            .map(|text| protocol(&text))
    }

    /// `body` as one message of `protocol`; no delimiter may occur in it.
    fn framed(protocol: &Protocol, body: &[u8]) -> Vec<u8> {
        let Protocol::Length(prefix) = protocol else {
            let end: &[u8] = match protocol {
                Protocol::Delimiter(delimiter) => delimiter.as_bytes(),
                Protocol::Raw | Protocol::Length(_) => b"",
            };
            return [body, end].concat();
        };
        let text = prefix.to_string();
        let width: usize = text[..1].parse().expect("a width");
        let number = body.len() + if text.ends_with("all") { width } else { 0 };
        let number = u32::try_from(number).expect("a short body");
        let prefix = if text.contains("big") {
            number.to_be_bytes()[4 - width..].to_vec()
        } else {
            number.to_le_bytes()[..width].to_vec()
        };
        [&prefix, body].concat()
    }

    /// What a reader makes of bytes that arrive in pieces.
    #[track_caller]
    fn read<'a>(
        protocol: &Protocol,
        pieces: impl IntoIterator<Item = &'a [u8]>,
        max: usize,
    ) -> Vec<Vec<u8>> {
        let mut messages = Vec::new();
        let mut unread = Vec::new();
        let mut seen = 0;
        for piece in pieces {
            unread.extend_from_slice(piece);
            loop {
                match protocol.split(&unread, seen, max) {
                    Split::Message { len } => {
                        messages.push(unread.drain(..len).collect());
                        seen = 0;
                    }
                    Split::Partial { needed } => {
                        assert!(needed.is_none_or(|needed| needed > unread.len() && needed <= max));
                        seen = unread.len();
                        break;
                    }
                    Split::Refused(refusal) => panic!("{protocol}: {refusal}"),
                }
            }
        }
        assert_eq!(unread, b"", "{protocol}: bytes are left over");
        messages
    }

    /// Cuts behind each byte for which `cut` says so.
    fn pieces(bytes: &[u8], mut cut: impl FnMut() -> bool) -> Vec<&[u8]> {
        bytes.chunk_by(move |_, _| !cut()).collect()
    }

    /// Numbers that look random and are the same in each run (a linear congruential generator).
    fn numbers(mut state: u64) -> impl FnMut(u64) -> u64 {
        move |below| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        }
    }

    #[test]
    fn no_bytes_are_always_partial() {
        for protocol in every_protocol() {
            for max in [0, 1, MAX] {
                let split = protocol.split(b"", 0, max);
                assert_eq!(split, Split::Partial { needed: None }, "{protocol}");
            }
        }
    }

    #[test]
    fn raw_takes_all_there_is_up_to_the_maximum() {
        assert_eq!(
            Protocol::Raw.split(b"hello", 0, 64),
            Split::Message { len: 5 }
        );
        assert_eq!(
            Protocol::Raw.split(b"hello", 0, 3),
            Split::Message { len: 3 }
        );
    }

    #[test]
    fn a_reader_with_room_for_the_maximum_never_waits_for_more() {
        let mut number = numbers(1);
        for protocol in every_protocol() {
            for _ in 0..2000 {
                let max = number(8) as usize;
                let len = max.max(1) + number(3) as usize;
                let bytes: Vec<u8> = (0..len)
                    .map(|_| b"\0\x01\x02ab\n"[number(6) as usize])
                    .collect();
                match protocol.split(&bytes, 0, max) {
                    Split::Message { len } => assert!((1..=max).contains(&len), "{protocol}"),
                    Split::Partial { needed } => panic!("{protocol}: {bytes:?}, {max}: {needed:?}"),
                    Split::Refused(_) => {}
                }
            }
        }
    }

    #[test]
    fn all_cuts_of_a_short_stream_give_the_same_messages() {
        for protocol in every_protocol().filter(|protocol| *protocol != Protocol::Raw) {
            let messages = [
                framed(&protocol, b"a"),
                framed(&protocol, b""),
                framed(&protocol, b"ba"),
            ];
            let stream = messages.concat();
            for cuts in 0..1u32 << (stream.len() - 1) {
                let mut bits = (0..32).map(|bit| cuts >> bit & 1 == 1);
                let pieces = pieces(&stream, || bits.next().expect("a bit for each byte"));
                assert_eq!(
                    read(&protocol, pieces, MAX),
                    messages,
                    "{protocol}, {cuts:b}"
                );
            }
        }
    }

    #[test]
    fn any_cuts_of_a_long_stream_give_the_same_messages() {
        let mut number = numbers(2);
        for protocol in every_protocol().filter(|protocol| *protocol != Protocol::Raw) {
            for _ in 0..200 {
                let messages: Vec<Vec<u8>> = (0..number(30))
                    .map(|_| {
                        // Letters that begin a delimiter, and none that ends one.
                        let body: Vec<u8> = (0..number(50))
                            .map(|_| b"a\rc"[number(3) as usize])
                            .collect();
                        framed(&protocol, &body)
                    })
                    .collect();
                let stream = messages.concat();
                let rarity = 1 + number(40);
                let pieces = pieces(&stream, || number(rarity) == 0);
                assert_eq!(read(&protocol, pieces, MAX), messages, "{protocol}");
            }
        }
    }

    #[test]
    fn raw_loses_and_adds_nothing() {
        let stream: Vec<u8> = (0..=u8::MAX).cycle().take(3000).collect();
        let mut number = numbers(3);
        for rarity in 1..100 {
            let pieces = pieces(&stream, || number(rarity) == 0);
            let messages = read(&Protocol::Raw, pieces, MAX);
            assert!(
                messages
                    .iter()
                    .all(|message| (1..=MAX).contains(&message.len()))
            );
            assert_eq!(messages.concat(), stream);
        }
    }

    #[test]
    fn a_protocol_survives_being_written_and_read() {
        for original in every_protocol() {
            assert_eq!(original.to_string().parse(), Ok(original));
        }
    }

    #[test]
    fn the_default_is_raw() {
        assert_eq!(Protocol::default(), protocol("raw"));
    }

    #[test]
    fn what_is_no_protocol_is_told_what_is_allowed() {
        for text in [
            "",
            "RAW",
            "raw=",
            "raw ",
            "delimiter",
            "length",
            "lenght=4",
            "=raw",
        ] {
            let error = text.parse::<Protocol>().expect_err(text).to_string();
            assert_eq!(
                error,
                format!(
                    "'{text}' is not a protocol, allowed are raw, delimiter=TEXT and \
                     length=1|2|4[,big|little][,body|all]"
                )
            );
        }
    }

    #[test]
    fn a_delimiter_text_is_held_to_the_same_limits() {
        let error = "delimiter=".parse::<Protocol>().expect_err("no bytes");
        assert_eq!(error, ProtocolError::EmptyDelimiter.into());
        assert_eq!(
            error.to_string(),
            "the delimiter is empty, 1 to 256 bytes are allowed"
        );
        let long = format!("delimiter={}", r"\0".repeat(257));
        let error = long.parse::<Protocol>().expect_err("too many bytes");
        assert_eq!(
            error.to_string(),
            "the delimiter has 257 bytes, 1 to 256 are allowed"
        );
    }

    #[test]
    fn a_delimiter_may_contain_what_means_something_elsewhere() {
        let Protocol::Delimiter(delimiter) = protocol("delimiter==,big ") else {
            panic!("not a delimiter");
        };
        assert_eq!(delimiter.as_bytes(), b"=,big ");
    }

    #[test]
    fn a_refusal_is_one_clear_sentence() {
        let max = 8_388_608;
        for (refusal, sentence) in [
            (
                Refusal::TooLong {
                    announced: Some(9_000_000),
                    max,
                },
                "a message of 9000000 bytes is announced, 8388608 are allowed",
            ),
            (
                Refusal::TooLong {
                    announced: None,
                    max,
                },
                "a message is longer than the 8388608 bytes that are allowed",
            ),
            (
                Refusal::BadLength {
                    announced: 3,
                    smallest: 4,
                },
                "a length of 3 is announced, but it counts its own prefix of 4 bytes",
            ),
        ] {
            assert_eq!(refusal.to_string(), sentence);
        }
    }
}
