//! What the master tells the supervisor of its service: that it is ready, reloads, stops, and is well.
//!
//! Runs in the master's main thread, as `mod.rs` does. Its one rule: it says that the server is well only if every
//! reactor and the manager have answered since it said so last.

use std::time::Instant;

use super::Master;
use super::reactor::Command;
use crate::control::{News, Order};

impl Master {
    /// The manager has begun a reload, or ended it.
    pub(super) fn reload_news(&self, news: News) {
        match news {
            News::Reloading => self.supervisor.reloading(),
            _ => self.supervisor.ready(&self.status()),
        }
    }

    /// Returns what the supervisor shows of a server that serves.
    pub(super) fn status(&self) -> String {
        let workers = crate::words::Count(self.config.workers, "worker");
        let reactors = crate::words::Count(self.reactors.len(), "reactor");
        format!("serving (process mode, {workers}, {reactors})")
    }

    /// Tells the supervisor that the server is well, and asks its parts whether they are.
    pub(super) fn tend_supervisor(&mut self) {
        let parts = self.reactors.len() + 1;
        if self.supervisor.tend(Instant::now(), parts) {
            self.send_all(|| Command::Ping);
            self.orders.send(Order::Ping);
        }
    }
}
