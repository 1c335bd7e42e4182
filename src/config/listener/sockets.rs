//! The settings of a listener's sockets, and of who may connect to them.

use std::time::Duration;

use super::super::networks::{Networks, Prefix, Rules};
use super::super::{setting, within, within_time};
use super::{Listener, Place};
use crate::error::Error;
use crate::sys::accounts;
use crate::sys::listener::{Access, Options, Probes};

/// The most networks of a listener, of either kind.
const MOST_NETWORKS: usize = 65_536;

/// The longest time for which the kernel keeps a silent client to itself.
const LONGEST_DEFERRED: Duration = Duration::from_secs(3600);

/// What the user has set; `None` and empty lists are the kernel's ways.
#[derive(Clone, PartialEq, Debug, Default)]
pub(in crate::config) struct Sockets {
    pub(in crate::config) mode: Option<u32>,
    /// `USER`, `USER:GROUP` or `:GROUP`.
    pub(in crate::config) owner: Option<String>,
    pub(in crate::config) v6only: Option<bool>,
    pub(in crate::config) defer_accept: Option<Duration>,
    pub(in crate::config) receive_buffer: Option<usize>,
    pub(in crate::config) send_buffer: Option<usize>,
    pub(in crate::config) allow: Vec<String>,
    pub(in crate::config) deny: Vec<String>,
    pub(in crate::config) new_per_second: Option<u32>,
    pub(in crate::config) prefix_v4: Option<u8>,
    pub(in crate::config) prefix_v6: Option<u8>,
}

impl Listener {
    /// The permissions of a unix socket's file, as chmod(2) takes them: a client needs the right to write. The file
    /// has them from its first moment. Default: all, less the umask of the process, which mostly leaves the owner
    /// alone with the right. An abstract name has no file, and everybody on the machine may connect to it.
    pub fn mode(mut self, mode: u32) -> Listener {
        self.sockets.mode = Some(mode);
        self
    }

    /// The owner of a unix socket's file, in the form of chown(1): `app`, `app:www-data` or `:www-data`, by names or
    /// numbers. It is set before anybody can connect, and needs root or CAP_CHOWN, unless it is a group of the
    /// process. Default: the user and the group of the process.
    pub fn owner(mut self, owner: impl Into<String>) -> Listener {
        self.sockets.owner = Some(owner.into());
        self
    }

    /// Whether a listener on an IPv6 address takes clients of IPv6 alone, as IPV6_V6ONLY of ipv6(7). With `false`,
    /// `[::]:9501` takes those of IPv4 too, which have their IPv4 addresses everywhere; a listener on
    /// `0.0.0.0` with the same port has no place beside it. Default: `true`, whatever net.ipv6.bindv6only says.
    pub fn v6only(mut self, v6only: bool) -> Listener {
        self.sockets.v6only = Some(v6only);
        self
    }

    /// Accepts a TCP client when its first bytes have come, and not before: TCP_DEFER_ACCEPT, tcp(7). A client that
    /// says nothing for this long, 1 second to an hour, is accepted all the same. Not for protocols in which the server speaks first.
    /// Default: off.
    pub fn defer_accept(mut self, time: impl Into<Option<Duration>>) -> Listener {
        self.sockets.defer_accept = time.into();
        self
    }

    /// The size of the kernel's buffer for bytes that have come and were not read, of each connection: SO_RCVBUF,
    /// socket(7), which also ends the kernel's own tuning of it. 1 KiB to 1 GiB; the kernel allows net.core.rmem_max at most, and
    /// takes twice as much memory. A unix socket has no such buffer. Default: the kernel's.
    pub fn receive_buffer(mut self, bytes: usize) -> Listener {
        self.sockets.receive_buffer = Some(bytes);
        self
    }

    /// The size of the kernel's buffer for bytes that were sent and that the peer does not have, of each connection:
    /// SO_SNDBUF, socket(7), as [`receive_buffer`](Self::receive_buffer); net.core.wmem_max is its maximum. Default:
    /// the kernel's.
    pub fn send_buffer(mut self, bytes: usize) -> Listener {
        self.sockets.send_buffer = Some(bytes);
        self
    }

    /// Networks whose clients may connect: `10.0.0.0/8`, `2001:db8::/32`, or single addresses. May be called more than
    /// once. Others are reset as they come, and so are those of a network of [`deny`](Self::deny). They are counted,
    /// and the log has some of them. Default: every client may.
    pub fn allow(mut self, networks: impl IntoIterator<Item: ToString>) -> Listener {
        let networks = networks.into_iter().map(|it| it.to_string());
        self.sockets.allow.extend(networks);
        self
    }

    /// Networks whose clients may not connect, as [`allow`](Self::allow). It wins over `allow`, however narrow a
    /// network is there. Default: none.
    pub fn deny(mut self, networks: impl IntoIterator<Item: ToString>) -> Listener {
        let networks = networks.into_iter().map(|it| it.to_string());
        self.sockets.deny.extend(networks);
        self
    }

    /// The most new connections of one client in a second, 1 to 1,000,000; it may save up those of one second.
    /// Further ones are reset as they come. A client is an address, or what [`address_prefix`](Self::address_prefix) says; of a unix socket, a
    /// user. In process mode they are counted for the server, in base mode by each worker for itself. The memory for
    /// it has a fixed size: if more than about 16,000 clients are at their limits at the same time, some of them are
    /// forgotten, and get more. Default: no limit.
    pub fn max_new_per_second(mut self, connections: u32) -> Listener {
        self.sockets.new_per_second = Some(connections);
        self
    }

    /// The bits of an IPv4 address and of an IPv6 address by which clients are told apart, 1 to 32 and 1 to 128, for
    /// [`max_new_per_second`](Self::max_new_per_second) and
    /// [`max_connections_per_address`](crate::Server::max_connections_per_address). Default: 32, and 64, since a
    /// subscriber of IPv6 has as many addresses as it likes below them.
    pub fn address_prefix(mut self, v4: u8, v6: u8) -> Listener {
        (self.sockets.prefix_v4, self.sockets.prefix_v6) = (Some(v4), Some(v6));
        self
    }
}

impl Sockets {
    /// Checks the settings that have no meaning at this place: they are refused by name.
    pub(super) fn check_place(&self, place: &Place) -> Result<(), Error> {
        const FILE: &str = "only a unix socket that this server makes has a file with permissions";
        let (is_unix, has_file) = match place {
            Place::Tcp(_) => (false, false),
            Place::Unix(path) => (true, !path.as_os_str().as_encoded_bytes().starts_with(b"@")),
            Place::Inherited(_) => (false, false),
        };
        let is_inherited = matches!(place, Place::Inherited(_));
        const UNIX: &str = "a unix socket has no addresses, and no TCP: leave it out; mode and owner say who may connect";
        const MADE: &str =
            "the socket was made by another program, which decides about it: leave it out";
        for (name, is_set, is_unfit, why) in [
            ("mode", self.mode.is_some(), !has_file, FILE),
            ("owner", self.owner.is_some(), !has_file, FILE),
            ("v6only", self.v6only.is_some(), is_unix, UNIX),
            ("v6only", self.v6only.is_some(), is_inherited, MADE),
            ("defer_accept", self.defer_accept.is_some(), is_unix, UNIX),
            ("allow", !self.allow.is_empty(), is_unix, UNIX),
            ("deny", !self.deny.is_empty(), is_unix, UNIX),
        ] {
            if is_set && is_unfit {
                return Err(setting(name, why));
            }
        }
        Ok(())
    }

    /// Returns the options of the sockets.
    pub(super) fn options(&self, backlog: u32, probes: Probes) -> Result<Options, Error> {
        within("backlog", backlog, 0, i32::MAX as u32, "")?;
        for (name, bytes) in [
            ("receive_buffer", self.receive_buffer),
            ("send_buffer", self.send_buffer),
        ] {
            if let Some(bytes) = bytes {
                within(name, bytes, 1 << 10, 1 << 30, " bytes")?;
            }
        }
        if let Some(time) = self.defer_accept {
            let second = Duration::from_secs(1);
            within_time("defer_accept", time, second, LONGEST_DEFERRED)?;
        }
        Ok(Options {
            backlog,
            probes,
            only_v6: self.v6only.unwrap_or(true),
            defer_accept: self.defer_accept.map(|time| time.as_secs() as i32),
            receive_buffer: self.receive_buffer,
            send_buffer: self.send_buffer,
            access: self.access()?,
        })
    }

    fn access(&self) -> Result<Access, Error> {
        let mode = self.mode.unwrap_or_default();
        if mode > 0o777 {
            let problem =
                format!("{mode:o} (octal) has other bits than those of permissions, as 660");
            return Err(setting("mode", problem));
        }
        let text = self.owner.as_deref().unwrap_or_default();
        let (user, group) = text.split_once(':').unwrap_or((text, ""));
        if self.owner.is_some() && user.is_empty() && group.is_empty() {
            let problem = "it names nobody: USER, USER:GROUP or :GROUP is expected";
            return Err(setting("owner", problem));
        }
        let wrong = |why| setting("owner", why);
        let some = |text: &str, look_up: fn(&str) -> Result<u32, String>| {
            let number = (!text.is_empty()).then(|| look_up(text));
            number.transpose().map_err(wrong)
        };
        Ok(Access {
            mode: self.mode,
            user: some(user, accounts::user)?,
            group: some(group, accounts::group)?,
        })
    }

    /// Returns the rules about clients.
    pub(super) fn rules(&self) -> Result<Rules, Error> {
        for (name, networks) in [("allow", &self.allow), ("deny", &self.deny)] {
            within(name, networks.len(), 0, MOST_NETWORKS, " networks")?;
        }
        if let Some(most) = self.new_per_second {
            within("max_new_per_second", most, 1, 1_000_000, "")?;
        }
        let prefix = Prefix {
            v4: self.prefix_v4.unwrap_or(Prefix::DEFAULT.v4),
            v6: self.prefix_v6.unwrap_or(Prefix::DEFAULT.v6),
        };
        within("address_prefix", prefix.v4, 1, 32, " bits of IPv4")?;
        within("address_prefix", prefix.v6, 1, 128, " bits of IPv6")?;
        Ok(Rules {
            allow: Networks::parse("allow", &self.allow)?,
            deny: Networks::parse("deny", &self.deny)?,
            rate: self.new_per_second,
            prefix,
        })
    }
}
