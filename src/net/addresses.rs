//! The connections of each client, by address or user, for `max_connections_per_address`.
//!
//! Shared by all reactor threads of the master, so that the count is that of the server; a base mode worker
//! has its own. Its one rule: it costs nothing per message, and a lock for a few instructions at accept and at
//! close, if there is a limit.

use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::config::networks::Prefix;
use crate::limited::{Topic, limited};
use crate::peer::{Client, Peer};

/// Reactors that count different addresses at the same moment rarely wait for each other.
const PARTS: usize = 64;

/// The client that counts: a network of some bits, or a user.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Origin {
    Network(IpAddr, u8),
    User(u32),
}

impl Origin {
    pub(crate) fn of(peer: Peer, prefix: Prefix) -> Origin {
        match peer.client() {
            Client::Ip(address) => {
                let network = prefix.of(address);
                let bits = if network.is_ipv4() {
                    prefix.v4
                } else {
                    prefix.v6
                };
                Origin::Network(network, bits)
            }
            Client::User(user) => Origin::User(user),
        }
    }
}

/// The counts, and their limit.
#[derive(Debug)]
pub(crate) struct Addresses {
    most: u32,
    parts: Vec<Mutex<HashMap<Origin, u32>>>,
    hasher: RandomState,
    refused: AtomicU64,
}

impl Addresses {
    pub(crate) fn new(most: u32) -> Addresses {
        Addresses {
            most,
            parts: (0..PARTS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            refused: AtomicU64::new(0),
        }
    }

    fn part(&self, origin: Origin) -> MutexGuard<'_, HashMap<Origin, u32>> {
        let part = self.hasher.hash_one(origin) as usize % PARTS;
        lock(&self.parts[part])
    }

    /// Counts a new connection, unless its address has too many. Returns whether it may stay.
    pub(crate) fn enter(&self, origin: Origin, peer: Peer) -> bool {
        let mut part = self.part(origin);
        let count = part.entry(origin).or_insert(0);
        if *count < self.most {
            *count += 1;
            return true;
        }
        drop(part);
        self.refuse(peer);
        false
    }

    /// Counts a connection that was admitted in another process, whatever the limit.
    pub(crate) fn enter_moved(&self, origin: Origin) {
        *self.part(origin).entry(origin).or_insert(0) += 1;
    }

    /// A counted connection is closed.
    pub(crate) fn leave(&self, origin: Origin) {
        if let Entry::Occupied(mut count) = self.part(origin).entry(origin) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }

    /// Returns the number of connections that were refused since the start.
    #[cfg(any(test, feature = "status"))]
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    fn refuse(&self, peer: Peer) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        limited!(
            warn,
            Topic::Refused,
            "connection from {peer} refused: its address has {} open ones already (max_connections_per_address)",
            self.most
        );
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.parts.iter().map(|part| lock(part).len()).sum()
    }
}

/// A panic elsewhere does not make a count wrong.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(address: &str) -> Peer {
        Peer::Ip((address.parse::<IpAddr>().unwrap(), 7).into())
    }

    fn enter(addresses: &Addresses, peer: Peer) -> bool {
        addresses.enter(Origin::of(peer, Prefix::DEFAULT), peer)
    }

    fn leave(addresses: &Addresses, peer: Peer) {
        addresses.leave(Origin::of(peer, Prefix::DEFAULT));
    }

    #[test]
    fn an_address_has_its_number_of_connections_and_no_more() {
        let addresses = Addresses::new(2);
        let one = peer("10.0.0.1");
        assert!(enter(&addresses, one) && enter(&addresses, one));
        assert!(!enter(&addresses, one));
        assert!(enter(&addresses, peer("10.0.0.2")));
        assert!(
            !enter(&addresses, peer("::ffff:10.0.0.1")),
            "the same client"
        );
        leave(&addresses, one);
        assert!(enter(&addresses, one) && !enter(&addresses, one));
        assert_eq!(addresses.refused(), 3);
    }

    #[test]
    fn the_addresses_of_one_network_of_ipv6_count_together() {
        let addresses = Addresses::new(1);
        assert!(enter(&addresses, peer("2001:db8:1:2::1")));
        assert!(!enter(&addresses, peer("2001:db8:1:2:ffff::9")));
        assert!(enter(&addresses, peer("2001:db8:1:3::1")));
    }

    #[test]
    fn an_address_without_connections_is_forgotten() {
        let addresses = Addresses::new(5);
        for number in 0..10_000u32 {
            let peer = Peer::Ip((IpAddr::from(number.to_be_bytes()), 1).into());
            assert!(enter(&addresses, peer));
            leave(&addresses, peer);
        }
        assert_eq!(addresses.len(), 0);
    }

    #[test]
    fn threads_that_race_for_one_address_stay_within_its_limit() {
        let addresses = Addresses::new(100);
        let one = peer("10.0.0.1");
        let enter = || (0..80).filter(|_| enter(&addresses, one)).count();
        let entered: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(enter)).collect();
            threads.into_iter().map(|it| it.join().unwrap()).sum()
        });
        assert_eq!((entered, addresses.refused()), (100, 220));
    }
}
