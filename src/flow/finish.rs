//! Finish: the last bytes of a connection leave, then our FIN or RST, and the socket is closed.
//!
//! Its one rule: FIN says that the peer gets everything that was meant for it. An answer that is cut ends
//! with RST, since a part must not look whole.

use std::os::fd::{AsFd, OwnedFd};

use super::Flow;
use crate::config::{LINGER, MOST_ORPHANED, Mode};
use crate::conn_id::ConnId;
use crate::handler::CloseReason;
use crate::limited::{Topic, limited};
use crate::net::connection::{Connection, Fin, Input, Step};
use crate::net::layer::Layer;
use crate::sys::socket;

impl Flow {
    /// Takes the steps that are due on the sending side: our FIN, and closing the socket when both sides
    /// have sent theirs.
    pub(super) fn finish_output(&mut self, id: ConnId) {
        let Some(conn) = self.table.get_mut(id) else {
            return;
        };
        let is_ready = conn.writing.unsent.is_empty() && conn.work.end.is_some();
        if conn.socket.is_none() || !is_ready {
            return;
        }
        if conn.writing.fin == Fin::Open {
            if conn.work.close != Step::Done {
                return;
            }
            // The last callback has returned: after a FIN of the peer, after refused input, or because the
            // server shuts down.
            conn.writing.fin = Fin::Due;
            self.set_close_deadline(id);
        }
        let Some(conn) = self.table.get(id) else {
            return;
        };
        if conn.writing.is_cut {
            if conn.writing.fin == Fin::Due {
                self.reset_when_acknowledged(id);
            }
            return;
        }
        if conn.rare.layer().is_some() && !self.has_said_end(id) {
            return;
        }
        let Some(conn) = self.table.get(id) else {
            return;
        };
        if conn.reading.input == Input::Ended && !has_much_outstanding(conn) {
            self.hang_up(id, CloseReason::Peer);
        } else if conn.writing.fin == Fin::Due {
            self.send_fin(id);
        }
    }

    fn send_fin(&mut self, id: ConnId) {
        let now = self.look_at_clock();
        let Some(conn) = self.table.get_mut(id) else {
            return;
        };
        let Some(socket) = &conn.socket else { return };
        match socket::finish_writing(socket.as_fd()) {
            Ok(()) => {
                conn.writing.fin = Fin::Sent;
                if conn.writing.written == 0 {
                    conn.ending_mut().all_acknowledged_at = Some(now);
                }
                self.looks.set(id, now);
            }
            Err(error) => self.broken(id, &error),
        }
    }

    // Sockets that wait for the peer. The kernel tells of none of these steps: they are looked for.

    /// Looks whether the peer has acknowledged everything.
    pub(super) fn look(&mut self, id: ConnId) {
        let Some(conn) = self.table.get(id).filter(|conn| conn.socket.is_some()) else {
            return;
        };
        if conn.writing.is_cut {
            self.reset_when_acknowledged(id);
        } else if conn.reading.input == Input::Ended {
            match has_much_outstanding(conn) {
                true => self.look_again(id),
                false => self.hang_up(id, CloseReason::Peer),
            }
        } else {
            self.linger(id);
        }
    }

    /// Resets the connection once the peer has everything that was sent.
    fn reset_when_acknowledged(&mut self, id: ConnId) {
        let Some(conn) = self.table.get_mut(id) else {
            return;
        };
        conn.writing.fin = Fin::Replaced;
        match conn.unacknowledged() {
            0 => self.hang_up(id, CloseReason::Crash),
            _ => self.look_again(id),
        }
    }

    /// Waits for the peer's FIN: for [`LINGER`], from when the peer has everything. Closing earlier would
    /// destroy what is on its way if the peer sends another byte, since that is answered by RST.
    fn linger(&mut self, id: ConnId) {
        let now = self.look_at_clock();
        let Some(conn) = self.table.get_mut(id) else {
            return;
        };
        let since = match conn.ending().all_acknowledged_at {
            None if conn.unacknowledged() > 0 => now,
            None => *conn.ending_mut().all_acknowledged_at.insert(now),
            Some(since) => since,
        };
        if now - since >= LINGER.as_millis() as u64 {
            self.hang_up(id, CloseReason::Handler);
        } else {
            self.look_again(id);
        }
    }

    fn look_again(&mut self, id: ConnId) {
        let now = self.look_at_clock();
        self.looks.set(id, now);
    }

    // The end of the socket.

    /// Closes the socket at once: with RST if bytes are unsent, if a part of an answer has left without the
    /// rest, or if a forced shutdown would leave much behind in the kernel. Otherwise with FIN; what a
    /// callback under way has not flushed is lost as a whole.
    pub(super) fn hang_up(&mut self, id: ConnId, reason: CloseReason) {
        let Some(conn) = self.table.get(id) else {
            return;
        };
        let writing = &conn.writing;
        let is_part = writing.flushed || writing.is_cut;
        let is_forced = reason == CloseReason::Shutdown;
        if writing.unsent.is_empty() && !is_part && !(is_forced && has_much_outstanding(conn)) {
            // Bytes that the kernel still has are sent by it, and the FIN behind them.
            if let Some(socket) = self.take_socket(id, reason) {
                socket::close(socket);
            }
            return;
        }
        let lost = self.abort(id, reason);
        let rest = match is_part {
            true => ", and the rest of an answer",
            false => "",
        };
        if reason != CloseReason::Broken {
            limited!(
                info,
                Topic::Cut,
                "connection {id} is reset: {lost} bytes of output are lost{rest}"
            );
        }
    }

    /// The peer takes no more output: closes the socket, with RST if it has not acknowledged everything.
    pub(super) fn give_up_output(&mut self, id: ConnId) {
        let Some(conn) = self.table.get(id) else {
            return;
        };
        if conn.writing.unsent.is_empty() && conn.unacknowledged() == 0 {
            log::debug!("connection {id} is closed: its close_deadline has passed");
            return self.hang_up(id, CloseReason::Peer);
        }
        let peer = conn.peer;
        let lost = self.abort(id, CloseReason::Peer);
        limited!(
            info,
            Topic::Cut,
            "connection {id} from {peer} is reset: the peer took nothing until its close_deadline, {lost} bytes of output are lost"
        );
    }

    /// Closes the socket with RST. Returns the bytes that are lost: the peer has not acknowledged them.
    pub(super) fn abort(&mut self, id: ConnId, reason: CloseReason) -> u64 {
        let Some(conn) = self.table.get_mut(id).filter(|conn| conn.socket.is_some()) else {
            return 0;
        };
        let lost = conn.writing.unsent.total() + conn.unacknowledged() as u64;
        conn.ending_mut().lost = lost;
        if let Some(socket) = self.take_socket(id, reason) {
            socket::reset(socket);
        }
        lost
    }

    /// Takes the socket out of its connection. Unsent output and undelivered input are lost.
    fn take_socket(&mut self, id: ConnId, reason: CloseReason) -> Option<OwnedFd> {
        self.drop_input(id);
        self.end_promise(id);
        self.take_cursor(id);
        let conn = self.table.get_mut(id)?;
        let unsent = std::mem::take(&mut conn.writing.unsent).own();
        let records = conn.rare.layer_mut().map_or(0, Layer::drop_records);
        conn.reading.input = Input::Ended;
        conn.work.end.get_or_insert(reason);
        let socket = conn.socket.take();
        if let Some(socket) = &socket {
            self.load.socket_closed(conn.counted(), conn.listener);
            if self.config.mode == Mode::Base {
                // Closing a socket takes it out of epoll, unless a callback has forked: while the child
                // holds a copy, events would be reported in a loop (epoll(7), Q6).
                self.table.unwatch(socket);
            }
        }
        self.budget.give_back(unsent + records);
        self.table.touch(id);
        socket
    }
}

/// Whether more is on its way to the peer than the kernel should be left alone with: the socket of a peer
/// that takes nothing would stay behind for minutes, with all its bytes, and nothing would show it.
pub(super) fn has_much_outstanding(conn: &Connection) -> bool {
    conn.writing.written > MOST_ORPHANED && conn.unacknowledged() as u64 > MOST_ORPHANED
}
