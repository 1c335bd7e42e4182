//! Segments that no socket of TCP sends: copies that come late. Needs CAP_NET_RAW.

use std::io;
use std::net::SocketAddrV4;

use etherparse::TcpHeader;
use socket2::{Domain, Protocol, Socket, Type};

/// The numbers of a segment: its own, and the one that it acknowledges.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Numbers {
    pub(crate) seq: u32,
    pub(crate) acknowledges: u32,
}

/// Sends a segment with data over IPv4, raw(7), as if the socket at `from` had sent it.
///
/// # Errors
/// PermissionDenied without CAP_NET_RAW.
pub(crate) fn send(
    from: SocketAddrV4,
    to: SocketAddrV4,
    numbers: Numbers,
    data: &[u8],
) -> io::Result<()> {
    const WINDOW: u16 = 512;
    let mut header = TcpHeader::new(from.port(), to.port(), numbers.seq, WINDOW);
    header.ack = true;
    header.psh = true;
    header.acknowledgment_number = numbers.acknowledges;
    let sum = header.calc_checksum_ipv4_raw(from.ip().octets(), to.ip().octets(), data);
    header.checksum = sum.map_err(io::Error::other)?;
    let mut segment = header.to_bytes().to_vec();
    segment.extend_from_slice(data);
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::TCP))?;
    // The kernel writes the IP header, with this address.
    socket.bind(&SocketAddrV4::new(*from.ip(), 0).into())?;
    socket.send_to(&segment, &SocketAddrV4::new(*to.ip(), 0).into())?;
    Ok(())
}
