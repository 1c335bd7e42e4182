//! One client: a connection with up to `depth` questions under way, and a look at every byte of every answer.
//!
//! Its one rule: nothing here waits. The crowd that it belongs to does.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::poll::PollFlags;
use socket2::{Domain, Socket, Type};

use super::speech::Speech;
use super::tally::Harm;

/// An answer that takes longer is lost.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The most bytes that are read from one connection before the next one has its turn.
const TURN: usize = 1 << 20;

pub(crate) struct Asker {
    socket: TcpStream,
    speech: Speech,
    depth: usize,
    /// Questions that the kernel has not taken yet, from `written` on.
    unsent: Vec<u8>,
    written: usize,
    asked: u64,
    /// Bytes of right answers.
    heard: u64,
    /// The beginning of a header that can't be judged yet.
    pending: Vec<u8>,
    /// The times at which the outstanding questions were asked.
    under_way: VecDeque<Instant>,
    half_closed: Option<Instant>,
    /// The server takes no more questions. Its answers may still come.
    mute: bool,
    /// The number of questions that had reached the server before it was asked to end.
    promised: Option<u64>,
}

/// The result of a read.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    pub(crate) answers: u64,
    pub(crate) longest_gap: Duration,
    /// Whether the connection has ended, and how.
    pub(crate) end: Option<Result<(), Harm>>,
}

/// Returns a socket with one of many loopback addresses, so that many connections do not run out of ports.
pub(crate) fn new_socket(number: u32) -> io::Result<Socket> {
    let host = u8::try_from(number % 50 + 2).unwrap_or(2);
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((IpAddr::V4(Ipv4Addr::new(127, 0, 0, host)), 0)).into())?;
    Ok(socket)
}

impl Asker {
    pub(crate) fn connect(server: SocketAddr, speech: Speech, depth: usize) -> io::Result<Self> {
        let socket = new_socket(speech.connection)?;
        socket.connect_timeout(&server.into(), PATIENCE)?;
        socket.set_tcp_nodelay(true)?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket: socket.into(),
            speech,
            depth,
            unsent: Vec::new(),
            written: 0,
            asked: 0,
            heard: 0,
            pending: Vec::new(),
            under_way: VecDeque::new(),
            half_closed: None,
            mute: false,
            promised: None,
        })
    }

    pub(crate) fn connection(&self) -> u32 {
        self.speech.connection
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub(crate) fn interest(&self) -> PollFlags {
        if self.has_unsent() {
            PollFlags::POLLIN | PollFlags::POLLOUT
        } else {
            PollFlags::POLLIN
        }
    }

    fn has_unsent(&self) -> bool {
        self.written < self.unsent.len() && !self.mute
    }

    pub(crate) fn answered(&self) -> u64 {
        self.heard / self.speech.size as u64
    }

    pub(crate) fn asked(&self) -> u64 {
        self.asked
    }

    fn outstanding(&self) -> u64 {
        self.under_way.len() as u64
    }

    // Asking.

    /// Asks until `depth` questions are under way, all at once, so that small questions share segments.
    pub(crate) fn ask(&mut self) {
        if self.has_unsent() || self.half_closed.is_some() || self.mute {
            return;
        }
        self.unsent.clear();
        self.written = 0;
        while self.under_way.len() < self.depth {
            self.speech.say(self.asked, &mut self.unsent);
            self.under_way.push_back(Instant::now());
            self.asked += 1;
        }
        self.write();
    }

    /// Writes as much as the kernel takes. A broken connection is noticed by reading: answers may come before its end.
    pub(crate) fn write(&mut self) {
        while self.has_unsent() {
            match self.socket.write(&self.unsent[self.written..]) {
                Ok(written) => self.written += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => self.mute = true,
            }
        }
    }

    /// Says that nothing more will be asked, once all is answered.
    pub(crate) fn leave(&mut self) {
        if self.under_way.is_empty() && self.half_closed.is_none() {
            // Fails when the server has ended the connection, which reading notices.
            let _ = self.socket.shutdown(Shutdown::Write);
            self.half_closed = Some(Instant::now());
        }
    }

    /// Says that nothing more will be asked, with the answers still to come.
    pub(crate) fn leave_early(&mut self) {
        if self.half_closed.is_none() && !self.has_unsent() {
            let _ = self.socket.shutdown(Shutdown::Write);
            self.half_closed = Some(Instant::now());
        }
    }

    // The end of the server.

    /// Notes the questions that have reached the server, which is about to end. Returns the number of those that are not
    /// answered yet.
    pub(crate) fn hold_to(&mut self) -> u64 {
        let asked = self.asked * self.speech.size as u64;
        let unsent = (self.unsent.len() - self.written) as u64;
        let arrived = asked - unsent - self.unacknowledged();
        let promised = arrived / self.speech.size as u64;
        self.promised = Some(promised);
        promised.saturating_sub(self.answered())
    }

    /// Returns whether all questions have reached the server.
    pub(crate) fn has_arrived(&self) -> bool {
        !self.has_unsent() && self.unacknowledged() == 0
    }

    /// Bytes that the kernel has taken and the peer's kernel has not acknowledged, `SIOCOUTQ` of tcp(7).
    #[allow(unsafe_code)] // nix has no call for it.
    fn unacknowledged(&self) -> u64 {
        let mut bytes: libc::c_int = 0;
        // SAFETY: the request, under its terminal's name, writes one int, which lives until the call returns.
        let asked = unsafe { libc::ioctl(self.socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
        assert_eq!(asked, 0, "SIOCOUTQ: {}", io::Error::last_os_error());
        u64::try_from(bytes).unwrap_or(0)
    }

    // Listening.

    /// Reads the bytes that have come, `TURN` at most. `framed`: the server knows where a message ends.
    pub(crate) fn hear(&mut self, buffer: &mut [u8], framed: bool) -> Heard {
        let mut heard = Heard::default();
        let mut left = TURN;
        while left > 0 && heard.end.is_none() {
            let kept = self.pending.len();
            buffer[..kept].copy_from_slice(&self.pending);
            match self.socket.read(&mut buffer[kept..]) {
                Ok(0) => heard.end = Some(self.judge_end(None, framed)),
                Ok(read) => {
                    left = left.saturating_sub(read);
                    if let Err(harm) = self.judge(&buffer[..kept + read], &mut heard) {
                        heard.end = Some(Err(harm));
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => heard.end = Some(self.judge_end(Some(error), framed)),
            }
        }
        heard
    }

    fn judge(&mut self, came: &[u8], heard: &mut Heard) -> Result<(), Harm> {
        let before = self.answered();
        let judged = self.speech.judge(&mut self.heard, came);
        let now = Instant::now();
        for _ in before..self.answered() {
            // Never `now`: no server can guess the right answer to a question that was not asked.
            let asked = self.under_way.pop_front().unwrap_or(now);
            heard.longest_gap = heard.longest_gap.max(now - asked);
            heard.answers += 1;
        }
        let taken = judged.map_err(Harm::Wrong)?;
        self.pending.clear();
        self.pending.extend_from_slice(&came[taken..]);
        Ok(())
    }

    fn judge_end(&self, error: Option<io::Error>, framed: bool) -> Result<(), Harm> {
        let torn = self.heard % self.speech.size as u64 + self.pending.len() as u64;
        let outstanding = match self.promised {
            Some(promised) => promised.saturating_sub(self.answered()),
            None => self.outstanding(),
        };
        if outstanding > 0 {
            Err(Harm::Dropped {
                owed: outstanding,
                error,
            })
        } else if torn > 0 && framed {
            Err(Harm::Torn { bytes: torn })
        } else if self.promised.is_some() || (self.half_closed.is_some() && error.is_none()) {
            Ok(())
        } else {
            Err(Harm::Dropped {
                owed: outstanding,
                error,
            })
        }
    }

    /// Returns the answer or the end that has not come in time, if any.
    pub(crate) fn overdue(&self, now: Instant) -> Option<Harm> {
        let is_long_ago = |then: &Instant| now.saturating_duration_since(*then) > PATIENCE;
        if self.under_way.front().is_some_and(is_long_ago) {
            return Some(Harm::Late {
                owed: self.outstanding(),
            });
        }
        let left = self.half_closed.as_ref().is_some_and(is_long_ago);
        (left && self.under_way.is_empty()).then_some(Harm::NotClosed)
    }
}
