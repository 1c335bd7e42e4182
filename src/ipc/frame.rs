//! Frames of the inbox: a header of fixed size, then `len` bytes. Those of the outbox are
//! [records](super::record).
//!
//! Their one rule: the worker trusts them, since only a reactor writes them.

use crate::conn_id::ConnId;
use crate::event::Event;
use crate::peer::{Family, Packed, Peer};

/// The event that a frame of the inbox brings to the worker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum InputKind {
    /// An event of a connection. For a close, the reason is in the `detail` of the header.
    Event(Event),
    /// A recalled frame: the worker passes over it.
    Void,
}

impl InputKind {
    pub(crate) const fn code(self) -> u8 {
        match self {
            InputKind::Event(event) => event.code(),
            InputKind::Void => u8::MAX,
        }
    }

    pub(crate) fn from_code(code: u8) -> Option<InputKind> {
        match code {
            u8::MAX => Some(InputKind::Void),
            _ => Event::from_code(code).map(InputKind::Event),
        }
    }

    /// `None` for what is passed over.
    pub(crate) fn event(self) -> Option<Event> {
        match self {
            InputKind::Event(event) => Some(event),
            InputKind::Void => None,
        }
    }
}

impl From<Event> for InputKind {
    fn from(event: Event) -> InputKind {
        InputKind::Event(event)
    }
}

/// The header of a frame of the inbox. It has everything that a callback can ask, so that a worker
/// needs no memory of its connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Input {
    pub(crate) kind: InputKind,
    pub(crate) conn: ConnId,
    pub(crate) peer: Peer,
    /// The index of the listener that accepted it.
    pub(crate) listener: u16,
    /// How many earlier runs of its callback did not complete: the worker died, or it returned an error.
    pub(crate) attempt: u8,
    /// Of a `Close`: why, as a `CloseReason` code.
    pub(crate) detail: u8,
    /// Of a `Close`: when the reactor closes the socket by itself, in milliseconds of
    /// CLOCK_MONOTONIC; 0 is never. Of others: when the reactor takes it back if it is not begun.
    pub(crate) deadline: u64,
    /// Of a `Close`: the bytes of output that were lost with the socket. Of a message: its number on its
    /// connection, from 0, the same in every attempt.
    pub(crate) value: u64,
    /// It was submitted while an earlier frame of its connection was with the same worker.
    pub(crate) follows: bool,
    /// The user and the state of its connection are at the end of its bytes ([`Carried`](super::carried::Carried)).
    pub(crate) carries: bool,
    /// The connection's socket was closed when it was submitted.
    pub(crate) is_gone: bool,
    /// Of a `Close`: nothing moves its deadline any more.
    pub(crate) is_firm: bool,
    /// When the reactor has submitted it, in milliseconds of CLOCK_MONOTONIC: a worker serves its reactors in
    /// the order of their frames.
    pub(crate) submitted: u64,
    /// How many bytes follow.
    pub(crate) len: u32,
}

/// The bytes of an [`Input`], which begin a cache line; the body begins the next one.
pub(crate) const INPUT_HEADER: usize = 64;

/// The offset of the kind in an encoded [`Input`].
pub(crate) const KIND_AT: u64 = 4;

/// Flags of an encoded [`Input`].
const V6: u8 = 1;
const FOLLOWS: u8 = 2;
const CARRIES: u8 = 4;
const GONE: u8 = 8;
const FIRM: u8 = 16;
const UNIX: u8 = 32;

impl Input {
    pub(crate) fn encode(&self) -> [u8; INPUT_HEADER] {
        let mut bytes = [0; INPUT_HEADER];
        let peer = Packed::of(self.peer);
        let mut flags = match peer.family {
            Family::V4 => 0,
            Family::V6 => V6,
            Family::Unix => UNIX,
        };
        bytes[0..4].copy_from_slice(&self.len.to_ne_bytes());
        bytes[KIND_AT as usize] = self.kind.code();
        bytes[5] = self.attempt;
        bytes[6] = self.detail;
        flags |= if self.follows { FOLLOWS } else { 0 };
        flags |= if self.carries { CARRIES } else { 0 };
        flags |= if self.is_gone { GONE } else { 0 };
        flags |= if self.is_firm { FIRM } else { 0 };
        bytes[7] = flags;
        bytes[8..16].copy_from_slice(&self.conn.as_u64().to_ne_bytes());
        bytes[16..24].copy_from_slice(&self.deadline.to_ne_bytes());
        bytes[24..40].copy_from_slice(&peer.bytes);
        bytes[40..44].copy_from_slice(&peer.scope.to_ne_bytes());
        bytes[44..46].copy_from_slice(&peer.port.to_ne_bytes());
        bytes[46..48].copy_from_slice(&self.listener.to_ne_bytes());
        bytes[48..56].copy_from_slice(&self.value.to_ne_bytes());
        bytes[56..64].copy_from_slice(&self.submitted.to_ne_bytes());
        bytes
    }

    /// Returns when the frame with this header was submitted.
    pub(crate) fn submitted(bytes: &[u8; INPUT_HEADER]) -> u64 {
        u64::from_ne_bytes(array(bytes, 56))
    }

    /// Returns the header in `bytes`; `None` if no reactor of this version encoded them.
    pub(crate) fn decode(bytes: &[u8; INPUT_HEADER]) -> Option<Input> {
        let kind = InputKind::from_code(bytes[KIND_AT as usize])?;
        let flags = bytes[7];
        let peer = Packed {
            family: Family::of(flags & V6 != 0, flags & UNIX != 0),
            bytes: array(bytes, 24),
            port: u16::from_ne_bytes(array(bytes, 44)),
            scope: u32::from_ne_bytes(array(bytes, 40)),
        };
        Some(Input {
            kind,
            conn: ConnId::from_u64(u64::from_ne_bytes(array(bytes, 8)))?,
            peer: peer.peer(),
            listener: u16::from_ne_bytes(array(bytes, 46)),
            attempt: bytes[5],
            detail: bytes[6],
            deadline: u64::from_ne_bytes(array(bytes, 16)),
            value: u64::from_ne_bytes(array(bytes, 48)),
            follows: flags & FOLLOWS != 0,
            carries: flags & CARRIES != 0,
            is_gone: flags & GONE != 0,
            is_firm: flags & FIRM != 0,
            submitted: Input::submitted(bytes),
            len: u32::from_ne_bytes(array(bytes, 0)),
        })
    }
}

pub(super) fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    *bytes[at..]
        .first_chunk()
        .expect("every field lies within the header")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU32;

    fn conn() -> ConnId {
        ConnId::new(1, 2, NonZeroU32::new(3).unwrap())
    }

    #[test]
    fn no_event_has_the_code_of_a_void_frame() {
        assert_eq!(Event::from_code(InputKind::Void.code()), None);
        for kind in [InputKind::Void, Event::Resumed.into()] {
            assert_eq!(InputKind::from_code(kind.code()), Some(kind));
        }
    }

    #[test]
    fn an_input_survives_its_encoding() {
        for peer in crate::peer::samples() {
            let input = Input {
                kind: Event::Close.into(),
                conn: conn(),
                peer,
                listener: 513,
                attempt: 2,
                detail: 7,
                deadline: u64::MAX - 1,
                value: u64::MAX - 2,
                follows: true,
                carries: true,
                is_gone: true,
                is_firm: true,
                submitted: u64::MAX - 3,
                len: 70_000,
            };
            assert_eq!(Input::decode(&input.encode()), Some(input), "{peer}");
            assert_eq!(input.encode()[KIND_AT as usize], input.kind.code());
        }
    }
}
