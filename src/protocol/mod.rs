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
mod function;
mod length;

use std::error::Error;
use std::fmt;
use std::str::FromStr;

pub use delimiter::Delimiter;
pub(crate) use delimiter::unescape;
pub use function::{Found, Framing};
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
    /// A function finds where a message ends. It has no text: as one it is `function`, which is not
    /// read.
    Function(Framing),
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
    /// The function that looks for messages has refused it, said that it has no bytes, or panicked.
    ByFunction,
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
            Self::Function(framing) => framing.split(bytes, seen, max),
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
            Self::Function(_) => f.write_str("function"),
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
            Self::ByFunction => f.write_str("the function that finds messages has refused them"),
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
mod tests;
