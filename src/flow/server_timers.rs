//! Timers of the server: when one has fired, its callbacks become frames, for one worker or for each.
//!
//! The first reactor of a server has them; in base mode each worker has its own. Its one rule: each callback has a
//! mailbox of its own, which ends with it.

use std::ops::ControlFlow::{Break, Continue};

use super::deliver::{Deliver, Place, Submitted, Want};
use super::{Flow, Next};
use crate::config::{Mode, Run, ServerTimer};
use crate::conn_id::ConnId;
use crate::event::Event;

use crate::ipc::frame;
use crate::limited::{Topic, limited};
use crate::net::connection::Target;
use crate::net::server_timers::{ServerTimers, charge_of};

impl Flow {
    /// Sets a timer of the server, unless the same one is set.
    pub(crate) fn set_server_timer(&mut self, timer: ServerTimer) {
        if self.is_cut || self.keeps_too_much() {
            // Of workers that keep to their limit, only at the end of the server.
            limited!(
                error,
                Topic::Posts,
                "a timer of the server is not set: its tag is {}",
                timer.tag
            );
            return;
        }
        let (now, charge) = (self.look_at_clock(), charge_of(timer, self.config.workers));
        let timers = self
            .server_timers
            .get_or_insert_with(|| Box::new(ServerTimers::new()));
        let before = timers.charged();
        timers.set(timer, now, charge);
        self.kept = self.kept + timers.charged() - before;
    }

    /// Sets the timers that a server has from its start: in its first reactor, or in each worker of base mode.
    pub(crate) fn set_first_timers(&mut self) {
        if self.config.mode == Mode::Process && self.owner() > 0 {
            return;
        }
        for timer in self.config.timers.clone() {
            self.set_server_timer(timer);
        }
    }

    /// Cancels a timer of the server, also its callbacks that no worker has.
    pub(super) fn cancel_server_timer(&mut self, tag: u64) {
        self.drop_jobs(|timers| timers.cancel(tag));
    }

    /// Cancels all timers of the server.
    pub(super) fn drop_server_timers(&mut self) {
        self.drop_jobs(ServerTimers::cancel_all);
    }

    fn drop_jobs(&mut self, cancel: impl FnOnce(&mut ServerTimers) -> Vec<ConnId>) {
        let Some(timers) = &mut self.server_timers else {
            return;
        };
        let before = timers.charged();
        let jobs = cancel(timers);
        self.kept = self.kept + timers.charged() - before;
        for id in jobs {
            if self.table.get(id).is_some_and(|it| it.work.in_flight == 0) {
                self.server_timer_done(id);
            }
        }
    }

    /// Returns the time at which a timer of the server fires next.
    pub(super) fn next_server_timer(&self) -> Option<u64> {
        let timers = self.server_timers.as_ref();
        timers.filter(|_| !self.is_draining)?.next()
    }

    /// Makes the callbacks due of the timers that have fired. A server that shuts down begins no more of them.
    pub(super) fn fire_server_timers(&mut self, now: u64, work: &mut usize) {
        if self.next_server_timer().is_none() {
            return;
        }
        while let Some(timers) = &mut self.server_timers
            && let Some(timer) = timers.pop(now, work)
        {
            self.open_jobs(timer);
        }
    }

    fn open_jobs(&mut self, timer: ServerTimer) {
        let targets = match timer.run {
            // In base mode each worker has its own.
            _ if self.config.mode == Mode::Base => vec![Target::Any],
            Run::One => vec![Target::Any],
            Run::Each => (0..self.config.workers)
                .map(|seat| Target::Seat(seat as u16))
                .collect(),
        };
        for target in targets {
            let id = self.table.add_mailbox(target).id;
            if let Some(timers) = &mut self.server_timers {
                timers.open(timer.tag, id);
            }
            self.table.touch(id);
        }
    }

    /// Whether it is the mailbox of a timer's callback.
    pub(super) fn is_for_server_timer(&self, id: ConnId) -> bool {
        let timers = self.server_timers.as_ref();
        timers.is_some_and(|timers| timers.job(id).is_some())
    }

    /// Submits the callback of a timer of the server.
    pub(super) fn submit_server_timer(&mut self, workers: &mut impl Deliver, id: ConnId) -> Next {
        self.if_free(id)?;
        let job = self.server_timers.as_ref().and_then(|it| it.job(id));
        let is_idle = self.table.get(id).is_some_and(|it| it.work.in_flight == 0);
        let Some(job) = job.filter(|_| is_idle) else {
            return Break(());
        };
        let place = self.place(workers, id, Want::Event)?;
        let Some(mailbox) = self.table.get(id) else {
            return Break(());
        };
        let input = frame::Input {
            value: job.tag,
            attempt: job.attempts,
            // No client waits for it.
            deadline: u64::MAX,
            ..self.header(mailbox, Event::ServerTimer)
        };
        let submitted = place.submit_copy(self, &input, &[]);
        match submitted {
            Submitted::InFlight => self.count(id, submitted),
            Submitted::Done => self.server_timer_done(id),
        }
        Continue(())
    }

    /// A callback of a timer was not begun, or is to be run again.
    pub(super) fn server_timer_returned(&mut self, id: ConnId, attempts: u8) {
        match &mut self.server_timers {
            Some(timers) if !self.is_cut => timers.set_attempts(id, attempts),
            Some(_) | None => self.server_timer_done(id),
        }
    }

    /// A callback of a timer has ended, and its mailbox with it.
    pub(super) fn server_timer_done(&mut self, id: ConnId) {
        let Some(timers) = &mut self.server_timers else {
            return;
        };
        let before = timers.charged();
        let next = timers.end(id);
        self.kept = self.kept + timers.charged() - before;
        self.table.remove(id);
        if let Some(timer) = next {
            self.open_jobs(timer);
        }
    }
}
