//! A network namespace of this thread's own, whose only link can be cut. Needs CAP_SYS_ADMIN.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd;

use nix::sched::{CloneFlags, setns, unshare};

/// The loopback device of a namespace that was entered.
pub(crate) struct Link(());

/// Calls `work` in a new network namespace, whose loopback is up: this thread, and the threads and processes
/// that it starts meanwhile, see no other network. Sockets stay in the namespace in which they were made,
/// network_namespaces(7).
///
/// # Errors
/// PermissionDenied without CAP_SYS_ADMIN over the network that this thread is in.
pub(crate) fn apart<T>(work: impl FnOnce(&Link) -> T) -> io::Result<T> {
    let before = File::open("/proc/thread-self/ns/net")?;
    // Whether it may be entered again: root of a user namespace may make a network, and not enter one of the outside.
    setns(&before, CloneFlags::CLONE_NEWNET)?;
    unshare(CloneFlags::CLONE_NEWNET)?;
    let link = Link(());
    let done = link.set(true).map(|()| work(&link));
    setns(&before, CloneFlags::CLONE_NEWNET)?;
    done
}

impl Link {
    /// Cuts the link: from now on no segment leaves or arrives.
    pub(crate) fn cut(&self) -> io::Result<()> {
        self.set(false)
    }

    /// Sets whether the loopback device is up, netdevice(7).
    fn set(&self, up: bool) -> io::Result<()> {
        // Any socket of the namespace will do.
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        // SAFETY: an ifreq is plain data, for which zero is a value.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(b"lo\0") {
            *to = *from as libc::c_char;
        }
        let flag = libc::IFF_UP as libc::c_short;
        request.ifr_ifru.ifru_flags = if up { flag } else { 0 };
        let fd = socket.as_raw_fd();
        // SAFETY: the kernel reads the ifreq, which outlives the call; its name ends with a zero, and its
        // flags were written.
        match unsafe { libc::ioctl(fd, libc::SIOCSIFFLAGS, &raw const request) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_link_that_is_cut_carries_nothing_and_the_old_network_is_back_afterwards() {
        let outside = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = outside.local_addr().unwrap();
        let done = apart(|link| {
            assert!(TcpStream::connect(address).is_err());
            let inside = TcpListener::bind("127.0.0.1:0").unwrap();
            let mut client = TcpStream::connect(inside.local_addr().unwrap()).unwrap();
            let (server, _) = inside.accept().unwrap();
            link.cut().unwrap();
            client.write_all(b"x").unwrap();
            server.set_nonblocking(true).unwrap();
            let error = (&server).read(&mut [0]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        });
        match done {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                eprintln!("CAP_SYS_ADMIN is missing: {error}");
            }
            done => done.unwrap(),
        }
        TcpStream::connect(address).unwrap();
    }
}
