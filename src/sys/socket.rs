//! Stream sockets, TCP and unix: read, write, and the ways to close.

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use socket2::SockRef;

use super::fault::{self, Call};
use super::forks;

/// The address of a socket on this side.
#[cfg(feature = "status")]
pub(crate) fn local_address(socket: BorrowedFd<'_>) -> io::Result<std::net::SocketAddr> {
    let address = SockRef::from(&socket).local_addr()?.as_socket();
    address.ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
}

/// The outcome of a read.
#[derive(Debug)]
pub(crate) enum Read {
    /// This many bytes, at least one.
    Bytes(usize),
    /// Nothing now.
    Nothing,
    /// The peer's FIN.
    End,
    /// The connection is broken.
    Broken(io::Error),
}

/// Reads into memory that may be shared with other processes: `room` is a bare range, never a
/// slice.
///
/// # Safety
/// `start` must be valid for writes of `len` bytes, and nothing in this process may hold a
/// reference into the range.
pub(crate) unsafe fn read_into(socket: BorrowedFd<'_>, start: *mut u8, len: usize) -> Read {
    loop {
        // SAFETY: the caller vouches for the range; the address of the peer is not asked for. Not by
        // recv(3), for the reason at `write_from`.
        let receive = || unsafe {
            libc::syscall(
                libc::SYS_recvfrom,
                libc::c_long::from(socket.as_raw_fd()),
                start,
                len,
                libc::c_long::from(libc::MSG_DONTWAIT),
                ptr::null_mut::<libc::sockaddr>(),
                ptr::null_mut::<libc::socklen_t>(),
            )
        };
        let n = if fault::fails(Call::Recv) {
            -1
        } else {
            receive()
        };
        return match n {
            1.. => Read::Bytes(n as usize),
            0 => Read::End,
            _ => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => continue,
                error if error.kind() == io::ErrorKind::WouldBlock => Read::Nothing,
                error => Read::Broken(error),
            },
        };
    }
}

/// Reads into memory of this process.
pub(crate) fn read(socket: BorrowedFd<'_>, bytes: &mut [u8]) -> Read {
    // SAFETY: the slice is this process's own, and nothing else refers to it.
    unsafe { read_into(socket, bytes.as_mut_ptr(), bytes.len()) }
}

/// As [`read`], and leaves the bytes where they are.
pub(crate) fn peek(socket: BorrowedFd<'_>, bytes: &mut [u8]) -> Read {
    match recv(
        socket.as_raw_fd(),
        bytes,
        MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT,
    ) {
        Ok(0) => Read::End,
        Ok(n) => Read::Bytes(n),
        Err(Errno::EAGAIN | Errno::EINTR) => Read::Nothing,
        Err(error) => Read::Broken(error.into()),
    }
}

/// Reads into memory of this process, appending to `buffer` at most `len` bytes.
pub(crate) fn read_to_end_of(socket: BorrowedFd<'_>, buffer: &mut Vec<u8>, len: usize) -> Read {
    buffer.reserve(len);
    let spare = buffer.spare_capacity_mut();
    // SAFETY: the spare capacity is at least `len` bytes that only `buffer` owns.
    let read = unsafe { read_into(socket, spare.as_mut_ptr().cast(), len) };
    if let Read::Bytes(n) = read {
        // SAFETY: the kernel has just filled the first `n` bytes of the spare capacity.
        unsafe { buffer.set_len(buffer.len() + n) };
    }
    read
}

/// Sends as many bytes as fit now, at least one; returns `None` when none fits. The bytes may be in
/// memory shared with a process that changes them meanwhile: the kernel copies whatever it finds.
///
/// # Safety
/// `start` must be valid for reads of `len` bytes.
pub(crate) unsafe fn write_from(
    socket: BorrowedFd<'_>,
    start: *const u8,
    len: usize,
) -> io::Result<Option<usize>> {
    loop {
        // SAFETY: the caller vouches for the range; MSG_NOSIGNAL keeps a broken connection from
        // raising SIGPIPE. Not by send(3): glibc's is a point of cancellation (pthreads(7)), and in a
        // process with threads it says so in two locked instructions, 2 % of an echo of 64 bytes.
        let send = || unsafe {
            libc::syscall(
                libc::SYS_sendto,
                libc::c_long::from(socket.as_raw_fd()),
                start,
                len,
                libc::c_long::from(libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL),
                ptr::null::<libc::sockaddr>(),
                0 as libc::c_long,
            )
        };
        let n = if fault::fails(Call::Send) { -1 } else { send() };
        if n >= 0 {
            return Ok(Some(n as usize));
        }
        match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::Interrupted => {}
            error if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            error => return Err(error),
        }
    }
}

/// As [`write_from`], from memory of this process.
pub(crate) fn write(socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<Option<usize>> {
    // SAFETY: a slice is valid for reads of its length.
    unsafe { write_from(socket, bytes.as_ptr(), bytes.len()) }
}

/// Whether the kernel lacks memory for the call now: the connection is not broken, and a later call may succeed.
pub(crate) fn is_shortage(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOMEM | libc::ENOBUFS))
}

/// Returns how many bytes can be read now (FIONREAD, tcp(7)); 0 where the kernel does not know.
pub(crate) fn unread(socket: BorrowedFd<'_>) -> u32 {
    let mut unread: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int.
    match unsafe { libc::ioctl(socket.as_raw_fd(), libc::FIONREAD, &raw mut unread) } {
        0 => u32::try_from(unread).unwrap_or(0),
        _ => 0,
    }
}

/// Returns how many bytes the kernel has taken and the peer has not acknowledged, a FIN included (SIOCOUTQ,
/// tcp(7)); 0 where the kernel does not know. Of a unix socket, the memory of what the peer has not read.
pub(crate) fn unacknowledged(socket: BorrowedFd<'_>) -> usize {
    let mut queued: libc::c_int = 0;
    // SAFETY: SIOCOUTQ, which is TIOCOUTQ, writes one int.
    match unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut queued) } {
        0 => usize::try_from(queued).unwrap_or(0),
        _ => 0,
    }
}

/// Sends FIN after the bytes written so far, and keeps the reading side.
pub(crate) fn finish_writing(socket: BorrowedFd<'_>) -> io::Result<()> {
    SockRef::from(&socket).shutdown(Shutdown::Write)
}

/// Closes, with FIN behind the bytes written so far.
pub(crate) fn close(socket: OwnedFd) {
    // With a copy in a child, closing would tell the peer nothing.
    if forks::has_forked()
        && let Err(error) = SockRef::from(&socket).shutdown(Shutdown::Both)
    {
        log::debug!("shutdown: {error}");
    }
}

/// Sends RST, whatever copies of the socket there are: connect(2) to no address, which ends a connection.
fn disconnect(socket: &OwnedFd) -> io::Result<()> {
    // SAFETY: all zero is a sockaddr, of the family AF_UNSPEC.
    let none: libc::sockaddr = unsafe { std::mem::zeroed() };
    let len = size_of_val(&none) as libc::socklen_t;
    // SAFETY: the kernel reads `len` bytes of `none`, which has as many.
    match unsafe { libc::connect(socket.as_raw_fd(), &raw const none, len) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Closes with RST: unsent bytes are dropped, and there is no TIME_WAIT (socket(7), SO_LINGER of 0
/// seconds). A unix socket has no RST: its peer reads what the kernel has, and then the end.
pub(crate) fn reset(socket: OwnedFd) {
    if forks::has_forked() {
        // A unix socket can't be disconnected: it is closed for the copies, too.
        if disconnect(&socket).is_err() {
            close(socket);
        }
        return;
    }
    if let Err(error) = SockRef::from(&socket).set_linger(Some(Duration::ZERO)) {
        log::debug!("SO_LINGER: {error}");
    }
}
