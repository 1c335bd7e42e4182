//! Sealed: the bytes of connections with TLS, between the socket and the other stages. Records are opened as they come,
//! and made when the socket has room for them.
//!
//! Its one rule: a record that was made is sent before everything else, since none is made twice: what the socket
//! does not take of it is the first of the unsent bytes.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use super::Flow;
use super::deliver::Deliver;
use crate::conn_id::ConnId;
use crate::handler::CloseReason;
use crate::ipc::memory::SharedBytes;
use crate::limited::{Topic, limited};
use crate::net::buffers::Scratch;
use crate::net::connection::{Connection, Step};
use crate::net::tls::Session;
use crate::net::unsent::Unsent;
use crate::sys::socket::{self, Read};

/// The most bytes that are sealed before the socket is written.
const MOST_SEALED: usize = 64 << 10;

/// The most bytes that are read at once: a client that sends the shortest records there are takes a millisecond of others.
const MOST_READ: usize = 64 << 10;

/// The most bytes of an incomplete record or handshake message, which has 64 KiB at most.
const MOST_KEPT: usize = 96 << 10;

/// The memory of a loop for its connections with TLS. Bytes are sealed while others are opened: in base mode the callback
/// that answers a message runs while that is delivered.
#[derive(Default)]
pub(super) struct Sealing {
    /// `None` before the first connection with TLS, and while it is in use.
    opening: Option<Box<Opening>>,
    /// Bytes that are to be sealed.
    plain: Vec<u8>,
    /// Records that were made.
    out: Vec<u8>,
}

/// The memory for records as they come.
struct Opening {
    records: Scratch,
    /// Their bytes.
    plain: Vec<u8>,
    /// What the session has to say.
    out: Vec<u8>,
}

impl Opening {
    fn new() -> Opening {
        Opening {
            records: Scratch::new(MOST_KEPT + MOST_READ),
            plain: Vec::with_capacity(MOST_READ),
            out: Vec::new(),
        }
    }
}

/// The way to the socket of a connection, through its TLS if it has any.
pub(super) struct Sink<'a> {
    socket: BorrowedFd<'a>,
    session: Option<&'a mut Session>,
    out: &'a mut Vec<u8>,
    /// The bytes that the kernel has taken.
    pub(super) written: u64,
    /// The bytes of records that are kept since it has not taken them.
    pub(super) kept: usize,
    /// Those at the end of `out` that are not kept yet.
    left: usize,
}

impl Sink<'_> {
    /// Sends the first of these bytes. Returns how many: with TLS, some of them may be in records that the socket has
    /// not taken, which [`settle`](Self::settle) keeps. `None` if it takes none now.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<Option<usize>> {
        debug_assert!(self.left == 0, "the records before these go first");
        let Some(session) = &mut self.session else {
            let written = socket::write(self.socket, bytes)?;
            self.written += written.unwrap_or(0) as u64;
            return Ok(written);
        };
        let now = &bytes[..bytes.len().min(MOST_SEALED)];
        self.out.clear();
        session.seal(now, self.out)?;
        let written = match socket::write(self.socket, self.out) {
            Ok(written) => written.unwrap_or(0),
            // The next write tells of it. The records must not be made again.
            Err(error) if socket::is_shortage(&error) => 0,
            Err(error) => return Err(error),
        };
        self.written += written as u64;
        self.left = self.out.len() - written;
        Ok(Some(now.len()))
    }

    /// Whether there is TLS. Then a write may take less than the socket has room for.
    pub(super) fn is_sealed(&self) -> bool {
        self.session.is_some()
    }

    /// Keeps the records that the socket has not taken. Returns whether there are any.
    pub(super) fn settle(&mut self, unsent: &mut Unsent) -> bool {
        let left = std::mem::take(&mut self.left);
        unsent.seal(&self.out[self.out.len() - left..]);
        self.kept += left;
        left > 0
    }

    /// Sends records that were kept, as they are.
    pub(super) fn write_kept(&mut self, unsent: &mut Unsent) -> io::Result<(usize, bool)> {
        let records = unsent.sealed();
        let len = records.len();
        let n = socket::write(self.socket, records)?.unwrap_or(0);
        self.written += n as u64;
        unsent.sealed_sent(n);
        Ok((n, n == len))
    }
}

impl Connection {
    /// Returns the way to its socket, and its unsent bytes; `None` once the socket is closed.
    pub(super) fn sink<'a>(
        &'a mut self,
        out: &'a mut Vec<u8>,
    ) -> Option<(Sink<'a>, &'a mut Unsent)> {
        let sink = Sink {
            socket: self.socket.as_ref()?.as_fd(),
            session: self
                .rare
                .layer_mut()
                .and_then(|layer| layer.session.as_mut()),
            out,
            written: 0,
            kept: 0,
            left: 0,
        };
        Some((sink, &mut self.writing.unsent))
    }
}

impl Flow {
    /// Reads records, and delivers their bytes.
    pub(super) fn read_sealed(&mut self, workers: &mut impl Deliver, id: ConnId) -> Read {
        let mut opening = self
            .sealing
            .opening
            .take()
            .unwrap_or_else(|| Box::new(Opening::new()));
        let read = self.read_records(&mut opening, workers, id);
        self.sealing.opening = Some(opening);
        read
    }

    fn read_records(
        &mut self,
        opening: &mut Opening,
        workers: &mut impl Deliver,
        id: ConnId,
    ) -> Read {
        let Some(conn) = self.table.get_mut(id) else {
            return Read::Nothing;
        };
        let (Some(socket), Some(layer)) = (&conn.socket, conn.rare.layer_mut()) else {
            return Read::Nothing;
        };
        let Some(session) = &mut layer.session else {
            return Read::Nothing;
        };
        let begun = session.incoming().len();
        let room = begun..begun + MOST_READ;
        let Some(room) = opening.records.get_mut(room) else {
            self.tls_failed(id, "it has sent a record without end");
            return Read::Nothing;
        };
        let read = socket::read(socket.as_fd(), room);
        let Read::Bytes(n) = read else {
            return read;
        };
        opening.records[..begun].copy_from_slice(session.incoming());
        let records = &mut opening.records[..begun + n];
        opening.plain.clear();
        opening.out.clear();
        let was_open = session.is_open();
        let taken = session.take(records, &mut opening.plain, &mut opening.out);
        if let Ok(used) = taken {
            session.keep(&records[used..]);
        }
        let kept = session.incoming().len();
        let has_begun = begun == 0 || matches!(taken, Ok(used) if used > 0);
        let (is_open, has_ended) = (session.is_open(), session.has_ended());
        // The time of a message counts from its first record on.
        let has_begun = has_begun && !conn.reading.has_incomplete();
        self.budget.give_back(begun);
        self.budget.take(kept);
        if self.budget.is_exceeded() {
            self.enforce_budget();
        }
        self.send_records(id, &opening.out);
        if let Err(problem) = taken {
            self.tls_failed(id, &problem);
            return Read::Nothing;
        }
        if is_open && !was_open {
            self.handshake_is_over(id);
        }
        self.deliver_plain(workers, id, &opening.plain);
        let is_incomplete =
            |conn: &Connection| conn.rare.layer().is_some_and(|it| it.has_incomplete());
        if has_begun && self.table.get(id).is_some_and(is_incomplete) {
            self.begin_message(id);
        }
        match has_ended {
            true => Read::End,
            false => Read::Bytes(n),
        }
    }

    /// Sends records that the session has made of its own accord.
    fn send_records(&mut self, id: ConnId, records: &[u8]) {
        let Some(conn) = self.table.get_mut(id).filter(|_| !records.is_empty()) else {
            return;
        };
        let Some(socket) = &conn.socket else { return };
        let mut sent = 0;
        if conn.writing.unsent.is_empty() && !conn.is_paused {
            match socket::write(socket.as_fd(), records) {
                Ok(written) => sent = written.unwrap_or(0),
                Err(error) if socket::is_shortage(&error) => self.pause(id, &error),
                Err(error) => return self.broken(id, &error),
            }
        }
        if let Some(conn) = self.table.get_mut(id) {
            conn.writing.written += sent as u64;
            conn.writing.unsent.seal(&records[sent..]);
            self.budget.take(records.len() - sent);
            self.table.touch(id);
        }
    }

    /// Bytes of the client have come: cuts them into messages, behind the incomplete one.
    fn deliver_plain(&mut self, workers: &mut impl Deliver, id: ConnId, plain: &[u8]) {
        let Some(conn) = self.table.get(id).filter(|_| !plain.is_empty()) else {
            return;
        };
        if conn.work.connect == Step::Due {
            // They have come with the end of the handshake. `connect` goes first.
            let kept = self.spares.keep(plain);
            return self.keep(id, kept, 0);
        }
        let (mut partial, seen) = self.take_kept(id);
        if partial.is_empty() {
            self.spares.give(partial);
            return self.cut_new(workers, id, plain);
        }
        partial.extend_from_slice(plain);
        let (delivered, seen) = self.cut(workers, id, &partial, seen);
        self.keep_rest(id, partial, delivered, seen);
    }

    /// The session can't go on: its last record says why to the peer, if the socket takes it.
    fn tls_failed(&mut self, id: ConnId, problem: &str) {
        if self.table.get(id).is_some_and(Connection::is_opening) {
            return self.refuse_handshake(id, problem);
        }
        log::debug!("connection {id} is broken: its TLS: {problem}");
        self.abort(id, CloseReason::Broken);
    }

    fn refuse_handshake(&mut self, id: ConnId, problem: &str) {
        let Some(conn) = self.table.get(id) else {
            return;
        };
        let (peer, listener) = (conn.peer, &self.config.listener(conn.listener).name);
        limited!(
            info,
            Topic::Opening,
            "connection {id} from {peer} to listener {listener} is refused before it is open: TLS: {problem}"
        );
        // With FIN, so that the peer can read the alert.
        self.hang_up(id, CloseReason::Refused);
    }

    /// Sends bytes through the TLS of a connection, none of whose output is unsent. Returns how many were taken; `None` if
    /// the connection takes none any more.
    pub(super) fn send_sealed(&mut self, id: ConnId, bytes: SharedBytes<'_>) -> Option<usize> {
        let Sealing {
            opening: _,
            plain,
            out,
        } = &mut self.sealing;
        let (mut taken, mut kept, mut failed) = (0, 0, None);
        while taken < bytes.len() && kept == 0 {
            // A copy of this process's own: a worker may change the bytes while they are sealed.
            let piece = bytes.skip(taken);
            plain.clear();
            piece.first(piece.len().min(MOST_SEALED)).append_to(plain);
            let conn = self.table.get_mut(id);
            let Some((mut sink, unsent)) = conn.and_then(|conn| conn.sink(out)) else {
                break;
            };
            let written = sink.write(plain);
            sink.settle(unsent);
            kept = sink.kept;
            let to_kernel = sink.written;
            match written {
                Ok(n) => taken += n.unwrap_or(0),
                Err(error) => failed = Some(error),
            }
            if let Some(conn) = self.table.get_mut(id) {
                conn.writing.written += to_kernel;
            }
            if failed.is_some() {
                break;
            }
        }
        if let Some(error) = failed {
            self.broken(id, &error);
            return None;
        }
        if kept > 0 {
            self.budget.take(kept);
            self.unsent_has_grown(id);
        }
        self.table.get(id).filter(|conn| conn.is_open())?;
        Some(taken)
    }

    /// Lends the memory for records to write, for `write_unsent`.
    pub(super) fn with_out<T>(&mut self, with: impl FnOnce(&mut Flow, &mut Vec<u8>) -> T) -> T {
        // Without TLS this is an empty vector, and takes no memory.
        let mut out = std::mem::take(&mut self.sealing.out);
        let done = with(self, &mut out);
        self.sealing.out = out;
        done
    }

    /// Tells the peer that no more output comes, where TLS has a record for that. Returns whether that has left.
    pub(super) fn has_said_end(&mut self, id: ConnId) -> bool {
        let Some(layer) = self
            .table
            .get_mut(id)
            .and_then(|conn| conn.rare.layer_mut())
        else {
            return true;
        };
        if !layer.has_said_end
            && let Some(session) = layer.session.as_mut().filter(|session| session.is_open())
        {
            layer.has_said_end = true;
            let mut out = Vec::new();
            if session.end(&mut out).is_ok() {
                self.send_records(id, &out);
            }
        }
        self.table
            .get(id)
            .is_none_or(|conn| conn.writing.unsent.is_empty())
    }
}
