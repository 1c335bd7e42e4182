//! Timers that callbacks set for their connections: when one has fired, its callback is an event of the connection
//! like any other.
//!
//! Its one rule: a timer belongs to its connection, and ends with it. It fires once, in the loop's time
//! ([`Pace`](crate::net::pace::Pace)), and not early.

use std::ops::ControlFlow::{Break, Continue};
use std::time::Duration;

use super::deliver::{Deliver, Place, Want};
use super::{Flow, Next};
use crate::conn_id::ConnId;
use crate::event::Event;
use crate::net::alarms::{Due, TIMER_BYTES};

/// The most timers that one turn looks at, before other work has its turn.
const MOST_FIRED: usize = 1024;

impl Flow {
    /// Sets a timer of a connection.
    pub(super) fn set_timer(&mut self, id: ConnId, after: u64, tag: u64) {
        // The clock shows whole milliseconds: one more, so that none is missing.
        let at = self.look_at_clock().saturating_add(after).saturating_add(1);
        let Some(conn) = self
            .table
            .get_mut(id)
            .filter(|conn| conn.work.end.is_none() || conn.is_open())
        else {
            return;
        };
        conn.work.fired.cancel(tag);
        let before = self.alarms.len();
        self.alarms.set(&mut conn.work.timers, id, tag, at);
        self.kept += (self.alarms.len() - before) * TIMER_BYTES;
    }

    /// Cancels a timer of a connection, also one that has fired and has no place for its callback yet.
    pub(super) fn cancel_timer(&mut self, id: ConnId, tag: u64) {
        let Some(conn) = self.table.get_mut(id) else {
            return;
        };
        conn.work.fired.cancel(tag);
        if self.alarms.cancel(&mut conn.work.timers, id, tag) {
            self.kept -= TIMER_BYTES;
        }
    }

    /// Cancels all timers of a connection.
    pub(super) fn cancel_timers(&mut self, id: ConnId) {
        if let Some(conn) = self.table.get_mut(id) {
            let fired = std::mem::take(&mut conn.work.fired).len();
            let count = fired + self.alarms.cancel_all(&mut conn.work.timers);
            self.kept -= count * TIMER_BYTES;
        }
    }

    /// Returns the time until the next timer fires.
    pub(crate) fn next_fire(&self) -> Option<Duration> {
        let tasks = self.tasks.as_ref().and_then(|tasks| tasks.next());
        let others = tasks.into_iter().chain(self.next_server_timer());
        let next = self.alarms.next().into_iter().chain(others).min()?;
        Some(Duration::from_millis(next.saturating_sub(self.pace.now())))
    }

    /// Makes the callbacks due of the timers that have fired.
    pub(crate) fn fire_timers(&mut self) {
        // Each kind has its own share: many of one do not hold up the others.
        let now = self.pace.now();
        self.fire_tasks(now, &mut { MOST_FIRED });
        self.fire_server_timers(now, &mut { MOST_FIRED });
        let mut work = MOST_FIRED;
        loop {
            let table = &mut self.table;
            let fired = self.alarms.pop(now, &mut work, move |id| {
                table.get_mut(id).map(|conn| &mut conn.work.timers)
            });
            let Some((id, tag)) = fired else {
                return;
            };
            // It counts until its callback has a place.
            match self.table.get_mut(id) {
                Some(conn) => conn.work.fired.push(tag),
                None => self.kept -= TIMER_BYTES,
            }
            self.table.touch(id);
        }
    }

    /// Submits the callbacks of timers that have fired.
    pub(super) fn submit_timers(&mut self, workers: &mut impl Deliver, id: ConnId) -> Next {
        while let Some(due) = self.first_fired(id) {
            let place = self.place(workers, id, Want::Event)?;
            let Some(conn) = self.table.get_mut(id) else {
                return Break(());
            };
            conn.work.fired.pop();
            self.kept -= TIMER_BYTES;
            let Some(conn) = self.table.get(id) else {
                return Break(());
            };
            let mut input = self.header(conn, Event::Timer);
            (input.value, input.attempt) = (due.tag, due.attempts);
            let submitted = place.submit_copy(self, &input, &[]);
            self.count(id, submitted);
        }
        Continue(())
    }

    /// Returns the next timer that has fired of a connection which has not begun to end.
    fn first_fired(&mut self, id: ConnId) -> Option<Due> {
        let conn = self.table.get_mut(id)?;
        // After a FIN of the peer, one may give an answer that was promised.
        let has_ended = conn.work.end.is_some() && !conn.work.awaits_answer;
        if has_ended || conn.work.fired.is_empty() {
            return None;
        }
        let before = conn.work.fired.len();
        let due = conn.work.fired.first();
        self.kept -= (before - conn.work.fired.len()) * TIMER_BYTES;
        due
    }
}
