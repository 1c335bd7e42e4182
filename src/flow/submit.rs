//! Submit: an event of a connection becomes a frame that a worker has, in the order of its life, and
//! comes back when the worker could not finish it.
//!
//! Where there is no place for a frame, its connection waits and is not read, so that TCP pushes back on
//! the client.

use std::ops::ControlFlow::{self, Break, Continue};

use super::deliver::{Deliver, For, Offer, Place, Submitted, Want};
use super::{Flow, Next};
use crate::conn_id::ConnId;
use crate::event::Event;
use crate::handler::CloseReason;
use crate::ipc::frame;
use crate::ipc::link::Returned as Frame;
use crate::net::connection::{Connection, Level, MOST_IN_FLIGHT, Step, Wait};
use crate::net::returned::Message;

impl Flow {
    /// A place for the connection's next frame, for which its turn is used, if it has one. Where there
    /// is no place, it waits.
    pub(super) fn place<'w, D: Deliver>(
        &mut self,
        workers: &'w mut D,
        id: ConnId,
        want: Want<'_>,
    ) -> ControlFlow<(), D::Place<'w>> {
        let Some(conn) = self.table.get_mut(id) else {
            return Break(());
        };
        conn.work.wait = if conn.work.in_flight >= MOST_IN_FLIGHT {
            Wait::Fewer
        } else {
            match workers.offer(conn, want) {
                Offer::Place(place) => {
                    conn.work.wait = Wait::Nothing;
                    return Continue(place);
                }
                Offer::Wait(For::Room) => Wait::Room,
                Offer::Wait(For::Quiet) => Wait::Quiet,
            }
        };
        self.table.touch(id);
        Break(())
    }

    /// Submits a message, in which `attempts` workers have died.
    pub(super) fn submit_message(
        &mut self,
        workers: &mut impl Deliver,
        id: ConnId,
        message: &[u8],
        attempts: u8,
    ) -> Next {
        let place = self.place(workers, id, Want::Message(message))?;
        let Some(conn) = self.table.get(id) else {
            return Break(());
        };
        let mut input = header(conn, Event::Receive);
        (input.len, input.attempt) = (message.len() as u32, attempts);
        let submitted = place.submit_copy(self, &input, message);
        self.count(id, submitted);
        Continue(())
    }

    /// Submits an event without a body.
    pub(super) fn submit_event(
        &mut self,
        workers: &mut impl Deliver,
        id: ConnId,
        kind: Event,
    ) -> Next {
        let place = self.place(workers, id, Want::Event)?;
        let Some(conn) = self.table.get(id) else {
            return Break(());
        };
        let mut input = header(conn, kind);
        if let Some((died_in, attempts)) = conn.work.died_in
            && died_in == kind
        {
            input.attempt = attempts;
        }
        let submitted = place.submit_copy(self, &input, &[]);
        if let Some(conn) = self.table.get_mut(id) {
            let step = match submitted {
                Submitted::InFlight => Step::Submitted,
                Submitted::Done => Step::Done,
            };
            // Something else may have come in its place: output that was over the mark has gone.
            conn.work.died_in = None;
            match kind {
                Event::Connect => conn.work.connect = step,
                Event::Close => conn.work.close = step,
                Event::Paused => conn.work.told = Level::High,
                Event::Resumed => conn.work.told = Level::Low,
                Event::Receive => {}
            }
        }
        self.count(id, submitted);
        Continue(())
    }

    /// Submits again what has come back from a worker.
    pub(super) fn submit_returned(&mut self, workers: &mut impl Deliver, id: ConnId) -> Next {
        loop {
            let conn = self.table.get_mut(id);
            let Some(message) = conn.and_then(|conn| conn.work.returned.pop()) else {
                return Continue(());
            };
            let next = self.submit_message(workers, id, &message.bytes, message.attempts);
            if next.is_break() {
                if let Some(conn) = self.table.get_mut(id) {
                    conn.work.returned.put_back(message);
                }
                return next;
            }
        }
    }

    /// Tells the worker that unsent output has passed the high-water mark, or is back below it.
    pub(super) fn submit_level(&mut self, workers: &mut impl Deliver, id: ConnId) -> Next {
        match self.table.get(id) {
            Some(conn) if conn.writing.level != conn.work.told && conn.work.end.is_none() => {
                let kind = match conn.writing.level {
                    Level::High => Event::Paused,
                    Level::Low => Event::Resumed,
                };
                self.submit_event(workers, id, kind)
            }
            Some(_) | None => Continue(()),
        }
    }

    /// Whether the connection is there and waits for nothing.
    pub(super) fn if_free(&self, id: ConnId) -> Next {
        match self.table.get(id).is_some_and(|conn| conn.work.is_free()) {
            true => Continue(()),
            false => Break(()),
        }
    }

    /// Counts a frame that is with a worker.
    pub(super) fn count(&mut self, id: ConnId, submitted: Submitted) {
        match submitted {
            Submitted::InFlight => {
                if let Some(conn) = self.table.get_mut(id) {
                    conn.work.in_flight += 1;
                }
            }
            Submitted::Done => {}
        }
    }

    // How a frame ends.

    /// A frame has left its inbox: its callback has returned.
    pub(crate) fn frame_done(&mut self, id: ConnId, kind: Event) {
        self.frame_ended(id, kind, Step::Done);
    }

    /// A frame has left its inbox: its worker died in it, and no other one will run it.
    pub(crate) fn frame_abandoned(&mut self, id: ConnId, kind: Event) {
        self.frame_ended(id, kind, Step::Abandoned);
    }

    fn frame_ended(&mut self, id: ConnId, kind: Event, step: Step) {
        self.landed(id);
        match kind {
            Event::Close => {
                if let Some(conn) = self.table.get_mut(id) {
                    conn.work.close = step;
                    self.table.touch(id);
                }
            }
            Event::Connect | Event::Receive | Event::Paused | Event::Resumed => {}
        }
    }

    /// Frames came back, oldest first: no worker has begun them. Each is submitted again. Of a
    /// connection that was closed on this side, messages are for nobody.
    pub(crate) fn frames_returned(&mut self, frames: Vec<Frame>) {
        // Each goes before what came back earlier: it was submitted before.
        for frame in frames.into_iter().rev() {
            self.frame_returned(frame);
        }
    }

    /// A frame was not begun, or is to be run again: it is due, before everything that was submitted
    /// after it. Its bytes are no part of the budget: they are no more than were in the inboxes, and
    /// connections that wait for a worker must not be closed for that.
    pub(crate) fn frame_returned(&mut self, frame: Frame) {
        let id = frame.conn;
        let Some(conn) = self.table.get_mut(id) else {
            return;
        };
        let work = &mut conn.work;
        match frame.kind {
            Event::Connect => work.connect = Step::Due,
            Event::Close => work.close = Step::Due,
            Event::Paused => work.told = Level::Low,
            Event::Resumed => work.told = Level::High,
            Event::Receive if !work.is_void => work.returned.put_back(Message {
                bytes: frame.body,
                attempts: frame.attempts,
            }),
            // For nobody.
            Event::Receive => {}
        }
        if frame.kind != Event::Receive && frame.attempts > 0 {
            work.died_in = Some((frame.kind, frame.attempts));
        }
        self.landed(id);
        self.table.touch(id);
    }

    /// A frame is no longer with a worker.
    fn landed(&mut self, id: ConnId) {
        let Some(conn) = self.table.get_mut(id) else {
            return;
        };
        let work = &mut conn.work;
        work.in_flight = work.in_flight.saturating_sub(1);
        let is_over = match work.wait {
            Wait::Quiet => work.in_flight == 0,
            Wait::Fewer => work.in_flight <= MOST_IN_FLIGHT / 2,
            Wait::Nothing | Wait::Turn | Wait::Room => false,
        };
        if is_over {
            work.wait = Wait::Nothing;
            self.table.touch(id);
        }
    }
}

/// The header of a frame for this connection, with no body.
pub(super) fn header(conn: &Connection, kind: Event) -> frame::Input {
    let reason = conn.work.end.unwrap_or(CloseReason::Peer);
    // Only where the peer closed does the socket outlive the deadline for the callback's sake.
    let has_deadline = kind == Event::Close && reason == CloseReason::Peer;
    frame::Input {
        kind: kind.into(),
        conn: conn.id,
        peer: conn.peer,
        listener: conn.listener.0,
        attempt: 0,
        detail: reason.code(),
        deadline: conn.writing.deadline.filter(|_| has_deadline).unwrap_or(0),
        len: 0,
    }
}
