//! Silence: deadlines of connections whose peers say nothing, too little, or take nothing; and of messages
//! that no worker begins.
//!
//! A connection has one timer for all of them, set to the first that can pass. Signs of life do not touch
//! it: when it comes, [`Flow::check_silence`] looks at the connection, and sets it again.

use std::num::NonZeroU64;
use std::time::Duration;

use super::deliver::Deliver;
use super::{Flow, Next};
use crate::config::silence::{NEVER, Silence};
use crate::conn_id::ConnId;
use crate::event::Event;
use crate::handler::CloseReason;
use crate::ipc::link::Returned;
use crate::ipc::memory::SharedBytes;
use crate::limited::{Topic, limited};
use crate::net::connection::{Connection, Input, Step, Wait};
use crate::net::ended::Deadline;
use crate::net::pulse::Stall;
use crate::protocol::Split;
use crate::sys::epoll::Events;

/// The most timers that one turn looks at, before other work has its turn.
const MOST_TIMERS: usize = 1024;

/// Connections that were served in a turn that took longer, in milliseconds, were heard at its end.
const LONG_TURN: u64 = 10;

/// How long an incomplete message may be overdue, while more of its bytes are still to be read.
const OVERDUE: u64 = 100;

/// Unacknowledged output is looked at this many times in the time of its deadline.
const LOOKS: u64 = 8;

/// The next time at which a connection is to be looked at, and the deadline that passes then, if any.
type Due = (u64, Option<Deadline>);

impl Flow {
    // The time of the loop.

    /// A turn of the loop begins: it has waited for `wait` at most, and the process may have been stopped
    /// meanwhile.
    pub(crate) fn begin_turn(&mut self, wait: Option<Duration>, was_stopped: bool) {
        self.pace.begin_turn(self.clock.now(), wait, was_stopped);
        self.handshakes = 0;
        self.take_arrivals();
    }

    /// Looks at the clock, and returns the loop's time.
    pub(super) fn look_at_clock(&mut self) -> u64 {
        self.pace.look(self.clock.now());
        self.pace.now()
    }

    /// Callbacks have run in this turn, and may have taken long: the connections of these events were heard
    /// now, and not when the turn began.
    pub(crate) fn end_turn(&mut self, events: &Events) {
        let began = self.pace.began();
        self.pace.look(self.clock.now());
        let now = self.pace.now();
        if now - began < LONG_TURN {
            return;
        }
        for index in 0..events.len() {
            if let Some(id) = ConnId::from_token(events.get(index).token)
                && let Some(conn) = self.table.get_mut(id)
                && conn.pulse.heard >= began
            {
                conn.pulse.heard = now;
            }
        }
    }

    /// Returns the loop's time.
    pub(crate) fn now(&self) -> u64 {
        self.pace.now()
    }

    /// Returns the time until the next timer of a connection.
    pub(crate) fn next_silence(&self) -> Option<Duration> {
        let next = self.silence.next()?;
        Some(Duration::from_millis(next.saturating_sub(self.pace.now())))
    }

    // Beginnings.

    /// A connection was accepted.
    pub(super) fn begin_silence(&mut self, id: ConnId) {
        let now = self.look_at_clock();
        let Some(conn) = self.table.get_mut(id) else {
            return;
        };
        conn.pulse.heard = now;
        let limits = self.config.listener(conn.listener).silence;
        let first = limits.first(conn.is_opening());
        self.arm(id, first);
    }

    /// Sets a connection's timer to this time from now, unless it is set to an earlier one.
    fn arm(&mut self, id: ConnId, after: u64) {
        if after != NEVER {
            self.silence.set_earlier(id, self.pace.now() + after);
        }
    }

    fn limits(&self, id: ConnId) -> Option<Silence> {
        let conn = self.table.get(id)?;
        Some(self.config.listener(conn.listener).silence)
    }

    /// The first bytes of an incomplete message were read.
    pub(super) fn begin_message(&mut self, id: ConnId) {
        let now = self.pace.now();
        if let Some(conn) = self.table.get_mut(id) {
            (conn.pulse.message_since, conn.pulse.is_overdue) = (now, false);
            let limits = self.config.listener(conn.listener).silence;
            self.arm(id, limits.message);
        }
    }

    /// The socket has not taken all output.
    pub(super) fn begin_stall(&mut self, id: ConnId) {
        let now = self.pace.now();
        if let Some(conn) = self.table.get_mut(id)
            && conn.pulse.stall.is_none()
        {
            conn.pulse.stall = Some(Box::new(Stall::begin(now)));
            let limits = self.config.listener(conn.listener).silence;
            self.arm(id, until_look(limits.write));
        }
    }

    /// There is no place for its next frame.
    pub(super) fn begin_wait(&mut self, id: ConnId) {
        if id.is_mailbox() {
            // No client waits.
            return;
        }
        let now = self.pace.now();
        if let Some(conn) = self.table.get_mut(id)
            && conn.pulse.waiting_since.is_none()
        {
            conn.pulse.waiting_since = NonZeroU64::new(now);
            let limits = self.config.listener(conn.listener).silence;
            self.arm(id, limits.queue);
        }
    }

    /// Returns the time at which a frame that is submitted now has waited for too long.
    pub(super) fn queue_deadline(&self, conn: &Connection) -> u64 {
        let limits = &self.config.listener(conn.listener).silence;
        self.pace.now().saturating_add(limits.queue)
    }

    // Deadlines.

    /// Ends the connections whose deadlines have passed. Returns those whose next frame has waited for too
    /// long for a place.
    pub(crate) fn enforce_silence(&mut self) -> Vec<ConnId> {
        let now = self.pace.now();
        let (mut work, mut late) = (MOST_TIMERS, Vec::new());
        while let Some(id) = self.silence.pop(now, &mut work) {
            if self.check_silence(id) == Some(Deadline::Queue) {
                late.push(id);
            }
        }
        late
    }

    /// Looks at a connection whose timer has come, and sets it again, or ends the connection. Returns the
    /// deadline that has passed.
    fn check_silence(&mut self, id: ConnId) -> Option<Deadline> {
        let (now, limits) = (self.pace.now(), self.limits(id)?);
        let conn = self.table.get_mut(id)?;
        let (at, deadline) = next_due(conn, &limits, now)?;
        if at > now {
            self.silence.set(id, at);
            return None;
        }
        match deadline? {
            // The reactor asks the crash policy.
            Deadline::Queue => return Some(Deadline::Queue),
            Deadline::Idle if limits.calls_idle => {
                conn.pulse.idle_due = true;
                self.table.touch(id);
                self.arm_next(id);
                return None;
            }
            passed => self.end_at(id, passed),
        }
        deadline
    }

    /// Sets a connection's timer to the first deadline that can still pass.
    fn arm_next(&mut self, id: ConnId) {
        let (now, limits) = (self.pace.now(), self.limits(id));
        if let Some(conn) = self.table.get_mut(id)
            && let Some(limits) = limits
            && let Some((at, _)) = next_due(conn, &limits, now)
        {
            self.silence.set(id, at);
        }
    }

    fn end_at(&mut self, id: ConnId, deadline: Deadline) {
        let Some(conn) = self.table.get_mut(id) else {
            return;
        };
        self.ended.count(deadline);
        let (peer, listener) = (conn.peer, &self.config.listener(conn.listener).name);
        limited!(
            info,
            Topic::Deadline,
            "connection {id} from {peer} ended at the {deadline} deadline of listener {listener}: {}",
            deadline.why()
        );
        match deadline {
            Deadline::Open if conn.is_opening() => {
                self.abort(id, CloseReason::OpenDeadline);
            }
            Deadline::Open => self.close(id, CloseReason::OpenDeadline),
            Deadline::Idle => self.close(id, CloseReason::IdleDeadline),
            Deadline::Write => {
                self.reset(id, CloseReason::WriteDeadline);
            }
            Deadline::Message => self.end_input(id, CloseReason::MessageDeadline),
            Deadline::Queue => self.end_input(id, CloseReason::QueueDeadline),
            Deadline::Answer => self.break_promise(id, CloseReason::AnswerDeadline),
        }
        // Its output still has a deadline.
        self.arm_next(id);
    }

    /// Returns the next frame of a connection that waits for a place.
    pub(crate) fn first_waiting(&self, id: ConnId) -> Option<Returned> {
        let conn = self.table.get(id)?;
        let listener = self.config.listener(conn.listener);
        let (mut kind, mut body, mut attempts) = (Event::Receive, Vec::new(), 0);
        let mut value = conn.work.messages;
        if conn.work.connect == Step::Due {
            kind = Event::Connect;
        } else if let Some(message) = conn.work.returned.first() {
            (body, attempts) = (message.bytes.clone(), message.attempts);
            value = message.number;
        } else if let kept = &conn.reading.partial
            && let Split::Message { len } = listener.protocol.split(kept, 0, listener.max_message)
        {
            body = kept[..len].to_vec();
        }
        Some(Returned {
            conn: id,
            kind,
            attempts,
            value,
            flushed: false,
            waited_since: 0,
            body,
        })
    }

    /// Ends a connection whose message no worker has begun in time: it gets the reply after the answers to
    /// its earlier messages, which are with a worker.
    pub(crate) fn end_late(&mut self, id: ConnId, reply: Vec<u8>) {
        self.void(id);
        let Some(conn) = self.table.get_mut(id).filter(|conn| conn.is_open()) else {
            return;
        };
        if conn.work.connect == Step::Due && conn.work.died_in.is_none() {
            // No worker was told of it.
            (conn.work.connect, conn.work.close) = (Step::Done, Step::Done);
        }
        conn.ending_mut().late = Some(reply.into());
        self.end_at(id, Deadline::Queue);
    }

    /// Sends the reply to a late message, and closes, when the connection's callbacks have returned.
    pub(super) fn finish_late(&mut self, id: ConnId) -> Next {
        let Some(conn) = self.table.get_mut(id) else {
            return Next::Break(());
        };
        if conn.ending().late.is_none() {
            return Next::Continue(());
        }
        if conn.work.awaits_answer {
            // The answer to an earlier message comes first, by a timer for example.
            return Next::Continue(());
        }
        if conn.work.in_flight > 0 && conn.socket.is_some() {
            return Next::Break(());
        }
        if let Some(reply) = conn.ending_mut().late.take() {
            if !reply.is_empty() {
                self.send(id, SharedBytes::of(&reply));
            }
            self.close(id, CloseReason::QueueDeadline);
        }
        Next::Continue(())
    }

    /// Submits `idle`, unless the connection is no longer idle.
    pub(super) fn submit_idle(&mut self, workers: &mut impl Deliver, id: ConnId) -> Next {
        let now = self.pace.now();
        let Some(conn) = self.table.get_mut(id) else {
            return Next::Break(());
        };
        if !conn.pulse.idle_due {
            return Next::Continue(());
        }
        let limits = self.config.listener(conn.listener).silence;
        let is_idle = conn.pulse.heard.saturating_add(limits.idle) <= now;
        conn.pulse.idle_due = is_idle && conn.work.end.is_none();
        match conn.pulse.idle_due {
            true => self.submit_event(workers, id, Event::Idle),
            false => Next::Continue(()),
        }
    }

    /// A connection is gone.
    pub(super) fn forget_deadlines(&mut self, id: ConnId) {
        self.silence.remove(id);
        self.looks.remove(id);
        self.pauses.remove(id);
        self.graces.remove(id);
        self.holds.remove(id);
        if let Some(deadlines) = &mut self.close_deadlines {
            deadlines.remove(id);
        }
    }
}

/// Returns the next time at which to look at a connection, and the deadline that passes then.
fn next_due(conn: &mut Connection, limits: &Silence, now: u64) -> Option<Due> {
    if conn.is_opening() {
        let at = conn.since.saturating_add(limits.opening);
        return Some((at, Some(Deadline::Open))).filter(|(at, _)| *at != NEVER);
    }
    let dues = [
        write_due(conn, limits, now),
        queue_due(conn, limits),
        message_due(conn, limits, now),
        quiet_due(conn, limits, now),
        answer_due(conn),
    ];
    let first = dues.into_iter().flatten().min_by_key(|(at, _)| *at);
    first.filter(|(at, _)| *at != NEVER)
}

fn until_look(write: u64) -> u64 {
    match write {
        NEVER => NEVER,
        _ => (write / LOOKS).max(1),
    }
}

/// Output that the peer has not acknowledged.
fn write_due(conn: &mut Connection, limits: &Silence, now: u64) -> Option<Due> {
    let is_unsent = !conn.writing.unsent.is_empty();
    if !is_unsent && conn.pulse.stall.is_none() {
        return None;
    }
    let (outstanding, progress) = (conn.unacknowledged(), conn.progress());
    if !is_unsent && outstanding == 0 {
        // The peer has everything, as far as is known since now.
        (conn.pulse.stall, conn.pulse.sent) = (None, now);
        return None;
    }
    let stall = conn
        .pulse
        .stall
        .get_or_insert_with(|| Box::new(Stall::begin(now)));
    stall.look(now, progress);
    let passes = (
        stall.since.saturating_add(limits.write),
        Some(Deadline::Write),
    );
    let look = (now.saturating_add(until_look(limits.write)), None);
    [passes, look].into_iter().min_by_key(|(at, _)| *at)
}

/// Bytes from the client that wait for a place in an inbox.
fn queue_due(conn: &Connection, limits: &Silence) -> Option<Due> {
    let since = conn.pulse.waiting_since?;
    if conn.work.awaits_answer {
        // They wait for that, and not for a worker.
        return None;
    }
    let waits = matches!(conn.work.wait, Wait::Room | Wait::Quiet | Wait::Fewer);
    let has_input = conn.work.connect == Step::Due
        || !conn.work.returned.is_empty()
        || conn.reading.is_unsearched
        || conn.work.end.is_none() && conn.unread() > 0;
    let can_end = conn.is_open() && conn.ending().late.is_none();
    (waits && has_input && can_end).then(|| {
        (
            since.get().saturating_add(limits.queue),
            Some(Deadline::Queue),
        )
    })
}

/// An answer that was promised.
fn answer_due(conn: &Connection) -> Option<Due> {
    let promise = conn.work.promise()?;
    Some((promise.at, Some(Deadline::Answer)))
}

/// A message that is incomplete. Time in which it is not read does not count.
fn message_due(conn: &mut Connection, limits: &Silence, now: u64) -> Option<Due> {
    if !conn.has_incomplete() || conn.reading.input != Input::Open {
        return None;
    }
    if !conn.wants_input() {
        conn.pulse.message_since = now;
    }
    let mut at = conn.pulse.message_since.saturating_add(limits.message);
    if at <= now && !conn.pulse.is_overdue && conn.unread() > 0 {
        // The end of the message may be among these.
        conn.pulse.is_overdue = true;
    }
    if conn.pulse.is_overdue {
        at = at.saturating_add(OVERDUE);
    }
    Some((at, Some(Deadline::Message)))
}

/// A connection on which nothing happens.
fn quiet_due(conn: &mut Connection, limits: &Silence, now: u64) -> Option<Due> {
    if conn.work.end.is_some() || conn.reading.input != Input::Open {
        return None;
    }
    let (deadline, after, since) = match conn.pulse.has_spoken {
        false if limits.open <= limits.idle => (Deadline::Open, limits.open, conn.pulse.heard),
        false => (Deadline::Idle, limits.idle, conn.pulse.heard),
        true => (
            Deadline::Idle,
            limits.idle,
            conn.pulse.heard.max(conn.pulse.sent),
        ),
    };
    if after == NEVER {
        return None;
    }
    // It can be quiet from now on at the earliest.
    let later = Some((now.saturating_add(after), None));
    if !is_quiet(conn) || conn.pulse.idle_due {
        return later;
    }
    let at = since.saturating_add(after);
    if at > now {
        return Some((at, Some(deadline)));
    }
    if conn.unread() > 0 {
        // They will be read in this turn or the next.
        conn.pulse.heard = now;
        return later;
    }
    if conn.unacknowledged() > 0 {
        // Only from now on is that looked at.
        conn.pulse
            .stall
            .get_or_insert_with(|| Box::new(Stall::begin(now)));
        let look = now.saturating_add(until_look(limits.write).min(after));
        return Some((look, None));
    }
    Some((at, Some(deadline)))
}

/// Whether nothing is due to the peer, as far as this process knows.
fn is_quiet(conn: &Connection) -> bool {
    let (work, reading) = (&conn.work, &conn.reading);
    work.in_flight == 0
        && work.connect != Step::Due
        && work.wait == Wait::Nothing
        && !work.awaits_answer
        && work.returned.is_empty()
        && !reading.is_unsearched
        && conn.writing.unsent.is_empty()
}
