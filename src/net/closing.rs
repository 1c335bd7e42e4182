//! How a connection ends: by the peer's FIN or ours, by RST, at a deadline, or with the server.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use super::connection::{Input, Step};
use super::connections::Connections;
use super::deadline::Deadlines;
use super::returned::Returned;
use crate::config::Mode;
use crate::conn_id::ConnId;
use crate::handler::CloseReason;
use crate::ipc::memory::Room;
use crate::sys::socket::{self, Read};
use crate::sys::time::now_ms;

impl Connections {
    /// The peer's FIN was read: nothing more comes.
    pub(crate) fn peer_ended(&mut self, id: ConnId) {
        let Some(conn) = self.get_mut(id) else { return };
        conn.input = Input::Ended;
        conn.peer_has_closed();
        conn.end.get_or_insert(CloseReason::Peer);
        self.set_close_deadline(id);
        self.touch(id);
    }

    /// The peer's FIN has come, and stands behind bytes that can't be read now.
    pub(crate) fn peer_closed(&mut self, id: ConnId) {
        let Some(conn) = self.get_mut(id) else { return };
        if !conn.peer_closed {
            conn.peer_has_closed();
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
        if let Some(socket) = &socket {
            self.loads.socket_closed();
            self.unwatch(socket);
        }
        self.budget.give_back(unsent);
        self.touch(id);
        socket
    }

    /// A socket that is about to be closed leaves epoll. As a rule, closing it does that; but in base
    /// mode a callback may have forked, and while the child holds a copy, what is ready would be
    /// reported for ever (epoll(7), Q6).
    fn unwatch(&self, socket: &OwnedFd) {
        if self.config.mode == Mode::Base
            && let Err(error) = self.poller.remove(socket)
        {
            log::error!("cannot stop watching a socket: {error}");
        }
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

    fn set_close_deadline(&mut self, id: ConnId) {
        let (Some(deadlines), Some(after)) =
            (&mut self.close_deadlines, self.config.close_deadline)
        else {
            return;
        };
        let Some(conn) = self.table.get_mut(id.key()).filter(|conn| conn.id == id) else {
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
