//! The new connections of each client in a second, for `max_new_per_second`.
//!
//! Shared by all reactor threads of the master; a base mode worker has its own. Its one rule: a table of fixed size, in which
//! each client is found in a fixed number of steps. Where there is no room for another client, the one that is
//! nearest to its full number is forgotten: a flood from many addresses gets some of them more than their number, and
//! nobody less.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// The sets of the table, each with a lock of its own, and the clients in each.
const SETS: usize = 2048;
const WAYS: usize = 8;

/// The microseconds of a second.
const SECOND: u64 = 1_000_000;

/// One client: a bucket of tokens, in the form of the time at which it is full again (GCRA, the generic cell rate
/// algorithm).
#[derive(Clone, Copy, Default)]
struct Bucket {
    /// What is left of the client: its hash by a random key, 64 bits.
    client: u64,
    /// In microseconds since the start. The bucket is full from then on.
    full_at: u64,
}

/// The table, and the rate.
pub(crate) struct Rates {
    sets: Vec<Mutex<[Bucket; WAYS]>>,
    hasher: RandomState,
    since: Instant,
    /// The microseconds in which a client has one more connection.
    interval: u64,
}

impl std::fmt::Debug for Rates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rates")
            .field("interval", &self.interval)
            .finish_non_exhaustive()
    }
}

impl Rates {
    /// Each client may have so many new connections in a second, at least 1, and as many at once.
    pub(crate) fn new(per_second: u32) -> Rates {
        Rates {
            sets: (0..SETS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            since: Instant::now(),
            interval: SECOND / u64::from(per_second.max(1)),
        }
    }

    /// Counts a new connection of a client. Returns whether it is within the rate.
    pub(crate) fn enter(&self, client: impl Hash) -> bool {
        self.enter_at(client, self.since.elapsed().as_micros() as u64)
    }

    fn enter_at(&self, client: impl Hash, now: u64) -> bool {
        let client = self.hasher.hash_one(client);
        let set = &self.sets[client as usize % SETS];
        let mut set = set.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = match set.iter().position(|bucket| bucket.client == client) {
            Some(known) => &mut set[known],
            None => {
                let fullest = set.iter_mut().min_by_key(|bucket| bucket.full_at);
                let Some(fullest) = fullest else { return true };
                *fullest = Bucket { client, full_at: 0 };
                fullest
            }
        };
        let full_at = bucket.full_at.max(now) + self.interval;
        if full_at > now + SECOND {
            return false;
        }
        bucket.full_at = full_at;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_its_rate_and_saves_up_a_second_of_it() {
        let rates = Rates::new(10);
        let entered = |client: u32, now| (0..100).filter(|_| rates.enter_at(client, now)).count();
        assert_eq!(entered(1, 0), 10, "it comes with a full bucket");
        assert_eq!(entered(1, 99_999), 0);
        assert_eq!(entered(1, 100_000), 1);
        assert_eq!(entered(2, 100_000), 10, "another client");
        assert_eq!(entered(1, 60 * SECOND), 10, "no more than a second's");
        let slow = Rates::new(1);
        assert!(slow.enter_at(1, 5));
        assert!(!slow.enter_at(1, SECOND + 4) && slow.enter_at(1, SECOND + 5));
    }

    #[test]
    fn a_flood_of_clients_makes_no_other_one_poorer() {
        let rates = Rates::new(3);
        for client in 0..100_000u32 {
            assert!(rates.enter_at(client, 7), "a new client is never refused");
        }
        let all: usize = (0..1000).filter(|_| rates.enter_at(100_001u32, 8)).count();
        assert_eq!(all, 3, "the one that comes last has its place");
    }
}
