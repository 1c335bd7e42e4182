//! memfd_create(2) and mmap(2): memory that all processes of the server share, some of it mapped
//! twice in a row.

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap, mmap_anonymous, munmap};

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
#[derive(Debug)]
pub(crate) struct SharedFile {
    fd: OwnedFd,
    access: Access,
}

/// The access that a process has to shared memory, for good: with `Read`, mprotect(2) cannot add
/// writing, since the memory is mapped from a description without it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Access {
    Read,
    Write,
}

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
        Ok(SharedFile {
            fd,
            access: Access::Write,
        })
    }

    /// The file that another process has sent, made by [`new`](Self::new) there.
    pub(crate) fn received(fd: OwnedFd) -> SharedFile {
        SharedFile {
            fd,
            access: Access::Write,
        }
    }

    /// The same file through an open file description that can't write: memory that is mapped from it
    /// stays read-only, whatever the process does, mprotect(2).
    pub(crate) fn read_only(&self) -> io::Result<SharedFile> {
        // Of the file systems, only /proc opens a description again, proc(5).
        let path = format!("/proc/self/fd/{}", self.fd.as_raw_fd());
        fault::check(Call::Open)?;
        Ok(SharedFile {
            fd: std::fs::File::open(path)?.into(),
            access: Access::Read,
        })
    }

    /// Maps `len` bytes from `offset` once. Children of this process do not get the range, unless
    /// [`Mapping::leave_to_children`] is called.
    pub(crate) fn map(&self, offset: usize, len: usize) -> io::Result<Mapping> {
        let size = NonZeroUsize::new(len).ok_or(io::ErrorKind::InvalidInput)?;
        fault::check(Call::Mmap)?;
        // SAFETY: the kernel chooses an address that is free, so no existing memory is touched.
        let start = unsafe {
            mmap(
                None,
                size,
                self.access.protection(),
                MapFlags::MAP_SHARED,
                &self.fd,
                offset as i64,
            )
        }?;
        let mapping = Mapping {
            start: start.cast(),
            len,
            owner: Some(std::process::id()),
        };
        mapping.advise(MmapAdvise::MADV_DONTFORK)?;
        Ok(mapping)
    }

    /// Maps `len` bytes from `offset` twice in a row: byte `len + i` is byte `i`, so that what
    /// begins anywhere in the first half and is at most `len` long lies in one piece. Children of this
    /// process do not get the range.
    pub(crate) fn map_twice(&self, offset: usize, len: usize) -> io::Result<Mapping> {
        let mapping = reserve(len.checked_mul(2).ok_or(io::ErrorKind::OutOfMemory)?)?;
        let size = NonZeroUsize::new(len).ok_or(io::ErrorKind::InvalidInput)?;
        for half in 0..2 {
            let address = NonZeroUsize::new(mapping.start.as_ptr() as usize + half * len);
            fault::check(Call::Mmap)?;
            // SAFETY: MAP_FIXED replaces pages of the range that was reserved just above and that
            // nobody else knows of.
            unsafe {
                mmap(
                    address,
                    size,
                    self.access.protection(),
                    MapFlags::MAP_SHARED | MapFlags::MAP_FIXED,
                    &self.fd,
                    offset as i64,
                )
            }?;
        }
        mapping.advise(MmapAdvise::MADV_DONTFORK)?;
        Ok(mapping)
    }
}

impl AsFd for SharedFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Access {
    fn protection(self) -> ProtFlags {
        match self {
            Access::Read => ProtFlags::PROT_READ,
            Access::Write => ProtFlags::PROT_READ.union(ProtFlags::PROT_WRITE),
        }
    }
}

/// Reserves address space, with no access to it.
pub(crate) fn reserve(len: usize) -> io::Result<Mapping> {
    let size = NonZeroUsize::new(len).ok_or(io::ErrorKind::InvalidInput)?;
    let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
    fault::check(Call::Mmap)?;
    // SAFETY: the kernel chooses a free range; it is only reserved, with no access.
    let start = unsafe { mmap_anonymous(None, size, ProtFlags::PROT_NONE, flags) }?;
    Ok(Mapping {
        start: start.cast(),
        len,
        owner: Some(std::process::id()),
    })
}

/// A range of shared memory in this process, unmapped when dropped. It hands out a bare pointer:
/// `ipc` decides which side accesses which bytes at which time.
pub(crate) struct Mapping {
    start: NonNull<u8>,
    len: usize,
    /// The only process that has it; `None` if its children have it too.
    owner: Option<u32>,
}

impl Mapping {
    pub(crate) fn start(&self) -> NonNull<u8> {
        self.start
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Children of this process get the range.
    pub(crate) fn leave_to_children(mut self) -> io::Result<Mapping> {
        self.advise(MmapAdvise::MADV_DOFORK)?;
        self.owner = None;
        Ok(self)
    }

    /// Children of this process do not get the range: a process that a callback forks can't write it
    /// after the worker is gone.
    pub(crate) fn keep_from_children(&self) -> io::Result<()> {
        self.advise(MmapAdvise::MADV_DONTFORK)
    }

    /// Takes the pages of a part out of the file: whoever looks there finds zeros, in every process.
    pub(crate) fn remove(&self, offset: usize, len: usize) -> io::Result<()> {
        assert!(offset + len <= self.len);
        // SAFETY: the part lies within the mapping; that nobody needs its bytes is up to the caller, and
        // zeros are valid for all that is in shared memory.
        let done = unsafe {
            let start = self.start.add(offset).cast();
            madvise(start, len, MmapAdvise::MADV_REMOVE)
        };
        Ok(done?)
    }

    fn advise(&self, advice: MmapAdvise) -> io::Result<()> {
        // SAFETY: MADV_DONTFORK and MADV_DOFORK change nothing in this process, madvise(2).
        Ok(unsafe { madvise(self.start.cast(), self.len, advice) }?)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // In a child the range was never mapped, and may be another's by now.
        if self.owner.is_some_and(|owner| owner != std::process::id()) {
            return;
        }
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
