//! The reactor's end. Its one rule: it believes nothing that the worker wrote before it has copied
//! and checked it.

use std::collections::VecDeque;
use std::sync::Arc;

use super::broken::Broken;
use super::pages::MUCH;
use crate::config::limits::charge;
use crate::conn_id::ConnId;
use crate::ipc::arena::LinkMemory;
use crate::ipc::carried::Carried;
use crate::ipc::frame::{INPUT_HEADER, Input, InputKind, OUTPUT_BODY, Output, Part};
#[cfg(feature = "test-hooks")]
use crate::ipc::kill_point::KillPoint;
use crate::ipc::layout::{LinkWords, Shared};
use crate::ipc::memory::{Ring, Room, SharedBytes};
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
}

impl Delivery {
    /// Where its bytes begin.
    fn body(&self) -> u64 {
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

/// How many outputs a link keeps memory for, after a commit that was held back.
pub(super) const MOST_KEPT: usize = 1024;

/// Memory for this many frames and outputs is taken at the start, so that the hot path rarely allocates.
const USUAL: usize = 64;

/// The reactor's end of a link.
pub(crate) struct ReactorLink {
    pub(super) words: Shared<LinkWords>,
    pub(super) inbox_ring: Arc<Ring>,
    pub(super) inbox: Producer<Shared<AtomicU64>>,
    /// The frames in the inbox, oldest first.
    pub(super) in_flight: VecDeque<Delivery>,
    /// How many of them are recalled already, and only take up room.
    pub(super) void: usize,
    outbox_ring: Arc<Ring>,
    outbox: Consumer<Shared<AtomicU64>>,
    /// The outputs of the commit that is being read, in order.
    outputs: Vec<Staged>,
    /// Bytes of outputs that were published before their commit record, to make room in the ring.
    held: Vec<u8>,
    /// How many of the outputs have their bytes there.
    held_outputs: usize,
    /// What the outputs so far are charged against the budget.
    charged: usize,
    /// Where reading goes on after the commit.
    next: u64,
    /// The most bytes that one commit may send.
    budget: usize,
    /// The worker broke the protocol: nothing of it is read any more.
    pub(super) failed: bool,
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

/// An output and the place of its bytes.
struct Staged {
    output: Output,
    source: Source,
    len: usize,
}

enum Source {
    Ring(u64),
    Held(usize),
    /// In the inbox, in a message that is not retired before its commit is applied.
    Inbox(u64),
}

/// A commit record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Commit {
    /// The output so far may leave; the frame goes on.
    Flush,
    /// The oldest frame of the inbox is done.
    Done,
    /// The callback of the oldest frame has failed, and its outputs are dropped.
    Failed,
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
            failed: false,
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

    /// Publishes a frame whose message of `input.len` bytes is in the room, with what it carries.
    pub(crate) fn submit(&mut self, input: &Input, carried: Carried<'_>) {
        let start = self.inbox.tail();
        let behind = carried.len();
        if behind > 0 {
            let at = start + INPUT_HEADER as u64 + u64::from(input.len);
            self.inbox_ring.write(at, carried.state);
            let at = at + carried.state.len() as u64;
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
        });
    }

    /// Publishes a frame and copies its message, which the link [`takes`](Self::takes).
    pub(crate) fn submit_copy(&mut self, input: &Input, carried: Carried<'_>, message: &[u8]) {
        self.inbox_ring
            .write(self.inbox.tail() + INPUT_HEADER as u64, message);
        self.submit(input, carried);
    }

    /// Reads the worker's output up to the next commit record. Its outputs are then in
    /// [`output`](Self::output) until [`finish`](Self::finish) is called. Output that was published
    /// without a record is held back and its place in the ring freed.
    ///
    /// # Errors
    /// The worker broke the protocol. Nothing of its unfinished commit is applied, and nothing more
    /// is read.
    pub(crate) fn next_commit(&mut self) -> Result<Option<Commit>, Broken> {
        if self.failed || self.generation == 0 {
            return Ok(None);
        }
        let found = self.scan();
        if found.is_err() {
            self.failed = true;
            self.forget_outputs();
        }
        found
    }

    fn scan(&mut self) -> Result<Option<Commit>, Broken> {
        let mut at = self.outbox.head();
        loop {
            if at == self.outbox.tail() {
                self.outbox.look()?;
            }
            let available = self.outbox.tail() - at;
            if available == 0 {
                self.hold(at);
                return Ok(None);
            }
            let rest = available
                .checked_sub(OUTPUT_BODY as u64)
                .ok_or(Broken::Torn(available))?;
            let body = at + OUTPUT_BODY as u64;
            let (output, len) = Output::decode(&self.outbox_ring.read(at), rest)?;
            at = body + aligned(len);
            match output {
                Output::Send(_)
                | Output::Close(_)
                | Output::Reset(_)
                | Output::SetUser(..)
                | Output::SetState(_)
                | Output::CallServer(_) => {
                    self.stage(output, Source::Ring(body), len)?;
                }
                Output::SendReceived(conn, part) => {
                    let source = self.received(conn, part)?;
                    self.stage(Output::Send(conn), source, part.len as usize)?;
                }
                Output::Flush | Output::Done(_) | Output::Failed(_) => {
                    return self.commit(output, at).map(Some);
                }
            }
        }
    }

    /// Notes an output of the commit that is being read.
    fn stage(&mut self, output: Output, source: Source, len: usize) -> Result<(), Broken> {
        // Every frame counts, also one without bytes: it is remembered.
        self.charged += charge(len);
        if self.charged > self.budget {
            return Err(Broken::OverBudget(self.budget));
        }
        self.outputs.push(Staged {
            output,
            source,
            len,
        });
        Ok(())
    }

    /// Returns the place of a part of the message under way. That is the oldest message: a commit of
    /// another is refused. For another reactor the part would have to be copied, and the ring, in
    /// which the request is short however long the part is, would not keep that within bounds.
    fn received(&self, conn: ConnId, part: Part) -> Result<Source, Broken> {
        let message = self.in_flight.front();
        let has_part = |message: &&Delivery| {
            part.is_within(message.message()) && message.conn.owner() == conn.owner()
        };
        match message.filter(has_part) {
            Some(message) => Ok(Source::Inbox(message.body() + u64::from(part.offset))),
            None => Err(Broken::Part {
                part,
                message: message.map(Delivery::message),
            }),
        }
    }

    /// Checks that a commit record names the frame that is under way.
    fn commit(&mut self, output: Output, next: u64) -> Result<Commit, Broken> {
        let expected = self.in_flight.front().map(|delivery| delivery.start);
        self.next = next;
        match output {
            Output::Done(position) if Some(position) == expected => Ok(Commit::Done),
            Output::Failed(position) if Some(position) == expected && !self.is_front_void() => {
                self.forget_outputs();
                Ok(Commit::Failed)
            }
            Output::Done(position) | Output::Failed(position) => {
                Err(Broken::Done { position, expected })
            }
            Output::Flush if expected.is_some() => Ok(Commit::Flush),
            Output::Flush
            | Output::Send(_)
            | Output::SendReceived(..)
            | Output::Close(_)
            | Output::Reset(_)
            | Output::SetUser(..)
            | Output::SetState(_)
            | Output::CallServer(_) => Err(Broken::Flush),
        }
    }

    /// Whether the oldest frame was recalled: no callback runs for it, so that none can fail.
    fn is_front_void(&self) -> bool {
        let front = self.in_flight.front();
        front.is_some_and(|delivery| delivery.kind == InputKind::Void)
    }

    /// Copies the output that was read without a commit record out of the ring, up to `end`. Parts of
    /// the message stay in the inbox.
    fn hold(&mut self, end: u64) {
        for staged in &mut self.outputs[self.held_outputs..] {
            if let Source::Ring(position) = staged.source {
                staged.source = Source::Held(self.held.len());
                self.outbox_ring
                    .shared(position, staged.len)
                    .append_to(&mut self.held);
            }
        }
        self.held_outputs = self.outputs.len();
        self.outbox.advance_to(end);
    }

    /// Forgets the commit that is being read.
    pub(super) fn forget_outputs(&mut self) {
        self.outputs.clear();
        self.charged = 0;
        if std::mem::take(&mut self.held_outputs) > 0 {
            self.has_freed_much |= self.held.len() >= MUCH;
            // Rare, and may be large even where no bytes were held: the memory is given back.
            self.held = Vec::new();
            self.outputs.shrink_to(MOST_KEPT);
        }
    }

    /// Whether the worker has published frames that are not read, or a mark that can't be.
    pub(crate) fn has_output(&mut self) -> bool {
        !self.failed && self.generation != 0 && self.outbox.look().unwrap_or(true)
    }

    /// How many outputs the commit has.
    pub(crate) fn output_count(&self) -> usize {
        self.outputs.len()
    }

    /// What the outputs of the commit are charged against the budget.
    pub(crate) fn charged(&self) -> usize {
        self.charged
    }

    /// Returns one output of the commit.
    pub(crate) fn output(&self, index: usize) -> (Output, SharedBytes<'_>) {
        let staged = &self.outputs[index];
        let bytes = match staged.source {
            Source::Ring(position) => self.outbox_ring.shared(position, staged.len),
            Source::Held(start) => SharedBytes::of(&self.held[start..start + staged.len]),
            Source::Inbox(position) => self.inbox_ring.shared(position, staged.len),
        };
        (staged.output, bytes)
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
            Commit::Failed => None,
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

// An output counts as much as its header takes in the ring.
const _: () = assert!(charge(0) == OUTPUT_BODY);
