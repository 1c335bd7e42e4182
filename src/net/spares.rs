//! Buffers in which messages were put together that came in parts, kept for the next ones: such a
//! message costs nothing from the heap either.

use crate::config::READ_SIZE;

/// How many are kept: so many connections can be in the middle of a message.
const MOST: usize = 32;

/// Empty buffers of one read each. A longer message has one of its own, which is not kept.
pub(crate) struct Spares {
    buffers: Vec<Vec<u8>>,
}

impl Spares {
    pub(crate) fn new() -> Spares {
        Spares {
            buffers: Vec::with_capacity(MOST),
        }
    }

    /// An empty buffer: a kept one, or one that has no memory yet.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        self.buffers.pop().unwrap_or_default()
    }

    /// Gives a buffer back that is not needed any more.
    pub(crate) fn give(&mut self, mut buffer: Vec<u8>) {
        // A smaller one would have to grow when it is read into, and it is not worth keeping a
        // larger.
        if buffer.capacity() == READ_SIZE && self.buffers.len() < MOST {
            buffer.clear();
            self.buffers.push(buffer);
        }
    }
}

/// How much is to be read to the end of a message's beginning. It grows once to what a read takes,
/// and further only when it is full.
pub(crate) fn next_read(partial: &mut Vec<u8>) -> usize {
    if partial.capacity() < READ_SIZE {
        partial.reserve_exact(READ_SIZE - partial.len());
    }
    match partial.capacity() - partial.len() {
        0 => READ_SIZE,
        room => room.min(READ_SIZE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_into_comes_back_empty_and_with_its_memory() {
        let mut spares = Spares::new();
        let mut buffer = spares.take();
        assert_eq!(buffer.capacity(), 0);
        buffer.extend_from_slice(b"the beginning");
        assert_eq!(next_read(&mut buffer), READ_SIZE - buffer.len());
        let memory = buffer.as_ptr();
        spares.give(buffer);
        let again = spares.take();
        assert!(again.is_empty());
        assert_eq!((again.capacity(), again.as_ptr()), (READ_SIZE, memory));
    }

    #[test]
    fn small_and_large_ones_are_not_kept() {
        let mut spares = Spares::new();
        spares.give(Vec::with_capacity(10));
        spares.give(Vec::with_capacity(READ_SIZE + 1));
        assert_eq!(spares.take().capacity(), 0);
    }

    #[test]
    fn no_more_are_kept_than_are_of_use() {
        let mut spares = Spares::new();
        (0..MOST * 2).for_each(|_| spares.give(Vec::with_capacity(READ_SIZE)));
        assert_eq!(spares.buffers.len(), MOST);
        assert_eq!(spares.buffers.capacity(), MOST);
    }

    #[test]
    fn a_full_buffer_is_read_on_by_as_much_again() {
        let mut partial = vec![7; READ_SIZE];
        assert_eq!(next_read(&mut partial), READ_SIZE);
    }
}
