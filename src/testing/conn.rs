//! A connection of a server for tests.

use std::collections::BTreeMap;
use std::time::Duration;

use super::commit::Action;
use crate::config::ListenerId;
use crate::conn_id::ConnId;
use crate::handler::{CloseReason, ConnInfo, Names};
use crate::peer::Peer;

/// A connection of a [`TestServer`](super::TestServer), with the effects of all commits.
#[derive(Clone, Debug)]
pub struct TestConn {
    pub(super) id: ConnId,
    pub(super) peer: Peer,
    pub(super) listener: ListenerId,
    pub(super) sent: Vec<u8>,
    pub(super) user: Option<u64>,
    pub(super) state: Vec<u8>,
    pub(super) groups: Names,
    /// The number of its messages so far.
    pub(super) messages: u64,
    /// By tag.
    pub(super) timers: BTreeMap<u64, Duration>,
    pub(super) is_drain_due: bool,
    /// Why it has ended; `None` before.
    pub(super) end: Option<CloseReason>,
    pub(super) was_reset: bool,
    pub(super) stage: Stage,
}

/// How far a connection is on its way to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    /// Bytes reach the client.
    Open,
    /// A callback has closed it: bytes sent from here on are dropped.
    Closing,
    /// Its `close` has run, or it was reset: nothing has an effect on it.
    Gone,
}

impl TestConn {
    /// Returns what a callback is told of it.
    pub(super) fn info(&self) -> ConnInfo {
        ConnInfo {
            id: self.id,
            peer: self.peer,
            listener: self.listener,
            user: self.user,
            age: Duration::ZERO,
            unsent: 0,
        }
    }

    pub(super) fn new(id: ConnId, peer: Peer, listener: ListenerId) -> TestConn {
        TestConn {
            id,
            peer,
            listener,
            sent: Vec::new(),
            user: None,
            state: Vec::new(),
            groups: Names::default(),
            messages: 0,
            timers: BTreeMap::new(),
            is_drain_due: false,
            end: None,
            was_reset: false,
            stage: Stage::Open,
        }
    }

    /// Applies an action that assigns something to this connection.
    pub(super) fn assign(&mut self, action: &Action) {
        match action {
            Action::SetUser(_, user) => self.user = Some(*user),
            Action::SetState(_, state) => self.state.clone_from(state),
            Action::SetTimer(_, after, tag) => {
                self.timers.insert(*tag, *after);
            }
            Action::CancelTimer(_, tag) => {
                self.timers.remove(tag);
            }
            Action::NotifyDrained(_) => self.is_drain_due = true,
            Action::Join(_, group) => {
                if !self.groups.contains(group) {
                    self.groups.push(group);
                }
            }
            Action::Leave(_, group) => {
                self.groups.remove(group);
            }
            other => unreachable!("{other:?} assigns nothing"),
        }
    }

    /// Returns the connection's id.
    pub fn id(&self) -> ConnId {
        self.id
    }

    /// Returns the client's invented address.
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// Returns all bytes that were sent to the client.
    pub fn sent(&self) -> &[u8] {
        &self.sent
    }

    /// Returns the user id that it is associated with.
    pub fn user(&self) -> Option<u64> {
        self.user
    }

    /// Returns its state; empty if no callback has set one.
    pub fn state(&self) -> &[u8] {
        &self.state
    }

    /// Returns the names of the groups that it is in.
    pub fn groups(&self) -> impl Iterator<Item = &[u8]> {
        self.groups.iter()
    }

    /// Returns its timers: their tags, and the times after which they were set to fire.
    pub fn timers(&self) -> &BTreeMap<u64, Duration> {
        &self.timers
    }

    /// Whether the server has closed it, with FIN or RST.
    pub fn is_closed(&self) -> bool {
        self.end.is_some()
    }

    /// Whether the server has closed it with RST.
    pub fn is_reset(&self) -> bool {
        self.was_reset
    }
}
