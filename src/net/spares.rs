//! Buffers in which messages were put together that came in parts, kept for the next ones: such a
//! message costs nothing from the heap either.
//!
//! Its one rule: a client that has said little holds little. The beginning of a message stands in a
//! small buffer as long as it fits, however large the one was that the message before it was in.

use crate::config::READ_SIZE;
use crate::config::limits::CUT_READ;

/// How many of each size are kept: so many connections can be in the middle of a message.
const MOST: usize = 32;

/// The longest beginning that a small buffer takes.
pub(crate) const SMALL: usize = 4 << 10;

/// A large buffer: so much is read at a time of what is to be cut into messages.
pub(crate) const LARGE: usize = CUT_READ;

/// Empty buffers: small and large ones. A longer message has one of its own, which is not kept.
pub(crate) struct Spares {
    small: Vec<Vec<u8>>,
    large: Vec<Vec<u8>>,
}

impl Spares {
    pub(crate) fn new() -> Spares {
        Spares {
            small: Vec::with_capacity(MOST),
            large: Vec::with_capacity(MOST),
        }
    }

    /// These bytes in a buffer of their size.
    pub(crate) fn keep(&mut self, bytes: &[u8]) -> Vec<u8> {
        let (kept, size) = match bytes.len() {
            ..=SMALL => (&mut self.small, SMALL),
            _ => (&mut self.large, LARGE),
        };
        let mut buffer = kept.pop().unwrap_or_else(|| Vec::with_capacity(size));
        buffer.extend_from_slice(bytes);
        buffer
    }

    /// Takes back a buffer whose bytes are not needed any more.
    pub(crate) fn give(&mut self, mut buffer: Vec<u8>) {
        let kept = match buffer.capacity() {
            SMALL => &mut self.small,
            LARGE => &mut self.large,
            _ => return,
        };
        if kept.len() < MOST {
            buffer.clear();
            kept.push(buffer);
        }
    }
}

/// How much is to be read to the end of a long beginning: it grows only when it is full.
pub(crate) fn next_read(partial: &[u8], capacity: usize) -> usize {
    match capacity - partial.len() {
        0 => READ_SIZE,
        room => room.min(READ_SIZE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_with_its_memory_and_other_bytes() {
        for (first, second, size) in [(3, SMALL, SMALL), (SMALL + 1, LARGE, LARGE)] {
            let mut spares = Spares::new();
            let buffer = spares.keep(&vec![1; first]);
            assert_eq!((buffer.len(), buffer.capacity()), (first, size));
            let memory = buffer.as_ptr();
            spares.give(buffer);
            let again = spares.keep(&vec![2; second]);
            assert_eq!(again, vec![2; second]);
            assert_eq!((again.capacity(), again.as_ptr()), (size, memory));
        }
    }

    #[test]
    fn a_few_bytes_never_hold_a_large_buffer() {
        let mut spares = Spares::new();
        spares.give(Vec::with_capacity(LARGE));
        assert_eq!(spares.keep(b"a").capacity(), SMALL);
    }

    #[test]
    fn other_sizes_are_not_kept() {
        let mut spares = Spares::new();
        spares.give(Vec::with_capacity(10));
        spares.give(Vec::with_capacity(LARGE + 1));
        assert!(spares.small.is_empty() && spares.large.is_empty());
    }

    #[test]
    fn no_more_are_kept_than_are_of_use() {
        let mut spares = Spares::new();
        (0..MOST * 2).for_each(|_| spares.give(Vec::with_capacity(LARGE)));
        assert_eq!(spares.large.len(), MOST);
        assert_eq!(spares.large.capacity(), MOST);
    }

    #[test]
    fn a_full_buffer_is_read_on_by_a_whole_read() {
        assert_eq!(next_read(&[7; LARGE], LARGE), READ_SIZE);
        assert_eq!(next_read(&[7; 10], LARGE), LARGE - 10);
    }
}
