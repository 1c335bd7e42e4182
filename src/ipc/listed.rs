//! A connection in the page of an answer, as words.
//!
//! Its one rule: the worker trusts it, since only a reactor writes it.

use std::time::Duration;

use super::answer::ENTRY;
use crate::config::ListenerId;
use crate::conn_id::ConnId;
use crate::handler::ConnInfo;
use crate::peer::{Family, Packed};

/// Flags.
const V6: u64 = 1;
const HAS_USER: u64 = 2;
const UNIX: u64 = 4;

pub(crate) fn encode(info: &ConnInfo) -> [u64; ENTRY] {
    let peer = Packed::of(info.peer);
    let family = match peer.family {
        Family::V4 => 0,
        Family::V6 => V6,
        Family::Unix => UNIX,
    };
    let bits = u128::from_be_bytes(peer.bytes);
    let user = info.user.map_or(0, |_| HAS_USER);
    [
        info.id.as_u64(),
        (bits >> 64) as u64,
        bits as u64,
        u64::from(peer.port) | u64::from(info.listener.0) << 16 | u64::from(peer.scope) << 32,
        family | user,
        info.user.unwrap_or(0),
        info.age.as_millis() as u64,
        info.unsent as u64,
    ]
}

pub(crate) fn decode(words: [u64; ENTRY]) -> Option<ConnInfo> {
    let [id, high, low, more, flags, user, age, unsent] = words;
    let peer = Packed {
        family: Family::of(flags & V6 != 0, flags & UNIX != 0),
        bytes: (u128::from(high) << 64 | u128::from(low)).to_be_bytes(),
        port: more as u16,
        scope: (more >> 32) as u32,
    };
    Some(ConnInfo {
        id: ConnId::from_u64(id)?,
        peer: peer.peer(),
        listener: ListenerId((more >> 16) as u16),
        user: (flags & HAS_USER != 0).then_some(user),
        age: Duration::from_millis(age),
        unsent: unsent as usize,
    })
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    #[test]
    fn a_connection_survives_its_encoding() {
        let users = [None, Some(0), Some(u64::MAX)].into_iter().cycle();
        for (peer, user) in crate::peer::samples().into_iter().zip(users) {
            let info = ConnInfo {
                id: ConnId::new(3, 70_000, NonZeroU32::MAX),
                peer,
                listener: ListenerId(1023),
                user,
                age: Duration::from_millis(123_456),
                unsent: 1 << 40,
            };
            assert_eq!(decode(encode(&info)), Some(info), "{peer}");
        }
        assert_eq!(decode([0; ENTRY]), None);
    }
}
