//! Where a process of the server answers: in the master's main thread and in the manager.
//!
//! Its one rule: it waits for nobody, and reads nothing that a visitor sends.

use std::io;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::{Packet, name_of};
use crate::sys::epoll::{Interest, Poller};
use crate::sys::local::{LocalListener, LocalSocket};

/// How many visitors are seen to before everybody else has a turn.
const AT_A_TIME: usize = 8;

/// How many may wait for the rest of an answer, a descriptor each.
const MOST_INSIDE: usize = 64;

/// How long nobody is let in when descriptors are used up. Without that, epoll would tell of the one
/// who waits again and again; and told once of each like a bell, the desk would be deaf for good when as
/// many wait as may: nobody could come any more for whom it would be rung.
const PAUSE: Duration = Duration::from_millis(100);

pub(crate) struct Desk {
    listener: LocalListener,
    token: u64,
    paused_until: Option<Instant>,
    inside: Vec<Weak<LocalSocket>>,
}

/// Somebody who has asked and may know. It hears the end when the last copy of this is dropped.
#[derive(Clone)]
pub(crate) struct Visitor(Arc<LocalSocket>);

impl Desk {
    /// A desk that `token` names to the poller. `None` if that can't be; the server does without it.
    pub(crate) fn open(poller: &Poller, token: u64) -> Option<Desk> {
        let name = name_of(std::process::id() as i32);
        let watched = LocalListener::bind(&name).and_then(|listener| {
            poller.add(&listener, token, Interest::READ)?;
            Ok(listener)
        });
        match watched {
            Ok(listener) => Some(Desk {
                listener,
                token,
                paused_until: None,
                inside: Vec::new(),
            }),
            Err(error) => {
                log::warn!(
                    "`tine doctor` can't ask this process, @{name} is not to be had: {error}"
                );
                None
            }
        }
    }

    /// When to look again, if nobody is let in now.
    pub(crate) fn next_look(&self) -> Option<Instant> {
        self.paused_until
    }

    /// Who has come since. Who is of another user is sent away without an answer, but root.
    pub(crate) fn visitors(&mut self, poller: &Poller) -> Vec<Visitor> {
        if let Some(until) = self.paused_until {
            if Instant::now() < until {
                return Vec::new();
            }
            self.paused_until = None;
            self.watch(poller, Interest::READ);
        }
        let own = nix::unistd::geteuid().as_raw();
        let mut visitors = Vec::new();
        for _ in 0..AT_A_TIME {
            match self.listener.accept() {
                Ok(Some(socket)) => visitors.extend(self.let_in(socket, own)),
                Ok(None) => break,
                Err(error) => {
                    log::debug!("nobody can ask for the status now: {error}");
                    self.watch(poller, Interest::NONE);
                    self.paused_until = Some(Instant::now() + PAUSE);
                    break;
                }
            }
        }
        visitors
    }

    fn let_in(&mut self, socket: LocalSocket, own: u32) -> Option<Visitor> {
        let uid = socket.peer().map(|peer| peer.uid);
        if !matches!(uid, Ok(uid) if uid == own || uid == 0) {
            log::debug!("user {uid:?} wanted to know the status, and was sent away");
            return None;
        }
        self.inside.retain(|it| it.strong_count() > 0);
        if self.inside.len() >= MOST_INSIDE {
            log::debug!("too many want to know the status at the same time");
            return None;
        }
        let socket = Arc::new(socket);
        self.inside.push(Arc::downgrade(&socket));
        Some(Visitor(socket))
    }

    fn watch(&self, poller: &Poller, interest: Interest) {
        if let Err(error) = poller.modify(&self.listener, self.token, interest) {
            log::error!("cannot watch for who asks for the status: {error}");
        }
    }
}

impl Visitor {
    /// One who does not take it now does not get it.
    pub(crate) fn tell(&self, packet: &Packet) {
        let told = serde_json::to_vec(packet)
            .map_err(io::Error::from)
            .and_then(|bytes| self.0.send(&bytes));
        if let Err(error) = told {
            log::debug!("somebody who wanted to know the status did not take it: {error}");
        }
    }
}
