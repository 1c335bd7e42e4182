//! Socket options for experiments alone: to keep a connection in a state, and to have few ports. Only
//! the first of them may need a privilege.

use std::io;
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use socket2::{Domain, SockFilter, SockRef, Socket, Type};

/// `BPF_RET | BPF_K`: keep this many bytes of the packet.
const RETURN: u16 = 0x06;

/// Whether this process may call [`drop_all`].
pub(crate) fn may_drop() -> io::Result<bool> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    match drop_all(&socket) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(false),
        Err(error) => Err(error),
    }
}

/// Gives a socket, or those that a listener makes, buffers as small as the kernel has them: a few
/// kilobytes. Before the connection is made, `SO_RCVBUF` of tcp(7).
pub(crate) fn narrow(socket: &impl AsFd) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_recv_buffer_size(0)?;
    socket.set_send_buffer_size(0)
}

/// From here on the socket drops every segment that arrives: its peer gets no answer, and both keep
/// their states. `SO_ATTACH_FILTER`, socket(7).
///
/// # Errors
/// PermissionDenied without CAP_NET_ADMIN, on some kernels: Linux 6.18.44 does that.
pub(crate) fn drop_all(socket: &impl AsFd) -> io::Result<()> {
    SockRef::from(socket).attach_filter(&[SockFilter::new(RETURN, 0, 0, 0)])
}

/// Ends `drop_all`.
pub(crate) fn drop_none(socket: &impl AsFd) -> io::Result<()> {
    SockRef::from(socket).detach_filter()
}

/// How long the kernel keeps the socket in FIN_WAIT2 once no process holds it: whole seconds, 1 to
/// 120. `TCP_LINGER2`, tcp(7).
pub(crate) fn keep_fin_wait2_for(socket: &impl AsFd, seconds: u8) -> io::Result<()> {
    set(
        socket,
        libc::IPPROTO_TCP,
        libc::TCP_LINGER2,
        i32::from(seconds),
    )
}

/// The ports that the kernel may choose from for this socket, Linux 6.3. They must be within
/// `net.ipv4.ip_local_port_range`, or it has no effect. `IP_LOCAL_PORT_RANGE`, ip(7).
pub(crate) fn choose_port_from(socket: &impl AsFd, ports: &RangeInclusive<u16>) -> io::Result<()> {
    const IP_LOCAL_PORT_RANGE: i32 = 51;
    let range = u32::from(*ports.end()) << 16 | u32::from(*ports.start());
    set(socket, libc::IPPROTO_IP, IP_LOCAL_PORT_RANGE, range)
}

/// A local address without a port: that is chosen at connect, when the other end is known too.
/// `IP_BIND_ADDRESS_NO_PORT`, ip(7).
pub(crate) fn bind_without_port(socket: &impl AsFd) -> io::Result<()> {
    set(
        socket,
        libc::IPPROTO_IP,
        libc::IP_BIND_ADDRESS_NO_PORT,
        1_i32,
    )
}

/// The longest time between two attempts to send the same again: 1 to 120 s, Linux 6.15.
/// `TCP_RTO_MAX_MS`, `Documentation/networking/ip-sysctl.rst`.
///
/// # Errors
/// An older kernel has no such option (ENOPROTOOPT).
pub(crate) fn resend_within(socket: &impl AsFd, longest: Duration) -> io::Result<()> {
    const TCP_RTO_MAX_MS: i32 = 44;
    let milliseconds = longest.as_millis() as i32;
    set(socket, libc::IPPROTO_TCP, TCP_RTO_MAX_MS, milliseconds)
}

fn set<T: Copy>(socket: &impl AsFd, level: i32, option: i32, value: T) -> io::Result<()> {
    let fd = socket.as_fd().as_raw_fd();
    let len = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel reads `len` bytes of `value`, which is a number and lives until then.
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
    fn what_is_dropped_arrives_when_the_drop_ends() {
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
    fn an_option_that_makes_no_sense_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        #[allow(clippy::reversed_empty_ranges)] // It is what makes no sense.
        let no_ports = 2000..=1000;
        assert!(choose_port_from(&listener, &no_ports).is_err());
        keep_fin_wait2_for(&listener, 1).unwrap();
        bind_without_port(&listener).unwrap();
    }
}
