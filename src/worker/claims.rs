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
    /// By link.
    unread: Vec<Unread>,
}

/// The tasks of commits that the reactor of a link may not have read: in two generations, so that a worker that is never
/// idle does not count its first ones for ever.
#[derive(Clone, Copy, Default)]
struct Unread {
    young: Amount,
    /// They are read when the outbox is read to this mark.
    old: Amount,
    mark: u64,
}

impl Unread {
    fn all(&self) -> Amount {
        self.young.and(self.old)
    }

    /// The outbox is written to one mark, and read to another.
    fn settle(&mut self, written: u64, read: u64) {
        if read >= self.mark {
            self.old = std::mem::take(&mut self.young);
            self.mark = written;
        }
        if read >= self.mark {
            self.old = Amount::default();
        }
    }
}

impl TaskClaims {
    /// `None` in a server without task workers.
    pub(super) fn new(config: &Config, reactors: &[Shared<ReactorWords>]) -> Option<TaskClaims> {
        let words = reactors.first().filter(|_| config.task_workers > 0)?;
        Some(TaskClaims {
            limit: Amount::limit(config),
            words: words.clone(),
            unread: vec![Unread::default(); reactors.len()],
        })
    }

    /// Returns what a callback has claimed with one more task of `len` bytes, after `claimed`.
    ///
    /// # Errors
    /// The queue is full.
    pub(super) fn claim(&self, claimed: Amount, len: usize) -> Result<Amount, SendError> {
        let claimed = claimed.and(Amount::of_one(len));
        let unread = self
            .unread
            .iter()
            .fold(claimed, |sum, it| sum.and(it.all()));
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
        let unread = &mut self.unread[link];
        unread.young = unread.young.and(claimed);
    }

    /// Forgets the tasks that the reactor of a link has read: it has counted them. `marks` tells how far the outbox of the
    /// link is written and read.
    pub(super) fn settle(&mut self, link: usize, marks: impl FnOnce() -> (u64, u64)) {
        let unread = &mut self.unread[link];
        if unread.all() != Amount::default() {
            let (written, read) = marks();
            unread.settle(written, read);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_unread_until_the_mark_behind_them_is_read() {
        let mut unread = Unread::default();
        let [one, three] = [1, 3]
            .map(|tasks| (0..tasks).fold(Amount::default(), |sum, _| sum.and(Amount::of_one(10))));
        unread.young = one;
        unread.settle(100, 50);
        assert_eq!(unread.all(), one);
        unread.young = three;
        unread.settle(200, 99);
        assert_eq!(unread.all(), one.and(three));
        unread.settle(200, 100);
        assert_eq!(unread.all(), three, "the outbox is never read to its end");
        unread.settle(300, 250);
        assert_eq!(unread.all(), Amount::default());
    }
}
