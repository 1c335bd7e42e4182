//! How many members each group has in each reactor of a server.
//!
//! Its one rule: a connection is counted before anybody can know that it has joined. So what is published from then on
//! goes to its reactor.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// So that reactors rarely wait for each other.
const PARTS: usize = 16;

/// The reactors with members, and how many each has, by name of the group.
type Sizes = HashMap<Box<[u8]>, Vec<(usize, usize)>>;

#[derive(Debug)]
pub(crate) struct Census {
    parts: [Mutex<Sizes>; PARTS],
    hasher: RandomState,
}

impl Census {
    pub(crate) fn new() -> Census {
        Census {
            parts: Default::default(),
            hasher: RandomState::new(),
        }
    }

    fn part(&self, name: &[u8]) -> MutexGuard<'_, Sizes> {
        let part = self.hasher.hash_one(name) as usize % PARTS;
        // The counts are right also if another thread has panicked.
        let sizes = self.parts[part].lock();
        sizes.unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection of this reactor has joined a group.
    pub(crate) fn joined(&self, name: &[u8], reactor: usize) {
        let mut sizes = self.part(name);
        let Some(counts) = sizes.get_mut(name) else {
            sizes.insert(name.into(), vec![(reactor, 1)]);
            return;
        };
        match counts.iter_mut().find(|(it, _)| *it == reactor) {
            Some((_, count)) => *count += 1,
            None => counts.push((reactor, 1)),
        }
    }

    /// A connection of this reactor has left a group.
    pub(crate) fn left(&self, name: &[u8], reactor: usize) {
        let mut sizes = self.part(name);
        let Some(counts) = sizes.get_mut(name) else {
            return;
        };
        if let Some((_, count)) = counts.iter_mut().find(|(it, _)| *it == reactor) {
            *count -= 1;
        }
        counts.retain(|(_, count)| *count > 0);
        if counts.is_empty() {
            sizes.remove(name);
        }
    }

    /// Returns the number of members of a group.
    pub(crate) fn size(&self, name: &[u8]) -> usize {
        let sizes = self.part(name);
        let counts = sizes.get(name).into_iter().flatten();
        counts.map(|(_, count)| count).sum()
    }

    /// Calls `each` for every reactor with members of a group.
    pub(crate) fn reactors(&self, name: &[u8], each: impl FnMut(usize)) {
        let sizes = self.part(name);
        let counts = sizes.get(name).into_iter().flatten();
        counts.map(|(reactor, _)| *reactor).for_each(each);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_counted_until_the_last_member_leaves() {
        let census = Census::new();
        for (name, reactor) in [(&b"a"[..], 1), (b"b", 0), (b"a", 1), (b"a", 3)] {
            census.joined(name, reactor);
        }
        census.left(b"b", 0);
        census.left(b"never joined", 0);
        census.left(b"a", 2);
        let reactors = |name: &[u8]| {
            let mut reactors = Vec::new();
            census.reactors(name, |reactor| reactors.push(reactor));
            reactors
        };
        assert_eq!((census.size(b"a"), census.size(b"b")), (3, 0));
        assert_eq!((reactors(b"a"), reactors(b"b")), (vec![1, 3], vec![]));
        census.left(b"a", 3);
        census.left(b"a", 1);
        assert_eq!(reactors(b"a"), [1]);
        census.left(b"a", 1);
        let is_empty = |part: &Mutex<Sizes>| part.lock().unwrap().is_empty();
        assert!(census.parts.iter().all(is_empty));
    }
}
