//! The desk: the unix socket at which a process of the server takes status requests.
//!
//! Runs in the master's main thread and in the manager. Its one rule: it never waits for a caller, and
//! reads nothing that a caller sends, but for [posts](super::post_desk) on a socket of their own.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::{Packet, name_of};
use crate::sys::epoll::{Interest, Poller};
use crate::sys::local::{LocalListener, LocalSocket};

/// The most callers that are accepted before the process does its other work.
const AT_A_TIME: usize = 8;

/// The most callers with an answer under way, a descriptor each.
const MOST_CALLERS: usize = 64;

/// The time without accepting when descriptors are used up. Without it, epoll would report a waiting
/// caller again and again. Edge-triggered epoll is no way out: with the backlog full, no new caller could
/// come, so no edge would ever be reported.
const PAUSE: Duration = Duration::from_millis(100);

pub(crate) struct Desk {
    listener: LocalListener,
    token: u64,
    paused_until: Option<Instant>,
    callers: Vec<Weak<LocalSocket>>,
}

/// A process that has asked and may know. It reads end-of-file when the last clone of this is dropped.
#[derive(Clone)]
pub(crate) struct Caller(Arc<LocalSocket>);

impl Desk {
    /// Opens a desk, which the poller reports as `token`. Returns `None` on failure, which is logged: the
    /// server runs without a desk.
    pub(crate) fn open(poller: &Poller, token: u64) -> Option<Desk> {
        let name = name_of(std::process::id() as i32);
        Desk::open_as(
            poller,
            token,
            &name,
            "`tine doctor` cannot ask this process",
        )
    }

    /// Opens a desk with another name. `loss` says what does not work without it.
    pub(super) fn open_as(poller: &Poller, token: u64, name: &str, loss: &str) -> Option<Desk> {
        let watched = LocalListener::bind(name).and_then(|listener| {
            poller.add(&listener, token, Interest::READ)?;
            Ok(listener)
        });
        match watched {
            Ok(listener) => Some(Desk {
                listener,
                token,
                paused_until: None,
                callers: Vec::new(),
            }),
            Err(error) => {
                log::warn!("{loss}: cannot listen on the unix socket @{name}: {error}");
                None
            }
        }
    }

    /// When accepting goes on, if it is paused.
    pub(crate) fn next_look(&self) -> Option<Instant> {
        self.paused_until
    }

    /// Returns the callers that have connected since. Callers of other users get no answer, except root.
    pub(crate) fn callers(&mut self, poller: &Poller) -> Vec<Caller> {
        if let Some(until) = self.paused_until {
            if Instant::now() < until {
                return Vec::new();
            }
            self.paused_until = None;
            self.watch(poller, Interest::READ);
        }
        let own = nix::unistd::geteuid().as_raw();
        let mut callers = Vec::new();
        for _ in 0..AT_A_TIME {
            match self.listener.accept() {
                Ok(Some(socket)) => callers.extend(self.admit(socket, own)),
                Ok(None) => break,
                Err(error) => {
                    let pause = PAUSE.as_millis();
                    log::debug!("no status requests for {pause} ms: cannot accept: {error}");
                    self.watch(poller, Interest::NONE);
                    self.paused_until = Some(Instant::now() + PAUSE);
                    break;
                }
            }
        }
        callers
    }

    fn admit(&mut self, socket: LocalSocket, own: u32) -> Option<Caller> {
        match socket.peer().map(|peer| peer.uid) {
            Ok(uid) if uid == own || uid == 0 => {}
            Ok(uid) => {
                log::debug!(
                    "status request from uid {uid} refused: only uid {own} and root may ask"
                );
                return None;
            }
            Err(error) => {
                log::debug!("status request refused: the caller's uid is not known: {error}");
                return None;
            }
        }
        self.callers.retain(|it| it.strong_count() > 0);
        if self.callers.len() >= MOST_CALLERS {
            log::debug!("status request refused: {MOST_CALLERS} others are being answered");
            return None;
        }
        let socket = Arc::new(socket);
        self.callers.push(Arc::downgrade(&socket));
        Some(Caller(socket))
    }

    fn watch(&self, poller: &Poller, interest: Interest) {
        if let Err(error) = poller.modify(&self.listener, self.token, interest) {
            log::error!("cannot watch the socket for status requests: {error}");
        }
    }
}

impl Caller {
    /// Sends a packet, or drops it if the caller has no room for it now.
    pub(crate) fn send(&self, packet: &Packet) {
        self.answer(packet);
    }

    /// As [`send`](Self::send), for another answer.
    pub(super) fn answer(&self, packet: &impl Serialize) {
        let sent = serde_json::to_vec(packet)
            .map_err(io::Error::from)
            .and_then(|bytes| self.0.send(&bytes));
        if let Err(error) = sent {
            log::debug!("answer dropped, its caller does not take it: {error}");
        }
    }

    /// Returns the packet that it has sent; `Some(None)` if it has closed or is broken, `None` if nothing has come.
    pub(super) fn receive<'a>(&self, buffer: &'a mut [u8]) -> Option<Option<&'a [u8]>> {
        match self.0.receive(buffer, Duration::ZERO) {
            Ok(packet) => Some(packet),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => None,
            Err(_) => Some(None),
        }
    }
}

impl AsFd for Caller {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
