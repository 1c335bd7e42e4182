//! A connection's user, state and groups, as its callback finds and changes them.

use super::{Names, SendError};
use crate::config::MOST_STATE;

/// The user, the state and the groups of a connection, in the worker that runs its callback.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Session {
    pub(crate) user: Option<u64>,
    pub(crate) state: Vec<u8>,
    /// Staged with the call that has changed them.
    pub(crate) groups: Names,
    /// In the form of [`Origin`](super::Origin).
    pub(crate) origin: Vec<u8>,
    /// Changes that are not staged yet.
    has_new_user: bool,
    has_new_state: bool,
}

impl Session {
    /// Takes what the server has of the connection.
    pub(crate) fn fill(&mut self, user: Option<u64>, state: &[u8], groups: &[u8], origin: &[u8]) {
        self.user = user;
        self.origin.clear();
        self.origin.extend_from_slice(origin);
        self.state.clear();
        self.state.extend_from_slice(state);
        self.groups.fill(groups);
        (self.has_new_user, self.has_new_state) = (false, false);
    }

    /// Whether the connection has nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.user.is_none()
            && self.state.is_empty()
            && self.groups.is_empty()
            && self.origin.is_empty()
    }

    pub(crate) fn has_changes(&self) -> bool {
        self.has_new_user || self.has_new_state
    }

    pub(super) fn set_user(&mut self, user: u64) {
        self.user = Some(user);
        self.has_new_user = true;
    }

    pub(super) fn set_state(&mut self, state: &[u8]) -> Result<(), SendError> {
        if state.len() > MOST_STATE {
            return Err(SendError::TooLong { most: MOST_STATE });
        }
        self.state.clear();
        self.state.extend_from_slice(state);
        self.has_new_state = true;
        Ok(())
    }

    /// Returns the user, if a callback has set it since the last call.
    pub(super) fn take_new_user(&mut self) -> Option<u64> {
        std::mem::take(&mut self.has_new_user)
            .then_some(self.user)
            .flatten()
    }

    /// Returns the state, if a callback has set it since the last call.
    pub(super) fn take_new_state(&mut self) -> Option<&[u8]> {
        std::mem::take(&mut self.has_new_state).then_some(&self.state)
    }
}
