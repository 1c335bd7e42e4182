//! The connections of one owner, a reactor or a base mode worker: the table, and what can be done
//! to a connection's socket.
//!
//! Nothing here calls back: whatever changes a connection notes it as touched, and the pipeline
//! advances it afterwards.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use slab::Slab;

use super::budget::Budget;
use super::connection::{Connection, Input, MOST_IN_FLIGHT, Step, Wait};
use super::deadline::Deadlines;
use super::dispatch::Loads;
use super::returned::{Message, Returned};
use crate::config::{Config, LINGER, READ_SIZE};
use crate::handler::CloseReason;
use crate::id::ConnId;
use crate::ipc::frame::{InputKind, Output};
use crate::ipc::link;
use crate::ipc::memory::{Room, SharedBytes};
use crate::sys::epoll::{Interest, Poller};
use crate::sys::socket::{self, Read};
use crate::sys::time::now_ms;

/// Gives generations, no two the same.
pub(crate) type Names = Box<dyn FnMut() -> NonZeroU32 + Send>;

/// Generations for an owner that lives as long as the server.
pub(crate) fn count_names() -> Names {
    let mut last = 0u32;
    Box::new(move || {
        last = last.checked_add(1).unwrap_or(1);
        NonZeroU32::new(last).unwrap_or(NonZeroU32::MIN)
    })
}

pub(crate) struct Connections {
    owner: u16,
    table: Slab<Connection>,
    /// The next generation: unique among all connections of this owner.
    names: Names,
    named: u64,
    touched: Vec<ConnId>,
    pub(crate) poller: Poller,
    config: Arc<Config>,
    budget: Budget,
    loads: Arc<Loads>,
    close_deadlines: Option<Deadlines>,
    linger_deadlines: Deadlines,
}

impl Connections {
    pub(crate) fn new(
        owner: u16,
        names: Names,
        poller: Poller,
        config: Arc<Config>,
        loads: Arc<Loads>,
    ) -> Connections {
        // A worker of base mode has the budget to itself.
        let budget = Budget::new(config.memory_budget / config.reactors.max(1));
        Connections {
            owner,
            table: Slab::new(),
            names,
            named: 0,
            touched: Vec::new(),
            poller,
            close_deadlines: config.close_deadline.map(Deadlines::new),
            linger_deadlines: Deadlines::new(LINGER),
            config,
            budget,
            loads,
        }
    }

    pub(crate) fn owner(&self) -> u16 {
        self.owner
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// How many connections there have ever been.
    pub(crate) fn named(&self) -> u64 {
        self.named
    }

    /// A new connection, watched for input, and touched.
    ///
    /// # Errors
    /// What epoll_ctl(2) says; the socket is closed then.
    pub(crate) fn add(
        &mut self,
        socket: OwnedFd,
        peer: SocketAddr,
        listener: u16,
        seat: u16,
    ) -> std::io::Result<ConnId> {
        let generation = (self.names)();
        self.named += 1;
        let entry = self.table.vacant_entry();
        let id = ConnId::new(self.owner, entry.key() as u32, generation);
        self.poller.add(&socket, id.as_u64(), Interest::READ)?;
        entry.insert(Connection::new(id, socket, peer, listener, seat));
        self.touch(id);
        Ok(id)
    }

    /// The connection of that name, if it is still in the table.
    pub(crate) fn get_mut(&mut self, id: ConnId) -> Option<&mut Connection> {
        self.table.get_mut(id.slot()).filter(|conn| conn.id == id)
    }

    pub(crate) fn get(&self, id: ConnId) -> Option<&Connection> {
        self.table.get(id.slot()).filter(|conn| conn.id == id)
    }

    pub(crate) fn remove(&mut self, id: ConnId) -> Option<Connection> {
        self.get_mut(id)?;
        let conn = self.table.remove(id.slot());
        self.budget.give_back(conn.held());
        Some(conn)
    }

    /// All names, for the rare walks over everything.
    pub(crate) fn ids(&self) -> Vec<ConnId> {
        self.table.iter().map(|(_, conn)| conn.id).collect()
    }

    /// Notes that the connection has something to advance.
    pub(crate) fn touch(&mut self, id: ConnId) {
        if let Some(conn) = self.get_mut(id)
            && !conn.touched
        {
            conn.touched = true;
            self.touched.push(id);
        }
    }

    /// The next connection to advance.
    pub(crate) fn next_touched(&mut self) -> Option<ConnId> {
        let id = self.touched.pop()?;
        if let Some(conn) = self.get_mut(id) {
            conn.touched = false;
        }
        Some(id)
    }

    /// Carries out what a callback asked for.
    pub(crate) fn apply(&mut self, output: Output, bytes: SharedBytes<'_>) {
        match output {
            Output::Send(id) => self.send(id, bytes),
            Output::Close(id) => self.close(id, CloseReason::Handler),
            Output::Reset(id) => self.reset(id, CloseReason::Handler),
            Output::Bind(id, user) => self.bind(id, user),
            // Commit records, which the link has acted on.
            Output::Flush | Output::Done(_) => {}
        }
    }

    /// Notes whose connection it is. It may belong to another seat now.
    fn bind(&mut self, id: ConnId, user: u64) {
        let Some(conn) = self.get_mut(id) else { return };
        conn.user = Some(user);
        if conn.wait == Wait::Room {
            conn.wait = Wait::Nothing;
            self.touch(id);
        }
    }

    /// Sends: straight to the socket, and what it does not take is kept.
    fn send(&mut self, id: ConnId, bytes: SharedBytes<'_>) {
        let Some(conn) = self.get_mut(id).filter(|conn| conn.takes_output()) else {
            return;
        };
        let mut rest = bytes;
        if conn.unsent.is_empty()
            && let Some(socket) = &conn.socket
        {
            match rest.send(socket.as_fd()) {
                Ok(Some(n)) => {
                    rest = rest.skip(n);
                    conn.progress = true;
                }
                Ok(None) => {}
                Err(error) => return self.broken(id, &error),
            }
        }
        if !rest.is_empty() {
            self.keep(id, rest);
        }
    }

    fn keep(&mut self, id: ConnId, rest: SharedBytes<'_>) {
        let (high_water, limit) = (self.config.high_water, self.config.output_limit);
        let Some(conn) = self.get_mut(id) else { return };
        conn.unsent.push(rest);
        let unsent = conn.unsent.len();
        // What is not read any more needs no holding back.
        conn.full |= unsent > high_water && conn.input == Input::Open;
        self.budget.take(rest.len());
        self.touch(id);
        if unsent > limit {
            log::warn!(
                "connection {id}: {unsent} bytes unsent are over output_limit ({limit}): closed"
            );
            self.reset(id, CloseReason::SlowReader);
        } else if self.budget.is_exceeded() {
            self.relieve();
        }
    }

    /// The budget of the process is exceeded: the connection that holds most of it goes.
    pub(crate) fn relieve(&mut self) {
        while self.budget.is_exceeded() {
            let largest = self
                .table
                .iter()
                .map(|(_, conn)| (conn.held(), conn.id))
                .max();
            let Some((held, id)) = largest.filter(|(held, _)| *held > 0) else {
                return;
            };
            log::warn!(
                "memory_budget is exceeded: connection {id}, which holds {held} bytes of it, is closed"
            );
            self.reset(id, CloseReason::SlowReader);
        }
    }

    /// The socket has room again.
    pub(crate) fn writable(&mut self, id: ConnId) {
        let low_water = self.config.high_water / 2;
        let Some(conn) = self.get_mut(id) else { return };
        let Some(socket) = &conn.socket else { return };
        match socket::write(socket.as_fd(), conn.unsent.front()) {
            Ok(Some(n)) => {
                conn.unsent.sent(n);
                conn.progress = true;
                conn.full &= conn.unsent.len() > low_water;
                self.budget.give_back(n);
                self.touch(id);
            }
            Ok(None) => {}
            Err(error) => self.broken(id, &error),
        }
    }

    /// Takes away what was read and not delivered, with how much of it was looked at in vain.
    pub(crate) fn take_input(&mut self, id: ConnId) -> (Vec<u8>, usize) {
        let Some(conn) = self.get_mut(id) else {
            return (Vec::new(), 0);
        };
        let (bytes, seen) = (
            std::mem::take(&mut conn.partial),
            std::mem::take(&mut conn.seen),
        );
        self.budget.give_back(bytes.len());
        (bytes, seen)
    }

    /// Keeps what was read and can't be delivered yet, unless the connection takes no input any
    /// more.
    pub(crate) fn keep_input(&mut self, id: ConnId, bytes: Vec<u8>, seen: usize) {
        let Some(conn) = self.get_mut(id).filter(|conn| conn.delivers_input()) else {
            return;
        };
        let len = bytes.len();
        (conn.partial, conn.seen) = (bytes, seen);
        if conn.partial.capacity() > 2 * len + READ_SIZE {
            // Of a long message that is delivered: an idle connection does not keep its memory.
            conn.partial.shrink_to_fit();
        }
        self.budget.take(len);
        if self.budget.is_exceeded() {
            self.relieve();
        }
    }

    /// The peer's FIN was read: nothing more comes.
    pub(crate) fn peer_ended(&mut self, id: ConnId) {
        let Some(conn) = self.get_mut(id) else { return };
        conn.input = Input::Ended;
        conn.peer_closed = true;
        conn.end.get_or_insert(CloseReason::Peer);
        self.set_close_deadline(id);
        self.touch(id);
    }

    /// The peer's FIN has come, and stands behind bytes that can't be read now.
    pub(crate) fn peer_closed(&mut self, id: ConnId) {
        let Some(conn) = self.get_mut(id) else { return };
        if !conn.peer_closed {
            conn.peer_closed = true;
            self.set_close_deadline(id);
            self.touch(id);
        }
    }

    /// The server shuts down and has read what was there. How long it may take from here is the
    /// shutdown deadline's business.
    pub(crate) fn last_read(&mut self, id: ConnId) {
        let Some(conn) = self.get_mut(id) else { return };
        conn.input = Input::Discarded;
        conn.end.get_or_insert(CloseReason::Shutdown);
        self.touch(id);
    }

    /// Closes after what was sent: FIN once nothing is unsent. What still comes is thrown away.
    pub(crate) fn close(&mut self, id: ConnId, reason: CloseReason) {
        self.void(id);
        let Some(conn) = self.get_mut(id).filter(|conn| conn.takes_output()) else {
            return;
        };
        conn.finish = true;
        conn.end.get_or_insert(reason);
        if conn.input != Input::Ended {
            conn.input = Input::Discarded;
        }
        self.drop_input(id);
        self.set_close_deadline(id);
        self.touch(id);
    }

    /// Closes with RST.
    pub(crate) fn reset(&mut self, id: ConnId, reason: CloseReason) {
        self.void(id);
        let Some(socket) = self.hang_up(id, reason) else {
            return;
        };
        socket::reset(socket);
    }

    /// Whoever ended it first, it is closed on this side too.
    fn void(&mut self, id: ConnId) {
        if let Some(conn) = self.get_mut(id) {
            conn.void = true;
            conn.returned = Returned::default();
        }
    }

    // What comes back from a worker

    /// A frame was not begun, or is to be run again: it is owed to a worker, before everything that
    /// was submitted after it. Its bytes are no part of the budget: they are no more than stood in
    /// the inboxes, and those who wait for a worker must not be closed for that.
    pub(crate) fn take_back(&mut self, frame: link::Returned) {
        let id = frame.conn;
        let Some(conn) = self.get_mut(id) else { return };
        match frame.kind {
            InputKind::Connect => conn.connect = Step::Owed,
            InputKind::Close => conn.close = Step::Owed,
            InputKind::BufferFull => conn.full_told = false,
            InputKind::BufferEmpty => conn.full_told = true,
            InputKind::Receive if !conn.void => conn.returned.put_back(Message {
                bytes: frame.body,
                attempts: frame.attempts,
            }),
            // For nobody.
            InputKind::Receive | InputKind::Void => {}
        }
        if frame.kind != InputKind::Receive
            && frame.attempts > 0
            && let Some(conn) = self.get_mut(id)
        {
            conn.died_in = Some((frame.kind, frame.attempts));
        }
        self.landed(id);
        self.touch(id);
    }

    /// A frame is no longer with a worker.
    pub(crate) fn landed(&mut self, id: ConnId) {
        let Some(conn) = self.get_mut(id) else { return };
        conn.in_flight = conn.in_flight.saturating_sub(1);
        let is_over = match conn.wait {
            Wait::Quiet => conn.in_flight == 0,
            Wait::Fewer => conn.in_flight <= MOST_IN_FLIGHT / 2,
            Wait::Nothing | Wait::Room => false,
        };
        if is_over {
            conn.wait = Wait::Nothing;
            self.touch(id);
        }
    }

    /// The oldest message that has come back.
    pub(crate) fn take_returned(&mut self, id: ConnId) -> Option<Message> {
        self.get_mut(id)?.returned.pop()
    }

    /// Puts it back, since there was no room for it.
    pub(crate) fn put_returned(&mut self, id: ConnId, message: Message) {
        if let Some(conn) = self.get_mut(id) {
            conn.returned.put_back(message);
        }
    }

    /// The socket reported an error: the peer is gone.
    pub(crate) fn broken(&mut self, id: ConnId, error: &std::io::Error) {
        log::debug!("connection {id}: {error}");
        drop(self.hang_up(id, CloseReason::Broken));
    }

    /// Takes the socket away, and with it what is unsent and undelivered; dropping it closes it.
    fn hang_up(&mut self, id: ConnId, reason: CloseReason) -> Option<OwnedFd> {
        self.drop_input(id);
        let conn = self.get_mut(id)?;
        let unsent = std::mem::take(&mut conn.unsent).len();
        conn.input = Input::Ended;
        conn.peer_closed = true;
        conn.full = false;
        conn.end.get_or_insert(reason);
        let socket = conn.socket.take();
        if socket.is_some() {
            self.loads.socket_closed();
        }
        self.budget.give_back(unsent);
        self.touch(id);
        socket
    }

    fn drop_input(&mut self, id: ConnId) {
        if let Some(conn) = self.get_mut(id) {
            let held = std::mem::take(&mut conn.partial).len();
            self.budget.give_back(held);
        }
    }

    /// Reads and throws away, so that our FIN is not followed by an RST for unread bytes. `scratch`
    /// is any memory.
    pub(crate) fn discard(&mut self, id: ConnId, scratch: &mut [u8]) {
        let Some(conn) = self.get_mut(id) else { return };
        let Some(socket) = &conn.socket else { return };
        match Room::of(scratch).fill_from(socket.as_fd()) {
            Read::Bytes(_) | Read::Nothing => {}
            Read::End => self.peer_ended(id),
            Read::Broken(error) => self.broken(id, &error),
        }
    }

    /// Does what is due on the sending side: our FIN, and the end of the socket when both sides are
    /// through.
    pub(crate) fn finish_output(&mut self, id: ConnId) {
        let Some(conn) = self.get_mut(id) else { return };
        if !conn.unsent.is_empty() || conn.end.is_none() {
            return;
        }
        let Some(socket) = &conn.socket else { return };
        // The peer closed first, its messages are answered and its close callback is through; or
        // the server shuts down.
        conn.finish |= conn.close == Step::Done;
        if !conn.finish {
            return;
        }
        if conn.input == Input::Ended {
            drop(self.hang_up(id, CloseReason::Peer));
        } else if !conn.fin_sent {
            match socket::finish_writing(socket.as_fd()) {
                Ok(()) => {
                    conn.fin_sent = true;
                    self.linger_deadlines.set(id, Instant::now());
                }
                Err(error) => self.broken(id, &error),
            }
        }
    }

    /// Tells epoll what the connection is to be watched for, where that has changed.
    pub(crate) fn watch(&mut self, id: ConnId) {
        let Some(conn) = self.table.get_mut(id.slot()).filter(|conn| conn.id == id) else {
            return;
        };
        let interest = conn.interest();
        if let Some(socket) = &conn.socket
            && conn.watched != interest
        {
            conn.watched = interest;
            if let Err(error) = self.poller.modify(socket, id.as_u64(), interest) {
                self.broken(id, &error);
            }
        }
    }

    fn set_close_deadline(&mut self, id: ConnId) {
        let (Some(deadlines), Some(after)) =
            (&mut self.close_deadlines, self.config.close_deadline)
        else {
            return;
        };
        let Some(conn) = self.table.get_mut(id.slot()).filter(|conn| conn.id == id) else {
            return;
        };
        if conn.deadline == 0 {
            conn.deadline = now_ms() + after.as_millis() as u64;
            conn.progress = false;
            deadlines.set(id, Instant::now());
        }
    }

    /// How long until the next deadline.
    pub(crate) fn next_deadline(&self, now: Instant) -> Option<Duration> {
        let close = self.close_deadlines.as_ref().and_then(Deadlines::next);
        let next = [close, self.linger_deadlines.next()]
            .into_iter()
            .flatten()
            .min()?;
        Some(next.saturating_duration_since(now))
    }

    /// Closes the sockets whose deadline has passed. One whose peer took bytes meanwhile is given
    /// as long again.
    pub(crate) fn enforce_deadlines(&mut self, now: Instant) {
        while let Some(id) = self.linger_deadlines.pop_passed(now) {
            if self.get_mut(id).is_some_and(|conn| conn.socket.is_some()) {
                drop(self.hang_up(id, CloseReason::Handler));
            }
        }
        while let Some(id) = self
            .close_deadlines
            .as_mut()
            .and_then(|deadlines| deadlines.pop_passed(now))
        {
            let Some(conn) = self.get_mut(id).filter(|conn| conn.socket.is_some()) else {
                continue;
            };
            if conn.progress {
                conn.deadline = 0;
                self.set_close_deadline(id);
            } else {
                log::debug!("connection {id}: the close deadline has passed");
                drop(self.hang_up(id, CloseReason::Peer));
            }
        }
    }

    /// Closes everything at once.
    pub(crate) fn hang_up_all(&mut self) {
        for id in self.ids() {
            drop(self.hang_up(id, CloseReason::Shutdown));
        }
    }
}
