//! Messages with an end that a function of the user finds.
//!
//! Its one rule: the function's result is checked before it is used. It runs in the process that owns the
//! sockets, on bytes that the peer chose.

use crate::limited::{Topic, limited};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::{Refusal, Split};

/// A function that finds the end of a message.
type Find = dyn Fn(&[u8], &mut Search) -> Found + Send + Sync;

/// The function given to [`Protocol::function`](crate::Protocol::function).
#[derive(Clone)]
pub(super) struct Function(Arc<Find>);

/// How far the search for the end of a message is: for the function given to
/// [`Protocol::function`](crate::Protocol::function).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Search {
    pub(super) seen: usize,
    /// A number of the function's own, kept for the connection from call to call: where the next part of the message
    /// begins, for example, so that a long message in many parts is not walked from its first byte each time. It is 0
    /// when [`seen`](Self::seen) is 0: at the beginning of a message, and when one is searched anew.
    pub cursor: u64,
}

impl Search {
    pub(crate) fn new(seen: usize, cursor: u64) -> Search {
        Search { seen, cursor }
    }

    /// Returns how many of the first bytes an earlier call has searched without finding a whole message.
    pub fn seen(&self) -> usize {
        self.seen
    }
}

/// The result of the function given to [`Protocol::function`](crate::Protocol::function).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Found {
    /// A message of this length in bytes, framing included, even if not all of them have come yet. 0 is a
    /// refusal.
    Message(usize),
    /// A message of a length that is not known before more bytes have come.
    More,
    /// The bytes can't begin a message. The connection is closed.
    Refused,
}

impl Function {
    pub(super) fn new(
        find: impl Fn(&[u8], &mut Search) -> Found + Send + Sync + 'static,
    ) -> Function {
        Function(Arc::new(find))
    }

    /// Finds the first message in `bytes`, which is not empty.
    pub(super) fn split(&self, bytes: &[u8], search: &mut Search, max: usize) -> Split {
        match catch_unwind(AssertUnwindSafe(|| (self.0)(bytes, search))) {
            Ok(Found::Message(0) | Found::Refused) => Split::Refused(Refusal::ByFunction),
            Ok(Found::Message(len)) => Split::announced(len as u64, bytes.len(), max),
            Ok(Found::More) if bytes.len() >= max => Split::too_long(max),
            Ok(Found::More) => Split::Partial { needed: None },
            Err(_) => {
                limited!(
                    error,
                    Topic::Function,
                    "the protocol function panicked: the connection is closed"
                );
                Split::Refused(Refusal::ByFunction)
            }
        }
    }
}

/// Whether both are clones of one function.
impl PartialEq for Function {
    fn eq(&self, other: &Function) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Function {}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Function")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 64;

    #[track_caller]
    fn split(bytes: &[u8], found: Found) -> Split {
        Function::new(move |_, _| found).split(bytes, &mut Search::default(), MAX)
    }

    #[test]
    fn a_length_may_be_returned_before_the_message_is_complete() {
        assert_eq!(split(b"abc", Found::Message(2)), Split::Message { len: 2 });
        assert_eq!(
            split(b"abc", Found::Message(4)),
            Split::Partial { needed: Some(4) }
        );
    }

    #[test]
    fn an_invalid_result_is_a_refusal() {
        for found in [
            Found::Message(0),
            Found::Message(MAX + 1),
            Found::Message(usize::MAX),
            Found::Refused,
        ] {
            assert!(
                matches!(split(b"abc", found), Split::Refused(_)),
                "{found:?}"
            );
        }
    }

    #[test]
    fn no_reader_waits_for_more_than_the_maximum() {
        assert_eq!(
            split(&[0; MAX - 1], Found::More),
            Split::Partial { needed: None }
        );
        assert!(matches!(split(&[0; MAX], Found::More), Split::Refused(_)));
    }

    #[test]
    fn a_panic_is_a_refusal() {
        let function = Function::new(|bytes, _| Found::Message(usize::from(bytes[7])));
        assert_eq!(
            function.split(b"abc", &mut Search::default(), MAX),
            Split::Refused(Refusal::ByFunction)
        );
    }
}
