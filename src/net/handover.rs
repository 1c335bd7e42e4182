//! A connection that goes from one base mode worker to another, as the record that goes with its descriptor.
//!
//! Written and read in base mode workers, and written in the manager for clients that no worker has accepted.
//! Its one rule: no state but this goes along, so that a connection moves only while nothing else is due to it.

use crate::config::{ListenerId, MOST_GROUPS, MOST_NAME, MOST_REPLY, MOST_STATE};
use crate::conn_id::ConnId;
use crate::peer::{Family, Packed, Peer};

/// The most bytes of an incomplete message that go along. The kernel holds a record in memory of the sender's.
pub(crate) const MOST_PARTIAL: usize = 64 << 10;

/// The most bytes of a record.
pub(crate) const MOST_BYTES: usize =
    HEADER + MOST_STATE + MOST_NAMES + MOST_TIMERS * TIMER + MOST_REPLY + MOST_PARTIAL;

/// The most bytes of the names of its groups.
const MOST_NAMES: usize = MOST_GROUPS * (1 + MOST_NAME);

/// The most timers that go along.
pub(crate) const MOST_TIMERS: usize = 1024;

/// The bytes of a timer.
const TIMER: usize = 16;

/// The bytes before the state, the groups, the timers, the reply and the incomplete message.
const HEADER: usize = 105;

/// A connection without its socket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Handover {
    /// The id by which callbacks know it; `None` for a client that no worker knows yet.
    pub(crate) public: Option<ConnId>,
    pub(crate) peer: Peer,
    pub(crate) listener: ListenerId,
    /// The peer has sent bytes.
    pub(crate) has_begun: bool,
    /// A callback has asked not to read from it.
    pub(crate) is_held: bool,
    /// Either side has said something.
    pub(crate) has_spoken: bool,
    /// A process that was forked in a callback may have a copy of the socket.
    pub(crate) is_copied: bool,
    /// The bytes that the kernel has taken since the start.
    pub(crate) written: u64,
    /// The times since the signs of life in [`Pulse`](super::pulse::Pulse), in milliseconds.
    pub(crate) ages: Ages,
    /// The number of its messages so far.
    pub(crate) messages: u64,
    pub(crate) user: Option<u64>,
    pub(crate) state: Box<[u8]>,
    /// The names of its groups, in the form of [`Names`](crate::handler::Names).
    pub(crate) groups: Box<[u8]>,
    /// Its timers: their tags, and the times that are left, in milliseconds.
    pub(crate) timers: Vec<(u64, u64)>,
    /// Its answer comes from a later callback: the time that is left, in milliseconds, and the reply.
    pub(crate) promise: Option<(u64, Box<[u8]>)>,
    /// The bytes of an incomplete message.
    pub(crate) partial: Vec<u8>,
}

/// How long ago the peer was heard, output was made, and the incomplete message began.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Ages {
    pub(crate) heard: u64,
    pub(crate) sent: u64,
    pub(crate) message: u64,
}

const BEGUN: u8 = 1;
const SPOKEN: u8 = 2;
const COPIED: u8 = 4;
const V6: u8 = 8;
const USER: u8 = 16;
const HELD: u8 = 32;
const PROMISED: u8 = 64;
const UNIX: u8 = 128;

impl Handover {
    /// A client that was just accepted.
    pub(crate) fn of_new(peer: Peer, listener: ListenerId) -> Handover {
        Handover {
            public: None,
            peer,
            listener,
            has_begun: false,
            is_held: false,
            has_spoken: false,
            is_copied: false,
            written: 0,
            ages: Ages::default(),
            messages: 0,
            user: None,
            state: Box::default(),
            groups: Box::default(),
            timers: Vec::new(),
            promise: None,
            partial: Vec::new(),
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let peer = Packed::of(self.peer);
        let mut flags = 0;
        for (flag, is_set) in [
            (BEGUN, self.has_begun),
            (SPOKEN, self.has_spoken),
            (COPIED, self.is_copied),
            (V6, peer.family == Family::V6),
            (UNIX, peer.family == Family::Unix),
            (USER, self.user.is_some()),
            (HELD, self.is_held),
            (PROMISED, self.promise.is_some()),
        ] {
            flags |= if is_set { flag } else { 0 };
        }
        let mut bytes = Vec::with_capacity(HEADER + self.state.len() + self.partial.len());
        bytes.push(flags);
        bytes.extend_from_slice(&self.listener.0.to_ne_bytes());
        bytes.extend_from_slice(&peer.port.to_ne_bytes());
        bytes.extend_from_slice(&peer.bytes);
        bytes.extend_from_slice(&peer.scope.to_ne_bytes());
        let public = self.public.map_or(0, ConnId::as_u64);
        let Ages {
            heard,
            sent,
            message,
        } = self.ages;
        let user = self.user.unwrap_or(0);
        let promise = self.promise.as_ref();
        let (left, reply) = promise.map_or((0, &[][..]), |(left, reply)| (*left, reply));
        for number in [
            public,
            self.written,
            heard,
            sent,
            message,
            self.messages,
            user,
            left,
        ] {
            bytes.extend_from_slice(&number.to_ne_bytes());
        }
        bytes.extend_from_slice(&(self.state.len() as u32).to_ne_bytes());
        bytes.extend_from_slice(&(self.groups.len() as u32).to_ne_bytes());
        bytes.extend_from_slice(&(self.timers.len() as u32).to_ne_bytes());
        bytes.extend_from_slice(&(reply.len() as u32).to_ne_bytes());
        debug_assert_eq!(bytes.len(), HEADER);
        bytes.extend_from_slice(&self.state);
        bytes.extend_from_slice(&self.groups);
        for (tag, left) in &self.timers {
            bytes.extend_from_slice(&tag.to_ne_bytes());
            bytes.extend_from_slice(&left.to_ne_bytes());
        }
        bytes.extend_from_slice(reply);
        bytes.extend_from_slice(&self.partial);
        bytes
    }

    /// Reads a record of another process; `None` if it is none.
    pub(crate) fn decode(mut bytes: &[u8]) -> Option<Handover> {
        if bytes.len() > MOST_BYTES {
            return None;
        }
        let rest = &mut bytes;
        let [flags] = take(rest)?;
        let listener = ListenerId(u16::from_ne_bytes(take(rest)?));
        let peer = Packed {
            family: Family::of(flags & V6 != 0, flags & UNIX != 0),
            port: u16::from_ne_bytes(take(rest)?),
            bytes: take(rest)?,
            scope: u32::from_ne_bytes(take(rest)?),
        };
        let mut numbers = [0; 8];
        for number in &mut numbers {
            *number = u64::from_ne_bytes(take(rest)?);
        }
        let [public, written, heard, sent, message, messages, user, left] = numbers;
        let state = u32::from_ne_bytes(take(rest)?) as usize;
        let groups = u32::from_ne_bytes(take(rest)?) as usize;
        let timers = u32::from_ne_bytes(take(rest)?) as usize;
        let reply = u32::from_ne_bytes(take(rest)?) as usize;
        let (state, rest) = bytes.split_at_checked(state)?;
        let (groups, rest) = rest.split_at_checked(groups)?;
        let (timers, rest) = rest.split_at_checked(timers.checked_mul(TIMER)?)?;
        let (reply, partial) = rest.split_at_checked(reply)?;
        let timer = |mut bytes: &[u8]| {
            let tag = u64::from_ne_bytes(take(&mut bytes)?);
            Some((tag, u64::from_ne_bytes(take(&mut bytes)?)))
        };
        Some(Handover {
            public: ConnId::from_u64(public),
            peer: peer.peer(),
            listener,
            has_begun: flags & BEGUN != 0,
            is_held: flags & HELD != 0,
            has_spoken: flags & SPOKEN != 0,
            is_copied: flags & COPIED != 0,
            written,
            ages: Ages {
                heard,
                sent,
                message,
            },
            messages,
            user: (flags & USER != 0).then_some(user),
            state: state.into(),
            groups: groups.into(),
            timers: timers
                .chunks_exact(TIMER)
                .map(timer)
                .collect::<Option<_>>()?,
            promise: (flags & PROMISED != 0).then(|| (left, reply.into())),
            partial: partial.to_vec(),
        })
    }
}

/// Takes the next `N` bytes.
fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_survives_a_round_trip_through_bytes() {
        let new = Handover::of_new(Peer::Ip(([10, 0, 0, 7], 7000).into()), ListenerId(3));
        let old = Handover {
            public: ConnId::from_u64(5 << 32 | 9),
            peer: Peer::Ip("[fe80::1%7]:443".parse().unwrap()),
            has_begun: true,
            is_held: true,
            has_spoken: true,
            is_copied: true,
            written: u64::MAX,
            ages: Ages {
                heard: 1,
                sent: 2,
                message: 3,
            },
            messages: 8,
            user: Some(0),
            state: vec![6; MOST_STATE].into(),
            groups: vec![5; MOST_NAMES].into(),
            timers: vec![(1, u64::MAX); MOST_TIMERS],
            promise: Some((9, vec![5; MOST_REPLY].into())),
            partial: vec![7; MOST_PARTIAL],
            ..new.clone()
        };
        let others = crate::peer::samples().into_iter().map(|peer| Handover {
            peer,
            ..old.clone()
        });
        for handover in [new, old.clone()].into_iter().chain(others) {
            let bytes = handover.encode();
            assert!(bytes.len() <= MOST_BYTES);
            assert_eq!(Handover::decode(&bytes), Some(handover));
        }
    }

    #[test]
    fn other_bytes_are_no_record() {
        let new = Handover::of_new(Peer::Ip(([10, 0, 0, 7], 7000).into()), ListenerId(3));
        let bytes = new.encode();
        for len in 0..HEADER {
            assert_eq!(Handover::decode(&bytes[..len]), None);
        }
        assert_eq!(Handover::decode(&vec![0; MOST_BYTES + 1]), None);
        let mut numbers = [0xff; HEADER];
        assert_eq!(
            Handover::decode(&numbers),
            None,
            "the state is longer than the record"
        );
        numbers[HEADER - 16..].fill(0);
        assert!(Handover::decode(&numbers).is_some(), "any numbers");
    }
}
