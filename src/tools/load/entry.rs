//! How clients come: all at the beginning, and one in the place of another.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{EpollEvent, EpollFlags};

use super::Failure;
use super::client::{Client, Loss, errno};
use super::crowd::{BROKEN, Crowd, REPLIES_AND_ROOM, TICK};

/// How many connections are begun before the first of them has to stand: no more than a queue holds.
const AT_ONCE: usize = 256;

/// How long so many may take to be let in.
const ENTRY: Duration = Duration::from_secs(30);

impl Crowd<'_> {
    /// Everybody connects, a part at a time.
    pub(super) fn let_in(&mut self) -> Result<(), Failure> {
        let all = self.plan.clients + self.plan.idle;
        while self.clients.len() < all {
            let more = AT_ONCE.min(all - self.clients.len());
            let first = self.clients.len();
            for token in first..first + more {
                self.clients.push(None);
                self.connect(token, VecDeque::new())?;
            }
            let begin = Instant::now();
            while self.is_coming(first) {
                self.wait(TICK, |crowd, event| crowd.open(event))?;
                if begin.elapsed() > ENTRY {
                    let seconds = ENTRY.as_secs();
                    return Err(Failure(format!(
                        "of {all} clients the server has let in {}, and not all of the next {more} \
                         within {seconds} s",
                        first
                    )));
                }
            }
            if let Some(first) = &self.tally.faults.first {
                return Err(Failure(format!("not everybody was let in: {first}")));
            }
        }
        Ok(())
    }

    /// Whether one of those from `first` on is not let in yet.
    fn is_coming(&self, first: usize) -> bool {
        let mut clients = self.clients[first..].iter().flatten();
        clients.any(|client| !client.is_open)
    }

    /// A client comes. When the server says no, that is the server's fault, and in the report.
    pub(super) fn connect(&mut self, token: usize, due: VecDeque<u64>) -> Result<(), Failure> {
        let number = self.numbers;
        self.numbers += 1;
        let owed = due.len();
        let client = match Client::connect(self.plan, number, due) {
            Ok(client) => client,
            Err(error) => match errno(&error) {
                refused @ (Errno::ECONNREFUSED
                | Errno::ECONNRESET
                | Errno::EHOSTUNREACH
                | Errno::ENETUNREACH
                | Errno::ETIMEDOUT) => {
                    self.tally.lost(token, Loss::Refused(refused), owed);
                    return Ok(());
                }
                Errno::EADDRNOTAVAIL => {
                    return Err(Failure(format!(
                        "cannot connect: every port of this side is taken by a connection to {}, or in \
                         TIME_WAIT; fewer connections a second, or net.ipv4.ip_local_port_range, \
                         make room",
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

    /// A connection stands, or does not.
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
