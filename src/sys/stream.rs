//! Writes to standard output and standard error that never wait, whatever these descriptors are.
//!
//! Its one rule: a descriptor that this process has inherited stays as it is. Its open file description is
//! shared with other processes, so that O_NONBLOCK there would be theirs too, fcntl(2). Each kind of file
//! has another way around that:
//!
//! | file | way |
//! |---|---|
//! | pipe | pwritev2(2) with RWF_NOWAIT, in pieces that pipe(7) never divides; before Linux 6.4 as a terminal |
//! | terminal | a description of its own with O_NONBLOCK, by `/proc/self/fd` or `/dev/tty` |
//! | socket | send(2) with MSG_DONTWAIT |
//! | regular file | write(2), which waits for no reader |
//! | another device | poll(2), then write(2) |

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, pthread_sigmask};
use nix::sys::stat::{FileStat, SFlag, fstat};

use super::{signal, standard};

/// The most bytes that a pipe takes as a whole or not at all, pipe(7).
const PIPE_BUF: usize = libc::PIPE_BUF;

#[cfg(feature = "logger")]
static STDOUT: Mutex<Stream> = Mutex::new(Stream::of(libc::STDOUT_FILENO));
static STDERR: Mutex<Stream> = Mutex::new(Stream::of(libc::STDERR_FILENO));

/// Standard output.
#[cfg(feature = "logger")]
pub(crate) fn stdout() -> MutexGuard<'static, Stream> {
    STDOUT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Standard error.
pub(crate) fn stderr() -> MutexGuard<'static, Stream> {
    STDERR.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A descriptor to write to, and the way to do so. The number may come to stand for another file at any
/// time: the file is looked at before each write.
pub(crate) struct Stream {
    fd: RawFd,
    file: Option<FileId>,
    way: Way,
    /// The last write ended within a line.
    is_torn: bool,
}

/// Why a text was not written, or not to its end.
#[derive(Debug)]
#[cfg_attr(not(feature = "logger"), allow(dead_code))] // Only the logger asks.
pub(crate) struct Cut {
    /// The bytes of the text that were written.
    pub(crate) written: usize,
    pub(crate) error: io::Error,
}

/// What tells two files apart, stat(2).
pub(crate) type FileId = (u64, u64, u64);

enum Way {
    /// write(2) on the descriptor itself.
    Plain,
    /// The same, when poll(2) says that there is room.
    Polled,
    Send,
    NoWait,
    /// A description of this process and its children, which does not block.
    Own(OwnedFd, FileId),
    /// A terminal that this user may not open: each write could wait.
    Barred,
}

impl Stream {
    pub(crate) const fn of(fd: RawFd) -> Stream {
        Stream {
            fd,
            file: None,
            way: Way::Barred,
            is_torn: false,
        }
    }

    /// Writes a text of whole lines, as far as that is possible at once.
    ///
    /// # Errors
    /// `ErrorKind::WouldBlock` when there is no room for it. The next text begins at a new line, also after
    /// one that was cut.
    pub(crate) fn write(&mut self, text: &[u8]) -> Result<(), Cut> {
        let fail = |error| Cut { written: 0, error };
        self.look().map_err(fail)?;
        let _quiet = Quiet::new().map_err(fail)?;
        if !self.is_torn {
            return self.write_pieces(text);
        }
        let text = [b"\n", text].concat();
        let written = self.write_pieces(&text);
        written.map_err(|cut| Cut {
            written: cut.written.saturating_sub(1),
            ..cut
        })
    }

    /// Finds the way to the file that the descriptor names at present.
    fn look(&mut self) -> io::Result<()> {
        // SAFETY: the descriptor is borrowed for this call. If it is closed, the kernel says so.
        let stat = fstat(unsafe { BorrowedFd::borrow_raw(self.fd) })?;
        let is_own = match &self.way {
            // A callback may have closed it, and its number may stand for a database by now.
            Way::Own(own, file) => fstat(own).is_ok_and(|stat| id(&stat) == *file),
            Way::Plain | Way::Polled | Way::Send | Way::NoWait | Way::Barred => true,
        };
        if self.file == Some(id(&stat)) && is_own {
            return Ok(());
        }
        let way = self.way(&stat);
        let before = std::mem::replace(&mut self.way, way);
        if let (Way::Own(own, _), false) = (before, is_own) {
            // Not this stream's to close any more.
            let _number = own.into_raw_fd();
        }
        self.file = Some(id(&stat));
        self.is_torn = false;
        Ok(())
    }

    fn way(&self, stat: &FileStat) -> Way {
        let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
        match kind {
            SFlag::S_IFIFO => Way::NoWait,
            SFlag::S_IFSOCK => Way::Send,
            SFlag::S_IFREG => Way::Plain,
            SFlag::S_IFCHR if terminal(self.fd).is_some() => self.own().unwrap_or(Way::Barred),
            _ => Way::Polled,
        }
    }

    /// Opens the file once more, without blocking.
    fn own(&self) -> Option<Way> {
        let again = open(&format!("/proc/self/fd/{}", self.fd)).ok();
        // A terminal of another user can't be opened by its path, but by /dev/tty if it controls this process, tty(4).
        let own = again.or_else(|| {
            let own = open("/dev/tty").ok()?;
            (terminal(own.as_raw_fd())? == terminal(self.fd)?).then_some(own)
        });
        let own = standard::above(own?.into()).ok()?;
        let file = id(&fstat(&own).ok()?);
        Some(Way::Own(own, file))
    }

    fn write_pieces(&mut self, text: &[u8]) -> Result<(), Cut> {
        let mut written = 0;
        while written < text.len() {
            let rest = &text[written..];
            let piece = match self.way {
                Way::NoWait | Way::Polled => piece(rest),
                Way::Plain | Way::Send | Way::Own(..) | Way::Barred => rest,
            };
            match self.write_once(piece) {
                Ok(n) => written += n,
                Err(error) => {
                    if written > 0 {
                        self.is_torn = text[written - 1] != b'\n';
                    }
                    return Err(Cut { written, error });
                }
            }
        }
        self.is_torn = false;
        Ok(())
    }

    fn write_once(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &self.way {
            Way::Plain => write(self.fd, bytes),
            Way::Own(own, _) => write(own.as_raw_fd(), bytes),
            Way::Send => send(self.fd, bytes),
            Way::Barred => Err(io::ErrorKind::WouldBlock.into()),
            Way::Polled => match has_room(self.fd)? {
                true => write(self.fd, bytes),
                false => Err(io::ErrorKind::WouldBlock.into()),
            },
            Way::NoWait => match write_nowait(self.fd, bytes) {
                Err(error) if is_unknown(&error) => {
                    self.way = self.own().unwrap_or(Way::Polled);
                    self.write_once(bytes)
                }
                written => written,
            },
        }
    }
}

/// The first piece of a text that a pipe does not divide: whole lines, if one fits.
fn piece(text: &[u8]) -> &[u8] {
    if text.len() <= PIPE_BUF {
        return text;
    }
    let end = text[..PIPE_BUF].iter().rposition(|byte| *byte == b'\n');
    &text[..end.map_or(PIPE_BUF, |end| end + 1)]
}

/// Returns what tells the file of a descriptor from others.
#[cfg(feature = "logger")]
pub(crate) fn file_id(fd: &OwnedFd) -> io::Result<FileId> {
    Ok(id(&fstat(fd)?))
}

/// Whether standard error is the stream of the journal that the service manager has made: `JOURNAL_STREAM` has its
/// device and inode, systemd.exec(5).
#[cfg(feature = "logger")]
pub(crate) fn stderr_is_journal(named: &str) -> bool {
    // SAFETY: the descriptor is borrowed for this call. If it is closed, the kernel says so.
    let stat = fstat(unsafe { BorrowedFd::borrow_raw(libc::STDERR_FILENO) });
    stat.is_ok_and(|stat| named == format!("{}:{}", stat.st_dev, stat.st_ino))
}

fn id(stat: &FileStat) -> FileId {
    (stat.st_dev, stat.st_ino, stat.st_rdev)
}

fn open(path: &str) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
}

/// Returns the number of the device, if the descriptor is a terminal, ioctl_tty(2). `/dev/tty` has the
/// number of the terminal that it stands for.
fn terminal(fd: RawFd) -> Option<u32> {
    let mut number = 0;
    // SAFETY: the kernel writes one unsigned int to `number`.
    let got = unsafe { libc::ioctl(fd, libc::TIOCGDEV, &raw mut number) };
    (got == 0).then_some(number)
}

/// Whether the descriptor takes bytes now. A pipe that is ready takes PIPE_BUF of them.
fn has_room(fd: RawFd) -> io::Result<bool> {
    // SAFETY: the descriptor is borrowed for this call. If it is closed, the kernel says so.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    let mut fds = [PollFd::new(fd, PollFlags::POLLOUT)];
    poll(&mut fds, PollTimeout::ZERO)?;
    let ready = fds[0].revents().unwrap_or(PollFlags::empty());
    // An error is for the write to report.
    Ok(ready.intersects(PollFlags::POLLOUT | PollFlags::POLLERR | PollFlags::POLLNVAL))
}

fn written(result: isize) -> io::Result<usize> {
    match usize::try_from(result) {
        // A loop that wrote nothing again and again would not end.
        Ok(0) => Err(io::ErrorKind::WriteZero.into()),
        Ok(n) => Ok(n),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

fn write(fd: RawFd, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: the kernel reads at most `len` bytes from `bytes`, which has as many.
    written(unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) })
}

fn send(fd: RawFd, bytes: &[u8]) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the kernel reads at most `len` bytes from `bytes`, which has as many.
    written(unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), flags) })
}

fn write_nowait(fd: RawFd, bytes: &[u8]) -> io::Result<usize> {
    let part = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: the kernel reads one iovec, and through it at most `len` bytes from `bytes`, which has as
    // many. -1 stands for the file's own offset, of which a pipe has none.
    written(unsafe { libc::pwritev2(fd, &raw const part, 1, -1, libc::RWF_NOWAIT) })
}

/// Whether this kernel has no RWF_NOWAIT for this file.
fn is_unknown(error: &io::Error) -> bool {
    let unknown = [libc::EOPNOTSUPP, libc::ENOSYS, libc::EINVAL];
    error
        .raw_os_error()
        .is_some_and(|code| unknown.contains(&code))
}

/// Every signal is blocked for this thread while it exists: a write can send SIGPIPE, or SIGXFSZ, and to a
/// terminal SIGTTOU, which would stop the whole process group. What a write has sent is taken away.
struct Quiet {
    before: SigSet,
}

impl Quiet {
    fn new() -> io::Result<Quiet> {
        let mut before = SigSet::empty();
        pthread_sigmask(
            SigmaskHow::SIG_SETMASK,
            Some(&SigSet::all()),
            Some(&mut before),
        )?;
        Ok(Quiet { before })
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        signal::forget_own();
        // It fails for no set, pthread_sigmask(3).
        let _ = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&self.before), None);
    }
}

#[cfg(test)]
mod tests;
