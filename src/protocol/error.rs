//! The errors of protocols: refused bytes, invalid protocols, and texts that are not a protocol.

use std::error::Error;
use std::fmt;

use super::Protocol;
use super::length::MAX_WIDTH;

/// Why the bytes of a connection can't begin a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// The message is longer than the longest accepted one.
    #[non_exhaustive]
    TooLong {
        /// The length that the peer announces, in bytes, framing included, at most `u64::MAX`; `None` if
        /// the protocol announces no length.
        announced: Option<u64>,
        /// The longest accepted message in bytes, framing included.
        max: usize,
    },
    /// A length is smaller than the part of the message that it always counts: itself, for instance.
    #[non_exhaustive]
    BadLength {
        /// The number in the prefix.
        announced: u64,
        /// The smallest possible number.
        smallest: u64,
    },
    /// A varint does not fit into 64 bits, or has more bytes than its number needs.
    BadVarint,
    /// The function of [`Protocol::function`] has refused the bytes, returned a message of no bytes, or
    /// panicked.
    ByFunction,
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
                "a length of {announced} is announced, {smallest} is the smallest possible"
            ),
            Self::BadVarint => {
                f.write_str("a varint has more than 64 bits, or more bytes than its number needs")
            }
            Self::ByFunction => f.write_str("the protocol function has refused the bytes"),
        }
    }
}

impl Error for Refusal {}

/// An invalid value for a [`Protocol`]. Its text names the value and the allowed ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProtocolError(Bad);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Bad {
    EmptyDelimiter,
    LongDelimiter { len: usize },
    Width { width: usize },
}

impl ProtocolError {
    pub(super) const EMPTY_DELIMITER: ProtocolError = ProtocolError(Bad::EmptyDelimiter);

    pub(super) const fn long_delimiter(len: usize) -> ProtocolError {
        ProtocolError(Bad::LongDelimiter { len })
    }

    pub(super) const fn width(width: usize) -> ProtocolError {
        ProtocolError(Bad::Width { width })
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let max = Protocol::MAX_DELIMITER;
        match self.0 {
            Bad::EmptyDelimiter => {
                write!(f, "the delimiter is empty, 1 to {max} bytes are allowed")
            }
            Bad::LongDelimiter { len } => {
                write!(f, "the delimiter has {len} bytes, 1 to {max} are allowed")
            }
            Bad::Width { width } => write!(
                f,
                "the length prefix has a width of {width} bytes, 1 to {MAX_WIDTH} are allowed"
            ),
        }
    }
}

impl Error for ProtocolError {}

/// A text is not a [`Protocol`]. Its own text names the mistake and the allowed words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseProtocolError(Problem);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Problem {
    Kind(String),
    Escape(String),
    Protocol(ProtocolError),
    Width(String),
    LengthWord(String),
    Number { word: String, allowed: &'static str },
}

impl From<Problem> for ParseProtocolError {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl From<ProtocolError> for ParseProtocolError {
    fn from(error: ProtocolError) -> Self {
        Self(Problem::Protocol(error))
    }
}

impl fmt::Display for ParseProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Problem::Kind(found) => write!(
                f,
                "'{found}' is not a protocol, allowed are raw, lines, delimiter=TEXT, varint and \
                 length=1..8[,big|little][,body|all][,offset=N][,adjust=N]"
            ),
            Problem::Escape(found) => write!(
                f,
                r"'{found}' is not an escape, allowed are \r, \n, \t, \0, \\ and \xHH with two hexadecimal digits"
            ),
            Problem::Protocol(error) => error.fmt(f),
            Problem::Width(found) => write!(
                f,
                "'{found}' is not the width of a length, 1 to {MAX_WIDTH} bytes are allowed"
            ),
            Problem::LengthWord(found) => write!(
                f,
                "'{found}' is not allowed here in a length, allowed after the width are one of big and little, \
                 one of body, all and adjust=N, and offset=N"
            ),
            Problem::Number { word, allowed } => {
                write!(f, "'{word}' is out of range, allowed is {allowed}")
            }
        }
    }
}

impl Error for ParseProtocolError {}
