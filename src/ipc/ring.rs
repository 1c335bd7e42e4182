//! A single-producer single-consumer byte ring, as positions: which bytes are the producer's, which
//! the consumer's. The bytes themselves are in [`super::memory`], the arithmetic of positions in
//! [`super::position`].
//!
//! Frames begin at multiples of [`ALIGN`](super::position::ALIGN). An empty ring may be rewound to its first byte: positions
//! then leave out the rest of this round and all of the next. Of the positions only `published` is
//! shared. The mark that the other side wrote there is believed only after it was checked against a
//! private copy.

use std::fmt;
use std::ops::Deref;

pub(crate) use super::position::aligned;
use super::position::{follows, free, is_rewound, is_worn, rewound};
use super::sync::{AtomicU64, Ordering};

/// The side that fills the ring.
pub(crate) struct Producer<W> {
    published: W,
    capacity: u64,
    /// Everything before it is freed.
    head: u64,
    /// The end of the staged frames; nobody else looks at bytes beyond the published mark.
    tail: u64,
    /// The mark as this side last stored it.
    mark: u64,
}

impl<W: Deref<Target = AtomicU64>> Producer<W> {
    /// A producer of an empty ring whose next frame begins at `start`.
    pub(crate) fn new(published: W, capacity: u64, start: u64) -> Self {
        Producer {
            published,
            capacity,
            head: start,
            tail: start,
            mark: start,
        }
    }

    /// Everything before it is freed, as far as this side knows.
    pub(crate) fn head(&self) -> u64 {
        self.head
    }

    /// Where the next frame will begin.
    pub(crate) fn tail(&self) -> u64 {
        self.tail
    }

    /// How many bytes can be staged.
    pub(crate) fn free(&self) -> u64 {
        free(self.head, self.tail, self.capacity)
    }

    /// Whether something is staged that is not published.
    pub(crate) fn has_staged(&self) -> bool {
        self.tail != self.mark
    }

    /// Adds `len` bytes at the tail to the bytes that the next [`publish`](Self::publish) gives away.
    ///
    /// # Panics
    /// When there is no room for them, which [`free`](Self::free) would have said.
    pub(crate) fn stage(&mut self, len: usize) {
        let len = aligned(len);
        assert!(
            len <= self.free(),
            "staged {len} bytes with {} free",
            self.free()
        );
        self.tail += len;
    }

    /// Gives everything staged to the consumer, in one store.
    pub(crate) fn publish(&mut self) {
        self.mark = self.tail;
        // SYNC POINT with `Consumer::look` and `Consumer::follow`: a side that sees this mark sees
        // the bytes before it.
        self.published.store(self.tail, Ordering::Release);
    }

    /// Takes back everything staged that is not published.
    pub(crate) fn unstage(&mut self) {
        self.tail = self.mark;
    }

    /// Everything before `head` is free again.
    pub(crate) fn freed(&mut self, head: u64) {
        debug_assert!(self.head <= head && head <= self.tail);
        self.head = head;
    }

    /// Whether the ring is empty, and rewinding it pays.
    pub(crate) fn is_worn(&self) -> bool {
        self.head == self.tail && is_worn(self.tail, self.capacity)
    }

    /// Rewinds the empty ring. The other side learns of it by the next mark that is published.
    ///
    /// # Panics
    /// When something is staged.
    pub(crate) fn rewind(&mut self) {
        assert!(!self.has_staged(), "staged frames would be lost");
        self.head = rewound(self.tail, self.capacity);
        self.tail = self.head;
        self.mark = self.head;
    }
}

/// The side that empties the ring.
pub(crate) struct Consumer<W> {
    published: W,
    capacity: u64,
    head: u64,
    /// The mark as last seen and found good.
    tail: u64,
}

impl<W: Deref<Target = AtomicU64>> Consumer<W> {
    /// A consumer whose next frame begins at `start`.
    pub(crate) fn new(published: W, capacity: u64, start: u64) -> Self {
        Consumer {
            published,
            capacity,
            head: start,
            tail: start,
        }
    }

    pub(crate) fn head(&self) -> u64 {
        self.head
    }

    /// The end of the bytes that may be read.
    pub(crate) fn tail(&self) -> u64 {
        self.tail
    }

    /// Looks at the mark. Returns whether there is anything to read.
    ///
    /// # Errors
    /// The mark is one that no producer which keeps to the protocol can have stored.
    pub(crate) fn look(&mut self) -> Result<bool, BadMark> {
        // SYNC POINT with `Producer::publish`.
        let mark = self.published.load(Ordering::Acquire);
        self.accept(mark)
    }

    /// Looks at the mark of a producer that may have rewound the ring, which it does only after this
    /// side has left everything behind. Returns whether it has.
    ///
    /// # Errors
    /// As [`look`](Self::look).
    pub(crate) fn follow(&mut self) -> Result<bool, BadMark> {
        // SYNC POINT with `Producer::publish`.
        let mark = self.published.load(Ordering::Acquire);
        let is_rewound = self.head == self.tail && is_rewound(mark, self.head, self.capacity);
        if is_rewound {
            self.rewind();
        }
        self.accept(mark)?;
        Ok(is_rewound)
    }

    /// Whether the ring is empty, as far as this side has looked, and rewinding it pays.
    pub(crate) fn is_worn(&self) -> bool {
        self.head == self.tail && is_worn(self.tail, self.capacity)
    }

    /// Expects the next frame at the beginning of the ring.
    pub(crate) fn rewind(&mut self) {
        self.head = rewound(self.head, self.capacity);
        self.tail = self.head;
    }

    fn accept(&mut self, mark: u64) -> Result<bool, BadMark> {
        if mark != self.tail {
            if !follows(mark, self.head, self.tail, self.capacity) {
                return Err(BadMark {
                    mark,
                    head: self.head,
                    tail: self.tail,
                });
            }
            self.tail = mark;
        }
        Ok(self.head != self.tail)
    }

    /// Leaves everything before `position` behind.
    ///
    /// # Panics
    /// When that is beyond what was published.
    pub(crate) fn advance_to(&mut self, position: u64) {
        assert!(
            self.head <= position && position <= self.tail,
            "advance to {position} outside {}..{}",
            self.head,
            self.tail
        );
        self.head = position;
    }
}

/// A published mark that can't be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BadMark {
    mark: u64,
    head: u64,
    tail: u64,
}

impl fmt::Display for BadMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "published mark {} does not follow {}..{}",
            self.mark, self.head, self.tail
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::position::{ALIGN, SPENT, WORN};
    use super::*;
    use std::sync::Arc;

    fn ring(
        capacity: u64,
    ) -> (
        Producer<Arc<AtomicU64>>,
        Consumer<Arc<AtomicU64>>,
        Arc<AtomicU64>,
    ) {
        let word = Arc::new(AtomicU64::new(0));
        (
            Producer::new(word.clone(), capacity, 0),
            Consumer::new(word.clone(), capacity, 0),
            word,
        )
    }

    #[test]
    fn what_is_only_staged_is_not_seen() {
        let (mut producer, mut consumer, _) = ring(128);
        producer.stage(10);
        assert_eq!(consumer.look(), Ok(false));
        producer.publish();
        assert_eq!(consumer.look(), Ok(true));
        assert_eq!(consumer.tail(), 64);
    }

    #[test]
    fn a_full_ring_has_no_room_until_it_is_freed() {
        let (mut producer, mut consumer, _) = ring(256);
        producer.stage(256);
        producer.publish();
        assert_eq!(producer.free(), 0);
        assert_eq!(consumer.look(), Ok(true));
        consumer.advance_to(192);
        producer.freed(consumer.head());
        assert_eq!(producer.free(), 192);
    }

    #[test]
    fn both_ends_rewind_an_empty_ring_to_its_first_byte() {
        for filled in [WORN, WORN + ALIGN, 2 * WORN, 4 * WORN - ALIGN] {
            let (mut producer, mut consumer, _) = ring(4 * WORN);
            producer.stage(filled as usize);
            producer.publish();
            assert_eq!(consumer.follow(), Ok(false));
            assert!(!producer.is_worn() && !consumer.is_worn(), "not empty");
            consumer.advance_to(consumer.tail());
            producer.freed(consumer.head());
            assert!(producer.is_worn() && consumer.is_worn());
            producer.rewind();
            assert_eq!(consumer.follow(), Ok(false), "nothing is published there");
            producer.stage(4 * WORN as usize);
            producer.publish();
            assert_eq!(consumer.follow(), Ok(true));
            assert_eq!(consumer.head() % (4 * WORN), 0);
            assert_eq!(consumer.tail(), producer.tail());
        }
    }

    #[test]
    fn no_ring_is_rewound_when_many_positions_are_spent() {
        let word = Arc::new(AtomicU64::new(0));
        let at = |start| Producer::new(word.clone(), 2 * WORN, start).is_worn();
        assert!(at(SPENT - WORN));
        assert!(!at(SPENT + WORN));
    }

    #[test]
    fn a_mark_that_goes_back_is_refused() {
        let (mut producer, mut consumer, word) = ring(256);
        producer.stage(128);
        producer.publish();
        assert_eq!(consumer.look(), Ok(true));
        word.store(64, Ordering::Release);
        assert!(consumer.look().is_err());
    }

    #[test]
    fn a_mark_beyond_the_capacity_is_refused() {
        let (_, mut consumer, word) = ring(256);
        for mark in [320, u64::MAX, u64::MAX - 63, 1 << 40] {
            word.store(mark, Ordering::Release);
            assert!(consumer.look().is_err(), "{mark}");
        }
    }

    #[test]
    fn no_ring_is_rewound_before_everything_in_it_was_read() {
        let (mut producer, mut consumer, word) = ring(4 * WORN);
        producer.stage(WORN as usize);
        producer.publish();
        assert_eq!(consumer.follow(), Ok(false));
        word.store(8 * WORN + ALIGN, Ordering::Release);
        assert!(consumer.follow().is_err());
        assert_eq!((consumer.head(), consumer.tail()), (0, WORN));
    }

    #[test]
    fn a_mark_between_frames_is_refused() {
        let (_, mut consumer, word) = ring(256);
        word.store(96, Ordering::Release);
        assert!(consumer.look().is_err());
    }
}
