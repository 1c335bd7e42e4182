//! The worker's end. It trusts the reactor, which is the master's.

use std::sync::Arc;

use crate::ipc::arena::LinkMemory;
use crate::ipc::carried::Carried;
use crate::ipc::frame::{INPUT_HEADER, Input};
#[cfg(feature = "test-hooks")]
use crate::ipc::kill_point::KillPoint;
use crate::ipc::layout::{LinkWords, ReactorWords, Shared};
use crate::ipc::memory::Ring;
use crate::ipc::record::{OUTPUT_BODY, Output};
use crate::ipc::ring::{Consumer, Producer, aligned};
use crate::ipc::sleeper::{Ringer, Sleep};
use crate::ipc::sync::{AtomicU64, Ordering};
use crate::sys::doorbell::Doorbell;

/// The most bytes of output in one frame: small enough that a ring holds several, so that both
/// sides can work at once.
const LARGEST_OUTPUT: usize = 128 << 10;

/// A worker's end of a link.
pub(crate) struct WorkerLink {
    words: Shared<LinkWords>,
    generation: u32,
    attached: bool,
    /// It has taken no frame yet.
    is_fresh: bool,
    pub(crate) inbox: WorkerInbox,
    pub(crate) outbox: WorkerOutbox,
}

/// Where the worker reads.
pub(crate) struct WorkerInbox {
    words: Shared<LinkWords>,
    ring: Arc<Ring>,
    cursor: Consumer<Shared<AtomicU64>>,
    /// The reactor has rewound the rings, and the outbox has not followed yet.
    is_rewound: bool,
}

/// Where the worker writes.
pub(crate) struct WorkerOutbox {
    pub(super) words: Shared<LinkWords>,
    ring: Arc<Ring>,
    cursor: Producer<Shared<AtomicU64>>,
    reactor: Shared<ReactorWords>,
    bell: Doorbell,
    ringer: Ringer,
    unrung: bool,
}

/// A frame that the worker has taken from its inbox.
#[derive(Clone, Copy)]
pub(crate) struct Taken {
    pub(crate) input: Input,
    start: u64,
}

/// What a look at the inbox has found. One look, so that a worker that was barred a moment ago does not take
/// its inbox for empty.
#[derive(Clone, Copy)]
pub(crate) enum Take {
    /// A frame, which is begun by that.
    Frame(Taken),
    /// Nothing is published beyond the frames that were taken before.
    Empty,
    /// The reactor is recalling frames.
    Barred,
}

impl Take {
    /// Returns the frame, if there is one.
    #[cfg(test)]
    pub(crate) fn frame(self) -> Option<Taken> {
        match self {
            Take::Frame(taken) => Some(taken),
            Take::Empty | Take::Barred => None,
        }
    }
}

/// Positions in the rings of a link, as the worker sees them. They only grow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Marks {
    /// The end of the output that the worker has published, and of that which the reactor has read and acted on.
    pub(crate) written: u64,
    pub(crate) read: u64,
    /// The end of the frames that were published by then, and of those that the worker has taken.
    pub(crate) published: u64,
    pub(crate) taken: u64,
}

impl WorkerLink {
    /// Returns the marks of this moment.
    pub(crate) fn marks(&self) -> Marks {
        // SYNC POINT with `ReactorLink::release`: frames that the reactor had published by then are seen below.
        let read = self.words.outbox_consumed.load(Ordering::Acquire);
        Marks {
            written: self.outbox.cursor.tail(),
            read,
            published: self.words.inbox_published.load(Ordering::Acquire),
            taken: self.inbox.cursor.head(),
        }
    }

    pub(crate) fn new(
        memory: &LinkMemory,
        reactor: &Shared<ReactorWords>,
        generation: u32,
    ) -> WorkerLink {
        let (inbox, outbox) = cursors(memory, 0, 0);
        WorkerLink {
            words: memory.words.clone(),
            generation,
            attached: false,
            is_fresh: true,
            inbox: WorkerInbox {
                words: memory.words.clone(),
                ring: Arc::clone(&memory.inbox),
                cursor: inbox,
                is_rewound: false,
            },
            outbox: WorkerOutbox {
                words: memory.words.clone(),
                ring: Arc::clone(&memory.outbox),
                cursor: outbox,
                reactor: reactor.clone(),
                bell: memory.bell.clone(),
                ringer: Ringer::default(),
                unrung: false,
            },
        }
    }

    /// Takes the next frame, and marks it as begun.
    ///
    /// # Panics
    /// When the inbox has bytes that no reactor wrote: this worker is beyond help, and its death is
    /// the cure.
    pub(crate) fn take(&mut self) -> Take {
        let taken = self.inbox.take();
        self.is_fresh &= !matches!(taken, Take::Frame(_));
        if std::mem::take(&mut self.inbox.is_rewound) {
            // SYNC POINT with `ReactorLink::rewind`: it expects the next output there.
            self.outbox.cursor.rewind();
        }
        taken
    }

    /// Whether this worker has taken no frame here: it may begin to [post aside](Self::post_aside).
    pub(crate) fn is_fresh(&self) -> bool {
        self.is_fresh
    }

    /// From now on this worker also publishes while it has no frame here ([`WorkerOutbox::aside`]), and the reactor
    /// does not rewind the rings. Only before the first frame of this link, or before the record of a frame that is
    /// under way: the reactor rewinds when it has read the record of the last frame, and sees this with it.
    pub(crate) fn post_aside(&self) {
        self.words.posts_aside.store(1, Ordering::Relaxed);
    }

    /// Whether the reactor has let this incarnation in.
    pub(crate) fn attach(&mut self) -> bool {
        if self.attached {
            return true;
        }
        // SYNC POINT with `ReactorLink::open`.
        if self.words.opening.generation.load(Ordering::Acquire) != self.generation {
            return false;
        }
        let start = self.words.opening.inbox.load(Ordering::Relaxed);
        let position = self.words.opening.outbox.load(Ordering::Relaxed);
        let (inbox, outbox) = (self.inbox.ring.capacity(), self.outbox.ring.capacity());
        self.inbox.cursor = Consumer::new(
            self.words.project(|words| &*words.inbox_published),
            inbox,
            start,
        );
        self.outbox.cursor = Producer::new(
            self.words.project(|words| &*words.outbox_published),
            outbox,
            position,
        );
        self.attached = true;
        #[cfg(feature = "test-hooks")]
        {
            let pid = std::process::id();
            self.words.pid.store(pid, Ordering::Relaxed);
            KillPoint::Attached.pass();
        }
        true
    }
}

type Cursors = (Consumer<Shared<AtomicU64>>, Producer<Shared<AtomicU64>>);

fn cursors(memory: &LinkMemory, inbox: u64, outbox: u64) -> Cursors {
    let published = |part: fn(&LinkWords) -> &AtomicU64| memory.words.project(part);
    (
        Consumer::new(
            published(|words| &words.inbox_published),
            memory.inbox.capacity(),
            inbox,
        ),
        Producer::new(
            published(|words| &words.outbox_published),
            memory.outbox.capacity(),
            outbox,
        ),
    )
}

impl WorkerInbox {
    fn take(&mut self) -> Take {
        if !self.is_filled() {
            return Take::Empty;
        }
        let start = self.cursor.head();
        if self.words.claim.is_barred() || !self.words.claim.begin(start) {
            return Take::Barred;
        }
        #[cfg(feature = "test-hooks")]
        KillPoint::Begun.pass();
        let input =
            Input::decode(&self.ring.read(start)).expect("the inbox holds what the reactor wrote");
        self.cursor
            .advance_to(start + aligned(INPUT_HEADER + input.len as usize));
        Take::Frame(Taken { input, start })
    }

    /// Returns when the next frame was submitted, if there is one to take.
    pub(crate) fn waits_since(&mut self) -> Option<u64> {
        // Looked first: that may follow a reactor which has rewound the ring.
        self.look()
            .then(|| Input::submitted(&self.ring.read(self.cursor.head())))
    }

    /// Whether there is a frame to take.
    pub(crate) fn look(&mut self) -> bool {
        self.is_filled() && !self.words.claim.is_barred()
    }

    /// Whether a frame is published that was not taken.
    fn is_filled(&mut self) -> bool {
        if self.cursor.head() == self.cursor.tail() {
            self.is_rewound |= self
                .cursor
                .follow()
                .expect("the reactor keeps to the protocol");
        }
        self.cursor.head() != self.cursor.tail()
    }

    /// The message of a frame that is not done yet, and what the frame carries.
    ///
    /// # Panics
    /// As [`take`](WorkerLink::take).
    pub(crate) fn body(&self, taken: &Taken) -> (&[u8], Carried<'_>) {
        // SAFETY: the frame is published and this worker has not committed it, so the reactor does
        // not write there.
        let body = unsafe {
            self.ring
                .slice(taken.start + INPUT_HEADER as u64, taken.input.len as usize)
        };
        match taken.input.carries {
            true => Carried::split(body).expect("the inbox holds what the reactor wrote"),
            false => (body, Carried::default()),
        }
    }
}

impl WorkerOutbox {
    /// The most bytes that one frame may have.
    pub(crate) fn largest(&self) -> usize {
        LARGEST_OUTPUT.min(self.ring.capacity() as usize / 4)
    }

    /// Whether a frame of `len` bytes fits, and after it a commit record.
    pub(crate) fn room(&mut self, len: usize) -> bool {
        let needed = aligned(OUTPUT_BODY + len) + OUTPUT_BODY as u64;
        if self.cursor.free() < needed {
            // SYNC POINT with `ReactorLink::release`.
            let consumed = self.words.outbox_consumed.load(Ordering::Acquire);
            // A position from before the ring was rewound says nothing.
            if consumed > self.cursor.head() {
                self.cursor.freed(consumed);
            }
        }
        self.cursor.free() >= needed
    }

    /// Whether the reactor has read all published frames, and acted on them.
    pub(crate) fn is_read(&self) -> bool {
        self.read() == self.cursor.tail()
    }

    /// Returns the end of the frames that are published.
    pub(crate) fn written(&self) -> u64 {
        self.cursor.tail()
    }

    /// Returns how far the reactor has read, and acted on it.
    pub(crate) fn read(&self) -> u64 {
        // SYNC POINT with `ReactorLink::release`.
        self.words.outbox_consumed.load(Ordering::Acquire)
    }

    /// Announces a sleep for lack of room to the reactor. [`room`](Self::room) must be called again
    /// before sleeping.
    pub(crate) fn arm_for_room(&self, sleep: &mut Sleep) {
        self.words.room.arm(sleep);
    }

    /// After the sleep.
    pub(crate) fn disarm_for_room(&self) {
        self.words.room.disarm();
    }

    /// Stages a frame. There must be [`room`](Self::room) for it.
    pub(crate) fn stage(&mut self, output: Output, body: &[u8]) {
        let start = self.cursor.tail();
        #[cfg(feature = "test-hooks")]
        KillPoint::BeforeStaging.pass();
        self.ring.write(start, &output.encode(body.len() as u32));
        #[cfg(feature = "test-hooks")]
        {
            let half = &body[..body.len() / 2];
            self.ring.write(start + OUTPUT_BODY as u64, half);
            KillPoint::MidFrame.pass();
        }
        self.ring.write(start + OUTPUT_BODY as u64, body);
        self.cursor.stage(OUTPUT_BODY + body.len());
        #[cfg(feature = "test-hooks")]
        KillPoint::Staged.pass();
    }

    /// Publishes all staged frames: a commit, if a record is the last of them, and otherwise output
    /// that the reactor holds back.
    pub(crate) fn publish(&mut self) {
        if self.cursor.has_staged() {
            self.cursor.publish();
            self.unrung = true;
        }
    }

    /// Stages `Done` and publishes: the commit. [`room`](Self::room) has reserved the place for it.
    pub(crate) fn done(&mut self, taken: &Taken) {
        self.stage(Output::Done(taken.start), &[]);
        self.publish();
        #[cfg(feature = "test-hooks")]
        KillPoint::Published.pass();
    }

    /// Stages the record of posts that are of no callback, and publishes them. The link must
    /// [post aside](WorkerLink::post_aside), and [`room`](Self::room) has reserved the place.
    pub(crate) fn aside(&mut self) {
        self.stage(Output::Aside, &[]);
        self.publish();
        #[cfg(feature = "test-hooks")]
        KillPoint::Published.pass();
    }

    /// Takes back what the callback has staged, as far as it is not published, and publishes a record
    /// that it has failed: the reactor drops what was published of it. Then it must not take another
    /// frame before the reactor [has read](Self::is_read) that, which may recall frames.
    pub(crate) fn failed(&mut self, taken: &Taken) {
        self.cursor.unstage();
        self.stage(Output::Failed(taken.start), &[]);
        self.publish();
    }

    /// Rings the reactor's bell, if it sleeps and something was published since the last ring.
    pub(crate) fn ring(&mut self) {
        if self.unrung {
            self.unrung = false;
            if self.ringer.due(&self.reactor.sleeper) {
                self.bell.ring();
            }
        }
    }
}

/// For the tests' lying worker alone.
#[cfg(feature = "test-hooks")]
impl WorkerOutbox {
    /// Publishes bytes as they are.
    pub(crate) fn forge(&mut self, bytes: &[u8]) {
        while !self.room(bytes.len()) {
            self.bell.ring();
            std::thread::yield_now();
        }
        self.ring.write(self.cursor.tail(), bytes);
        self.cursor.stage(bytes.len());
        self.cursor.publish();
        self.bell.ring();
    }

    /// Publishes a mark at this distance from the true one.
    pub(crate) fn forge_mark(&mut self, distance: i64) {
        let mark = self.cursor.tail().wrapping_add_signed(distance);
        self.words.outbox_published.store(mark, Ordering::Release);
        self.bell.ring();
    }
}
