//! epoll(7): waits until descriptors are ready. Level-triggered, except for the doorbells.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::fault::{self, Call};

/// The events that a descriptor is watched for. Errors and hang-ups are always reported,
/// epoll_ctl(2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Interest(EpollFlags);

impl Interest {
    /// Bytes or the peer's FIN to read.
    pub(crate) const READ: Interest = Interest(EpollFlags::EPOLLIN.union(EpollFlags::EPOLLRDHUP));
    /// Only the peer's FIN, also behind unread bytes.
    pub(crate) const PEER_CLOSED: Interest = Interest(EpollFlags::EPOLLRDHUP);
    /// Room to write.
    pub(crate) const WRITE: Interest = Interest(EpollFlags::EPOLLOUT);
    /// Errors and hang-ups alone.
    pub(crate) const NONE: Interest = Interest(EpollFlags::empty());
    /// Errors and hang-ups alone, each reported once: a hang-up lasts.
    pub(crate) const END: Interest = Interest(EpollFlags::EPOLLET);
    /// A doorbell: reported once a ring, so that it need never be read.
    pub(crate) const BELL: Interest = Interest(EpollFlags::EPOLLIN.union(EpollFlags::EPOLLET));
    /// A listener shared with other processes or threads: a new connection wakes one of them.
    pub(crate) const ACCEPT: Interest =
        Interest(EpollFlags::EPOLLIN.union(EpollFlags::EPOLLEXCLUSIVE));

    /// A listener that other processes accept from: reported once, until it is watched again.
    pub(crate) const ONCE: Interest = Interest(EpollFlags::EPOLLIN.union(EpollFlags::EPOLLONESHOT));

    pub(crate) const fn and(self, other: Interest) -> Interest {
        Interest(self.0.union(other.0))
    }
}

/// One report of the kernel: the token of a descriptor, and the events it is ready for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    pub(crate) token: u64,
    flags: EpollFlags,
}

impl Event {
    pub(crate) fn readable(self) -> bool {
        self.flags.contains(EpollFlags::EPOLLIN)
    }

    pub(crate) fn writable(self) -> bool {
        self.flags.contains(EpollFlags::EPOLLOUT)
    }

    /// The peer has sent its FIN; bytes may still be unread before it.
    pub(crate) fn peer_closed(self) -> bool {
        self.flags.contains(EpollFlags::EPOLLRDHUP)
    }

    /// Both directions are shut down, or the connection was reset: nothing more can be sent. What was sent may
    /// still be on its way.
    pub(crate) fn hung_up(self) -> bool {
        self.flags
            .intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR)
    }

    /// The connection was reset, or has timed out.
    pub(crate) fn failed(self) -> bool {
        self.flags.contains(EpollFlags::EPOLLERR)
    }
}

/// Room for the events of one wait, reused.
pub(crate) struct Events {
    buffer: Vec<EpollEvent>,
    filled: usize,
    is_interrupted: bool,
}

impl Events {
    pub(crate) fn with_capacity(capacity: usize) -> Events {
        Events {
            buffer: vec![EpollEvent::empty(); capacity],
            filled: 0,
            is_interrupted: false,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.filled
    }

    /// Whether the wait was interrupted: by a handler, or, in a thread that runs none, because the process was
    /// stopped and goes on, signal(7).
    pub(crate) fn is_interrupted(&self) -> bool {
        self.is_interrupted
    }

    /// The `index`th event of the last wait. By index, so that the caller may change everything
    /// else while it walks.
    pub(crate) fn get(&self, index: usize) -> Event {
        let event = &self.buffer[..self.filled][index];
        Event {
            token: event.data(),
            flags: event.events(),
        }
    }
}

/// An epoll instance of this process. Never used by two processes: the manager makes one for each worker,
/// which watches a doorbell that the worker does not have, and leaves it to the worker.
pub(crate) struct Poller(Epoll);

impl Poller {
    pub(crate) fn new() -> io::Result<Poller> {
        fault::check(Call::EpollCreate1)?;
        Ok(Poller(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?))
    }

    pub(crate) fn add(&self, fd: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        fault::check(Call::EpollCtl)?;
        Ok(self.0.add(fd, EpollEvent::new(interest.0, token))?)
    }

    pub(crate) fn modify(&self, fd: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        fault::check(Call::EpollCtl)?;
        Ok(self.0.modify(fd, &mut EpollEvent::new(interest.0, token))?)
    }

    pub(crate) fn remove(&self, fd: impl AsFd) -> io::Result<()> {
        Ok(self.0.delete(fd)?)
    }

    /// Waits until a descriptor is ready or `timeout` has passed; without a timeout it waits for as
    /// long as it takes. A signal ends the wait with no events. The timeout is rounded up to
    /// milliseconds, so that a deadline has passed when its wait ends.
    pub(crate) fn wait(&self, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
        (events.filled, events.is_interrupted) =
            match self.0.wait(&mut events.buffer, epoll_timeout(timeout)) {
                Ok(filled) => (filled, false),
                Err(Errno::EINTR) => (0, true),
                Err(error) => return Err(error.into()),
            };
        Ok(())
    }
}

fn epoll_timeout(timeout: Option<Duration>) -> EpollTimeout {
    let Some(timeout) = timeout else {
        return EpollTimeout::NONE;
    };
    let ms = timeout.as_nanos().div_ceil(1_000_000);
    EpollTimeout::try_from(ms.min(i32::MAX as u128) as i32).unwrap_or(EpollTimeout::MAX)
}
