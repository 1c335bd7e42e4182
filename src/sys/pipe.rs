//! Pipes between the server's processes: small records in one direction, and end-of-file as the
//! news that a process died.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::thread;
use std::time::Duration;

use std::fs::{File, OpenOptions};

use nix::fcntl::OFlag;

use super::fault::{self, Call};

/// The reading end. It does not block.
#[derive(Debug)]
pub(crate) struct Receiver(File);

/// The writing end. End-of-file reaches the reader when the last copy is gone, however its process
/// ended.
#[derive(Debug)]
pub(crate) struct Sender(File);

/// Makes a pipe of which neither end blocks: a full pipe is an error for the writer.
pub(crate) fn pipe() -> io::Result<(Sender, Receiver)> {
    fault::check(Call::Pipe2)?;
    let (reader, writer): (OwnedFd, OwnedFd) =
        nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    Ok((Sender(writer.into()), Receiver(reader.into())))
}

/// The outcome of a read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// This many bytes.
    Bytes(usize),
    /// Nothing now.
    Nothing,
    /// The other end is closed everywhere: its process is gone.
    End,
}

impl Receiver {
    pub(crate) fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Received> {
        loop {
            match self.0.read(buffer) {
                Ok(0) => return Ok(Received::End),
                Ok(n) => return Ok(Received::Bytes(n)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Received::Nothing);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Receiver {
    /// Has the kernel kill this process when the last sender is gone, whatever this process is doing then:
    /// SIGKILL in place of SIGIO, fcntl(2), F_SETSIG. Unlike PR_SET_PDEATHSIG it is not forgotten when user
    /// code changes the user id: the right to send is that of the user who asks for it here.
    ///
    /// The description for that is this process's own, and open until its end: the pipe's is shared by all
    /// workers, and knows one process alone.
    ///
    /// # Errors
    /// /proc is not there, for example.
    pub(crate) fn kill_at_end(&self) -> io::Result<()> {
        let own = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(format!("/proc/self/fd/{}", self.0.as_raw_fd()))?;
        let fd = own.as_raw_fd();
        // SAFETY: takes two integers beside the descriptor, which is open.
        let is_armed = unsafe {
            libc::fcntl(fd, libc::F_SETOWN, libc::getpid()) == 0
                && libc::fcntl(fd, F_SETSIG, libc::SIGKILL) == 0
                && libc::fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK | libc::O_ASYNC) == 0
        };
        match is_armed {
            true => {
                let _open = own.into_raw_fd();
                Ok(())
            }
            false => Err(io::Error::last_os_error()),
        }
    }
}

/// `linux/fcntl.h`.
const F_SETSIG: i32 = 10;

impl Sender {
    /// How often a record is tried again for which the kernel has no memory, and how soon.
    const TRIES: u32 = 10;
    const PAUSE: Duration = Duration::from_millis(1);

    /// Writes the whole record, at most PIPE_BUF (4,096) bytes, which pipe(7) makes one piece.
    ///
    /// A pipe takes a page of memory when something is written into it, and `write` fails with
    /// ENOMEM when there is none at that moment (`fs/pipe.c` of Linux). Nobody could go on without
    /// the record, so it is tried a few times.
    ///
    /// # Errors
    /// `ErrorKind::WouldBlock` when the pipe is full.
    pub(crate) fn try_send(&self, record: &[u8]) -> io::Result<()> {
        for _ in 0..Self::TRIES {
            match self.write(record) {
                Err(error) if error.kind() == io::ErrorKind::OutOfMemory => {
                    thread::sleep(Self::PAUSE);
                }
                written => return written,
            }
        }
        self.write(record)
    }

    fn write(&self, record: &[u8]) -> io::Result<()> {
        fault::check(Call::Write)?;
        (&self.0).write_all(record)
    }
}

impl AsFd for Receiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
