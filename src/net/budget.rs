//! The memory budget of one owner, a reactor or a base mode worker: the bytes that it may hold for its
//! clients, unsent output and incomplete messages.
//!
//! Its one rule: no owner looks at another's. The reactors of a master get equal parts of the setting.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes held, against a limit.
#[derive(Debug)]
pub(crate) struct Budget {
    held: usize,
    /// The bytes of chunks that connections share, each of which gives them back itself.
    shared: Arc<AtomicUsize>,
    limit: usize,
    /// The most that was held since the last peak that was worth a trim.
    peak: usize,
}

/// A peak of so many bytes is worth a trim when it is over.
const PEAK: usize = 4 << 20;

impl Budget {
    pub(crate) fn new(limit: usize) -> Budget {
        Budget {
            held: 0,
            shared: Arc::default(),
            limit,
            peak: 0,
        }
    }

    pub(crate) fn take(&mut self, bytes: usize) {
        self.held += bytes;
        self.peak = self.peak.max(self.total());
    }

    /// Takes the bytes of a chunk that connections share: they are given back by the end of the [`Share`].
    pub(crate) fn take_shared(&mut self, bytes: usize) -> Share {
        // Relaxed: the thread of the owner alone uses it.
        self.shared.fetch_add(bytes, Ordering::Relaxed);
        self.take(0);
        Share {
            bytes,
            of: Arc::clone(&self.shared),
        }
    }

    fn total(&self) -> usize {
        self.held + self.shared.load(Ordering::Relaxed)
    }

    /// Whether a peak is over, after which the process may have much memory that is free. Returns true once
    /// for each.
    pub(crate) fn has_passed_peak(&mut self) -> bool {
        let is_over = self.peak >= PEAK && self.total() <= self.peak / 8;
        if is_over {
            self.peak = self.total();
        }
        is_over
    }

    pub(crate) fn give_back(&mut self, bytes: usize) {
        debug_assert!(self.held >= bytes, "gave back {bytes} of {}", self.held);
        self.held = self.held.saturating_sub(bytes);
    }

    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// Whether more bytes are held than the limit: a connection has to be closed.
    pub(crate) fn is_exceeded(&self) -> bool {
        self.total() > self.limit
    }

    /// Returns the bytes of shared chunks.
    #[cfg(test)]
    pub(crate) fn shared(&self) -> usize {
        self.shared.load(Ordering::Relaxed)
    }
}

/// Bytes of a budget that are given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    bytes: usize,
    of: Arc<AtomicUsize>,
}

impl Drop for Share {
    fn drop(&mut self) {
        self.of.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peak_is_over_once() {
        let mut budget = Budget::new(usize::MAX);
        budget.take(PEAK - 1);
        budget.give_back(PEAK - 1);
        assert!(!budget.has_passed_peak(), "a small one");
        budget.take(PEAK);
        assert!(!budget.has_passed_peak());
        budget.give_back(PEAK - PEAK / 8);
        assert!(budget.has_passed_peak());
        assert!(!budget.has_passed_peak());
        budget.give_back(PEAK / 8);
        assert!(!budget.has_passed_peak());
    }

    #[test]
    fn shared_bytes_count_until_their_share_ends() {
        let mut budget = Budget::new(PEAK);
        budget.take(1);
        let share = budget.take_shared(PEAK);
        assert!(budget.is_exceeded() && !budget.has_passed_peak());
        drop(share);
        assert!(!budget.is_exceeded() && budget.has_passed_peak());
        assert_eq!((budget.held(), budget.shared()), (1, 0));
    }
}
