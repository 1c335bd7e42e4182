//! The memory that one worker works with, seen from a reactor: frames go in, and what the worker has
//! committed comes out.
//!
//! Its one rule: a worker is never waited for. How long it has been at one frame is only noted.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::reactor::Outlet;
use crate::flow::Flow;
use crate::flow::deliver::{Place, Submitted};
use crate::ipc::frame;
use crate::ipc::layout::{Shared, SlotMemory, SlotWords};
use crate::ipc::link::Commit;
use crate::ipc::link::{Broken, Legacy, ReactorLink, Returned};
use crate::ipc::memory::Room;
use crate::ipc::sleeper::Ringer;
#[cfg(feature = "status")]
use crate::status::SlotStatus;
use crate::sys::doorbell::Doorbell;

/// How long a worker may be in one callback before the log says how many wait; then after twice as long
/// each time.
const COMPLAIN: Duration = Duration::from_secs(1);

/// How much is collected from one worker before everything else has a turn.
#[derive(Clone, Copy)]
pub(super) struct Batch {
    pub(super) commits: usize,
    /// A commit that names bytes of its message is short in the ring, however much it sends.
    pub(super) bytes: usize,
}

impl Batch {
    pub(super) const ALL: Batch = Batch {
        commits: usize::MAX,
        bytes: usize::MAX,
    };
}

/// The memory that one worker works with.
pub(super) struct Slot {
    link: ReactorLink,
    /// The seat that its worker has, or has had last.
    pub(super) seat: usize,
    words: Shared<SlotWords>,
    bell: Doorbell,
    ringer: Ringer,
    /// Frames were submitted since the bell was last seen to.
    unrung: bool,
    /// The oldest frame at the last look, and since when it has been that.
    oldest: Option<u64>,
    since: Instant,
    /// When a look found that the worker had begun it.
    begun: Option<Instant>,
    complain_after: Duration,
}

impl Slot {
    pub(super) fn new(memory: &SlotMemory, reactor: usize, budget: usize) -> Slot {
        Slot {
            link: ReactorLink::new(&memory.links[reactor], budget),
            seat: 0,
            words: memory.words.clone(),
            bell: memory.bell.clone(),
            ringer: Ringer::default(),
            unrung: false,
            oldest: None,
            since: Instant::now(),
            begun: None,
            complain_after: COMPLAIN,
        }
    }

    // Which worker works here

    /// Lets a worker in, which has this seat now.
    pub(super) fn open(&mut self, seat: usize, generation: u32) {
        self.seat = seat;
        self.link.open(generation);
        self.bell.ring();
    }

    /// The worker that was let in; 0 is none.
    pub(super) fn generation(&self) -> u32 {
        self.link.generation()
    }

    // Frames in

    /// Whether there is room for a frame whose body has `len` bytes.
    pub(super) fn has_room(&self, len: usize) -> bool {
        self.link.has_room(len)
    }

    /// A place for a frame whose body has at least `least` bytes, if there is room for that. `frames`
    /// counts it.
    pub(super) fn place<'a>(
        &'a mut self,
        least: usize,
        most: usize,
        frames: Option<&'a AtomicUsize>,
    ) -> Option<Vacancy<'a>> {
        self.link.takes(least).then_some(Vacancy {
            slot: self,
            most,
            frames,
        })
    }

    /// Rings, if something was submitted and the worker sleeps.
    pub(super) fn ring(&mut self) {
        if std::mem::take(&mut self.unrung) && self.ringer.due(&self.words.sleeper) {
            self.bell.ring();
        }
    }

    // Commits out

    /// Whether the worker has published something.
    pub(super) fn has_output(&mut self) -> bool {
        self.link.has_output()
    }

    /// Carries out what the worker has committed, up to a batch. Returns how many frames are done, and
    /// whether the worker has kept to the protocol.
    pub(super) fn collect(
        &mut self,
        most: Batch,
        to: &mut Outlet<'_>,
    ) -> (usize, Result<(), Broken>) {
        let (mut done, mut bytes) = (0, 0);
        for _ in 0..most.commits {
            if bytes >= most.bytes {
                break;
            }
            let commit = match self.link.next_commit() {
                Ok(Some(commit)) => commit,
                Ok(None) => break,
                Err(broken) => return (done, Err(broken)),
            };
            bytes += self.link.charged();
            for index in 0..self.link.output_count() {
                let (output, bytes) = self.link.output(index);
                to.output(output, bytes);
            }
            if let Some(delivery) = self.link.finish(commit) {
                done += 1;
                to.done(delivery.conn, delivery.kind);
            }
            if commit == Commit::Failed
                && let Some(failed) = self.link.fail()
            {
                done += 1;
                // The worker waits until its frames were recalled.
                self.unrung = true;
                to.failed(failed);
            }
        }
        (done, Ok(()))
    }

    /// Tells the worker how far it was read, and wakes it if it sleeps for lack of room.
    pub(super) fn release(&mut self) {
        if self.link.release() {
            self.bell.ring();
        }
    }

    // Frames back

    /// Takes back what the worker has not begun.
    pub(super) fn recall(&mut self) -> Vec<Returned> {
        let returned = self.link.recall();
        self.unrung = true;
        returned
    }

    /// How many frames are in the inbox, also those that were taken back.
    pub(super) fn left(&self) -> usize {
        self.link.left()
    }

    /// The worker is dead: takes back everything.
    pub(super) fn cut(&mut self) -> Legacy {
        self.link.cut()
    }

    // How the worker gets on

    /// How many frames are with the worker.
    pub(super) fn in_flight(&self) -> usize {
        self.link.in_flight()
    }

    /// The oldest frame that is not done.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.link.oldest()
    }

    /// How long the oldest frame has been the oldest, as far as looks can tell.
    pub(super) fn look(&mut self, now: Instant) -> Duration {
        let oldest = self.link.oldest();
        if oldest != self.oldest {
            (self.oldest, self.since, self.begun) = (oldest, now, None);
            self.complain_after = COMPLAIN;
        }
        if self.begun.is_none() && self.link.has_begun() {
            self.begun = Some(now);
        }
        match oldest {
            Some(_) => now.duration_since(self.since),
            None => Duration::ZERO,
        }
    }

    /// Whether this frame was the oldest for as long as `age`.
    pub(super) fn is_older_than(&self, frame: Option<u64>, age: Duration, now: Instant) -> bool {
        frame.is_some() && frame == self.oldest && now.duration_since(self.since) >= age
    }

    /// How many frames the worker has not begun, as far as it says.
    pub(super) fn unbegun(&self) -> usize {
        let has_begun = usize::from(self.link.has_begun());
        self.link.in_flight().saturating_sub(has_begun)
    }

    /// What the status says of it.
    #[cfg(feature = "status")]
    pub(super) fn status(&mut self, now: Instant) -> SlotStatus {
        self.look(now);
        SlotStatus {
            generation: self.link.generation(),
            under_way: self.begun.map(|begun| now.duration_since(begun)),
            waiting: self.unbegun(),
        }
    }

    /// Logs that a worker does not get on, if anything waits for it.
    pub(super) fn complain(&mut self, age: Duration, queued: usize) {
        let unbegun = self.unbegun();
        if age < self.complain_after || unbegun + queued == 0 {
            return;
        }
        self.complain_after = age * 2;
        log::warn!(
            "worker#{} has not finished a callback for {:.1} s: {unbegun} messages wait behind it, and {queued} \
             connections for room",
            self.seat,
            age.as_secs_f64()
        );
    }
}

/// A place in an inbox.
pub(crate) struct Vacancy<'a> {
    slot: &'a mut Slot,
    most: usize,
    /// Where each message is dispatched, the frames of all reactors in this slot's inboxes.
    frames: Option<&'a AtomicUsize>,
}

impl Vacancy<'_> {
    fn submitted(self) -> Submitted {
        self.slot.unrung = true;
        if let Some(frames) = self.frames {
            frames.fetch_add(1, Ordering::Relaxed);
        }
        Submitted::InFlight
    }
}

impl Place for Vacancy<'_> {
    fn room(&mut self) -> Room<'_> {
        self.slot.link.room(self.most)
    }

    fn submit(self, _: &mut Flow, input: &frame::Input) -> Submitted {
        self.slot.link.submit(input);
        self.submitted()
    }

    fn submit_copy(self, _: &mut Flow, input: &frame::Input, body: &[u8]) -> Submitted {
        self.slot.link.submit_copy(input, body);
        self.submitted()
    }
}
