//! The packets on this machine's loopback, by a packet(7) socket. Needs CAP_NET_RAW.

use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant, SystemTime};

use nix::sys::socket::sockopt::Timestamping;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, TimestampingFlag, Timestamps, recvmsg, setsockopt,
};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

/// Receives a copy of each IPv4 segment of one TCP port.
pub(crate) struct PacketSocket(Socket);

/// Bytes that are kept of a packet: its headers. The rest of loopback's 64 KiB is cut off.
const SNAP: u32 = 128;

/// One packet, from its IP header on, and the time of its arrival.
pub(crate) struct Packet<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) at: SystemTime,
}

impl PacketSocket {
    /// # Errors
    /// PermissionDenied without CAP_NET_RAW.
    pub(crate) fn of_port(port: u16) -> io::Result<PacketSocket> {
        // A socket for IPv4 alone sees packets where they arrive; one for all protocols would see each
        // packet of loopback twice, as it leaves and as it arrives.
        let protocol = Protocol::from(i32::from((libc::ETH_P_IP as u16).to_be()));
        let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(protocol))?;
        socket.attach_filter(&filter(port))?;
        drain(&socket)?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        stamp(&socket)?;
        await_stamps()?;
        Ok(PacketSocket(socket))
    }

    /// Returns the next packet, or `None` when there is none within 50 ms.
    pub(crate) fn next<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Option<Packet<'a>>> {
        Ok(receive(&self.0, buffer)?.map(|(size, at)| Packet {
            at: at.unwrap_or_else(SystemTime::now),
            bytes: &buffer[..size],
        }))
    }
}

/// Discards the packets of other ports that came before the filter: on a busy machine they fill the queue, and the
/// first ones of this port would be dropped.
fn drain(socket: &Socket) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    loop {
        match receive(socket, &mut [0]) {
            Ok(Some(_)) => {}
            Ok(None) => return socket.set_nonblocking(false),
            Err(error) => return Err(error),
        }
    }
}

/// Lets the kernel note the arrival of each packet: `Documentation/networking/timestamping.rst`.
fn stamp(socket: &impl AsFd) -> io::Result<()> {
    let flags = TimestampingFlag::SOF_TIMESTAMPING_SOFTWARE
        | TimestampingFlag::SOF_TIMESTAMPING_RX_SOFTWARE;
    Ok(setsockopt(&socket.as_fd(), Timestamping, &flags)?)
}

/// Waits until the kernel does that: it begins a moment after the socket option is set, later on a busy machine,
/// and a packet without a timestamp has the time at which it was read.
fn await_stamps() -> io::Result<()> {
    let probe = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    probe.set_read_timeout(Some(Duration::from_millis(50)))?;
    stamp(&probe)?;
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(2) {
        probe.send_to(&[0], probe.local_addr()?)?;
        if let Some((_, Some(_))) = receive(&probe, &mut [0])? {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Returns the size of the next packet, and the kernel's timestamp if it has one; `None` when there is no packet
/// within 50 ms.
fn receive(
    socket: &impl AsRawFd,
    buffer: &mut [u8],
) -> io::Result<Option<(usize, Option<SystemTime>)>> {
    let mut space = nix::cmsg_space!(Timestamps);
    let mut into = [IoSliceMut::new(buffer)];
    let received = recvmsg::<()>(
        socket.as_raw_fd(),
        &mut into,
        Some(&mut space),
        MsgFlags::empty(),
    );
    match received {
        Ok(message) => {
            let at = message.cmsgs()?.find_map(|message| match message {
                ControlMessageOwned::ScmTimestampsns(times) => {
                    Some(SystemTime::UNIX_EPOCH + Duration::from(times.system))
                }
                _ => None,
            });
            Ok(Some((message.bytes, at)))
        }
        Err(nix::Error::EAGAIN | nix::Error::EINTR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Classic BPF, `Documentation/networking/filter.rst`: TCP, the first fragment, and this port as source
/// or destination.
fn filter(port: u16) -> [SockFilter; 11] {
    const LOAD_BYTE: u16 = 0x30; // BPF_LD | BPF_B | BPF_ABS
    const LOAD_HALF: u16 = 0x28; // BPF_LD | BPF_H | BPF_ABS
    const LOAD_HALF_X: u16 = 0x48; // BPF_LD | BPF_H | BPF_IND
    const LOAD_HEADER_LENGTH: u16 = 0xb1; // BPF_LDX | BPF_B | BPF_MSH
    const IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const IF_ANY: u16 = 0x45; // BPF_JMP | BPF_JSET | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    let port = u32::from(port);
    let step = SockFilter::new;
    [
        step(LOAD_BYTE, 0, 0, 9),
        step(IF_EQUAL, 0, 7, libc::IPPROTO_TCP as u32),
        step(LOAD_HALF, 0, 0, 6),
        step(IF_ANY, 5, 0, 0x1fff),
        step(LOAD_HEADER_LENGTH, 0, 0, 0),
        step(LOAD_HALF_X, 0, 0, 0),
        step(IF_EQUAL, 3, 0, port),
        step(LOAD_HALF_X, 0, 0, 2),
        step(IF_EQUAL, 1, 0, port),
        step(RETURN, 0, 0, 0),
        step(RETURN, 0, 0, SNAP),
    ]
}
