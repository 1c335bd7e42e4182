//! Memory of one process that sockets are read into, when what is read can't go to its place at once.

use std::ops::{Deref, DerefMut, Range};

use crate::sys::memory::page;

/// So many bytes, from the beginning of a page on: some processors copy several times slower to an
/// address that is a few bytes past one (64 KiB on an AMD EPYC: 27 µs instead of 6.5), and an allocator
/// gives just such addresses. What is left by [`std::mem::take`] has none.
#[derive(Default)]
pub(crate) struct Scratch {
    bytes: Vec<u8>,
    range: Range<usize>,
}

impl Scratch {
    pub(crate) fn new(len: usize) -> Scratch {
        let bytes = vec![0; len + page()];
        let begin = bytes.as_ptr().align_offset(page());
        // A vector that neither grows nor shrinks stays where it is.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_begins_with_a_page_and_has_its_length() {
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
