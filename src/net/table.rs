//! The connections of one owner, a reactor or a base mode worker: their names, what epoll watches them
//! for, and which of them are touched.
//!
//! Its one rule: whatever changes a connection only touches it. The flow advances it afterwards.

use std::io;
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use slab::Slab;

use super::connection::Connection;
use crate::config::ListenerId;
use crate::conn_id::ConnId;
use crate::peer::Peer;
use crate::sys::epoll::{Interest, Poller};

/// There is memory for this many touched connections from the beginning: that there are more at a time
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

pub(crate) struct Table {
    owner: u16,
    connections: Slab<Connection>,
    /// The next generation: unique among all connections of this owner.
    names: Names,
    named: u64,
    touched: Vec<ConnId>,
    /// Shared with the loop, which waits on it, and the acceptor.
    poller: Arc<Poller>,
}

impl Table {
    pub(crate) fn new(owner: u16, names: Names, poller: Arc<Poller>) -> Table {
        Table {
            owner,
            connections: Slab::new(),
            names,
            named: 0,
            touched: Vec::with_capacity(USUAL),
            poller,
        }
    }

    pub(crate) fn owner(&self) -> u16 {
        self.owner
    }

    pub(crate) fn len(&self) -> usize {
        self.connections.len()
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
    ) -> io::Result<&mut Connection> {
        let generation = (self.names)();
        self.named += 1;
        let entry = self.connections.vacant_entry();
        let id = ConnId::new(self.owner, entry.key() as u32, generation);
        self.poller.add(&socket, id.as_u64(), Interest::READ)?;
        let conn = entry.insert(Connection::new(id, socket, peer, listener));
        conn.touched = true;
        self.touched.push(id);
        Ok(conn)
    }

    /// The connection of that name, if it is still in the table.
    pub(crate) fn get_mut(&mut self, id: ConnId) -> Option<&mut Connection> {
        self.connections
            .get_mut(id.key())
            .filter(|conn| conn.id == id)
    }

    pub(crate) fn get(&self, id: ConnId) -> Option<&Connection> {
        self.connections.get(id.key()).filter(|conn| conn.id == id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Connection> {
        self.connections.iter().map(|(_, conn)| conn)
    }

    /// All names, for the rare walks over everything.
    pub(crate) fn ids(&self) -> Vec<ConnId> {
        self.iter().map(|conn| conn.id).collect()
    }

    pub(crate) fn remove(&mut self, id: ConnId) -> Option<Connection> {
        self.get(id)?;
        Some(self.connections.remove(id.key()))
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

    /// Tells epoll what the connection is to be watched for, where that has changed.
    ///
    /// # Errors
    /// What epoll_ctl(2) says.
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
