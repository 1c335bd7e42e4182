//! What a worker may still queue as tasks: the limits of the server, against the tasks that the master counts and those
//! of this worker that it can't have counted yet.
//!
//! Its one rule: a task of this worker is counted here until the reactor has read the commit that queues it. So a worker
//! never queues more than the limit by itself, however old the master's figure is.

use crate::config::Config;
use crate::handler::SendError;
use crate::ipc::layout::{ReactorWords, Shared};
use crate::ipc::queued::Amount;

/// The tasks of one worker.
pub(super) struct TaskClaims {
    limit: Amount,
    words: Shared<ReactorWords>,
    /// By link: those of commits that its reactor may not have read.
    unread: Vec<Amount>,
}

impl TaskClaims {
    /// `None` in a server without task workers.
    pub(super) fn new(config: &Config, reactors: &[Shared<ReactorWords>]) -> Option<TaskClaims> {
        let words = reactors.first().filter(|_| config.task_workers > 0)?;
        Some(TaskClaims {
            limit: Amount::limit(config),
            words: words.clone(),
            unread: vec![Amount::default(); reactors.len()],
        })
    }

    /// Returns what a callback has claimed with one more task of `len` bytes, after `claimed`.
    ///
    /// # Errors
    /// The queue is full.
    pub(super) fn claim(&self, claimed: Amount, len: usize) -> Result<Amount, SendError> {
        let claimed = claimed.and(Amount::of_one(len));
        let unread = self.unread.iter().fold(claimed, |sum, it| sum.and(*it));
        match Amount::counted(&self.words)
            .and(unread)
            .is_within(self.limit)
        {
            true => Ok(claimed),
            false => Err(SendError::QueueFull {
                tasks: self.limit.tasks as usize,
                bytes: self.limit.bytes as usize,
            }),
        }
    }

    /// What a callback has claimed is committed.
    pub(super) fn commit(&mut self, link: usize, claimed: Amount) {
        self.unread[link] = self.unread[link].and(claimed);
    }

    /// The reactor of a link has read all that was committed if `is_read` says so; then it has counted the tasks.
    pub(super) fn settle(&mut self, link: usize, is_read: impl FnOnce() -> bool) {
        if self.unread[link] != Amount::default() && is_read() {
            self.unread[link] = Amount::default();
        }
    }
}
