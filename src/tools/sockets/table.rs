//! Queries the kernel's sockets, by sock_diag(7). Its one rule: only [`SocketTable::destroy`] changes
//! anything.

use std::io;
use std::net::SocketAddr;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
    NetlinkSerializable,
};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use netlink_packet_sock_diag::message::SockDiagDestroy;
use netlink_sys::protocols::NETLINK_SOCK_DIAG;

use super::Socket;

/// A netlink socket for queries.
pub(crate) struct SocketTable {
    socket: netlink_sys::Socket,
    buffer: Vec<u8>,
    sequence: u32,
}

impl SocketTable {
    /// # Errors
    /// Where the kernel has no sock_diag(7), or a sandbox forbids netlink.
    pub(crate) fn open() -> io::Result<SocketTable> {
        let mut socket = netlink_sys::Socket::new(NETLINK_SOCK_DIAG)?;
        socket.bind_auto()?;
        socket.connect(&netlink_sys::SocketAddr::new(0, 0))?;
        Ok(SocketTable {
            socket,
            // The kernel fills up to 32 KiB at a time.
            buffer: vec![0; 64 << 10],
            sequence: 0,
        })
    }

    /// Returns every socket.
    pub(crate) fn all(&mut self) -> io::Result<Vec<Socket>> {
        self.dump(StateFlags::all(), 0, 0)
    }

    /// Returns every listener.
    pub(crate) fn listeners(&mut self) -> io::Result<Vec<Socket>> {
        self.dump(StateFlags::LISTEN, 0, 0)
    }

    /// Returns the sockets that have this port as their local or remote port. The kernel filters.
    pub(crate) fn of_port(&mut self, port: u16) -> io::Result<Vec<Socket>> {
        let mut found = self.dump(StateFlags::all(), port, 0)?;
        let far = self.dump(StateFlags::all() - StateFlags::LISTEN, 0, port)?;
        found.extend(far.into_iter().filter(|socket| socket.local.port() != port));
        Ok(found)
    }

    fn dump(
        &mut self,
        states: StateFlags,
        local_port: u16,
        remote_port: u16,
    ) -> io::Result<Vec<Socket>> {
        let mut found = Vec::new();
        for (family, any) in [
            (AF_INET, SocketId::new_v4()),
            (AF_INET6, SocketId::new_v6()),
        ] {
            let socket_id = SocketId {
                source_port: local_port,
                destination_port: remote_port,
                ..any
            };
            let request = inet_request(family, states.clone(), socket_id);
            match self.ask(request, NLM_F_DUMP, &mut found) {
                // A kernel without IPv6.
                Err(error) if family == AF_INET6 && is_unknown(&error) => {}
                other => other?,
            }
        }
        Ok(found)
    }

    /// Returns the socket of a connection by its addresses. Much cheaper than a dump.
    pub(crate) fn find(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> io::Result<Option<Socket>> {
        let socket_id = SocketId {
            source_port: local.port(),
            destination_port: remote.port(),
            source_address: local.ip(),
            destination_address: remote.ip(),
            interface_id: 0,
            cookie: [0xff; 8],
        };
        let family = if local.is_ipv4() { AF_INET } else { AF_INET6 };
        let request = inet_request(family, StateFlags::all(), socket_id);
        let mut found = Vec::new();
        match self.ask(request, 0, &mut found) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            // Without such a connection, the kernel returns the listener of the port.
            other => other.map(|()| {
                found
                    .into_iter()
                    .find(|socket| socket.ends() == (local, remote))
            }),
        }
    }

    /// Returns the current state of the same socket, or `None` when it has ended, even if another socket
    /// has its addresses now.
    pub(crate) fn again(&mut self, socket: &Socket) -> io::Result<Option<Socket>> {
        let request = inet_request(socket.family(), StateFlags::all(), socket.id.clone());
        let mut found = Vec::new();
        match self.ask(request, 0, &mut found) {
            Err(error) if has_ended(&error) => Ok(None),
            other => other.map(|()| found.into_iter().find(|it| it.cookie() == socket.cookie())),
        }
    }

    /// Ends a connection as if it had failed: its process is woken with an error (ECONNABORTED, or end of
    /// file where a FIN has arrived before), and its peer is sent an RST.
    ///
    /// # Errors
    /// NotFound when the connection has ended meanwhile, PermissionDenied without CAP_NET_ADMIN,
    /// Unsupported on a kernel built without `CONFIG_INET_DIAG_DESTROY`.
    pub(crate) fn destroy(&mut self, socket: &Socket) -> io::Result<()> {
        // The cookie names this very socket, and not a later one with the same addresses.
        let request = inet_request(socket.family(), StateFlags::all(), socket.id.clone());
        let message = SockDiagDestroy::new(SockDiagMessage::InetRequest(request));
        let answer = self
            .send(message, NLM_F_ACK)
            .and_then(|()| self.receive(NLM_F_ACK, &mut Vec::new()));
        answer.map_err(|error| match error.raw_os_error() {
            _ if has_ended(&error) => io::ErrorKind::NotFound.into(),
            Some(libc::EOPNOTSUPP) => io::ErrorKind::Unsupported.into(),
            _ => error,
        })
    }

    fn ask(&mut self, request: InetRequest, flags: u16, found: &mut Vec<Socket>) -> io::Result<()> {
        self.send(SockDiagMessage::InetRequest(request), flags)?;
        self.receive(flags, found)
    }

    fn send<M: NetlinkSerializable>(&mut self, message: M, flags: u16) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut packet = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        self.socket.send(&bytes, 0).map(drop)
    }

    /// Reads the kernel's answer to the last request, to its end.
    fn receive(&mut self, flags: u16, found: &mut Vec<Socket>) -> io::Result<()> {
        loop {
            let size = self.socket.recv(&mut &mut self.buffer[..], 0)?;
            let mut rest = self
                .buffer
                .get(..size)
                .ok_or_else(|| bad("it is cut off"))?;
            while !rest.is_empty() {
                let message = NetlinkMessage::<SockDiagMessage>::deserialize(rest)
                    .map_err(|error| bad(&error.to_string()))?;
                let length = message.header.length as usize;
                if message.header.sequence_number == self.sequence {
                    match message.payload {
                        NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => {
                            found.extend(Socket::of(&response, &rest[..length]));
                            if flags == 0 {
                                return Ok(());
                            }
                        }
                        NetlinkPayload::Error(error) => {
                            return error.code.map_or(Ok(()), |code| {
                                Err(io::Error::from_raw_os_error(code.get().abs()))
                            });
                        }
                        NetlinkPayload::Done(_) => return Ok(()),
                        _ => {}
                    }
                }
                // Each message begins at a multiple of four bytes, netlink(7).
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }
}

fn inet_request(family: u8, states: StateFlags, socket_id: SocketId) -> InetRequest {
    InetRequest {
        family,
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::INFO,
        states,
        socket_id,
    }
}

fn bad(what: &str) -> io::Error {
    let problem = format!("the kernel's answer about its sockets is malformed: {what}");
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

/// Whether the error says that the socket has ended, or that another one has its addresses now.
fn has_ended(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESTALE))
}

/// Whether the error says that the kernel lacks this address family.
fn is_unknown(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOENT | libc::EINVAL | libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT)
    )
}
