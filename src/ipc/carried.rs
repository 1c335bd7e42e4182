//! What a frame carries of its connection, behind the message: the connection's user, its state, the names of its
//! groups, and its origin.
//!
//! A frame that follows another one of the same connection carries nothing: what the callbacks before it have set
//! is in the worker already.

use super::frame::array;
use crate::config::{MOST_GROUPS, MOST_NAME, MOST_ORIGIN};

/// The user of a connection, its state, its groups and its origin, at the time at which a frame was submitted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Carried<'a> {
    pub(crate) user: Option<u64>,
    pub(crate) state: &'a [u8],
    /// In the form of [`Names`](crate::handler::Names).
    pub(crate) groups: &'a [u8],
    /// In the form of [`Origin`](crate::handler::Origin).
    pub(crate) origin: &'a [u8],
}

/// The bytes behind the state, the groups and the origin: their lengths, whether there is a user, and the user.
const TAIL: usize = 24;

// The lengths of the groups and of the origin take two bytes.
const _: () = assert!(MOST_GROUPS * (1 + MOST_NAME) <= u16::MAX as usize);
const _: () = assert!(MOST_ORIGIN <= u16::MAX as usize);

impl<'a> Carried<'a> {
    /// Returns how many bytes of a frame it takes; none if there is nothing to carry.
    pub(crate) fn len(self) -> usize {
        match (self.user, self.state, self.groups, self.origin) {
            (None, [], [], []) => 0,
            (_, state, groups, origin) => state.len() + groups.len() + origin.len() + TAIL,
        }
    }

    /// Returns the bytes behind the others.
    pub(crate) fn tail(self) -> [u8; TAIL] {
        let mut tail = [0; TAIL];
        tail[0..4].copy_from_slice(&(self.state.len() as u32).to_ne_bytes());
        tail[4] = u8::from(self.user.is_some());
        tail[6..8].copy_from_slice(&(self.groups.len() as u16).to_ne_bytes());
        tail[8..16].copy_from_slice(&self.user.unwrap_or(0).to_ne_bytes());
        tail[16..18].copy_from_slice(&(self.origin.len() as u16).to_ne_bytes());
        tail
    }

    /// Splits the bytes of a frame that carries something into the message and that; `None` if no reactor has
    /// written them.
    pub(crate) fn split(bytes: &'a [u8]) -> Option<(&'a [u8], Carried<'a>)> {
        let (rest, tail) = bytes.split_last_chunk::<TAIL>()?;
        let len = u32::from_ne_bytes(array(tail, 0)) as usize;
        let groups = usize::from(u16::from_ne_bytes(array(tail, 6)));
        let origin = usize::from(u16::from_ne_bytes(array(tail, 16)));
        let (rest, origin) = rest.split_at_checked(rest.len().checked_sub(origin)?)?;
        let (rest, groups) = rest.split_at_checked(rest.len().checked_sub(groups)?)?;
        let (message, state) = rest.split_at_checked(rest.len().checked_sub(len)?)?;
        let user = (tail[4] != 0).then(|| u64::from_ne_bytes(array(tail, 8)));
        let carried = Carried {
            user,
            state,
            groups,
            origin,
        };
        Some((message, carried))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_frame_carries_is_split_from_its_message() {
        for (user, state, groups, origin) in [
            (None, &b"state"[..], &b""[..], &b""[..]),
            (Some(0), b"", b"", b""),
            (None, b"", &[2; MOST_GROUPS * (1 + MOST_NAME)], b""),
            (None, b"", b"", &[3; MOST_ORIGIN]),
            (Some(u64::MAX), b"another", b"\x03one", b"origin"),
        ] {
            let carried = Carried {
                user,
                state,
                groups,
                origin,
            };
            let mut bytes = b"message".to_vec();
            bytes.extend_from_slice(state);
            bytes.extend_from_slice(groups);
            bytes.extend_from_slice(origin);
            bytes.extend_from_slice(&carried.tail());
            assert_eq!(bytes.len(), 7 + carried.len());
            assert_eq!(Carried::split(&bytes), Some((&b"message"[..], carried)));
        }
        assert_eq!(Carried::default().len(), 0);
    }

    #[test]
    fn bytes_that_no_reactor_has_written_are_not_split() {
        assert_eq!(Carried::split(&[0; TAIL - 1]), None);
        for (state, groups, origin) in [
            (&b"state"[..], &b""[..], &b""[..]),
            (b"", b"group", b""),
            (b"", b"", b"origin"),
        ] {
            let carried = Carried {
                user: None,
                state,
                groups,
                origin,
            };
            let tail = carried.tail();
            assert_eq!(Carried::split(&tail), None, "they are longer than all");
        }
    }
}
