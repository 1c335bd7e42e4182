//! The files that a worker of process mode sends: their descriptors go to the master, by a socket that this worker
//! alone has, right before the commit is published that names them.
//!
//! Its one rule: there are never more of them on their way than [`FILES_AT_ONCE`] of commits, and as many of the
//! callback under way. So the socket never fills, and the master can tell a worker that does not look at the limit.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use crate::config::FILES_AT_ONCE;
use crate::handler::SendError;
#[cfg(feature = "test-hooks")]
use crate::ipc::kill_point::KillPoint;
use crate::ipc::layout::{ReactorWords, Shared};
use crate::ipc::sync::Ordering;
use crate::sys::parcel::Sender;

/// Where a worker sends files, and those that are on their way.
pub(super) struct Files {
    sender: Sender,
    /// The words of the first reactor, where the master counts.
    words: Option<Shared<ReactorWords>>,
    limit: usize,
    /// Of the callback under way.
    staged: Vec<OwnedFd>,
    /// Sent, for a commit that is about to be published.
    sent: usize,
    /// Of commits that the reactors may not have read: the link of each, and the end of its commit in the outbox.
    unread: VecDeque<(usize, u64)>,
}

impl Files {
    pub(super) fn new(sender: Sender, reactors: &[Shared<ReactorWords>], limit: usize) -> Files {
        Files {
            sender,
            words: reactors.first().cloned(),
            limit,
            staged: Vec::new(),
            sent: 0,
            unread: VecDeque::new(),
        }
    }

    /// Whether the callback may send one more.
    pub(super) fn claim(&self) -> Result<(), SendError> {
        if self.staged.len() >= FILES_AT_ONCE {
            let most = FILES_AT_ONCE;
            return Err(SendError::TooManyFiles { most });
        }
        // Those that the master has counted by now, and those of this worker that it may not have.
        let words = self.words.as_ref();
        let counted = words.map_or(0, |words| words.files.load(Ordering::Relaxed));
        let own = self.staged.len() + self.unread.len();
        match counted.saturating_add(own as u64) < self.limit as u64 {
            true => Ok(()),
            false => Err(SendError::TooManyFiles { most: self.limit }),
        }
    }

    /// The record of this file is staged.
    pub(super) fn stage(&mut self, file: OwnedFd) {
        self.staged.push(file);
    }

    /// The callback has failed: nothing of it was sent.
    pub(super) fn forget(&mut self) {
        self.staged.clear();
    }

    /// Sends the descriptors of a commit of this link, which is about to be published.
    pub(super) fn send(&mut self, link: usize) -> io::Result<()> {
        for file in self.staged.drain(..) {
            // SYNC POINT with `FileInbox::take`: the record is published after this.
            let message = (link as u16).to_ne_bytes();
            self.sender.send(&message, &[file.as_fd()])?;
            self.sent += 1;
            #[cfg(feature = "test-hooks")]
            KillPoint::FileSent.pass();
        }
        Ok(())
    }

    /// That commit is published, and the outbox written to this mark.
    pub(super) fn note(&mut self, link: usize, written: impl FnOnce() -> u64) {
        if self.sent > 0 {
            let written = written();
            let sent = std::mem::take(&mut self.sent);
            self.unread.extend((0..sent).map(|_| (link, written)));
        }
    }

    pub(super) fn are_read(&self) -> bool {
        self.unread.is_empty()
    }

    /// Forgets those whose commits are read. `read` returns how far the reactor of a link has read.
    pub(super) fn settle(&mut self, read: impl Fn(usize) -> u64) {
        self.unread.retain(|(link, mark)| read(*link) < *mark);
    }

    /// Returns the link of the oldest, if as many are on their way as may be.
    pub(super) fn must_wait_for(&self) -> Option<usize> {
        let (link, _) = self.unread.front()?;
        (self.unread.len() >= FILES_AT_ONCE).then_some(*link)
    }
}

/// For the tests' lying worker alone.
#[cfg(feature = "test-hooks")]
impl Files {
    /// Sends these descriptors in one message.
    pub(super) fn forge(&self, link: u16, files: &[std::sync::Arc<OwnedFd>]) {
        let files: Vec<_> = files.iter().map(|file| file.as_fd()).collect();
        if let Err(error) = self.sender.send(&link.to_ne_bytes(), &files) {
            log::error!("the forgery was not sent: {error}");
        }
    }
}
