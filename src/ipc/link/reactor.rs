//! The reactor's end. Its one rule: it believes nothing that the worker wrote before it has copied
//! and checked it.

use std::collections::VecDeque;
use std::sync::Arc;

use super::commits::{Commit, Staged};
use crate::conn_id::ConnId;
use crate::ipc::answer::Answerer;
use crate::ipc::arena::LinkMemory;
use crate::ipc::carried::Carried;
use crate::ipc::frame::{INPUT_HEADER, Input, InputKind};
#[cfg(feature = "test-hooks")]
use crate::ipc::kill_point::KillPoint;
use crate::ipc::layout::{LinkWords, Shared};
use crate::ipc::memory::{Ring, Room};
use crate::ipc::record::{About, Question};
use crate::ipc::ring::{Consumer, Producer, aligned};
use crate::ipc::sleeper::Ringer;
use crate::ipc::sync::{AtomicU64, Ordering};

/// A frame in the inbox that is not retired. The reactor remembers it here, and reads none of this
/// back from shared memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Delivery {
    pub(super) start: u64,
    pub(super) len: u32,
    /// How many of its bytes are behind the message.
    pub(super) carried: u32,
    pub(crate) conn: ConnId,
    pub(crate) kind: InputKind,
    /// How many runs of its callback had not completed when it was submitted.
    pub(super) attempts: u8,
    /// Of a message: its number.
    pub(super) value: u64,
    /// Part of its output has left already, so that it can't be run again.
    pub(super) flushed: bool,
    pub(crate) expires: u64,
    /// Since when its connection had waited for a place, in microseconds; 0 if it had not.
    pub(super) waited_since: u64,
}

impl Delivery {
    /// Where its bytes begin.
    pub(super) fn body(&self) -> u64 {
        self.start + INPUT_HEADER as u64
    }

    /// Returns the length of the message.
    pub(super) fn message(&self) -> u32 {
        self.len - self.carried
    }

    pub(super) fn end(&self) -> u64 {
        self.start + aligned(INPUT_HEADER + self.len as usize)
    }
}

/// Memory for this many frames and outputs is taken at the start, so that the hot path rarely allocates.
const USUAL: usize = 64;

/// Before the first question.
const NO_QUESTION: Question = Question {
    number: 0,
    about: About::Group,
};

/// The reactor's end of a link.
pub(crate) struct ReactorLink {
    pub(super) words: Shared<LinkWords>,
    pub(super) inbox_ring: Arc<Ring>,
    pub(super) inbox: Producer<Shared<AtomicU64>>,
    /// The frames in the inbox, oldest first.
    pub(super) in_flight: VecDeque<Delivery>,
    /// How many of them are recalled already, and only take up room.
    pub(super) void: usize,
    pub(super) outbox_ring: Arc<Ring>,
    pub(super) outbox: Consumer<Shared<AtomicU64>>,
    /// The outputs of the commit that is being read, in order.
    pub(super) outputs: Vec<Staged>,
    /// Bytes of outputs that were published before their commit record, to make room in the ring.
    pub(super) held: Vec<u8>,
    /// How many of the outputs have their bytes there.
    pub(super) held_outputs: usize,
    /// What the outputs so far are charged against the budget.
    pub(super) charged: usize,
    /// Where reading goes on after the commit.
    pub(super) next: u64,
    /// The most bytes that one commit may send.
    pub(super) budget: usize,
    /// The question that was read last, and its bytes.
    pub(super) question: (Question, Vec<u8>),
    pub(super) answerer: Answerer,
    /// The worker broke the protocol: nothing of it is read any more.
    pub(super) failed: bool,
    /// It did so in the oldest frame, whatever it says to have begun.
    pub(super) is_front_blamed: bool,
    /// The worker is dead, and the published mark was looked at since.
    pub(super) is_final: bool,
    /// The incarnation that the link is open for; 0 is none.
    pub(super) generation: u32,
    /// How far the outbox is read, as the worker was told.
    released: u64,
    room_ringer: Ringer,
    /// How far from its first byte the inbox was used up to here, and where it was begun last.
    pub(super) touched: u64,
    pub(super) begun_at: u64,
    pub(super) has_freed_much: bool,
}

impl ReactorLink {
    /// The reactor's end, closed: [`open`](Self::open) lets a generation in.
    pub(crate) fn new(memory: &LinkMemory, budget: usize) -> ReactorLink {
        let published = |part: fn(&LinkWords) -> &AtomicU64| memory.words.project(part);
        ReactorLink {
            inbox: Producer::new(
                published(|words| &words.inbox_published),
                memory.inbox.capacity(),
                0,
            ),
            outbox: Consumer::new(
                published(|words| &words.outbox_published),
                memory.outbox.capacity(),
                0,
            ),
            words: memory.words.clone(),
            inbox_ring: Arc::clone(&memory.inbox),
            outbox_ring: Arc::clone(&memory.outbox),
            in_flight: VecDeque::with_capacity(USUAL),
            void: 0,
            outputs: Vec::with_capacity(USUAL),
            held: Vec::new(),
            held_outputs: 0,
            charged: 0,
            next: 0,
            budget,
            question: (NO_QUESTION, Vec::new()),
            answerer: Answerer::default(),
            failed: false,
            is_front_blamed: false,
            is_final: false,
            generation: 0,
            released: 0,
            room_ringer: Ringer::default(),
            touched: 0,
            begun_at: 0,
            has_freed_much: false,
        }
    }

    /// Lets an incarnation in. The last one must be dead, and [`cut`](Self::cut) done.
    pub(crate) fn open(&mut self, generation: u32) {
        debug_assert!(self.in_flight.is_empty());
        let start = self.inbox.tail();
        let position = self.outbox.head();
        // Restored, since a dying worker may have written anything anywhere in its reach.
        self.words.inbox_published.store(start, Ordering::Relaxed);
        self.words.claim.reset();
        #[cfg(feature = "test-hooks")]
        self.words.pid.store(0, Ordering::Relaxed);
        self.words
            .outbox_published
            .store(position, Ordering::Relaxed);
        self.words
            .outbox_consumed
            .store(position, Ordering::Relaxed);
        self.words.opening.inbox.store(start, Ordering::Relaxed);
        self.words.opening.outbox.store(position, Ordering::Relaxed);
        self.outbox = Consumer::new(
            self.words.project(|words| &*words.outbox_published),
            self.outbox_ring.capacity(),
            position,
        );
        // SYNC POINT with `WorkerLink::attach`: a worker that sees its generation sees the words
        // above.
        self.words
            .opening
            .generation
            .store(generation, Ordering::Release);
        self.generation = generation;
        self.released = position;
        self.failed = false;
        self.is_front_blamed = false;
        self.is_final = false;
    }

    /// The worker is dead: what is published by now is its last. A process that it has left behind may share its memory
    /// and go on publishing, and would never come to an end.
    pub(crate) fn look_last(&mut self) {
        // A mark that is wrong stays so: the next commit tells of it.
        self.is_final = self.outbox.look().is_ok();
    }

    /// The incarnation that the link is open for; 0 is none.
    pub(crate) fn generation(&self) -> u32 {
        self.generation
    }

    /// How many frames are with the worker.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.len() - self.void
    }

    /// Where the oldest frame begins: while it is the same, the worker has finished none.
    pub(crate) fn oldest(&self) -> Option<u64> {
        self.in_flight.front().map(|delivery| delivery.start)
    }

    /// Whether the worker has begun the oldest frame, as far as it says; a recalled one is none.
    pub(crate) fn has_begun(&self) -> bool {
        let begun = self.words.claim.last_begun();
        let is_begun = |it: &Delivery| it.start == begun && it.kind != InputKind::Void;
        self.in_flight.front().is_some_and(is_begun)
    }

    /// Whether there is room for a frame whose body has `len` bytes.
    pub(crate) fn has_room(&self, len: usize) -> bool {
        aligned(INPUT_HEADER + len) <= self.inbox.free()
    }

    /// Whether the next frame's body may have `least` bytes. It must be asked before each
    /// [`submit`](Self::submit) and [`submit_copy`](Self::submit_copy): empty rings may be rewound here.
    pub(crate) fn takes(&mut self, least: usize) -> bool {
        self.rewind();
        self.has_room(least)
    }

    /// Room for the next frame's message, as much as there is beside `carried` bytes, and `most` bytes at most. How
    /// many there are at least, [`takes`](Self::takes) has said.
    pub(crate) fn room(&mut self, most: usize, carried: usize) -> Room<'_> {
        let free = (self.inbox.free() as usize).saturating_sub(INPUT_HEADER + carried);
        self.inbox_ring
            .room(self.inbox.tail() + INPUT_HEADER as u64, most.min(free))
    }

    /// Rewinds both rings, where that pays. The worker must have finished everything: it has read all
    /// of its inbox then, all of its output was read, and it publishes nothing until it finds the next
    /// frame, whose mark tells it ([`WorkerLink::take`](super::WorkerLink::take)).
    pub(super) fn rewind(&mut self) {
        let is_read = self.in_flight.is_empty() && self.released == self.outbox.head();
        let is_worn = self.inbox.is_worn() || self.outbox.is_worn();
        if !is_read || !is_worn {
            return;
        }
        // Seen in time: the worker has set it before its first frame here, or in one that is done by now.
        if self.posts_aside() {
            return;
        }
        self.touched = self.touched();
        self.inbox.rewind();
        self.outbox.rewind();
        self.begun_at = self.inbox.tail();
        self.released = self.outbox.head();
        // SYNC POINT with `WorkerLink::take`: the mark of the next frame, in `inbox_published`,
        // carries it over, so that what the worker stores here comes later.
        self.words
            .outbox_published
            .store(self.released, Ordering::Relaxed);
    }

    /// Whether the worker also publishes while it has no frame.
    pub(super) fn posts_aside(&self) -> bool {
        self.words.posts_aside.load(Ordering::Relaxed) != 0
    }

    /// Publishes a frame. Its message of `input.len` bytes is in the room already; what it carries is written behind
    /// that.
    pub(crate) fn submit(&mut self, input: &Input, carried: Carried<'_>) {
        let start = self.inbox.tail();
        let behind = carried.len();
        if behind > 0 {
            let at = start + INPUT_HEADER as u64 + u64::from(input.len);
            self.inbox_ring.write(at, carried.state);
            let at = at + carried.state.len() as u64;
            self.inbox_ring.write(at, carried.groups);
            let at = at + carried.groups.len() as u64;
            self.inbox_ring.write(at, carried.origin);
            let at = at + carried.origin.len() as u64;
            self.inbox_ring.write(at, &carried.tail());
        }
        let input = Input {
            len: input.len + behind as u32,
            carries: behind > 0,
            ..*input
        };
        self.inbox_ring.write(start, &input.encode());
        self.inbox.stage(INPUT_HEADER + input.len as usize);
        self.inbox.publish();
        self.in_flight.push_back(Delivery {
            start,
            len: input.len,
            carried: behind as u32,
            conn: input.conn,
            kind: input.kind,
            attempts: input.attempt,
            value: input.value,
            flushed: false,
            expires: input.deadline,
            waited_since: 0,
        });
    }

    /// The connection of the frame that was submitted last had waited for it since then. If the frame is returned
    /// unbegun, the connection has its place in the queue again.
    pub(crate) fn had_waited(&mut self, since: u64) {
        if let Some(last) = self.in_flight.back_mut() {
            last.waited_since = since;
        }
    }

    /// Publishes a frame and copies its message, which the link [`takes`](Self::takes).
    pub(crate) fn submit_copy(&mut self, input: &Input, carried: Carried<'_>, message: &[u8]) {
        self.inbox_ring
            .write(self.inbox.tail() + INPUT_HEADER as u64, message);
        self.submit(input, carried);
    }

    /// The commit was applied: goes on after it, and returns the frame that it retired. A frame whose
    /// callback has failed is taken by [`fail`](Self::fail).
    pub(crate) fn finish(&mut self, commit: Commit) -> Option<Delivery> {
        self.forget_outputs();
        self.outbox.advance_to(self.next);
        match commit {
            #[cfg(feature = "test-hooks")]
            Commit::Done => {
                self.pass(KillPoint::BeforeRetire);
                let delivery = self.retire();
                self.pass(KillPoint::AfterRetire);
                delivery
            }
            #[cfg(not(feature = "test-hooks"))]
            Commit::Done => self.retire(),
            Commit::Failed | Commit::Question | Commit::Aside => None,
            Commit::Flush => {
                if let Some(front) = self.in_flight.front_mut() {
                    front.flushed = true;
                }
                None
            }
        }
    }

    /// Tells the worker how far the outbox is read. Returns whether the worker sleeps for lack of
    /// room, so that its bell must be rung.
    pub(crate) fn release(&mut self) -> bool {
        if self.released == self.outbox.head() {
            return false;
        }
        self.released = self.outbox.head();
        // SYNC POINT with `WorkerOutbox::room`: bytes that were read may be written over.
        self.words
            .outbox_consumed
            .store(self.released, Ordering::Release);
        self.room_ringer.due(&self.words.room)
    }

    /// Bytes of this process that the link holds.
    #[cfg(test)]
    pub(crate) fn held_bytes(&self) -> usize {
        self.held.len()
    }

    /// How many outputs the link has memory for.
    #[cfg(test)]
    pub(crate) fn output_capacity(&self) -> usize {
        self.outputs.capacity()
    }

    #[cfg(feature = "test-hooks")]
    pub(super) fn pass(&self, point: KillPoint) {
        point.pass_of(self.words.pid.load(Ordering::Relaxed));
    }
}
