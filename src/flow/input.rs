//! Input: bytes are read from the socket and cut into messages.
//!
//! Raw bytes are read straight into their place in an inbox. Bytes to be cut into messages are read into
//! memory of this process first, and an incomplete message is kept there.

use crate::limited::{Topic, limited};
use std::ops::ControlFlow::{Break, Continue};
use std::os::fd::AsFd;

use super::deliver::{Deliver, Place, Want};
use super::{Flow, Next};
use crate::config::policy::Dispatcher;
use crate::config::{Config, LARGE_BUFFER, LEAST_READ, ListenerConfig};
use crate::conn_id::ConnId;
use crate::event::Event;
use crate::handler::CloseReason;
use crate::ipc::memory::Room;
use crate::net::buffers::{self, SMALL};
use crate::net::connection::{Connection, Input, Level};
use crate::protocol::{Search, Split};
use crate::sys::socket::{self, Read};

/// The result of one read.
#[derive(PartialEq, Eq)]
pub(super) enum Progress {
    /// Bytes were read: there may be more.
    More,
    /// No bytes can be read now, or ever again.
    NoMore,
}

/// Where bytes are read to first, unless the protocol decides that.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reads {
    /// To its place in an inbox.
    Straight,
    /// To memory of this process: a dispatch function sees each message before it has a place.
    First,
}

impl Reads {
    pub(super) fn of(config: &Config) -> Reads {
        match &config.dispatcher {
            Dispatcher::Function(_) => Reads::First,
            Dispatcher::Mode(_) => Reads::Straight,
        }
    }
}

impl Flow {
    /// Returns the listener of a connection, which has the protocol for its bytes.
    fn listener(&self, conn: &Connection) -> &ListenerConfig {
        self.config.listener(conn.listener)
    }

    /// Whether the bytes of a connection go straight to their place.
    fn is_straight(&self, conn: &Connection) -> bool {
        self.reads == Reads::Straight && self.listener(conn).protocol.is_raw()
    }

    /// Reads once.
    pub(super) fn read(&mut self, workers: &mut impl Deliver, id: ConnId) -> Progress {
        let Some(conn) = self.table.get(id).filter(|conn| conn.wants_input()) else {
            return Progress::NoMore;
        };
        if conn.reading.input == Input::Discarded {
            self.discard(id);
            return Progress::NoMore;
        }
        let read = match (conn.rare.layer().is_some(), self.is_straight(conn)) {
            (true, _) if conn.is_opening() => self.open_on(workers, id),
            (true, _) => self.read_sealed(workers, id),
            (false, true) => self.read_straight(workers, id),
            (false, false) => self.read_messages(workers, id),
        };
        match read {
            Read::Bytes(n) => return self.have_read(id, n),
            Read::Nothing => self.nothing_more(id),
            Read::End => self.peer_ended(id),
            Read::Broken(error) if socket::is_shortage(&error) => self.pause(id, &error),
            Read::Broken(error) => self.broken(id, &error),
        }
        Progress::NoMore
    }

    /// Reads raw bytes from the socket straight to their place.
    fn read_straight(&mut self, workers: &mut impl Deliver, id: ConnId) -> Read {
        let Some(conn) = self.table.get(id) else {
            return Read::Nothing;
        };
        let most = self.listener(conn).longest_raw(self.config.output_limit);
        let least = LEAST_READ.min(most);
        let want = Want::Bytes { least, most };
        let Continue(mut place) = self.place(workers, id, want) else {
            return Read::Nothing;
        };
        let Some(conn) = self.table.get(id) else {
            return Read::Nothing;
        };
        let Some(socket) = &conn.socket else {
            return Read::Nothing;
        };
        let read = place.room().fill_from(socket.as_fd());
        if let Read::Bytes(n) = read {
            let mut input = self.header(conn, Event::Receive);
            (input.len, input.value) = (n as u32, conn.work.messages);
            let submitted = place.submit(self, &input);
            self.count(id, submitted);
            let _ = self.next_number(id);
        }
        read
    }

    /// Reads bytes to be cut into messages, into memory of this process.
    fn read_messages(&mut self, workers: &mut impl Deliver, id: ConnId) -> Read {
        let (partial, seen) = self.take_kept(id);
        if partial.len() > SMALL {
            self.read_on(workers, id, partial, seen)
        } else {
            self.read_scratch(workers, id, partial, seen)
        }
    }

    /// Reads behind a long incomplete message, into its own buffer.
    fn read_on(
        &mut self,
        workers: &mut impl Deliver,
        id: ConnId,
        mut partial: Vec<u8>,
        seen: usize,
    ) -> Read {
        let Some(socket) = self.table.get(id).and_then(|conn| conn.socket.as_ref()) else {
            return Read::Nothing;
        };
        let len = buffers::next_read(&partial, partial.capacity());
        let read = socket::read_to_end_of(socket.as_fd(), &mut partial, len);
        let (delivered, seen) = match read {
            Read::Bytes(_) => self.cut(workers, id, &partial, seen),
            Read::Nothing | Read::End | Read::Broken(_) => (0, seen),
        };
        self.keep_rest(id, partial, delivered, seen);
        read
    }

    /// Reads into the scratch memory, behind a short incomplete message.
    fn read_scratch(
        &mut self,
        workers: &mut impl Deliver,
        id: ConnId,
        partial: Vec<u8>,
        seen: usize,
    ) -> Read {
        let Some(socket) = self.table.get(id).and_then(|conn| conn.socket.as_ref()) else {
            return Read::Nothing;
        };
        let mut scratch = std::mem::take(&mut self.scratch);
        let begun = partial.len();
        let read = Room::of(&mut scratch[begun..]).fill_from(socket.as_fd());
        if let Read::Bytes(n) = read {
            scratch[..begun].copy_from_slice(&partial);
            self.spares.give(partial);
            let bytes = &scratch[..begun + n];
            let (delivered, seen) = self.cut(workers, id, bytes, seen);
            if delivered < bytes.len() {
                let rest = self.spares.keep(&bytes[delivered..]);
                self.keep(id, rest, seen);
                if begun == 0 || delivered > 0 {
                    self.begin_message(id);
                }
            }
        } else if begun > 0 {
            self.keep(id, partial, seen);
        }
        self.scratch = scratch;
        read
    }

    /// Submits the complete messages in `bytes`, which have nothing before them, and keeps the rest.
    pub(super) fn cut_new(&mut self, workers: &mut impl Deliver, id: ConnId, bytes: &[u8]) {
        let (delivered, seen) = self.cut(workers, id, bytes, 0);
        if delivered < bytes.len() {
            let rest = self.spares.keep(&bytes[delivered..]);
            self.keep(id, rest, seen);
            self.begin_message(id);
        }
    }

    /// Submits the complete messages in `bytes`, of which the first `seen` were searched before. Returns
    /// how many bytes were delivered, and how many of the rest were searched.
    pub(super) fn cut(
        &mut self,
        workers: &mut impl Deliver,
        id: ConnId,
        bytes: &[u8],
        mut seen: usize,
    ) -> (usize, usize) {
        let mut at = 0;
        let mut cursor = match seen {
            0 => 0,
            _ => self.take_cursor(id),
        };
        loop {
            // A callback may have closed it meanwhile: the rest is dropped.
            let Some(conn) = self.table.get(id).filter(|conn| conn.is_open()) else {
                return (bytes.len(), 0);
            };
            let rest = &bytes[at..];
            let listener = self.listener(conn);
            let mut search = Search::new(seen, cursor);
            let (protocol, most) = (&listener.protocol, listener.max_message);
            match protocol.split_on(rest, &mut search, most) {
                Split::Message { len } => {
                    if self.submit_message(workers, id, &rest[..len]).is_break() {
                        return (at, 0);
                    }
                    let conn = self.table.get(id);
                    if conn.is_some_and(|conn| conn.reading.input == Input::Rest) {
                        self.end_input(id, CloseReason::Shutdown);
                        return (bytes.len(), 0);
                    }
                    at += len;
                    (seen, cursor) = (0, 0);
                }
                Split::Partial { .. } => {
                    if search.cursor != 0 && protocol.has_cursor() {
                        self.cursors.insert(id, search.cursor);
                    }
                    return (at, rest.len());
                }
                Split::Refused(refusal) => {
                    limited!(
                        warn,
                        Topic::Refused,
                        "connection {id} from {} is closed: {refusal}",
                        conn.peer
                    );
                    self.end_input(id, CloseReason::Refused);
                    return (bytes.len(), 0);
                }
            }
        }
    }

    /// Returns where the search for the end of the connection's message goes on.
    pub(super) fn take_cursor(&mut self, id: ConnId) -> u64 {
        match self.cursors.is_empty() {
            true => 0,
            false => self.cursors.remove(&id).unwrap_or(0),
        }
    }

    /// Submits kept messages that had to wait; not while too much output is unsent.
    pub(super) fn submit_kept(&mut self, workers: &mut impl Deliver, id: ConnId) -> Next {
        let Some(conn) = self.table.get(id) else {
            return Break(());
        };
        if !conn.reading.is_unsearched {
            return Continue(());
        }
        if conn.writing.level == Level::High {
            return Break(());
        }
        let (kept, seen) = self.take_kept(id);
        let (delivered, seen) = self.cut(workers, id, &kept, seen);
        self.keep_rest(id, kept, delivered, seen);
        self.if_free(id)
    }

    /// Reads the last input of a server that shuts down.
    pub(super) fn read_last(&mut self, workers: &mut impl Deliver, id: ConnId) -> Next {
        let conn = self.table.get(id);
        if conn.is_some_and(|conn| matches!(conn.reading.input, Input::Last { .. })) {
            while self.read(workers, id) == Progress::More {}
        }
        self.if_free(id)
    }

    /// `n` bytes were read. In a server that shuts down, input ends once the bytes that had arrived at
    /// the start of that are read: a client that goes on sending does not keep the server alive.
    fn have_read(&mut self, id: ConnId, n: usize) -> Progress {
        let now = self.pace.now();
        let Some(conn) = self.table.get_mut(id) else {
            return Progress::NoMore;
        };
        conn.pulse.hear(now);
        conn.reading.has_begun = true;
        let left = match conn.reading.input {
            Input::Open | Input::Discarded | Input::Ended => return Progress::More,
            Input::Last { left } => left.saturating_sub(n as u32),
            Input::First => conn.unread(),
            Input::Rest => {
                let now = self.look_at_clock();
                self.graces.set(id, now);
                return Progress::More;
            }
        };
        conn.reading.input = Input::Last { left };
        if left > 0 {
            self.table.touch(id);
            return Progress::More;
        }
        // Otherwise messages wait for a place, and what is behind them may be the beginning of another.
        if conn.work.is_free() {
            self.last_read(id);
        }
        Progress::NoMore
    }

    /// The socket is empty. In a server that shuts down, that is the end of the input.
    fn nothing_more(&mut self, id: ConnId) {
        let conn = self.table.get(id);
        if conn.is_some_and(|conn| {
            matches!(conn.reading.input, Input::Last { .. }) && conn.work.is_free()
        }) {
            self.last_read(id);
        }
    }

    /// Reads and discards, so that our FIN is not followed by an RST for unread bytes.
    fn discard(&mut self, id: ConnId) {
        let Some(socket) = self.table.get(id).and_then(|conn| conn.socket.as_ref()) else {
            return;
        };
        match Room::of(&mut self.scratch).fill_from(socket.as_fd()) {
            Read::Bytes(_) | Read::Nothing => {}
            Read::End => self.peer_ended(id),
            Read::Broken(error) if socket::is_shortage(&error) => self.pause(id, &error),
            Read::Broken(error) => self.broken(id, &error),
        }
    }

    // Kept bytes.

    /// Takes the bytes that were read and not delivered, and how many of them were searched.
    pub(super) fn take_kept(&mut self, id: ConnId) -> (Vec<u8>, usize) {
        let Some(conn) = self.table.get_mut(id) else {
            return (Vec::new(), 0);
        };
        let bytes = std::mem::take(&mut conn.reading.partial);
        let seen = match std::mem::take(&mut conn.reading.is_unsearched) {
            true => 0,
            false => bytes.len(),
        };
        self.budget.give_back(bytes.len());
        (bytes, seen)
    }

    /// Keeps the bytes after the first `delivered`; of these, `seen` were searched.
    pub(super) fn keep_rest(
        &mut self,
        id: ConnId,
        mut bytes: Vec<u8>,
        delivered: usize,
        seen: usize,
    ) {
        match bytes.len() - delivered {
            0 => self.spares.give(bytes),
            rest if rest > SMALL || bytes.capacity() <= SMALL => {
                bytes.drain(..delivered);
                self.keep(id, bytes, seen);
            }
            _ => {
                let rest = self.spares.keep(&bytes[delivered..]);
                self.spares.give(bytes);
                self.keep(id, rest, seen);
            }
        }
        if delivered > 0 {
            self.begin_message(id);
        }
    }

    /// Keeps bytes that can't be delivered yet, unless the connection takes no more input. Either all of them
    /// were searched, or none.
    pub(super) fn keep(&mut self, id: ConnId, bytes: Vec<u8>, seen: usize) {
        let Some(conn) = self.table.get_mut(id).filter(|conn| conn.is_open()) else {
            return;
        };
        let len = bytes.len();
        let reading = &mut conn.reading;
        debug_assert!(seen == 0 || seen == len);
        (reading.partial, reading.is_unsearched) = (bytes, seen != len);
        if reading.partial.capacity() > 2 * len + LARGE_BUFFER {
            // The buffer of a long message: an idle connection does not keep that memory.
            reading.partial.shrink_to_fit();
        }
        self.budget.take(len);
        if self.budget.is_exceeded() {
            self.enforce_budget();
        }
    }
}
