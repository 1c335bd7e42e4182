//! Memory that is not needed any more: the pages of an inbox, of which long messages take many, and that of
//! output that was held back.

use super::reactor::ReactorLink;

/// The bytes at the beginning of an inbox whose pages stay: short messages find them warm.
const KEPT: u64 = 256 << 10;

/// The most bytes that are given back at once: a gigabyte would keep the reactor from its clients for long.
const MOST_GIVEN_BACK: u64 = 8 << 20;

/// Output that was held back and has so many bytes leaves much of the heap free.
pub(super) const MUCH: usize = 4 << 20;

impl ReactorLink {
    /// Whether much output was held back, and is no more. Returns true once for each time.
    pub(crate) fn has_freed_much(&mut self) -> bool {
        std::mem::take(&mut self.has_freed_much)
    }

    /// Returns how far from its first byte the inbox was used since pages were given back.
    pub(super) fn touched(&self) -> u64 {
        let this_time = self.inbox.tail() - self.begun_at;
        self.touched.max(this_time.min(self.inbox_ring.capacity()))
    }

    /// Whether the inbox has pages that short messages do not need.
    pub(crate) fn is_spread(&self) -> bool {
        // Where it can't be rewound, its pages stay.
        self.touched() > KEPT && !self.posts_aside()
    }

    /// Gives back pages of an inbox that is empty, from the last ones on. Returns whether more are left that
    /// can be given back now.
    pub(crate) fn give_back_pages(&mut self) -> bool {
        self.rewind();
        // The bytes of frames that are retired are nobody's. Those that come next begin at the tail.
        let is_empty = self.in_flight.is_empty() && self.inbox.tail() - self.begun_at <= KEPT;
        if !is_empty || self.touched <= KEPT {
            return false;
        }
        let from = self.touched.saturating_sub(MOST_GIVEN_BACK).max(KEPT) & !(KEPT - 1);
        let to = self
            .touched
            .next_multiple_of(KEPT)
            .min(self.inbox_ring.capacity());
        if let Err(error) = self.inbox_ring.give_back(from as usize, to as usize) {
            // Nothing but memory is lost.
            log::debug!("cannot give back the pages of an inbox: {error}");
        }
        self.touched = from;
        self.is_spread()
    }
}
