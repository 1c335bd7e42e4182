//! Regular files whose bytes are sent: preadv2(2) at an offset, without waiting where the file system can do that.
//!
//! Its one rule: what is asked of a file here, except by [`read`] and [`len`], is answered by this kernel, and not by
//! a server or a process that a file system belongs to.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::fstat;

use super::fault::{self, Call};
use super::standard;

/// The outcome of a read that does not wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Now {
    /// So many bytes were read, at least one.
    Read(usize),
    /// The bytes are on a disk, or there are none: the file has ended.
    Later,
    /// This file system can't read without waiting.
    Unable,
}

/// Reads bytes from `at` on, if that needs no waiting: they are in the page cache.
pub(crate) fn read_now(file: BorrowedFd<'_>, at: u64, buffer: &mut [u8]) -> io::Result<Now> {
    match preadv2(file, at, buffer, libc::RWF_NOWAIT) {
        // Not the end of the file for sure: Linux 5.9 and 5.10 return 0 also for bytes that are not in the page cache,
        // preadv2(2), "Bugs". A read that waits tells.
        Ok(0) | Err(Errno::EAGAIN) => Ok(Now::Later),
        Ok(n) => Ok(Now::Read(n)),
        Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => Ok(Now::Unable),
        Err(error) => Err(error.into()),
    }
}

/// Reads bytes from `at` on, and waits for them. Returns 0 at the end of the file.
pub(crate) fn read(file: BorrowedFd<'_>, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
    Ok(preadv2(file, at, buffer, 0)?)
}

fn preadv2(file: BorrowedFd<'_>, at: u64, buffer: &mut [u8], flags: i32) -> Result<usize, Errno> {
    let part = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    // -1 would stand for the offset of the open file.
    let at = libc::off_t::try_from(at).map_err(|_| Errno::EINVAL)?;
    loop {
        fault::check(Call::Pread)?;
        // SAFETY: the kernel reads one iovec, and through it writes at most `len` bytes to `buffer`, which has as many.
        let read = unsafe { libc::preadv2(file.as_raw_fd(), &raw const part, 1, at, flags) };
        match Errno::result(read) {
            Ok(read) => return Ok(read as usize),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error),
        }
    }
}

/// What a file is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Kind {
    pub(crate) is_regular: bool,
    /// The device that it is on.
    pub(crate) device: u64,
}

/// Returns what a file is, as far as this kernel knows: statx(2) with AT_STATX_DONT_SYNC.
pub(crate) fn kind(file: BorrowedFd<'_>) -> io::Result<Kind> {
    let mut stat = MaybeUninit::<libc::statx>::zeroed();
    let flags = libc::AT_EMPTY_PATH | libc::AT_STATX_DONT_SYNC;
    // SAFETY: the path is an empty text with a NUL at its end, and the kernel fills one statx.
    let done = unsafe {
        libc::statx(
            file.as_raw_fd(),
            c"".as_ptr(),
            flags,
            libc::STATX_TYPE,
            stat.as_mut_ptr(),
        )
    };
    Errno::result(done)?;
    // SAFETY: all zero is a statx, and the kernel has filled it.
    let stat = unsafe { stat.assume_init() };
    let mode = libc::mode_t::from(stat.stx_mode);
    Ok(Kind {
        is_regular: mode & libc::S_IFMT == libc::S_IFREG,
        device: u64::from(stat.stx_dev_major) << 32 | u64::from(stat.stx_dev_minor),
    })
}

/// Returns the length of a file. For processes that may wait: the file system is asked.
pub(crate) fn len(file: BorrowedFd<'_>) -> io::Result<u64> {
    Ok(u64::try_from(fstat(file)?.st_size).unwrap_or(0))
}

/// Whether the descriptor can be read into any memory: it is open for reading, and neither with O_PATH nor with
/// O_DIRECT.
pub(crate) fn is_readable(file: BorrowedFd<'_>) -> io::Result<bool> {
    let flags = OFlag::from_bits_retain(fcntl(file, FcntlArg::F_GETFL)?);
    let is_write_only = flags.intersection(OFlag::O_ACCMODE) == OFlag::O_WRONLY;
    Ok(!is_write_only && !flags.intersects(OFlag::O_PATH | OFlag::O_DIRECT))
}

/// Returns a copy of a descriptor, of the same open file description.
pub(crate) fn copy(file: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    fault::check(Call::Dup)?;
    standard::above(file.try_clone_to_owned()?)
}

#[cfg(all(test, not(miri)))] // Miri has neither of these calls.
mod tests {
    use std::fs::{File, OpenOptions};
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::os::unix::fs::OpenOptionsExt;

    use super::*;

    fn file() -> (tempfile::TempDir, File) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mut file = File::create(&path).unwrap();
        file.write_all(b"0123456789").unwrap();
        (folder, File::open(path).unwrap())
    }

    #[test]
    fn bytes_are_read_at_an_offset_up_to_the_end() {
        let (_folder, file) = file();
        let mut buffer = [0; 4];
        assert_eq!(read(file.as_fd(), 8, &mut buffer).unwrap(), 2);
        assert_eq!(&buffer[..2], b"89");
        assert_eq!(read(file.as_fd(), 10, &mut buffer).unwrap(), 0);
        assert_eq!(read(file.as_fd(), u64::MAX, &mut buffer).ok(), None);
        match read_now(file.as_fd(), 2, &mut buffer).unwrap() {
            Now::Read(n) => assert_eq!(&buffer[..n], &b"2345"[..n]),
            Now::Later | Now::Unable => {}
        }
    }

    #[test]
    fn only_files_that_are_regular_and_open_for_reading_pass() {
        let (folder, file) = file();
        let path = folder.path().join("file");
        let opened = |flags| {
            let mut options = OpenOptions::new();
            options.read(true).custom_flags(flags).open(&path).unwrap()
        };
        assert!(kind(file.as_fd()).unwrap().is_regular);
        assert!(is_readable(file.as_fd()).unwrap());
        let path_only = opened(libc::O_PATH);
        assert!(kind(path_only.as_fd()).unwrap().is_regular);
        assert!(!is_readable(path_only.as_fd()).unwrap());
        let written = OpenOptions::new().write(true).open(&path).unwrap();
        assert!(!is_readable(written.as_fd()).unwrap());
        let both = OpenOptions::new().write(true).read(true).open(&path);
        assert!(is_readable(both.unwrap().as_fd()).unwrap());
        let (pipe, _writer) = std::io::pipe().unwrap();
        assert!(!kind(pipe.as_fd()).unwrap().is_regular);
        let folder = File::open(folder.path()).unwrap();
        assert!(!kind(folder.as_fd()).unwrap().is_regular);
    }
}
