//! Addresses of sockets: of IP, and of unix(7). Stream sockets have them, and datagram sockets have the same.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use socket2::SockAddr;

/// The most bytes of the path of a unix socket, unix(7): a NUL follows it.
pub(crate) const LONGEST_PATH: usize = 107;

/// The address of a socket on this side.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Address {
    Ip(SocketAddr),
    Unix(UnixName),
}

/// The name of a unix socket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum UnixName {
    /// A file.
    Path(PathBuf),
    /// A name in no file system, which vanishes with its socket. Without the NUL before it.
    Abstract(Vec<u8>),
}

/// The other end of a connection, as the kernel knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Remote {
    Ip(SocketAddr),
    /// The process that has connected, as it was then: SO_PEERCRED, unix(7).
    Unix {
        pid: i32,
        uid: u32,
        gid: u32,
    },
}

impl Address {
    /// Returns the address in the form of the kernel.
    pub(crate) fn to_kernel(&self) -> io::Result<SockAddr> {
        match self {
            Address::Ip(address) => Ok((*address).into()),
            Address::Unix(UnixName::Path(path)) => SockAddr::unix(path),
            Address::Unix(UnixName::Abstract(name)) => {
                let mut path = vec![0];
                path.extend_from_slice(name);
                SockAddr::unix(OsStr::from_bytes(&path))
            }
        }
    }

    /// Reads an address of the kernel; `None` for one of another family, or of a socket without a name.
    pub(crate) fn of(address: &SockAddr) -> Option<Address> {
        if let Some(address) = address.as_socket() {
            return Some(Address::Ip(address));
        }
        let path = address.as_pathname().map(Path::to_owned);
        let name = path.map(UnixName::Path).or_else(|| {
            let name = address.as_abstract_namespace()?;
            Some(UnixName::Abstract(name.to_vec()))
        });
        name.map(Address::Unix)
    }

    /// Returns the IP address and the port; `None` for a unix socket.
    pub(crate) fn ip(&self) -> Option<SocketAddr> {
        match self {
            Address::Ip(address) => Some(*address),
            Address::Unix(_) => None,
        }
    }
}

impl UnixName {
    /// Reads a name as users write it: a path, or `@` and an abstract name.
    pub(crate) fn of(path: &Path) -> UnixName {
        match path.as_os_str().as_bytes() {
            [b'@', name @ ..] => UnixName::Abstract(name.to_vec()),
            _ => UnixName::Path(path.to_owned()),
        }
    }

    /// Returns the name as users write it.
    pub(crate) fn to_path(&self) -> PathBuf {
        match self {
            UnixName::Path(path) => path.clone(),
            UnixName::Abstract(name) => {
                std::ffi::OsString::from_vec([b"@", name.as_slice()].concat()).into()
            }
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Address {
        Address::Ip(address)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Ip(address) => address.fmt(f),
            Address::Unix(name) => name.fmt(f),
        }
    }
}

/// `unix:/run/app.sock`, `unix:@name`. Another program may have put anything into a name: it stays on one line.
impl fmt::Display for UnixName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unix:")?;
        for c in self.to_path().to_string_lossy().chars() {
            match c.is_control() {
                true => write!(f, "{}", c.escape_default())?,
                false => write!(f, "{c}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_survives_its_form_of_the_kernel() {
        for (address, text) in [
            (
                Address::Ip("[fe80::1%7]:80".parse().unwrap()),
                "[fe80::1%7]:80",
            ),
            (
                Address::Unix(UnixName::of("/run/app.sock".as_ref())),
                "unix:/run/app.sock",
            ),
            (
                Address::Unix(UnixName::of("@a name\n".as_ref())),
                r"unix:@a name\n",
            ),
        ] {
            let kernel = address.to_kernel().unwrap();
            assert_eq!(Address::of(&kernel), Some(address.clone()));
            assert_eq!(address.to_string(), text);
        }
        assert!(matches!(
            UnixName::of("./@name".as_ref()),
            UnixName::Path(_)
        ));
    }
}
