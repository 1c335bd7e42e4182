//! The descriptors 0 to 2: whatever opens a file expects that they are the standard streams.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};

/// The lowest descriptor that is not a standard stream.
const FIRST: i32 = 3;

/// Opens `/dev/null` for each standard stream that is closed: a socket in its place would get what is
/// written to the stream.
pub(crate) fn fill_holes() -> io::Result<()> {
    for number in 0..FIRST {
        // SAFETY: the descriptor is borrowed for this call. If it is closed, the kernel says so.
        let stream = unsafe { BorrowedFd::borrow_raw(number) };
        if fcntl(stream, FcntlArg::F_GETFD) == Err(Errno::EBADF) {
            let null = OpenOptions::new()
                .read(true)
                .write(true)
                .open("/dev/null")?;
            // The kernel gives the lowest number that is free. Programs that a callback executes inherit
            // it, as any standard stream.
            if null.as_raw_fd() == number {
                fcntl(&null, FcntlArg::F_SETFD(FdFlag::empty()))?;
                let _open = null.into_raw_fd();
            }
        }
    }
    Ok(())
}

/// Returns the descriptor, or a copy of it if it is in the place of a standard stream.
pub(crate) fn above(descriptor: OwnedFd) -> io::Result<OwnedFd> {
    if descriptor.as_raw_fd() >= FIRST {
        return Ok(descriptor);
    }
    let copy = fcntl(&descriptor, FcntlArg::F_DUPFD_CLOEXEC(FIRST))?;
    // SAFETY: the kernel has just made the descriptor, and it belongs to nobody yet.
    let copy = unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(copy) };
    drop(descriptor);
    fill_holes()?;
    Ok(copy)
}
