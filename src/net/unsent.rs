//! Unsent output, which the socket has not taken yet.

use std::collections::VecDeque;

use super::files::FilePart;
use super::groups::SharedCopy;
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
    chunks: VecDeque<Chunk>,
    /// The bytes of the first chunk that are sent.
    sent: usize,
    /// Records of TLS before the first chunk, and how many of their bytes are sent. They are in memory of their own.
    sealed: Vec<u8>,
    sealed_sent: usize,
    /// The bytes that are unsent, in all chunks in memory.
    len: usize,
    /// Those of them that no other connection shares.
    own: usize,
    /// The parts of files, and the bytes in them that are unsent.
    files: usize,
    in_files: u64,
}

#[derive(Debug)]
enum Chunk {
    Own(Vec<u8>),
    /// What was published, from this byte on: its memory is shared by all members.
    Shared(SharedCopy, usize),
    /// No byte of it is in memory.
    File(Box<FilePart>),
}

impl Chunk {
    fn bytes(&self) -> &[u8] {
        match self {
            Chunk::File(_) => &[],
            Chunk::Own(bytes) => bytes,
            Chunk::Shared(copy, from) => &copy.bytes()[*from..],
        }
    }
}

impl Unsent {
    /// Returns how many bytes are in memory.
    pub(crate) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |chunks| chunks.len)
    }

    /// Returns how many bytes are unsent, those of files included.
    pub(crate) fn total(&self) -> u64 {
        let chunks = self.0.as_ref();
        chunks.map_or(0, |chunks| {
            (chunks.len as u64).saturating_add(chunks.in_files)
        })
    }

    /// Returns how many parts of files are unsent.
    pub(crate) fn files(&self) -> usize {
        self.0.as_ref().map_or(0, |chunks| chunks.files)
    }

    /// Whether its next bytes are those of a file that a disk thread is at.
    pub(crate) fn is_awaited(&self) -> bool {
        let chunks = self.0.as_ref().filter(|chunks| chunks.sealed().is_empty());
        let chunk = chunks.and_then(|chunks| chunks.chunks.front());
        matches!(chunk, Some(Chunk::File(part)) if part.is_awaited())
    }

    /// Adds a part of a file, which is not empty.
    pub(crate) fn push_file(&mut self, part: FilePart) {
        self.0.get_or_insert_default().push_file(part);
    }

    /// Returns the part of a file that comes next, if one does.
    pub(crate) fn file(&mut self) -> Option<&mut FilePart> {
        match self.0.as_mut()?.chunks.front_mut() {
            Some(Chunk::File(part)) => Some(part),
            Some(Chunk::Own(_) | Chunk::Shared(..)) | None => None,
        }
    }

    /// Of `read` bytes of that part, the first `n` are sent.
    pub(crate) fn file_sent(&mut self, read: usize, n: usize) {
        if let Some(chunks) = &mut self.0 {
            chunks.file_sent(read, n);
        }
        self.0.take_if(|chunks| chunks.is_empty());
    }

    /// Adds records that go before all other bytes, and behind the records that are unsent.
    pub(crate) fn seal(&mut self, records: &[u8]) {
        if !records.is_empty() {
            self.0.get_or_insert_default().seal(records);
        }
    }

    /// Returns the records that are unsent.
    pub(crate) fn sealed(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |chunks| chunks.sealed())
    }

    /// The first `n` bytes of the records are sent.
    pub(crate) fn sealed_sent(&mut self, n: usize) {
        if let Some(chunks) = &mut self.0 {
            chunks.records_sent(n);
        }
        self.0.take_if(|chunks| chunks.is_empty());
    }

    /// Returns how many of them are in memory of their own.
    pub(crate) fn own(&self) -> usize {
        self.0.as_ref().map_or(0, |chunks| chunks.own)
    }

    /// Returns its part of the memory that it shares.
    pub(crate) fn share(&self) -> usize {
        self.0.as_ref().map_or(0, |chunks| chunks.share())
    }

    /// Returns a number that connections have in common which wait for the same copy first; 0 without one.
    pub(crate) fn shared_with(&self) -> usize {
        let chunks = self.0.as_ref();
        chunks
            .and_then(|chunks| chunks.first_copy())
            .map_or(0, SharedCopy::number)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub(crate) fn push(&mut self, bytes: SharedBytes<'_>) {
        if !bytes.is_empty() {
            self.0.get_or_insert_default().push(bytes);
        }
    }

    /// Adds what was published, without its first `sent` bytes: less than all.
    pub(crate) fn push_copy(&mut self, copy: SharedCopy, sent: usize) {
        self.0.get_or_insert_default().push_copy(copy, sent);
    }

    /// Returns the next bytes to send; not empty while any are unsent and no part of a file comes next.
    pub(crate) fn front(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |chunks| chunks.front())
    }

    /// The first `n` bytes of the front are sent. When none is left, the memory is freed. Returns how many were in
    /// memory of their own.
    pub(crate) fn sent(&mut self, n: usize) -> usize {
        debug_assert!(n <= self.front().len());
        let own = self.0.as_mut().map_or(0, |chunks| chunks.sent(n));
        self.0.take_if(|chunks| chunks.is_empty());
        own
    }
}

impl Chunks {
    fn is_empty(&self) -> bool {
        self.chunks.is_empty() && self.sealed.is_empty()
    }

    fn seal(&mut self, records: &[u8]) {
        self.len += records.len();
        self.own += records.len();
        self.sealed.drain(..self.sealed_sent);
        self.sealed_sent = 0;
        self.sealed.extend_from_slice(records);
    }

    fn sealed(&self) -> &[u8] {
        &self.sealed[self.sealed_sent..]
    }

    fn records_sent(&mut self, n: usize) {
        self.sealed_sent += n;
        self.len -= n;
        self.own -= n;
        if self.sealed().is_empty() {
            (self.sealed, self.sealed_sent) = (Vec::new(), 0);
        }
    }

    fn push(&mut self, bytes: SharedBytes<'_>) {
        self.len += bytes.len();
        self.own += bytes.len();
        let mut rest = bytes;
        while !rest.is_empty() {
            if let Some(Chunk::Own(last)) = self.chunks.back_mut()
                && last.capacity() > last.len()
            {
                let now = rest.len().min(last.capacity() - last.len());
                rest.first(now).append_to(last);
                rest = rest.skip(now);
                continue;
            }
            let capacity = rest.len().next_multiple_of(SHORTEST).min(LONGEST);
            let chunk = Chunk::Own(Vec::with_capacity(capacity));
            self.chunks.push_back(chunk);
        }
    }

    fn push_file(&mut self, part: FilePart) {
        self.files += 1;
        // A sparse file may be as long as a number can be.
        self.in_files = self.in_files.saturating_add(part.left());
        self.end_last();
        self.chunks.push_back(Chunk::File(Box::new(part)));
    }

    fn file_sent(&mut self, read: usize, n: usize) {
        if let Some(Chunk::File(part)) = self.chunks.front_mut() {
            part.sent(read, n);
            self.in_files = self.in_files.saturating_sub(n as u64);
            if part.left() == 0 {
                self.files -= 1;
                self.chunks.pop_front();
            }
        }
    }

    fn push_copy(&mut self, copy: SharedCopy, sent: usize) {
        self.len += copy.bytes().len() - sent;
        self.end_last();
        self.chunks.push_back(Chunk::Shared(copy, sent));
    }

    /// Nothing more comes to the last chunk.
    fn end_last(&mut self) {
        if let Some(Chunk::Own(last)) = self.chunks.back_mut() {
            last.shrink_to_fit();
        }
    }

    fn front(&self) -> &[u8] {
        let first = self.chunks.front();
        first.map_or(&[], |first| &first.bytes()[self.sent..])
    }

    fn sent(&mut self, n: usize) -> usize {
        self.sent += n;
        self.len -= n;
        let own = match self.chunks.front() {
            Some(Chunk::Own(_)) => n,
            Some(Chunk::Shared(..) | Chunk::File(_)) | None => 0,
        };
        self.own -= own;
        if self.front().is_empty() {
            self.chunks.pop_front();
            self.sent = 0;
        }
        own
    }

    fn share(&self) -> usize {
        // The first one stands for all: fewer connections hold it than those behind it.
        let holders = self.first_copy().map_or(1, SharedCopy::holders);
        (self.len - self.own).div_ceil(holders)
    }

    fn first_copy(&self) -> Option<&SharedCopy> {
        if self.own == self.len {
            return None;
        }
        self.chunks.iter().find_map(|chunk| match chunk {
            Chunk::Own(_) | Chunk::File(_) => None,
            Chunk::Shared(copy, _) => Some(copy),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::budget::Budget;
    use super::super::groups::Publication;
    use super::*;
    use proptest::prelude::*;

    /// A step of a history: bytes are added, or some of the front are sent.
    #[derive(Clone, Debug)]
    enum Event {
        Push(usize),
        /// What was published is added, whose first bytes are sent.
        Publish(usize, usize),
        /// A part of a file is added.
        File(usize),
        /// This part of the front, in 256ths and at least a byte.
        Sent(u8),
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let len = prop_oneof![0..50usize, 3000..5000usize, 60_000..140_000usize];
        let published = (1..9000usize).prop_flat_map(|len| (Just(len), 0..len));
        let event = prop_oneof![
            len.prop_map(Event::Push),
            published.prop_map(|(len, sent)| Event::Publish(len, sent)),
            (1..9000usize).prop_map(Event::File),
            any::<u8>().prop_map(Event::Sent)
        ];
        prop::collection::vec(event, 0..60)
    }

    proptest! {
        /// In every history it is a queue of bytes, and holds little more memory than these need.
        #[test]
        fn it_is_a_queue_of_bytes(events in events()) {
            let (mut unsent, mut model) = (Unsent::default(), Vec::<u8>::new());
            let (mut budget, mut own) = (Budget::new(0), 0);
            let mut files = VecDeque::<usize>::new();
            let mut next = 0u8;
            let mut fresh = |len: usize| -> Vec<u8> {
                let bytes = (0..len).map(|i| next.wrapping_add(i as u8)).collect();
                next = next.wrapping_add(len as u8).wrapping_add(1);
                bytes
            };
            for event in events {
                match event {
                    Event::Push(len) => {
                        let bytes = fresh(len);
                        unsent.push(SharedBytes::of(&bytes));
                        own += len;
                        model.extend(bytes);
                    }
                    Event::Publish(len, sent) => {
                        let bytes = fresh(len);
                        let copy = SharedCopy::new(&Publication::example(&bytes), &mut budget);
                        unsent.push_copy(copy, sent);
                        model.extend(&bytes[sent..]);
                    }
                    Event::File(len) => {
                        let bytes = fresh(len);
                        unsent.push_file(FilePart::example(len as u64));
                        model.extend(bytes);
                        files.push_back(len);
                    }
                    Event::Sent(part) if unsent.file().is_some() => {
                        let left = files.front_mut().unwrap();
                        let n = (*left * usize::from(part) / 256 + 1).min(*left);
                        unsent.file_sent(*left, n);
                        *left -= n;
                        if *left == 0 {
                            files.pop_front();
                        }
                        model.drain(..n);
                    }
                    Event::Sent(part) => {
                        let front = unsent.front().len();
                        let n = (front * usize::from(part) / 256 + 1).min(front);
                        own -= unsent.sent(n);
                        model.drain(..n);
                    }
                }
                let in_files: usize = files.iter().sum();
                prop_assert_eq!(unsent.total(), model.len() as u64);
                prop_assert_eq!(unsent.len(), model.len() - in_files);
                prop_assert_eq!(unsent.files(), files.len());
                prop_assert_eq!(unsent.is_empty(), model.is_empty());
                let is_file = unsent.file().is_some();
                prop_assert_eq!(unsent.front().is_empty(), model.is_empty() || is_file);
                prop_assert!(model.starts_with(unsent.front()));
                let (held, sent) = held(&unsent);
                prop_assert!(held <= unsent.len() + sent + SHORTEST);
                prop_assert!(!model.is_empty() || unsent.0.is_none());
                prop_assert_eq!(unsent.own(), own);
                prop_assert!(budget.shared() >= unsent.len() - own);
                prop_assert_eq!(unsent.share(), unsent.len() - own);
            }
        }
    }

    /// Returns the memory of all chunks, and the bytes in it that are sent.
    fn held(unsent: &Unsent) -> (usize, usize) {
        let Some(chunks) = &unsent.0 else {
            return (0, 0);
        };
        let held = |chunk: &Chunk| match chunk {
            Chunk::Own(bytes) => bytes.capacity(),
            Chunk::Shared(copy, from) => copy.bytes().len() - from,
            Chunk::File(_) => 0,
        };
        (chunks.chunks.iter().map(held).sum(), chunks.sent)
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
