//! The side effects of a server's end: listeners are stopped, and remaining processes are killed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Manager;
use crate::sys::process::{self, ProcessId};
use crate::sys::socket::Listener;

/// The listeners of base mode, which the manager owns. Empty in process mode.
pub(super) struct Listeners {
    shared: Arc<Vec<Listener>>,
    /// When the next check is due whether they can be stopped, and when they are stopped in any case.
    stop: Option<(Instant, Instant)>,
}

impl Listeners {
    /// The time between two checks of the queues.
    const INTERVAL: Duration = Duration::from_millis(10);

    pub(super) fn new(shared: Arc<Vec<Listener>>) -> Listeners {
        Listeners { shared, stop: None }
    }

    /// Stops them once their queues are empty, at the latest after `patience`.
    pub(super) fn stop_within(&mut self, patience: Duration, now: Instant) {
        self.stop = Some((now, now + patience));
    }

    pub(super) fn next_check(&self) -> Option<Instant> {
        self.stop.map(|(look, _)| look)
    }

    /// Stops all listeners, once the workers have emptied the queues or the time is up. Closing them
    /// would not do: a stuck worker holds its copies open, and clients would go on connecting.
    pub(super) fn stop_due(&mut self, now: Instant) {
        let Some((_, until)) = self.stop.filter(|(look, _)| *look <= now) else {
            return;
        };
        let waited_for = |listener: &Listener| listener.queued().is_ok_and(|queued| queued > 0);
        if now < until && self.shared.iter().any(waited_for) {
            self.stop = Some((now + Self::INTERVAL, until));
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
    /// Kills and reaps every child that is left.
    pub(super) fn kill_and_reap_all(&mut self) {
        let workers = self.slots.iter_mut().filter_map(|it| it.handle.take());
        let workers = workers.map(|handle| handle.pid);
        let children: Vec<ProcessId> = workers.chain(self.namers.drain(..)).collect();
        // All before the first wait: one that the kernel holds must not leave the others running.
        children.iter().for_each(|child| child.kill());
        children.into_iter().for_each(process::wait_for);
    }
}
