//! Questions of a callback to its reactor, which are answered before the callback goes on.
//!
//! Its one rule: a question is no part of a commit. What the callback has staged before it waits, and is dropped if the
//! callback fails.

use super::reactor::ReactorLink;
use super::worker::WorkerOutbox;
use crate::ipc::record::Output;
use crate::ipc::sync::Ordering;

impl ReactorLink {
    /// Copies a question.
    pub(super) fn note_question(&mut self, number: u64, body: u64, len: usize) {
        let (last, bytes) = &mut self.question;
        *last = number;
        bytes.clear();
        self.outbox_ring.shared(body, len).append_to(bytes);
    }

    /// Returns the bytes of the question that was read last.
    pub(crate) fn question(&self) -> &[u8] {
        &self.question.1
    }

    /// Answers the question that was read last. The worker may sleep.
    pub(crate) fn answer(&self, value: u64) {
        let answer = &self.words.answer;
        answer.value.store(value, Ordering::Relaxed);
        // SYNC POINT with `WorkerOutbox::answer`.
        answer.number.store(self.question.0, Ordering::Release);
    }
}

impl WorkerOutbox {
    /// Publishes a question, with all that was staged before it. There must be [`room`](Self::room) for it.
    pub(crate) fn ask(&mut self, number: u64, bytes: &[u8]) {
        self.stage(Output::Ask(number), bytes);
        self.publish();
        self.ring();
    }

    /// Returns the answer to a question, once it is there.
    pub(crate) fn answer(&self, number: u64) -> Option<u64> {
        let answer = &self.words.answer;
        // SYNC POINT with `ReactorLink::answer`.
        let is_there = answer.number.load(Ordering::Acquire) == number;
        is_there.then(|| answer.value.load(Ordering::Relaxed))
    }
}
