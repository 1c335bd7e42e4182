//! One client: what it has sent, what has come back, and what of it is owed.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use socket2::{Domain, SockRef, Socket, Type};

use super::bytes::{PIECE, Stream};
use crate::sys::socket::{self, Read};

/// A client that has a connection, or is about to.
pub(super) struct Client {
    socket: OwnedFd,
    /// Where its stream of bytes begins.
    number: usize,
    /// The connection stands.
    pub(super) is_open: bool,
    /// epoll tells when there is room to write.
    pub(super) wants_room: bool,
    /// Bytes that are to be sent in all, that were sent, and that have come back.
    asked: u64,
    sent: u64,
    received: u64,
    /// When each message that is not answered was due, in nanoseconds of the run.
    due: VecDeque<u64>,
    /// Messages that were answered.
    pub(super) answered: u64,
}

/// What came of looking at a client.
pub(super) enum Progress {
    /// So many of its messages are answered since.
    Answered(usize),
    /// It is over, and why.
    Lost(Loss),
}

/// Why a client could not go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Loss {
    /// It was not let in.
    Refused(Errno),
    /// The server closed although it owed nothing, or owed a reply.
    Closed,
    /// The server reset the connection, or the kernel gave up.
    Broken(Errno),
    /// What came back is not what was sent, from this byte of the stream on.
    Wrong(u64),
}

impl Client {
    /// Begins to connect. To a loopback address clients come from many addresses, so that ports that
    /// are in TIME_WAIT do not run out.
    pub(super) fn connect(server: SocketAddr, number: usize) -> io::Result<Client> {
        let kind = Type::STREAM.nonblocking().cloexec();
        let socket = Socket::new(Domain::for_address(server), kind, None)?;
        socket.set_tcp_nodelay(true)?;
        if let SocketAddr::V4(v4) = server
            && v4.ip().is_loopback()
        {
            // Without this the kernel would look for a port that is free for every peer.
            nix::sys::socket::setsockopt(
                &socket,
                nix::sys::socket::sockopt::IpBindAddressNoPort,
                &true,
            )?;
            let host = Ipv4Addr::new(127, 1, (number / 250 % 250) as u8, (number % 250 + 1) as u8);
            socket.bind(&SocketAddr::from((IpAddr::V4(host), 0)).into())?;
        }
        match socket.connect(&server.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
            Err(error) => return Err(error),
        }
        Ok(Client {
            socket: socket.into(),
            number,
            is_open: false,
            wants_room: true,
            asked: 0,
            sent: 0,
            received: 0,
            due: VecDeque::new(),
            answered: 0,
        })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Whether the connection stands now, or why it never will.
    pub(super) fn opened(&mut self) -> Result<(), Loss> {
        let socket = SockRef::from(&self.socket);
        match socket.take_error() {
            Ok(None) => {
                self.is_open = true;
                Ok(())
            }
            Ok(Some(error)) | Err(error) => Err(Loss::Refused(errno(&error))),
        }
    }

    /// Another message of `size` bytes is due.
    pub(super) fn ask(&mut self, size: usize, due: u64) {
        self.asked += size as u64;
        self.due.push_back(due);
    }

    /// How many messages have no reply that were due from this time on.
    pub(super) fn owed_since(&self, time: u64) -> usize {
        self.due.iter().filter(|due| **due >= time).count()
    }

    pub(super) fn all_is_sent(&self) -> bool {
        self.sent == self.asked
    }

    /// Sends what the kernel takes of what is to be sent.
    pub(super) fn send(&mut self, stream: &Stream) -> Result<(), Loss> {
        while self.sent < self.asked {
            let left = (self.asked - self.sent).min(PIECE as u64) as usize;
            let piece = stream.at(self.number, self.sent, left);
            match socket::write(self.socket.as_fd(), piece) {
                Ok(Some(n)) => {
                    self.sent += n as u64;
                    if n < piece.len() {
                        return Ok(());
                    }
                }
                Ok(None) => return Ok(()),
                Err(error) => return Err(Loss::Broken(errno(&error))),
            }
        }
        Ok(())
    }

    /// Reads once and compares. `answered` is told of each message that is whole, with when it was due.
    pub(super) fn receive(
        &mut self,
        stream: &Stream,
        size: usize,
        buffer: &mut Vec<u8>,
        mut answered: impl FnMut(u64),
    ) -> Progress {
        buffer.clear();
        match socket::read_to_end_of(self.socket.as_fd(), buffer, PIECE) {
            Read::Bytes(_) => {}
            Read::Nothing => return Progress::Answered(0),
            Read::End => return Progress::Lost(Loss::Closed),
            Read::Broken(error) => return Progress::Lost(Loss::Broken(errno(&error))),
        }
        let expected = stream.at(self.number, self.received, buffer.len());
        let too_much = self.received + buffer.len() as u64 > self.sent;
        if too_much || expected != buffer.as_slice() {
            let same = expected
                .iter()
                .zip(buffer.iter())
                .take_while(|(a, b)| a == b);
            return Progress::Lost(Loss::Wrong(self.received + same.count() as u64));
        }
        let before = self.received / size as u64;
        self.received += buffer.len() as u64;
        let whole = (self.received / size as u64 - before) as usize;
        self.due.drain(..whole).for_each(&mut answered);
        self.answered += whole as u64;
        Progress::Answered(whole)
    }
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(0))
}
