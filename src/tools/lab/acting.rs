//! How an experiment acts: it starts servers, connects, sends, closes.

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use super::end::{End, Ends, Listening, Sharing};
use super::picture::{Segment, Side};
use super::record::{Copied, Does, Recorder};
use super::server::LabServer;
use super::stop::{Stop, Trying};
use super::{LOOPBACK, Lab, PATIENCE};
use crate::sockets::SocketTable;
use crate::sockets::State::Established;
use crate::sys::namespace::{self, Link};
use crate::sys::{forged, options};

impl Lab<'_> {
    /// Starts a tine server with these arguments, and shows the command.
    pub(crate) fn serve(&mut self, arguments: &str) -> Result<LabServer, Stop> {
        self.ran(&format!("tine serve {arguments}"));
        let arguments: Vec<&str> = arguments.split_ascii_whitespace().collect();
        let server = LabServer::start(&arguments).trying("start a server")?;
        self.watch_port(server.address.port())?;
        Ok(server)
    }

    /// Makes a listener in this process.
    pub(crate) fn listen(&mut self, backlog: i32, sharing: Sharing) -> Result<Listening, Stop> {
        let mut listening = Listening::bind(LOOPBACK, backlog, sharing).trying("listen")?;
        self.watch_port(listening.address.port())?;
        if let Some(recorder) = &mut self.recorder {
            listening.record(recorder.holds_server());
        }
        Ok(listening)
    }

    /// Stops showing the sockets of the ports so far.
    pub(crate) fn forget_ports(&mut self) {
        self.ports.clear();
        self.recorder = None;
    }

    /// Shows the sockets of this port from now on, and records them.
    pub(crate) fn watch_port(&mut self, port: u16) -> Result<(), Stop> {
        if !self.ports.contains(&port) {
            self.ports.push(port);
        }
        self.recorder = Some(Recorder::start(port)?);
        Ok(())
    }

    /// Connects from any port, and waits until the connection is established.
    pub(crate) fn connect(&mut self, server: SocketAddr) -> Result<End, Stop> {
        self.connect_from(LOOPBACK, server)
    }

    pub(crate) fn connect_from(
        &mut self,
        from: SocketAddr,
        server: SocketAddr,
    ) -> Result<End, Stop> {
        let client = End::client(from, server).trying("make a client")?;
        self.connected(client)
    }

    /// Makes a connection with both ends in this process, and shows no other sockets from now on.
    pub(crate) fn connection(&mut self) -> Result<(End, End, Listening), Stop> {
        self.forget_ports();
        let listening = self.listen(16, Sharing::default())?;
        let client = self.connect(listening.address)?;
        let server = self.accept(&listening)?;
        let ends = client.ends;
        self.see(
            "the connection is ESTABLISHED",
            &[ends.client_is(Established), ends.server_is(Established)],
        )?;
        Ok((client, server, listening))
    }

    /// Connects with the smallest buffers, which fill soon.
    pub(crate) fn connect_narrow(&mut self, server: SocketAddr) -> Result<End, Stop> {
        let client = End::client(LOOPBACK, server).trying("make a client")?;
        options::narrow(&client).trying("set the size of a socket's buffers")?;
        self.connected(client)
    }

    /// Connects with this sequence number of the SYN.
    pub(crate) fn connect_with(
        &mut self,
        first: u32,
        from: SocketAddr,
        server: SocketAddr,
    ) -> Result<End, Stop> {
        let client = End::client(from, server).trying("make a client")?;
        options::begin_with(&client, first).trying("set the first sequence number (TCP_REPAIR)")?;
        self.connected(client)
    }

    fn connected(&mut self, mut client: End) -> Result<End, Stop> {
        self.follow(&mut client);
        client.connect().trying("connect")?;
        self.await_some("connect", || Ok(client.is_connected()?.then_some(())))?;
        Ok(client)
    }

    /// Sends until neither kernel takes more.
    pub(crate) fn fill(&mut self, end: &End) -> Result<(), Stop> {
        let (local, remote) = end.ends.of(end.side);
        let page = [b'x'; 512];
        let mut last = None;
        let full = self.look_for(PATIENCE, |lab| {
            loop {
                match end.send(&page) {
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error).trying("send"),
                }
            }
            // The peer's kernel may take some of the bytes a moment later.
            let queue = lab.socket(local, remote)?.map(|socket| socket.send_q);
            let is_same = queue.is_some_and(|queue| queue > 0) && queue == last;
            last = queue;
            Ok(is_same.then_some(()))
        })?;
        full.ok_or_else(|| Stop::Cannot("cannot fill the buffers of a connection".to_owned()))?;
        let arrived = self.socket(remote, local)?.map_or(0, |it| it.recv_q);
        end.did(Does::Fill(arrived), Instant::now());
        Ok(())
    }

    /// Records this client's connection from now on.
    pub(crate) fn follow(&mut self, client: &mut End) {
        if let Some(recorder) = &mut self.recorder {
            recorder.follow(client.ends);
            client.record(recorder.journal());
        }
    }

    pub(crate) fn accept(&mut self, at: &Listening) -> Result<End, Stop> {
        self.await_some("accept", || at.accept())
    }

    /// Records an action of this moment, for the picture.
    pub(crate) fn did(&mut self, side: impl Into<Option<Side>>, text: &str) {
        if let Some(recorder) = &mut self.recorder {
            recorder.did(side.into(), text);
        }
    }

    /// Makes that end drop every segment from now on.
    pub(crate) fn deafen(&mut self, end: &End) -> Result<(), Stop> {
        let began = Instant::now();
        options::drop_all(end).trying("make a socket drop segments (SO_ATTACH_FILTER)")?;
        end.did(Does::Deaf(true), began);
        Ok(())
    }

    pub(crate) fn undeafen(&mut self, end: &End) -> Result<(), Stop> {
        let began = Instant::now();
        options::drop_none(end).trying("make a socket receive segments again")?;
        end.did(Does::Deaf(false), began);
        Ok(())
    }

    /// Lets that end's kernel probe its peer each second from now on.
    pub(crate) fn keep_alive(&mut self, end: &End) -> Result<(), Stop> {
        let began = Instant::now();
        options::keep_alive(end).trying("set SO_KEEPALIVE")?;
        end.did(Does::KeepAlive, began);
        Ok(())
    }

    /// Returns the segments of a connection so far, by the side that sent them; `None` where they cannot be
    /// captured.
    pub(crate) fn segments(&self, ends: Ends) -> Option<Vec<(Side, Segment)>> {
        self.recorder.as_ref()?.segments(ends)
    }

    /// Returns a copy of the first segment with data that this side has sent; `None` where it can't be captured.
    pub(crate) fn copy(&self, ends: Ends, side: Side) -> Option<Copied> {
        self.recorder.as_ref()?.copy(ends, side)
    }

    /// Sends the copy of a segment from a raw socket. Returns whether the kernel of the other side answers it.
    pub(crate) fn send_late(&mut self, copy: &Copied) -> Result<bool, Stop> {
        let (ends, side) = (copy.ends, copy.side);
        let before = self.segments(ends).map_or(0, |sent| sent.len());
        let (from, to) = ends.of(side);
        let (SocketAddr::V4(from), SocketAddr::V4(to)) = (from, to) else {
            return Err(Stop::Cannot(format!("cannot use {from}: not IPv4")));
        };
        forged::send(from, to, &copy.bytes).trying("send from a raw socket")?;
        let is_late = self.look_for(PATIENCE, |lab| {
            let marked = lab.recorder.as_ref().is_some_and(|it| it.mark_late(copy));
            Ok(marked.then_some(()))
        })?;
        is_late.ok_or_else(|| Stop::Cannot("cannot find the late segment".to_owned()))?;
        let answered = self.look_for(PATIENCE, |lab| {
            let sent = lab.segments(ends).unwrap_or_default();
            let mut later = sent.iter().skip(before);
            Ok(later.any(|it| it.0 != side && it.1.ack).then_some(()))
        })?;
        Ok(answered.is_some())
    }

    /// Calls `work` in a network of its own, whose link can be cut. Returns `None` where that is not permitted.
    pub(crate) fn apart(
        &mut self,
        work: impl FnOnce(&mut Self, &Link) -> Result<(), Stop>,
    ) -> Result<Option<()>, Stop> {
        self.forget_ports();
        let done = namespace::apart(|link| {
            let inside = SocketTable::open().trying("ask the kernel about its sockets")?;
            let outside = std::mem::replace(&mut self.table, inside);
            let done = work(self, link);
            self.forget_ports();
            self.table = outside;
            done
        });
        match done {
            Ok(done) => done.map(Some),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(None),
            Err(error) => Err(error).trying("make a network namespace"),
        }
    }

    /// Reads `count` bytes.
    pub(crate) fn read(&mut self, end: &End, count: usize) -> Result<Vec<u8>, Stop> {
        let mut bytes = Vec::new();
        while bytes.len() < count {
            let mut buffer = vec![0; count - bytes.len()];
            let size = self.await_some("read", || end.read(&mut buffer))?;
            if size == 0 {
                return Err(Stop::Cannot("cannot read: the peer has closed".to_owned()));
            }
            bytes.extend_from_slice(&buffer[..size]);
        }
        Ok(bytes)
    }

    /// Reads to the end, and returns what ended it: the peer's FIN or an error.
    pub(crate) fn read_end(&mut self, end: &End) -> Result<io::Result<()>, Stop> {
        let mut buffer = [0; 4096];
        let found = self.look_for(PATIENCE, |_| match end.read(&mut buffer) {
            Ok(Some(0)) => Ok(Some(Ok(()))),
            Ok(Some(_) | None) => Ok(None),
            Err(error) => Ok(Some(Err(error))),
        })?;
        found.ok_or_else(|| Stop::Cannot("cannot read to the end: it did not arrive".to_owned()))
    }

    pub(crate) fn send(&mut self, end: &End, bytes: &[u8]) -> Result<(), Stop> {
        match end.send(bytes).trying("send")? {
            sent if sent == bytes.len() => Ok(()),
            sent => Err(Stop::Cannot(format!(
                "cannot send: the kernel took {sent} of {} bytes",
                bytes.len()
            ))),
        }
    }
}
