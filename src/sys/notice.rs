//! A word that one process writes and those that it forks read: how a change gets to all of them without a signal.
//!
//! Its one rule: a forked process can't write it. A worker is not trusted with what the others read.

use std::ffi::c_void;
use std::io;
use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap};
use nix::unistd::ftruncate;

/// The size of the file; the kernel rounds it up to a page.
const SIZE: NonZeroUsize = NonZeroUsize::new(4096).expect("it is not 0");

/// The word. It lasts as long as the process: a logger has it.
pub(crate) struct Notice {
    /// Not mapped in a forked process, madvise(2) with MADV_DONTFORK.
    written: NonNull<c_void>,
    read: NonNull<c_void>,
    /// The process that may write, by pid.
    writer: u32,
}

// SAFETY: both addresses are of memory that stays mapped, and all access there is atomic.
unsafe impl Send for Notice {}
// SAFETY: as above.
unsafe impl Sync for Notice {}

impl Notice {
    /// Makes a word that is 0, and that this process may write.
    pub(crate) fn new() -> io::Result<Notice> {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let file = memfd_create(c"tine-log", flags)?;
        ftruncate(&file, SIZE.get() as i64)?;
        let both = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: the kernel chooses the address, where nothing is mapped; the file has as many bytes.
        let written = unsafe { mmap(None, SIZE, both, MapFlags::MAP_SHARED, &file, 0) }?;
        // SAFETY: the mapping was made above, and nothing else has it yet.
        unsafe { madvise(written, SIZE.get(), MmapAdvise::MADV_DONTFORK) }?;
        // Nobody can map it for writing from now on, or make the other mapping writable. Linux before 5.1 has no such
        // seal, and a worker would have to be hostile to use that.
        let seal = SealFlag::from_bits_retain(libc::F_SEAL_FUTURE_WRITE);
        if let Err(error) = fcntl(&file, FcntlArg::F_ADD_SEALS(seal)) {
            log::trace!("cannot seal the notice of the log: {error}");
        }
        let shared = MapFlags::MAP_SHARED;
        // SAFETY: as for the first mapping.
        let read = unsafe { mmap(None, SIZE, ProtFlags::PROT_READ, shared, &file, 0) }?;
        Ok(Notice {
            written,
            read,
            writer: std::process::id(),
        })
    }

    /// Returns the word.
    pub(crate) fn get(&self) -> u32 {
        // SAFETY: the mapping is a page that begins with the word, and stays.
        let word = unsafe { self.read.cast::<AtomicU32>().as_ref() };
        word.load(Ordering::Relaxed)
    }

    /// Sets the word, in the process that has made it. In any other one nothing happens.
    pub(crate) fn set(&self, value: u32) {
        if self.writer == std::process::id() {
            // SAFETY: this process has the mapping, which begins with the word, and stays.
            let word = unsafe { self.written.cast::<AtomicU32>().as_ref() };
            word.store(value, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Notice;

    #[test]
    fn what_is_set_is_read_by_the_other_mapping() {
        let notice = Notice::new().unwrap();
        assert_eq!(notice.get(), 0);
        notice.set(7);
        assert_eq!(notice.get(), 7);
    }

    #[test]
    fn another_process_sets_nothing() {
        let mut notice = Notice::new().unwrap();
        notice.writer += 1;
        notice.set(7);
        assert_eq!(notice.get(), 0);
    }
}
