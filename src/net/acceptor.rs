//! Taking connections off the shared listeners, and leaving them there while there is no room for
//! them.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::ListenerId;
use crate::peer::Peer;
use crate::sys::epoll::{Interest, Poller};
use crate::sys::socket::Listener;

/// How long the listeners are left alone when descriptors are used up: the kernel queues meanwhile.
const PAUSE: Duration = Duration::from_millis(100);

/// The same when there are as many connections as may be. Shorter, since connections go all the
/// time.
const FULL_PAUSE: Duration = Duration::from_millis(10);

/// A connection just accepted.
pub(crate) struct Accepted {
    pub(crate) socket: OwnedFd,
    pub(crate) peer: Peer,
    pub(crate) listener: ListenerId,
}

/// The listeners as one thread or process watches them.
pub(crate) struct Acceptor {
    listeners: Arc<Vec<Listener>>,
    poller: Arc<Poller>,
    /// The token of listener 0; the others' follow.
    first_token: u64,
    /// How many connections one wake-up takes from one listener, before everything else has a turn.
    batch: usize,
    state: State,
    last_complaint: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Stopped,
    Accepting,
    /// It can take none now.
    PausedUntil(Instant),
    /// It could, and lets others go first.
    AsideUntil(Instant),
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
            last_complaint: None,
        }
    }

    /// Watches all listeners, or none.
    pub(crate) fn start(&mut self) -> io::Result<()> {
        for (index, listener) in self.listeners.iter().enumerate() {
            let token = self.first_token + index as u64;
            if let Err(error) = self.poller.add(listener, token, Interest::ACCEPT) {
                ignore(&self.poller, &self.listeners[..index]);
                return Err(error);
            }
        }
        self.state = State::Accepting;
        Ok(())
    }

    pub(crate) fn has_started(&self) -> bool {
        self.state != State::Stopped
    }

    /// Whether it can take connections, as far as it knows.
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

    /// Lets go of the listeners, for good. When every owner has, they are closed, and a client that connects
    /// then is refused.
    pub(crate) fn stop(&mut self) {
        self.ignore();
        self.listeners = Arc::default();
        self.state = State::Stopped;
    }

    fn ignore(&self) {
        if self.state == State::Accepting {
            ignore(&self.poller, &self.listeners);
        }
    }

    fn pause(&mut self, pause: Duration) {
        self.ignore();
        self.state = State::PausedUntil(Instant::now() + pause);
    }

    /// Lets others take what comes for `time`. What they leave is found by the look that the
    /// kernel takes when the listeners are watched again.
    pub(crate) fn stand_aside(&mut self, time: Duration) {
        self.ignore();
        self.state = State::AsideUntil(Instant::now() + time);
    }

    /// Goes to the end of the listeners' queues: of those that sleep, the kernel wakes the first one
    /// in the queue (EPOLLEXCLUSIVE), and with no other in between that is always the same.
    pub(crate) fn step_back(&mut self) {
        self.stand_aside(Duration::ZERO);
        self.retry(Instant::now());
    }

    /// The listener that a token names.
    pub(crate) fn listener_of(&self, token: u64) -> Option<usize> {
        let index = token.checked_sub(self.first_token)? as usize;
        (index < self.listeners.len()).then_some(index)
    }

    /// How long until a pause ends.
    pub(crate) fn next_retry(&self, now: Instant) -> Option<Duration> {
        match self.state {
            State::PausedUntil(end) | State::AsideUntil(end) => {
                Some(end.saturating_duration_since(now))
            }
            State::Stopped | State::Accepting => None,
        }
    }

    /// Goes on after a pause.
    pub(crate) fn retry(&mut self, now: Instant) {
        if let State::PausedUntil(end) | State::AsideUntil(end) = self.state
            && end <= now
            && let Err(error) = self.start()
        {
            log::error!("cannot watch the listeners again: {error}");
            self.pause(PAUSE);
        }
    }

    /// Takes connections from a listener that is ready, at most `room`, into `accepted`.
    pub(crate) fn accept(&mut self, index: usize, room: usize, accepted: &mut Vec<Accepted>) {
        for _ in 0..self.batch.min(room) {
            match self.listeners[index].accept() {
                Ok((socket, peer)) => accepted.push(Accepted {
                    socket,
                    peer: Peer::Ip(peer),
                    listener: ListenerId(self.listeners[index].id()),
                }),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // The manager has stopped the listener for all processes.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => return,
                // The client has gone again while it waited in the queue, accept(2): the next one
                // may be there.
                Err(error) if is_the_clients(&error) => {}
                Err(error) => {
                    self.complain(&error);
                    return self.pause(PAUSE);
                }
            }
        }
        if room <= self.batch {
            self.pause(FULL_PAUSE);
        }
    }

    /// Says so in the log, at most once a second.
    fn complain(&mut self, error: &io::Error) {
        let now = Instant::now();
        if self
            .last_complaint
            .is_none_or(|last| now.duration_since(last) >= Duration::from_secs(1))
        {
            self.last_complaint = Some(now);
            log::error!("cannot accept: {error}; new connections wait in the kernel's queue");
        }
    }
}

fn ignore(poller: &Poller, listeners: &[Listener]) {
    for listener in listeners {
        if let Err(error) = poller.remove(listener) {
            log::error!("listener {}: {error}", listener.address());
        }
    }
}

fn is_the_clients(error: &io::Error) -> bool {
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
