//! One client with one connection, and the two ends of that connection as the kernel sees them.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use procfs::net::{TcpNetEntry, TcpState};
use socket2::{Domain, SockRef, Socket, Type};

use super::{SOON, eventually, sockets};

/// A connected client. No call of it waits longer than [`SOON`] for the server.
pub(crate) struct Client {
    stream: TcpStream,
    pub(crate) local: SocketAddr,
    pub(crate) server: SocketAddr,
}

/// A client with a connection that may not be established yet.
pub(crate) struct Knocking {
    _socket: Socket,
    local: SocketAddr,
    server: SocketAddr,
}

impl Client {
    /// # Panics
    /// If the connection is not established in time.
    #[track_caller]
    pub(crate) fn connect(server: SocketAddr) -> Self {
        Self::try_connect(server).unwrap_or_else(|error| panic!("connect to {server}: {error}"))
    }

    pub(crate) fn try_connect(server: SocketAddr) -> io::Result<Self> {
        Self::over(TcpStream::connect_timeout(&server, SOON)?)
    }

    /// From one of many addresses of the loopback network, so that many clients do not run out of ports.
    pub(crate) fn try_connect_nth(server: SocketAddr, nth: usize) -> io::Result<Self> {
        let host = u8::try_from(nth % 50 + 2).unwrap_or(2);
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&SocketAddr::from((IpAddr::V4(Ipv4Addr::new(127, 0, 0, host)), 0)).into())?;
        socket.connect_timeout(&server.into(), SOON)?;
        Self::over(socket.into())
    }

    /// With the smallest buffers that the kernel allows, so that output for it stays in the server.
    #[track_caller]
    pub(crate) fn connect_narrow(server: SocketAddr) -> Self {
        let connect = || {
            let socket = Socket::new(Domain::for_address(server), Type::STREAM, None)?;
            socket.set_recv_buffer_size(4096)?;
            socket.set_send_buffer_size(4096)?;
            socket.connect_timeout(&server.into(), SOON)?;
            Self::over(socket.into())
        };
        connect().unwrap_or_else(|error| panic!("connect to {server}: {error}"))
    }

    fn over(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SOON))?;
        stream.set_write_timeout(Some(SOON))?;
        let (local, server) = (stream.local_addr()?, stream.peer_addr()?);
        Ok(Self {
            stream,
            local,
            server,
        })
    }

    /// Returns a second handle of the same connection, for another thread.
    #[track_caller]
    pub(crate) fn handle(&self) -> Self {
        let stream = self
            .stream
            .try_clone()
            .expect("a descriptor can be duplicated");
        Self {
            stream,
            local: self.local,
            server: self.server,
        }
    }

    /// Returns its socket, for one who waits for nothing.
    #[track_caller]
    pub(crate) fn into_socket(self) -> TcpStream {
        let socket = self.stream;
        socket
            .set_nonblocking(true)
            .expect("a socket can be made non-blocking");
        socket
    }

    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    #[track_caller]
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).unwrap_or_else(|error| {
            panic!("send {} bytes from {}: {error}", bytes.len(), self.local)
        });
    }

    pub(crate) fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.stream.read(buffer) {
                // With a time limit also by a stop of this process, without a handler: signal(7).
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => return read,
            }
        }
    }

    /// Reads as many bytes as `expected` has and compares them.
    #[track_caller]
    pub(crate) fn expect(&mut self, expected: &[u8]) {
        let mut got = vec![0; expected.len()];
        let read = self.stream.read_exact(&mut got);
        read.unwrap_or_else(|error| {
            panic!("{} waits for {} bytes: {error}", self.local, expected.len())
        });
        if got != expected {
            let differs = got
                .iter()
                .zip(expected)
                .position(|(got, expected)| got != expected);
            panic!(
                "{} got other bytes than it sent, from byte {differs:?} on",
                self.local
            );
        }
    }

    /// Sends `bytes` and reads them back.
    #[track_caller]
    pub(crate) fn echo(&mut self, bytes: &[u8]) {
        self.send(bytes);
        self.expect(bytes);
    }

    /// Sends a command to the testbed's script, and returns the line that answers it.
    #[track_caller]
    pub(crate) fn ask(&mut self, command: &str) -> String {
        self.send(format!("{command}\n").as_bytes());
        self.read_line()
    }

    /// Asks the testbed's script, of a server that may close or reset the connection.
    pub(crate) fn try_ask(&mut self, command: &str) -> io::Result<String> {
        self.try_send(format!("{command}\n").as_bytes())?;
        let (mut line, mut byte) = (Vec::new(), [0]);
        while byte != *b"\n" {
            self.stream.read_exact(&mut byte)?;
            line.extend(byte);
        }
        Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
    }

    /// Asks the testbed's script for a number.
    #[track_caller]
    pub(crate) fn ask_number(&mut self, command: &str) -> i32 {
        let answer = self.ask(command);
        let number = answer.parse();
        number.unwrap_or_else(|error| panic!("{command}: {answer}: {error}"))
    }

    /// Whether the server answers, on a new connection. For a server that may refuse this client.
    pub(crate) fn is_served(server: SocketAddr) -> bool {
        let ask = || {
            let mut client = Self::try_connect(server)?;
            client
                .stream
                .set_read_timeout(Some(Duration::from_secs(2)))?;
            client.try_send(b"served?")?;
            let mut answer = [0; 7];
            client.stream.read_exact(&mut answer)?;
            io::Result::Ok(&answer == b"served?")
        };
        ask().unwrap_or(false)
    }

    /// Shuts the sending side.
    #[track_caller]
    pub(crate) fn half_close(&self) {
        self.stream
            .shutdown(Shutdown::Write)
            .expect("the writing side can be shut");
    }

    pub(crate) fn try_half_close(&self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)
    }

    /// Returns the next line, without its end.
    #[track_caller]
    pub(crate) fn read_line(&mut self) -> String {
        let mut line = Vec::new();
        let mut byte = [0];
        while byte != *b"\n" {
            let read = self.stream.read_exact(&mut byte);
            read.unwrap_or_else(|error| panic!("{} waits for a line: {error}", self.local));
            line.extend(byte);
        }
        String::from_utf8_lossy(&line).trim_end().to_owned()
    }

    /// Returns everything that comes until the server closes.
    #[track_caller]
    pub(crate) fn read_to_end(&mut self) -> Vec<u8> {
        let mut got = Vec::new();
        let read = self.stream.read_to_end(&mut got);
        read.unwrap_or_else(|error| panic!("{} after {} bytes: {error}", self.local, got.len()));
        got
    }

    /// Reads once. Returns how many bytes came; 0 at the end.
    pub(crate) fn read_some(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer)
    }

    /// Waits until a byte has come, and leaves it.
    #[track_caller]
    pub(crate) fn await_bytes(&self) {
        let peeked = self.stream.peek(&mut [0]);
        assert!(
            matches!(peeked, Ok(1)),
            "{} waits for bytes: {peeked:?}",
            self.local
        );
    }

    /// Returns everything that comes until the server resets the connection.
    #[track_caller]
    pub(crate) fn read_until_reset(&mut self) -> Vec<u8> {
        let mut got = Vec::new();
        match self.stream.read_to_end(&mut got) {
            Err(error) if error.kind() == ErrorKind::ConnectionReset => got,
            other => panic!(
                "{} should be reset after {} bytes: {other:?}",
                self.local,
                got.len()
            ),
        }
    }

    /// Waits until the server has closed or reset the connection without another byte.
    #[track_caller]
    pub(crate) fn expect_closed(&mut self) {
        match self.stream.read(&mut [0]) {
            Ok(0) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            other => panic!("{} should be closed by the server: {other:?}", self.local),
        }
    }

    /// Whether anything can be read at this moment: bytes, the end of file or an error.
    #[track_caller]
    pub(crate) fn has_news(&self) -> bool {
        self.stream
            .set_nonblocking(true)
            .expect("a socket can be made non-blocking");
        let peeked = self.stream.peek(&mut [0]);
        self.stream
            .set_nonblocking(false)
            .expect("a socket can be made blocking");
        !matches!(peeked, Err(error) if error.kind() == ErrorKind::WouldBlock)
    }

    /// Closes with a RST instead of a FIN.
    #[track_caller]
    pub(crate) fn reset(self) {
        SockRef::from(&self.stream)
            .set_linger(Some(Duration::ZERO))
            .expect("lingering can be set");
    }

    /// Shuts both sides, which also wakes a thread that waits for the connection.
    pub(crate) fn give_up(&self) {
        // Fails if the server has ended the connection already, which is fine.
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Returns the addresses of the connection's two ends, the server's first.
    pub(crate) fn ends(&self) -> (SocketAddr, SocketAddr) {
        (self.server, self.local)
    }

    /// Returns the server's end of the connection.
    pub(crate) fn server_side(&self) -> Option<TcpNetEntry> {
        sockets::find(self.server, self.local)
    }

    /// Waits until the server has accepted the connection, and returns its end.
    #[track_caller]
    pub(crate) fn accepted(&self) -> TcpNetEntry {
        // A connection that waits in the accept queue has no inode: it gets one when it is accepted.
        let is_accepted = || self.server_side().is_some_and(|socket| socket.inode != 0);
        eventually(SOON, "the connection is accepted", is_accepted);
        self.server_side()
            .expect("an accepted connection is in the table")
    }

    /// Waits until the server has read all sent bytes.
    #[track_caller]
    pub(crate) fn wait_until_read(&self) {
        eventually(SOON, "the server has read what was sent", || {
            let sent =
                sockets::find(self.local, self.server).is_some_and(|socket| socket.tx_queue == 0);
            let read = || {
                self.server_side()
                    .is_some_and(|socket| socket.inode != 0 && socket.rx_queue == 0)
            };
            sent && read()
        });
    }
}

impl Knocking {
    /// Begins to connect and returns at once.
    #[track_caller]
    pub(crate) fn begin(server: SocketAddr) -> Self {
        let socket = Socket::new(Domain::for_address(server), Type::STREAM, None)
            .expect("a socket can be made");
        socket
            .set_nonblocking(true)
            .expect("a socket can be made non-blocking");
        if let Err(error) = socket.connect(&server.into()) {
            assert_eq!(
                error.raw_os_error(),
                Some(libc::EINPROGRESS),
                "connect to {server}: {error}"
            );
        }
        let local = socket
            .local_addr()
            .ok()
            .and_then(|address| address.as_socket());
        Self {
            _socket: socket,
            local: local.expect("a socket that connects has an address"),
            server,
        }
    }

    /// The state of its end.
    pub(crate) fn state(&self) -> Option<TcpState> {
        sockets::state(self.local, self.server)
    }
}
