//! Close: a connection ends by a FIN of either side, by RST, at a deadline, or with the server.

use std::time::Duration;

use super::deliver::Deliver;
use super::{Flow, Next};
use crate::conn_id::ConnId;
use crate::event::Event;
use crate::handler::CloseReason;
use crate::net::connection::{Connection, Fin, Input, Level, Step};
use crate::net::returned::Returned;
use crate::net::timers::Deadlines;

impl Flow {
    // By the peer.

    /// The peer's FIN was read: no more input comes.
    pub(super) fn peer_ended(&mut self, id: ConnId) {
        let now = self.clock.now();
        let Some(conn) = self.table.get_mut(id) else {
            return;
        };
        conn.reading.input = Input::Ended;
        conn.ending_mut().peer_closed_at.get_or_insert(now);
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
        if conn.socket.is_some() && conn.ending().peer_closed_at.is_none() {
            conn.ending_mut().peer_closed_at = Some(now);
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
        self.end_promise(id);
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

    /// Closes with RST. Returns the bytes that are lost: the peer has not acknowledged them.
    pub(super) fn reset(&mut self, id: ConnId, reason: CloseReason) -> u64 {
        self.void(id);
        self.abort(id, reason)
    }

    /// Closes with RST, as soon as the peer has what it was sent so far: that is only a part of an answer, unless
    /// the connection was closed behind it.
    pub(crate) fn break_off(&mut self, id: ConnId, reason: CloseReason) {
        if let Some(conn) = self.table.get_mut(id).filter(|conn| conn.is_open()) {
            conn.writing.is_cut = true;
        }
        self.close(id, reason);
    }

    /// Reads no more input: what came before is answered, `close` may send, and then our FIN follows.
    pub(super) fn end_input(&mut self, id: ConnId, reason: CloseReason) {
        let Some(conn) = self.table.get_mut(id) else {
            return;
        };
        if conn.reading.input != Input::Ended {
            conn.reading.input = Input::Discarded;
        }
        conn.work.end.get_or_insert(reason);
        if reason != CloseReason::Shutdown {
            self.drop_input(id);
            self.set_close_deadline(id);
        }
        // A shutdown has a deadline of its own, and kept messages may wait for room.
        self.table.touch(id);
    }

    /// The bytes that had arrived when the shutdown began are read.
    pub(super) fn last_read(&mut self, id: ConnId) {
        let now = self.look_at_clock();
        let Some(conn) = self.table.get_mut(id) else {
            return;
        };
        if conn.has_incomplete() {
            conn.reading.input = Input::Rest;
            self.graces.set(id, now);
        } else {
            self.end_input(id, CloseReason::Shutdown);
        }
    }

    /// A client that has just come has said nothing, or the rest of a message has not come.
    fn grace_is_over(&mut self, id: ConnId) {
        let now = self.look_at_clock();
        let Some(conn) = self.table.get_mut(id) else {
            return;
        };
        match (conn.reading.input, conn.unread()) {
            _ if conn.is_opening() => {
                self.abort(id, CloseReason::Shutdown);
            }
            (Input::First | Input::Rest, 0) => self.end_input(id, CloseReason::Shutdown),
            // They have come in time, and there was no place for them.
            (Input::First, left) => {
                conn.reading.input = Input::Last { left };
                self.table.touch(id);
            }
            (Input::Rest, _) => {
                self.graces.set(id, now);
            }
            (Input::Open | Input::Last { .. } | Input::Discarded | Input::Ended, _) => {}
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
            conn.reading.is_unsearched = false;
            self.budget.give_back(held);
        }
    }

    // With the server.

    /// The server shuts down: the bytes that have arrived by now are each connection's last input. Of a client that
    /// has just come, the first bytes count as well, and the rest of a message that has begun.
    pub(crate) fn drain(&mut self) {
        self.is_draining = true;
        for id in self.table.ids() {
            self.drain_one(id);
        }
    }

    pub(super) fn drain_one(&mut self, id: ConnId) {
        let Some(conn) = self.table.get_mut(id) else {
            return;
        };
        if conn.work.close == Step::Abandoned {
            // The crash policy has left it open to be looked at; no event will ever end it.
            self.close(id, CloseReason::Shutdown);
        } else if conn.is_opening() {
            let heard = conn.pulse.heard;
            self.graces.set(id, heard);
        } else if conn.reading.input == Input::Open {
            let left = conn.unread();
            conn.reading.input = match conn.reading.has_begun || left > 0 {
                true => Input::Last { left },
                false => {
                    // Nothing has come since its accept.
                    self.graces.set(id, conn.pulse.heard);
                    Input::First
                }
            };
            // Nor does one that a callback has asked not to be read.
            conn.reading.is_held = false;
            // A slow reader does not delay the shutdown: its answers are kept, within its limit.
            conn.writing.level = Level::Low;
            self.table.touch(id);
        }
    }

    /// Closes every socket at once.
    pub(crate) fn hang_up_all(&mut self) {
        self.drop_mail();
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

    // At a deadline.

    pub(super) fn set_close_deadline(&mut self, id: ConnId) {
        let is_set = |conn: &Connection| conn.ending().deadline.is_some();
        if self.close_deadlines.is_none() || self.table.get(id).is_none_or(is_set) {
            return;
        }
        let now = self.look_at_clock();
        if let Some(deadlines) = &mut self.close_deadlines
            && let Some(conn) = self.table.get_mut(id)
        {
            let (acknowledged, progress) = (conn.acknowledged(), conn.progress());
            let ending = conn.ending_mut();
            (ending.acknowledged, ending.progress) = (acknowledged, progress);
            ending.deadline = Some(deadlines.set(id, now));
        }
    }

    /// Returns the time until the next deadline.
    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        let close = self.close_deadlines.as_ref().and_then(Deadlines::next);
        let others = [&self.looks, &self.pauses, &self.graces, &self.holds].map(Deadlines::next);
        let next = others.into_iter().chain([close]).flatten().min()?;
        Some(Duration::from_millis(next.saturating_sub(self.pace.now())))
    }

    /// Closes the sockets past their deadline. If the peer has acknowledged bytes meanwhile, the deadline is
    /// set again.
    pub(crate) fn enforce_deadlines(&mut self) {
        if self.next_deadline().is_none() {
            return;
        }
        let now = self.pace.now();
        while let Some(id) = self.pauses.pop_passed(now) {
            self.go_on(id);
        }
        while let Some(id) = self.holds.pop_passed(now) {
            self.unhold(id);
        }
        while let Some(id) = self.graces.pop_passed(now) {
            self.grace_is_over(id);
        }
        while let Some(id) = self.looks.pop_passed(now) {
            self.look(id);
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
            if conn.progress() > conn.ending().progress || is_answering(conn) {
                conn.ending_mut().deadline = None;
                self.set_close_deadline(id);
            } else {
                self.give_up_output(id);
            }
        }
    }
}

/// Whether the peer waits for an answer: one was promised; or this side has ended the input, and callbacks for what came
/// before it are under way or due.
pub(super) fn is_answering(conn: &Connection) -> bool {
    let by_us = matches!(
        conn.work.end,
        Some(CloseReason::Refused | CloseReason::MessageDeadline | CloseReason::QueueDeadline)
    );
    let closes = u32::from(conn.work.close == Step::Submitted);
    let has_more = conn.work.in_flight > closes || !conn.work.returned.is_empty();
    conn.work.awaits_answer || by_us && conn.reading.input == Input::Discarded && has_more
}
