//! The end of a server, as far as it has effects: listeners that stop, and processes that are left.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Manager;
use crate::sys::process;
use crate::sys::socket::Listener;

/// The listeners of base mode, which the manager owns. In process mode there are none here.
pub(super) struct Listeners {
    shared: Arc<Vec<Listener>>,
    /// When to look next whether they can be stopped, and until when that can wait.
    stop: Option<(Instant, Instant)>,
}

impl Listeners {
    /// How often the queues are looked at, until they are empty.
    const LOOK: Duration = Duration::from_millis(10);

    pub(super) fn new(shared: Arc<Vec<Listener>>) -> Listeners {
        Listeners { shared, stop: None }
    }

    /// They are to stop, at once if their queues are empty, in any case after `patience`.
    pub(super) fn stop_within(&mut self, patience: Duration) {
        let now = Instant::now();
        self.stop = Some((now, now + patience));
    }

    pub(super) fn next_look(&self) -> Option<Instant> {
        self.stop.map(|(look, _)| look)
    }

    /// Stops those whose queue the workers have emptied, or all when time is up: a worker that is
    /// stuck holds its copy of the socket open, and clients would go on to connect.
    pub(super) fn see_to(&mut self, now: Instant) {
        let Some((_, until)) = self.stop.filter(|(look, _)| *look <= now) else {
            return;
        };
        let waited_for = |listener: &Listener| listener.queued().is_ok_and(|queued| queued > 0);
        if now < until && self.shared.iter().any(waited_for) {
            self.stop = Some((now + Self::LOOK, until));
            return;
        }
        self.stop = None;
        for listener in self.shared.iter() {
            if let Err(error) = listener.stop() {
                log::error!("cannot stop listening on {}: {error}", listener.address());
            }
        }
    }
}

impl Manager<'_> {
    /// Leaves nothing running, whatever has happened before. A killed process can't refuse.
    pub(super) fn kill_and_reap_all(&mut self) {
        let workers = self.slots.iter_mut().filter_map(|it| it.handle.take());
        let workers = workers.map(|handle| handle.pid);
        for child in workers.chain(self.namers.drain(..)) {
            child.kill();
            process::wait_for(child);
        }
    }
}
