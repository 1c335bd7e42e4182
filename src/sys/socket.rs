//! TCP sockets: listen, accept4(2), read, write, and the ways to close.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use socket2::{Domain, Protocol, SockAddr, SockFilter, SockRef, Socket, TcpKeepalive, Type};

use super::fault::{self, Call};
use super::{forks, standard};

/// The kernel's own checks of a peer, tcp(7). Accepted sockets inherit them from their listener.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Probes {
    /// The silence after which the peer is probed, and for as long again before it is given up; `None` sends
    /// no probes.
    pub(crate) keepalive: Option<Duration>,
    /// How long bytes may be unacknowledged; `None` for the system's number of tries.
    pub(crate) user_timeout: Option<Duration>,
}

/// The keepalive probes that a peer may leave unanswered.
const PROBES: u32 = 6;

impl Probes {
    fn apply(self, socket: &Socket) -> io::Result<()> {
        if let Some(time) = self.keepalive {
            let interval = (time / PROBES).max(Duration::from_secs(1));
            let keepalive = TcpKeepalive::new()
                .with_time(time)
                .with_interval(interval)
                .with_retries(PROBES);
            socket.set_tcp_keepalive(&keepalive)?;
        }
        match self.user_timeout {
            Some(_) => socket.set_tcp_user_timeout(self.user_timeout),
            None => Ok(()),
        }
    }
}

/// A listening socket.
pub(crate) struct Listener {
    /// Which listener of the server it is one of the sockets of.
    id: u16,
    socket: Socket,
    address: SocketAddr,
    /// Its device and inode.
    file: (u64, u64),
}

impl Listener {
    /// Binds and listens. SO_REUSEADDR always, so that a TIME_WAIT of the last run does not hold
    /// the port; TCP_NODELAY and the probes are inherited by every accepted socket, tcp(7).
    pub(crate) fn bind(
        id: u16,
        address: SocketAddr,
        backlog: u32,
        probes: Probes,
    ) -> io::Result<Listener> {
        fault::check(Call::Socket)?;
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM.nonblocking(),
            Some(Protocol::TCP),
        )?;
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            // `[::]:80` and `0.0.0.0:80` are two listeners; one that took both would refuse the
            // other.
            socket.set_only_v6(true)?;
        }
        socket.set_tcp_nodelay(true)?;
        probes.apply(&socket)?;
        socket.bind(&address.into())?;
        socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
        let address = socket.local_addr()?.as_socket().unwrap_or(address);
        forks::keeps(socket.as_raw_fd());
        Ok(Listener {
            id,
            file: file_of(&socket)?,
            socket,
            address,
        })
    }

    /// The number of the listener that it belongs to.
    pub(crate) fn id(&self) -> u16 {
        self.id
    }

    /// The address it listens on, with the port that the kernel chose where 0 was asked for.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next connection of the queue: non-blocking, close-on-exec.
    pub(crate) fn accept(&self) -> io::Result<(OwnedFd, SocketAddr)> {
        let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        fault::check(Call::Accept4)?;
        // SAFETY: accept4 writes at most `*len` bytes of an address into the storage that socket2
        // hands over with its length, and the descriptor it returns belongs to nobody yet.
        let (fd, peer) = unsafe {
            SockAddr::try_init(|storage, len| {
                match libc::accept4(self.socket.as_raw_fd(), storage.cast(), len, flags) {
                    -1 => Err(io::Error::last_os_error()),
                    fd => Ok(OwnedFd::from_raw_fd(fd)),
                }
            })
        }?;
        let peer = peer.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok((standard::above(fd)?, peer))
    }

    /// Whether the descriptor still stands for the socket: a callback may have closed it.
    pub(crate) fn is_open(&self) -> bool {
        file_of(&self.socket).is_ok_and(|file| file == self.file)
    }

    /// How many connections wait to be accepted: `tcpi_unacked` of a listening socket, tcp(7).
    pub(crate) fn queued(&self) -> io::Result<u32> {
        // SAFETY: all zero is a tcp_info: it has only numbers.
        let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
        let mut len = size_of_val(&info) as libc::socklen_t;
        let to = (&raw mut info).cast();
        let fd = self.socket.as_raw_fd();
        // SAFETY: the kernel writes at most `len` bytes to `to`, which is that long.
        match unsafe { libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, to, &raw mut len) } {
            0 => Ok(info.tcpi_unacked),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Drops every SYN that comes from now on, so that no new client gets into the queue: those in it can be
    /// accepted one by one without a race. A handshake that has begun goes on: its client takes itself as
    /// connected when it has sent the last ACK (a classic BPF program, SO_ATTACH_FILTER, socket(7), which sees
    /// the segment from its TCP header on). Some kernels ask for CAP_NET_ADMIN.
    pub(crate) fn drop_newcomers(&self) -> io::Result<()> {
        /// BPF_LD | BPF_B | BPF_ABS: loads the byte at offset `k`.
        const LOAD_BYTE: u16 = 0x30;
        /// BPF_JMP | BPF_JSET | BPF_K: skips `jt` instructions if a bit of `k` is set, or else `jf`.
        const IF_SET: u16 = 0x45;
        /// BPF_RET | BPF_K: accepts the first `k` bytes of the segment; of 0, it is dropped.
        const RETURN: u16 = 0x06;
        // RFC 9293, 3.1: the control bits.
        let (flags, syn) = (13, 0x02);
        self.socket.attach_filter(&[
            SockFilter::new(LOAD_BYTE, 0, 0, flags),
            SockFilter::new(IF_SET, 0, 1, syn),
            SockFilter::new(RETURN, 0, 0, 0),
            SockFilter::new(RETURN, 0, 0, u32::MAX),
        ])
    }

    /// Stops listening, for every process that shares the socket, whatever it is doing. Connections
    /// that wait in the queue are reset.
    pub(crate) fn stop(&self) -> io::Result<()> {
        self.socket.shutdown(Shutdown::Read)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        forks::keeps_no_more(self.socket.as_raw_fd());
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// What tells a socket from others, stat(2).
fn file_of(socket: &Socket) -> io::Result<(u64, u64)> {
    let stat = nix::sys::stat::fstat(socket)?;
    Ok((stat.st_dev, stat.st_ino))
}

/// The address of a socket on this side.
#[cfg(feature = "status")]
pub(crate) fn local_address(socket: BorrowedFd<'_>) -> io::Result<SocketAddr> {
    let address = SockRef::from(&socket).local_addr()?.as_socket();
    address.ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
}

/// The most connections that the kernel lets wait in one queue, listen(2).
pub(crate) fn largest_backlog() -> Option<u32> {
    std::fs::read_to_string("/proc/sys/net/core/somaxconn")
        .ok()?
        .trim()
        .parse()
        .ok()
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
/// tcp(7)); 0 where the kernel does not know.
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
/// seconds).
pub(crate) fn reset(socket: OwnedFd) {
    if forks::has_forked() && disconnect(&socket).is_ok() {
        return;
    }
    if let Err(error) = SockRef::from(&socket).set_linger(Some(Duration::ZERO)) {
        log::debug!("SO_LINGER: {error}");
    }
}

#[cfg(all(test, not(miri)))] // Miri has no sockets.
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn accepted_sockets_inherit_the_probes_of_their_listener() {
        let probes = Probes {
            keepalive: Some(Duration::from_secs(60)),
            user_timeout: Some(Duration::from_millis(70_500)),
        };
        let listener = Listener::bind(0, ([127, 0, 0, 1], 0).into(), 8, probes).unwrap();
        let _client = TcpStream::connect(listener.address()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let socket = SockRef::from(&accepted);
        assert!(socket.keepalive().unwrap());
        assert_eq!(
            socket.tcp_keepalive_time().unwrap(),
            Duration::from_secs(60)
        );
        assert_eq!(
            socket.tcp_keepalive_interval().unwrap(),
            Duration::from_secs(10)
        );
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), PROBES);
        assert_eq!(socket.tcp_user_timeout().unwrap(), probes.user_timeout);
        assert!(socket.tcp_nodelay().unwrap());
    }

    #[test]
    fn bytes_are_unacknowledged_until_the_peer_has_them() {
        let probes = Probes {
            keepalive: None,
            user_timeout: None,
        };
        let listener = Listener::bind(0, ([127, 0, 0, 1], 0).into(), 8, probes).unwrap();
        let client = TcpStream::connect(listener.address()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        assert!(!SockRef::from(&accepted).keepalive().unwrap());
        assert_eq!(unacknowledged(accepted.as_fd()), 0);
        SockRef::from(&accepted)
            .set_send_buffer_size(1 << 20)
            .unwrap();
        SockRef::from(&client).set_recv_buffer_size(1).unwrap();
        let sent = write(accepted.as_fd(), &[7; 1 << 20]).unwrap().unwrap();
        let left = unacknowledged(accepted.as_fd());
        assert!(0 < left && left <= sent, "{left} of {sent}");
    }

    /// A client that has sent its SYN.
    fn connecting(to: SocketAddr, is_deaf: bool) -> Socket {
        let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        if is_deaf {
            client
                .attach_filter(&[SockFilter::new(0x06, 0, 0, 0)])
                .unwrap();
        }
        client.set_nonblocking(true).unwrap();
        let error = client.connect(&to.into()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EINPROGRESS));
        client
    }

    #[test]
    fn a_handshake_that_has_begun_goes_on_when_no_new_client_is_let_in() {
        let probes = Probes {
            keepalive: None,
            user_timeout: None,
        };
        let listener = Listener::bind(0, ([127, 0, 0, 1], 0).into(), 8, probes).unwrap();
        let begun = connecting(listener.address(), true);
        listener.drop_newcomers().unwrap();
        let new = connecting(listener.address(), false);
        begun.detach_filter().unwrap();
        // The kernel says it again, and the client answers: tcp_synack_retries, tcp(7).
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        let (_accepted, peer) = loop {
            match listener.accept() {
                Ok(accepted) => break accepted,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => panic!("{error}"),
            }
            assert!(std::time::Instant::now() < deadline, "it does not go on");
            std::thread::sleep(Duration::from_millis(10));
        };
        assert_eq!(Some(peer), begun.local_addr().unwrap().as_socket());
        assert!(new.peer_addr().is_err(), "nobody answers its SYN");
    }
}
