//! The origin of a connection: what its listener has learned of it before the first callback, from TLS and from the
//! proxy that it came through.
//!
//! Written in the process that owns the socket, and read in the workers. Its one rule: what a client or a proxy has
//! said stands here as bytes, within a limit.

use std::fmt;
use std::net::SocketAddr;

use crate::config::MOST_ORIGIN;

/// What is known of how a connection came.
///
/// All of it is empty for a listener without TLS and without PROXY protocol.
///
/// ```
/// use tine::{Conn, Context};
///
/// fn connect(_: &mut Context<'_>, conn: &mut Conn<'_>) -> tine::Result {
///     let origin = conn.origin();
///     let name = origin.server_name().unwrap_or("no name").to_owned();
///     conn.send(format!("welcome to {name}\n").as_bytes())?;
///     Ok(())
/// }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Origin<'a>(&'a [u8]);

/// A part of an origin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Fact {
    TlsVersion = 1,
    ServerName,
    Application,
    Certificate,
    Proxy,
    Destination,
    Authority,
    UniqueId,
    ProxyTls,
    ProxyName,
    ProxyApplication,
}

impl<'a> Origin<'a> {
    pub(crate) const fn of(bytes: &'a [u8]) -> Origin<'a> {
        Origin(bytes)
    }

    pub(crate) fn fact(self, fact: Fact) -> Option<&'a [u8]> {
        let mut rest = self.0;
        while let Some(([kind, len @ ..], behind)) = rest.split_first_chunk::<3>() {
            let (value, next) = behind.split_at_checked(u16::from_ne_bytes(*len).into())?;
            if *kind == fact as u8 {
                return Some(value);
            }
            rest = next;
        }
        None
    }

    fn text(self, fact: Fact) -> Option<&'a str> {
        str::from_utf8(self.fact(fact)?).ok()
    }

    fn address(self, fact: Fact) -> Option<SocketAddr> {
        self.text(fact)?.parse().ok()
    }

    /// Returns the version of TLS, `TLSv1.3` or `TLSv1.2`; `None` without TLS.
    pub fn tls_version(&self) -> Option<&'a str> {
        self.text(Fact::TlsVersion)
    }

    /// Returns the host name that the client has asked for (server name indication, RFC 6066); `None` if it has sent
    /// none.
    pub fn server_name(&self) -> Option<&'a str> {
        self.text(Fact::ServerName)
    }

    /// Returns the protocol that was agreed on (ALPN, RFC 7301), such as `h2`; `None` if none was.
    pub fn application_protocol(&self) -> Option<&'a [u8]> {
        self.fact(Fact::Application)
    }

    /// Returns the client's own certificate, as X.509 in DER, which a certificate of
    /// `client_authorities` vouches for; `None` if it has sent none.
    pub fn client_certificate(&self) -> Option<&'a [u8]> {
        self.fact(Fact::Certificate)
    }

    /// Returns the address of the proxy, if the connection came through one that said so by the PROXY protocol.
    /// [`Conn::peer`](super::Conn::peer) is the client then.
    pub fn proxy(&self) -> Option<SocketAddr> {
        self.address(Fact::Proxy)
    }

    /// Returns the address that the client has connected to, as the proxy says.
    pub fn destination(&self) -> Option<SocketAddr> {
        self.address(Fact::Destination)
    }

    /// Returns the host name that the client has asked the proxy for (PP2_TYPE_AUTHORITY).
    pub fn authority(&self) -> Option<&'a str> {
        self.text(Fact::Authority)
    }

    /// Returns the id that the proxy has given to the connection (PP2_TYPE_UNIQUE_ID): up to 128 bytes.
    pub fn unique_id(&self) -> Option<&'a [u8]> {
        self.fact(Fact::UniqueId)
    }

    /// Returns the version of TLS between the client and the proxy, such as `TLSv1.3` (PP2_SUBTYPE_SSL_VERSION).
    pub fn proxy_tls_version(&self) -> Option<&'a str> {
        self.text(Fact::ProxyTls)
    }

    /// Returns the common name of the certificate that the client has shown to the proxy, and that the proxy has
    /// verified (PP2_SUBTYPE_SSL_CN).
    pub fn proxy_client_name(&self) -> Option<&'a str> {
        self.text(Fact::ProxyName)
    }

    /// Returns the protocol that the client and the proxy have agreed on (PP2_TYPE_ALPN).
    pub fn proxy_application_protocol(&self) -> Option<&'a [u8]> {
        self.fact(Fact::ProxyApplication)
    }
}

impl fmt::Debug for Origin<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Origin")
            .field("tls_version", &self.tls_version())
            .field("server_name", &self.server_name())
            .field("proxy", &self.proxy())
            .finish_non_exhaustive()
    }
}

/// Adds a fact to the bytes of an origin. Returns whether there was room.
pub(crate) fn add_fact(origin: &mut Vec<u8>, fact: Fact, value: &[u8]) -> bool {
    let Ok(len) = u16::try_from(value.len()) else {
        return false;
    };
    if origin.len() + 3 + value.len() > MOST_ORIGIN {
        return false;
    }
    origin.push(fact as u8);
    origin.extend_from_slice(&len.to_ne_bytes());
    origin.extend_from_slice(value);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_found_among_others() {
        let mut bytes = Vec::new();
        assert!(add_fact(&mut bytes, Fact::ServerName, b"example.org"));
        assert!(add_fact(&mut bytes, Fact::UniqueId, &[0; 128]));
        assert!(add_fact(&mut bytes, Fact::Proxy, b"[::1]:80"));
        let origin = Origin::of(&bytes);
        assert_eq!(origin.server_name(), Some("example.org"));
        assert_eq!(origin.unique_id(), Some(&[0; 128][..]));
        assert_eq!(origin.proxy(), Some("[::1]:80".parse().unwrap()));
        assert_eq!(origin.tls_version(), None);
        assert_eq!(Origin::default().proxy(), None);
    }

    #[test]
    fn an_origin_has_a_limit() {
        let mut bytes = Vec::new();
        assert!(!add_fact(&mut bytes, Fact::Certificate, &[0; MOST_ORIGIN]));
        assert!(add_fact(
            &mut bytes,
            Fact::Certificate,
            &[0; MOST_ORIGIN - 3]
        ));
        assert!(!add_fact(&mut bytes, Fact::UniqueId, b""));
        assert_eq!(bytes.len(), MOST_ORIGIN);
    }
}
