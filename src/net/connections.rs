//! The connections of one owner, a reactor or a base mode worker: the table, and what can be done
//! to a connection's socket.
//!
//! Nothing here calls back: whatever changes a connection notes it as touched, and the pipeline
//! advances it afterwards.

use std::num::NonZeroU32;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use slab::Slab;

use super::budget::Budget;
use super::connection::{Connection, Input, Wait};
use super::deadline::Deadlines;
use super::dispatch::Loads;
use super::spares;
use crate::config::{Config, LINGER, ListenerId};
use crate::conn_id::ConnId;
use crate::handler::CloseReason;
use crate::ipc::frame::Output;
use crate::ipc::memory::SharedBytes;
use crate::peer::Peer;
use crate::sys::epoll::{Interest, Poller};
use crate::sys::socket;

/// There is memory for so many touched connections from the beginning: that there are more at a time
/// than ever before is no reason to go to the heap.
const USUAL: usize = 64;

/// Gives generations, no two the same.
pub(crate) type Names = Box<dyn FnMut() -> NonZeroU32 + Send>;

/// Generations for an owner that lives as long as the server.
pub(crate) fn count_names() -> Names {
    let mut last = 0u32;
    Box::new(move || {
        last = last.checked_add(1).unwrap_or(1);
        NonZeroU32::new(last).unwrap_or(NonZeroU32::MIN)
    })
}

pub(crate) struct Connections {
    owner: u16,
    pub(super) table: Slab<Connection>,
    /// The next generation: unique among all connections of this owner.
    names: Names,
    named: u64,
    touched: Vec<ConnId>,
    pub(crate) poller: Poller,
    pub(super) config: Arc<Config>,
    pub(super) budget: Budget,
    pub(super) loads: Arc<Loads>,
    pub(super) close_deadlines: Option<Deadlines>,
    pub(super) linger_deadlines: Deadlines,
}

impl Connections {
    pub(crate) fn new(
        owner: u16,
        names: Names,
        poller: Poller,
        config: Arc<Config>,
        loads: Arc<Loads>,
    ) -> Connections {
        // A worker of base mode has the budget to itself.
        let budget = Budget::new(config.memory_budget / config.reactors.max(1));
        Connections {
            owner,
            table: Slab::new(),
            names,
            named: 0,
            touched: Vec::with_capacity(USUAL),
            poller,
            close_deadlines: config.close_deadline.map(Deadlines::new),
            linger_deadlines: Deadlines::new(LINGER),
            config,
            budget,
            loads,
        }
    }

    pub(crate) fn owner(&self) -> u16 {
        self.owner
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// How many connections there have ever been.
    pub(crate) fn named(&self) -> u64 {
        self.named
    }

    /// A new connection, watched for input, and touched.
    ///
    /// # Errors
    /// What epoll_ctl(2) says; the socket is closed then.
    pub(crate) fn add(
        &mut self,
        socket: OwnedFd,
        peer: Peer,
        listener: ListenerId,
        seat: u16,
    ) -> std::io::Result<ConnId> {
        let generation = (self.names)();
        self.named += 1;
        let entry = self.table.vacant_entry();
        let id = ConnId::new(self.owner, entry.key() as u32, generation);
        self.poller.add(&socket, id.as_u64(), Interest::READ)?;
        entry.insert(Connection::new(id, socket, peer, listener, seat));
        self.touch(id);
        Ok(id)
    }

    /// The connection of that name, if it is still in the table.
    pub(crate) fn get_mut(&mut self, id: ConnId) -> Option<&mut Connection> {
        self.table.get_mut(id.key()).filter(|conn| conn.id == id)
    }

    pub(crate) fn get(&self, id: ConnId) -> Option<&Connection> {
        self.table.get(id.key()).filter(|conn| conn.id == id)
    }

    pub(crate) fn remove(&mut self, id: ConnId) -> Option<Connection> {
        self.get_mut(id)?;
        let conn = self.table.remove(id.key());
        self.budget.give_back(conn.held());
        Some(conn)
    }

    /// All names, for the rare walks over everything.
    pub(crate) fn ids(&self) -> Vec<ConnId> {
        self.table.iter().map(|(_, conn)| conn.id).collect()
    }

    /// Notes that the connection has something to advance.
    pub(crate) fn touch(&mut self, id: ConnId) {
        if let Some(conn) = self.get_mut(id)
            && !conn.touched
        {
            conn.touched = true;
            self.touched.push(id);
        }
    }

    /// The next connection to advance.
    pub(crate) fn next_touched(&mut self) -> Option<ConnId> {
        let id = self.touched.pop()?;
        if let Some(conn) = self.get_mut(id) {
            conn.touched = false;
        }
        Some(id)
    }

    /// Carries out what a callback asked for.
    pub(crate) fn apply(&mut self, output: Output, bytes: SharedBytes<'_>) {
        match output {
            Output::Send(id) => self.send(id, bytes),
            Output::Close(id) => self.close(id, CloseReason::Handler),
            Output::Reset(id) => self.reset(id, CloseReason::Handler),
            Output::SetUser(id, user) => self.set_user(id, user),
            // What the link and the reactor have acted on: commit records, and what the link has
            // made a `Send` of.
            Output::Flush
            | Output::Done(_)
            | Output::Failed(_)
            | Output::SendReceived(..)
            | Output::CallServer(_) => {}
        }
    }

    /// Notes whose connection it is. It may belong to another seat now.
    fn set_user(&mut self, id: ConnId, user: u64) {
        let Some(conn) = self.get_mut(id) else { return };
        conn.user = Some(user);
        if conn.wait == Wait::Room {
            conn.wait = Wait::Nothing;
            self.touch(id);
        }
    }

    /// Sends: straight to the socket, and what it does not take is kept.
    fn send(&mut self, id: ConnId, bytes: SharedBytes<'_>) {
        let Some(conn) = self.get_mut(id).filter(|conn| conn.takes_output()) else {
            return;
        };
        let mut rest = bytes;
        if conn.unsent.is_empty()
            && let Some(socket) = &conn.socket
        {
            match rest.send(socket.as_fd()) {
                Ok(Some(n)) => {
                    rest = rest.skip(n);
                    conn.progress = true;
                }
                Ok(None) => {}
                Err(error) => return self.broken(id, &error),
            }
        }
        if !rest.is_empty() {
            self.keep(id, rest);
        }
    }

    fn keep(&mut self, id: ConnId, rest: SharedBytes<'_>) {
        let (high_water, limit) = (self.config.output_high_water, self.config.output_limit);
        let Some(conn) = self.get_mut(id) else { return };
        conn.unsent.push(rest);
        let unsent = conn.unsent.len();
        // What is not read any more needs no holding back.
        conn.full |= unsent > high_water && conn.input == Input::Open;
        self.budget.take(rest.len());
        self.touch(id);
        if unsent > limit {
            log::warn!(
                "connection {id}: {unsent} bytes unsent are over output_limit ({limit}): closed"
            );
            self.reset(id, CloseReason::SlowReader);
        } else if self.budget.is_exceeded() {
            self.relieve();
        }
    }

    /// The budget of the process is exceeded: the connection that holds most of it goes.
    pub(crate) fn relieve(&mut self) {
        while self.budget.is_exceeded() {
            let largest = self
                .table
                .iter()
                .map(|(_, conn)| (conn.held(), conn.id))
                .max();
            let Some((held, id)) = largest.filter(|(held, _)| *held > 0) else {
                return;
            };
            log::warn!(
                "memory_budget is exceeded: connection {id}, which holds {held} bytes of it, is closed"
            );
            self.reset(id, CloseReason::SlowReader);
        }
    }

    /// The socket has room again.
    pub(crate) fn writable(&mut self, id: ConnId) {
        let low_water = self.config.output_high_water / 2;
        let Some(conn) = self.get_mut(id) else { return };
        let Some(socket) = &conn.socket else { return };
        match socket::write(socket.as_fd(), conn.unsent.front()) {
            Ok(Some(n)) => {
                conn.unsent.sent(n);
                conn.progress = true;
                conn.full &= conn.unsent.len() > low_water;
                self.budget.give_back(n);
                self.touch(id);
            }
            Ok(None) => {}
            Err(error) => self.broken(id, &error),
        }
    }

    /// Takes away what was read and not delivered, with how much of it was looked at in vain.
    pub(crate) fn take_input(&mut self, id: ConnId) -> (Vec<u8>, usize) {
        let Some(conn) = self.get_mut(id) else {
            return (Vec::new(), 0);
        };
        let (bytes, seen) = (
            std::mem::take(&mut conn.partial),
            std::mem::take(&mut conn.seen),
        );
        self.budget.give_back(bytes.len());
        (bytes, seen)
    }

    /// Keeps what was read and can't be delivered yet, unless the connection takes no input any
    /// more.
    pub(crate) fn keep_input(&mut self, id: ConnId, bytes: Vec<u8>, seen: usize) {
        let Some(conn) = self.get_mut(id).filter(|conn| conn.delivers_input()) else {
            return;
        };
        let len = bytes.len();
        (conn.partial, conn.seen) = (bytes, seen);
        if conn.partial.capacity() > 2 * len + spares::LARGE {
            // Of a long message that is delivered: an idle connection does not keep its memory.
            conn.partial.shrink_to_fit();
        }
        self.budget.take(len);
        if self.budget.is_exceeded() {
            self.relieve();
        }
    }

    /// Tells epoll what the connection is to be watched for, where that has changed.
    pub(crate) fn watch(&mut self, id: ConnId) {
        let Some(conn) = self.table.get_mut(id.key()).filter(|conn| conn.id == id) else {
            return;
        };
        let interest = conn.interest();
        if let Some(socket) = &conn.socket
            && conn.watched != interest
        {
            conn.watched = interest;
            if let Err(error) = self.poller.modify(socket, id.as_u64(), interest) {
                self.broken(id, &error);
            }
        }
    }
}
