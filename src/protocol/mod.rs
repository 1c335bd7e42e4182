//! How bytes become messages.
//!
//! TCP carries a stream: the bytes of one `send` of the peer may arrive in pieces, or glued to the
//! next. A protocol finds where a message ends, so that a callback is run once for each message and
//! gets all of it.
//!
//! This runs where the socket is read: in the master's reactor threads in process mode, in a worker
//! in base mode. Its one rule: it only looks. It reads no socket, keeps no bytes and copies none,
//! so its answer depends on nothing but the bytes it is shown.

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
pub use function::Found;
use function::Function;
pub use length::{ByteOrder, LengthPrefix};

/// How the bytes of a connection become messages.
///
/// A message is handed to the callback as it was read, with its framing: the delimiter at its end
/// or the prefix at its beginning. The longest message accepted is a setting of the server, and it
/// counts the framing too. A connection that breaks the protocol is refused with a [`Refusal`].
///
/// As a text, on the command line for instance, it is one of these, which [`Display`](fmt::Display)
/// writes too:
///
/// | text | the same as |
/// |---|---|
/// | `raw` | [`Protocol::raw`] |
/// | `lines` | [`Protocol::lines`] |
/// | `delimiter=TEXT` | [`Protocol::delimiter`]; in TEXT `\r`, `\n`, `\t`, `\0`, `\\` and `\xHH` stand for a byte |
/// | `length=WIDTH[,big\|little][,body\|all][,offset=N][,adjust=N]` | [`Protocol::length_prefix`] of WIDTH bytes, 1 to 8 |
/// | `varint` | [`Protocol::varint`] |
///
/// The words behind a length may change places; `big`, `body` and `offset=0` need not be written.
/// `body` says that the length counts the bytes behind it (`adjust=0`), `all` that it counts the whole
/// message, and `adjust=N` stands instead of either.
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

    /// No framing, which is the default: a message is the bytes that one read has found, at least
    /// one, at most the longest message accepted. Where the peer's bytes are cut is chance.
    #[must_use]
    pub const fn raw() -> Protocol {
        Protocol(Kind::Raw)
    }

    /// A message ends with a line feed, `\n`. It is the last byte of the message; a carriage return
    /// before it belongs to the message too.
    #[must_use]
    pub const fn lines() -> Protocol {
        Protocol(Kind::Delimiter(Delimiter::LINE_FEED))
    }

    /// A message ends where these bytes first occur, 1 to [`MAX_DELIMITER`](Self::MAX_DELIMITER) of
    /// them.
    ///
    /// The delimiter is the last bytes of the message. A message of nothing but the delimiter is a
    /// message too. A delimiter can't be quoted: wherever it occurs, the message ends.
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

    /// A message begins with its length, or with a header that has its length at a fixed place.
    #[must_use]
    pub const fn length_prefix(prefix: LengthPrefix) -> Protocol {
        Protocol(Kind::Length(prefix))
    }

    /// A message begins with the number of bytes that follow, as a varint: seven bits a byte, the
    /// least significant first, and the top bit set in all bytes but the last ("Encoding" in the
    /// documentation of Protocol Buffers; LEB128 elsewhere). This is how streams of Protocol Buffers
    /// are delimited (`writeDelimitedTo` in Java, `SerializeDelimitedToOstream` in C++).
    ///
    /// The prefix belongs to the message. A number that is written with more bytes than it needs, or
    /// that does not fit into 64 bits, is refused.
    #[must_use]
    pub const fn varint() -> Protocol {
        Protocol(Kind::Varint)
    }

    /// A function finds where a message ends.
    ///
    /// `find(bytes, seen)` gets all bytes of a connection that belong to no message yet, one or
    /// more; the next message may follow in them. An earlier call has looked at the first `seen` of
    /// them without finding a whole message: they need not be searched again.
    ///
    /// It is called where the socket is read: in process mode in the master, by any of its reactors,
    /// in base mode in the worker. It should be quick and must not block. A panic refuses the
    /// connection and is logged; a crash ends the process that it runs in, which in process mode is
    /// the one that owns every socket. Wherever one of the other protocols says the same, it is the
    /// safer choice.
    ///
    /// Two protocols with functions are equal when one is a clone of the other. As a text it is
    /// `function`, which can't be parsed.
    ///
    /// ```
    /// use tine::{Found, Listener, Protocol};
    ///
    /// // The first byte counts the bytes that follow, in units of four.
    /// let words = Protocol::function(|bytes, _seen| {
    ///     Found::Message(1 + 4 * usize::from(bytes[0]))
    /// });
    /// let listener = Listener::tcp("127.0.0.1:9501").protocol(words);
    /// ```
    pub fn function(find: impl Fn(&[u8], usize) -> Found + Send + Sync + 'static) -> Protocol {
        Protocol(Kind::Function(Function::new(find)))
    }

    /// Whether messages are cut where reads happen to end.
    pub(crate) const fn is_raw(&self) -> bool {
        matches!(self.0, Kind::Raw)
    }

    /// Finds the message that `bytes` begin with.
    ///
    /// - `seen`: how many of the first bytes an earlier call has searched without finding an end, so
    ///   that a search need not start over; 0 when they are new.
    /// - `max`: the longest message accepted, in bytes, framing included.
    ///
    /// No bytes are always `Partial`; `max` bytes or more never are, so a reader that keeps room
    /// for `max` bytes never waits for more than it can hold.
    pub(crate) fn split(&self, bytes: &[u8], seen: usize, max: usize) -> Split {
        if bytes.is_empty() {
            return Split::Partial { needed: None };
        }
        match &self.0 {
            Kind::Raw => split_raw(bytes, max),
            Kind::Delimiter(delimiter) => delimiter.split(bytes, seen, max),
            Kind::Length(prefix) => prefix.split(bytes, max),
            Kind::Varint => varint::split(bytes, max),
            Kind::Function(function) => function.split(bytes, seen, max),
        }
    }
}

/// The message that some bytes begin with.
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

impl Split {
    /// A message of `total` bytes is announced, of which `there` have come. The peer chose the
    /// number: it is compared before it is used.
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

    /// A message is longer than `max`, by how much is not known.
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
