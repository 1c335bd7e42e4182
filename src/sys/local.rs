//! Packets between processes of one machine: unix(7) sockets of type SOCK_SEQPACKET, with abstract
//! names, which are in no file system and vanish with their process.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, UnixAddr, accept4, bind, connect,
    getsockopt, listen, recv, send, socket,
};

use super::fault::{self, Call};

/// A listening socket, at which other processes can ask for packets.
pub(crate) struct LocalListener(OwnedFd);

/// One end of a connection.
pub(crate) struct LocalSocket(OwnedFd);

/// The process at the other end, as it was when it connected, or when it began to listen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Peer {
    pub(crate) pid: i32,
    pub(crate) uid: u32,
}

fn packets(flags: SockFlag) -> io::Result<OwnedFd> {
    let flags = flags | SockFlag::SOCK_CLOEXEC;
    fault::check(Call::Socket)?;
    Ok(socket(
        AddressFamily::Unix,
        SockType::SeqPacket,
        flags,
        None,
    )?)
}

impl LocalListener {
    /// # Errors
    /// AddrInUse if another socket in this network namespace has the name.
    pub(crate) fn bind(name: &str) -> io::Result<LocalListener> {
        let fd = packets(SockFlag::SOCK_NONBLOCK)?;
        bind(fd.as_raw_fd(), &UnixAddr::new_abstract(name.as_bytes())?)?;
        listen(&fd, Backlog::new(16)?)?;
        Ok(LocalListener(fd))
    }

    /// Returns the next connection, if there is one.
    pub(crate) fn accept(&self) -> io::Result<Option<LocalSocket>> {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        match fault::check(Call::Accept4).and_then(|()| accept4(self.0.as_raw_fd(), flags)) {
            // SAFETY: the kernel has just made the descriptor, and nobody else knows of it.
            Ok(fd) => Ok(Some(LocalSocket(unsafe {
                std::os::fd::FromRawFd::from_raw_fd(fd)
            }))),
            Err(nix::Error::EAGAIN | nix::Error::ECONNABORTED | nix::Error::EINTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for LocalListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl LocalSocket {
    /// # Errors
    /// ConnectionRefused if no socket has that name, WouldBlock if too many connections wait there.
    pub(crate) fn connect(name: &str) -> io::Result<LocalSocket> {
        let fd = packets(SockFlag::SOCK_NONBLOCK)?;
        connect(fd.as_raw_fd(), &UnixAddr::new_abstract(name.as_bytes())?)?;
        Ok(LocalSocket(fd))
    }

    pub(crate) fn peer(&self) -> io::Result<Peer> {
        let credentials = getsockopt(&self.0, PeerCredentials)?;
        Ok(Peer {
            pid: credentials.pid(),
            uid: credentials.uid(),
        })
    }

    /// Sends one packet. Never waits.
    ///
    /// # Errors
    /// WouldBlock when the other side has too many packets unread.
    pub(crate) fn send(&self, packet: &[u8]) -> io::Result<()> {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        fault::check(Call::Send)?;
        send(self.0.as_raw_fd(), packet, flags)?;
        Ok(())
    }

    /// Waits for a packet, at most for `patience`; returns `None` when the other side has closed.
    ///
    /// # Errors
    /// WouldBlock when no packet has come.
    pub(crate) fn receive<'a>(
        &self,
        buffer: &'a mut [u8],
        patience: Duration,
    ) -> io::Result<Option<&'a [u8]>> {
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
        if poll(&mut fds, timeout)? == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        fault::check(Call::Recv)?;
        match recv(self.0.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT)? {
            0 => Ok(None),
            size => Ok(Some(&buffer[..size])),
        }
    }
}

impl AsFd for LocalSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    #[test]
    fn packets_come_whole_and_say_who_has_sent_them() {
        let name = format!("tine-test/{}", std::process::id());
        let listener = LocalListener::bind(&name).unwrap();
        let taken = LocalListener::bind(&name).map(drop).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
        let client = LocalSocket::connect(&name).unwrap();
        let server = listener.accept().unwrap().expect("a visitor");
        assert!(listener.accept().unwrap().is_none());
        let own = std::process::id() as i32;
        assert_eq!(server.peer().unwrap().pid, own);
        assert_eq!(client.peer().unwrap().pid, own);
        server.send(b"one").unwrap();
        server.send(b"two").unwrap();
        drop(server);
        let mut buffer = [0; 16];
        assert_eq!(
            client.receive(&mut buffer, PATIENCE).unwrap(),
            Some(&b"one"[..])
        );
        assert_eq!(
            client.receive(&mut buffer, PATIENCE).unwrap(),
            Some(&b"two"[..])
        );
        assert_eq!(client.receive(&mut buffer, PATIENCE).unwrap(), None);
        drop(listener);
        let gone = LocalSocket::connect(&name).map(drop).unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn who_does_not_read_is_not_waited_for() {
        let name = format!("tine-test/{}/full", std::process::id());
        let listener = LocalListener::bind(&name).unwrap();
        let client = LocalSocket::connect(&name).unwrap();
        let server = listener.accept().unwrap().expect("a visitor");
        let mut sent = 0;
        let error = loop {
            match server.send(&[7; 4096]) {
                Ok(()) => sent += 1,
                Err(error) => break error,
            }
            assert!(sent < 100_000);
        };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        let mut byte = [0; 1];
        let nothing = client.receive(&mut byte, Duration::ZERO);
        assert!(nothing.is_ok());
    }
}
