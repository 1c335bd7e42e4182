//! How it ends: everybody is asked to leave, then made to.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::life::Event;
use super::{Manager, Phase, Supervised};
use crate::ipc::sync::Ordering;
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
    /// Asks everybody to leave.
    pub(super) fn stop(&mut self) -> Supervised {
        if self.phase == Phase::Stopping {
            return Ok(());
        }
        self.phase = Phase::Stopping;
        self.reloading.clear();
        let now = Instant::now();
        self.listeners.stop = Some((now, now + self.config.shutdown_deadline / 2));
        for seat in &mut self.seats {
            seat.refill_at = None;
        }
        for slot in 0..self.slots.len() {
            let orders = &self.slots[slot].memory.orders;
            orders.stopping.store(1, Ordering::Relaxed);
            self.happen(slot, Event::StopRequested)?;
        }
        Ok(())
    }

    /// Kills everybody.
    pub(super) fn condemn_all(&mut self) -> Supervised {
        for slot in 0..self.slots.len() {
            self.happen(slot, Event::Condemned)?;
        }
        Ok(())
    }

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
