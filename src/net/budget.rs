//! How much memory one owner, a reactor or a base mode worker, may hold for its clients: unsent
//! output, and messages that are not complete yet. The reactors of a master share the setting
//! equally, so that each can keep to its part alone.

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

    /// Whether more is held than may be: some connection has to go.
    pub(crate) fn is_exceeded(&self) -> bool {
        self.held > self.limit
    }
}
