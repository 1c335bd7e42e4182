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
    pub(crate) body: Arc<Vec<u8>>,
    /// The attempts of its callback so far.
    pub(crate) attempts: u8,
    /// What it counts against the bytes that are kept. A body that letters share counts once.
    pub(crate) charge: usize,
}

/// The letters of each mailbox, and the mailbox of each seat that has one.
#[derive(Default)]
pub(crate) struct Mail {
    letters: HashMap<ConnId, VecDeque<Letter>>,
    seats: HashMap<u16, ConnId>,
    /// The mailboxes for any seat, and the letters that wait for one of them.
    any: usize,
    waiting: VecDeque<Letter>,
}

/// The most mailboxes for any seat. More letters than that are rarely with workers.
const MOST_ANY: usize = 256;

impl Mail {
    /// Returns the mailbox of a seat, if it has one.
    pub(crate) fn of_seat(&self, seat: u16) -> Option<ConnId> {
        self.seats.get(&seat).copied()
    }

    /// Whether there may be one more mailbox for any seat.
    pub(crate) fn may_open_any(&self) -> bool {
        self.any < MOST_ANY
    }

    /// Keeps a letter until a mailbox for any seat is free.
    pub(crate) fn wait(&mut self, letter: Letter) {
        self.waiting.push_back(letter);
    }

    /// Returns the next letter for a mailbox for any seat that is free.
    pub(crate) fn next_waiting(&mut self) -> Option<Letter> {
        self.waiting.pop_front()
    }

    pub(crate) fn open(&mut self, mailbox: ConnId, seat: Option<u16>) {
        self.letters.insert(mailbox, VecDeque::new());
        match seat {
            Some(seat) => drop(self.seats.insert(seat, mailbox)),
            None => self.any += 1,
        }
    }

    /// Removes all letters, and returns them.
    pub(crate) fn clear(&mut self) -> Vec<Letter> {
        let letters = self
            .letters
            .values_mut()
            .flat_map(|letters| letters.drain(..));
        letters.chain(self.waiting.drain(..)).collect()
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
        match seat {
            Some(seat) => drop(self.seats.remove(&seat)),
            None => self.any -= 1,
        }
    }
}
