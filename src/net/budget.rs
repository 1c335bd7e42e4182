//! The memory budget of one owner, a reactor or a base mode worker: the bytes that it may hold for its
//! clients, unsent output and incomplete messages.
//!
//! Its one rule: no owner looks at another's. The reactors of a master get equal parts of the setting.

/// Bytes held, against a limit.
#[derive(Debug)]
pub(crate) struct Budget {
    held: usize,
    limit: usize,
}

impl Budget {
    pub(crate) fn new(limit: usize) -> Budget {
        Budget { held: 0, limit }
    }

    pub(crate) fn take(&mut self, bytes: usize) {
        self.held += bytes;
    }

    pub(crate) fn give_back(&mut self, bytes: usize) {
        debug_assert!(self.held >= bytes, "gave back {bytes} of {}", self.held);
        self.held = self.held.saturating_sub(bytes);
    }

    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// Whether more bytes are held than the limit: a connection has to be closed.
    pub(crate) fn is_exceeded(&self) -> bool {
        self.held > self.limit
    }
}
