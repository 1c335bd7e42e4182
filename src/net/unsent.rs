//! Unsent output, which the socket has not taken yet.

use std::collections::VecDeque;

use crate::ipc::memory::SharedBytes;

/// The longest chunk, in bytes.
const LONGEST: usize = 64 << 10;

/// The shortest chunk, in bytes.
const SHORTEST: usize = 4 << 10;

/// A queue of bytes. Most sockets take all output at once: while it is empty, it takes one pointer.
#[derive(Default, Debug)]
pub(crate) struct Unsent(Option<Box<Chunks>>);

/// In chunks, so that little more memory is held than bytes are unsent: a single buffer would grow by doubling.
#[derive(Default, Debug)]
struct Chunks {
    chunks: VecDeque<Vec<u8>>,
    /// The bytes of the first chunk that are sent.
    sent: usize,
    /// The bytes that are unsent, in all chunks.
    len: usize,
}

impl Unsent {
    pub(crate) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |chunks| chunks.len)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub(crate) fn push(&mut self, bytes: SharedBytes<'_>) {
        if !bytes.is_empty() {
            self.0.get_or_insert_default().push(bytes);
        }
    }

    /// Returns the next bytes to send; not empty while any are unsent.
    pub(crate) fn front(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |chunks| chunks.front())
    }

    /// The first `n` bytes of the front are sent. When none is left, the memory is freed.
    pub(crate) fn sent(&mut self, n: usize) {
        debug_assert!(n <= self.front().len());
        if let Some(chunks) = &mut self.0 {
            chunks.sent(n);
        }
        self.0.take_if(|chunks| chunks.len == 0);
    }
}

impl Chunks {
    fn push(&mut self, bytes: SharedBytes<'_>) {
        self.len += bytes.len();
        let mut rest = bytes;
        while !rest.is_empty() {
            let spare = self
                .chunks
                .back()
                .map_or(0, |last| last.capacity() - last.len());
            if spare == 0 {
                let capacity = rest.len().next_multiple_of(SHORTEST).min(LONGEST);
                self.chunks.push_back(Vec::with_capacity(capacity));
                continue;
            }
            let now = spare.min(rest.len());
            if let Some(last) = self.chunks.back_mut() {
                rest.first(now).append_to(last);
            }
            rest = rest.skip(now);
        }
    }

    fn front(&self) -> &[u8] {
        self.chunks.front().map_or(&[], |first| &first[self.sent..])
    }

    fn sent(&mut self, n: usize) {
        self.sent += n;
        self.len -= n;
        if self.front().is_empty() {
            self.chunks.pop_front();
            self.sent = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A step of a history: bytes are added, or some of the front are sent.
    #[derive(Clone, Debug)]
    enum Event {
        Push(usize),
        /// This part of the front, in 256ths and at least a byte.
        Sent(u8),
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let len = prop_oneof![0..50usize, 3000..5000usize, 60_000..140_000usize];
        let event = prop_oneof![len.prop_map(Event::Push), any::<u8>().prop_map(Event::Sent)];
        prop::collection::vec(event, 0..60)
    }

    proptest! {
        /// In every history it is a queue of bytes, and holds little more memory than these need.
        #[test]
        fn it_is_a_queue_of_bytes(events in events()) {
            let (mut unsent, mut model) = (Unsent::default(), Vec::<u8>::new());
            let mut next = 0u8;
            for event in events {
                match event {
                    Event::Push(len) => {
                        let bytes: Vec<u8> = (0..len).map(|i| next.wrapping_add(i as u8)).collect();
                        next = next.wrapping_add(len as u8).wrapping_add(1);
                        unsent.push(SharedBytes::of(&bytes));
                        model.extend(bytes);
                    }
                    Event::Sent(part) => {
                        let front = unsent.front().len();
                        let n = (front * usize::from(part) / 256 + 1).min(front);
                        unsent.sent(n);
                        model.drain(..n);
                    }
                }
                prop_assert_eq!(unsent.len(), model.len());
                prop_assert_eq!(unsent.is_empty(), model.is_empty());
                prop_assert_eq!(unsent.front().is_empty(), model.is_empty());
                prop_assert!(model.starts_with(unsent.front()));
                let (held, sent) = held(&unsent);
                prop_assert!(held <= unsent.len() + sent + SHORTEST);
                prop_assert!(!model.is_empty() || unsent.0.is_none());
            }
        }
    }

    /// Returns the memory of all chunks, and the bytes in it that are sent.
    fn held(unsent: &Unsent) -> (usize, usize) {
        let Some(chunks) = &unsent.0 else {
            return (0, 0);
        };
        (chunks.chunks.iter().map(Vec::capacity).sum(), chunks.sent)
    }

    fn chunk(round: u32) -> impl Iterator<Item = u8> {
        (0..3000).map(move |i: u32| (round + i) as u8)
    }

    #[test]
    fn bytes_leave_in_the_order_they_came() {
        let mut unsent = Unsent::default();
        let mut seen = Vec::new();
        for round in 0..200 {
            unsent.push(SharedBytes::of(&chunk(round).collect::<Vec<u8>>()));
            let n = unsent.front().len() * 2 / 3;
            seen.extend_from_slice(&unsent.front()[..n]);
            unsent.sent(n);
        }
        while !unsent.is_empty() {
            seen.extend_from_slice(unsent.front());
            unsent.sent(unsent.front().len());
        }
        assert!(seen.into_iter().eq((0..200).flat_map(chunk)));
    }

    #[test]
    fn little_more_memory_is_held_than_bytes_are_unsent() {
        let mut unsent = Unsent::default();
        for len in [1, 100, 65_536, 70_000, 3, 1 << 20] {
            unsent.push(SharedBytes::of(&vec![7; len]));
        }
        let (held, _) = held(&unsent);
        assert!(
            held <= unsent.len() + SHORTEST,
            "{held} for {}",
            unsent.len()
        );
        while !unsent.is_empty() {
            unsent.sent(unsent.front().len());
        }
        assert!(unsent.0.is_none());
    }
}
