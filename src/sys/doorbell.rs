//! eventfd(2) as a doorbell between processes: watched edge-triggered and never read, so that a wake-up
//! costs the sleeper no system call of its own. Between two processes alone: a process that has a bell can
//! also swallow its rings.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::fault::{self, Call};

/// A doorbell. Clones ring the same bell.
#[derive(Clone, Debug)]
pub(crate) struct Doorbell(Arc<EventFd>);

impl Doorbell {
    pub(crate) fn new() -> io::Result<Doorbell> {
        fault::check(Call::Eventfd)?;
        Ok(Doorbell(Arc::new(EventFd::from_flags(
            EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK,
        )?)))
    }

    /// The doorbell that another process has sent.
    pub(crate) fn received(fd: OwnedFd) -> Doorbell {
        // SAFETY: the descriptor is one of an eventfd(2), which the manager has made by `new`, and is
        // owned.
        Doorbell(Arc::new(unsafe { EventFd::from_owned_fd(fd) }))
    }

    /// Wakes the sleepers that watch this bell. Never blocks: every write is an edge for their epoll.
    pub(crate) fn ring(&self) {
        match fault::check(Call::Bell).and_then(|()| self.0.write(1)) {
            Ok(_) => {}
            // The counter is at its top, which a hostile worker can bring about. Emptying it makes
            // room for a new edge.
            Err(Errno::EAGAIN) => {
                let _ = self.0.read();
                let _ = self.0.write(1);
            }
            // An eventfd that this process holds open has no other failure, eventfd(2).
            Err(error) => log::error!("doorbell: {error}"),
        }
    }
}

impl AsFd for Doorbell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
