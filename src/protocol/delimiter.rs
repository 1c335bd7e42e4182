//! Messages that end with a delimiter, such as the lines of a text protocol.
//!
//! Its one rule: no byte is searched twice, except the few that may begin an incomplete delimiter.

use std::fmt::{self, Write as _};

use memchr::memmem::Finder;

use super::error::Problem;
use super::{ParseProtocolError, Protocol, ProtocolError, Split};

/// The bytes that end a message.
#[derive(Clone)]
pub(super) struct Delimiter {
    search: Search,
}

/// A search with its tables, built once.
#[derive(Clone)]
enum Search {
    Byte(u8),
    Bytes(Box<Finder<'static>>),
}

impl Delimiter {
    pub(super) const LINE_FEED: Delimiter = Delimiter {
        search: Search::Byte(b'\n'),
    };

    pub(super) fn new(bytes: Vec<u8>) -> Result<Delimiter, ProtocolError> {
        let search = match bytes.as_slice() {
            [] => return Err(ProtocolError::EMPTY_DELIMITER),
            [byte] => Search::Byte(*byte),
            [..] if bytes.len() > Protocol::MAX_DELIMITER => {
                return Err(ProtocolError::long_delimiter(bytes.len()));
            }
            [..] => Search::Bytes(Box::new(Finder::new(&bytes).into_owned())),
        };
        Ok(Delimiter { search })
    }

    /// Returns the bytes of the delimiter.
    pub(super) fn as_bytes(&self) -> &[u8] {
        match &self.search {
            Search::Byte(byte) => std::slice::from_ref(byte),
            Search::Bytes(finder) => finder.needle(),
        }
    }

    /// Finds the first message in `bytes`, which is not empty.
    pub(super) fn split(&self, bytes: &[u8], seen: usize, max: usize) -> Split {
        let delimiter = self.as_bytes();
        // A delimiter that ends beyond `max` would end a message that is too long: no need to search
        // there.
        let window = &bytes[..bytes.len().min(max)];
        // The searched bytes may end with a delimiter that lacks only its last byte.
        let start = seen.min(window.len()).saturating_sub(delimiter.len() - 1);
        match self.find(&window[start..]) {
            Some(at) => Split::Message {
                len: start + at + delimiter.len(),
            },
            None if self.can_end(window, max) => Split::Partial { needed: None },
            None => Split::too_long(max),
        }
    }

    fn find(&self, haystack: &[u8]) -> Option<usize> {
        match &self.search {
            Search::Byte(byte) => memchr::memchr(*byte, haystack),
            Search::Bytes(finder) => finder.find(haystack),
        }
    }

    /// Whether a message that begins with `bytes`, which have no delimiter, can still end within `max`.
    fn can_end(&self, bytes: &[u8], max: usize) -> bool {
        let delimiter = self.as_bytes();
        // The part of a delimiter that does not fit after `bytes` must be at their end already. Far below
        // `max` that part is empty.
        let room = max - bytes.len();
        let fewest_begun = delimiter.len().saturating_sub(room);
        (fewest_begun..delimiter.len()).any(|begun| bytes.ends_with(&delimiter[..begun]))
    }
}

/// Returns the bytes of a text with escapes for bytes that can't be typed. Characters beyond ASCII give
/// their UTF-8 bytes.
pub(crate) fn unescape(text: &str) -> Result<Vec<u8>, ParseProtocolError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((plain, escaped)) = rest.split_once('\\') {
        let (byte, after) = parse_escape(escaped)?;
        bytes.extend_from_slice(plain.as_bytes());
        bytes.push(byte);
        rest = after;
    }
    bytes.extend_from_slice(rest.as_bytes());
    Ok(bytes)
}

fn bad_escape(found: String) -> ParseProtocolError {
    Problem::Escape(found).into()
}

/// Returns the byte of an escape, and the text after it. `text` begins after the backslash.
fn parse_escape(text: &str) -> Result<(u8, &str), ParseProtocolError> {
    let mut chars = text.chars();
    let byte = match chars.next() {
        Some('r') => b'\r',
        Some('n') => b'\n',
        Some('t') => b'\t',
        Some('0') => b'\0',
        Some('\\') => b'\\',
        Some('x') => return parse_hex(text),
        Some(other) => return Err(bad_escape(format!("\\{other}"))),
        None => return Err(bad_escape("\\".to_owned())),
    };
    Ok((byte, chars.as_str()))
}

/// Reads an escape `xHH` at the beginning of `text`.
fn parse_hex(text: &str) -> Result<(u8, &str), ParseProtocolError> {
    let hex = |digit: u8| char::from(digit).to_digit(16);
    match text.as_bytes() {
        [b'x', high, low, ..] if hex(*high).is_some() && hex(*low).is_some() => {
            let byte = u8::from_str_radix(&text[1..3], 16).expect("two hexadecimal digits");
            Ok((byte, &text[3..]))
        }
        _ => {
            let found: String = text.chars().take(3).collect();
            Err(bad_escape(format!("\\{found}")))
        }
    }
}

/// The form of the command line: printable ASCII unchanged, `\r`, `\n`, `\t`, `\0`, `\\`, and `\xHH`
/// for every other byte.
impl fmt::Display for Delimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for &byte in self.as_bytes() {
            match byte {
                b'\r' => f.write_str("\\r")?,
                b'\n' => f.write_str("\\n")?,
                b'\t' => f.write_str("\\t")?,
                b'\0' => f.write_str("\\0")?,
                b'\\' => f.write_str("\\\\")?,
                b' '..=b'~' => f.write_char(char::from(byte))?,
                _ => write!(f, "\\x{byte:02x}")?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Delimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Delimiter({self})")
    }
}

impl PartialEq for Delimiter {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Delimiter {}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn delimiter(bytes: &[u8]) -> Delimiter {
        Delimiter::new(bytes.to_vec()).expect("a good delimiter")
    }

    fn parse(text: &str) -> Result<Delimiter, ParseProtocolError> {
        Ok(Delimiter::new(unescape(text)?)?)
    }

    #[test]
    fn one_to_256_bytes_are_accepted() {
        let empty = Delimiter::new(vec![]);
        assert_eq!(empty, Err(ProtocolError::EMPTY_DELIMITER));
        assert_eq!(delimiter(&[b'x'; 1]).as_bytes(), b"x");
        assert_eq!(delimiter(&[b'x'; 256]).as_bytes(), [b'x'; 256]);
        assert_eq!(
            Delimiter::new(vec![b'x'; 257]),
            Err(ProtocolError::long_delimiter(257))
        );
    }

    #[test]
    fn the_first_delimiter_ends_the_message_and_belongs_to_it() {
        let crlf = delimiter(b"\r\n");
        assert_eq!(
            crlf.split(b"PING\r\nPONG\r\n", 0, 64),
            Split::Message { len: 6 }
        );
        assert_eq!(
            delimiter(b"\n").split(b"a\nb\n", 0, 64),
            Split::Message { len: 2 }
        );
    }

    #[test]
    fn a_delimiter_alone_is_a_message() {
        assert_eq!(
            delimiter(b"\r\n").split(b"\r\n", 0, 64),
            Split::Message { len: 2 }
        );
    }

    #[test]
    fn an_incomplete_delimiter_ends_no_message() {
        let crlf = delimiter(b"\r\n");
        assert_eq!(
            crlf.split(b"PING\r", 0, 64),
            Split::Partial { needed: None }
        );
        assert_eq!(
            crlf.split(b"PING\n", 0, 64),
            Split::Partial { needed: None }
        );
    }

    #[test]
    fn a_delimiter_across_the_seen_bytes_is_found() {
        let end = delimiter(b"<end>");
        let bytes = b"hello<end>";
        for seen in 0..bytes.len() {
            assert_eq!(
                end.split(bytes, seen, 64),
                Split::Message { len: 10 },
                "seen {seen}"
            );
        }
    }

    #[test]
    fn seen_bytes_are_not_searched_again() {
        // Only a search that skips the first five bytes can overlook the newline in them.
        assert_eq!(
            delimiter(b"\n").split(b"ab\ncd", 5, 64),
            Split::Partial { needed: None }
        );
    }

    #[test]
    fn a_seen_count_beyond_the_bytes_counts_as_all_of_them() {
        let crlf = delimiter(b"\r\n");
        assert_eq!(crlf.split(b"PING", 1000, 64), crlf.split(b"PING", 4, 64));
        assert_eq!(
            crlf.split(b"PING\r", 1000, 6),
            Split::Partial { needed: None }
        );
        assert_eq!(crlf.split(b"PING!", 1000, 6), Split::too_long(6));
    }

    #[test]
    fn a_message_of_exactly_the_maximum_passes() {
        let crlf = delimiter(b"\r\n");
        assert_eq!(crlf.split(b"PING\r\n", 0, 6), Split::Message { len: 6 });
        assert_eq!(crlf.split(b"PING\r\n", 0, 5), Split::too_long(5));
    }

    #[test]
    fn a_message_is_refused_as_soon_as_it_must_be_too_long() {
        let crlf = delimiter(b"\r\n");
        assert_eq!(crlf.split(b"PING", 0, 6), Split::Partial { needed: None });
        assert_eq!(crlf.split(b"PING\r", 4, 6), Split::Partial { needed: None });
        assert_eq!(crlf.split(b"PING!", 4, 6), Split::too_long(6));
    }

    #[test]
    fn a_delimiter_longer_than_the_maximum_refuses_the_first_byte() {
        assert_eq!(delimiter(b"<end>").split(b"<", 0, 4), Split::too_long(4));
    }

    /// Every text of up to seven letters of `ab`, delimiters that overlap themselves, every `seen`
    /// and `max`, against the definition spelled out.
    #[test]
    fn every_short_text_splits_as_defined() {
        for pattern in ["a", "aa", "ab", "aab", "aba", "abab"] {
            let subject = delimiter(pattern.as_bytes());
            for text in texts(7) {
                for max in 1..=8 {
                    let expected = defined(&text, pattern, max);
                    let unsuccessful = text
                        .find(pattern)
                        .map_or(text.len(), |at| at + pattern.len() - 1);
                    for seen in 0..=unsuccessful {
                        let split = subject.split(text.as_bytes(), seen, max);
                        assert_eq!(
                            split, expected,
                            "{pattern} in {text}, {seen} seen, max {max}"
                        );
                    }
                }
            }
        }
    }

    fn texts(longest: u32) -> impl Iterator<Item = String> {
        (1..=longest).flat_map(|len| {
            (0..1u32 << len).map(move |bits| {
                (0..len)
                    .map(|bit| if bits >> bit & 1 == 0 { 'a' } else { 'b' })
                    .collect()
            })
        })
    }

    fn defined(text: &str, pattern: &str, max: usize) -> Split {
        match text.find(pattern).map(|at| at + pattern.len()) {
            Some(len) if len <= max => Split::Message { len },
            Some(_) => Split::too_long(max),
            None if can_still_end(text, pattern, max) => Split::Partial { needed: None },
            None => Split::too_long(max),
        }
    }

    fn can_still_end(text: &str, pattern: &str, max: usize) -> bool {
        text.len() <= max
            && (text.ends_with(pattern)
                || can_still_end(&format!("{text}a"), pattern, max)
                || can_still_end(&format!("{text}b"), pattern, max))
    }

    #[test]
    fn every_byte_survives_being_written_and_read() {
        for byte in 0..=u8::MAX {
            let one = delimiter(&[byte]);
            assert_eq!(parse(&one.to_string()), Ok(one));
        }
        let all: Vec<u8> = (0..=u8::MAX).collect();
        let all = delimiter(&all);
        assert!(all.to_string().is_ascii());
        assert_eq!(parse(&all.to_string()), Ok(all));
    }

    #[test]
    fn escapes_give_their_bytes() {
        let parsed = parse(r"a\r\n\t\0\\\x7f\xC3é").expect("a good text");
        assert_eq!(parsed.as_bytes(), b"a\r\n\t\0\\\x7f\xc3\xc3\xa9");
        assert_eq!(parsed.to_string(), r"a\r\n\t\0\\\x7f\xc3\xc3\xa9");
    }

    #[test]
    fn a_bad_escape_is_named() {
        for (text, named) in [
            (r"end\q", r"'\q'"),
            (r"end\", r"'\'"),
            (r"\x", r"'\x'"),
            (r"\x1", r"'\x1'"),
            (r"\x+1", r"'\x+1'"),
            (r"\x1é", r"'\x1é'"),
            (r"\é", r"'\é'"),
        ] {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.contains(named), "{error}");
            assert!(error.contains(r"\xHH"), "{error}");
        }
    }
}
