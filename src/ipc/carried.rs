//! What a frame carries of its connection, behind the message: the connection's user, its state and the names of its
//! groups.
//!
//! A frame that follows another one of the same connection carries nothing: what the callbacks before it have set
//! is in the worker already.

use super::frame::array;
use crate::config::{MOST_GROUPS, MOST_NAME};

/// The user of a connection, its state and its groups, at the time at which a frame was submitted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Carried<'a> {
    pub(crate) user: Option<u64>,
    pub(crate) state: &'a [u8],
    /// In the form of [`Names`](crate::handler::Names).
    pub(crate) groups: &'a [u8],
}

/// The bytes behind the state and the groups: their lengths, whether there is a user, and the user.
const TAIL: usize = 16;

// The length of the groups takes two bytes.
const _: () = assert!(MOST_GROUPS * (1 + MOST_NAME) <= u16::MAX as usize);

impl<'a> Carried<'a> {
    /// Returns how many bytes of a frame it takes; none if there is nothing to carry.
    pub(crate) fn len(self) -> usize {
        match (self.user, self.state, self.groups) {
            (None, [], []) => 0,
            (_, state, groups) => state.len() + groups.len() + TAIL,
        }
    }

    /// Returns the bytes behind the state and the groups.
    pub(crate) fn tail(self) -> [u8; TAIL] {
        let mut tail = [0; TAIL];
        tail[0..4].copy_from_slice(&(self.state.len() as u32).to_ne_bytes());
        tail[4] = u8::from(self.user.is_some());
        tail[6..8].copy_from_slice(&(self.groups.len() as u16).to_ne_bytes());
        tail[8..16].copy_from_slice(&self.user.unwrap_or(0).to_ne_bytes());
        tail
    }

    /// Splits the bytes of a frame that carries something into the message and that; `None` if no reactor has
    /// written them.
    pub(crate) fn split(bytes: &'a [u8]) -> Option<(&'a [u8], Carried<'a>)> {
        let (rest, tail) = bytes.split_last_chunk::<TAIL>()?;
        let len = u32::from_ne_bytes(array(tail, 0)) as usize;
        let groups = usize::from(u16::from_ne_bytes(array(tail, 6)));
        let (rest, groups) = rest.split_at_checked(rest.len().checked_sub(groups)?)?;
        let (message, state) = rest.split_at_checked(rest.len().checked_sub(len)?)?;
        let user = (tail[4] != 0).then(|| u64::from_ne_bytes(array(tail, 8)));
        let carried = Carried {
            user,
            state,
            groups,
        };
        Some((message, carried))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_frame_carries_is_split_from_its_message() {
        for (user, state, groups) in [
            (None, &b"state"[..], &b""[..]),
            (Some(0), b"", b""),
            (None, b"", &[2; MOST_GROUPS * (1 + MOST_NAME)]),
            (Some(u64::MAX), b"another", b"\x03one"),
        ] {
            let carried = Carried {
                user,
                state,
                groups,
            };
            let mut bytes = b"message".to_vec();
            bytes.extend_from_slice(state);
            bytes.extend_from_slice(groups);
            bytes.extend_from_slice(&carried.tail());
            assert_eq!(bytes.len(), 7 + carried.len());
            assert_eq!(Carried::split(&bytes), Some((&b"message"[..], carried)));
        }
        assert_eq!(Carried::default().len(), 0);
    }

    #[test]
    fn bytes_that_no_reactor_has_written_are_not_split() {
        assert_eq!(Carried::split(&[0; 15]), None);
        for (state, groups) in [(&b"state"[..], &b""[..]), (b"", b"group")] {
            let carried = Carried {
                user: None,
                state,
                groups,
            };
            let tail = carried.tail();
            assert_eq!(Carried::split(&tail), None, "they are longer than all");
        }
    }
}
