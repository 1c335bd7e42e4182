//! The peer, the client at the other end of a connection. Used in every process of the server.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::str::FromStr;

use crate::sys::address::Remote;

/// The client at the other end of a connection.
///
/// Its text is the client's address, `203.0.113.7:51234` or `[2001:db8::1]:51234`, or for a client of a unix socket
/// its credentials: `unix:pid=4711,uid=1000,gid=1000`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Peer {
    /// A TCP client, by address and port. A client of IPv4 has its IPv4 address, also at a listener that takes both.
    Ip(SocketAddr),
    /// A client of a unix socket, by the credentials of its process.
    Unix(Credentials),
}

/// The process that has connected to a unix socket, as it was at that moment: SO_PEERCRED, unix(7). The kernel vouches
/// for it. The process may have ended since, may have passed the socket to others, and its pid may be that of another
/// process by now.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub struct Credentials {
    /// Its process; 0 for one that the server's namespace of pids does not have.
    pub pid: u32,
    /// Its effective user.
    pub uid: u32,
    /// Its effective group.
    pub gid: u32,
}

impl Credentials {
    /// Returns credentials, for tests of handlers.
    pub const fn new(pid: u32, uid: u32, gid: u32) -> Credentials {
        Credentials { pid, uid, gid }
    }
}

impl Peer {
    /// Returns the client's IP address; `None` for a client that has none.
    pub fn ip(&self) -> Option<IpAddr> {
        self.socket_addr().map(|address| address.ip())
    }

    /// Returns the client's IP address and port; `None` for a client that has none.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        match self {
            Peer::Ip(address) => Some(*address),
            Peer::Unix(_) => None,
        }
    }

    /// Returns the credentials of a client of a unix socket; `None` for another client.
    pub fn credentials(&self) -> Option<Credentials> {
        match self {
            Peer::Unix(credentials) => Some(*credentials),
            Peer::Ip(_) => None,
        }
    }

    /// Returns what two connections of one client have in common.
    pub(crate) fn client(&self) -> Client {
        match self {
            Peer::Ip(address) => Client::Ip(address.ip()),
            Peer::Unix(credentials) => Client::User(credentials.uid),
        }
    }
}

/// What two connections of one client have in common: the address, or the user.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Client {
    Ip(IpAddr),
    User(u32),
}

impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Peer {
        Peer::Ip(address)
    }
}

impl From<Remote> for Peer {
    fn from(remote: Remote) -> Peer {
        match remote {
            Remote::Ip(address) => Peer::Ip(address),
            // A pid is at least 0.
            Remote::Unix { pid, uid, gid } => Peer::Unix(Credentials::new(pid as u32, uid, gid)),
        }
    }
}

impl PartialEq<SocketAddr> for Peer {
    fn eq(&self, address: &SocketAddr) -> bool {
        self.socket_addr() == Some(*address)
    }
}

impl fmt::Display for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Credentials { pid, uid, gid } = self;
        write!(f, "unix:pid={pid},uid={uid},gid={gid}")
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Ip(address) => address.fmt(f),
            Peer::Unix(credentials) => credentials.fmt(f),
        }
    }
}

/// The text is not that of a [`Peer`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ParsePeerError(());

impl fmt::Display for ParsePeerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("neither ADDRESS:PORT nor unix:pid=N,uid=N,gid=N")
    }
}

impl std::error::Error for ParsePeerError {}

impl FromStr for Peer {
    type Err = ParsePeerError;

    fn from_str(text: &str) -> Result<Peer, ParsePeerError> {
        let credentials = || {
            let mut fields = text.strip_prefix("unix:")?.split(',');
            let mut field = |name| fields.next()?.strip_prefix(name)?.parse().ok();
            let (pid, uid, gid) = (field("pid=")?, field("uid=")?, field("gid=")?);
            let is_all = fields.next().is_none();
            is_all.then_some(Peer::Unix(Credentials::new(pid, uid, gid)))
        };
        let ip = text.parse().ok().map(Peer::Ip);
        ip.or_else(credentials).ok_or(ParsePeerError(()))
    }
}

/// A peer in shared memory, or in a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Packed {
    pub(crate) family: Family,
    /// The address, an IPv4 address mapped to one of IPv6; or pid, uid and gid.
    pub(crate) bytes: [u8; 16],
    pub(crate) port: u16,
    /// The zone of an IPv6 address.
    pub(crate) scope: u32,
}

/// The kind of a packed peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Family {
    V4,
    V6,
    Unix,
}

impl Family {
    /// Returns the family that two flags say.
    pub(crate) fn of(is_v6: bool, is_unix: bool) -> Family {
        match (is_unix, is_v6) {
            (true, _) => Family::Unix,
            (false, true) => Family::V6,
            (false, false) => Family::V4,
        }
    }
}

impl Packed {
    pub(crate) fn of(peer: Peer) -> Packed {
        match peer {
            Peer::Ip(SocketAddr::V4(v4)) => Packed {
                family: Family::V4,
                bytes: v4.ip().to_ipv6_mapped().octets(),
                port: v4.port(),
                scope: 0,
            },
            Peer::Ip(SocketAddr::V6(v6)) => Packed {
                family: Family::V6,
                bytes: v6.ip().octets(),
                port: v6.port(),
                scope: v6.scope_id(),
            },
            Peer::Unix(Credentials { pid, uid, gid }) => {
                let bits = u128::from(pid) << 64 | u128::from(uid) << 32 | u128::from(gid);
                Packed {
                    family: Family::Unix,
                    bytes: bits.to_be_bytes(),
                    port: 0,
                    scope: 0,
                }
            }
        }
    }

    /// Returns the peer. Bytes that another process has written may be anything: any of them are one.
    pub(crate) fn peer(self) -> Peer {
        let Packed {
            family,
            bytes,
            port,
            scope,
        } = self;
        let ip = Ipv6Addr::from(bytes);
        match (family, ip.to_ipv4_mapped()) {
            (Family::V4, Some(v4)) => Peer::Ip(SocketAddr::new(v4.into(), port)),
            (Family::V6, _) | (Family::V4, None) => {
                Peer::Ip(SocketAddrV6::new(ip, port, 0, scope).into())
            }
            (Family::Unix, _) => {
                let bits = u128::from_be_bytes(bytes);
                let number = |shift: u32| (bits >> shift) as u32;
                Peer::Unix(Credentials::new(number(64), number(32), number(0)))
            }
        }
    }
}

/// Serialized, a peer is its text.
#[cfg(feature = "serde")]
mod serialized {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Peer;

    impl Serialize for Peer {
        fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
            to.collect_str(self)
        }
    }

    impl<'de> Deserialize<'de> for Peer {
        fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Peer, D::Error> {
            let text = String::deserialize(from)?;
            text.parse().map_err(serde::de::Error::custom)
        }
    }
}

/// One peer of each kind, for the tests of what carries them.
#[cfg(test)]
pub(crate) fn samples() -> Vec<Peer> {
    let texts = [
        "127.0.0.1:80",
        "[::1]:65535",
        "[::ffff:1.2.3.4]:9",
        "[fe80::1%3]:1",
        "unix:pid=4711,uid=1000,gid=4294967294",
    ];
    texts.map(|text| text.parse().unwrap()).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_survives_its_text_and_its_packed_form() {
        for peer in samples() {
            assert_eq!(peer.to_string().parse(), Ok(peer));
            assert_eq!(Packed::of(peer).peer(), peer);
        }
        for text in [
            "",
            "unix:",
            "127.0.0.1",
            "unix:pid=1,uid=2",
            "unix:pid=1,uid=2,gid=3,x",
        ] {
            assert!(text.parse::<Peer>().is_err(), "{text}");
        }
    }
}
