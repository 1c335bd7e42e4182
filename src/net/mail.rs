//! Mailboxes: what the server has for its workers, beside what comes from clients.
//!
//! Its one rule: a letter is here, or in a frame that a worker has, until its callback has returned.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::conn_id::ConnId;
use crate::event::Event;

/// What a letter counts beside its bytes.
pub(crate) const LETTER_BYTES: usize = 64;

/// What a callback of a worker is called for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Letter {
    pub(crate) event: Event,
    /// Its tag, for events that have one.
    pub(crate) value: u64,
    /// Shared by all workers that it goes to.
    pub(crate) body: Arc<[u8]>,
    /// The attempts of its callback so far.
    pub(crate) attempts: u8,
}

impl Letter {
    /// Returns what it counts against the bytes that are kept.
    pub(crate) fn charge(&self) -> usize {
        self.body.len() + LETTER_BYTES
    }
}

/// The letters of each mailbox, and the mailbox of each seat that has one.
#[derive(Default)]
pub(crate) struct Mail {
    letters: HashMap<ConnId, VecDeque<Letter>>,
    seats: HashMap<u16, ConnId>,
}

impl Mail {
    /// Returns the mailbox of a seat, if it has one.
    pub(crate) fn of_seat(&self, seat: u16) -> Option<ConnId> {
        self.seats.get(&seat).copied()
    }

    pub(crate) fn open(&mut self, mailbox: ConnId, seat: Option<u16>) {
        self.letters.insert(mailbox, VecDeque::new());
        if let Some(seat) = seat {
            self.seats.insert(seat, mailbox);
        }
    }

    pub(crate) fn push(&mut self, mailbox: ConnId, letter: Letter) {
        self.letters.entry(mailbox).or_default().push_back(letter);
    }

    /// Puts a letter before all others: it was submitted before them.
    pub(crate) fn put_back(&mut self, mailbox: ConnId, letter: Letter) {
        self.letters.entry(mailbox).or_default().push_front(letter);
    }

    /// Returns the next letter of a mailbox.
    pub(crate) fn first(&self, mailbox: ConnId) -> Option<&Letter> {
        self.letters.get(&mailbox)?.front()
    }

    /// Removes and returns the next letter of a mailbox.
    pub(crate) fn pop(&mut self, mailbox: ConnId) -> Option<Letter> {
        self.letters.get_mut(&mailbox)?.pop_front()
    }

    /// Removes a mailbox without letters.
    pub(crate) fn close(&mut self, mailbox: ConnId, seat: Option<u16>) {
        self.letters.remove(&mailbox);
        if let Some(seat) = seat {
            self.seats.remove(&seat);
        }
    }
}
