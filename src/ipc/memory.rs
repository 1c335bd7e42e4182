//! The bytes of a ring, and bytes that another process may change while we look.
//!
//! No Rust reference is made to memory that the other side may write: bytes are copied out, copied
//! in, or handed to the kernel.

use std::io;
use std::marker::PhantomData;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;

use super::position::offset;
use crate::sys::memory::{Mapping, SharedFile};
use crate::sys::socket::{self, Read};

/// A ring's memory: `capacity` bytes, addressed by positions that never wrap, each frame in one
/// piece.
pub(crate) struct Ring {
    /// `capacity` bytes mapped twice in a row.
    start: NonNull<u8>,
    /// A power of two.
    capacity: usize,
    owner: Owner,
}

enum Owner {
    Mapped {
        mapping: Mapping,
    },
    /// For miri, which has no shared mappings: both halves are real memory, so a test must not let a
    /// frame cross the wrap.
    #[cfg(test)]
    Heap(std::alloc::Layout),
}

// SAFETY: the ring hands out no references. Which process and thread may write which bytes is
// decided by the positions of `ring::Producer` and `ring::Consumer`, whose release and acquire
// order the accesses.
unsafe impl Send for Ring {}
// SAFETY: as above.
unsafe impl Sync for Ring {}

impl Ring {
    /// Maps `capacity` bytes of `file` from `offset`, twice in a row, with the file's access: a write to
    /// a ring that is mapped read-only ends the process.
    pub(crate) fn map(file: &SharedFile, offset: usize, capacity: usize) -> io::Result<Ring> {
        assert!(capacity.is_power_of_two());
        let mapping = file.map_twice(offset, capacity)?;
        Ok(Ring {
            start: mapping.start(),
            capacity,
            owner: Owner::Mapped { mapping },
        })
    }

    #[cfg(test)]
    pub(crate) fn on_heap(capacity: usize) -> Ring {
        let layout = std::alloc::Layout::from_size_align(capacity * 2, 4096).unwrap();
        // SAFETY: the layout is not empty.
        let start = unsafe { std::alloc::alloc_zeroed(layout) };
        Ring {
            start: NonNull::new(start).unwrap(),
            capacity,
            owner: Owner::Heap(layout),
        }
    }

    pub(crate) fn capacity(&self) -> u64 {
        self.capacity as u64
    }

    /// Gives the pages of a part of the ring back to the machine, from one page to another. Nobody may need
    /// the bytes there, and this process must be able to write them.
    pub(crate) fn give_back(&self, from: usize, to: usize) -> io::Result<()> {
        assert!(from <= to && to <= self.capacity);
        match &self.owner {
            Owner::Mapped { mapping } => mapping.remove(from, to - from),
            #[cfg(test)]
            Owner::Heap(_) => Ok(()),
        }
    }

    /// The address of `len` bytes from `position`, in one piece.
    fn at(&self, position: u64, len: usize) -> *mut u8 {
        assert!(
            len <= self.capacity,
            "{len} bytes in a ring of {}",
            self.capacity
        );
        let offset = offset(position, self.capacity()) as usize;
        // SAFETY: offset < capacity and len <= capacity, so that the range lies within the 2 *
        // capacity bytes of both halves.
        unsafe { self.start.as_ptr().add(offset) }
    }

    /// Copies `bytes` in at `position`.
    pub(crate) fn write(&self, position: u64, bytes: &[u8]) {
        let to = self.at(position, bytes.len());
        // SAFETY: `at` vouches for the range; `bytes` is memory of this process that is not in a
        // ring, so they do not overlap.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) }
    }

    /// Copies `N` bytes out from `position`, once: this copy is what is validated.
    pub(crate) fn read<const N: usize>(&self, position: u64) -> [u8; N] {
        let from = self.at(position, N).cast::<[u8; N]>();
        // SAFETY: `at` vouches for the range, and an array of bytes has no alignment. Volatile, so
        // that the compiler reads once, whatever another process writes meanwhile.
        unsafe { from.read_volatile() }
    }

    /// Bytes that the producer may fill.
    pub(crate) fn room(&self, position: u64, len: usize) -> Room<'_> {
        Room {
            start: self.at(position, len),
            len,
            ring: PhantomData,
        }
    }

    /// Published bytes that a worker may still change.
    pub(crate) fn shared(&self, position: u64, len: usize) -> SharedBytes<'_> {
        SharedBytes {
            start: self.at(position, len),
            len,
            source: PhantomData,
        }
    }

    /// Published bytes as a slice.
    ///
    /// # Safety
    /// Nobody may write the range while the slice lives. A worker can promise that for a frame of its
    /// inbox that its callback has begun: the reactor writes there again only when the frame is retired,
    /// which takes the worker's `Done` or `Failed`. A recalled frame is one that no callback has begun.
    pub(crate) unsafe fn slice(&self, position: u64, len: usize) -> &[u8] {
        // SAFETY: `at` vouches for the range, the caller for its not being written.
        unsafe { std::slice::from_raw_parts(self.at(position, len), len) }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        match &self.owner {
            Owner::Mapped { .. } => {}
            #[cfg(test)]
            // SAFETY: `start` came from `alloc_zeroed` with this layout.
            Owner::Heap(layout) => unsafe { std::alloc::dealloc(self.start.as_ptr(), *layout) },
        }
    }
}

/// A range to be filled from a socket.
pub(crate) struct Room<'a> {
    start: *mut u8,
    len: usize,
    ring: PhantomData<&'a Ring>,
}

impl<'a> Room<'a> {
    /// A range of this process's own memory.
    pub(crate) fn of(bytes: &'a mut [u8]) -> Room<'a> {
        Room {
            start: bytes.as_mut_ptr(),
            len: bytes.len(),
            ring: PhantomData,
        }
    }

    /// Reads from the socket, at most as many bytes as there is room for.
    pub(crate) fn fill_from(&mut self, socket: BorrowedFd<'_>) -> Read {
        // SAFETY: the range was made by `Ring::at` or from a slice that is borrowed for as long as
        // this room lives, and holds no other reference: bytes that are not published belong to the
        // producer, which is this side.
        unsafe { socket::read_into(socket, self.start, self.len) }
    }
}

/// Bytes that another process may change while we look: they can be copied or sent, and not
/// borrowed.
#[derive(Clone, Copy)]
pub(crate) struct SharedBytes<'a> {
    start: *const u8,
    len: usize,
    source: PhantomData<&'a [u8]>,
}

impl<'a> SharedBytes<'a> {
    /// Bytes of this process's own memory, for callers that take both kinds.
    pub(crate) fn of(bytes: &'a [u8]) -> SharedBytes<'a> {
        SharedBytes {
            start: bytes.as_ptr(),
            len: bytes.len(),
            source: PhantomData,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The first `n` bytes.
    pub(crate) fn first(self, n: usize) -> SharedBytes<'a> {
        assert!(n <= self.len);
        SharedBytes { len: n, ..self }
    }

    /// All but the first `n` bytes.
    pub(crate) fn skip(self, n: usize) -> SharedBytes<'a> {
        assert!(n <= self.len);
        // SAFETY: n is within the range.
        let start = unsafe { self.start.add(n) };
        SharedBytes {
            start,
            len: self.len - n,
            source: PhantomData,
        }
    }

    /// Copies the bytes to the end of `buffer`.
    pub(crate) fn append_to(&self, buffer: &mut Vec<u8>) {
        buffer.reserve(self.len);
        // SAFETY: the range was made by `Ring::at` or from a slice, and is valid for as long as
        // this value lives; the vector has room for `len` more bytes, which nobody else
        // points to, and they are filled before its length says so.
        unsafe {
            let end = buffer.as_mut_ptr().add(buffer.len());
            std::ptr::copy_nonoverlapping(self.start, end, self.len);
            buffer.set_len(buffer.len() + self.len);
        }
    }

    /// Sends as many bytes as the socket takes now; returns `None` when it takes none.
    pub(crate) fn send(&self, socket: BorrowedFd<'_>) -> io::Result<Option<usize>> {
        // SAFETY: the range is valid for as long as this value lives.
        unsafe { socket::write_from(socket, self.start, self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(not(miri))] // Miri has no shared mappings.
    fn a_frame_across_the_wrap_is_in_one_piece() {
        let file = SharedFile::new("ring", 4096).unwrap();
        let ring = Ring::map(&file, 0, 4096).unwrap();
        ring.write(4096 * 5 + 4090, b"hello, wrap");
        let mut copy = Vec::new();
        ring.shared(4090, 11).append_to(&mut copy);
        assert_eq!(copy, b"hello, wrap");
        // The second half of it is at the start of the ring.
        assert_eq!(ring.read::<5>(0), *b" wrap");
    }

    #[test]
    fn what_was_written_is_read_at_the_same_position_a_lap_later() {
        let ring = Ring::on_heap(64);
        ring.write(64 * 3 + 8, &[7; 16]);
        assert_eq!(ring.read::<16>(8), [7; 16]);
    }

    #[test]
    fn skipped_bytes_are_not_copied() {
        let mut copy = b"x".to_vec();
        SharedBytes::of(b"abcdef").skip(4).append_to(&mut copy);
        assert_eq!(copy, b"xef");
    }
}
