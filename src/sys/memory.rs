//! memfd_create(2) and mmap(2): memory that all processes of the server share, some of it mapped
//! twice in a row.

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{
    MapFlags, MmapAdvise, ProtFlags, madvise, mmap, mmap_anonymous, mprotect, munmap,
};

use super::fault::{self, Call};

/// The page size that offsets and lengths here are multiples of. Larger pages of other machines are
/// multiples of it, and the layout asks [`page`] for the real one.
pub(crate) fn page() -> usize {
    nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)
        .ok()
        .flatten()
        .map_or(4096, |size| size as usize)
}

/// A file that lives in memory alone, of a size that is sealed: a worker that shortened it would end
/// the master by SIGBUS.
pub(crate) struct SharedFile(OwnedFd);

impl SharedFile {
    pub(crate) fn new(name: &str, len: usize) -> io::Result<SharedFile> {
        fault::check(Call::MemfdCreate)?;
        let fd = memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
        nix::unistd::ftruncate(
            &fd,
            i64::try_from(len).map_err(|_| io::ErrorKind::OutOfMemory)?,
        )?;
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        fcntl(&fd, FcntlArg::F_ADD_SEALS(seals))?;
        Ok(SharedFile(fd))
    }

    /// Maps `len` bytes from `offset` once.
    pub(crate) fn map(&self, offset: usize, len: usize) -> io::Result<Mapping> {
        let size = NonZeroUsize::new(len).ok_or(io::ErrorKind::InvalidInput)?;
        fault::check(Call::Mmap)?;
        // SAFETY: the kernel chooses an address that is free, so no existing memory is touched.
        let start = unsafe {
            mmap(
                None,
                size,
                READ_WRITE,
                MapFlags::MAP_SHARED,
                &self.0,
                offset as i64,
            )
        }?;
        Ok(Mapping {
            start: start.cast(),
            len,
        })
    }

    /// Maps `len` bytes from `offset` twice in a row: byte `len + i` is byte `i`, so that what
    /// begins anywhere in the first half and is at most `len` long lies in one piece.
    pub(crate) fn map_twice(&self, offset: usize, len: usize) -> io::Result<Mapping> {
        let both = NonZeroUsize::new(len * 2).ok_or(io::ErrorKind::InvalidInput)?;
        let size = NonZeroUsize::new(len).ok_or(io::ErrorKind::InvalidInput)?;
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
        fault::check(Call::Mmap)?;
        // SAFETY: the kernel chooses a free range; it is only reserved, with no access.
        let start = unsafe { mmap_anonymous(None, both, ProtFlags::PROT_NONE, flags) }?;
        let mapping = Mapping {
            start: start.cast(),
            len: len * 2,
        };
        for half in 0..2 {
            let address = NonZeroUsize::new(start.as_ptr() as usize + half * len);
            fault::check(Call::Mmap)?;
            // SAFETY: MAP_FIXED replaces pages of the range that was reserved just above and that
            // nobody else knows of.
            unsafe {
                mmap(
                    address,
                    size,
                    READ_WRITE,
                    MapFlags::MAP_SHARED | MapFlags::MAP_FIXED,
                    &self.0,
                    offset as i64,
                )
            }?;
        }
        Ok(mapping)
    }
}

const READ_WRITE: ProtFlags = ProtFlags::PROT_READ.union(ProtFlags::PROT_WRITE);

/// A range of shared memory in this process, unmapped when dropped. It hands out a bare pointer:
/// `ipc` decides which side accesses which bytes at which time.
pub(crate) struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

impl Mapping {
    pub(crate) fn start(&self) -> NonNull<u8> {
        self.start
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// From now on this process can read the range and not write it: a stray write of a callback
    /// ends the worker instead of changing what the master believes.
    pub(crate) fn forbid_writing(&self) -> io::Result<()> {
        fault::check(Call::Mprotect)?;
        // SAFETY: only the protection changes; the worker's code writes nowhere in this range.
        Ok(unsafe { mprotect(self.start.cast(), self.len, ProtFlags::PROT_READ) }?)
    }

    /// Children of this process do not get the range: a process that a callback forks can't write it
    /// after the worker is gone.
    pub(crate) fn keep_from_children(&self) -> io::Result<()> {
        // SAFETY: MADV_DONTFORK changes nothing in this process, madvise(2).
        Ok(unsafe { madvise(self.start.cast(), self.len, MmapAdvise::MADV_DONTFORK) }?)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by this type, and every holder of a pointer into it holds the
        // mapping too.
        if let Err(error) = unsafe { munmap(self.start.cast(), self.len) } {
            log::error!("munmap: {error}");
        }
    }
}

// SAFETY: the mapping is memory of the whole process; the type itself reads and writes none of it.
unsafe impl Send for Mapping {}
// SAFETY: as above: `&Mapping` gives addresses only.
unsafe impl Sync for Mapping {}
