//! A ring against a queue: whatever both ends do, in any order, frames come out as they went in, and
//! no byte is written over before it was read.

use std::collections::VecDeque;
use std::sync::{Arc, LazyLock};

use proptest::collection::vec;
use proptest::prelude::*;

use super::memory::Ring;
use super::ring::{Consumer, Producer, aligned};
use super::sync::AtomicU64;
use crate::sys::memory::SharedFile;

const CAPACITY: usize = 32 << 10;

/// A step of one of the ends.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Producer: a frame of this many bytes, if there is room.
    Stage(usize),
    Publish,
    /// Consumer: looks at the mark.
    Look,
    /// Consumer: the next frame, if it knows of one.
    Read,
    /// Producer: learns how far the consumer is.
    Free,
    /// Producer: rewinds, if the ring is empty and that pays.
    Rewind,
}

/// Drawn as plain numbers, which is many times faster than a strategy for each kind.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    vec(any::<(u8, u16)>(), 0..400).prop_map(|drawn| drawn.into_iter().map(step).collect())
}

fn step((kind, size): (u8, u16)) -> Step {
    let size = usize::from(size);
    match kind % 26 {
        0..2 => Step::Stage(1 + size % 300),
        2 => Step::Stage(1 + size % 9000),
        3..6 => Step::Publish,
        6..10 => Step::Look,
        10..18 => Step::Read,
        18..22 => Step::Free,
        _ => Step::Rewind,
    }
}

/// Both ends, and the queue that they are compared with.
struct World {
    ring: Ring,
    producer: Producer<Arc<AtomicU64>>,
    consumer: Consumer<Arc<AtomicU64>>,
    /// Frames that are not freed yet, oldest first: their number and length.
    queue: VecDeque<(u32, usize)>,
    /// How many of them are read, known to the consumer, and published.
    read: usize,
    known: usize,
    published: usize,
    /// The number of the next frame.
    next: u32,
    /// The producer has rewound the ring, and the consumer has not followed.
    rewound: bool,
    rewinds: usize,
}

/// The bytes of a frame.
fn bytes(number: u32, len: usize) -> Vec<u8> {
    // No two places within 251 bytes are alike, and no two frames within 251 of each other.
    static PATTERN: LazyLock<Vec<u8>> = LazyLock::new(|| (0..251).cycle().take(10_000).collect());
    PATTERN[number as usize % 251..][..len].to_vec()
}

impl World {
    fn new() -> World {
        let file = SharedFile::new("model", CAPACITY).unwrap();
        let word = Arc::new(AtomicU64::new(0));
        World {
            ring: Ring::map(&file, 0, CAPACITY).unwrap(),
            producer: Producer::new(Arc::clone(&word), CAPACITY as u64, 0),
            consumer: Consumer::new(word, CAPACITY as u64, 0),
            queue: VecDeque::new(),
            read: 0,
            known: 0,
            published: 0,
            next: 0,
            rewound: false,
            rewinds: 0,
        }
    }

    fn step(&mut self, step: Step) {
        let filled: u64 = self.queue.iter().map(|(_, len)| aligned(*len)).sum();
        assert_eq!(self.producer.free(), CAPACITY as u64 - filled);
        assert_eq!(
            self.producer.has_staged(),
            self.published < self.queue.len()
        );
        match step {
            Step::Stage(len) => self.stage(len),
            Step::Publish if !self.producer.has_staged() => {} // No end publishes nothing.
            Step::Publish => {
                self.producer.publish();
                self.published = self.queue.len();
            }
            Step::Look => self.look(),
            Step::Read => self.read(),
            Step::Free if self.rewound => {} // What was read before says nothing of this round.
            Step::Free => {
                self.producer.freed(self.consumer.head());
                self.queue.drain(..self.read);
                self.known -= self.read;
                self.published -= self.read;
                self.read = 0;
            }
            Step::Rewind => {
                assert!(!self.producer.is_worn() || self.queue.is_empty());
                if self.producer.is_worn() {
                    self.producer.rewind();
                    self.rewound = true;
                    self.rewinds += 1;
                }
            }
        }
    }

    fn stage(&mut self, len: usize) {
        if aligned(len) > self.producer.free() {
            return;
        }
        self.ring
            .write(self.producer.tail(), &bytes(self.next, len));
        self.producer.stage(len);
        self.queue.push_back((self.next, len));
        self.next += 1;
    }

    fn look(&mut self) {
        let follows = self.rewound && self.published > 0;
        assert_eq!(self.consumer.follow(), Ok(follows));
        if follows {
            assert_eq!(self.consumer.head() % CAPACITY as u64, 0);
            self.rewound = false;
        }
        self.known = self.published;
        assert_eq!(self.consumer.look(), Ok(self.known > self.read));
    }

    fn read(&mut self) {
        let start = self.consumer.head();
        assert_eq!(start < self.consumer.tail(), self.read < self.known);
        if self.read == self.known {
            return;
        }
        let (number, len) = self.queue[self.read];
        let mut found = Vec::new();
        self.ring.shared(start, len).append_to(&mut found);
        assert_eq!(found, bytes(number, len));
        self.consumer.advance_to(start + aligned(len));
        self.read += 1;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_ring_does_what_a_queue_does(steps in steps()) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        for step in [Step::Publish, Step::Look] {
            world.step(step);
        }
        for _ in 0..world.known {
            world.step(Step::Read);
        }
        world.step(Step::Free);
        assert!(world.queue.is_empty());
    }
}

#[test]
fn a_ring_that_is_emptied_again_and_again_is_rewound_again_and_again() {
    let mut world = World::new();
    for round in 0..300 {
        let frame = Step::Stage(round * 7919 % 9000 + 1);
        for step in [
            frame,
            Step::Publish,
            Step::Look,
            Step::Read,
            Step::Free,
            Step::Rewind,
        ] {
            world.step(step);
        }
    }
    assert!(world.rewinds > 40, "{}", world.rewinds);
}
