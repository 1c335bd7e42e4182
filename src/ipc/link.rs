//! A link joins one reactor and one seat: the two ends of an inbox ring and an outbox ring, and the commit between them.
//!
//! The commit in one paragraph. The reactor keeps every frame of the inbox until it is retired, and only the reactor retires.
//! The worker stages what a callback sends beyond the published mark of the outbox; when the callback returns, one release store
//! publishes all of it together with a `Done` that names the inbox frame. The reactor applies frames only up to such a commit
//! record, so that it sees reply and acknowledgement, or neither. Whatever it holds without a record when the worker dies is cut.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::compiler_fence;

use super::frame::{ATTEMPT_AT, BadFrame, INPUT_HEADER, Input, InputKind, OUTPUT_BODY, Output};
use super::layout::{LinkMemory, LinkWords, ReactorMemory, Shared};
use super::memory::{Ring, Room, SharedBytes};
use super::ring::{BadMark, Consumer, Producer, aligned};
use super::seat::{Ringer, Sleep};
use super::sync::{AtomicU64, Ordering};
use crate::id::ConnId;

/// No frame begins here.
const NOWHERE: u64 = u64::MAX;

/// The most bytes of output in one frame: small enough that a ring holds several, so that both sides can work at once.
const LARGEST_OUTPUT: usize = 128 << 10;

/// A frame in the inbox that is not retired, as the reactor remembers it: nothing of it is read back from shared memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Delivery {
    start: u64,
    end: u64,
    pub(crate) conn: ConnId,
    pub(crate) kind: InputKind,
    /// How many workers have died in it.
    pub(crate) attempts: u8,
    /// Part of its output has left already, so that it can't be run again.
    pub(crate) flushed: bool,
}

/// The reactor's end of a link.
pub(crate) struct ReactorLink {
    words: Shared<LinkWords>,
    inbox_ring: Arc<Ring>,
    inbox: Producer<Shared<AtomicU64>>,
    /// What stands in the inbox, oldest first.
    in_flight: VecDeque<Delivery>,
    outbox_ring: Arc<Ring>,
    outbox: Consumer<Shared<AtomicU64>>,
    /// The outputs of the commit that is being read, in order.
    outputs: Vec<Staged>,
    /// Bytes of outputs that were published before their commit record, to make room in the ring.
    held: Vec<u8>,
    /// Where reading goes on after the commit.
    next: u64,
    /// The most bytes that one commit may send.
    budget: usize,
    /// The worker broke the protocol: nothing of it is read any more.
    failed: bool,
    /// For whom the link is open; 0 is nobody.
    generation: u32,
    /// How far the worker was told that the outbox is read.
    released: u64,
    room_ringer: Ringer,
}

/// An output and where its bytes are.
struct Staged {
    output: Output,
    source: Source,
    len: usize,
}

enum Source {
    Ring(u64),
    Held(usize),
}

/// A commit record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Commit {
    /// The output so far may leave; the frame goes on.
    Flush,
    /// The oldest frame of the inbox is done.
    Done,
}

impl ReactorLink {
    /// The reactor's end, closed: a generation must be let in by [`open`](Self::open).
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
            in_flight: VecDeque::new(),
            outputs: Vec::new(),
            held: Vec::new(),
            next: 0,
            budget,
            failed: false,
            generation: 0,
            released: 0,
            room_ringer: Ringer::default(),
        }
    }

    /// Lets an incarnation in. The last one must be dead, and [`cut`](Self::cut) done.
    pub(crate) fn open(&mut self, generation: u32) {
        let start = self
            .in_flight
            .front()
            .map_or(self.inbox.tail(), |delivery| delivery.start);
        let position = self.outbox.head();
        self.words.begun.store(NOWHERE, Ordering::Relaxed);
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
        // SYNC POINT with `WorkerLink::attach`: whoever sees its generation sees the words above.
        self.words
            .opening
            .generation
            .store(generation, Ordering::Release);
        self.generation = generation;
        self.released = position;
        self.room_ringer = Ringer::default();
        self.failed = false;
    }

    /// The incarnation that the link is open for; 0 is none.
    pub(crate) fn generation(&self) -> u32 {
        self.generation
    }

    /// How many frames are in the inbox.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Room for the `len` bytes of a frame's body; `None` while the inbox is too full for it.
    pub(crate) fn room(&self, len: usize) -> Option<Room<'_>> {
        let fits = aligned(INPUT_HEADER + len) <= self.inbox.free();
        fits.then(|| {
            self.inbox_ring
                .room(self.inbox.tail() + INPUT_HEADER as u64, len)
        })
    }

    /// Publishes a frame, whose body of `input.len` bytes stands in the room.
    pub(crate) fn submit(&mut self, input: &Input) {
        let start = self.inbox.tail();
        self.inbox_ring.write(start, &input.encode());
        self.inbox.stage(INPUT_HEADER + input.len as usize);
        self.inbox.publish();
        let (conn, kind, end) = (input.conn, input.kind, self.inbox.tail());
        self.in_flight.push_back(Delivery {
            start,
            end,
            conn,
            kind,
            attempts: 0,
            flushed: false,
        });
    }

    /// Publishes a frame with a body that stands elsewhere. There must be room for it.
    pub(crate) fn submit_copy(&mut self, input: &Input, body: &[u8]) {
        self.inbox_ring
            .write(self.inbox.tail() + INPUT_HEADER as u64, body);
        self.submit(input);
    }

    /// Reads the worker's output up to the next commit record. Its outputs are then in [`outputs`](Self::outputs) until
    /// [`finish`](Self::finish) is called. What was published without a record is held back and its place in the ring freed.
    ///
    /// # Errors
    /// The worker broke the protocol. Nothing of its unfinished commit is applied, and nothing more is read.
    pub(crate) fn next_commit(&mut self) -> Result<Option<Commit>, Broken> {
        if self.failed || self.generation == 0 {
            return Ok(None);
        }
        let found = self.scan();
        if found.is_err() {
            self.failed = true;
            self.outputs.clear();
            self.held = Vec::new();
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
                self.hold(at)?;
                return Ok(None);
            }
            let rest = available
                .checked_sub(OUTPUT_BODY as u64)
                .ok_or(Broken::Torn(available))?;
            let body = at + OUTPUT_BODY as u64;
            let (output, len) = Output::decode(&self.outbox_ring.read(at), rest)?;
            at = body + aligned(len);
            match output {
                Output::Send(_) | Output::Close(_) | Output::Reset(_) => {
                    self.outputs.push(Staged {
                        output,
                        source: Source::Ring(body),
                        len,
                    });
                }
                Output::Flush | Output::Done(_) => return self.commit(output, at).map(Some),
            }
        }
    }

    /// A commit record that names the frame that is under way.
    fn commit(&mut self, output: Output, next: u64) -> Result<Commit, Broken> {
        let expected = self.in_flight.front().map(|delivery| delivery.start);
        self.next = next;
        match output {
            Output::Done(position) if Some(position) == expected => Ok(Commit::Done),
            Output::Done(position) => Err(Broken::Done { position, expected }),
            Output::Flush if expected.is_some() => Ok(Commit::Flush),
            Output::Flush | Output::Send(_) | Output::Close(_) | Output::Reset(_) => {
                Err(Broken::Flush)
            }
        }
    }

    /// Takes what was read without a commit record out of the ring, up to `end`.
    fn hold(&mut self, end: u64) -> Result<(), Broken> {
        for staged in &mut self.outputs {
            if let Source::Ring(position) = staged.source {
                if self.held.len() + staged.len > self.budget {
                    return Err(Broken::OverBudget(self.budget));
                }
                staged.source = Source::Held(self.held.len());
                self.outbox_ring
                    .shared(position, staged.len)
                    .append_to(&mut self.held);
            }
        }
        self.outbox.advance_to(end);
        Ok(())
    }

    /// Whether the worker has published something that was not read, or what can't be.
    pub(crate) fn has_output(&mut self) -> bool {
        !self.failed && self.generation != 0 && self.outbox.look().unwrap_or(true)
    }

    /// How many outputs the commit has.
    pub(crate) fn output_count(&self) -> usize {
        self.outputs.len()
    }

    /// One output of the commit.
    pub(crate) fn output(&self, index: usize) -> (Output, SharedBytes<'_>) {
        let staged = &self.outputs[index];
        let bytes = match staged.source {
            Source::Ring(position) => self.outbox_ring.shared(position, staged.len),
            Source::Held(start) => SharedBytes::of(&self.held[start..start + staged.len]),
        };
        (staged.output, bytes)
    }

    /// The commit was applied: goes on after it, and says which frame it retired.
    pub(crate) fn finish(&mut self, commit: Commit) -> Option<Delivery> {
        self.outputs.clear();
        if !self.held.is_empty() {
            // Rare, and may be large: the memory is given back.
            self.held = Vec::new();
        }
        self.outbox.advance_to(self.next);
        match commit {
            Commit::Done => self.retire(),
            Commit::Flush => {
                if let Some(front) = self.in_flight.front_mut() {
                    front.flushed = true;
                }
                None
            }
        }
    }

    /// Tells the worker how far the outbox was read. Says whether it sleeps for lack of room, and its bell must be rung.
    pub(crate) fn release(&mut self) -> bool {
        if self.released == self.outbox.head() {
            return false;
        }
        self.released = self.outbox.head();
        // SYNC POINT with `WorkerOutbox::room`: what was read may be written over.
        self.words
            .outbox_consumed
            .store(self.released, Ordering::Release);
        self.room_ringer.due(&self.words.room)
    }

    /// Bytes of this process that the link holds.
    pub(crate) fn held_bytes(&self) -> usize {
        self.held.len()
    }

    /// The worker is dead and what it had committed is applied: cuts off the rest, shuts the link, and tells which frame the
    /// worker had begun and not finished.
    pub(crate) fn cut(&mut self) -> Option<Delivery> {
        self.outputs.clear();
        self.held = Vec::new();
        self.generation = 0;
        let begun = self.words.begun.load(Ordering::Relaxed);
        self.in_flight
            .front()
            .copied()
            .filter(|front| front.start == begun)
    }

    /// Takes the oldest frame out of the inbox.
    pub(crate) fn retire(&mut self) -> Option<Delivery> {
        let delivery = self.in_flight.pop_front()?;
        self.inbox.freed(delivery.end);
        Some(delivery)
    }

    /// Leaves the oldest frame to the next incarnation, and marks that one died in it. Only between `cut` and `open`: nobody
    /// reads the inbox then.
    pub(crate) fn redeliver(&mut self) {
        if let Some(front) = self.in_flight.front_mut() {
            front.attempts = front.attempts.saturating_add(1);
            self.inbox_ring
                .write(front.start + ATTEMPT_AT, &[front.attempts]);
        }
    }
}

/// How a worker broke the ring's protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Broken {
    Mark(BadMark),
    Frame(BadFrame),
    /// Fewer bytes than a header has.
    Torn(u64),
    Done {
        position: u64,
        expected: Option<u64>,
    },
    /// A flush with no frame under way.
    Flush,
    /// More output in one commit than the budget allows.
    OverBudget(usize),
}

impl From<BadMark> for Broken {
    fn from(mark: BadMark) -> Broken {
        Broken::Mark(mark)
    }
}

impl From<BadFrame> for Broken {
    fn from(frame: BadFrame) -> Broken {
        Broken::Frame(frame)
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Broken::Mark(mark) => mark.fmt(f),
            Broken::Frame(frame) => frame.fmt(f),
            Broken::Torn(len) => write!(f, "{len} bytes are no frame"),
            Broken::Done {
                position,
                expected: Some(expected),
            } => {
                write!(
                    f,
                    "position {position} is done where {expected} is under way"
                )
            }
            Broken::Done {
                position,
                expected: None,
            } => write!(f, "position {position} is done where nothing is under way"),
            Broken::Flush => write!(f, "a flush where nothing is under way"),
            Broken::OverBudget(budget) => write!(f, "one callback sent more than {budget} bytes"),
        }
    }
}

/// A worker's end of a link.
pub(crate) struct WorkerLink {
    words: Shared<LinkWords>,
    generation: u32,
    attached: bool,
    pub(crate) inbox: WorkerInbox,
    pub(crate) outbox: WorkerOutbox,
}

/// Where the worker reads.
pub(crate) struct WorkerInbox {
    words: Shared<LinkWords>,
    ring: Arc<Ring>,
    cursor: Consumer<Shared<AtomicU64>>,
}

/// Where the worker writes.
pub(crate) struct WorkerOutbox {
    words: Shared<LinkWords>,
    ring: Arc<Ring>,
    cursor: Producer<Shared<AtomicU64>>,
    reactor: ReactorMemory,
    ringer: Ringer,
    unrung: bool,
}

/// A frame that the worker has taken from its inbox.
#[derive(Clone, Copy)]
pub(crate) struct Taken {
    pub(crate) input: Input,
    start: u64,
}

impl WorkerLink {
    pub(crate) fn new(memory: &LinkMemory, reactor: &ReactorMemory, generation: u32) -> WorkerLink {
        let (inbox, outbox) = cursors(memory, 0, 0);
        WorkerLink {
            words: memory.words.clone(),
            generation,
            attached: false,
            inbox: WorkerInbox {
                words: memory.words.clone(),
                ring: Arc::clone(&memory.inbox),
                cursor: inbox,
            },
            outbox: WorkerOutbox {
                words: memory.words.clone(),
                ring: Arc::clone(&memory.outbox),
                cursor: outbox,
                reactor: reactor.clone(),
                ringer: Ringer::default(),
                unrung: false,
            },
        }
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
    /// Takes the next frame, and marks it as begun.
    ///
    /// # Panics
    /// When the inbox holds what no reactor wrote: this worker is beyond help, and its death is the cure.
    pub(crate) fn take(&mut self) -> Option<Taken> {
        if !self.look() {
            return None;
        }
        let start = self.cursor.head();
        let input =
            Input::decode(&self.ring.read(start)).expect("the inbox holds what the reactor wrote");
        self.cursor
            .advance_to(start + aligned(INPUT_HEADER + input.len as usize));
        self.words.begun.store(start, Ordering::Release);
        // The mark stands before anything the callback does: a death in the callback finds it.
        compiler_fence(Ordering::SeqCst);
        Some(Taken { input, start })
    }

    /// Whether there is a frame to take.
    pub(crate) fn look(&mut self) -> bool {
        self.cursor.head() != self.cursor.tail()
            || self
                .cursor
                .look()
                .expect("the reactor keeps to the protocol")
    }

    /// The body of a frame that is not done yet.
    pub(crate) fn body(&self, taken: &Taken) -> &[u8] {
        // SAFETY: the frame is published and this worker has not said `Done`, so the reactor does not write it.
        unsafe {
            self.ring
                .slice(taken.start + INPUT_HEADER as u64, taken.input.len as usize)
        }
    }
}

impl WorkerOutbox {
    /// How many bytes one frame may have.
    pub(crate) fn largest(&self) -> usize {
        LARGEST_OUTPUT.min(self.ring.capacity() as usize / 4)
    }

    /// Whether a frame of `len` bytes fits, and after it a commit record.
    pub(crate) fn room(&mut self, len: usize) -> bool {
        let needed = aligned(OUTPUT_BODY + len) + OUTPUT_BODY as u64;
        if self.cursor.free() < needed {
            // SYNC POINT with `ReactorLink::release`.
            self.cursor
                .freed(self.words.outbox_consumed.load(Ordering::Acquire));
        }
        self.cursor.free() >= needed
    }

    /// Before a sleep for lack of room: says so to the reactor. [`room`](Self::room) must be asked again before sleeping.
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
        self.ring.write(start, &output.encode(body.len() as u32));
        self.ring.write(start + OUTPUT_BODY as u64, body);
        self.cursor.stage(OUTPUT_BODY + body.len());
    }

    /// Publishes everything staged: a commit, if a record is its last frame, and otherwise something to be held back.
    pub(crate) fn publish(&mut self) {
        if self.cursor.has_staged() {
            self.cursor.publish();
            self.unrung = true;
        }
    }

    /// Stages `Done` and publishes: the commit. [`room`](Self::room) has kept the place for it.
    pub(crate) fn done(&mut self, taken: &Taken) {
        self.stage(Output::Done(taken.start), &[]);
        self.publish();
    }

    /// Whether something was published and its bell not rung, for a reactor that seems to sleep.
    pub(crate) fn keeps_a_sleeper_waiting(&self) -> bool {
        self.unrung && self.reactor.words.sleeper.seems_asleep()
    }

    /// Rings the reactor's bell, if it sleeps and something was published since the last ring.
    pub(crate) fn ring(&mut self) {
        if self.unrung {
            self.unrung = false;
            if self.ringer.due(&self.reactor.words.sleeper) {
                self.reactor.bell.ring();
            }
        }
    }
}
