//! What callbacks assign to a connection: its user, its state, its groups, and the promise of an answer; and its
//! origin.
//!
//! Its one rule: most connections have none of it, so that all of it is behind one pointer.

use super::connection::Work;
use crate::handler::Names;
use crate::ipc::carried::Carried;

/// What callbacks have assigned to a connection. It belongs to the connection until that is over, whatever happens to
/// its socket.
#[derive(Default, Debug)]
pub(super) struct Assigned {
    /// The user id that a callback has associated it with.
    user: Option<u64>,
    /// What a callback has set as its state; empty for none.
    state: Vec<u8>,
    /// The groups that it is in.
    groups: Names,
    promise: Option<Promise>,
    /// What its listener has learned of it.
    origin: Box<[u8]>,
}

/// What a promise counts against the memory of its owner, beside its reply.
pub(crate) const PROMISE_BYTES: usize = 128;

/// An answer that a later callback is to give.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Promise {
    /// The last time for it, in the loop's time.
    pub(crate) at: u64,
    /// What the peer gets in its place.
    pub(crate) reply: Box<[u8]>,
}

/// The bytes that a state may leave unused in its memory, beside as many as it has.
const SPARE: usize = 1024;

impl Work {
    /// Returns what its next frame carries.
    pub(crate) fn carried(&self) -> Carried<'_> {
        match self.follows() {
            true => Carried::default(),
            false => self.assigned(),
        }
    }

    /// Returns the user, the state and the groups that callbacks have assigned to it.
    pub(crate) fn assigned(&self) -> Carried<'_> {
        let assigned = self.assigned.as_ref();
        assigned.map_or(Carried::default(), |it| Carried {
            user: it.user,
            state: &it.state,
            groups: it.groups.as_bytes(),
            origin: &it.origin,
        })
    }

    pub(crate) fn user(&self) -> Option<u64> {
        self.assigned().user
    }

    /// Returns the length of its state.
    pub(crate) fn state_len(&self) -> usize {
        self.assigned().state.len()
    }

    pub(crate) fn set_user(&mut self, user: Option<u64>) {
        self.assign(|assigned| assigned.user = user);
    }

    /// Sets the state to what `fill` appends to an empty one. The memory of the last one is used again.
    pub(crate) fn set_state(&mut self, fill: impl FnOnce(&mut Vec<u8>)) {
        self.assign(|assigned| {
            assigned.state.clear();
            fill(&mut assigned.state);
            let len = assigned.state.len();
            if assigned.state.capacity() > 2 * len + SPARE {
                assigned.state.shrink_to_fit();
            }
        });
    }

    /// Returns its promise, if its answer is to come from a later callback.
    pub(crate) fn promise(&self) -> Option<&Promise> {
        self.assigned.as_ref()?.promise.as_ref()
    }

    /// Sets or clears its promise. Returns the one before.
    pub(crate) fn set_promise(&mut self, promise: Option<Promise>) -> Option<Promise> {
        self.awaits_answer = promise.is_some();
        let mut before = None;
        self.assign(|assigned| before = std::mem::replace(&mut assigned.promise, promise));
        before
    }

    /// Returns the names of the groups that it is in.
    pub(crate) fn groups(&self) -> Option<&Names> {
        self.assigned.as_ref().map(|it| &it.groups)
    }

    /// Changes the names of the groups that it is in.
    pub(crate) fn change_groups<T>(&mut self, change: impl FnOnce(&mut Names) -> T) -> T {
        self.assign(|assigned| change(&mut assigned.groups))
    }

    /// Sets what is known of its origin.
    pub(crate) fn set_origin(&mut self, facts: Vec<u8>) {
        self.assign(|assigned| assigned.origin = facts.into());
    }

    fn assign<T>(&mut self, change: impl FnOnce(&mut Assigned) -> T) -> T {
        let changed = change(self.assigned.get_or_insert_default());
        self.assigned.take_if(|it| {
            let has_bytes = !it.state.is_empty() || !it.groups.is_empty() || !it.origin.is_empty();
            it.user.is_none() && !has_bytes && it.promise.is_none()
        });
        changed
    }
}
