//! How frames come back from an inbox: from a dead worker's all of them, from a living worker's those
//! that it has not begun (recall).

use super::reactor::{Delivery, ReactorLink};
use crate::conn_id::ConnId;
use crate::event::Event;
use crate::ipc::frame::{INPUT_HEADER, InputKind, KIND_AT};
#[cfg(feature = "test-hooks")]
use crate::ipc::kill_point::KillPoint;

/// A frame that has come back from the inbox.
#[derive(Debug)]
pub(crate) struct Returned {
    pub(crate) conn: ConnId,
    pub(crate) kind: Event,
    /// How many runs of its callback had not completed when it was submitted.
    pub(crate) attempts: u8,
    /// Of a message: its number on its connection.
    pub(crate) value: u64,
    /// Part of its output has left already, so that it can't be run again.
    pub(crate) flushed: bool,
    /// Since when its connection had waited for a place, in microseconds; 0 if it had not.
    pub(crate) waited_since: u64,
    pub(crate) body: Vec<u8>,
}

/// A frame whose callback has returned an error.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) frame: Returned,
    /// The frames of the same connection that the worker has not begun, oldest first.
    pub(crate) behind: Vec<Returned>,
}

/// The frames that a dead worker has left in its inbox, oldest first.
#[derive(Debug)]
pub(crate) struct Legacy {
    /// The one that it had begun and not finished.
    pub(crate) under_way: Option<Returned>,
    /// Those that it had not begun.
    pub(crate) rest: Vec<Returned>,
}

impl Delivery {
    /// Whether a client waits for its callback.
    fn can_expire(&self) -> bool {
        match self.kind.event() {
            Some(Event::Connect | Event::Receive) => true,
            Some(
                Event::Close
                | Event::Paused
                | Event::Resumed
                | Event::Idle
                | Event::Timer
                | Event::Drained
                | Event::Post
                | Event::Task
                | Event::Finished
                | Event::ServerTimer,
            )
            | None => false,
        }
    }

    /// Whether a client has waited for its callback until now.
    pub(crate) fn has_expired(&self, now: u64) -> bool {
        self.can_expire() && self.expires <= now
    }
}

impl ReactorLink {
    /// Returns the connection of the oldest frame.
    pub(crate) fn under_way(&self) -> Option<ConnId> {
        self.in_flight.front().map(|delivery| delivery.conn)
    }

    /// The worker is dead and its commits are applied: cuts off the rest of its output, shuts the
    /// link, and empties the inbox.
    pub(crate) fn cut(&mut self) -> Legacy {
        self.forget_outputs();
        self.generation = 0;
        // A liar may have gone on after its lie, of which nothing was read: the frame in which it
        // lied is the one that it has not finished, unless the lie came out after that.
        let is_liars = self.failed && !self.is_lie_done;
        let is_blamed = |it: &Delivery| is_liars && it.kind != InputKind::Void;
        let has_begun = self.has_begun() || self.in_flight.front().is_some_and(is_blamed);
        let mut returned = Vec::with_capacity(self.in_flight());
        while let Some(delivery) = self.in_flight.pop_front() {
            returned.extend(self.take_back(&delivery));
        }
        self.void = 0;
        self.inbox.freed(self.inbox.tail());
        let mut rest = returned.into_iter();
        Legacy {
            under_way: has_begun.then(|| rest.next()).flatten(),
            rest: rest.collect(),
        }
    }

    /// Recalls the frames that the worker has not begun, oldest first, without waiting for it. The
    /// worker passes over their places in the inbox, and must be woken: it may have seen the bar.
    pub(crate) fn recall(&mut self) -> Vec<Returned> {
        self.recall_if(|_| true)
    }

    /// Recalls those frames that are wanted, of those that the worker has not begun. Asks for each once, oldest first.
    pub(crate) fn recall_if(
        &mut self,
        mut is_wanted: impl FnMut(&Delivery) -> bool,
    ) -> Vec<Returned> {
        let begun = self.words.claim.bar();
        #[cfg(feature = "test-hooks")]
        self.pass(KillPoint::Recall);
        // Older frames are done, though their commits were not read yet.
        let kept = self.in_flight.iter().position(|it| it.start == begun);
        let mut returned = Vec::new();
        for index in kept.map_or(0, |kept| kept + 1)..self.in_flight.len() {
            let delivery = self.in_flight[index];
            if is_wanted(&delivery)
                && let Some(frame) = self.take_back(&delivery)
            {
                returned.push(frame);
                self.in_flight[index].kind = InputKind::Void;
                self.void += 1;
                self.inbox_ring
                    .write(delivery.start + KIND_AT, &[InputKind::Void.code()]);
            }
        }
        self.words.claim.lift();
        returned
    }

    /// Returns the time at which the first message expires that the worker has not begun.
    pub(crate) fn next_expiry(&self) -> u64 {
        let begun = usize::from(self.has_begun());
        let unbegun = self
            .in_flight
            .iter()
            .skip(begun)
            .filter(|it| it.can_expire());
        unbegun.map(|it| it.expires).min().unwrap_or(u64::MAX)
    }

    /// After [`Commit::Failed`](super::Commit): takes the frame that has failed out of the inbox, and
    /// recalls the frames of the same connection behind it, oldest first, which the worker has not
    /// begun: it waits until the commit is [released](Self::release).
    pub(crate) fn fail(&mut self) -> Option<Failed> {
        let failed = self.in_flight.front().copied()?;
        let frame = self.take_back(&failed)?;
        self.retire();
        let behind = self.recall_of(failed.conn);
        Some(Failed { frame, behind })
    }

    /// Recalls the frames of a connection that the worker has not begun, oldest first.
    pub(crate) fn recall_of(&mut self, conn: ConnId) -> Vec<Returned> {
        self.recall_if(|delivery| delivery.conn == conn)
    }

    /// Takes the oldest frame out of the inbox.
    pub(super) fn retire(&mut self) -> Option<Delivery> {
        let delivery = self.in_flight.pop_front()?;
        self.void -= usize::from(delivery.kind == InputKind::Void);
        self.inbox.freed(delivery.end());
        Some(delivery)
    }

    /// How many frames are in the inbox, recalled ones included.
    pub(crate) fn left(&self) -> usize {
        self.in_flight.len()
    }

    /// Whether the worker sleeps for lack of room, or until its output is read.
    pub(crate) fn awaits_room(&self) -> bool {
        self.words.room.is_asleep()
    }

    /// Returns a copy of a frame, unless it was recalled before.
    fn take_back(&self, delivery: &Delivery) -> Option<Returned> {
        let kind = delivery.kind.event()?;
        let mut body = Vec::new();
        // A worker that lies may have changed its own copy of the message, and nothing else.
        self.inbox_ring
            .shared(
                delivery.start + INPUT_HEADER as u64,
                delivery.message() as usize,
            )
            .append_to(&mut body);
        Some(Returned {
            conn: delivery.conn,
            kind,
            attempts: delivery.attempts,
            value: delivery.value,
            flushed: delivery.flushed,
            waited_since: delivery.waited_since,
            body,
        })
    }
}
