//! The process with which the server ends (`die_with`), in process mode.
//!
//! Runs in the master's main thread. Its one rule: it is a process, and not the thread of it that has started the
//! server, as it would be with PR_SET_PDEATHSIG, prctl(2).

use super::{Master, WATCHED};
use crate::sys::epoll::Events;

impl Master {
    /// Ends the server if the process that it is to end with has ended.
    pub(super) fn handle_watched(&mut self, events: &Events) {
        if (0..events.len()).any(|index| events.get(index).token == WATCHED)
            && let Some(watched) = self.watched.take()
        {
            // A copy of the descriptor in a child would go on waking this thread.
            if let Err(error) = self.poller.remove(&watched) {
                log::debug!("cannot stop watching process {}: {error}", watched.pid);
            }
            self.kill(&format!("process {} has ended", watched.pid));
        }
    }
}
