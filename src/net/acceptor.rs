//! The acceptor: takes connections from the shared listeners, and leaves them in the kernel's queues
//! while there is no room for them.
//!
//! Runs in the reactor threads, and in every base mode worker. Its one rule: a failure to accept is a
//! pause, never an end.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::loads::Loads;
use crate::config::ListenerId;
use crate::limited::{Topic, limited};
use crate::peer::Peer;
use crate::sys::address::Address;
use crate::sys::epoll::{Interest, Poller};
use crate::sys::listener::{Listener, Sealed};
use crate::sys::socket;

/// The pause after a failed accept, for lack of descriptors for example: clients wait in the kernel's
/// queues meanwhile.
const PAUSE: Duration = Duration::from_millis(100);

/// The pause at `max_connections`. Shorter, since connections end all the time.
const FULL_PAUSE: Duration = Duration::from_millis(10);

/// How long handshakes that have begun may take when the server stops: a round trip of most networks. The
/// clients whose SYN is dropped meanwhile are refused when they send it again.
pub(crate) const LAST_HANDSHAKES: Duration = Duration::from_millis(100);

/// An accepted connection.
pub(crate) struct Accepted {
    pub(crate) socket: OwnedFd,
    pub(crate) peer: Peer,
    pub(crate) listener: ListenerId,
}

/// The listeners, watched by one thread or process.
pub(crate) struct Acceptor {
    listeners: Arc<Vec<Listener>>,
    poller: Arc<Poller>,
    /// The token of listener 0; the others' follow.
    first_token: u64,
    /// The most connections that one wake-up accepts from one listener before other work has its turn.
    batch: usize,
    state: State,
    closing: Option<Closing>,
    last_logged: Option<Instant>,
    lost: Option<Address>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Stopped,
    Accepting,
    /// It cannot accept until then.
    PausedUntil(Instant),
    /// It could accept, and lets other workers go first until then.
    AsideUntil(Instant),
}

/// The end of the listeners.
#[derive(Clone, Copy)]
struct Closing {
    at: Instant,
    /// No new client gets into the queues.
    is_sealed: bool,
    /// There was no room for the clients in the queues.
    is_late: bool,
}

impl Acceptor {
    /// An acceptor that does not accept yet. `first_token + i` names listener `i` to the poller.
    pub(crate) fn new(
        listeners: Arc<Vec<Listener>>,
        poller: Arc<Poller>,
        first_token: u64,
        batch: usize,
    ) -> Acceptor {
        Acceptor {
            listeners,
            poller,
            first_token,
            batch,
            state: State::Stopped,
            closing: None,
            last_logged: None,
            lost: None,
        }
    }

    /// Starts accepting: now, or as soon as the kernel lets the listeners be watched.
    pub(crate) fn start(&mut self) {
        self.state = State::PausedUntil(Instant::now());
        self.retry(Instant::now());
    }

    /// Watches all listeners. After an error, none is watched.
    fn watch(&mut self) -> io::Result<()> {
        for (index, listener) in self.listeners.iter().enumerate() {
            let token = self.first_token + index as u64;
            if let Err(error) = self.poller.add(listener, token, Interest::ACCEPT) {
                unwatch(&self.poller, &self.listeners[..index]);
                return Err(error);
            }
        }
        self.state = State::Accepting;
        Ok(())
    }

    pub(crate) fn has_started(&self) -> bool {
        self.state != State::Stopped
    }

    /// Whether it can accept connections, as far as it knows.
    pub(crate) fn can_accept(&self) -> bool {
        match self.state {
            State::Accepting | State::AsideUntil(_) => true,
            State::Stopped | State::PausedUntil(_) => false,
        }
    }

    /// Whether the listeners are watched now.
    pub(crate) fn is_watching(&self) -> bool {
        self.state == State::Accepting
    }

    /// Lets no new client into the queues. Those in them, and those whose handshake has begun, can still be
    /// accepted until [`is_to_stop`](Acceptor::is_to_stop) says that it is time to [`stop`](Acceptor::stop).
    pub(crate) fn begin_to_stop(&mut self, now: Instant) {
        let (wait, is_sealed) = drop_newcomers(&self.listeners);
        self.closing = Some(Closing {
            at: now + wait,
            is_sealed,
            is_late: false,
        });
    }

    pub(crate) fn is_to_stop(&self, now: Instant) -> bool {
        self.closing.is_some_and(|closing| closing.at <= now)
    }

    /// Puts the end off if clients are left in the queues, for want of room, and no new ones come: connections
    /// end all the time. Returns whether it did.
    pub(crate) fn wait_for_room(&mut self, now: Instant) -> bool {
        // Those of a socket that is not closed may wait for the next server.
        let is_left = |listener: &Listener| !listener.is_inherited() && listener.has_queued();
        let is_left = self.listeners.iter().any(is_left);
        match &mut self.closing {
            Some(closing) if closing.is_sealed && is_left => {
                (closing.at, closing.is_late) = (now + FULL_PAUSE, true);
                true
            }
            Some(_) | None => false,
        }
    }

    /// Whether the end was put off.
    pub(crate) fn is_late(&self) -> bool {
        self.closing.is_some_and(|closing| closing.is_late)
    }

    /// The end is put off no longer: clients that are left in the queues are reset.
    pub(crate) fn stop_waiting(&mut self) {
        if self.is_late() {
            self.stop();
        } else if let Some(closing) = &mut self.closing {
            closing.is_sealed = false;
        }
    }

    /// Drops the listeners. When every owner has dropped them they are closed, and new clients are refused.
    pub(crate) fn stop(&mut self) {
        self.closing = None;
        self.unwatch();
        self.listeners = Arc::default();
        self.state = State::Stopped;
    }

    fn unwatch(&self) {
        if self.state == State::Accepting {
            unwatch(&self.poller, &self.listeners);
        }
    }

    fn pause(&mut self, pause: Duration) {
        self.unwatch();
        self.state = State::PausedUntil(Instant::now() + pause);
    }

    /// Lets other workers accept for `time`. The kernel reports clients that are left when the listeners
    /// are watched again.
    pub(crate) fn stand_aside(&mut self, time: Duration) {
        self.unwatch();
        self.state = State::AsideUntil(Instant::now() + time);
    }

    /// Goes to the end of the kernel's queue of watchers: it wakes the first sleeping one (EPOLLEXCLUSIVE),
    /// which would otherwise always be the same worker.
    pub(crate) fn step_back(&mut self) {
        self.stand_aside(Duration::ZERO);
        self.retry(Instant::now());
    }

    /// Returns the listener that a token names.
    pub(crate) fn listener_of(&self, token: u64) -> Option<usize> {
        let index = token.checked_sub(self.first_token)? as usize;
        (index < self.listeners.len()).then_some(index)
    }

    /// Returns the time until a pause ends, or until the listeners are to be closed.
    pub(crate) fn next_timer(&self, now: Instant) -> Option<Duration> {
        let pause = match self.state {
            State::PausedUntil(end) | State::AsideUntil(end) => Some(end),
            State::Stopped | State::Accepting => None,
        };
        let next = pause
            .into_iter()
            .chain(self.closing.map(|it| it.at))
            .min()?;
        Some(next.saturating_duration_since(now))
    }

    /// Watches the listeners again, if a pause is over.
    pub(crate) fn retry(&mut self, now: Instant) {
        if let State::PausedUntil(end) | State::AsideUntil(end) = self.state
            && end <= now
            && let Err(error) = self.watch()
        {
            log::error!("cannot watch the listeners, next try in {PAUSE:?}: {error}");
            self.pause(PAUSE);
        }
    }

    /// Takes at most `room` connections from a ready listener's queue: into `accepted`, or, if they are not
    /// admitted, it resets them. Returns the number of both.
    pub(crate) fn accept(
        &mut self,
        index: usize,
        room: usize,
        loads: &Loads,
        accepted: &mut Vec<Accepted>,
    ) -> usize {
        let mut refused = 0;
        // There are fewer than the settings name if an address was left out, and none after the end.
        if index >= self.listeners.len() {
            return 0;
        }
        for _ in 0..self.batch.min(room) {
            let listener = &self.listeners[index];
            match listener.accept() {
                Ok((socket, remote)) => {
                    let (peer, listener) = (Peer::from(remote), ListenerId(listener.id()));
                    if loads.admission().admit(peer, listener) {
                        accepted.push(Accepted {
                            socket,
                            peer,
                            listener,
                        });
                    } else {
                        socket::reset(socket);
                        refused += 1;
                    }
                }
                Err(error)
                    if error.kind() != io::ErrorKind::WouldBlock
                        && !self.listeners[index].is_open() =>
                {
                    self.lose(index);
                    return accepted.len() + refused;
                }
                // Or the manager has stopped the listener for all processes.
                Err(error) if is_end(&error) => return accepted.len() + refused,
                // The client left while it waited in the queue, accept(2): try the next one.
                Err(error) if is_client_error(&error) => {}
                Err(error) => {
                    self.log_failure(&error);
                    self.pause(PAUSE);
                    return accepted.len() + refused;
                }
            }
        }
        if room == 0 {
            self.log_full(index);
        }
        if room <= self.batch {
            self.pause(FULL_PAUSE);
        }
        accepted.len() + refused
    }

    /// The descriptor of a listener is not its own any more: closed, and perhaps open for another file by now.
    fn lose(&mut self, index: usize) {
        let address = self.listeners[index].address();
        self.lost.get_or_insert_with(|| address.clone());
        self.state = State::PausedUntil(Instant::now() + PAUSE);
    }

    /// Returns the address of a listener whose descriptor user code has closed, if there is one. This
    /// process can't accept there any more. It can't take the socket from epoll(7) either, which reports it
    /// again and again.
    pub(crate) fn lost(&self) -> Option<&Address> {
        self.lost.as_ref()
    }

    /// Whether a listener's queue goes on to fill when the server stops.
    pub(crate) fn is_left_open(&self, index: usize) -> bool {
        let listener = self.listeners.get(index);
        listener.is_some_and(Listener::is_inherited)
    }

    /// Logs that a client waits because `max_connections` is reached, at most once a second.
    fn log_full(&self, index: usize) {
        let listener = &self.listeners[index];
        let count = match listener.queued() {
            Ok(Some(count @ 1..)) => format!(" ({count})"),
            Ok(None) if listener.has_queued() => String::new(),
            Ok(_) | Err(_) => return,
        };
        limited!(
            warn,
            Topic::Full,
            "max_connections is reached: clients{count} wait in the queue of {}",
            listener.address()
        );
    }

    /// Logs a failed accept, at most once a second.
    fn log_failure(&mut self, error: &io::Error) {
        let now = Instant::now();
        if self
            .last_logged
            .is_none_or(|last| now.duration_since(last) >= Duration::from_secs(1))
        {
            self.last_logged = Some(now);
            log::error!("cannot accept connections: {error}; clients wait in the kernel's queue");
        }
    }
}

/// Lets no new client into the queues of these listeners, as far as the kernel allows that. Returns how long
/// handshakes may go on, and whether there is a queue that gets no more clients then.
pub(crate) fn drop_newcomers(listeners: &[Listener]) -> (Duration, bool) {
    let (mut wait, mut is_sealed) = (Duration::ZERO, false);
    for listener in listeners {
        match listener.drop_newcomers() {
            Ok(Sealed::AfterHandshakes) => (wait, is_sealed) = (LAST_HANDSHAKES, true),
            Ok(Sealed::AtOnce) => is_sealed = true,
            Ok(Sealed::Never) => {}
            Err(error) => log::debug!(
                "clients that connect to {} at this moment are reset: {error}",
                listener.address()
            ),
        }
    }
    (wait, is_sealed)
}

fn unwatch(poller: &Poller, listeners: &[Listener]) {
    for listener in listeners {
        if let Err(error) = poller.remove(listener) {
            log::error!(
                "cannot stop watching listener {}: {error}",
                listener.address()
            );
        }
    }
}

/// Whether no client is in the queue.
pub(crate) fn is_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::InvalidInput
    )
}

/// Whether the client has left while it waited in the queue, accept(2).
pub(crate) fn is_client_error(error: &io::Error) -> bool {
    let network = [
        libc::ECONNABORTED,
        libc::EINTR,
        libc::EPROTO,
        libc::ENETDOWN,
        libc::ENOPROTOOPT,
        libc::EHOSTDOWN,
        libc::ENONET,
        libc::EHOSTUNREACH,
        libc::EOPNOTSUPP,
        libc::ENETUNREACH,
    ];
    error
        .raw_os_error()
        .is_some_and(|code| network.contains(&code))
}
