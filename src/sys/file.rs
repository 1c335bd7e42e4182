//! mmap(2) of a file: bytes are read as they are touched, for large files of which little is looked
//! at.

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::ptr::NonNull;

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use super::fault::{self, Call};

/// The bytes of a file. For processes that may die: SIGBUS ends them if the file is shortened.
pub(crate) struct FileBytes {
    start: NonNull<u8>,
    len: usize,
}

impl FileBytes {
    /// # Errors
    /// Those of mmap(2); an empty file has nothing to map.
    pub(crate) fn map(file: &File) -> io::Result<FileBytes> {
        let len =
            usize::try_from(file.metadata()?.len()).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let size = NonZeroUsize::new(len).ok_or(io::ErrorKind::UnexpectedEof)?;
        let flags = MapFlags::MAP_PRIVATE;
        fault::check(Call::Mmap)?;
        // SAFETY: the kernel chooses an address that is free, so no existing memory is touched.
        let start = unsafe { mmap(None, size, ProtFlags::PROT_READ, flags, file, 0) }?;
        Ok(FileBytes {
            start: start.cast(),
            len,
        })
    }
}

impl Deref for FileBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the range is mapped for as long as `self` lives, readable, and not writable in this
        // process. That the file is not written meanwhile is what every process relies on that runs
        // a program from it.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl Drop for FileBytes {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by this type, and all references into it borrow it.
        if let Err(error) = unsafe { munmap(self.start.cast(), self.len) } {
            log::error!("munmap: {error}");
        }
    }
}
