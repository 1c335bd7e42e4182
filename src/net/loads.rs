//! Counters: the connections of each owner, and the open sockets of the process.
//!
//! Shared by all reactor threads of the master; a base mode worker has its own. Their one rule: but for the
//! limits of each client they only guide. They are read and written in relaxed order: a stale value costs balance and nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::admission::Admission;
use super::census::Census;
use crate::config::ListenerId;
use crate::peer::Peer;

/// The loads of all owners in this process.
#[derive(Debug)]
pub(crate) struct Loads {
    owners: Vec<AtomicUsize>,
    /// Open sockets. A connection may outlive its socket, until its `close` callback has run.
    sockets: AtomicUsize,
    /// The rules about clients.
    admission: Admission,
    /// The members of groups, if there is more than one owner.
    census: Option<Census>,
}

impl Loads {
    pub(crate) fn new(owners: usize, admission: Admission) -> Loads {
        Loads {
            owners: (0..owners).map(|_| AtomicUsize::new(0)).collect(),
            sockets: AtomicUsize::new(0),
            admission,
            census: (owners > 1).then(Census::new),
        }
    }

    /// Returns who is let in.
    pub(crate) fn admission(&self) -> &Admission {
        &self.admission
    }

    /// Returns the number of clients' open sockets in this process.
    pub(crate) fn sockets(&self) -> usize {
        self.sockets.load(Ordering::Relaxed)
    }

    #[cfg(test)]
    pub(crate) fn connections_of(&self, owner: usize) -> usize {
        self.owners[owner].load(Ordering::Relaxed)
    }

    /// Returns the owner with the fewest connections, and counts a new one there.
    pub(crate) fn enter(&self) -> usize {
        let load = |owner: &usize| self.owners[*owner].load(Ordering::Relaxed);
        let owner = (0..self.owners.len()).min_by_key(load).unwrap_or(0);
        self.enter_at(owner);
        owner
    }

    /// Counts a new connection of this owner.
    pub(crate) fn enter_at(&self, owner: usize) {
        self.owners[owner].fetch_add(1, Ordering::Relaxed);
        self.sockets.fetch_add(1, Ordering::Relaxed);
    }
}

/// The load of one owner.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    all: Arc<Loads>,
    owner: usize,
}

impl Load {
    /// Returns the numbers of members of groups in all owners; `None` if there is only this one.
    pub(crate) fn census(&self) -> Option<&Census> {
        self.all.census.as_ref()
    }

    pub(crate) fn of(all: &Arc<Loads>, owner: usize) -> Load {
        Load {
            all: Arc::clone(all),
            owner,
        }
    }

    /// Counts a new connection of the client that the header of a proxy has named. Returns whether it may stay.
    pub(crate) fn admit_client(&self, peer: Peer, listener: ListenerId) -> bool {
        self.all.admission.admit_client(peer, listener)
    }

    /// The socket of an admitted connection is closed. `None` stands for a client that is not known.
    pub(crate) fn socket_closed(&self, peer: Option<Peer>, listener: ListenerId) {
        self.all.sockets.fetch_sub(1, Ordering::Relaxed);
        if let Some(peer) = peer {
            self.all.admission.leave(peer, listener);
        }
    }

    /// A new connection is closed before it was entered.
    pub(crate) fn newcomer_closed(&self, (peer, listener): (Peer, ListenerId)) {
        let is_known = !self.all.admission.is_proxied(listener);
        self.socket_closed(is_known.then_some(peer), listener);
    }

    /// Returns the numbers of connections of all owners that were not admitted since the start.
    #[cfg(feature = "status")]
    pub(crate) fn refused(&self) -> [u64; 3] {
        self.all.admission.refused()
    }

    /// A connection is gone; its socket was closed before.
    pub(crate) fn leave(&self) {
        self.all.owners[self.owner].fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_connection_goes_to_the_owner_with_the_fewest() {
        let loads = Arc::new(Loads::new(3, Admission::none()));
        let entered: Vec<usize> = (0..7).map(|_| loads.enter()).collect();
        assert_eq!(entered, [0, 1, 2, 0, 1, 2, 0]);
        let second = Load::of(&loads, 1);
        second.leave();
        second.leave();
        assert_eq!([loads.enter(), loads.enter()], [1, 1]);
    }

    #[test]
    fn a_socket_may_close_before_its_connection_is_gone() {
        let loads = Arc::new(Loads::new(1, Admission::none()));
        (0..3).for_each(|_| assert_eq!(loads.enter(), 0));
        let load = Load::of(&loads, 0);
        load.socket_closed(Some(Peer::Ip(([10, 0, 0, 1], 1).into())), ListenerId(0));
        assert_eq!(loads.sockets(), 2);
        load.leave();
        assert_eq!(loads.sockets(), 2);
    }
}
