//! The peer, the client at the other end of a connection. Used in every process of the server.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// The client at the other end of a connection.
///
/// Its text is the client's address: `203.0.113.7:51234`, `[2001:db8::1]:51234`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Peer {
    /// A TCP client, by address and port.
    Ip(SocketAddr),
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
        }
    }
}

impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Peer {
        Peer::Ip(address)
    }
}

impl PartialEq<SocketAddr> for Peer {
    fn eq(&self, address: &SocketAddr) -> bool {
        self.socket_addr() == Some(*address)
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Ip(address) => address.fmt(f),
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
            text.parse().map(Peer::Ip).map_err(serde::de::Error::custom)
        }
    }
}
