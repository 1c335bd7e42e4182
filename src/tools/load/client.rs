//! One client: its socket, and its messages that are to be sent, outstanding or answered.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send};
use socket2::{SockRef, Socket, Type};

use super::Plan;
use super::bytes::{PIECE, Stream};
use super::target::Target;
use crate::sys::options::bind_without_port;

/// Without blocking, and without SIGPIPE on a broken connection.
const SEND: MsgFlags = MsgFlags::MSG_DONTWAIT.union(MsgFlags::MSG_NOSIGNAL);

/// A client that is connected or connecting.
pub(super) struct Client {
    socket: OwnedFd,
    /// Selects the place in the stream of bytes where this client begins.
    number: usize,
    /// The connection is established.
    pub(super) is_open: bool,
    /// EPOLLOUT is set: epoll reports room to write.
    pub(super) wants_room: bool,
    /// Bytes of a message.
    size: u64,
    /// Maximum of messages that this client sends.
    most: u64,
    /// Bytes that were sent.
    sent: u64,
    /// Bytes that have come back.
    received: u64,
    /// For each message without a reply, the time when it was due, in nanoseconds of the run. In an open
    /// loop, messages past `most` wait for the client that takes this one's place.
    due: VecDeque<u64>,
    /// Number of messages that were answered.
    answered: u64,
}

/// Why a client was lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Loss {
    /// The connection could not be made.
    Refused(Errno),
    /// The server closed the connection.
    Closed,
    /// The server reset the connection, or the kernel gave up.
    Broken(Errno),
    /// Other bytes came back than were sent.
    Wrong(Wrong),
}

/// The place at which an answer is wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Wrong {
    /// The first wrong byte of the stream.
    at: u64,
    came: Sample,
    due: Sample,
}

/// A few bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Sample {
    bytes: [u8; Sample::MOST],
    length: usize,
}

impl Sample {
    const MOST: usize = 24;

    fn of(bytes: &[u8]) -> Sample {
        let length = bytes.len().min(Sample::MOST);
        let mut sample = Sample {
            bytes: [0; Sample::MOST],
            length,
        };
        sample.bytes[..length].copy_from_slice(&bytes[..length]);
        sample
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let came = self.came.bytes().escape_ascii();
        write!(f, "wrong from byte {} on: \"{came}\" came where ", self.at)?;
        match self.due.bytes() {
            [] => write!(f, "nothing was due"),
            due => write!(f, "\"{}\" was due", due.escape_ascii()),
        }
    }
}

impl Client {
    /// Begins to connect, with messages that are due already. To a loopback address, clients connect from
    /// many addresses, so that ports in TIME_WAIT do not use up all ports.
    pub(super) fn connect(plan: &Plan, number: usize, due: VecDeque<u64>) -> io::Result<Client> {
        let kind = Type::STREAM.nonblocking().cloexec();
        let socket = Socket::new(plan.server.domain(), kind, None)?;
        if let Target::Tcp(_) = plan.server {
            socket.set_tcp_nodelay(true)?;
        }
        if let Target::Tcp(SocketAddr::V4(v4)) = plan.server
            && v4.ip().is_loopback()
        {
            // Otherwise the kernel would look for a port that is free for every peer.
            bind_without_port(&socket)?;
            let host = Ipv4Addr::new(127, 1, (number / 250 % 250) as u8, (number % 250 + 1) as u8);
            socket.bind(&SocketAddr::from((IpAddr::V4(host), 0)).into())?;
        }
        match socket.connect(&plan.server.to_kernel()?) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
            Err(error) => return Err(error),
        }
        Ok(Client {
            socket: socket.into(),
            number,
            is_open: false,
            wants_room: true,
            size: plan.size as u64,
            most: plan.messages_each.unwrap_or(u64::MAX),
            sent: 0,
            received: 0,
            due,
            answered: 0,
        })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Returns whether the connection is established, or why it failed.
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

    /// Adds a message that is due.
    pub(super) fn ask(&mut self, due: u64) {
        self.due.push_back(due);
    }

    /// Returns the number of messages without a reply.
    pub(super) fn outstanding(&self) -> usize {
        self.due.len()
    }

    /// Returns the number of further messages that it may be asked for.
    pub(super) fn left(&self) -> u64 {
        self.most.saturating_sub(self.asked())
    }

    /// Whether the last message of this client is answered.
    pub(super) fn is_done(&self) -> bool {
        self.answered >= self.most
    }

    /// Closes the connection, and returns the times when its messages without a reply were due.
    pub(super) fn close(self) -> VecDeque<u64> {
        self.due
    }

    /// Returns the times when its messages without a reply were due.
    pub(super) fn unanswered(&self) -> impl Iterator<Item = u64> {
        self.due.iter().copied()
    }

    fn asked(&self) -> u64 {
        self.answered + self.due.len() as u64
    }

    fn to_send(&self) -> u64 {
        self.asked().min(self.most).saturating_mul(self.size)
    }

    pub(super) fn all_is_sent(&self) -> bool {
        self.sent == self.to_send()
    }

    /// Sends as many of the due bytes as the kernel takes.
    pub(super) fn send(&mut self, stream: &Stream) -> Result<(), Loss> {
        let all = self.to_send();
        while self.sent < all {
            let left = (all - self.sent).min(PIECE as u64) as usize;
            let piece = stream.at(self.number, self.sent, left);
            match send(self.socket.as_raw_fd(), piece, SEND) {
                Ok(n) => {
                    self.sent += n as u64;
                    if n < piece.len() {
                        return Ok(());
                    }
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(()),
                Err(error) => return Err(Loss::Broken(error)),
            }
        }
        Ok(())
    }

    /// Reads once and compares. Returns the number of replies that this completed, to be
    /// [taken](Self::take).
    pub(super) fn receive(&mut self, stream: &Stream, buffer: &mut [u8]) -> Result<usize, Loss> {
        let received = loop {
            match recv(self.socket.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(0) => return Err(Loss::Closed),
                Ok(n) => break &buffer[..n],
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(0),
                Err(error) => return Err(Loss::Broken(error)),
            }
        };
        let expected = stream.at(self.number, self.received, received.len());
        let too_much = self.received + received.len() as u64 > self.sent;
        if too_much || expected != received {
            let same = expected.iter().zip(received).take_while(|(a, b)| a == b);
            // The client has sent no more than `due`.
            let due = expected.len().min((self.sent - self.received) as usize);
            let same = same.count().min(due);
            return Err(Loss::Wrong(Wrong {
                at: self.received + same as u64,
                came: Sample::of(&received[same..]),
                due: Sample::of(&expected[same..due]),
            }));
        }
        let before = self.received / self.size;
        self.received += received.len() as u64;
        Ok((self.received / self.size - before) as usize)
    }

    /// Removes the first `answered` messages, which are answered, and returns the times when they were due.
    pub(super) fn take(&mut self, answered: usize) -> impl Iterator<Item = u64> {
        self.answered += answered as u64;
        self.due.drain(..answered)
    }
}

pub(super) fn errno(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(0))
}
