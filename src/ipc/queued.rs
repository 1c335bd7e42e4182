//! How many tasks wait or run, and their bytes.
//!
//! Its one rule: the master counts, in the words of its first reactor, which every worker can read and none can write. A
//! task counts from when a reactor reads the commit that has queued it, until it is done, replaced or given up.

use super::layout::{ReactorWords, Shared};
use super::sync::Ordering;
use crate::config::{Config, TASK_BYTES};

/// The tasks of the server, as the reactors count them.
#[derive(Clone)]
pub(crate) struct Queued {
    words: Shared<ReactorWords>,
    /// What workers that keep to their limit can never make wait together.
    most: Amount,
}

/// A number of tasks, and what they count in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Amount {
    pub(crate) tasks: u64,
    pub(crate) bytes: u64,
}

impl Amount {
    pub(crate) fn of_one(len: usize) -> Amount {
        Amount {
            tasks: 1,
            bytes: (len + TASK_BYTES) as u64,
        }
    }

    /// Returns the most that a server may have, as far as its workers see.
    pub(crate) fn limit(config: &Config) -> Amount {
        Amount {
            tasks: config.task_queue as u64,
            bytes: config.task_queue_bytes as u64,
        }
    }

    /// Returns what is counted in these words.
    pub(crate) fn counted(words: &ReactorWords) -> Amount {
        Amount {
            tasks: words.tasks.load(Ordering::Relaxed),
            bytes: words.task_bytes.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn and(self, other: Amount) -> Amount {
        Amount {
            tasks: self.tasks.saturating_add(other.tasks),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }

    pub(crate) fn is_within(self, limit: Amount) -> bool {
        self.tasks <= limit.tasks && self.bytes <= limit.bytes
    }
}

impl Queued {
    /// `words` are those of the first reactor.
    pub(crate) fn new(words: Shared<ReactorWords>, config: &Config) -> Queued {
        let limit = Amount::limit(config);
        // Each worker may find the queue empty, and fill it before the others' commits are read.
        let workers = config.slots() as u64 + 1;
        Queued {
            words,
            most: Amount {
                tasks: limit.tasks.saturating_mul(workers),
                bytes: limit.bytes.saturating_mul(workers),
            },
        }
    }

    /// Counts a task of `len` bytes.
    ///
    /// # Errors
    /// There are more than workers that keep to their limit can have queued.
    pub(crate) fn add(&self, len: usize) -> Result<(), u64> {
        let one = Amount::of_one(len);
        self.words.tasks.fetch_add(one.tasks, Ordering::Relaxed);
        self.words
            .task_bytes
            .fetch_add(one.bytes, Ordering::Relaxed);
        match Amount::counted(&self.words).is_within(self.most) {
            true => Ok(()),
            false => Err(self.most.tasks),
        }
    }

    /// A task of `len` bytes does not count any more.
    pub(crate) fn remove(&self, len: usize) {
        let one = Amount::of_one(len);
        self.words.tasks.fetch_sub(one.tasks, Ordering::Relaxed);
        self.words
            .task_bytes
            .fetch_sub(one.bytes, Ordering::Relaxed);
    }

    #[cfg(test)]
    pub(crate) fn counted(&self) -> Amount {
        Amount::counted(&self.words)
    }
}
