//! Close: a connection ends by a FIN of either side, by RST, at a deadline, or with the server.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use super::deliver::Deliver;
use super::{Flow, Next};
use crate::config::Mode;
use crate::conn_id::ConnId;
use crate::event::Event;
use crate::handler::CloseReason;
use crate::net::connection::{Fin, Input, Level, Step};
use crate::net::returned::Returned;
use crate::net::timers::Deadlines;
use crate::sys::socket;

impl Flow {
    // By the peer.

    /// The peer's FIN was read: no more input comes.
    pub(super) fn peer_ended(&mut self, id: ConnId) {
        let now = self.clock.now();
        let Some(conn) = self.table.get_mut(id) else {
            return;
        };
        conn.reading.input = Input::Ended;
        conn.reading.peer_closed_at.get_or_insert(now);
        conn.work.end.get_or_insert(CloseReason::Peer);
        self.set_close_deadline(id);
        self.table.touch(id);
    }

    /// The peer's FIN has arrived, behind bytes that can't be read now.
    pub(super) fn peer_closed(&mut self, id: ConnId) {
        let now = self.clock.now();
        let Some(conn) = self.table.get_mut(id) else {
            return;
        };
        if conn.socket.is_some() && conn.reading.peer_closed_at.is_none() {
            conn.reading.peer_closed_at = Some(now);
            self.set_close_deadline(id);
            self.table.touch(id);
        }
    }

    /// The socket reported an error: the peer is gone.
    pub(super) fn broken(&mut self, id: ConnId, error: &std::io::Error) {
        log::debug!("connection {id} broken: {error}");
        self.hang_up(id, CloseReason::Broken);
    }

    // By this side.

    /// Closes after the output so far: sends FIN once no byte is unsent. Further input is discarded.
    pub(crate) fn close(&mut self, id: ConnId, reason: CloseReason) {
        self.void(id);
        let Some(conn) = self.table.get_mut(id).filter(|conn| conn.is_open()) else {
            return;
        };
        conn.writing.fin = Fin::Due;
        conn.work.end.get_or_insert(reason);
        if conn.reading.input != Input::Ended {
            conn.reading.input = Input::Discarded;
        }
        self.drop_input(id);
        self.set_close_deadline(id);
        self.table.touch(id);
    }

    /// Closes with RST.
    pub(super) fn reset(&mut self, id: ConnId, reason: CloseReason) {
        self.void(id);
        if let Some((socket, _)) = self.take_socket(id, reason) {
            socket::reset(socket);
        }
    }

    /// Drops the messages that are not delivered: this side has closed, whether or not the peer has.
    pub(super) fn void(&mut self, id: ConnId) {
        if let Some(conn) = self.table.get_mut(id) {
            conn.work.is_void = true;
            conn.work.returned = Returned::default();
        }
    }

    pub(super) fn drop_input(&mut self, id: ConnId) {
        if let Some(conn) = self.table.get_mut(id) {
            let held = std::mem::take(&mut conn.reading.partial).len();
            conn.reading.seen = 0;
            self.budget.give_back(held);
        }
    }

    // With the server.

    /// The server shuts down: the bytes that have arrived by now are each connection's last input.
    pub(crate) fn drain(&mut self) {
        for id in self.table.ids() {
            let Some(conn) = self.table.get_mut(id) else {
                continue;
            };
            if conn.work.close == Step::Abandoned {
                // The crash policy has left it open to be looked at; no event will ever end it.
                self.close(id, CloseReason::Shutdown);
            } else if conn.reading.input == Input::Open {
                let socket = conn.socket.as_ref();
                let left = socket.map_or(0, |socket| socket::unread(socket.as_fd()));
                conn.reading.input = Input::Last { left };
                // A slow reader does not delay the shutdown: its answers are kept, within its limit.
                conn.writing.level = Level::Low;
                self.table.touch(id);
            }
        }
    }

    /// The server shuts down, and has read the last input. The shutdown deadline bounds the rest.
    pub(super) fn last_read(&mut self, id: ConnId) {
        let Some(conn) = self.table.get_mut(id) else {
            return;
        };
        conn.reading.input = Input::Discarded;
        conn.work.end.get_or_insert(CloseReason::Shutdown);
        self.table.touch(id);
    }

    /// Closes every socket at once.
    pub(crate) fn hang_up_all(&mut self) {
        for id in self.table.ids() {
            self.hang_up(id, CloseReason::Shutdown);
        }
    }

    // Steps after the end.

    /// A connection that ended before any worker was told of it needs no callback: clients that connect
    /// to a stuck worker and leave again leave nothing behind.
    pub(super) fn skip_unannounced(&mut self, id: ConnId) -> Next {
        let Some(conn) = self.table.get_mut(id) else {
            return Next::Break(());
        };
        let work = &mut conn.work;
        let is_unannounced = work.returned.is_empty() && work.died_in.is_none();
        if work.connect == Step::Due && conn.socket.is_none() && is_unannounced {
            work.close = Step::Done;
            return Next::Break(());
        }
        Next::Continue(())
    }

    /// Submits `close`, the last event of a connection.
    pub(super) fn submit_close(&mut self, workers: &mut impl Deliver, id: ConnId) -> Next {
        match self.table.get(id) {
            Some(conn) if conn.work.end.is_some() && conn.work.close == Step::Due => {
                self.submit_event(workers, id, Event::Close)
            }
            Some(_) | None => Next::Continue(()),
        }
    }

    /// Takes the steps that are due on the sending side: our FIN, and closing the socket when both sides
    /// have sent theirs.
    pub(super) fn finish_output(&mut self, id: ConnId) {
        let Some(conn) = self.table.get_mut(id) else {
            return;
        };
        if !conn.writing.unsent.is_empty() || conn.work.end.is_none() {
            return;
        }
        let Some(socket) = &conn.socket else { return };
        if conn.writing.fin == Fin::Open {
            if conn.work.close != Step::Done {
                return;
            }
            // The peer closed first, its messages are answered and its close callback has returned; or
            // the server shuts down.
            conn.writing.fin = Fin::Due;
        }
        if conn.reading.input == Input::Ended {
            self.hang_up(id, CloseReason::Peer);
        } else if conn.writing.fin == Fin::Due {
            match socket::finish_writing(socket.as_fd()) {
                Ok(()) => {
                    conn.writing.fin = Fin::Sent;
                    self.linger_deadlines.set(id, self.clock.now());
                }
                Err(error) => self.broken(id, &error),
            }
        }
    }

    /// Closes the socket at once, with FIN, or with RST if output is unsent: an answer that is cut must not
    /// look whole.
    fn hang_up(&mut self, id: ConnId, reason: CloseReason) {
        let Some((socket, unsent)) = self.take_socket(id, reason) else {
            return;
        };
        if unsent > 0 {
            log::debug!("connection {id} is reset: {unsent} bytes of its output are unsent");
            socket::reset(socket);
        }
    }

    /// Takes the socket out of its connection, with the number of unsent bytes. These and undelivered input
    /// are lost.
    fn take_socket(&mut self, id: ConnId, reason: CloseReason) -> Option<(OwnedFd, usize)> {
        self.drop_input(id);
        let conn = self.table.get_mut(id)?;
        let unsent = std::mem::take(&mut conn.writing.unsent).len();
        conn.reading.input = Input::Ended;
        conn.work.end.get_or_insert(reason);
        let socket = conn.socket.take();
        if let Some(socket) = &socket {
            self.load.socket_closed(conn.peer);
            if self.config.mode == Mode::Base {
                // Closing a socket takes it out of epoll, unless a callback has forked: while the child
                // holds a copy, events would be reported in a loop (epoll(7), Q6).
                self.table.unwatch(socket);
            }
        }
        self.budget.give_back(unsent);
        self.table.touch(id);
        socket.map(|socket| (socket, unsent))
    }

    // At a deadline.

    pub(super) fn set_close_deadline(&mut self, id: ConnId) {
        let Some(deadlines) = &mut self.close_deadlines else {
            return;
        };
        let Some(conn) = self.table.get_mut(id) else {
            return;
        };
        if conn.writing.deadline.is_none() {
            conn.writing.deadline = Some(deadlines.set(id, self.clock.now()));
            conn.writing.progress = false;
        }
    }

    /// Returns the time until the next deadline.
    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        let close = self.close_deadlines.as_ref().and_then(Deadlines::next);
        let next = [close, self.linger_deadlines.next()]
            .into_iter()
            .flatten()
            .min()?;
        Some(Duration::from_millis(next.saturating_sub(self.clock.now())))
    }

    /// Closes the sockets past their deadline. If the peer took bytes meanwhile, the deadline is
    /// set again.
    pub(crate) fn enforce_deadlines(&mut self) {
        if self.next_deadline().is_none() {
            return;
        }
        let now = self.clock.now();
        while let Some(id) = self.linger_deadlines.pop_passed(now) {
            if self.table.get(id).is_some_and(|conn| conn.socket.is_some()) {
                self.hang_up(id, CloseReason::Handler);
            }
        }
        while let Some(id) = self
            .close_deadlines
            .as_mut()
            .and_then(|all| all.pop_passed(now))
        {
            let conn = self.table.get_mut(id);
            let Some(conn) = conn.filter(|conn| conn.socket.is_some()) else {
                continue;
            };
            if conn.writing.progress {
                conn.writing.deadline = None;
                self.set_close_deadline(id);
            } else {
                log::debug!("connection {id} closed: its close_deadline has passed");
                self.hang_up(id, CloseReason::Peer);
            }
        }
    }
}
