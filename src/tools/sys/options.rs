//! Socket options for experiments: to hold a connection in a state, and to have few ports. Only
//! `SO_ATTACH_FILTER` needs a privilege, and only on some kernels.

use std::io;
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use socket2::{Domain, SockFilter, SockRef, Socket, TcpKeepalive, Type};

/// `BPF_RET | BPF_K`: keep this number of bytes of the packet.
const RETURN: u16 = 0x06;

/// Whether this process may [`drop_all`].
pub(crate) fn may_drop() -> io::Result<bool> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    match drop_all(&socket) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(false),
        Err(error) => Err(error),
    }
}

/// Gives a socket, or the sockets accepted from a listener, the smallest buffers that the kernel allows:
/// a few kilobytes. To be called before the connection is made, `SO_RCVBUF` in tcp(7).
pub(crate) fn narrow(socket: &impl AsFd) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_recv_buffer_size(0)?;
    socket.set_send_buffer_size(0)
}

/// Drops every segment that reaches the socket, until [`drop_none`]: the peer's segments are never
/// acknowledged, and both ends keep their states. `SO_ATTACH_FILTER`, socket(7).
///
/// # Errors
/// PermissionDenied without CAP_NET_ADMIN on some kernels, such as Linux 6.18.44.
pub(crate) fn drop_all(socket: &impl AsFd) -> io::Result<()> {
    SockRef::from(socket).attach_filter(&[SockFilter::new(RETURN, 0, 0, 0)])
}

/// Ends `drop_all`.
pub(crate) fn drop_none(socket: &impl AsFd) -> io::Result<()> {
    SockRef::from(socket).detach_filter()
}

/// Sets the time for which the kernel keeps the socket in FIN_WAIT2 once no process holds it: 1 to 120
/// seconds. `TCP_LINGER2`, tcp(7).
pub(crate) fn keep_fin_wait2_for(socket: &impl AsFd, seconds: u8) -> io::Result<()> {
    set(
        socket,
        libc::IPPROTO_TCP,
        libc::TCP_LINGER2,
        i32::from(seconds),
    )
}

/// Sets the ports from which the kernel chooses for this socket, since Linux 6.3. Outside
/// `net.ipv4.ip_local_port_range` it has no effect. `IP_LOCAL_PORT_RANGE`, ip(7).
pub(crate) fn choose_port_from(socket: &impl AsFd, ports: &RangeInclusive<u16>) -> io::Result<()> {
    const IP_LOCAL_PORT_RANGE: i32 = 51;
    let range = u32::from(*ports.end()) << 16 | u32::from(*ports.start());
    set(socket, libc::IPPROTO_IP, IP_LOCAL_PORT_RANGE, range)
}

/// Lets bind set the address alone: the kernel chooses the port at connect, when it knows the other end
/// too. `IP_BIND_ADDRESS_NO_PORT`, ip(7).
pub(crate) fn bind_without_port(socket: &impl AsFd) -> io::Result<()> {
    set(
        socket,
        libc::IPPROTO_IP,
        libc::IP_BIND_ADDRESS_NO_PORT,
        1_i32,
    )
}

/// Sets the longest time between two retransmissions: 1 to 120 s, since Linux 6.15. `TCP_RTO_MAX_MS`,
/// `Documentation/networking/ip-sysctl.rst`.
///
/// # Errors
/// ENOPROTOOPT on an older kernel.
pub(crate) fn resend_within(socket: &impl AsFd, longest: Duration) -> io::Result<()> {
    const TCP_RTO_MAX_MS: i32 = 44;
    let milliseconds = longest.as_millis() as i32;
    set(socket, libc::IPPROTO_TCP, TCP_RTO_MAX_MS, milliseconds)
}

/// Lets the kernel probe the peer after a second of silence, and then each second; three probes without an
/// answer end the connection. `SO_KEEPALIVE`, socket(7), and `TCP_KEEPIDLE`, tcp(7).
pub(crate) fn keep_alive(socket: &impl AsFd) -> io::Result<()> {
    let second = Duration::from_secs(1);
    let often = TcpKeepalive::new()
        .with_time(second)
        .with_interval(second)
        .with_retries(3);
    SockRef::from(socket).set_tcp_keepalive(&often)
}

/// Sets the longest time for which sent bytes may be unacknowledged. `TCP_USER_TIMEOUT`, tcp(7).
pub(crate) fn expect_acknowledgement_within(socket: &impl AsFd, time: Duration) -> io::Result<()> {
    SockRef::from(socket).set_tcp_user_timeout(Some(time))
}

/// Sets the sequence number of the SYN, before connect. Without it the kernel chooses one (`tcp_v4_connect`).
/// `TCP_REPAIR` and `TCP_QUEUE_SEQ`, `include/uapi/linux/tcp.h`.
///
/// # Errors
/// PermissionDenied without CAP_NET_ADMIN.
pub(crate) fn begin_with(socket: &impl AsFd, number: u32) -> io::Result<()> {
    const TCP_SEND_QUEUE: i32 = 2;
    let tcp = libc::IPPROTO_TCP;
    set(socket, tcp, libc::TCP_REPAIR, 1_i32)?;
    set(socket, tcp, libc::TCP_REPAIR_QUEUE, TCP_SEND_QUEUE)?;
    set(socket, tcp, libc::TCP_QUEUE_SEQ, number)?;
    set(socket, tcp, libc::TCP_REPAIR, 0_i32)
}

fn set<T: Copy>(socket: &impl AsFd, level: i32, option: i32, value: T) -> io::Result<()> {
    let fd = socket.as_fd().as_raw_fd();
    let len = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel reads `len` bytes of `value`, which is `len` bytes long and outlives the call.
    match unsafe { libc::setsockopt(fd, level, option, (&raw const value).cast(), len) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn dropped_bytes_arrive_when_the_drop_ends() {
        if !may_drop().unwrap() {
            return eprintln!("SKIPPED: this kernel wants CAP_NET_ADMIN for SO_ATTACH_FILTER");
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        drop_all(&server).unwrap();
        client.write_all(b"x").unwrap();
        server.set_nonblocking(true).unwrap();
        let error = server.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        drop_none(&server).unwrap();
        server.set_nonblocking(false).unwrap();
        assert_eq!(server.read(&mut [0]).unwrap(), 1);
    }

    #[test]
    fn an_empty_range_of_ports_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        #[allow(clippy::reversed_empty_ranges)] // An empty range is the subject.
        let no_ports = 2000..=1000;
        assert!(choose_port_from(&listener, &no_ports).is_err());
        keep_fin_wait2_for(&listener, 1).unwrap();
        bind_without_port(&listener).unwrap();
    }
}
