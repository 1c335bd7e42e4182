//! The id of a connection, valid in every process of the server.

use std::fmt;
use std::num::NonZeroU32;

/// The id of one connection. Descriptors and places in a table are reused, ids are not, for as long as the
/// server runs: bytes sent to a connection that is gone reach no other one.
///
/// It is printed as `OWNER:PLACE:GENERATION`, in log lines too: `0:3:17`, for example.
///
/// - The owner is the reactor that has the connection, from 0; in base mode the slot of the worker process that
///   accepted it, which need not be the worker's seat.
/// - The place is an entry in the table of the owner, from 0, and is used again when the connection is gone.
/// - The generation counts the connections of the owner, from 1, so that no two ids are the same.
///
/// It does not name the worker that runs the callbacks: that can change.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId {
    index: u32,
    generation: NonZeroU32,
}

/// The bits of an index for the place in the table; the rest is the owner.
const KEY_BITS: u32 = 22;

/// The most connections that one reactor, or one worker in base mode, can own. Places from here on are those of
/// mailboxes.
pub(crate) const MAX_KEYS: u32 = 1 << (KEY_BITS - 1);

/// The most reactors, or workers in base mode. One less than the bits allow: the last owner's ids are
/// tokens of descriptors that are not connections.
pub(crate) const MAX_OWNERS: u32 = (1 << (32 - KEY_BITS)) - 1;

/// The first token that is not a connection.
pub(crate) const FIRST_TOKEN: u64 = (MAX_OWNERS as u64) << (KEY_BITS + 32);

impl ConnId {
    pub(crate) fn new(owner: u16, key: u32, generation: NonZeroU32) -> ConnId {
        debug_assert!(u32::from(owner) < MAX_OWNERS && key < 1 << KEY_BITS);
        ConnId {
            index: u32::from(owner) << KEY_BITS | key,
            generation,
        }
    }

    /// Returns the connection of an epoll token; `None` for other descriptors' tokens.
    pub(crate) fn from_token(token: u64) -> Option<ConnId> {
        if token < FIRST_TOKEN {
            ConnId::from_u64(token)
        } else {
            None
        }
    }

    /// Returns the reactor, or in base mode the worker, that owns the connection.
    pub(crate) fn owner(self) -> u16 {
        (self.index >> KEY_BITS) as u16
    }

    pub(crate) fn key(self) -> usize {
        (self.index & ((1 << KEY_BITS) - 1)) as usize
    }

    /// Whether it is the id of a mailbox. No callback sees such an id.
    pub(crate) fn is_mailbox(self) -> bool {
        self.key() >= MAX_KEYS as usize
    }

    pub(crate) fn generation(self) -> u32 {
        self.generation.get()
    }

    /// Returns the id as one number, to store it or to pass it to other languages.
    pub fn as_u64(self) -> u64 {
        u64::from(self.index) << 32 | u64::from(self.generation.get())
    }

    /// Returns the id for a number from [`as_u64`](Self::as_u64); `None` for a number that is never an id.
    pub fn from_u64(id: u64) -> Option<ConnId> {
        Some(ConnId {
            index: (id >> 32) as u32,
            generation: NonZeroU32::new(id as u32)?,
        })
    }
}

impl fmt::Display for ConnId {
    /// `OWNER:PLACE:GENERATION`, as the type's documentation explains.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.owner(), self.key(), self.generation)
    }
}

impl fmt::Debug for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnId({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_a_round_trip_through_a_number() {
        let id = ConnId::new(3, 77, NonZeroU32::new(9).unwrap());
        assert_eq!(ConnId::from_u64(id.as_u64()), Some(id));
        assert_eq!((id.owner(), id.key()), (3, 77));
    }

    #[test]
    fn no_connection_has_the_token_of_another_descriptor() {
        let last = ConnId::new((MAX_OWNERS - 1) as u16, MAX_KEYS - 1, NonZeroU32::MAX);
        assert_eq!(ConnId::from_token(last.as_u64()), Some(last));
        assert_eq!(ConnId::from_token(FIRST_TOKEN), None);
    }

    #[test]
    fn zero_is_not_an_id() {
        assert_eq!(ConnId::from_u64(0), None);
        assert_eq!(ConnId::from_u64(5 << 32), None);
    }
}
