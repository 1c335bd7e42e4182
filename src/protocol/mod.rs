//! Protocols: the rules by which bytes are cut into messages.
//!
//! TCP carries a stream: the bytes of one `send` of the peer may arrive in pieces, or together with the
//! next. A protocol finds the end of a message, so that a callback runs once for each message and gets
//! all of it.
//!
//! Runs where the socket is read: in the master's reactor threads in process mode, in a worker in base
//! mode. Its one rule: it has no side effects. It reads no socket, keeps no bytes and copies none: its
//! result depends on its arguments alone.

mod delimiter;
mod error;
mod function;
mod length;
mod varint;

use std::fmt;
use std::str::FromStr;

use delimiter::Delimiter;
pub(crate) use delimiter::unescape;
use error::Problem;
pub use error::{ParseProtocolError, ProtocolError, Refusal};
use function::Function;
pub use function::{Found, Search};
pub use length::{ByteOrder, LengthPrefix};

/// How the bytes of a connection become messages.
///
/// A callback gets a message as it was read, with its framing: the delimiter at its end or the prefix at
/// its beginning. The longest accepted message is a setting of the listener, and includes the framing. A
/// connection that breaks the protocol is closed with a [`Refusal`]. Bytes after the last whole message are
/// dropped when the peer closes, with no callback and no log line.
///
/// Its text, on the command line for instance, is one of these, which [`Display`](fmt::Display) writes
/// too:
///
/// | text | the same as |
/// |---|---|
/// | `raw` | [`Protocol::raw`] |
/// | `lines` | [`Protocol::lines`] |
/// | `delimiter=TEXT` | [`Protocol::delimiter`]; TEXT may have `\r`, `\n`, `\t`, `\0`, `\\` and `\xHH` for single bytes |
/// | `length=WIDTH[,big\|little][,body\|all][,offset=N][,adjust=N]` | [`Protocol::length_prefix`] of WIDTH bytes, 1 to 8 |
/// | `varint` | [`Protocol::varint`] |
///
/// The words after the width may be in any order; `big`, `body` and `offset=0` are the defaults. With
/// `body` the length counts the bytes after it (`adjust=0`), with `all` the whole message; `adjust=N`
/// replaces either.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use tine::{LengthPrefix, Protocol};
///
/// assert_eq!(r"delimiter=\r\n".parse::<Protocol>()?, Protocol::delimiter("\r\n")?);
///
/// let sized = LengthPrefix::new(4)?.adjust(-4);
/// assert_eq!("length=4,all".parse::<Protocol>()?, Protocol::length_prefix(sized));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Protocol(Kind);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Kind {
    #[default]
    Raw,
    Delimiter(Delimiter),
    Length(LengthPrefix),
    Varint,
    Function(Function),
}

impl Protocol {
    /// The longest delimiter, in bytes.
    pub const MAX_DELIMITER: usize = 256;

    /// No framing, the default: a message is the bytes of one read, at least one, at most the longest
    /// accepted message. The places of the cuts are arbitrary.
    #[must_use]
    pub const fn raw() -> Protocol {
        Protocol(Kind::Raw)
    }

    /// A message ends with a line feed, `\n`. It is the last byte of the message; a carriage return
    /// before it belongs to the message too. A last line without a line feed is no message: it is dropped when
    /// the peer closes, with no callback and no log line.
    #[must_use]
    pub const fn lines() -> Protocol {
        Protocol(Kind::Delimiter(Delimiter::LINE_FEED))
    }

    /// A message ends with the first occurrence of these bytes, 1 to
    /// [`MAX_DELIMITER`](Self::MAX_DELIMITER) of them.
    ///
    /// The delimiter is part of the message. A delimiter alone is a message too. It can't be quoted:
    /// each occurrence ends a message.
    ///
    /// ```
    /// # fn main() -> Result<(), tine::ProtocolError> {
    /// let protocol = tine::Protocol::delimiter("\r\n")?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The delimiter is empty or too long.
    pub fn delimiter(bytes: impl Into<Vec<u8>>) -> Result<Protocol, ProtocolError> {
        Delimiter::new(bytes.into()).map(|delimiter| Protocol(Kind::Delimiter(delimiter)))
    }

    /// A message begins with its length, or with a header that has the length at a fixed place.
    #[must_use]
    pub const fn length_prefix(prefix: LengthPrefix) -> Protocol {
        Protocol(Kind::Length(prefix))
    }

    /// A message begins with the number of bytes that follow, as a varint: seven bits in each byte, the
    /// least significant first, and the top bit set in all bytes but the last ("Encoding" in the
    /// documentation of Protocol Buffers; also called LEB128). Streams of Protocol Buffers are delimited
    /// like this (`writeDelimitedTo` in Java, `SerializeDelimitedToOstream` in C++).
    ///
    /// The prefix is part of the message. A number with more bytes than it needs, or one that does not
    /// fit into 64 bits, is refused.
    #[must_use]
    pub const fn varint() -> Protocol {
        Protocol(Kind::Varint)
    }

    /// A function finds the end of a message.
    ///
    /// `find(bytes, search)` gets all bytes of a connection that belong to no message yet, at least one;
    /// they may include bytes of the next messages. An earlier call has searched the first
    /// [`search.seen`](Search::seen) of them without finding a whole message: they need not be searched again.
    ///
    /// It is called where the socket is read: in process mode in the master, by any of its reactors,
    /// in base mode in the worker. It should be quick and must not block. A panic is logged and closes
    /// the connection; a crash ends the process, which in process mode owns every socket. If one of the
    /// other protocols can express the same, it is the safer choice.
    ///
    /// Two protocols with functions are equal if one is a clone of the other. Its text is `function`,
    /// which can't be parsed.
    ///
    /// ```
    /// use tine::{Found, Listener, Protocol};
    ///
    /// // The first byte counts the bytes that follow, in units of four.
    /// let words = Protocol::function(|bytes, _search| {
    ///     Found::Message(1 + 4 * usize::from(bytes[0]))
    /// });
    /// let listener = Listener::tcp("127.0.0.1:9501").protocol(words);
    /// ```
    pub fn function(
        find: impl Fn(&[u8], &mut Search) -> Found + Send + Sync + 'static,
    ) -> Protocol {
        Protocol(Kind::Function(Function::new(find)))
    }

    /// Whether a message is the bytes of one read.
    pub(crate) const fn is_raw(&self) -> bool {
        matches!(self.0, Kind::Raw)
    }

    /// Whether its search keeps a cursor.
    pub(crate) const fn has_cursor(&self) -> bool {
        matches!(self.0, Kind::Function(_))
    }

    /// Finds the first message in `bytes`.
    ///
    /// - `seen`: how many of the first bytes an earlier call has searched without finding an end, so that
    ///   they need not be searched again; 0 if all are new.
    /// - `max`: the longest accepted message in bytes, framing included.
    ///
    /// The result is `Partial` for no bytes, and never for `max` bytes or more: a reader with room for
    /// `max` bytes never waits for more than it can hold.
    pub(crate) fn split(&self, bytes: &[u8], seen: usize, max: usize) -> Split {
        self.split_on(bytes, &mut Search::new(seen, 0), max)
    }

    /// Finds the first message in `bytes`, as [`split`](Self::split), and goes on with an earlier search.
    pub(crate) fn split_on(&self, bytes: &[u8], search: &mut Search, max: usize) -> Split {
        let seen = search.seen();
        if bytes.is_empty() {
            return Split::Partial { needed: None };
        }
        match &self.0 {
            Kind::Raw => split_raw(bytes, max),
            Kind::Delimiter(delimiter) => delimiter.split(bytes, seen, max),
            Kind::Length(prefix) => prefix.split(bytes, max),
            Kind::Varint => varint::split(bytes, max),
            Kind::Function(function) => function.split(bytes, search, max),
        }
    }
}

/// The result of looking for the first message in some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Split {
    /// The first `len` bytes are a message, framing included; at least one byte.
    Message { len: usize },
    /// The message is incomplete. `needed` is its whole length, framing included, if that is known
    /// already.
    Partial { needed: Option<usize> },
    /// These bytes can't begin a message.
    Refused(Refusal),
}

impl Split {
    /// Returns the result for an announced length of `total` bytes, of which `there` have come. The peer
    /// chose the number: it is compared with `max` before it is used.
    fn announced(total: u64, there: usize, max: usize) -> Split {
        match usize::try_from(total) {
            Ok(len) if len <= there.min(max) => Split::Message { len },
            Ok(len) if len <= max => Split::Partial { needed: Some(len) },
            Ok(_) | Err(_) => Split::Refused(Refusal::TooLong {
                announced: Some(total),
                max,
            }),
        }
    }

    /// Returns the refusal of a message that is longer than `max`, without an announced length.
    fn too_long(max: usize) -> Split {
        Split::Refused(Refusal::TooLong {
            announced: None,
            max,
        })
    }
}

fn split_raw(bytes: &[u8], max: usize) -> Split {
    match bytes.len().min(max) {
        0 => Split::too_long(max),
        len => Split::Message { len },
    }
}

impl FromStr for Protocol {
    type Err = ParseProtocolError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match (text, text.split_once('=')) {
            ("raw", _) => Ok(Self::raw()),
            ("lines", _) => Ok(Self::lines()),
            ("varint", _) => Ok(Self::varint()),
            (_, Some(("delimiter", bytes))) => Ok(Self::delimiter(unescape(bytes)?)?),
            (_, Some(("length", prefix))) => LengthPrefix::parse(prefix).map(Self::length_prefix),
            (_, None | Some(_)) => Err(Problem::Kind(text.to_owned()).into()),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Raw => f.write_str("raw"),
            Kind::Delimiter(delimiter) if *delimiter == Delimiter::LINE_FEED => {
                f.write_str("lines")
            }
            Kind::Delimiter(delimiter) => write!(f, "delimiter={delimiter}"),
            Kind::Length(prefix) => write!(f, "length={prefix}"),
            Kind::Varint => f.write_str("varint"),
            Kind::Function(_) => f.write_str("function"),
        }
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod wire;
