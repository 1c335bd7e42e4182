//! Questions of a callback to its reactor, which are answered before the callback goes on.
//!
//! Its one rule: a question is no part of a commit. What the callback has staged before it waits, and is dropped if the
//! callback fails.

use super::reactor::ReactorLink;
use super::worker::WorkerOutbox;
use crate::ipc::answer::Answer;
use crate::ipc::record::{Output, Question};

/// The place behind the last connection.
pub(crate) const NO_MORE: u32 = u32::MAX;

/// Returns the value of an answer with a page: how many entries the page has, and the place for the next question.
pub(crate) fn page(count: usize, next: u32) -> u64 {
    u64::from(next) << 32 | count as u64
}

/// Returns what [`page`] was given.
pub(crate) fn of_page(value: u64) -> (usize, u32) {
    (value as u32 as usize, (value >> 32) as u32)
}

impl ReactorLink {
    /// Copies a question.
    pub(super) fn note_question(&mut self, question: Question, body: u64, len: usize) {
        let (last, bytes) = &mut self.question;
        *last = question;
        bytes.clear();
        self.outbox_ring.shared(body, len).append_to(bytes);
    }

    /// Returns the question that was read last, and its bytes.
    pub(crate) fn question(&self) -> (Question, &[u8]) {
        (self.question.0, &self.question.1)
    }

    /// Answers a question of this worker, which may sleep.
    pub(crate) fn answer(&mut self, number: u64, write: impl FnOnce(&Answer) -> u64) {
        self.answerer.answer(&self.words.answer, number, write);
    }
}

impl WorkerOutbox {
    /// Publishes a question, with all that was staged before it. There must be [`room`](Self::room) for it.
    pub(crate) fn ask(&mut self, question: Question, bytes: &[u8]) {
        self.stage(Output::Ask(question), bytes);
        self.publish();
        self.ring();
    }
}
