//! Buffers between a socket and an inbox: scratch memory that sockets are read into, and spare buffers
//! for incomplete messages.
//!
//! Its one rule: a client that has sent little holds little. An incomplete message is kept in a small
//! buffer as long as it fits, however large the buffer of the message before it was.

use std::ops::{Deref, DerefMut, Range};

use crate::config::{LARGE_BUFFER as LARGE, READ_SIZE};
use crate::sys::memory::page;

/// Page-aligned memory: some processors copy several times slower to an address a few bytes past a page
/// boundary (64 KiB on an AMD EPYC: 27 µs instead of 6.5), and allocators return just such addresses.
/// [`std::mem::take`] leaves one without bytes.
#[derive(Default)]
pub(crate) struct Scratch {
    bytes: Vec<u8>,
    range: Range<usize>,
}

impl Scratch {
    pub(crate) fn new(len: usize) -> Scratch {
        let bytes = vec![0; len + page()];
        let begin = bytes.as_ptr().align_offset(page());
        // The vector never grows or shrinks, so its address stays valid.
        let range = begin..begin + len;
        Scratch { bytes, range }
    }
}

impl Deref for Scratch {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.range.clone()]
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.range.clone()]
    }
}

/// The most spare buffers of each size. Each connection in the middle of a message uses one.
const MOST: usize = 32;

/// The capacity of a small buffer.
pub(crate) const SMALL: usize = 4 << 10;

/// Empty buffers, small and large ones. A longer message has a buffer of its own, which is not kept.
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

    /// Returns a copy of these bytes, in a buffer of fitting size.
    pub(crate) fn keep(&mut self, bytes: &[u8]) -> Vec<u8> {
        let (kept, size) = match bytes.len() {
            ..=SMALL => (&mut self.small, SMALL),
            _ => (&mut self.large, LARGE),
        };
        let mut buffer = kept.pop().unwrap_or_else(|| Vec::with_capacity(size));
        buffer.extend_from_slice(bytes);
        buffer
    }

    /// Takes back a buffer with bytes that are no longer needed.
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

/// Returns how many bytes to read behind a long incomplete message: its buffer grows only when it is
/// full.
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
    fn a_buffer_is_reused_with_its_memory_for_other_bytes() {
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
    fn only_a_bounded_number_is_kept() {
        let mut spares = Spares::new();
        (0..MOST * 2).for_each(|_| spares.give(Vec::with_capacity(LARGE)));
        assert_eq!(spares.large.len(), MOST);
        assert_eq!(spares.large.capacity(), MOST);
    }

    #[test]
    fn a_full_buffer_grows_by_a_whole_read() {
        assert_eq!(next_read(&[7; LARGE], LARGE), READ_SIZE);
        assert_eq!(next_read(&[7; 10], LARGE), LARGE - 10);
    }

    #[test]
    fn scratch_memory_is_page_aligned_and_has_its_length() {
        for len in [1, 4096, 65_536, 70_000] {
            let mut scratch = Scratch::new(len);
            assert_eq!(scratch.len(), len);
            assert_eq!(scratch.as_ptr() as usize % page(), 0);
            let moved = std::mem::take(&mut scratch);
            assert_eq!((scratch.len(), moved.len()), (0, len));
            assert_eq!(moved.as_ptr() as usize % page(), 0);
        }
    }
}
