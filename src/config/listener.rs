//! Listeners: their addresses, their protocols, and the limits of their connections.

mod place;
mod sockets;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::limits::{LONGEST_MESSAGE, READ_SIZE};
#[cfg(feature = "proxy")]
use super::networks::Networks;
use super::networks::Rules;
use super::silence::{Deadlines, OnIdle, Silence};
#[cfg(feature = "tls")]
use super::tls::Tls;
use super::{LEAST_READ, charge, setting, within};
use crate::error::Error;
use crate::protocol::Protocol;
use crate::sys::address::{Address, UnixName};
use crate::sys::listener::Options;

pub use self::place::Inherited;
pub(super) use self::place::Place;
pub(crate) use self::place::Source;
pub(super) use self::sockets::Sockets;

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
///     .listen(Listener::unix("/run/app.sock").mode(0o660).owner(":www-data"))
///     // An address alone is a raw listener with the defaults.
///     .listen("127.0.0.1:7001");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(try_from = "super::serial::Listener", into = "super::serial::Listener")
)]
pub struct Listener {
    pub(super) place: Place,
    pub(super) name: Option<String>,
    pub(super) protocol: Protocol,
    pub(super) max_message: usize,
    pub(super) backlog: u32,
    pub(super) deadlines: Deadlines,
    pub(super) sockets: Sockets,
    #[cfg(feature = "proxy")]
    pub(super) proxies: Vec<String>,
    #[cfg(feature = "tls")]
    pub(super) tls: Option<Tls>,
}

impl Listener {
    /// Listens for TCP connections on `127.0.0.1:9501`, `[::1]:9501`, `[fe80::1%eth0]:9501` (an address of a link, with
    /// its interface), or on every address of a host name: `localhost:9501`. A name is resolved when the server starts, and never again; an address that the
    /// machine has not is left out, with a warning, if another one works. `0.0.0.0:9501` is
    /// every IPv4 address of the machine, and `[::]:9501` every IPv6 address alone: for both, add two
    /// listeners, or see [`v6only`](Self::v6only). With port 0 the kernel chooses a port, another one for each address, which [`Started::addresses`](crate::Started::addresses) returns.
    pub fn tcp(address: impl ToString) -> Listener {
        Listener::at(Place::Tcp(address.to_string()))
    }

    /// Listens on a unix socket, unix(7): on a path, or on an abstract name that begins with `@`. A file that begins so
    /// is written `./@file`. [`mode`](Self::mode) and [`owner`](Self::owner) say who may connect.
    ///
    /// A socket that is there already is replaced if nobody answers on it, as after the death of a server. Anything else
    /// that is there is left, and the server does not start. The file is removed when the server ends in order, if it is
    /// still this server's.
    ///
    /// Its clients are [`Peer::Unix`](crate::Peer::Unix): they have no addresses, and where clients are told apart it is by
    /// their users. Settings of TCP, such as `keepalive` and `user_timeout`, have no effect. A unix socket has no RST
    /// either: a client whose connection is reset reads what it was sent so far, and then the end, as after a close.
    pub fn unix(path: impl Into<PathBuf>) -> Listener {
        Listener::at(Place::Unix(path.into()))
    }

    /// Takes listening sockets that another program has opened, TCP or unix stream sockets: a socket unit of systemd, for
    /// example. They belong to the server from its start on, and nothing else in the process may use them. Their
    /// addresses and their backlog are what that program has set, and the file of a unix socket is never removed.
    ///
    /// When the server stops, it accepts what waits, and leaves a socket as it is: clients that come later wait for the next
    /// server, if the other program has kept the socket for it.
    pub fn inherited(inherited: Inherited) -> Listener {
        Listener::at(Place::Inherited(inherited))
    }

    /// A listener with the defaults.
    pub(super) fn at(place: Place) -> Listener {
        Listener {
            place,
            name: None,
            protocol: Protocol::raw(),
            max_message: 8 << 20,
            backlog: 4096,
            deadlines: Deadlines::DEFAULT,
            sockets: Sockets::default(),
            #[cfg(feature = "proxy")]
            proxies: Vec::new(),
            #[cfg(feature = "tls")]
            tls: None,
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
    /// [`output_limit`](crate::Server::output_limit), so that it can be echoed. Default: 8 MiB.
    /// With any protocol but raw, each pair of a reactor and a worker has memory for at least one
    /// message of this length.
    pub fn max_message(mut self, bytes: usize) -> Listener {
        self.max_message = bytes;
        self
    }

    /// The most connections that wait in the kernel to be accepted, listen(2). The kernel's maximum is
    /// net.core.somaxconn; the log warns if it is exceeded. An inherited socket keeps its own. Default: 4096.
    pub fn backlog(mut self, connections: u32) -> Listener {
        self.backlog = connections;
        self
    }

    /// Expects the header of the PROXY protocol, version 1 or 2, at the begin of each connection, before TLS:
    /// the proxy says there who its client is. From then on [`Conn::peer`](crate::Conn::peer) is that client,
    /// for dispatch, limits and logs, too, and [`Conn::origin`](crate::Conn::origin) has the rest. Only these
    /// networks are trusted to say so: connections from elsewhere are reset, and so is one without a right
    /// header, or without one in time ([`opening_deadline`](Self::opening_deadline)).
    ///
    /// The protocol is <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>.
    ///
    /// ```
    /// use tine::Listener;
    ///
    /// let listener = Listener::tcp("0.0.0.0:7000").proxy_protocol(["10.0.0.0/8", "::1"]);
    /// ```
    #[cfg(feature = "proxy")]
    pub fn proxy_protocol(
        mut self,
        trusted: impl IntoIterator<Item = impl Into<String>>,
    ) -> Listener {
        self.proxies = trusted.into_iter().map(Into::into).collect();
        self
    }

    /// Speaks TLS. Default: none.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, tls: Tls) -> Listener {
        self.tls = Some(tls);
        self
    }

    /// Changes what was set for TLS.
    #[cfg(feature = "capi")]
    pub(crate) fn change_tls(mut self, change: impl FnOnce(Option<Tls>) -> Tls) -> Listener {
        self.tls = Some(change(self.tls.take()));
        self
    }

    /// How long the header of the PROXY protocol and the handshake of TLS may take, both together: then the
    /// connection is reset. No callback knows of it. `None` is never. Default: 10 seconds.
    pub fn opening_deadline(mut self, deadline: impl Into<Option<Duration>>) -> Listener {
        self.deadlines.opening = deadline.into();
        self
    }

    /// How long a connection may last on which neither side has said anything: it is closed with FIN. The
    /// time counts from the end of [`connect`](crate::Handler::connect). `None` is never. Default: 60
    /// seconds.
    pub fn open_deadline(mut self, deadline: impl Into<Option<Duration>>) -> Listener {
        self.deadlines.open = deadline.into();
        self
    }

    /// How long the peer may take for one message, from its first byte to its last: a slower one is closed
    /// with FIN, after the answers to its earlier messages. Raw streams have no such messages. `None` is
    /// never. Default: 120 seconds.
    pub fn message_deadline(mut self, deadline: impl Into<Option<Duration>>) -> Listener {
        self.deadlines.message = deadline.into();
        self
    }

    /// How long the peer may be silent while nothing is due to it: no message of it is with a worker or
    /// waits for one, and it has acknowledged all output. Output that it acknowledges ends its silence, too.
    /// Then [`on_idle`](Self::on_idle) says what happens. `None` is never. Default: never, since a client
    /// of a chat may listen for hours.
    pub fn idle(mut self, deadline: impl Into<Option<Duration>>) -> Listener {
        self.deadlines.idle = deadline.into();
        self
    }

    /// The action at the idle deadline. Default: [`OnIdle::Close`].
    pub fn on_idle(mut self, action: OnIdle) -> Listener {
        self.deadlines.on_idle = action;
        self
    }

    /// How long output may be unsent while the peer acknowledges nothing: the connection is reset, since
    /// after FIN the client would take a part for the whole. It is noticed up to an eighth later. `None` is
    /// never. Default: 60 seconds.
    pub fn write_deadline(mut self, deadline: impl Into<Option<Duration>>) -> Listener {
        self.deadlines.write = deadline.into();
        self
    }

    /// How long a message or another event of a connection may wait for a worker that begins its callback,
    /// in process mode: then its client gets the reply of the crash policy, if that has one, and the
    /// connection is closed, after the answers to its earlier messages. The callback is not run. In base
    /// mode messages wait in the kernel, and this has no effect. `None` is never. Default: never.
    pub fn queue_deadline(mut self, deadline: impl Into<Option<Duration>>) -> Listener {
        self.deadlines.queue = deadline.into();
        self
    }

    /// TCP keepalive, tcp(7): after this long without a segment from the peer, 1 second to 32,767 seconds,
    /// the kernel probes it, six times in as long again; a peer that answers none is gone, and its
    /// connection broken. `None` sends no probes. Unix sockets have none. Default: 60 seconds.
    pub fn keepalive(mut self, time: impl Into<Option<Duration>>) -> Listener {
        self.deadlines.keepalive = time.into();
        self
    }

    /// TCP_USER_TIMEOUT, tcp(7): how long output may be unacknowledged, or the peer's window closed, until
    /// the kernel breaks the connection; at most 24 days. Unix sockets have no such time. `None` leaves it to net.ipv4.tcp_retries2.
    /// Default: 120 seconds, or as long as the write deadline or twice the keepalive time if that is longer;
    /// `None` without a write deadline.
    pub fn user_timeout(mut self, time: impl Into<Option<Duration>>) -> Listener {
        self.deadlines.user_timeout = Some(time.into());
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
        let (silence, probes) = self.deadlines.validate().map_err(wrong)?;
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            tls.validate().map_err(wrong)?;
        }
        #[cfg(feature = "proxy")]
        let proxies = Networks::parse("proxy_protocol", &self.proxies).map_err(wrong)?;
        let sockets = &self.sockets;
        sockets.check_place(&self.place).map_err(wrong)?;
        let options = sockets.options(self.backlog, probes).map_err(wrong)?;
        let rules = sockets.rules().map_err(wrong)?;
        Ok(ListenerConfig {
            is_inherited: matches!(self.place, Place::Inherited(_)),
            sources: self.place.look_up()?,
            options,
            rules,
            name,
            protocol: self.protocol,
            max_message: self.max_message,
            silence,
            #[cfg(feature = "proxy")]
            proxies,
            #[cfg(feature = "tls")]
            tls: self.tls,
        })
    }
}

/// Of `unix:PATH`, `fd:NUMBER`, `systemd` or `systemd:NAME`, as `tine serve --listen` takes them, or of a TCP address.
impl From<&str> for Listener {
    fn from(address: &str) -> Listener {
        Listener::at(Place::parse(address))
    }
}

/// As of a `&str`.
impl From<String> for Listener {
    fn from(address: String) -> Listener {
        Listener::from(address.as_str())
    }
}

impl From<SocketAddr> for Listener {
    fn from(address: SocketAddr) -> Listener {
        Listener::tcp(address)
    }
}

/// The number of a listener: its index, in the order of the calls of [`Server::listen`](crate::Server::listen).
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
    pub(crate) sources: Vec<Source>,
    pub(crate) is_inherited: bool,
    pub(crate) options: Options,
    pub(crate) rules: Rules,
    pub(crate) protocol: Protocol,
    pub(crate) max_message: usize,
    pub(crate) silence: Silence,
    #[cfg(feature = "proxy")]
    pub(crate) proxies: Networks,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<Tls>,
}

impl ListenerConfig {
    /// Whether its connections begin with the header of a proxy.
    pub(crate) fn expects_header(&self) -> bool {
        #[cfg(feature = "proxy")]
        return !self.proxies.is_empty();
        #[cfg(not(feature = "proxy"))]
        false
    }

    /// Whether connections from this address may have such a header. Who may connect to a unix socket, its mode says.
    pub(crate) fn trusts(&self, address: Option<IpAddr>) -> bool {
        #[cfg(feature = "proxy")]
        return address.is_none_or(|address| self.proxies.contain(address));
        #[cfg(not(feature = "proxy"))]
        {
            let _ = address;
            false
        }
    }

    /// Whether its connections have TLS.
    pub(crate) fn has_tls(&self) -> bool {
        #[cfg(feature = "tls")]
        return self.tls.is_some();
        #[cfg(not(feature = "tls"))]
        false
    }

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
/// Its text is the address, with the real port: `127.0.0.1:9501`, or `unix:/run/app.sock`, or `unix:@name`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Endpoint {
    pub(crate) listener: ListenerId,
    pub(crate) name: String,
    pub(crate) address: Address,
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
        self.address.ip()
    }

    /// Returns the path of a unix socket, or `@` and its abstract name; `None` for an address of another kind.
    pub fn unix_path(&self) -> Option<PathBuf> {
        match &self.address {
            Address::Unix(name) => Some(name.to_path()),
            Address::Ip(_) => None,
        }
    }

    /// Returns the name of a server that listens here: the port, or the last part of a path, without what a pattern of
    /// pkill(1) would take for more than itself.
    pub(crate) fn server_name(&self) -> String {
        let name = match &self.address {
            Address::Ip(address) => return address.port().to_string(),
            Address::Unix(UnixName::Abstract(name)) => String::from_utf8_lossy(name).into_owned(),
            Address::Unix(UnixName::Path(path)) => {
                let last = path.file_name().unwrap_or_default();
                last.to_string_lossy().into_owned()
            }
        };
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-:".contains(c);
        let plain = name.chars().map(|c| if is_plain(c) { c } else { '-' });
        plain.take(64).collect()
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}
