//! Posts from the threads of the master's process to the workers.
//!
//! Runs in any thread. Its one rule: what is on its way to a reactor is bounded as what the reactor keeps, and counted
//! with it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::Master;
use super::reactor::{Command, Mailbox};
use crate::config::{Config, MOST_POST};
use crate::handler::{SendError, To};
use crate::ipc::layout::{ReactorWords, Shared};
use crate::net::mail::LETTER_BYTES;

/// The way from a thread of the master's process to the reactors.
#[derive(Clone)]
pub(crate) struct Inlet {
    reactors: Vec<(Mailbox<Command>, Shared<ReactorWords>)>,
    config: Arc<Config>,
    /// What the posts count that no reactor has taken yet.
    under_way: Arc<AtomicUsize>,
}

/// A post on its way. It counts until it is dropped.
pub(crate) struct Posted {
    pub(super) to: To,
    pub(super) bytes: Vec<u8>,
    charge: usize,
    under_way: Arc<AtomicUsize>,
}

impl Drop for Posted {
    fn drop(&mut self) {
        self.under_way.fetch_sub(self.charge, Ordering::Relaxed);
    }
}

impl Master {
    /// Returns a way to the workers for the threads of this process.
    pub(crate) fn inlet(&self) -> Inlet {
        let make = || {
            let reactors = self.reactors.iter().cloned();
            let reactors = reactors.zip(self.words.iter().cloned()).collect();
            Inlet::new(reactors, Arc::clone(&self.config))
        };
        self.inlet.get_or_init(make).clone()
    }
}

impl Inlet {
    pub(super) fn new(
        reactors: Vec<(Mailbox<Command>, Shared<ReactorWords>)>,
        config: Arc<Config>,
    ) -> Inlet {
        Inlet {
            reactors,
            config,
            under_way: Arc::default(),
        }
    }

    /// Posts bytes to workers.
    pub(crate) fn post(&self, to: To, bytes: &[u8]) -> Result<(), SendError> {
        let seats = self.config.workers;
        if bytes.len() > MOST_POST {
            return Err(SendError::TooLong { most: MOST_POST });
        }
        let (owner, copies) = match to {
            To::Seat(seat) if seat >= seats => return Err(SendError::NoSeat { seats }),
            To::Seat(_) | To::LeastBusy => (0, 1),
            To::All => (0, seats),
            To::Owner(conn) => (usize::from(conn.owner()), 1),
        };
        // An id that this server has not made has no connection.
        let Some((reactor, words)) = self.reactors.get(owner) else {
            return Ok(());
        };
        let (charge, most) = (bytes.len() + copies * LETTER_BYTES, self.config.most_kept());
        let kept = words.kept.load(crate::ipc::sync::Ordering::Relaxed) as usize;
        let before = self.under_way.fetch_add(charge, Ordering::Relaxed);
        let posted = Posted {
            to,
            bytes: bytes.to_vec(),
            charge,
            under_way: Arc::clone(&self.under_way),
        };
        if kept + before + charge > most {
            return Err(SendError::Full { most });
        }
        reactor.send(Command::Post(posted));
        Ok(())
    }
}

impl fmt::Debug for Inlet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Inlet")
    }
}
