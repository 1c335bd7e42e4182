//! Moving: a connection goes from one base mode worker to another while nothing of it is due.
//!
//! It keeps the id by which callbacks know it, its *public* id, wherever it is. Its id in the new worker's
//! table is another one, which no callback sees.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::Flow;
use super::deliver::Deliver;
use crate::config::ListenerId;
use crate::conn_id::ConnId;
use crate::handler::Names;
use crate::ipc::carried::Carried;
use crate::limited::{Topic, limited};
use crate::net::acceptor::Accepted;
use crate::net::alarms::{First, TIMER_BYTES};
use crate::net::assigned::{PROMISE_BYTES, Promise};
use crate::net::connection::{Connection, Fin, Input, Level, Step};
use crate::net::handover::{Ages, Handover, MOST_PARTIAL, MOST_TIMERS};
use crate::peer::Peer;
use crate::sys::forks;

/// The connections of this owner that have come from another one, and those that have gone to another one. Empty in
/// process mode.
#[derive(Default)]
pub(super) struct Movements {
    /// The ids in this table, by public ids.
    come: HashMap<ConnId, ConnId>,
    /// By public ids. Bounded by the connections of a worker that leaves.
    gone: HashSet<ConnId>,
    /// The number of all that have ever come.
    count: u64,
}

impl Movements {
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// A connection is over.
    pub(super) fn forget(&mut self, conn: &Connection) {
        if conn.public != conn.id {
            self.come.remove(&conn.public);
        }
    }
}

/// The outcome of an attempt to move a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Move {
    /// It has moved, or is gone.
    Done,
    /// Something of it is due here, or it is about to end.
    Stays,
    /// The other side takes none now.
    NoRoom,
}

impl Flow {
    /// Returns the id in this table of a connection that callbacks know by its public id; `None` if it is another
    /// owner's.
    pub(crate) fn own_id(&self, public: ConnId) -> Option<ConnId> {
        let movements = &self.movements;
        if let Some(own) = movements.come.get(&public) {
            return Some(*own);
        }
        let is_own = self.table.has_named(public) && !movements.gone.contains(&public);
        is_own.then_some(public)
    }

    /// Returns the user and the state of a connection that callbacks know by this id.
    pub(crate) fn carried(&self, public: ConnId) -> Carried<'_> {
        let conn = self.own_id(public).and_then(|own| self.table.get(own));
        conn.map_or(Carried::default(), |conn| conn.work.assigned())
    }

    /// Whether callbacks know a connection of this owner by this id.
    pub(crate) fn has(&self, public: ConnId) -> bool {
        let own = self.own_id(public);
        own.is_some_and(|own| self.table.get(own).is_some())
    }

    /// Gives a connection away, if nothing of it is due here and `send` takes it.
    pub(crate) fn hand_over(
        &mut self,
        id: ConnId,
        send: impl FnOnce(&Handover, BorrowedFd<'_>) -> io::Result<bool>,
    ) -> Move {
        let now = self.pace.now();
        let Some(conn) = self.table.get(id) else {
            return Move::Done;
        };
        let Some(socket) = conn.socket.as_ref().filter(|_| self.is_movable(conn)) else {
            return Move::Stays;
        };
        let age = |at| now.saturating_sub(at);
        let handover = Handover {
            public: Some(conn.public),
            peer: conn.peer,
            listener: conn.listener,
            has_begun: conn.reading.has_begun,
            is_held: conn.reading.is_held,
            has_spoken: conn.pulse.has_spoken,
            is_copied: forks::has_forked(),
            written: conn.writing.written,
            ages: Ages {
                heard: age(conn.pulse.heard),
                sent: age(conn.pulse.sent),
                message: age(conn.pulse.message_since),
            },
            messages: conn.work.messages,
            user: conn.work.user(),
            state: conn.work.assigned().state.into(),
            groups: conn.work.assigned().groups.into(),
            timers: self
                .alarms
                .of(conn.work.timers)
                .map(|(tag, at)| (tag, at.saturating_sub(now)))
                .collect(),
            promise: conn
                .work
                .promise()
                .map(|it| (it.at.saturating_sub(now), it.reply.clone())),
            partial: conn.reading.partial.clone(),
        };
        match send(&handover, socket.as_fd()) {
            Ok(true) => {
                self.forget_moved(id);
                Move::Done
            }
            Ok(false) => Move::NoRoom,
            Err(error) => {
                log::debug!("connection {id} can't move: {error}");
                Move::Stays
            }
        }
    }

    /// Whether nothing is due to a connection, and all that is known of it goes along.
    fn is_movable(&self, conn: &Connection) -> bool {
        let timers = self.alarms.of(conn.work.timers).take(MOST_TIMERS + 1);
        let is_plain = conn.rare.layer().is_none() && conn.work.assigned().origin.is_empty();
        is_plain && is_quiet(conn) && timers.count() <= MOST_TIMERS
    }

    /// Another process has the connection. This one only closes its descriptor, without a word to the peer.
    fn forget_moved(&mut self, id: ConnId) {
        self.cancel_timers(id);
        self.end_promise(id);
        self.take_cursor(id);
        let Some(conn) = self.table.remove(id) else {
            return;
        };
        if let Some(socket) = &conn.socket {
            // The socket stays open elsewhere: epoll would go on reporting it, epoll(7), Q6.
            self.table.unwatch(socket);
            self.load.socket_closed(conn.counted(), conn.listener);
        }
        self.budget.give_back(conn.held());
        self.kept -= conn.work.state_len();
        self.leave_all(&conn);
        self.load.leave();
        self.forget_deadlines(id);
        self.movements.forget(&conn);
        self.movements.gone.insert(conn.public);
    }

    /// Takes a connection over that another owner had, counted as this owner's already.
    pub(crate) fn take_over(
        &mut self,
        workers: &mut impl Deliver,
        socket: OwnedFd,
        mut handover: Handover,
    ) {
        let Handover { peer, listener, .. } = handover;
        if handover.is_copied {
            forks::has_copies();
        }
        let Some(public) = handover.public else {
            let accepted = Accepted {
                socket,
                peer,
                listener,
            };
            return self.adopt(workers, accepted);
        };
        self.movements.count += 1;
        let now = self.look_at_clock();
        let conn = match self.table.add(socket, peer, listener) {
            Ok(conn) => conn,
            Err(error) => return self.refuse((peer, listener), &error),
        };
        let id = conn.id;
        (conn.public, conn.since) = (public, now);
        conn.work.connect = Step::Done;
        conn.work.messages = handover.messages;
        conn.writing.written = handover.written;
        conn.reading.has_begun = handover.has_begun;
        let (pulse, ages) = (&mut conn.pulse, handover.ages);
        let at = |age| now.saturating_sub(age);
        (pulse.heard, pulse.sent) = (at(ages.heard), at(ages.sent));
        (pulse.message_since, pulse.has_spoken) = (at(ages.message), handover.has_spoken);
        if handover.is_held {
            conn.reading.is_held = true;
            self.holds.set(id, now);
        }
        self.assign(id, &mut handover);
        self.movements.gone.remove(&public);
        self.movements.come.insert(public, id);
        if !handover.partial.is_empty() {
            // Searched again: a message that is whole by this worker's measure is delivered.
            self.keep(id, handover.partial, 0);
        }
        // The first look at its deadlines sets the timer.
        self.silence.set(id, now);
        if self.is_draining {
            self.drain_one(id);
        }
    }

    /// Gives a connection what callbacks have assigned to it at its last owner.
    fn assign(&mut self, id: ConnId, handover: &mut Handover) {
        let now = self.pace.now();
        let Some(conn) = self.table.get_mut(id) else {
            return;
        };
        conn.work.set_user(handover.user);
        conn.work
            .set_state(|state| state.extend_from_slice(&handover.state));
        self.kept += conn.work.state_len();
        if let Some((left, reply)) = handover.promise.take() {
            self.kept += PROMISE_BYTES + reply.len();
            let at = now.saturating_add(left);
            conn.work.set_promise(Some(Promise { at, reply }));
        }
        let mut timers = First::NONE;
        for (tag, left) in handover.timers.drain(..) {
            self.alarms
                .set(&mut timers, id, tag, now.saturating_add(left));
            self.kept += TIMER_BYTES;
        }
        conn.work.timers = timers;
        conn.work
            .change_groups(|groups| groups.fill(&handover.groups));
        let mut names = Names::default();
        names.fill(&handover.groups);
        names.iter().for_each(|name| self.enter(id, name));
    }

    /// A connection that can't be watched is closed.
    pub(super) fn refuse(&mut self, new: (Peer, ListenerId), error: &io::Error) {
        limited!(
            error,
            Topic::NotWatched,
            "connection from {} closed: cannot watch its socket: {error}",
            new.0
        );
        self.load.newcomer_closed(new);
        self.load.leave();
    }
}

/// Whether nothing is due to a connection.
fn is_quiet(conn: &Connection) -> bool {
    let Connection {
        reading,
        writing,
        work,
        ..
    } = conn;
    let has_begun_to_end = work.end.is_some()
        || reading.input != Input::Open
        || conn.ending().peer_closed_at.is_some()
        || writing.fin != Fin::Open
        || writing.is_cut;
    let is_due = work.connect == Step::Due
        || !writing.unsent.is_empty()
        || writing.level != Level::Low
        || work.announced != Level::Low
        || work.in_flight > 0
        || !work.is_free()
        || !work.returned.is_empty()
        || conn.ending().late.is_some()
        || conn.pulse.idle_due
        || !work.fired.is_empty()
        || work.is_drain_due
        || conn.is_paused
        // The other worker searches them once more.
        || reading.is_unsearched && !work.awaits_answer;
    !has_begun_to_end && !is_due && reading.partial.len() <= MOST_PARTIAL
}
