//! A worker's part in the exchange of connections: it takes those that the manager passes on to it, and gives
//! its own away when it leaves.
//!
//! Runs in each base mode worker. Its one rule: a connection is given away between two callbacks, and only
//! while nothing is due to it; otherwise it stays until the next look.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::time::Duration;

use super::asides;
use crate::conn_id::ConnId;
use crate::flow::{Flow, Move};
use crate::ipc::layout::{Shared, SlotWords};
use crate::ipc::sync::Ordering;
use crate::net::arrival::{Arrival, receive};
use crate::net::handover::Handover;
use crate::sys::epoll::{Interest, Poller};
use crate::sys::parcel::Channel;

/// The time until the next try, if the manager takes no connection now.
const RETRY: u64 = 10;

/// The time between two looks at all connections that are left.
const SCAN: u64 = 50;

/// The most posts of other programs that are taken before other work has its turn.
const MOST_POSTS: usize = 64;

/// This worker's channel to the manager, and the connections that are to be given away.
pub(super) struct Exchange {
    channel: Channel,
    words: Shared<SlotWords>,
    buffer: Vec<u8>,
    taken: u64,
    /// The manager passes no more on.
    has_ended: bool,
    /// The connections to be looked at next.
    queue: VecDeque<ConnId>,
    /// When to go on, in the loop's time.
    next_at: Option<u64>,
}

impl Exchange {
    pub(super) fn new(
        channel: Channel,
        words: Shared<SlotWords>,
        poller: &Poller,
        token: u64,
    ) -> std::io::Result<Exchange> {
        channel.keep_from_children();
        poller.add(&channel, token, Interest::READ)?;
        Ok(Exchange {
            channel,
            words,
            buffer: Vec::new(),
            taken: 0,
            has_ended: false,
            queue: VecDeque::new(),
            next_at: None,
        })
    }

    /// Whether no more connections come.
    pub(super) fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Returns the next connection that the manager has passed on.
    /// Posts before it are put into a mailbox.
    pub(super) fn take(&mut self, poller: &Poller, flow: &mut Flow) -> Option<(OwnedFd, Handover)> {
        for _ in 0..MOST_POSTS {
            match receive(&self.channel, &mut self.buffer) {
                Arrival::Connection(socket, handover) => {
                    self.taken += 1;
                    return Some((socket, *handover));
                }
                // Dropped, with a line in the log, if too much is kept.
                Arrival::Post(bytes) => asides::apply_post(flow, &bytes),
                Arrival::Unusable => {
                    self.taken += 1;
                    // Otherwise it would be on its way for good, and no connection would come after it.
                    self.publish_taken();
                }
                Arrival::Nothing => return None,
                Arrival::End => {
                    self.end(poller);
                    return None;
                }
            }
        }
        // The channel is reported again.
        None
    }

    fn end(&mut self, poller: &Poller) {
        self.has_ended = true;
        self.buffer = Vec::new();
        if let Err(error) = poller.remove(&self.channel) {
            log::debug!("cannot stop watching the manager's channel: {error}");
        }
    }

    /// Tells the manager how many connections this worker has taken. Those are part of its published number.
    pub(super) fn publish_taken(&self) {
        // SYNC POINT with the manager's look at it: a manager that sees this number sees the connections too.
        self.words.taken.store(self.taken, Ordering::Release);
    }

    /// This worker is to leave, and gives all its connections away.
    pub(super) fn begin_to_give(&mut self, flow: &Flow) {
        self.queue = flow.ids().into();
        self.next_at = Some(flow.now());
    }

    /// Something has happened on a connection: it may be movable now.
    pub(super) fn look_at(&mut self, conn: ConnId) {
        if self.next_at.is_some() {
            self.queue.push_back(conn);
        }
    }

    /// Gives connections away, as many as are movable and as the manager takes.
    pub(super) fn give(&mut self, flow: &mut Flow) {
        let Some(next_at) = self.next_at else { return };
        let now = flow.now();
        if next_at <= now && self.queue.is_empty() {
            self.queue = flow.ids().into();
        }
        while let Some(conn) = self.queue.pop_front() {
            let moved = flow.hand_over(conn, |handover, socket| {
                self.channel.try_send(&handover.encode(), socket)
            });
            match moved {
                Move::Done | Move::Stays => {}
                Move::NoRoom => {
                    self.queue.push_front(conn);
                    self.next_at = Some(now + RETRY);
                    return;
                }
            }
        }
        if next_at <= now {
            self.next_at = Some(now + SCAN);
        }
    }

    /// Returns the time until the next try.
    pub(super) fn next_try(&self, flow: &Flow) -> Option<Duration> {
        let at = self.next_at.filter(|_| flow.len() > 0)?;
        Some(Duration::from_millis(at.saturating_sub(flow.now())))
    }

    /// This worker gives no more away.
    pub(super) fn finish(&mut self) {
        self.next_at = None;
        self.queue = VecDeque::new();
        self.channel.finish();
    }
}
