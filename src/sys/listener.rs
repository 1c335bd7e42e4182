//! Listening sockets: bind, listen, accept4(2), and the way in which they end.
//!
//! Its one rule: what another process may have too, the socket that it has passed to this one and the file of a unix
//! socket, is left as it was found, unless it is this server's own.

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use socket2::{Domain, Protocol, SockAddr, SockFilter, Socket, TcpKeepalive, Type};

use super::address::{Address, Remote, UnixName};
use super::fault::{self, Call};
use super::socket_file::{self, SocketFile};
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

/// The options of a listening socket.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Options {
    /// Connections that wait to be accepted, listen(2).
    pub(crate) backlog: u32,
    pub(crate) probes: Probes,
    /// IPV6_V6ONLY, ipv6(7).
    pub(crate) only_v6: bool,
    /// TCP_DEFER_ACCEPT, tcp(7), in seconds.
    pub(crate) defer_accept: Option<i32>,
    /// SO_RCVBUF and SO_SNDBUF, socket(7).
    pub(crate) receive_buffer: Option<usize>,
    pub(crate) send_buffer: Option<usize>,
    pub(crate) access: Access,
}

/// Who may connect to a unix socket: the permissions of its file. What is `None` is as the kernel makes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Access {
    pub(crate) mode: Option<u32>,
    pub(crate) user: Option<u32>,
    pub(crate) group: Option<u32>,
}

impl Options {
    #[cfg(test)]
    pub(crate) const PLAIN: Options = Options {
        backlog: 16,
        probes: Probes {
            keepalive: None,
            user_timeout: None,
        },
        only_v6: true,
        defer_accept: None,
        receive_buffer: None,
        send_buffer: None,
        access: Access {
            mode: None,
            user: None,
            group: None,
        },
    };

    /// Sets what accepted sockets inherit. TCP_NODELAY is inherited too, tcp(7).
    fn apply(&self, socket: &Socket, is_tcp: bool) -> io::Result<()> {
        self.apply_buffers(socket)?;
        if is_tcp {
            socket.set_tcp_nodelay(true)?;
            self.probes.apply(socket)?;
            if let Some(seconds) = self.defer_accept {
                defer_accept(socket, seconds)?;
            }
        }
        Ok(())
    }

    fn apply_buffers(&self, socket: &Socket) -> io::Result<()> {
        if let Some(bytes) = self.receive_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        match self.send_buffer {
            Some(bytes) => socket.set_send_buffer_size(bytes),
            None => Ok(()),
        }
    }
}

fn defer_accept(socket: &Socket, seconds: i32) -> io::Result<()> {
    let (from, len) = ((&raw const seconds).cast(), size_of_val(&seconds));
    let (fd, len) = (socket.as_raw_fd(), len as libc::socklen_t);
    // SAFETY: the kernel reads `len` bytes of the integer.
    match unsafe { libc::setsockopt(fd, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, from, len) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A listening socket.
pub(crate) struct Listener {
    /// Which listener of the server it is one of the sockets of.
    id: u16,
    socket: Socket,
    address: Address,
    /// Its device and inode.
    file: (u64, u64),
    end: End,
    /// The sizes of buffers that accepted sockets do not inherit, as they do not of a unix socket.
    buffers: Option<Options>,
}

/// What is done to a listening socket when the server stops.
enum End {
    /// It is this server's own.
    Stopped,
    /// It is this server's own, with a file.
    Removed(Arc<SocketFile>),
    /// It was passed by another program, which may have kept it for the next server: nothing, but to accept no more.
    Left,
}

impl Listener {
    /// Binds and listens. SO_REUSEADDR always, so that a TIME_WAIT of the last run does not hold
    /// the port.
    pub(crate) fn bind(id: u16, address: &Address, options: &Options) -> io::Result<Listener> {
        fault::check(Call::Socket)?;
        let domain = match address {
            Address::Ip(address) => Domain::for_address(*address),
            Address::Unix(_) => Domain::UNIX,
        };
        let protocol = (domain != Domain::UNIX).then_some(Protocol::TCP);
        let socket = Socket::new(domain, Type::STREAM.nonblocking(), protocol)?;
        let is_tcp = domain != Domain::UNIX;
        if is_tcp {
            socket.set_reuse_address(true)?;
        }
        if domain == Domain::IPV6 {
            // `[::]:80` and `0.0.0.0:80` are two listeners; one that took both would refuse the
            // other.
            socket.set_only_v6(options.only_v6)?;
        }
        options.apply(&socket, is_tcp)?;
        let end = match address {
            Address::Unix(UnixName::Path(path)) => {
                let file = socket_file::bind(&socket, path, options.access)?;
                let file = Arc::new(file);
                // Nobody could connect before.
                listen(&socket, options.backlog).inspect_err(|_| file.remove())?;
                End::Removed(file)
            }
            Address::Ip(_) | Address::Unix(UnixName::Abstract(_)) => {
                socket.bind(&address.to_kernel()?)?;
                listen(&socket, options.backlog)?;
                End::Stopped
            }
        };
        Listener::of(id, socket, end, options)
    }

    /// Takes over the listening socket with this descriptor, which another program has passed. It belongs to this
    /// listener from here on.
    ///
    /// # Errors
    /// That it is something else, in words.
    pub(crate) fn inherit(id: u16, number: i32, options: &Options) -> io::Result<Listener> {
        // SAFETY: the descriptor is borrowed for this call. If it is closed, the kernel says so.
        let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
        let kind = kind_of(borrowed)?;
        if let Some(problem) = kind.problem() {
            return Err(io::Error::other(problem));
        }
        // SAFETY: it is a listening socket, which this process has not made: its settings say that it was passed, and
        // that the server is to have it.
        let socket = unsafe { Socket::from_raw_fd(number) };
        socket.set_cloexec(true)?;
        socket.set_nonblocking(true)?;
        let is_tcp = kind != Kind::UnixListener;
        options.apply(&socket, is_tcp)?;
        Listener::of(id, socket, End::Left, options)
    }

    fn of(id: u16, socket: Socket, end: End, options: &Options) -> io::Result<Listener> {
        let address = Address::of(&socket.local_addr()?).ok_or(io::ErrorKind::AddrNotAvailable)?;
        let are_lost = options.receive_buffer.is_some() || options.send_buffer.is_some();
        let buffers = (are_lost && address.ip().is_none()).then_some(*options);
        forks::keeps(socket.as_raw_fd());
        Ok(Listener {
            id,
            file: file_of(&socket)?,
            socket,
            address,
            end,
            buffers,
        })
    }

    /// The number of the listener that it belongs to.
    pub(crate) fn id(&self) -> u16 {
        self.id
    }

    /// The address it listens on, with the port that the kernel chose where 0 was asked for.
    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// Whether another program has passed it, and may go on with it.
    pub(crate) fn is_inherited(&self) -> bool {
        matches!(self.end, End::Left)
    }

    /// The file that was made for it.
    pub(crate) fn socket_file(&self) -> Option<Arc<SocketFile>> {
        match &self.end {
            End::Removed(file) => Some(Arc::clone(file)),
            End::Stopped | End::Left => None,
        }
    }

    /// The next connection of the queue: non-blocking, close-on-exec.
    pub(crate) fn accept(&self) -> io::Result<(OwnedFd, Remote)> {
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
        let remote = match peer.as_socket() {
            Some(address) => Remote::Ip(canonical(address)),
            None => {
                let credentials = getsockopt(&fd, PeerCredentials)?;
                Remote::Unix {
                    pid: credentials.pid(),
                    uid: credentials.uid(),
                    gid: credentials.gid(),
                }
            }
        };
        let fd = standard::above(fd)?;
        let Some(options) = &self.buffers else {
            return Ok((fd, remote));
        };
        let socket = Socket::from(fd);
        options.apply_buffers(&socket)?;
        Ok((socket.into(), remote))
    }

    /// Whether the descriptor still stands for the socket: a callback may have closed it.
    pub(crate) fn is_open(&self) -> bool {
        file_of(&self.socket).is_ok_and(|file| file == self.file)
    }

    /// Whether connections wait to be accepted.
    pub(crate) fn has_queued(&self) -> bool {
        let mut one = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        let is_ready = |one: &PollFd<'_>| one.revents() == Some(PollFlags::POLLIN);
        poll(&mut one, PollTimeout::ZERO).is_ok() && is_ready(&one[0])
    }

    /// How many connections wait to be accepted: `tcpi_unacked` of a listening socket, tcp(7). A unix socket does
    /// not tell.
    pub(crate) fn queued(&self) -> io::Result<Option<u32>> {
        if self.address.ip().is_none() {
            return Ok(None);
        }
        // SAFETY: all zero is a tcp_info: it has only numbers.
        let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
        let mut len = size_of_val(&info) as libc::socklen_t;
        let to = (&raw mut info).cast();
        let fd = self.socket.as_raw_fd();
        // SAFETY: the kernel writes at most `len` bytes to `to`, which is that long.
        match unsafe { libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, to, &raw mut len) } {
            0 => Ok(Some(info.tcpi_unacked)),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Lets no new client into the queue: those in it can be accepted one by one without a race. Returns how far that
    /// succeeded.
    pub(crate) fn drop_newcomers(&self) -> io::Result<Sealed> {
        match (&self.end, &self.address) {
            (End::Left, _) => Ok(Sealed::Never),
            (End::Removed(file), _) => {
                file.remove();
                Ok(Sealed::AtOnce)
            }
            (End::Stopped, Address::Unix(_)) => Ok(Sealed::Never),
            (End::Stopped, Address::Ip(_)) => self.drop_syns().map(|()| Sealed::AfterHandshakes),
        }
    }

    /// Drops every SYN that comes from now on. A handshake that has begun goes on: its client takes itself as
    /// connected when it has sent the last ACK (a classic BPF program, SO_ATTACH_FILTER, socket(7), which sees
    /// the segment from its TCP header on). Some kernels ask for CAP_NET_ADMIN.
    fn drop_syns(&self) -> io::Result<()> {
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

    /// Stops listening, for every process of the server that shares the socket, whatever it is doing. Connections
    /// that wait in the queue are reset. A socket that another program has passed stays as it is: that program may
    /// give it to the next server.
    pub(crate) fn stop(&self) -> io::Result<()> {
        match self.end {
            End::Left => Ok(()),
            End::Stopped | End::Removed(_) => self.socket.shutdown(Shutdown::Read),
        }
    }
}

/// Whether new clients are kept out of a queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sealed {
    AtOnce,
    /// Those whose handshake has begun still come.
    AfterHandshakes,
    /// They come as before.
    Never,
}

fn listen(socket: &Socket, backlog: u32) -> io::Result<()> {
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))
}

/// A client of IPv4 has its own address, also at a socket of IPv6 that takes both (IPV6_V6ONLY, ipv6(7)).
fn canonical(address: std::net::SocketAddr) -> std::net::SocketAddr {
    match address {
        std::net::SocketAddr::V6(v6) if v6.ip().to_ipv4_mapped().is_some() => {
            std::net::SocketAddr::new(v6.ip().to_canonical(), v6.port())
        }
        other => other,
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

/// What a descriptor is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    TcpListener,
    UnixListener,
    /// Anything else, in words.
    Other(&'static str),
}

impl Kind {
    /// Returns why it is no listener that a server can take.
    fn problem(self) -> Option<String> {
        match self {
            Kind::TcpListener | Kind::UnixListener => None,
            Kind::Other(what) => Some(format!(
                "it is {what}; a TCP or unix stream socket that listens is expected"
            )),
        }
    }
}

fn kind_of(descriptor: BorrowedFd<'_>) -> io::Result<Kind> {
    let mode = nix::sys::stat::fstat(descriptor)?.st_mode;
    Ok(match mode & libc::S_IFMT {
        libc::S_IFSOCK => socket_kind(descriptor)?,
        libc::S_IFREG => Kind::Other("a regular file"),
        libc::S_IFDIR => Kind::Other("a directory"),
        libc::S_IFCHR => Kind::Other("a character device"),
        libc::S_IFBLK => Kind::Other("a block device"),
        libc::S_IFIFO => Kind::Other("a pipe"),
        _ => Kind::Other("no file, and no socket"),
    })
}

fn socket_kind(descriptor: BorrowedFd<'_>) -> io::Result<Kind> {
    let socket = socket2::SockRef::from(&descriptor);
    let (domain, kind) = (socket.domain()?, socket.r#type()?);
    let is_ip = domain == Domain::IPV4 || domain == Domain::IPV6;
    let is_stream = kind == Type::STREAM;
    Ok(match (is_ip, domain == Domain::UNIX) {
        (true, _) if !is_stream && kind == Type::DGRAM => Kind::Other("a UDP socket"),
        (_, true) if kind == Type::DGRAM => Kind::Other("a unix datagram socket"),
        (_, true) if kind == Type::SEQPACKET => Kind::Other("a unix socket of packets"),
        (true, _) | (_, true) if !is_stream => Kind::Other("a raw socket"),
        (true, _) if !matches!(socket.protocol()?, None | Some(Protocol::TCP)) => {
            Kind::Other("a stream socket of another protocol than TCP")
        }
        (true, _) if socket.is_listener()? => Kind::TcpListener,
        (_, true) if socket.is_listener()? => Kind::UnixListener,
        (true, _) if socket.peer_addr().is_ok() => Kind::Other("a TCP connection"),
        (_, true) if socket.peer_addr().is_ok() => Kind::Other("a connection of a unix socket"),
        (true, _) => Kind::Other("a TCP socket that does not listen"),
        (_, true) => Kind::Other("a unix socket that does not listen"),
        (false, false) => Kind::Other("a socket of another family than IP and unix"),
    })
}

/// What tells a socket from others, stat(2).
fn file_of(socket: &Socket) -> io::Result<(u64, u64)> {
    let stat = nix::sys::stat::fstat(socket)?;
    Ok((stat.st_dev, stat.st_ino))
}

/// The most connections that the kernel lets wait in one queue, listen(2).
pub(crate) fn largest_backlog() -> Option<u32> {
    std::fs::read_to_string("/proc/sys/net/core/somaxconn")
        .ok()?
        .trim()
        .parse()
        .ok()
}

#[cfg(all(test, not(miri)))] // Miri has no sockets.
mod tests;
