//! The relay of base mode: connections of a worker that leaves go to other workers, and so do the clients
//! that wait in the queues when the server stops.
//!
//! Runs in the manager. Its one rule: it never waits. A connection that no worker can take now stays where it
//! is, with the worker that gives it or in this process, and that worker's channel is not read meanwhile.
//! Which worker gets a connection is decided by what the workers publish ([`Passage`]): if that is false, a
//! worker gets the connection that serves it later.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use super::effects::{Supervised, failed};
use super::passage::{Pace, Passage};
use super::roster::Worker;
use super::{CHANNELS, Manager};
use crate::ipc::sync::Ordering;
use crate::net::arrival::{Arrival, receive};
use crate::net::handover::Handover;
use crate::sys::epoll::{Events, Interest, Poller};
use crate::sys::parcel::{Channel, channel};
use crate::sys::socket;

/// The most connections on their way to one worker. If it gets stuck they wait with it.
const WINDOW: u64 = 16;

/// The most records that are read before other work has its turn.
const BATCH: usize = 256;

/// The time until the next try, if no worker can take a connection.
const RETRY: Duration = Duration::from_millis(10);

/// After this time in which all workers were stuck, one of them gets the connections: its callback may end, and
/// otherwise nobody would serve them.
const PATIENCE: Duration = Duration::from_millis(100);

/// A connection on its way.
struct Parcel {
    socket: OwnedFd,
    handover: Box<Handover>,
}

/// The outcome of a look for a connection to be passed on.
enum Next {
    Parcel(Parcel),
    /// A record without a connection.
    Unusable,
    Nothing,
}

/// The worker that is to take the next connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Target {
    /// The worker in this slot.
    Slot(usize),
    /// None can take one now.
    Later,
    /// None will ever.
    Never,
}

/// The connections that are in this process, on their way to a worker.
#[derive(Default)]
pub(super) struct Relay {
    waiting: VecDeque<Parcel>,
    /// The channels of workers that have ended, with connections in them.
    left: Vec<Channel>,
    retry_at: Option<Instant>,
    /// Since when all workers that could take a connection have been stuck.
    stuck_since: Option<Instant>,
    /// The number of clients that were reset.
    lost: usize,
    buffer: Vec<u8>,
}

impl Relay {
    /// Takes a client that no worker has accepted.
    pub(super) fn take_client(&mut self, socket: OwnedFd, handover: Handover) {
        self.waiting.push_back(Parcel {
            socket,
            handover: Box::new(handover),
        });
    }

    /// Connections are to be passed on from this time on.
    pub(super) fn try_at(&mut self, at: Instant) {
        self.retry_at = Some(at);
    }

    pub(super) fn next_try(&self) -> Option<Instant> {
        self.retry_at
    }

    /// The worker of a channel has ended: the connections in the channel are still passed on.
    pub(super) fn inherit(&mut self, poller: &Poller, passage: Passage) {
        unwatch(poller, &passage.channel);
        self.left.push(passage.channel);
        self.retry_at = Some(Instant::now());
    }

    /// Resets the clients that no worker has got. Returns the number of those that were reset in all.
    pub(super) fn reset_all(&mut self) -> usize {
        while let Some(parcel) = self.waiting.pop_front() {
            self.reset(parcel);
        }
        std::mem::take(&mut self.lost)
    }

    fn reset(&mut self, parcel: Parcel) {
        socket::reset(parcel.socket);
        self.lost += 1;
    }

    /// Returns the next connection in this process, or in the channels of the dead.
    fn next_left(&mut self) -> Next {
        if let Some(parcel) = self.waiting.pop_front() {
            return Next::Parcel(parcel);
        }
        while let Some(channel) = self.left.last() {
            match receive(channel, &mut self.buffer) {
                Arrival::Connection(socket, handover) => {
                    return Next::Parcel(Parcel { socket, handover });
                }
                // Of no worker that keeps to the protocol.
                Arrival::Post(_) | Arrival::Unusable => return Next::Unusable,
                // Its worker is dead: no more comes.
                Arrival::Nothing | Arrival::End => drop(self.left.pop()),
            }
        }
        Next::Nothing
    }

    /// Whether connections are to go to a worker that is stuck: for a while, there has been no other.
    fn is_out_of_patience(&mut self, pace: Option<Pace>, now: Instant) -> bool {
        match pace {
            Some(Pace::Stuck) => {
                let since = *self.stuck_since.get_or_insert(now);
                now.saturating_duration_since(since) >= PATIENCE
            }
            Some(Pace::Quick | Pace::Slow) | None => {
                self.stuck_since = None;
                false
            }
        }
    }
}

fn unwatch(poller: &Poller, channel: &Channel) {
    if let Err(error) = poller.remove(channel) {
        log::debug!("cannot stop watching a worker's channel: {error}");
    }
}

impl Manager<'_> {
    /// In base mode, makes a channel for the next worker in a slot.
    pub(super) fn make_passage(&self, slot: usize) -> Supervised<Option<(Passage, Channel)>> {
        if self.master.is_some() {
            return Ok(None);
        }
        let (ours, theirs) = channel().map_err(failed("make a worker's channel"))?;
        self.poller
            .add(&ours, CHANNELS + slot as u64, Interest::BELL)
            .map_err(failed("watch a worker's channel"))?;
        Ok(Some((Passage::new(ours, Instant::now()), theirs)))
    }

    /// A worker is asked to leave: it gets no more connections, and gives its own away, unless the server
    /// stops.
    pub(super) fn close_passage(&mut self, slot: usize) {
        if self.doors.has_stopped() {
            return;
        }
        if let Some(passage) = self.passage(slot) {
            passage.gives = true;
            passage.finish();
        }
    }

    fn passage(&mut self, slot: usize) -> Option<&mut Passage> {
        self.slots[slot].handle.as_mut()?.passage.as_mut()
    }

    /// Notices the channels that have something to read.
    pub(super) fn hear_channels(&mut self, events: &Events) {
        for index in 0..events.len() {
            let slot = events.get(index).token.checked_sub(CHANNELS);
            if let Some(slot) = slot.map(|slot| slot as usize)
                && slot < self.slots.len()
                && let Some(passage) = self.passage(slot)
            {
                passage.has_news = true;
                self.relay.retry_at = Some(Instant::now());
            }
        }
    }

    /// Passes connections on, as far as there are workers for them.
    pub(super) fn pass_on(&mut self) {
        let now = Instant::now();
        if self.relay.retry_at.is_none_or(|at| at > now) {
            return;
        }
        self.relay.retry_at = None;
        for _ in 0..BATCH {
            let target = self.target(now);
            if target == Target::Later && self.has_parcels() {
                self.relay.retry_at = Some(now + RETRY);
                return;
            }
            let (slot, parcel) = match (target, self.next_parcel()) {
                (_, Next::Unusable) => continue,
                (Target::Slot(slot), Next::Parcel(parcel)) => (Some(slot), parcel),
                (Target::Later, Next::Parcel(parcel)) => (None, parcel),
                (Target::Never, Next::Parcel(parcel)) => {
                    self.relay.reset(parcel);
                    continue;
                }
                (_, Next::Nothing) => {
                    self.relay.stuck_since = None;
                    return self.finish_passages();
                }
            };
            let is_sent = slot.is_some_and(|slot| self.send(slot, &parcel));
            if !is_sent {
                self.relay.waiting.push_front(parcel);
                self.relay.retry_at = Some(now + RETRY);
                return;
            }
        }
        self.relay.retry_at = Some(now);
    }

    fn has_parcels(&self) -> bool {
        let passages = self.slots.iter().filter_map(|slot| slot.handle.as_ref());
        let mut passages = passages.filter_map(|handle| handle.passage.as_ref());
        !self.relay.waiting.is_empty()
            || !self.relay.left.is_empty()
            || passages.any(|passage| passage.has_news)
    }

    /// Returns the next connection to be passed on.
    fn next_parcel(&mut self) -> Next {
        match self.relay.next_left() {
            Next::Nothing => {}
            next => return next,
        }
        for slot in &mut self.slots {
            let handle = slot.handle.as_mut();
            let Some(passage) = handle.and_then(|handle| handle.passage.as_mut()) else {
                continue;
            };
            if !passage.has_news {
                continue;
            }
            match receive(&passage.channel, &mut self.relay.buffer) {
                Arrival::Connection(socket, handover) => {
                    return Next::Parcel(Parcel { socket, handover });
                }
                Arrival::Post(_) | Arrival::Unusable => return Next::Unusable,
                Arrival::Nothing => passage.has_news = false,
                Arrival::End => (passage.has_news, passage.gives) = (false, false),
            }
        }
        Next::Nothing
    }

    /// Returns the worker that is to take the next connection: of those with the best pace, one that is in no callback
    /// goes before, and then one with few connections.
    fn target(&mut self, now: Instant) -> Target {
        let (most, is_stopping) = (self.config.max_connections as u64, self.doors.has_stopped());
        let (mut pace, mut best, mut is_over) = (None, None, is_stopping);
        for (number, slot) in self.slots.iter_mut().enumerate() {
            let worker = self.roster.worker(number);
            is_over &= !worker.is_some_and(Worker::may_serve_seat);
            let takes = worker.is_some_and(|worker| match is_stopping {
                true => worker.has_served_seat(),
                false => worker.serves_seat(),
            });
            let handle = slot.handle.as_mut().filter(|_| takes);
            let Some(passage) = handle.and_then(|handle| handle.passage.as_mut()) else {
                continue;
            };
            let words = &slot.memory.words;
            let under_way = passage.under_way(words, now);
            let connections = words.connections.load(Ordering::Relaxed);
            let own = passage.pace(words, now);
            let load = connections.saturating_add(under_way);
            if load >= most || passage.is_finished {
                continue;
            }
            // One that has its window full is waited for, if it is quicker than the others.
            pace = Some(pace.map_or(own, |pace: Pace| pace.min(own)));
            if under_way < WINDOW {
                let candidate = (own, words.activity.is_busy(), load, number);
                best = Some(best.map_or(candidate, |best| candidate.min(best)));
            }
        }
        let takes_stuck = self.relay.is_out_of_patience(pace, now);
        match best {
            Some((own, _, _, number))
                if Some(own) == pace && (own != Pace::Stuck || takes_stuck) =>
            {
                Target::Slot(number)
            }
            None if is_over => Target::Never,
            Some(_) | None => Target::Later,
        }
    }

    /// Sends a connection to a worker. Returns whether that has worked.
    fn send(&mut self, slot: usize, parcel: &Parcel) -> bool {
        let record = parcel.handover.encode();
        self.passage(slot)
            .is_some_and(|passage| passage.try_send(&record, parcel.socket.as_fd()))
    }

    /// When the server stops: lets the workers end when they have got all there is.
    fn finish_passages(&mut self) {
        if !self.doors.are_closed() {
            return;
        }
        let passages = self.slots.iter_mut().filter_map(|it| it.handle.as_mut());
        let mut passages: Vec<&mut Passage> = passages
            .filter_map(|handle| handle.passage.as_mut())
            .collect();
        if passages.iter().all(|passage| !passage.gives) {
            passages.iter_mut().for_each(|passage| passage.finish());
        }
    }
}
