//! Messages whose end a function of the user's finds.
//!
//! The one rule: what the function says is looked at before it is believed. It stands between the
//! peer's bytes and everything else that the process does.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::{Refusal, Split};

/// Finds where messages end.
type Find = dyn Fn(&[u8], usize) -> Found + Send + Sync;

/// A function that finds where a message ends.
///
/// It is called where the socket is read: in process mode in the master, by any of its reactors, in
/// base mode in the worker. It should be quick and must not block. A panic refuses the connection
/// and is logged; a crash ends the process that it runs in, which in process mode is the one that
/// owns every socket. Wherever a [`Delimiter`](crate::Delimiter) or a
/// [`LengthPrefix`](crate::LengthPrefix) says the same, it is the safer choice.
///
/// ```
/// use tine::{Found, Framing, Listener, Protocol};
///
/// // The first byte says how many follow, in units of four: 0 stands for nothing behind it.
/// let words = Framing::new(|bytes, _seen| Found::Message(1 + 4 * usize::from(bytes[0])));
/// let listener = Listener::tcp("127.0.0.1:9501").protocol(Protocol::Function(words));
/// ```
#[derive(Clone)]
pub struct Framing(Arc<Find>);

/// What the bytes that a connection has sent begin with, as a [`Framing`] function finds it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// A message of so many bytes, framing included, of which not all need be there yet. A message
    /// without bytes is refused.
    Message(usize),
    /// A message whose length can't be told before more has come.
    More,
    /// Nothing that can become a message, whatever follows. The connection is closed.
    Refused,
}

impl Framing {
    /// `find(bytes, seen)` looks at what a connection has sent and was not a message's yet, one
    /// byte or more: all that is there, so that bytes of the next message may follow. At the first
    /// `seen` of them it has looked before, without a whole message being there: it need not search
    /// them again.
    pub fn new(find: impl Fn(&[u8], usize) -> Found + Send + Sync + 'static) -> Framing {
        Framing(Arc::new(find))
    }

    /// `bytes` is not empty.
    pub(super) fn split(&self, bytes: &[u8], seen: usize, max: usize) -> Split {
        let too_long = |announced| Split::Refused(Refusal::TooLong { announced, max });
        match catch_unwind(AssertUnwindSafe(|| (self.0)(bytes, seen))) {
            Ok(Found::Message(0) | Found::Refused) => Split::Refused(Refusal::ByFunction),
            Ok(Found::Message(len)) if len > max => too_long(Some(len as u64)),
            Ok(Found::Message(len)) if len > bytes.len() => Split::Partial { needed: Some(len) },
            Ok(Found::Message(len)) => Split::Message { len },
            Ok(Found::More) if bytes.len() >= max => too_long(None),
            Ok(Found::More) => Split::Partial { needed: None },
            Err(_) => {
                log::error!("the function that finds messages has panicked: its connection ends");
                Split::Refused(Refusal::ByFunction)
            }
        }
    }
}

/// The same function; two that were made apart are never equal.
impl PartialEq for Framing {
    fn eq(&self, other: &Framing) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Framing {}

impl fmt::Debug for Framing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Framing")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 64;

    #[track_caller]
    fn split(bytes: &[u8], found: Found) -> Split {
        Framing::new(move |_, _| found).split(bytes, 0, MAX)
    }

    #[test]
    fn a_length_may_be_told_before_all_is_there() {
        assert_eq!(split(b"abc", Found::Message(2)), Split::Message { len: 2 });
        assert_eq!(
            split(b"abc", Found::Message(4)),
            Split::Partial { needed: Some(4) }
        );
    }

    #[test]
    fn what_can_not_be_believed_is_refused() {
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
    fn nobody_waits_for_more_than_is_allowed() {
        assert_eq!(
            split(&[0; MAX - 1], Found::More),
            Split::Partial { needed: None }
        );
        assert!(matches!(split(&[0; MAX], Found::More), Split::Refused(_)));
    }

    #[test]
    fn a_panic_is_a_refusal() {
        let framing = Framing::new(|bytes, _| Found::Message(usize::from(bytes[7])));
        assert_eq!(
            framing.split(b"abc", 0, MAX),
            Split::Refused(Refusal::ByFunction)
        );
    }
}
