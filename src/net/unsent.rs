//! Output that the socket did not take yet.

use crate::ipc::memory::SharedBytes;

/// Above this, an empty buffer gives its memory back.
const KEEP: usize = 64 << 10;

/// Bytes in the order in which they are to be sent.
#[derive(Default, Debug)]
pub(crate) struct Unsent {
    bytes: Vec<u8>,
    /// How many of them are sent.
    sent: usize,
}

impl Unsent {
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.sent
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn push(&mut self, bytes: SharedBytes<'_>) {
        bytes.append_to(&mut self.bytes);
    }

    /// What is to be sent next.
    pub(crate) fn front(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    /// The first `n` bytes are sent.
    pub(crate) fn sent(&mut self, n: usize) {
        self.sent += n;
        debug_assert!(self.sent <= self.bytes.len());
        if self.is_empty() {
            self.bytes.clear();
            self.bytes.shrink_to(KEEP);
            self.sent = 0;
        } else if self.sent >= KEEP && self.sent > self.bytes.len() / 2 {
            // More is sent than left: moving the rest costs less than what sending did.
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_leave_in_the_order_they_came() {
        let mut unsent = Unsent::default();
        let mut seen = Vec::new();
        for round in 0..200u32 {
            let chunk: Vec<u8> = (0..3000).map(|i| (round + i) as u8).collect();
            unsent.push(SharedBytes::of(&chunk));
            let n = unsent.len() * 2 / 3;
            seen.extend_from_slice(&unsent.front()[..n]);
            unsent.sent(n);
        }
        seen.extend_from_slice(unsent.front());
        let all: Vec<u8> = (0..200u32)
            .flat_map(|round| (0..3000).map(move |i| (round + i) as u8))
            .collect();
        assert_eq!(seen, all);
    }

    #[test]
    fn an_empty_buffer_gives_its_memory_back() {
        let mut unsent = Unsent::default();
        unsent.push(SharedBytes::of(&vec![1; 1 << 20]));
        unsent.sent(1 << 20);
        assert!(unsent.is_empty() && unsent.bytes.capacity() <= KEEP);
    }
}
