//! Listeners: their addresses, their protocols, and the limits of their connections.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};

use super::limits::{LONGEST_MESSAGE, READ_SIZE};
use super::{LEAST_READ, charge, setting, within};
use crate::error::Error;
use crate::protocol::Protocol;

/// An address to listen on, with the protocol and the limits of its connections.
///
/// ```
/// use tine::{Listener, Protocol, Server};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let server = Server::new()
///     .listen(
///         Listener::tcp("0.0.0.0:7000")
///             .name("lines")
///             .protocol(r"delimiter=\r\n".parse()?)
///             .max_message(64 << 10),
///     )
///     // An address alone is a raw listener with the defaults.
///     .listen("127.0.0.1:7001");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(from = "super::serial::Listener", into = "super::serial::Listener")
)]
pub struct Listener {
    pub(super) place: Place,
    pub(super) name: Option<String>,
    pub(super) protocol: Protocol,
    pub(super) max_message: usize,
    pub(super) backlog: u32,
}

/// The address of a listener.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub(super) enum Place {
    /// ADDRESS:PORT, as the user wrote it.
    Tcp(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Tcp(address) => f.write_str(address),
        }
    }
}

impl Listener {
    /// Listens for TCP connections on `127.0.0.1:9501`, `[::1]:9501`, or on every address of a host
    /// name: `localhost:9501`. A name is resolved when the server starts. With port 0 the kernel chooses
    /// a port, which [`Started::addresses`](crate::Started::addresses) returns.
    pub fn tcp(address: impl ToString) -> Listener {
        Listener {
            place: Place::Tcp(address.to_string()),
            name: None,
            protocol: Protocol::raw(),
            max_message: 8 << 20,
            backlog: 4096,
        }
    }

    /// The listener's name in logs, in [`Started`](crate::Started) and in
    /// [`Context::listener_name`](crate::Context::listener_name). No two listeners of a server may have
    /// the same name. Default: its address as given; for a second listener with the same address, its
    /// index too: `127.0.0.1:0#1`.
    pub fn name(mut self, name: impl Into<String>) -> Listener {
        self.name = Some(name.into());
        self
    }

    /// How the bytes of its connections are cut into messages. Default: [`Protocol::raw`].
    pub fn protocol(mut self, protocol: Protocol) -> Listener {
        self.protocol = protocol;
        self
    }

    /// The longest accepted message in bytes, framing included, 1 byte to 1 GiB. A raw message is also
    /// at most 256 KiB long, and shorter under a small
    /// [`output_limit`](crate::Settings::output_limit), so that it can be echoed. Default: 8 MiB.
    /// With any protocol but raw, each pair of a reactor and a worker has memory for at least one
    /// message of this length.
    pub fn max_message(mut self, bytes: usize) -> Listener {
        self.max_message = bytes;
        self
    }

    /// The most connections that wait in the kernel to be accepted, listen(2). The kernel's maximum is
    /// net.core.somaxconn; the log warns if it is exceeded. Default: 4096.
    pub fn backlog(mut self, connections: u32) -> Listener {
        self.backlog = connections;
        self
    }

    /// Checks the listener.
    ///
    /// # Errors
    /// Its first invalid setting.
    pub(super) fn validate(self) -> Result<ListenerConfig, Error> {
        let name = self.name.unwrap_or_else(|| self.place.to_string());
        if name.is_empty() {
            return Err(setting("name", "a listener has an empty name"));
        }
        let wrong = |error: Error| error.about_listener(&name);
        within(
            "max_message",
            self.max_message,
            1,
            LONGEST_MESSAGE,
            " bytes",
        )
        .map_err(wrong)?;
        within("backlog", self.backlog, 0, i32::MAX as u32, "").map_err(wrong)?;
        Ok(ListenerConfig {
            addresses: self.place.look_up()?,
            name,
            protocol: self.protocol,
            max_message: self.max_message,
            backlog: self.backlog,
        })
    }
}

impl Place {
    fn look_up(&self) -> Result<Vec<SocketAddr>, Error> {
        let Place::Tcp(address) = self;
        let wrong = |why: &dyn fmt::Display| {
            let problem = format!("{address:?}: {why}; ADDRESS:PORT is expected");
            setting("listen", problem)
        };
        if let Ok(address) = address.parse() {
            return Ok(vec![address]);
        }
        let found: Vec<SocketAddr> = match address.to_socket_addrs() {
            Ok(found) => found.collect(),
            Err(error) => return Err(wrong(&error)),
        };
        match found.is_empty() {
            true => Err(wrong(&"no address has that name")),
            false => Ok(found),
        }
    }
}

impl From<&str> for Listener {
    fn from(address: &str) -> Listener {
        Listener::tcp(address)
    }
}

impl From<String> for Listener {
    fn from(address: String) -> Listener {
        Listener::tcp(address)
    }
}

impl From<SocketAddr> for Listener {
    fn from(address: SocketAddr) -> Listener {
        Listener::tcp(address)
    }
}

/// The number of a listener: its index in [`Settings::listen`](crate::Settings::listen).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ListenerId(pub(crate) u16);

impl ListenerId {
    /// Returns the index, from 0.
    pub fn index(self) -> usize {
        self.0.into()
    }
}

/// A valid listener.
#[derive(Clone, Debug)]
pub(crate) struct ListenerConfig {
    pub(crate) name: String,
    /// At least one.
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) protocol: Protocol,
    pub(crate) max_message: usize,
    pub(crate) backlog: u32,
}

impl ListenerConfig {
    /// Returns the longest raw message. A callback can echo it, unless the output limit is too small for
    /// 64 KiB: each piece of output counts some bytes more than it has.
    pub(crate) fn longest_raw(&self, output_limit: usize) -> usize {
        let pieces = READ_SIZE / LEAST_READ;
        let echoed = output_limit.saturating_sub(pieces * charge(0));
        READ_SIZE.min(echoed.max(LEAST_READ)).min(self.max_message)
    }
}

/// An address that a server listens on, and its listener.
///
/// Its text is the address, with the real port: `127.0.0.1:9501`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Endpoint {
    pub(crate) listener: ListenerId,
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
}

impl Endpoint {
    /// Returns the listener.
    pub fn listener(&self) -> ListenerId {
        self.listener
    }

    /// Returns the listener's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the IP address and the real port; `None` for an address of another kind.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        Some(self.address)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}
