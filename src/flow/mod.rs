//! ONE CONNECTION'S BYTES, in order, top to bottom: accepted, read, cut into messages, submitted to
//! a worker, answered, written, closed.
//!
//! The stages are the same in both modes. What differs is who stands at the other end of *submit*:
//! in process mode a link to a worker ([`crate::master::seats`]), in base mode the handler itself
//! ([`crate::worker::base`]).

pub(crate) mod deliver;

use std::os::fd::AsFd;
use std::sync::Arc;

use crate::config::{Config, LEAST_READ};
use crate::conn_id::ConnId;
use crate::event::Event;
use crate::flow::deliver::{Deliver, Place};
use crate::handler::CloseReason;
use crate::ipc::frame;
use crate::ipc::memory::Room;
use crate::net::acceptor::Accepted;
use crate::net::connection::{Connection, Input, MOST_IN_FLIGHT, Step, Wait};
use crate::net::connections::Connections;
use crate::net::dispatch::Loads;
use crate::net::scratch::Scratch;
use crate::net::spares::{self, Spares};
use crate::protocol::{Protocol, Split};
use crate::sys::epoll;
use crate::sys::socket::{self, Read};

/// The stages, and what they work on.
pub(crate) struct Pipeline<D> {
    pub(crate) io: Connections,
    pub(crate) deliver: D,
    config: Arc<Config>,
    loads: Arc<Loads>,
    /// What is read is first read here, where it can't go to its place at once.
    scratch: Scratch,
    /// And what is not a whole message yet goes here.
    spares: Spares,
}

/// What one read came to.
#[derive(PartialEq, Eq)]
enum Progress {
    /// Something was read: there may be more.
    Some,
    /// Nothing can be read now, or ever again.
    None,
}

impl<D: Deliver> Pipeline<D> {
    pub(crate) fn new(
        io: Connections,
        deliver: D,
        config: Arc<Config>,
        loads: Arc<Loads>,
    ) -> Pipeline<D> {
        Pipeline {
            io,
            deliver,
            config,
            loads,
            scratch: Scratch::new(spares::LARGE),
            spares: Spares::new(),
        }
    }

    // Accept: the connection gets its name and its seat.

    /// Takes over a connection that was counted for this owner.
    pub(crate) fn adopt(&mut self, accepted: Accepted) {
        let seat = self
            .loads
            .enter_seat(&self.config.dispatcher, accepted.peer);
        if let Err(error) = self.io.add(
            accepted.socket,
            accepted.peer,
            accepted.listener,
            seat as u16,
        ) {
            log::error!("cannot watch a connection from {}: {error}", accepted.peer);
            self.loads.socket_closed();
            self.loads.leave(usize::from(self.io.owner()), seat);
        }
    }

    // Read: what epoll reports becomes bytes in the seat's inbox.

    /// Acts on one report about a connection.
    pub(crate) fn ready(&mut self, id: ConnId, event: epoll::Event) {
        if event.writable() {
            self.io.writable(id);
        }
        let Some(conn) = self.io.get_mut(id) else {
            return;
        };
        if conn.wants_input() {
            if event.readable() || event.hung_up() {
                // Behind a FIN nothing new comes: what is there can be read at once, and the FIN
                // with it.
                let to_the_end = event.peer_closed();
                while self.read(id) == Progress::Some && to_the_end {}
            }
        } else if event.hung_up() {
            // Not reading, and the connection is dead: level-triggered, this report would come for
            // ever.
            self.io
                .broken(id, &std::io::ErrorKind::ConnectionReset.into());
        } else if event.peer_closed() {
            self.io.peer_closed(id);
        }
    }

    /// Reads once.
    fn read(&mut self, id: ConnId) -> Progress {
        let Some(conn) = self.io.get_mut(id).filter(|conn| conn.wants_input()) else {
            return Progress::None;
        };
        if conn.input == Input::Discarded {
            self.io.discard(id, &mut self.scratch);
            return Progress::None;
        }
        let read = match self.config.listener(conn.listener).protocol {
            Protocol::Raw if !self.deliver.looks_at_messages() => self.read_raw(id),
            Protocol::Raw
            | Protocol::Delimiter(_)
            | Protocol::Length(_)
            | Protocol::Function(_) => self.read_messages(id),
        };
        match read {
            Read::Bytes(n) => return self.have_read(id, n),
            Read::Nothing => self.nothing_more(id),
            Read::End => self.io.peer_ended(id),
            Read::Broken(error) => self.io.broken(id, &error),
        }
        Progress::None
    }

    /// Raw bytes go from the socket straight to the seat.
    fn read_raw(&mut self, id: ConnId) -> Read {
        let Some(conn) = self.io.get_mut(id) else {
            return Read::Nothing;
        };
        let listener = self.config.listener(conn.listener);
        let most = listener.longest_raw(self.config.output_limit);
        let least = LEAST_READ.min(most);
        let Some(seat) = self.seat_for(id, None, least) else {
            return Read::Nothing;
        };
        let Some(conn) = self.io.get_mut(id) else {
            return Read::Nothing;
        };
        let Some(socket) = &conn.socket else {
            return Read::Nothing;
        };
        let mut input = header(conn, Event::Receive);
        let Some(mut room) = self.deliver.room(seat, least..=most, conn.turn) else {
            self.wait(id, Some(seat), least);
            return Read::Nothing;
        };
        let read = room.fill_from(socket.as_fd());
        if let Read::Bytes(n) = read {
            conn.turn = false;
            input.len = n as u32;
            let step = self.deliver.submit(&mut self.io, seat, &input);
            self.submitted(id, seat, step);
        }
        read
    }

    /// Bytes that have to be cut into messages are read into memory of our own first.
    fn read_messages(&mut self, id: ConnId) -> Read {
        let (mut partial, seen) = self.io.take_input(id);
        let Some(Connection {
            socket: Some(socket),
            ..
        }) = self.io.get_mut(id)
        else {
            return Read::Nothing;
        };
        if partial.len() > spares::SMALL {
            let len = spares::next_read(&partial, partial.capacity());
            let read = socket::read_to_end_of(socket.as_fd(), &mut partial, len);
            let (delivered, seen) = match read {
                Read::Bytes(_) => self.deliver_messages(id, &partial, seen),
                Read::Nothing | Read::End | Read::Broken(_) => (0, seen),
            };
            self.keep(id, partial, delivered, seen);
            return read;
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        let begun = partial.len();
        let read = Room::of(&mut scratch[begun..]).fill_from(socket.as_fd());
        if let Read::Bytes(n) = read {
            scratch[..begun].copy_from_slice(&partial);
            self.spares.give(partial);
            let bytes = &scratch[..begun + n];
            let (delivered, seen) = self.deliver_messages(id, bytes, seen);
            if delivered < bytes.len() {
                let rest = self.spares.keep(&bytes[delivered..]);
                self.io.keep_input(id, rest, seen);
            }
        } else if begun > 0 {
            self.io.keep_input(id, partial, seen);
        }
        self.scratch = scratch;
        read
    }

    /// Keeps what was not delivered, of which so much was looked at in vain.
    fn keep(&mut self, id: ConnId, mut bytes: Vec<u8>, delivered: usize, seen: usize) {
        match bytes.len() - delivered {
            0 => self.spares.give(bytes),
            rest if rest > spares::SMALL || bytes.capacity() <= spares::SMALL => {
                bytes.drain(..delivered);
                self.io.keep_input(id, bytes, seen);
            }
            _ => {
                let rest = self.spares.keep(&bytes[delivered..]);
                self.spares.give(bytes);
                self.io.keep_input(id, rest, seen);
            }
        }
    }

    /// Bytes were read. For a server that shuts down they are the last, as soon as they are as many
    /// as were there: a client that goes on sending does not keep it alive.
    fn have_read(&mut self, id: ConnId, n: usize) -> Progress {
        if let Some(conn) = self.io.get_mut(id)
            && let Input::Last { left } = &mut conn.input
        {
            *left = left.saturating_sub(n);
            if *left == 0 {
                self.io.last_read(id);
                return Progress::None;
            }
        }
        Progress::Some
    }

    /// The socket is empty. For a server that shuts down, that was the end.
    fn nothing_more(&mut self, id: ConnId) {
        if self.io.get_mut(id).is_some_and(|conn| {
            matches!(conn.input, Input::Last { .. }) && conn.wait == Wait::Nothing
        }) {
            self.io.last_read(id);
        }
    }

    // Split and submit.

    /// Submits the messages that `bytes` begin with, of which the first `seen` were looked at in
    /// vain. Returns how many bytes are through, and how many of the rest were looked at.
    fn deliver_messages(&mut self, id: ConnId, bytes: &[u8], mut seen: usize) -> (usize, usize) {
        let mut at = 0;
        loop {
            // A callback may have closed it meanwhile: the rest is for nobody.
            let Some(conn) = self.io.get_mut(id).filter(|conn| conn.delivers_input()) else {
                return (bytes.len(), 0);
            };
            let rest = &bytes[at..];
            let listener = self.config.listener(conn.listener);
            match listener.protocol.split(rest, seen, listener.max_message) {
                Split::Message { len } => {
                    if !self.deliver_message(id, &rest[..len], 0) {
                        return (at, 0);
                    }
                    at += len;
                    seen = 0;
                }
                Split::Partial { .. } => return (at, rest.len()),
                Split::Refused(refusal) => {
                    log::warn!("connection {id} from {} is closed: {refusal}", conn.peer);
                    self.io.close(id, CloseReason::Refused);
                    return (bytes.len(), 0);
                }
            }
        }
    }

    /// Submits a message, in which so many workers have died. Says whether there was room for it.
    fn deliver_message(&mut self, id: ConnId, message: &[u8], attempts: u8) -> bool {
        let Some(seat) = self.seat_for(id, Some(message), message.len()) else {
            return false;
        };
        let Some(conn) = self.io.get_mut(id) else {
            return false;
        };
        let turn = std::mem::take(&mut conn.turn);
        let mut input = header(conn, Event::Receive);
        (input.len, input.attempt) = (message.len() as u32, attempts);
        let io = &mut self.io;
        let Some(step) = self.deliver.submit_copy(io, seat, &input, message, turn) else {
            self.wait(id, Some(seat), message.len());
            return false;
        };
        self.submitted(id, seat, step);
        true
    }

    /// Submits what was read before and had to wait. Says whether it is all through.
    fn deliver_kept(&mut self, id: ConnId) -> bool {
        let (kept, seen) = self.io.take_input(id);
        let (delivered, seen) = self.deliver_messages(id, &kept, seen);
        self.keep(id, kept, delivered, seen);
        self.io
            .get_mut(id)
            .is_some_and(|conn| conn.wait == Wait::Nothing)
    }

    /// Submits again what has come back from a worker. Says whether it is all through.
    fn deliver_returned(&mut self, id: ConnId) -> bool {
        while let Some(message) = self.io.take_returned(id) {
            if !self.deliver_message(id, &message.bytes, message.attempts) {
                self.io.put_returned(id, message);
                return false;
            }
        }
        true
    }

    /// Submits an event without a body. Says whether there was room for it.
    fn submit_event(&mut self, id: ConnId, kind: Event) -> bool {
        let Some(seat) = self.seat_for(id, None, 0) else {
            return false;
        };
        let Some(conn) = self.io.get_mut(id) else {
            return false;
        };
        let turn = std::mem::take(&mut conn.turn);
        let mut input = header(conn, kind);
        if let Some((died_in, attempts)) = conn.died_in
            && died_in == kind
        {
            input.attempt = attempts;
        }
        let io = &mut self.io;
        let Some(step) = self.deliver.submit_copy(io, seat, &input, &[], turn) else {
            self.wait(id, Some(seat), 0);
            return false;
        };
        if let Some(conn) = self.io.get_mut(id) {
            // Something else may have come in its place: output that was full has gone.
            conn.died_in = None;
            match kind {
                Event::Connect => conn.connect = step,
                Event::Close => conn.close = step,
                Event::Paused | Event::Resumed => conn.full_told = kind == Event::Paused,
                Event::Receive => {}
            }
        }
        self.submitted(id, seat, step);
        true
    }

    /// The seat that the connection's next frame goes to. Where that is not decided yet, the
    /// connection waits.
    fn seat_for(&mut self, id: ConnId, message: Option<&[u8]>, len: usize) -> Option<u16> {
        let conn = self.io.get_mut(id)?;
        if conn.in_flight >= MOST_IN_FLIGHT {
            conn.wait = Wait::Fewer;
            self.io.touch(id);
            return None;
        }
        match self.deliver.place(conn, message, len) {
            Place::Seat(seat) => {
                let last = std::mem::replace(&mut conn.seat, seat);
                if last != seat {
                    self.loads.move_seat(usize::from(last), usize::from(seat));
                }
                Some(seat)
            }
            Place::WhenQuiet => {
                conn.wait = Wait::Quiet;
                self.io.touch(id);
                None
            }
            Place::Nowhere => {
                self.wait(id, None, len);
                None
            }
        }
    }

    /// A frame of the connection is with a worker, or already done.
    fn submitted(&mut self, id: ConnId, seat: u16, step: Step) {
        if step == Step::Submitted
            && let Some(conn) = self.io.get_mut(id)
        {
            conn.in_flight += 1;
            conn.slot = self.deliver.slot_of(seat);
        }
    }

    /// The connection waits for room for `len` bytes: it is not read, so that TCP pushes back on
    /// the client.
    fn wait(&mut self, id: ConnId, seat: Option<u16>, len: usize) {
        if let Some(conn) = self.io.get_mut(id)
            && conn.wait == Wait::Nothing
        {
            conn.wait = Wait::Room;
            self.deliver.wait(&mut self.io, seat, id, len);
            self.io.touch(id);
        }
    }

    // Advance: everything about a connection that is not the next byte.

    /// Advances every connection that was touched.
    pub(crate) fn settle(&mut self) {
        while let Some(id) = self.io.next_touched() {
            self.advance(id);
        }
    }

    /// A connection that has waited for room submits one frame.
    pub(crate) fn take_turn(&mut self, id: ConnId) {
        if let Some(conn) = self.io.get_mut(id) {
            (conn.wait, conn.turn) = (Wait::Nothing, true);
            self.advance(id);
        }
    }

    /// Does whatever is due for a connection, in the order of its life.
    fn advance(&mut self, id: ConnId) {
        self.deliver_owed(id);
        if self
            .io
            .get_mut(id)
            .is_some_and(|conn| conn.turn && conn.input == Input::Open && conn.returned.is_empty())
        {
            // It waited to be read. What it does not use of its turn is over.
            self.read(id);
        }
        self.io.finish_output(id);
        let Some(conn) = self.io.get_mut(id) else {
            return;
        };
        conn.turn = false;
        if conn.is_over() {
            let seat = conn.seat;
            self.io.remove(id);
            self.loads
                .leave(usize::from(self.io.owner()), usize::from(seat));
        } else {
            self.io.watch(id);
        }
    }

    /// Tells the worker what it is owed, in order, as far as there is room: connect, messages that
    /// have come back, messages, close.
    fn deliver_owed(&mut self, id: ConnId) {
        let Some(conn) = self.io.get_mut(id) else {
            return;
        };
        let is_unheard = conn.returned.is_empty() && conn.died_in.is_none();
        if conn.connect == Step::Owed && conn.socket.is_none() && is_unheard {
            // It came and went, and no worker has heard of it: whoever connects to a stuck worker
            // and leaves, leaves nothing.
            conn.close = Step::Done;
            return;
        }
        if conn.wait != Wait::Nothing {
            return;
        }
        if conn.connect == Step::Owed && !self.submit_event(id, Event::Connect) {
            return;
        }
        if self.deliver_returned(id)
            && self.deliver_notice(id)
            && self.deliver_rest(id)
            && self
                .io
                .get_mut(id)
                .is_some_and(|conn| conn.end.is_some() && conn.close == Step::Owed)
        {
            self.submit_event(id, Event::Close);
        }
    }

    /// Tells the worker that the output of a connection is full, or empty again. Says whether there
    /// was room for that.
    fn deliver_notice(&mut self, id: ConnId) -> bool {
        match self.io.get_mut(id) {
            Some(conn) if conn.full != conn.full_told && conn.end.is_none() => {
                let full = conn.full;
                let kind = if full { Event::Paused } else { Event::Resumed };
                self.submit_event(id, kind)
            }
            Some(_) | None => true,
        }
    }

    /// Submits what was read before, and of a server that shuts down what is left to read. Says
    /// whether it is all through; not while the peer does not take what is sent already.
    fn deliver_rest(&mut self, id: ConnId) -> bool {
        let Some(conn) = self.io.get_mut(id) else {
            return false;
        };
        // A tail that was looked at in vain is no message, and nothing to wait for.
        let keeps_some = conn.seen < conn.partial.len();
        if keeps_some && (conn.full || !self.deliver_kept(id)) {
            return false;
        }
        let is_last = |conn: &mut Connection| matches!(conn.input, Input::Last { .. });
        if self.io.get_mut(id).is_some_and(is_last) {
            while self.read(id) == Progress::Some {}
        }
        self.io
            .get_mut(id)
            .is_some_and(|conn| conn.wait == Wait::Nothing)
    }

    // Close.

    /// The server shuts down: what each connection has sent by now is its last.
    pub(crate) fn drain(&mut self) {
        for id in self.io.ids() {
            let Some(conn) = self.io.get_mut(id) else {
                continue;
            };
            if conn.close == Step::Abandoned {
                // Left open for somebody to look at. Nothing will ever happen to it.
                self.io.close(id, CloseReason::Shutdown);
            } else if conn.input == Input::Open {
                let left = conn
                    .socket
                    .as_ref()
                    .map_or(0, |socket| socket::unread(socket.as_fd()));
                conn.input = Input::Last { left };
                // A reader that is too slow is not waited for: its answers are kept, within its
                // limit.
                conn.full = false;
                self.io.touch(id);
            }
        }
    }
}

/// The header of a frame for this connection, with no body.
fn header(conn: &Connection, kind: Event) -> frame::Input {
    let reason = conn.end.unwrap_or(CloseReason::Peer);
    frame::Input {
        kind: kind.into(),
        conn: conn.id,
        peer: conn.peer,
        listener: conn.listener.0,
        attempt: 0,
        detail: reason.code(),
        // Only where the peer closed does the socket outlive the deadline for the callback's sake.
        deadline: if kind == Event::Close && reason == CloseReason::Peer {
            conn.deadline
        } else {
            0
        },
        len: 0,
    }
}
