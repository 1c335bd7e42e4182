//! The server that is put under load.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;

use socket2::{Domain, SockAddr};

/// An address to connect to.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    Tcp(SocketAddr),
    /// The path of a unix socket, or `@` and an abstract name.
    Unix(OsString),
}

impl Target {
    pub(super) fn domain(&self) -> Domain {
        match self {
            Target::Tcp(address) => Domain::for_address(*address),
            Target::Unix(_) => Domain::UNIX,
        }
    }

    pub(super) fn to_kernel(&self) -> io::Result<SockAddr> {
        match self {
            Target::Tcp(address) => Ok((*address).into()),
            Target::Unix(name) => match name.as_bytes() {
                [b'@', name @ ..] => SockAddr::unix(OsStr::from_bytes(&[b"\0", name].concat())),
                path => SockAddr::unix(OsStr::from_bytes(path)),
            },
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Tcp(address) => address.fmt(f),
            Target::Unix(name) => write!(f, "unix:{}", name.display()),
        }
    }
}
