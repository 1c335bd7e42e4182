//! The connections of one owner, a reactor or a base mode worker: their ids, the events that epoll
//! watches them for, and the list of touched ones.
//!
//! Its one rule: a change of a connection only touches it. The flow advances it afterwards.

use std::io;
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use slab::Slab;

use super::connection::{Connection, Target};
use crate::config::ListenerId;
use crate::conn_id::{ConnId, MAX_KEYS};
use crate::peer::Peer;
use crate::sys::epoll::{Interest, Poller};

/// The initial capacity of the list of touched connections, so that it rarely allocates.
const USUAL: usize = 64;

/// A source of generations, no two the same.
pub(crate) type Names = Box<dyn FnMut() -> NonZeroU32 + Send>;

/// Returns the generations of an owner that lives as long as the server.
pub(crate) fn count_names() -> Names {
    let mut last = 0u32;
    Box::new(move || {
        last = last.checked_add(1).unwrap_or(1);
        NonZeroU32::new(last).unwrap_or(NonZeroU32::MIN)
    })
}

pub(crate) struct Table {
    owner: u16,
    connections: Slab<Connection>,
    /// Mailboxes: they submit frames as connections do, and have no socket. Their keys follow those of connections.
    mailboxes: Slab<Connection>,
    /// The generations of new connections, unique within this owner.
    names: Names,
    /// Mailboxes have generations of their own: those of connections are without gaps.
    mailbox_names: Names,
    named: u64,
    /// The generation of the first connection.
    first: u32,
    touched: Vec<ConnId>,
    /// Shared with the event loop, which waits on it, and with the acceptor.
    poller: Arc<Poller>,
}

impl Table {
    pub(crate) fn new(owner: u16, names: Names, poller: Arc<Poller>) -> Table {
        Table {
            owner,
            connections: Slab::new(),
            mailboxes: Slab::new(),
            names,
            mailbox_names: count_names(),
            named: 0,
            first: 0,
            touched: Vec::with_capacity(USUAL),
            poller,
        }
    }

    /// Returns the poller that watches its connections.
    pub(crate) fn poller(&self) -> Arc<Poller> {
        Arc::clone(&self.poller)
    }

    pub(crate) fn owner(&self) -> u16 {
        self.owner
    }

    pub(crate) fn len(&self) -> usize {
        self.connections.len()
    }

    /// Returns the number of connections since the start.
    pub(crate) fn named(&self) -> u64 {
        self.named
    }

    /// Whether an id of this owner is of this table. Others are of the tables before it, whose connections may be
    /// with other owners by now.
    pub(crate) fn has_named(&self, id: ConnId) -> bool {
        let number = id.generation().wrapping_sub(self.first);
        id.owner() == self.owner && u64::from(number) < self.named
    }

    /// Adds a connection, watched for input, and touches it.
    ///
    /// # Errors
    /// Those of epoll_ctl(2); the socket is closed then.
    pub(crate) fn add(
        &mut self,
        socket: OwnedFd,
        peer: Peer,
        listener: ListenerId,
    ) -> io::Result<&mut Connection> {
        let generation = (self.names)();
        if self.named == 0 {
            self.first = generation.get();
        }
        self.named += 1;
        let entry = self.connections.vacant_entry();
        let id = ConnId::new(self.owner, entry.key() as u32, generation);
        self.poller.add(&socket, id.as_u64(), Interest::READ)?;
        let conn = entry.insert(Connection::new(id, socket, peer, listener));
        conn.touched = true;
        self.touched.push(id);
        Ok(conn)
    }

    /// Adds a mailbox, whose frames go to this seat, or to any.
    pub(crate) fn add_mailbox(&mut self, target: Target) -> &mut Connection {
        let entry = self.mailboxes.vacant_entry();
        let key = MAX_KEYS + entry.key() as u32;
        let id = ConnId::new(self.owner, key, (self.mailbox_names)());
        entry.insert(Connection::mailbox(id, target))
    }

    /// Returns the connection or the mailbox with this id, if it is still in the table.
    pub(crate) fn get_mut(&mut self, id: ConnId) -> Option<&mut Connection> {
        let conn = match id.key().checked_sub(MAX_KEYS as usize) {
            None => self.connections.get_mut(id.key()),
            Some(key) => self.mailboxes.get_mut(key),
        };
        conn.filter(|conn| conn.id == id)
    }

    /// Returns the connection or the mailbox with this id, if it is still in the table.
    pub(crate) fn get(&self, id: ConnId) -> Option<&Connection> {
        let conn = match id.key().checked_sub(MAX_KEYS as usize) {
            None => self.connections.get(id.key()),
            Some(key) => self.mailboxes.get(key),
        };
        conn.filter(|conn| conn.id == id)
    }

    /// Returns how many places for connections there are.
    pub(crate) fn places(&self) -> usize {
        self.connections.capacity()
    }

    /// Returns the connection at a place.
    pub(crate) fn at(&self, place: usize) -> Option<&Connection> {
        self.connections.get(place)
    }

    /// Touches every mailbox.
    pub(crate) fn touch_mailboxes(&mut self) {
        let ids: Vec<ConnId> = self
            .mailboxes
            .iter()
            .map(|(_, mailbox)| mailbox.id)
            .collect();
        ids.into_iter().for_each(|id| self.touch(id));
    }

    /// Returns the number of mailboxes.
    pub(crate) fn mailbox_count(&self) -> usize {
        self.mailboxes.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Connection> {
        self.connections.iter().map(|(_, conn)| conn)
    }

    /// Returns all ids, for the rare walks over all connections.
    pub(crate) fn ids(&self) -> Vec<ConnId> {
        self.iter().map(|conn| conn.id).collect()
    }

    pub(crate) fn remove(&mut self, id: ConnId) -> Option<Connection> {
        self.get(id)?;
        Some(match id.key().checked_sub(MAX_KEYS as usize) {
            None => self.connections.remove(id.key()),
            Some(key) => self.mailboxes.remove(key),
        })
    }

    /// Puts the connection on the list of those to advance.
    pub(crate) fn touch(&mut self, id: ConnId) {
        if let Some(conn) = self.get_mut(id)
            && !conn.touched
        {
            conn.touched = true;
            self.touched.push(id);
        }
    }

    /// Removes and returns the next connection to advance.
    pub(crate) fn next_touched(&mut self) -> Option<ConnId> {
        let id = self.touched.pop()?;
        if let Some(conn) = self.get_mut(id) {
            conn.touched = false;
        }
        Some(id)
    }

    /// Updates the events that epoll watches the connection for, if they have changed.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub(crate) fn watch(&mut self, id: ConnId) -> io::Result<()> {
        let conn = self
            .connections
            .get_mut(id.key())
            .filter(|conn| conn.id == id);
        let Some(conn) = conn else {
            return Ok(());
        };
        let interest = conn.interest();
        if let Some(socket) = &conn.socket
            && conn.watched != interest
        {
            conn.watched = interest;
            self.poller.modify(socket, id.as_u64(), interest)?;
        }
        Ok(())
    }

    /// Stops watching a socket that is about to be closed.
    pub(crate) fn unwatch(&self, socket: &OwnedFd) {
        if let Err(error) = self.poller.remove(socket) {
            log::error!("cannot stop watching a socket: {error}");
        }
    }
}
