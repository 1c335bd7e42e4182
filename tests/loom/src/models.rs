//! What has to hold under every interleaving.

use crate::ipc::answer::{Answer, Answerer, ENTRY, Questions};
use crate::ipc::claim::{Claim, NOWHERE};
use crate::ipc::position::ALIGN;
use crate::ipc::ring::{Consumer, Producer};
use crate::ipc::sleeper::{Ringer, Sleep, Sleeper};
use crate::ipc::sync::{AtomicU64, Ordering};
use loom::cell::UnsafeCell;
use loom::sync::{Arc, Notify};
use loom::thread;
use std::ops::Deref;

/// One ring of two slots, its sleeper, and the bell.
struct World {
    published: AtomicU64,
    consumed: AtomicU64,
    slots: [UnsafeCell<u64>; 2],
    sleeper: Sleeper,
    bell: Notify,
}

impl World {
    fn new() -> Arc<World> {
        Arc::new(World {
            published: AtomicU64::new(0),
            consumed: AtomicU64::new(0),
            slots: [UnsafeCell::new(0), UnsafeCell::new(0)],
            sleeper: Sleeper::new(),
            bell: Notify::new(),
        })
    }

    fn slot(&self, position: u64) -> &UnsafeCell<u64> {
        &self.slots[(position / ALIGN) as usize % 2]
    }
}

/// A word of the shared world, so that a cursor can own its way to it.
struct Published(Arc<World>);

impl Deref for Published {
    type Target = AtomicU64;
    fn deref(&self) -> &AtomicU64 {
        &self.0.published
    }
}

fn produce(world: &Arc<World>, values: std::ops::Range<u64>) {
    let mut producer = Producer::new(Published(world.clone()), 2 * ALIGN, 0);
    let mut ringer = Ringer::default();
    for value in values {
        while producer.free() < ALIGN {
            // SYNC POINT with the consumer's store: what it has read may be written over.
            let consumed = world.consumed.load(Ordering::Acquire);
            producer.freed(consumed);
            thread::yield_now();
        }
        // SAFETY: the slot is the producer's until it is published; loom checks that.
        world
            .slot(producer.tail())
            .with_mut(|slot| unsafe { *slot = value });
        producer.stage(8);
        producer.publish();
        if ringer.due(&world.sleeper) {
            world.bell.notify();
        }
    }
}

fn consume(world: &Arc<World>, values: std::ops::Range<u64>) {
    let mut consumer = Consumer::new(Published(world.clone()), 2 * ALIGN, 0);
    let mut sleep = Sleep::of(1);
    for value in values {
        while !consumer.look().unwrap() {
            world.sleeper.arm(&mut sleep);
            if !consumer.look().unwrap() {
                world.bell.wait();
            }
            world.sleeper.disarm();
        }
        // SAFETY: the slot is the consumer's since it was published; loom checks that.
        let found = world.slot(consumer.head()).with(|slot| unsafe { *slot });
        assert_eq!(found, value);
        consumer.advance_to(consumer.head() + ALIGN);
        world.consumed.store(consumer.head(), Ordering::Release);
    }
}

#[test]
fn loom_every_frame_arrives_once_in_order_and_no_wake_up_is_lost() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let world = World::new();
        let other = world.clone();
        let producer = thread::spawn(move || produce(&other, 1..4));
        consume(&world, 1..4);
        producer.join().unwrap();
    });
}

/// Two workers ring one reactor. One of them dies after it published and before it rang: the
/// other's frame still wakes.
#[test]
fn loom_a_ringer_that_dies_does_not_silence_the_others() {
    loom::model(|| {
        let world = World::new();
        let dying = world.clone();
        let first = thread::spawn(move || {
            let mut ringer = Ringer::default();
            // Looks, and dies before the bell.
            let _ = ringer.due(&dying.sleeper);
        });
        let other = world.clone();
        let second = thread::spawn(move || produce(&other, 7..8));
        consume(&world, 7..8);
        first.join().unwrap();
        second.join().unwrap();
    });
}

/// A producer that is killed between staging and publishing leaves nothing to see.
#[test]
fn loom_reply_and_acknowledgement_are_seen_both_or_neither() {
    loom::model(|| {
        let world = World::new();
        let other = world.clone();
        let producer = thread::spawn(move || {
            let mut producer = Producer::new(Published(other.clone()), 2 * ALIGN, 0);
            for value in [10, 11] {
                // SAFETY: unpublished slots are the producer's; loom checks that.
                other
                    .slot(producer.tail())
                    .with_mut(|slot| unsafe { *slot = value });
                producer.stage(8);
            }
            producer.publish();
        });
        let mut consumer = Consumer::new(Published(world.clone()), 2 * ALIGN, 0);
        if consumer.look().unwrap() {
            assert_eq!(consumer.tail(), 2 * ALIGN);
            for (position, value) in [(0, 10), (ALIGN, 11)] {
                // SAFETY: published slots are the consumer's; loom checks that.
                assert_eq!(world.slot(position).with(|slot| unsafe { *slot }), value);
            }
        }
        producer.join().unwrap();
    });
}

/// A reactor takes frames back from a worker that lives: each is run, or has been taken back, and
/// never both. A worker that is kept from one comes back when the bar is lifted, and sees what was
/// written meanwhile.
#[test]
fn loom_a_frame_is_run_or_taken_back_and_never_both() {
    const FRAMES: [u64; 2] = [64, 128];
    loom::model(|| {
        let claim = Arc::new(Claim::new());
        let void = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
        let (theirs, voided) = (claim.clone(), void.clone());
        let worker = thread::spawn(move || {
            [0, 1].map(|frame| {
                while !theirs.begin(FRAMES[frame]) {
                    thread::yield_now();
                }
                voided[frame].load(Ordering::Relaxed) == 0
            })
        });
        let begun = claim.bar();
        let kept = match begun {
            NOWHERE => 0,
            position => (position / 64) as usize,
        };
        for frame in kept..2 {
            void[frame].store(1, Ordering::Relaxed);
        }
        claim.lift();
        let was_run = worker.join().unwrap();
        assert_eq!(was_run, [kept > 0, kept > 1]);
    });
}

/// Both rings of a link, of two slots each.
struct Link {
    inbox: Arc<World>,
    outbox: Arc<World>,
}

impl Link {
    /// What stands in the consumer's slot.
    fn read(ring: &World, position: u64) -> u64 {
        // SAFETY: the slot is the consumer's since it was published; loom checks that.
        ring.slot(position).with(|slot| unsafe { *slot })
    }

    /// Publishes a value in the producer's next slot.
    fn write(ring: &World, producer: &mut Producer<Published>, value: u64) {
        // SAFETY: the slot is the producer's until it is published; loom checks that.
        ring.slot(producer.tail())
            .with_mut(|slot| unsafe { *slot = value });
        producer.stage(8);
        producer.publish();
    }
}

/// A reactor rewinds both rings as soon as the worker has finished everything: the worker finds
/// the next frame there, and the reactor the answer, and nobody touches a slot that is the other's.
#[test]
fn loom_both_sides_agree_where_an_empty_ring_is_rewound() {
    loom::model(|| {
        let link = Link {
            inbox: World::new(),
            outbox: World::new(),
        };
        let (inbox, outbox) = (link.inbox.clone(), link.outbox.clone());
        let worker = thread::spawn(move || {
            let mut frames = Consumer::new(Published(inbox.clone()), 2 * ALIGN, 0);
            let mut answers = Producer::new(Published(outbox.clone()), 2 * ALIGN, 0);
            for _ in 0..2 {
                while frames.head() == frames.tail() {
                    if frames.follow().unwrap() {
                        answers.rewind();
                    }
                    thread::yield_now();
                }
                let value = Link::read(&inbox, frames.head());
                frames.advance_to(frames.head() + ALIGN);
                Link::write(&outbox, &mut answers, value + 10);
            }
        });
        let mut frames = Producer::new(Published(link.inbox.clone()), 2 * ALIGN, 0);
        let mut answers = Consumer::new(Published(link.outbox.clone()), 2 * ALIGN, 0);
        for value in 1..3 {
            Link::write(&link.inbox, &mut frames, value);
            while !answers.look().unwrap() {
                thread::yield_now();
            }
            assert_eq!(Link::read(&link.outbox, answers.head()), value + 10);
            answers.advance_to(answers.head() + ALIGN);
            frames.freed(frames.tail());
            frames.rewind();
            answers.rewind();
            assert_eq!(
                (frames.tail() % (2 * ALIGN), answers.head() % (2 * ALIGN)),
                (0, 0)
            );
            link.outbox
                .published
                .store(answers.head(), Ordering::Relaxed);
        }
        worker.join().unwrap();
    });
}

/// Questions on their way to one reactor, by two others, so that they arrive in any order.
struct Asking {
    answer: Answer,
    ways: [AtomicU64; 2],
}

impl Asking {
    fn new() -> Arc<Asking> {
        Arc::new(Asking {
            answer: Answer::new(),
            ways: [AtomicU64::new(0), AtomicU64::new(0)],
        })
    }

    fn ask(&self, way: usize, number: u64) {
        self.ways[way].store(number, Ordering::Release);
    }

    /// Answers both questions as they come; each answer repeats the number of its question, in the value and in the
    /// page.
    fn answer_both(&self) {
        let mut answerer = Answerer::default();
        let mut left = vec![0, 1];
        while !left.is_empty() {
            left.retain(|way| {
                let number = self.ways[*way].load(Ordering::Acquire);
                answerer.answer(&self.answer, number, |answer| {
                    answer.put(0, [number; ENTRY]);
                    number
                });
                number == 0
            });
            thread::yield_now();
        }
    }

    /// Waits for the answer to the question that was asked last, and checks that it is no other's.
    fn check(&self, number: u64) {
        let value = loop {
            match self.answer.get(number) {
                Some(value) => break value,
                None => thread::yield_now(),
            }
        };
        assert_eq!((value, self.answer.entry(0)), (number, [number; ENTRY]));
    }
}

/// A worker asks, gives up, and asks again by another way: what it takes for the answer is the answer, though the one
/// to the first question comes before, meanwhile, or afterwards.
#[test]
fn loom_a_late_answer_is_not_taken_for_that_to_the_next_question() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let asking = Asking::new();
        let other = asking.clone();
        let reactor = thread::spawn(move || other.answer_both());
        let mut questions = Questions::of(1);
        let (first, second) = (questions.next(), questions.next());
        asking.ask(0, first);
        let _ = asking.answer.get(first);
        asking.ask(1, second);
        asking.check(second);
        reactor.join().unwrap();
        asking.check(second);
    });
}

/// A worker asks and is killed, and the next one in its memory asks: each takes its own answer alone.
#[test]
fn loom_the_question_of_a_dead_worker_does_not_confuse_the_next_one() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let asking = Asking::new();
        let other = asking.clone();
        let reactor = thread::spawn(move || other.answer_both());
        let killed = asking.clone();
        let first = thread::spawn(move || killed.ask(0, Questions::of(1).next()));
        first.join().unwrap();
        let number = Questions::of(2).next();
        if let Some(value) = asking.answer.get(number) {
            panic!("{value} before it has asked");
        }
        asking.ask(1, number);
        asking.check(number);
        reactor.join().unwrap();
        asking.check(number);
    });
}

/// A worker that begins to post in a callback publishes at any time from then on: the reactor, which could rewind both
/// rings behind that callback, knows it in time, and finds the post.
#[test]
fn loom_rings_are_not_rewound_under_a_worker_that_posts_at_any_time() {
    loom::model(|| {
        let (outbox, aside) = (World::new(), Arc::new(AtomicU64::new(0)));
        let (ring, flag) = (outbox.clone(), aside.clone());
        let worker = thread::spawn(move || {
            let mut answers = Producer::new(Published(ring.clone()), 2 * ALIGN, 0);
            // In the callback, before its record.
            flag.store(1, Ordering::Relaxed);
            Link::write(&ring, &mut answers, 10);
            Link::write(&ring, &mut answers, 99);
        });
        let mut answers = Consumer::new(Published(outbox.clone()), 2 * ALIGN, 0);
        for value in [10, 99] {
            while !answers.look().unwrap() {
                thread::yield_now();
            }
            assert_eq!(Link::read(&outbox, answers.head()), value);
            answers.advance_to(answers.head() + ALIGN);
            // As `ReactorLink::rewind` does.
            if aside.load(Ordering::Relaxed) == 0 {
                answers.rewind();
                outbox.published.store(answers.head(), Ordering::Relaxed);
            }
        }
        worker.join().unwrap();
    });
}
