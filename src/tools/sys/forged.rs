//! Segments that no socket of TCP sends: copies that come late. Needs CAP_NET_RAW.

use std::io;
use std::net::SocketAddrV4;

use etherparse::TcpHeader;
use socket2::{Domain, Protocol, Socket, Type};

/// Sends a segment over IPv4, raw(7), as if the socket at `from` had sent it: `segment` is its TCP header and
/// its data. The checksum is computed, since a captured segment may have none yet.
///
/// # Errors
/// PermissionDenied without CAP_NET_RAW; InvalidData if there is no TCP header.
pub(crate) fn send(from: SocketAddrV4, to: SocketAddrV4, segment: &[u8]) -> io::Result<()> {
    let read = TcpHeader::from_slice(segment);
    let (mut header, data) =
        read.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
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
