//! The relay of base mode: connections of a worker that leaves go to other workers, and so do the clients
//! that wait in the queues when the server stops.
//!
//! Runs in the manager. Its one rule: it never waits. A connection that no worker can take now stays where it
//! is, with the worker that gives it or in this process, and that worker's channel is not read meanwhile.
//! Which worker gets a connection is decided by what the workers publish. If that is false, a connection goes
//! to a worker that serves it later.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use super::effects::{Supervised, failed};
use super::roster::Roster;
use super::{CHANNELS, Manager, Slot};
use crate::ipc::layout::SlotWords;
use crate::ipc::sync::Ordering;
use crate::limited::{Topic, limited};
use crate::net::handover::{Handover, MOST_BYTES};
use crate::sys::epoll::{Events, Interest, Poller};
use crate::sys::parcel::{Channel, Received, channel};
use crate::sys::socket;

/// The most connections on their way to one worker. If it gets stuck they wait with it.
const WINDOW: u64 = 16;

/// The most connections that are passed on before other work has its turn.
const BATCH: usize = 256;

/// The time until the next try, if no worker can take a connection.
const RETRY: Duration = Duration::from_millis(10);

/// A worker that is in the same callback for longer, or takes nothing for longer, is stuck.
const MOMENT: Duration = Duration::from_millis(20);

/// A look at a worker that is older does not tell whether it makes progress.
const FRESH: Duration = Duration::from_millis(50);

/// A connection on its way: its descriptor and its record.
struct Parcel {
    socket: OwnedFd,
    record: Vec<u8>,
}

/// The last look at a worker's callbacks that found another one than the look before.
#[derive(Clone, Copy, Debug)]
struct Look {
    /// How many had returned.
    number: u64,
    at: Instant,
    /// The look before was only shortly before.
    has_progressed: bool,
}

/// The manager's end of a worker's channel.
#[derive(Debug)]
pub(super) struct Passage {
    channel: Channel,
    /// It may have something to read.
    has_news: bool,
    /// The worker was asked to leave while the server goes on, and gives its connections away.
    gives: bool,
    /// The worker was told that it gets no more.
    is_finished: bool,
    sent: u64,
    /// The last look at what the worker has taken, and since when it has not changed.
    taken: (u64, Instant),
    callback: Option<Look>,
}

impl Passage {
    pub(super) fn new(channel: Channel, now: Instant) -> Passage {
        Passage {
            channel,
            has_news: false,
            gives: false,
            is_finished: false,
            sent: 0,
            taken: (0, now),
            callback: None,
        }
    }

    /// Tells the worker that it gets no more connections.
    fn finish(&mut self) {
        if !std::mem::replace(&mut self.is_finished, true)
            && let Err(error) = self.channel.finish()
        {
            log::debug!("a worker's channel is closed already: {error}");
        }
    }

    /// Returns the number of connections that are on their way to the worker, as far as it says.
    fn under_way(&mut self, words: &SlotWords, now: Instant) -> u64 {
        // SYNC POINT with the worker's `publish_taken`: its number of connections is read after this.
        let taken = words.taken.load(Ordering::Acquire).min(self.sent);
        if self.taken.0 != taken || taken == self.sent {
            self.taken = (taken, now);
        }
        self.sent - taken
    }

    /// Whether the worker seems to make progress.
    fn is_live(&mut self, words: &SlotWords, now: Instant) -> bool {
        let is_within = |at, time| now.saturating_duration_since(at) <= time;
        let number = words.activity.completed();
        let look = match self.callback {
            Some(look) if look.number == number => look,
            last => Look {
                number,
                at: now,
                has_progressed: last.is_some_and(|last| is_within(last.at, FRESH)),
            },
        };
        self.callback = Some(look);
        let is_short = look.has_progressed && is_within(look.at, MOMENT);
        is_within(self.taken.1, MOMENT) && (!words.activity.is_busy() || is_short)
    }
}

/// The connections that are in this process, on their way to a worker.
#[derive(Default)]
pub(super) struct Relay {
    waiting: VecDeque<Parcel>,
    /// The channels of workers that have ended, with connections in them.
    left: Vec<Channel>,
    retry_at: Option<Instant>,
    buffer: Vec<u8>,
}

impl Relay {
    /// Takes a client that no worker has accepted.
    pub(super) fn take_client(&mut self, socket: OwnedFd, handover: &Handover) {
        self.waiting.push_back(Parcel {
            socket,
            record: handover.encode(),
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

    /// Returns the number of clients that no worker has got, and resets them.
    pub(super) fn reset_all(&mut self) -> usize {
        let count = self.waiting.len();
        for parcel in self.waiting.drain(..) {
            socket::reset(parcel.socket);
        }
        count
    }

    /// Reads one record of a channel. `Err` if there is none now; with true, if there never will be one.
    fn receive(buffer: &mut Vec<u8>, channel: &Channel) -> Result<Option<Parcel>, bool> {
        // One more than is allowed, so that a longer record is noticed.
        buffer.resize(MOST_BYTES + 1, 0);
        match channel.receive(buffer) {
            Ok(Received::Record(len, mut descriptors)) => {
                let record = &buffer[..len];
                let socket = descriptors.pop().filter(|_| descriptors.is_empty());
                let parcel = socket.filter(|_| Handover::decode(record).is_some());
                if parcel.is_none() {
                    limited!(
                        error,
                        Topic::NotWatched,
                        "a worker gives a connection away that this process can't take: it is closed"
                    );
                }
                Ok(parcel.map(|socket| Parcel {
                    socket,
                    record: record.to_vec(),
                }))
            }
            Ok(Received::Nothing) => Err(false),
            Ok(Received::End) => Err(true),
            Err(error) => {
                log::error!("cannot read a worker's channel: {error}");
                Err(true)
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
            let Some(target) = self.target(now) else {
                if self.has_parcels() {
                    self.relay.retry_at = Some(now + RETRY);
                }
                return;
            };
            let Some(parcel) = self.next_parcel() else {
                self.finish_passages();
                return;
            };
            if let Some(parcel) = self.send(target, parcel) {
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
    fn next_parcel(&mut self) -> Option<Parcel> {
        let Relay {
            waiting,
            left,
            buffer,
            ..
        } = &mut self.relay;
        if let Some(parcel) = waiting.pop_front() {
            return Some(parcel);
        }
        while let Some(channel) = left.last() {
            match Relay::receive(buffer, channel) {
                Ok(Some(parcel)) => return Some(parcel),
                Ok(None) => {}
                // Its worker is dead: no more comes.
                Err(_) => drop(left.pop()),
            }
        }
        for slot in &mut self.slots {
            let handle = slot.handle.as_mut();
            let Some(passage) = handle.and_then(|handle| handle.passage.as_mut()) else {
                continue;
            };
            while passage.has_news {
                match Relay::receive(buffer, &passage.channel) {
                    Ok(Some(parcel)) => return Some(parcel),
                    Ok(None) => {}
                    Err(is_over) => {
                        passage.has_news = false;
                        passage.gives &= !is_over;
                    }
                }
            }
        }
        None
    }

    /// Returns the slot of the worker that is to take the next connection. It makes progress; one that is in no
    /// callback goes before, and then one with few connections.
    fn target(&mut self, now: Instant) -> Option<usize> {
        let (most, is_stopping) = (self.config.max_connections as u64, self.doors.has_stopped());
        let load = |(number, slot): (usize, &mut Slot)| {
            if !takes(&self.roster, number, is_stopping) {
                return None;
            }
            let words = &slot.memory.words;
            let passage = slot.handle.as_mut()?.passage.as_mut()?;
            let under_way = passage.under_way(words, now);
            let connections = words.connections.load(Ordering::Relaxed);
            let load = connections.saturating_add(under_way);
            let is_busy = words.activity.is_busy();
            let has_room = load < most && under_way < WINDOW && !passage.is_finished;
            (passage.is_live(words, now) && has_room).then_some((is_busy, load, number))
        };
        let loads = self.slots.iter_mut().enumerate().filter_map(load);
        loads.min().map(|(_, _, number)| number)
    }

    /// Sends a connection to a worker. Returns it if that fails.
    fn send(&mut self, slot: usize, parcel: Parcel) -> Option<Parcel> {
        let Some(passage) = self.passage(slot) else {
            return Some(parcel);
        };
        let sent = passage
            .channel
            .try_send(&parcel.record, parcel.socket.as_fd());
        match sent {
            Ok(true) => {
                passage.sent += 1;
                None
            }
            Ok(false) => Some(parcel),
            Err(error) => {
                // It is dead, and about to be reaped.
                log::debug!("cannot pass a connection on: {error}");
                passage.is_finished = true;
                Some(parcel)
            }
        }
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

/// Whether a worker takes connections of others.
fn takes(roster: &Roster, slot: usize, is_stopping: bool) -> bool {
    roster.worker(slot).is_some_and(|worker| match is_stopping {
        true => worker.has_served_seat(),
        false => worker.serves_seat(),
    })
}
