//! How much memory this process may hold for its clients, all reactors together: unsent output,
//! held output, and messages that are not complete yet.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes held, against a limit. Counters only: no memory is published through them, so relaxed
/// order will do.
#[derive(Debug)]
pub(crate) struct Budget {
    held: AtomicUsize,
    limit: usize,
}

impl Budget {
    pub(crate) fn new(limit: usize) -> Budget {
        Budget {
            held: AtomicUsize::new(0),
            limit,
        }
    }

    pub(crate) fn take(&self, bytes: usize) {
        self.held.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn give_back(&self, bytes: usize) {
        let before = self.held.fetch_sub(bytes, Ordering::Relaxed);
        debug_assert!(before >= bytes, "gave back {bytes} of {before}");
    }

    /// Whether more is held than may be: somebody has to go.
    pub(crate) fn is_exceeded(&self) -> bool {
        self.held.load(Ordering::Relaxed) > self.limit
    }

    pub(crate) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }
}
