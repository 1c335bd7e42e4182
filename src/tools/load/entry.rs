//! How clients connect: all at the beginning, and later one in the place of another.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{EpollEvent, EpollFlags};

use super::Failure;
use super::client::{Client, Loss, errno};
use super::crowd::{BROKEN, Crowd, REPLIES_AND_ROOM, TICK};

/// Number of connections that are begun together: no more than an accept queue holds.
const AT_ONCE: usize = 256;

/// Time in which connections that were begun together must be established.
const CONNECT_DEADLINE: Duration = Duration::from_secs(30);

impl Crowd<'_> {
    /// Connects all clients, [`AT_ONCE`] at a time.
    pub(super) fn connect_all(&mut self) -> Result<(), Failure> {
        let all = self.plan.clients + self.plan.idle;
        while self.clients.len() < all {
            let more = AT_ONCE.min(all - self.clients.len());
            let first = self.clients.len();
            for token in first..first + more {
                self.clients.push(None);
                self.connect(token, VecDeque::new())?;
            }
            let begin = Instant::now();
            while self.is_connecting(first) {
                self.wait(TICK, |crowd, event| crowd.open(event))?;
                if self.takes_interruption() {
                    return Err(Failure::interrupted());
                }
                if begin.elapsed() > CONNECT_DEADLINE {
                    let seconds = CONNECT_DEADLINE.as_secs();
                    return Err(Failure(format!(
                        "{first} of {all} clients are connected to {}, but not all of the next {more} within \
                         {seconds} s",
                        self.plan.server
                    )));
                }
            }
            if let Some(first) = &self.tally.faults.first {
                return Err(Failure(format!(
                    "not all clients could connect to {}: {first}",
                    self.plan.server
                )));
            }
        }
        Ok(())
    }

    /// Whether a client from `first` on is not connected yet.
    fn is_connecting(&self, first: usize) -> bool {
        let mut clients = self.clients[first..].iter().flatten();
        clients.any(|client| !client.is_open)
    }

    /// Connects a client, with the messages that are due for it. A refusal is a fault of the server, and
    /// is counted.
    pub(super) fn connect(&mut self, token: usize, due: VecDeque<u64>) -> Result<(), Failure> {
        let number = self.numbers;
        self.numbers += 1;
        let outstanding = due.clone();
        let client = match Client::connect(self.plan, number, due) {
            Ok(client) => client,
            Err(error) => match errno(&error) {
                refused @ (Errno::ECONNREFUSED
                | Errno::ECONNRESET
                | Errno::EHOSTUNREACH
                | Errno::ENETUNREACH
                | Errno::ETIMEDOUT
                // A unix socket without a server, and one whose queue is full.
                | Errno::ENOENT
                | Errno::EAGAIN) => {
                    let (loss, now) = (Loss::Refused(refused), self.now());
                    self.tally.lost(token, loss, outstanding.into_iter(), now);
                    return Ok(());
                }
                Errno::EADDRNOTAVAIL => {
                    return Err(Failure(format!(
                        "cannot connect: every local port is in use by a connection to {}, or in \
                         TIME_WAIT; make fewer connections per second, or widen \
                         net.ipv4.ip_local_port_range",
                        self.plan.server
                    )));
                }
                _ => return Err(Failure::new("connect", error)),
            },
        };
        self.epoll
            .add(client.fd(), EpollEvent::new(REPLIES_AND_ROOM, token as u64))
            .map_err(|error| Failure::new("watch a connection", io::Error::from(error)))?;
        self.clients[token] = Some(client);
        Ok(())
    }

    /// Handles an event while clients connect: a connection is established, or failed.
    fn open(&mut self, event: EpollEvent) -> Result<(), Failure> {
        let token = event.data() as usize;
        let Some(client) = &mut self.clients[token] else {
            return Ok(());
        };
        if client.is_open {
            if event.events().intersects(EpollFlags::EPOLLRDHUP | BROKEN) {
                self.lose(token, Loss::Closed);
            }
            return Ok(());
        }
        match client.opened() {
            Ok(()) => self.watch(token),
            Err(loss) => {
                self.lose(token, loss);
                Ok(())
            }
        }
    }
}
