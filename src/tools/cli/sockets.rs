//! The flags of `tine serve` for its listening sockets, and for who may connect to them.

use std::time::Duration;

use clap::Args;
use tine::Listener;

use super::values::{number, place, seconds, size};

/// The settings of listeners. Each is one of all listeners that it can be a setting of.
#[derive(Args)]
pub(super) struct Sockets {
    /// Permissions of the files of unix sockets, in octal: 660. A client needs the right to write
    /// [default: all, less the umask].
    #[arg(long, value_name = "OCTAL", value_parser = octal)]
    socket_mode: Option<u32>,

    /// Owner of the files of unix sockets, by names or numbers: USER, USER:GROUP or :GROUP.
    #[arg(long, value_name = "USER:GROUP")]
    socket_owner: Option<String>,

    /// Whether a listener on an IPv6 address takes clients of IPv6 alone. With false, [::] takes those of
    /// IPv4 too [default: true].
    #[arg(long, value_name = "BOOL")]
    v6only: Option<bool>,

    /// Networks whose TCP clients may connect, as 10.0.0.0/8 or ::1; others are reset. May be given more
    /// than once [default: all].
    #[arg(long, value_name = "NETWORKS", value_delimiter = ',')]
    allow: Vec<String>,

    /// Networks whose TCP clients may not connect. It wins over --allow.
    #[arg(long, value_name = "NETWORKS", value_delimiter = ',')]
    deny: Vec<String>,

    /// New connections of one client in a second at most, in base mode for each worker; further ones are
    /// reset. A client is an address, and of a unix socket a user [default: no limit].
    #[arg(long, value_name = "N", value_parser = number::<u32>(1, 1_000_000))]
    max_new_per_second: Option<u32>,

    /// Bits of an IPv4 and of an IPv6 address by which clients are told apart where they are counted
    /// [default: 32,64].
    #[arg(long, value_name = "V4,V6", value_parser = prefix)]
    address_prefix: Option<(u8, u8)>,

    /// Accept a TCP client when its first bytes have come, or after SECONDS. Not for protocols in which
    /// the server speaks first [default: off].
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    defer_accept: Option<Duration>,

    /// The kernel's buffer for bytes that have come, of each connection (SO_RCVBUF) [default: the
    /// kernel's].
    #[arg(long, value_name = "BYTES", value_parser = size(1 << 10, 1 << 30))]
    receive_buffer: Option<usize>,

    /// The kernel's buffer for bytes that were sent, of each connection (SO_SNDBUF) [default: the
    /// kernel's].
    #[arg(long, value_name = "BYTES", value_parser = size(1 << 10, 1 << 30))]
    send_buffer: Option<usize>,
}

/// The kinds of listeners that a flag can be for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tcp,
    File,
    /// A unix socket without a file.
    Abstract,
    Inherited,
}

impl Kind {
    fn of(address: &str) -> Kind {
        match address.split_once(':') {
            Some(("unix", name)) if name.starts_with('@') => Kind::Abstract,
            Some(("unix", _)) => Kind::File,
            Some(("fd" | "systemd", _)) => Kind::Inherited,
            None => Kind::Inherited,
            Some(_) => Kind::Tcp,
        }
    }
}

impl Sockets {
    /// Returns the listener on an address, which is one of `all`, with these settings.
    pub(super) fn apply(&self, mut listener: Listener, address: &str, all: &[String]) -> Listener {
        // A flag that fits none of them is refused by the library, which says why.
        let fits = |kinds: &[Kind]| {
            let fits = |address: &str| kinds.contains(&Kind::of(address));
            fits(address) || !all.iter().any(|it| fits(it))
        };
        if let Some(mode) = self.socket_mode.filter(|_| fits(&[Kind::File])) {
            listener = listener.mode(mode);
        }
        if let Some(owner) = self.socket_owner.as_ref().filter(|_| fits(&[Kind::File])) {
            listener = listener.owner(owner);
        }
        if let Some(v6only) = self.v6only.filter(|_| fits(&[Kind::Tcp])) {
            listener = listener.v6only(v6only);
        }
        if fits(&[Kind::Tcp, Kind::Inherited]) {
            if !self.allow.is_empty() {
                listener = listener.allow(&self.allow);
            }
            if !self.deny.is_empty() {
                listener = listener.deny(&self.deny);
            }
            if self.defer_accept.is_some() {
                listener = listener.defer_accept(self.defer_accept);
            }
        }
        if let Some(connections) = self.max_new_per_second {
            listener = listener.max_new_per_second(connections);
        }
        if let Some((v4, v6)) = self.address_prefix {
            listener = listener.address_prefix(v4, v6);
        }
        if let Some(bytes) = self.receive_buffer {
            listener = listener.receive_buffer(bytes);
        }
        match self.send_buffer {
            Some(bytes) => listener.send_buffer(bytes),
            None => listener,
        }
    }
}

/// An address to listen on: of TCP, of a unix socket, or what is inherited. The library looks at it further.
pub(super) fn listening(text: &str) -> Result<String, String> {
    let has_zone = text.starts_with('[') && text.contains('%');
    match Kind::of(text) {
        Kind::File | Kind::Abstract => Ok(text.to_owned()),
        Kind::Inherited if text == "systemd" || text.contains(':') => Ok(text.to_owned()),
        Kind::Tcp if has_zone => Ok(text.to_owned()),
        Kind::Tcp | Kind::Inherited => place(text).map_err(|problem| {
            format!("{problem}, or unix:PATH, unix:@NAME, fd:NUMBER, systemd or systemd:NAME")
        }),
    }
}

fn octal(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode @ 0..=0o777) => Ok(mode),
        Ok(_) | Err(_) => Err("expected permissions in octal digits, such as 660".to_owned()),
    }
}

fn prefix(text: &str) -> Result<(u8, u8), String> {
    let both = text.split_once(',').and_then(|(v4, v6)| {
        let v4 = v4.parse().ok().filter(|bits| (1..=32).contains(bits));
        let v6 = v6.parse().ok().filter(|bits| (1..=128).contains(bits));
        v4.zip(v6)
    });
    both.ok_or_else(|| "expected two numbers, 1 to 32 and 1 to 128, such as 24,48".to_owned())
}
