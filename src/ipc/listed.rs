//! A connection in the page of an answer, as words.
//!
//! Its one rule: the worker trusts it, since only a reactor writes it.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use super::answer::ENTRY;
use crate::config::ListenerId;
use crate::conn_id::ConnId;
use crate::handler::ConnInfo;
use crate::peer::Peer;

/// Flags.
const V6: u64 = 1;
const HAS_USER: u64 = 2;

pub(crate) fn encode(info: &ConnInfo) -> [u64; ENTRY] {
    let (v6, ip, scope, port) = match info.peer {
        Peer::Ip(SocketAddr::V4(v4)) => (0, v4.ip().to_ipv6_mapped(), 0, v4.port()),
        Peer::Ip(SocketAddr::V6(v6)) => (V6, *v6.ip(), v6.scope_id(), v6.port()),
    };
    let ip = ip.to_bits();
    let user = info.user.map_or(0, |_| HAS_USER);
    [
        info.id.as_u64(),
        (ip >> 64) as u64,
        ip as u64,
        u64::from(port) | u64::from(info.listener.0) << 16 | u64::from(scope) << 32,
        v6 | user,
        info.user.unwrap_or(0),
        info.age.as_millis() as u64,
        info.unsent as u64,
    ]
}

pub(crate) fn decode(words: [u64; ENTRY]) -> Option<ConnInfo> {
    let [id, high, low, more, flags, user, age, unsent] = words;
    let ip = Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low));
    let port = more as u16;
    let peer = match (flags & V6 != 0, ip.to_ipv4_mapped()) {
        (true, _) | (_, None) => SocketAddrV6::new(ip, port, 0, (more >> 32) as u32).into(),
        (false, Some(v4)) => SocketAddr::new(IpAddr::V4(v4), port),
    };
    Some(ConnInfo {
        id: ConnId::from_u64(id)?,
        peer: Peer::Ip(peer),
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
        let peers = [
            "127.0.0.1:80",
            "[::1]:65535",
            "[::ffff:1.2.3.4]:9",
            "[fe80::1%3]:1",
        ];
        for (peer, user) in peers.into_iter().zip([None, Some(0), Some(u64::MAX), None]) {
            let info = ConnInfo {
                id: ConnId::new(3, 70_000, NonZeroU32::MAX),
                peer: Peer::Ip(peer.parse().unwrap()),
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
