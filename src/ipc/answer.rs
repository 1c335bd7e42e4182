//! Answers of a reactor to the questions of a worker: a word, and a page for those that are longer.
//!
//! Their one rule: an answer has the number of its question, and no two questions have the same, of whichever
//! incarnation. So a late answer to an earlier question is never taken for that to a later one.

use super::sync::{AtomicU64, Ordering};

/// The entries of a page, and the words of each.
#[cfg(not(loom))]
pub(crate) const ENTRIES: usize = 128;
#[cfg(loom)]
pub(crate) const ENTRIES: usize = 1;
pub(crate) const ENTRY: usize = 8;

/// Where a reactor answers one worker. Lives in the memory of their link; the reactor alone writes it, and the worker
/// reads it. What a worker writes here is its own loss.
#[repr(C)]
pub(crate) struct Answer {
    /// The number of the question; stored last. 0 is none.
    number: AtomicU64,
    value: AtomicU64,
    page: [[AtomicU64; ENTRY]; ENTRIES],
}

/// The reactor's end.
#[derive(Default)]
pub(crate) struct Answerer {
    /// The last question that was answered.
    last: u64,
}

/// A worker's count of its questions: 2^32 of each incarnation.
pub(crate) struct Questions(u64);

impl Questions {
    pub(crate) fn of(generation: u32) -> Questions {
        Questions(u64::from(generation) << 32)
    }

    /// Returns the number of the next question.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 += 1;
        self.0
    }
}

impl Answerer {
    /// Answers a question; `write` may write to the page, and returns the value. Without effect for one that is older
    /// than the last: its worker has given up waiting for it, and may be reading the later answer.
    pub(crate) fn answer(
        &mut self,
        answer: &Answer,
        number: u64,
        write: impl FnOnce(&Answer) -> u64,
    ) {
        if number <= self.last {
            return;
        }
        self.last = number;
        let value = write(answer);
        answer.value.store(value, Ordering::Relaxed);
        // SYNC POINT with `Answer::get`.
        answer.number.store(number, Ordering::Release);
    }
}

impl Answer {
    #[cfg(loom)]
    pub(crate) fn new() -> Answer {
        let word = |_| AtomicU64::new(0);
        Answer {
            number: AtomicU64::new(0),
            value: AtomicU64::new(0),
            page: std::array::from_fn(|_| std::array::from_fn(word)),
        }
    }

    /// Returns the answer to the question with this number, the worker's last one, once it is there.
    pub(crate) fn get(&self, number: u64) -> Option<u64> {
        // SYNC POINT with `Answerer::answer`. Nothing is written after that before the worker asks again.
        let is_there = self.number.load(Ordering::Acquire) == number;
        is_there.then(|| self.value.load(Ordering::Relaxed))
    }

    /// Writes an entry of the page, as part of an answer.
    pub(crate) fn put(&self, index: usize, entry: [u64; ENTRY]) {
        for (word, value) in self.page[index].iter().zip(entry) {
            word.store(value, Ordering::Relaxed);
        }
    }

    /// Returns an entry of the page, after [`get`](Self::get).
    pub(crate) fn entry(&self, index: usize) -> [u64; ENTRY] {
        std::array::from_fn(|word| self.page[index][word].load(Ordering::Relaxed))
    }
}
