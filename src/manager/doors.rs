//! The listeners of base mode, as the manager has them: it looks whether clients wait for a worker that does
//! not come, and closes the ports when the server stops.
//!
//! Its one rule: workers accept the clients. The manager takes those that are in the queues when the server
//! stops, since a worker may be in a callback then, and passes them on ([`relay`](super::relay)).

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::relay::Relay;
use super::{LISTENERS, Manager};
use crate::config::ListenerId;
use crate::ipc::sync::Ordering;
use crate::net::acceptor::{drop_newcomers, is_client_error, is_end};
use crate::net::handover::Handover;
use crate::sys::epoll::{Events, Interest, Poller};
use crate::sys::listener::Listener;
use crate::sys::process::{self, ProcessId};
use crate::words::Count;

/// How long a client may be in a queue before more workers are told of it; and the least time between two
/// looks, and two events, while clients come.
const LOOK: Duration = Duration::from_millis(100);

/// The time until the queues are emptied further, when the server stops: handshakes end meanwhile, and
/// descriptors become free.
const RETRY: Duration = Duration::from_millis(10);

/// The most clients that are taken at once from a socket that stays open.
const MOST_LEFT: usize = 256;

/// The listeners of base mode. In process mode there are none.
pub(super) struct Doors {
    listeners: Arc<Vec<Listener>>,
    state: State,
    /// When to look at the queues.
    look_at: Option<Instant>,
    /// When the handshakes that had begun are over, once the server stops.
    closes_at: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Workers accept clients.
    Open,
    /// Clients in the queues are still to be accepted, here.
    Closing,
    Closed,
}

impl Doors {
    /// Watches listeners for clients. Of each listener, one event comes until the next look. The workers are told of
    /// the clients all the same.
    pub(super) fn watch(listeners: Arc<Vec<Listener>>, poller: &Poller) -> io::Result<Doors> {
        for (number, listener) in listeners.iter().enumerate() {
            poller.add(listener, LISTENERS + number as u64, Interest::ONCE)?;
        }
        Ok(Doors {
            listeners,
            state: State::Open,
            look_at: None,
            closes_at: None,
        })
    }

    /// Whether the server stops.
    pub(super) fn has_stopped(&self) -> bool {
        self.state != State::Open
    }

    /// Whether no more clients come.
    pub(super) fn are_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// A client has come, which a worker was told of too.
    pub(super) fn hear(&mut self, events: &Events) {
        let is_ours = |index| events.get(index).token >= LISTENERS;
        if self.state == State::Open && (0..events.len()).any(is_ours) {
            self.look_at.get_or_insert(Instant::now() + LOOK);
        }
    }

    pub(super) fn next_look(&self) -> Option<Instant> {
        self.look_at
    }

    /// Watches the listeners again.
    fn rearm(&self, poller: &Poller) {
        for (number, listener) in self.listeners.iter().enumerate() {
            let token = LISTENERS + number as u64;
            if let Err(error) = poller.modify(listener, token, Interest::ONCE) {
                log::error!("cannot watch listener {}: {error}", listener.address());
            }
        }
    }

    fn has_waiting(&self) -> bool {
        self.listeners.iter().any(Listener::has_queued)
    }

    /// Lets no more clients in, as far as the kernel allows that; handshakes that have begun go on.
    fn begin_to_close(&mut self, poller: &Poller, now: Instant) {
        self.state = State::Closing;
        for listener in self.listeners.iter() {
            if let Err(error) = poller.remove(listener) {
                log::debug!("cannot stop watching {}: {error}", listener.address());
            }
        }
        self.closes_at = Some(now + drop_newcomers(&self.listeners).0);
    }

    /// Accepts the clients in the queues. Returns false if some are left, for lack of descriptors.
    fn empty_queues(&self, relay: &mut Relay) -> bool {
        self.listeners.iter().all(|listener| {
            // A socket that stays open may get clients for ever: the next server has them.
            let most = if listener.is_inherited() {
                MOST_LEFT
            } else {
                usize::MAX
            };
            for _ in 0..most {
                match listener.accept() {
                    Ok((socket, peer)) => {
                        let id = ListenerId(listener.id());
                        relay.take_client(socket, Handover::of_new(peer.into(), id));
                    }
                    Err(error) if is_end(&error) => return true,
                    Err(error) if is_client_error(&error) => {}
                    Err(error) => {
                        log::debug!("clients wait at {}: {error}", listener.address());
                        return false;
                    }
                }
            }
            true
        })
    }

    /// Stops all listeners, for every process that shares them. Closing them would not do: a worker holds
    /// its copies open, and clients would go on connecting.
    fn close(&mut self) {
        self.state = State::Closed;
        for listener in self.listeners.iter() {
            if let Err(error) = listener.stop() {
                log::error!("cannot stop listening on {}: {error}", listener.address());
            }
        }
    }
}

impl Manager<'_> {
    /// The server stops: the clients in the queues are accepted, and the ports are closed.
    pub(super) fn stop_listening(&mut self) {
        if self.doors.state == State::Open {
            let now = Instant::now();
            self.doors.begin_to_close(&self.poller, now);
            self.empty_queues(now);
        }
    }

    fn empty_queues(&mut self, now: Instant) {
        self.doors.look_at = None;
        self.relay.try_at(now);
        let are_empty = self.doors.empty_queues(&mut self.relay);
        if are_empty && self.doors.closes_at.is_none_or(|at| at <= now) {
            self.doors.close();
        } else {
            self.doors.look_at = Some(now + RETRY);
        }
    }

    /// Looks at the queues, when that is due.
    pub(super) fn look_at_listeners(&mut self, now: Instant) {
        if self.doors.look_at.is_none_or(|at| at > now) {
            return;
        }
        match self.doors.state {
            State::Open if self.doors.has_waiting() => {
                self.wake_sleepers();
                self.doors.look_at = Some(now + LOOK);
            }
            State::Open => {
                self.doors.look_at = None;
                self.doors.rearm(&self.poller);
            }
            State::Closing => self.empty_queues(now),
            State::Closed => self.doors.look_at = None,
        }
    }

    /// A client waits. The worker that the kernel has told of it may be stopped: every other one that sleeps
    /// looks at the queues.
    fn wake_sleepers(&self) {
        for slot in &self.slots {
            let words = &slot.memory.words;
            let accepts = words.accepting.load(Ordering::Relaxed) != 0;
            if slot.handle.is_some() && accepts && words.sleeper.is_asleep() {
                slot.memory.bell.ring();
            }
        }
    }

    /// Resets the clients that no worker has got.
    pub(super) fn reset_waiting(&mut self) {
        match self.relay.reset_all() {
            0 => {}
            count => log::warn!(
                "{} reset: no worker could take them",
                Count(count, "client")
            ),
        }
    }

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
