//! Submit: events of a connection become frames for a worker, in the order of the connection's life; a
//! frame that the worker does not finish is returned.
//!
//! While there is no place for a frame, its connection waits and is not read, so that TCP slows the
//! client down.

use std::ops::ControlFlow::{self, Break, Continue};

use super::close::is_answering;
use super::deliver::{Deliver, For, Offer, Place, Submitted, Want};
use super::{Flow, Next};
use crate::conn_id::ConnId;
use crate::event::Event;
use crate::handler::CloseReason;
use crate::ipc::frame;
use crate::ipc::link::Returned as Frame;
use crate::net::alarms::{Due, TIMER_BYTES};
use crate::net::connection::{Connection, Level, MAX_IN_FLIGHT, Step, Wait};
use crate::net::returned::Message;

impl Flow {
    /// Returns a place for the connection's next frame, which uses its turn if it has one. Without a
    /// place, the connection waits.
    pub(super) fn place<'w, D: Deliver>(
        &mut self,
        workers: &'w mut D,
        id: ConnId,
        want: Want<'_>,
    ) -> ControlFlow<(), D::Place<'w>> {
        let Some(conn) = self.table.get_mut(id) else {
            return Break(());
        };
        if conn.work.awaits_answer && want.is_input() {
            return Break(());
        }
        conn.work.wait = if conn.work.in_flight >= MAX_IN_FLIGHT {
            Wait::Fewer
        } else {
            match workers.offer(conn, want) {
                Offer::Place(place) => {
                    conn.work.wait = Wait::Nothing;
                    conn.pulse.waiting_since = None;
                    return Continue(place);
                }
                Offer::Wait(For::Room) => Wait::Room,
                Offer::Wait(For::Quiet) => Wait::Quiet,
            }
        };
        self.table.touch(id);
        self.begin_wait(id);
        Break(())
    }

    /// Submits the next message.
    pub(super) fn submit_message(
        &mut self,
        workers: &mut impl Deliver,
        id: ConnId,
        message: &[u8],
    ) -> Next {
        let place = self.place(workers, id, Want::Message(message))?;
        let Some(number) = self.next_number(id) else {
            return Break(());
        };
        self.submit_numbered(place, id, message, (number, 0))
    }

    /// Returns the number of the next message of a connection, which has a place.
    pub(super) fn next_number(&mut self, id: ConnId) -> Option<u64> {
        let conn = self.table.get_mut(id)?;
        let number = conn.work.messages;
        conn.work.messages += 1;
        Some(number)
    }

    /// Submits a message with its number and the number of its attempts so far.
    fn submit_numbered(
        &mut self,
        place: impl Place,
        id: ConnId,
        message: &[u8],
        (number, attempts): (u64, u8),
    ) -> Next {
        let Some(conn) = self.table.get(id) else {
            return Break(());
        };
        let mut input = self.header(conn, Event::Receive);
        (input.len, input.attempt, input.value) = (message.len() as u32, attempts, number);
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
        if kind == Event::Drained
            && let Some(conn) = self.table.get_mut(id)
        {
            conn.work.is_drain_due = false;
        }
        let Some(conn) = self.table.get(id) else {
            return Break(());
        };
        let mut input = self.header(conn, kind);
        if let Some((died_in, attempts)) = conn.work.died_in
            && died_in == kind
        {
            input.attempt = attempts;
        }
        let submitted = place.submit_copy(self, &input, &[]);
        let now = self.pace.now();
        if let Some(conn) = self.table.get_mut(id) {
            let step = match submitted {
                Submitted::InFlight => Step::Submitted,
                Submitted::Done => {
                    conn.pulse.heard = now;
                    Step::Done
                }
            };
            // Also if the event is another one: output over the mark may have been sent meanwhile.
            conn.work.died_in = None;
            match kind {
                Event::Connect => conn.work.connect = step,
                Event::Close => conn.work.close = step,
                Event::Paused => conn.work.announced = Level::High,
                Event::Resumed => conn.work.announced = Level::Low,
                Event::Idle => conn.pulse.idle_due = false,
                // Its callback may have asked for the next one already.
                Event::Drained => {}
                // They are submitted elsewhere.
                Event::Receive | Event::Timer | Event::Post | Event::Task | Event::Finished => {}
            }
        }
        self.count(id, submitted);
        Continue(())
    }

    /// Submits returned messages again.
    pub(super) fn submit_returned(&mut self, workers: &mut impl Deliver, id: ConnId) -> Next {
        loop {
            let conn = self.table.get_mut(id);
            // Behind a promise they wait, and timers do not.
            let conn = conn.filter(|conn| !conn.work.awaits_answer);
            let Some(message) = conn.and_then(|conn| conn.work.returned.pop()) else {
                return Continue(());
            };
            match self.place(workers, id, Want::Message(&message.bytes)) {
                Continue(place) => {
                    let run = (message.number, message.attempts);
                    self.submit_numbered(place, id, &message.bytes, run)?;
                }
                Break(()) => {
                    if let Some(conn) = self.table.get_mut(id) {
                        conn.work.returned.put_back(message);
                    }
                    return Break(());
                }
            }
        }
    }

    /// Submits `paused` or `resumed` when unsent output has crossed its mark.
    pub(super) fn submit_level(&mut self, workers: &mut impl Deliver, id: ConnId) -> Next {
        match self.table.get(id) {
            Some(conn) if conn.writing.level != conn.work.announced && conn.work.end.is_none() => {
                let kind = match conn.writing.level {
                    Level::High => Event::Paused,
                    Level::Low => Event::Resumed,
                };
                self.submit_event(workers, id, kind)
            }
            Some(_) | None => Continue(()),
        }
    }

    /// Submits `drained`, if that was asked for and no output is unsent.
    pub(super) fn submit_drained(&mut self, workers: &mut impl Deliver, id: ConnId) -> Next {
        match self.table.get(id) {
            Some(conn)
                if conn.work.is_drain_due
                    && conn.writing.unsent.is_empty()
                    && !conn.is_paused
                    && conn.work.end.is_none() =>
            {
                self.submit_event(workers, id, Event::Drained)
            }
            Some(_) | None => Continue(()),
        }
    }

    /// Continues if the connection exists and does not wait.
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

    /// The callback under way has flushed. If it has closed the connection before, its answer is whole.
    pub(crate) fn flushed(&mut self, id: ConnId) {
        if let Some(conn) = self.table.get_mut(id) {
            conn.writing.flushed = conn.is_open();
        }
    }

    // The end of a frame.

    /// A frame has left its inbox: its callback has returned.
    pub(crate) fn frame_done(&mut self, id: ConnId, kind: Event) {
        self.frame_ended(id, kind, Step::Done);
    }

    /// A frame has left its inbox: its worker died in it, and no other worker will run it.
    pub(crate) fn frame_abandoned(&mut self, id: ConnId, kind: Event) {
        self.frame_ended(id, kind, Step::Abandoned);
    }

    fn frame_ended(&mut self, id: ConnId, kind: Event, step: Step) {
        if let Some(conn) = self.table.get_mut(id) {
            // Only here: the frames that are returned were not begun, and the one under way goes on.
            conn.writing.flushed = false;
        }
        self.frame_left(id, kind);
        match kind {
            Event::Close => {
                self.end_promise(id);
                if let Some(conn) = self.table.get_mut(id) {
                    conn.work.close = step;
                    self.table.touch(id);
                }
            }
            Event::Connect
            | Event::Receive
            | Event::Paused
            | Event::Resumed
            | Event::Idle
            | Event::Timer
            | Event::Drained
            | Event::Post
            | Event::Finished => {}
            Event::Task => self.task_done(id),
        }
    }

    /// Frames were returned, oldest first, that no worker has begun. Each is submitted again, except
    /// messages of a connection that this side has closed.
    pub(crate) fn frames_returned(&mut self, frames: Vec<Frame>) {
        // Each goes before those returned earlier: it was submitted before them.
        for frame in frames.into_iter().rev() {
            self.frame_returned(frame);
        }
    }

    /// A frame was not begun, or is to be run again: it is due, before everything that was submitted
    /// after it. Its bytes do not count against the memory budget: there are at most as many as fit into
    /// the inboxes, and connections that wait for a worker must not be closed for that.
    pub(crate) fn frame_returned(&mut self, frame: Frame) {
        let id = frame.conn;
        let Some(conn) = self.table.get_mut(id) else {
            return;
        };
        if id.is_mailbox() {
            conn.work.waits_again(frame.waited_since);
            self.letter_returned(frame);
            self.frame_left(id, Event::Post);
            return self.table.touch(id);
        }
        let work = &mut conn.work;
        match frame.kind {
            Event::Connect => work.connect = Step::Due,
            Event::Close => work.close = Step::Due,
            Event::Paused => work.announced = Level::Low,
            Event::Resumed => work.announced = Level::High,
            // It is due again when the deadline has passed once more.
            Event::Idle => {}
            Event::Drained => work.is_drain_due = true,
            // Those of mailboxes were returned above.
            Event::Post | Event::Task | Event::Finished => {}
            Event::Timer => {
                work.fired.put_back(Due {
                    tag: frame.value,
                    attempts: frame.attempts,
                });
                self.kept += TIMER_BYTES;
            }
            Event::Receive if !work.is_void => work.returned.put_back(Message {
                bytes: frame.body,
                number: frame.value,
                attempts: frame.attempts,
            }),
            // This side has closed the connection.
            Event::Receive => {}
        }
        work.waits_again(frame.waited_since);
        if !matches!(frame.kind, Event::Receive | Event::Timer) && frame.attempts > 0 {
            work.died_in = Some((frame.kind, frame.attempts));
        }
        self.frame_left(id, frame.kind);
        self.table.touch(id);
    }

    /// A frame is no longer with a worker.
    fn frame_left(&mut self, id: ConnId, kind: Event) {
        let now = self.pace.now();
        let Some(conn) = self.table.get_mut(id) else {
            return;
        };
        let is_late = conn.ending().late.is_some();
        let work = &mut conn.work;
        work.in_flight = work.in_flight.saturating_sub(1);
        // A timer is no sign of life of the peer.
        if kind != Event::Timer {
            conn.pulse.heard = now;
        }
        // A mailbox that is empty goes.
        let is_over = match work.wait {
            Wait::Nothing | Wait::Turn => work.in_flight == 0 && id.is_mailbox(),
            Wait::Quiet => work.in_flight == 0,
            Wait::Fewer => work.in_flight <= MAX_IN_FLIGHT / 2,
            Wait::Room => false,
        };
        if is_over && work.wait != Wait::Turn {
            work.wait = Wait::Nothing;
        }
        if is_over || work.in_flight == 0 && is_late {
            self.table.touch(id);
        }
    }

    /// Returns a time of the loop by the clock, which is all that a worker knows. 0 is no time.
    fn by_clock(&self, at: u64) -> u64 {
        let (clock, now) = (self.clock.now(), self.pace.now());
        (clock + at).saturating_sub(now).max(1)
    }

    /// Returns the header of a frame for this connection, with no body.
    pub(super) fn header(&self, conn: &Connection, kind: Event) -> frame::Input {
        let reason = conn.work.end.unwrap_or(CloseReason::Peer);
        let deadline = match kind {
            // While answers before it are due, the deadline is set again.
            Event::Close if reason.takes_output() && !is_answering(conn) => {
                conn.ending().deadline.map_or(0, |at| self.by_clock(at))
            }
            Event::Close => 0,
            _ => self.queue_deadline(conn),
        };
        frame::Input {
            kind: kind.into(),
            conn: conn.public,
            peer: conn.peer,
            listener: conn.listener.0,
            attempt: 0,
            detail: reason.code(),
            deadline,
            value: conn.ending().lost,
            follows: conn.work.follows(),
            carries: false,
            is_gone: conn.socket.is_none(),
            is_firm: is_still(conn),
            submitted: self.pace.clock(),
            len: 0,
        }
    }
}

/// Whether the peer has all output, and no callback that could make more is under way: nothing moves the close deadline.
fn is_still(conn: &Connection) -> bool {
    conn.work.in_flight == 0
        && conn.work.returned.is_empty()
        && conn.writing.unsent.is_empty()
        && conn.ending().acknowledged == conn.writing.written
}
