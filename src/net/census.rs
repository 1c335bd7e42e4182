//! How many members each group has in all reactors of a server.
//!
//! Its one rule: it is written when connections join and leave, and read when a callback asks. No message waits for it.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// So that reactors rarely wait for each other.
const PARTS: usize = 16;

/// The number of members by name of the group.
type Sizes = HashMap<Box<[u8]>, usize>;

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

    pub(crate) fn joined(&self, name: &[u8]) {
        let mut sizes = self.part(name);
        match sizes.get_mut(name) {
            Some(size) => *size += 1,
            None => drop(sizes.insert(name.into(), 1)),
        }
    }

    pub(crate) fn left(&self, name: &[u8]) {
        let mut sizes = self.part(name);
        if let Some(size) = sizes.get_mut(name) {
            *size -= 1;
            if *size == 0 {
                sizes.remove(name);
            }
        }
    }

    pub(crate) fn size(&self, name: &[u8]) -> usize {
        self.part(name).get(name).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_counted_until_the_last_member_leaves() {
        let census = Census::new();
        for name in [&b"a"[..], b"b", b"a"] {
            census.joined(name);
        }
        census.left(b"b");
        census.left(b"never joined");
        assert_eq!((census.size(b"a"), census.size(b"b")), (2, 0));
        census.left(b"a");
        census.left(b"a");
        let is_empty = |part: &Mutex<Sizes>| part.lock().unwrap().is_empty();
        assert!(census.parts.iter().all(is_empty));
    }
}
