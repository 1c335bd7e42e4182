//! One end of a connection, or a listener, that an experiment drives.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::picture::Side;
use super::record::{Caller, Does, Journal};
use crate::sockets::State;

/// The two addresses of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ends {
    pub(crate) client: SocketAddr,
    pub(crate) server: SocketAddr,
}

/// The expected state of one end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Expected {
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    pub(crate) side: Side,
    /// `None`: the kernel no longer has the socket.
    pub(crate) state: Option<State>,
    /// The role of a process that must hold the socket, where that matters.
    pub(crate) holder: Option<&'static str>,
}

impl Expected {
    pub(crate) fn held_by(self, role: &'static str) -> Expected {
        let holder = Some(role);
        Expected { holder, ..self }
    }
}

impl Ends {
    pub(crate) fn client_is(self, state: impl Into<Option<State>>) -> Expected {
        Expected {
            local: self.client,
            remote: self.server,
            side: Side::Client,
            state: state.into(),
            holder: None,
        }
    }

    pub(crate) fn server_is(self, state: impl Into<Option<State>>) -> Expected {
        Expected {
            local: self.server,
            remote: self.client,
            side: Side::Server,
            state: state.into(),
            holder: None,
        }
    }

    /// Returns the address of that side, and that of the other side.
    pub(crate) fn of(self, side: Side) -> (SocketAddr, SocketAddr) {
        match side {
            Side::Client => (self.client, self.server),
            Side::Server => (self.server, self.client),
        }
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = match self.side {
            Side::Client => "client",
            Side::Server => "server",
        };
        write!(f, "{side} {}", self.state.map_or("gone", State::name))
    }
}

/// A non-blocking socket of this process. Dropping it closes the connection.
#[derive(Debug)]
pub(crate) struct End {
    socket: Socket,
    pub(crate) ends: Ends,
    pub(crate) side: Side,
    /// Its calls are written there, if it is recorded.
    journal: Option<Journal>,
    /// It is closed with RST.
    aborts: bool,
}

impl End {
    /// Makes a client that has a port and is not connected yet, so that it can be recorded from its first
    /// SYN on.
    pub(crate) fn client(from: SocketAddr, server: SocketAddr) -> io::Result<End> {
        let socket = stream(from)?;
        socket.set_reuse_address(from.port() != 0)?;
        socket.bind(&from.into())?;
        let client = address(socket.local_addr()?)?;
        Ok(End {
            socket,
            ends: Ends { client, server },
            side: Side::Client,
            journal: None,
            aborts: false,
        })
    }

    /// Makes a client that is connecting; the kernel has chosen its port at connect, knowing the
    /// destination. `prepare` sets socket options before that.
    pub(crate) fn unbound(
        server: SocketAddr,
        prepare: impl FnOnce(&Socket) -> io::Result<()>,
    ) -> io::Result<End> {
        let socket = stream(server)?;
        prepare(&socket)?;
        let mut end = End {
            socket,
            ends: Ends {
                client: server,
                server,
            },
            side: Side::Client,
            journal: None,
            aborts: false,
        };
        end.connect()?;
        end.ends.client = address(end.socket.local_addr()?)?;
        Ok(end)
    }

    /// Writes its calls there, from now on.
    pub(crate) fn record(&mut self, journal: &Journal) {
        self.journal = Some(journal.clone());
    }

    /// Writes a call of this end that began then, and has returned.
    pub(crate) fn did(&self, does: Does, began: Instant) {
        if let Some(journal) = &self.journal {
            journal.did(Caller::End(self.ends, self.side), does, began);
        }
    }

    /// Begins to connect, without waiting.
    pub(crate) fn connect(&self) -> io::Result<()> {
        let began = Instant::now();
        let outcome = match self.socket.connect(&self.ends.server.into()) {
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(()),
            other => other,
        };
        // Also where it is refused: a SYN was sent.
        self.did(Does::Connect, began);
        outcome
    }

    /// Whether it is connected by now.
    pub(crate) fn is_connected(&self) -> io::Result<bool> {
        if let Some(error) = self.socket.take_error()? {
            return Err(error);
        }
        match self.socket.peer_addr() {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        let began = Instant::now();
        let sent = (&self.socket).write(bytes)?;
        self.did(Does::Send(sent as u32), began);
        Ok(sent)
    }

    /// Reads available bytes: returns `None` if there are none yet, and zero at the peer's FIN.
    pub(crate) fn read(&self, into: &mut [u8]) -> io::Result<Option<usize>> {
        let began = Instant::now();
        match (&self.socket).read(into) {
            Ok(size) => {
                let does = match size {
                    0 => Does::ReadEnd,
                    size => Does::Read(size as u32),
                };
                self.did(does, began);
                Ok(Some(size))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns the error that its kernel has for the program, once: `SO_ERROR`, socket(7).
    pub(crate) fn error(&self) -> io::Result<Option<io::Error>> {
        self.socket.take_error()
    }

    /// Sends a FIN: this end sends nothing more, and can still read.
    pub(crate) fn finish_writing(&self) -> io::Result<()> {
        let began = Instant::now();
        self.socket.shutdown(Shutdown::Write)?;
        self.did(Does::FinishWriting, began);
        Ok(())
    }

    /// Closes with RST instead of FIN: `SO_LINGER` of zero seconds, socket(7).
    pub(crate) fn close_with_reset(mut self) -> io::Result<()> {
        self.socket.set_linger(Some(Duration::ZERO))?;
        self.aborts = true;
        Ok(())
    }
}

impl Drop for End {
    fn drop(&mut self) {
        if let Some(journal) = &self.journal {
            let does = if self.aborts {
                Does::Abort
            } else {
                Does::Close
            };
            journal.does(Caller::End(self.ends, self.side), does);
        }
    }
}

impl AsFd for End {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A listener of this process.
#[derive(Debug)]
pub(crate) struct Listening {
    socket: Socket,
    pub(crate) address: SocketAddr,
    journal: Option<Journal>,
}

/// Options of a listener's bind, socket(7).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Sharing {
    /// `SO_REUSEADDR`
    pub(crate) reuse_address: bool,
    /// `SO_REUSEPORT`
    pub(crate) reuse_port: bool,
}

impl Listening {
    pub(crate) fn bind(at: SocketAddr, backlog: i32, sharing: Sharing) -> io::Result<Listening> {
        let socket = stream(at)?;
        socket.set_reuse_address(sharing.reuse_address)?;
        socket.set_reuse_port(sharing.reuse_port)?;
        socket.bind(&at.into())?;
        socket.listen(backlog)?;
        let address = address(socket.local_addr()?)?;
        Ok(Listening {
            socket,
            address,
            journal: None,
        })
    }

    /// Writes its calls there, and those of the ends that it accepts, from now on.
    pub(crate) fn record(&mut self, journal: &Journal) {
        self.journal = Some(journal.clone());
    }

    /// Returns the server's end of the next connection, if one is in the queue.
    pub(crate) fn accept(&self) -> io::Result<Option<End>> {
        let began = Instant::now();
        match self.socket.accept() {
            Ok((socket, peer)) => {
                socket.set_nonblocking(true)?;
                let ends = Ends {
                    client: address(peer)?,
                    server: self.address,
                };
                let end = End {
                    socket,
                    ends,
                    side: Side::Server,
                    journal: self.journal.clone(),
                    aborts: false,
                };
                end.did(Does::Accept, began);
                Ok(Some(end))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        if let Some(journal) = &self.journal {
            journal.does(Caller::Listener(self.address), Does::Close);
        }
    }
}

impl AsFd for Listening {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Makes a non-blocking TCP socket for the family of this address.
pub(crate) fn stream(of: SocketAddr) -> io::Result<Socket> {
    let kind = Type::STREAM.nonblocking();
    Socket::new(Domain::for_address(of), kind, Some(Protocol::TCP))
}

fn address(address: SockAddr) -> io::Result<SocketAddr> {
    address
        .as_socket()
        .ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
}
