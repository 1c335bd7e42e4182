//! The kernel's TCP sockets, as `ss` sees them: any program's, without privilege.
//!
//! What this asks is sock_diag(7); its one rule is that it changes nothing, but for
//! [`SocketTable::destroy`].

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
    NetlinkSerializable,
};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::nlas::Nla;
use netlink_packet_sock_diag::inet::{
    ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags,
};
use netlink_packet_sock_diag::message::SockDiagDestroy;
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use serde::Serialize;

/// The states of RFC 9293, section 3.3.2, and the kernel's own for a connection that it has not
/// made a socket of yet.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum State {
    Listen,
    SynSent,
    SynRecv,
    Established,
    #[serde(rename = "FIN_WAIT1")]
    FinWait1,
    #[serde(rename = "FIN_WAIT2")]
    FinWait2,
    CloseWait,
    Closing,
    LastAck,
    TimeWait,
    /// The kernel knows the socket, and no connection: it was reset, or never bound.
    Close,
}

impl State {
    /// By the numbers of `include/net/tcp_states.h`.
    fn from_number(number: u8) -> Option<State> {
        Some(match number {
            1 => State::Established,
            2 => State::SynSent,
            // 12 is TCP_NEW_SYN_RECV, which is the same to anybody outside.
            3 | 12 => State::SynRecv,
            4 => State::FinWait1,
            5 => State::FinWait2,
            6 => State::TimeWait,
            7 => State::Close,
            8 => State::CloseWait,
            9 => State::LastAck,
            10 => State::Listen,
            11 => State::Closing,
            _ => return None,
        })
    }

    /// The name that people know it by.
    pub(crate) fn name(self) -> &'static str {
        match self {
            State::Listen => "LISTEN",
            State::SynSent => "SYN_SENT",
            State::SynRecv => "SYN_RECV",
            State::Established => "ESTABLISHED",
            State::FinWait1 => "FIN_WAIT1",
            State::FinWait2 => "FIN_WAIT2",
            State::CloseWait => "CLOSE_WAIT",
            State::Closing => "CLOSING",
            State::LastAck => "LAST_ACK",
            State::TimeWait => "TIME_WAIT",
            State::Close => "CLOSE",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One end of a connection, or a listener.
#[derive(Clone, Debug)]
pub(crate) struct Socket {
    pub(crate) state: State,
    pub(crate) local: SocketAddr,
    /// All zero for a listener.
    pub(crate) remote: SocketAddr,
    /// Bytes that the process has not read, and the peer's FIN counts as one; of a listener, the
    /// connections that wait to be accepted.
    pub(crate) recv_q: u32,
    /// Bytes that the peer has not acknowledged; of a listener, how many may wait, less one.
    pub(crate) send_q: u32,
    pub(crate) uid: u32,
    /// 0 when no process holds it: TIME_WAIT, or closed by its process.
    pub(crate) inode: u64,
    /// How long until the kernel acts by itself.
    pub(crate) timer: Option<Timer>,
    pub(crate) quiet: Option<Quiet>,
    id: SocketId,
}

/// What the kernel waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Timer {
    pub(crate) kind: TimerKind,
    #[serde(rename = "left_s", serialize_with = "as_seconds")]
    pub(crate) left: Duration,
    /// How often it has sent the same again.
    pub(crate) retransmits: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TimerKind {
    Retransmit,
    Keepalive,
    /// The end of TIME_WAIT, or of a FIN_WAIT2 that no process holds.
    End,
    Probe,
}

/// How long nothing has come, by `TCP_INFO`. The kernel keeps no time for a state, but these bound
/// one: see [`Socket::close_wait_age`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Quiet {
    /// Since data came.
    pub(crate) data_received: Duration,
    /// Since any segment came that was in order.
    pub(crate) segment_received: Duration,
}

impl Socket {
    pub(crate) fn is_listener(&self) -> bool {
        self.state == State::Listen
    }

    /// Both addresses, the local one first.
    pub(crate) fn ends(&self) -> (SocketAddr, SocketAddr) {
        (self.local, self.remote)
    }

    /// Bytes that came and were not read; of a socket that its peer has closed, without the FIN.
    pub(crate) fn unread(&self) -> u32 {
        match self.state {
            State::CloseWait | State::LastAck | State::Closing => self.recv_q.saturating_sub(1),
            _ => self.recv_q,
        }
    }

    /// Whether the process has still to find out that the peer has closed: it has not read up to the
    /// FIN.
    pub(crate) fn has_unread_end(&self) -> bool {
        self.state == State::CloseWait && self.recv_q > 0
    }

    /// For how long it is in CLOSE_WAIT, at least: nothing comes after a FIN except acknowledgements,
    /// so that the FIN is as old as the last segment, or older.
    ///
    /// It is exact (to the kernel's tick) while this side sends nothing. What it sends is
    /// acknowledged, and starts this age anew: data, and its own keepalive probes. The peer's probes do
    /// not, nor its close() after a shutdown(), nor the end of its FIN_WAIT2. A FIN that was lost counts
    /// from when it came at last.
    pub(crate) fn close_wait_age(&self) -> Option<Duration> {
        let quiet = self.quiet.filter(|_| self.state == State::CloseWait)?;
        Some(quiet.segment_received)
    }

    /// For how long it is in CLOSE_WAIT, at most: no data comes after a FIN. Where none ever came, it
    /// is the age of the connection.
    pub(crate) fn close_wait_age_at_most(&self) -> Option<Duration> {
        let quiet = self.quiet.filter(|_| self.state == State::CloseWait)?;
        Some(quiet.data_received)
    }

    /// A number that no other socket has or had since the machine was started.
    pub(crate) fn cookie(&self) -> u64 {
        u64::from_ne_bytes(self.id.cookie)
    }
}

/// A way to ask the kernel.
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

    /// Every socket.
    pub(crate) fn all(&mut self) -> io::Result<Vec<Socket>> {
        self.dump(StateFlags::all(), 0, 0)
    }

    /// Every listener.
    pub(crate) fn listeners(&mut self) -> io::Result<Vec<Socket>> {
        self.dump(StateFlags::LISTEN, 0, 0)
    }

    /// The sockets that have this port on one of their sides. The kernel does the looking.
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

    /// The end of a connection that has these addresses. Much cheaper than a dump.
    #[cfg_attr(not(feature = "lab"), allow(dead_code))] // `tine doctor` dumps.
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
            // Where there is no such connection, the kernel offers the listener of the port.
            other => other.map(|()| {
                found
                    .into_iter()
                    .find(|socket| socket.ends() == (local, remote))
            }),
        }
    }

    /// The same socket once more; `None` where it has ended, also when another one has its addresses.
    pub(crate) fn again(&mut self, socket: &Socket) -> io::Result<Option<Socket>> {
        let request = inet_request(socket.family(), StateFlags::all(), socket.id.clone());
        let mut found = Vec::new();
        match self.ask(request, 0, &mut found) {
            Err(error) if has_ended(&error) => Ok(None),
            other => other.map(|()| found.into_iter().find(|it| it.cookie() == socket.cookie())),
        }
    }

    /// Ends a connection as if it had failed: its process is woken with an error (ECONNABORTED, or the
    /// end of file where a FIN has come before), its peer is sent an RST.
    ///
    /// # Errors
    /// NotFound when it has ended meanwhile, PermissionDenied without CAP_NET_ADMIN, Unsupported
    /// where the kernel is built without `CONFIG_INET_DIAG_DESTROY`.
    pub(crate) fn destroy(&mut self, socket: &Socket) -> io::Result<()> {
        // With the cookie it is this very socket, and not a later one of the same addresses.
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

    /// Reads what the kernel answers to the last request, to its end.
    fn receive(&mut self, flags: u16, found: &mut Vec<Socket>) -> io::Result<()> {
        loop {
            let size = self.socket.recv(&mut &mut self.buffer[..], 0)?;
            let mut rest = self.buffer.get(..size).ok_or_else(|| bad("is cut off"))?;
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
                // Each message begins at a multiple of four, netlink(7).
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }
}

impl Socket {
    fn family(&self) -> u8 {
        match self.id.source_address {
            IpAddr::V4(_) => AF_INET,
            IpAddr::V6(_) => AF_INET6,
        }
    }

    /// One that no kernel knows, for what is made from sockets.
    #[cfg(test)]
    pub(crate) fn made_up(state: State, local: &str, remote: &str, inode: u64) -> Socket {
        let mut id = SocketId::new_v4();
        id.cookie = inode.to_ne_bytes();
        Socket {
            state,
            local: local.parse().unwrap(),
            remote: remote.parse().unwrap(),
            recv_q: 0,
            send_q: 0,
            uid: 0,
            inode,
            timer: None,
            quiet: None,
            id,
        }
    }

    fn of(response: &InetResponse, message: &[u8]) -> Option<Socket> {
        let header = &response.header;
        let state = State::from_number(header.state)?;
        let id = header.socket_id.clone();
        let info = response.nlas.iter().find_map(|nla| match nla {
            Nla::TcpInfo(info) => Some(info.as_slice()),
            _ => None,
        });
        Some(Socket {
            state,
            local: SocketAddr::new(id.source_address.to_canonical(), id.source_port),
            remote: SocketAddr::new(id.destination_address.to_canonical(), id.destination_port),
            recv_q: header.recv_queue,
            send_q: header.send_queue,
            uid: header.uid,
            inode: u64::from(header.inode),
            timer: Timer::of(message),
            quiet: info.and_then(Quiet::of),
            id,
        })
    }
}

impl Timer {
    /// From `struct inet_diag_msg`, since the crate drops what is left of TIME_WAIT.
    fn of(message: &[u8]) -> Option<Timer> {
        const MESSAGE: usize = size_of::<libc::nlmsghdr>();
        const KIND: usize = MESSAGE + 2;
        const RETRANSMITS: usize = MESSAGE + 3;
        // Behind four bytes, and the 48 that name the socket.
        const EXPIRES: usize = MESSAGE + 52;
        let kind = match message.get(KIND)? {
            1 => TimerKind::Retransmit,
            2 => TimerKind::Keepalive,
            3 => TimerKind::End,
            4 => TimerKind::Probe,
            _ => return None,
        };
        Some(Timer {
            kind,
            left: Duration::from_millis(u64::from(number_at(message, EXPIRES)?)),
            retransmits: *message.get(RETRANSMITS)?,
        })
    }
}

impl Quiet {
    fn of(info: &[u8]) -> Option<Quiet> {
        use std::mem::offset_of;
        let at = |offset| number_at(info, offset).map(|ms| Duration::from_millis(u64::from(ms)));
        Some(Quiet {
            data_received: at(offset_of!(libc::tcp_info, tcpi_last_data_recv))?,
            segment_received: at(offset_of!(libc::tcp_info, tcpi_last_ack_recv))?,
        })
    }
}

/// Times are seconds in JSON.
pub(crate) fn as_seconds<S: serde::Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64(time.as_secs_f64())
}

fn number_at(bytes: &[u8], offset: usize) -> Option<u32> {
    let bytes = bytes.get(offset..offset + 4)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
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
    let problem = format!("the kernel's answer about its sockets is not understood: {what}");
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

/// Whether the kernel knows no such socket, or knows another one by its addresses.
fn has_ended(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESTALE))
}

/// Whether the kernel knows no such family.
fn is_unknown(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOENT | libc::EINVAL | libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener, TcpStream};

    fn table() -> SocketTable {
        SocketTable::open().expect("netlink")
    }

    /// A connection over loopback: the client, the server's end, and its listener.
    fn pair() -> (TcpStream, TcpStream, TcpListener) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        (client, server, listener)
    }

    fn find(table: &mut SocketTable, of: &TcpStream) -> Socket {
        let (local, remote) = (of.local_addr().unwrap(), of.peer_addr().unwrap());
        let found = table.find(local, remote).unwrap();
        found.unwrap_or_else(|| panic!("no socket {local} -> {remote}"))
    }

    #[test]
    fn both_ends_of_a_connection_are_found_with_their_queues() {
        let mut table = table();
        let (mut client, mut server, _listener) = pair();
        client.write_all(b"12345").unwrap();
        server.peek(&mut [0; 5]).unwrap();
        let end = find(&mut table, &server);
        assert_eq!((end.state, end.recv_q), (State::Established, 5));
        assert_ne!(end.inode, 0);
        client.shutdown(Shutdown::Write).unwrap();
        server.read_exact(&mut [0; 5]).unwrap();
        assert_eq!(server.read(&mut [0; 1]).unwrap(), 0);
        let end = find(&mut table, &server);
        assert_eq!((end.state, end.unread()), (State::CloseWait, 0));
        assert!(!end.has_unread_end());
        // Its acknowledgement may come 40 ms later.
        while find(&mut table, &client).state == State::FinWait1 {}
        assert_eq!(find(&mut table, &client).state, State::FinWait2);
    }

    #[test]
    fn what_is_not_read_is_told_apart_from_the_fin() {
        let mut table = table();
        let (mut client, server, _listener) = pair();
        client.write_all(b"12345").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        server.peek(&mut [0; 5]).unwrap();
        let end = loop {
            let end = find(&mut table, &server);
            if end.state == State::CloseWait {
                break end;
            }
        };
        assert_eq!((end.recv_q, end.unread()), (6, 5));
        assert!(end.has_unread_end());
        assert!(end.close_wait_age().unwrap() < Duration::from_secs(30));
    }

    #[test]
    fn the_same_socket_is_found_again_and_no_other_one_of_its_addresses() {
        let mut table = table();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        // From an address that nobody else uses, so that the port stays free when it is.
        let connect = |from: SocketAddr| {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
            socket.bind(&from.into())?;
            socket.connect(&listener.local_addr()?.into())?;
            io::Result::Ok(TcpStream::from(socket))
        };
        let client = connect(SocketAddr::from(([127, 9, 8, 7], 0))).unwrap();
        let (server, _) = listener.accept().unwrap();
        let end = find(&mut table, &server);
        let again = table.again(&end).unwrap().expect("it is still there");
        assert_eq!((again.cookie(), again.inode), (end.cookie(), end.inode));
        let here = client.local_addr().unwrap();
        // With an RST, neither end is left in TIME_WAIT.
        let linger = socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO));
        linger.unwrap();
        drop((client, server));
        assert!(table.again(&end).unwrap().is_none());
        let _another = connect(here).unwrap();
        let (_server, _) = listener.accept().unwrap();
        assert!(table.find(end.local, end.remote).unwrap().is_some());
        assert!(table.again(&end).unwrap().is_none());
    }

    #[test]
    fn what_this_side_sends_starts_the_age_of_close_wait_anew_and_leaves_its_upper_bound() {
        let mut table = table();
        let (client, server, _listener) = pair();
        let probes = socket2::TcpKeepalive::new().with_time(Duration::from_secs(1));
        client.shutdown(Shutdown::Write).unwrap();
        let mut bounds = || {
            let end = find(&mut table, &server);
            (end.close_wait_age(), end.close_wait_age_at_most())
        };
        // How far the bounds are apart is how long after the FIN the last segment came.
        let mut apart = || match bounds() {
            (Some(least), Some(most)) => most.checked_sub(least).expect("in order"),
            _ => Duration::ZERO,
        };
        let before = apart();
        std::thread::sleep(Duration::from_millis(200));
        assert!(
            apart() < before + Duration::from_millis(100),
            "nothing has come"
        );
        (&server).write_all(b"x").unwrap();
        while apart() < before + Duration::from_millis(150) {}
        socket2::SockRef::from(&server)
            .set_tcp_keepalive(&probes)
            .unwrap();
        while apart() < before + Duration::from_secs(1) {}
    }

    #[test]
    fn a_listener_shows_its_queue_and_is_no_connection() {
        let mut table = table();
        let (client, server, listener) = pair();
        let address = listener.local_addr().unwrap();
        let _waiting = TcpStream::connect(address).unwrap();
        let listeners = table.listeners().unwrap();
        let found = listeners.iter().find(|found| found.local == address);
        assert_eq!(found.expect("listener").recv_q, 1);
        let mut of_port = table.of_port(address.port()).unwrap();
        // Somebody else may have the number as a client's port.
        of_port.retain(|socket| socket.local == address || socket.remote == address);
        // The listener, and both ends of two connections.
        assert_eq!(of_port.len(), 5, "{of_port:?}");
        let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
        assert!(table.find(address, nobody).unwrap().is_none());
        drop((client, server));
    }

    #[test]
    fn time_wait_tells_how_long_it_takes() {
        let mut table = table();
        let (client, server, _listener) = pair();
        let ends = (client.local_addr().unwrap(), client.peer_addr().unwrap());
        drop(client);
        drop(server);
        let end = loop {
            let found = table.find(ends.0, ends.1).unwrap().expect("client's end");
            if found.state == State::TimeWait {
                break found;
            }
        };
        let timer = end.timer.expect("timer");
        assert_eq!((timer.kind, end.inode), (TimerKind::End, 0));
        assert!(timer.left > Duration::from_secs(20), "{timer:?}");
        assert!(timer.left <= Duration::from_secs(61), "{timer:?}");
    }

    #[test]
    fn connections_over_ipv6_and_those_of_ipv4_in_it_are_found() {
        let mut table = table();
        let Ok(listener) = TcpListener::bind("[::]:0") else {
            return eprintln!("SKIPPED: no IPv6");
        };
        let port = listener.local_addr().unwrap().port();
        for host in ["127.0.0.1", "::1"] {
            let client = TcpStream::connect((host, port)).unwrap();
            let (_server, _) = listener.accept().unwrap();
            assert_eq!(find(&mut table, &client).state, State::Established);
            let (local, remote) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
            let far = table.find(remote, local).unwrap().expect("server's end");
            assert_eq!(far.ends(), (remote, local));
        }
    }

    #[test]
    fn an_answer_that_is_no_answer_is_nothing() {
        assert_eq!(Timer::of(&[0; 20]), None);
        assert_eq!(Timer::of(&[2; 40]), None);
        assert_eq!(Quiet::of(&[1; 8]), None);
        assert_eq!(State::from_number(0), None);
        assert_eq!(State::from_number(13), None);
    }
}
