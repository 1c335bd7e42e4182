//! How long a worker has been at one frame, and how long a seat has been empty, seen from a reactor.

use std::time::{Duration, Instant};

use super::seats::Queue;
use crate::ipc::frame;
use crate::ipc::layout::{Shared, SlotMemory, SlotWords};
use crate::ipc::link::{ReactorLink, Returned};
use crate::ipc::sleeper::Ringer;
#[cfg(feature = "status")]
use crate::status::SlotStatus;
use crate::sys::doorbell::Doorbell;

/// How often a reactor looks, where looking can change anything.
pub(super) const LOOK: Duration = Duration::from_millis(5);

/// A callback that takes longer is slow: where each message is dispatched, none waits behind it.
pub(super) const SLOW: Duration = Duration::from_millis(10);

/// How long a seat may be empty before its connections go elsewhere, where they may.
const AWAY: Duration = Duration::from_millis(100);

/// How long a worker may be in one callback before the log says who waits; then after twice as long
/// each time.
const COMPLAIN: Duration = Duration::from_secs(1);

/// Where connections belong.
pub(super) struct Seat {
    /// Where the worker is that has the seat.
    pub(super) slot: Option<usize>,
    pub(super) waiting: Queue,
    /// Nobody who is ready has it.
    empty_since: Option<Instant>,
    /// For too long.
    away: bool,
}

impl Seat {
    pub(super) fn new() -> Seat {
        Seat {
            slot: None,
            waiting: Queue::new(),
            empty_since: None,
            away: false,
        }
    }

    pub(super) fn is_empty_since(&mut self, now: Instant) {
        self.empty_since.get_or_insert(now);
    }

    pub(super) fn is_ready(&mut self) {
        (self.empty_since, self.away) = (None, false);
    }

    pub(super) fn is_away(&self) -> bool {
        self.away
    }

    /// Whether a look can change anything: it may have been empty for too long by then, or somebody
    /// waits for one that has.
    pub(super) fn is_to_be_looked_at(&self) -> bool {
        self.empty_since.is_some() && (!self.away || !self.waiting.is_empty())
    }

    /// Whether it has been empty for too long, and whether that is news.
    pub(super) fn look(&mut self, now: Instant) -> (bool, bool) {
        let is_away = |since: Instant| now.duration_since(since) >= AWAY;
        let was_away = self.away;
        self.away = self.empty_since.is_some_and(is_away);
        (self.away, self.away && !was_away)
    }
}

/// The memory that one worker works with.
pub(super) struct Slot {
    pub(super) link: ReactorLink,
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

    pub(super) fn submit(&mut self, input: &frame::Input) {
        self.link.submit(input);
        self.unrung = true;
    }

    pub(super) fn submit_copy(&mut self, input: &frame::Input, body: &[u8]) {
        self.link.submit_copy(input, body);
        self.unrung = true;
    }

    /// Wakes whoever is there, whatever it waits for.
    pub(super) fn wake(&self) {
        self.bell.ring();
    }

    /// Rings, if something was submitted and the worker sleeps.
    pub(super) fn ring(&mut self) {
        if std::mem::take(&mut self.unrung) && self.ringer.due(&self.words.sleeper) {
            self.bell.ring();
        }
    }

    /// Takes back what the worker has not begun.
    pub(super) fn recall(&mut self) -> Vec<Returned> {
        let returned = self.link.recall();
        self.unrung = true;
        returned
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

    /// Whether this frame was the oldest for so long.
    pub(super) fn is_older_than(&self, frame: Option<u64>, age: Duration, now: Instant) -> bool {
        frame.is_some() && frame == self.oldest && now.duration_since(self.since) >= age
    }

    /// How many frames the worker has not begun, as far as it says.
    pub(super) fn unbegun(&self) -> usize {
        let has_begun = usize::from(self.link.has_begun());
        self.link.in_flight().saturating_sub(has_begun)
    }

    /// For who asks.
    #[cfg(feature = "status")]
    pub(super) fn status(&mut self, now: Instant) -> SlotStatus {
        self.look(now);
        SlotStatus {
            generation: self.link.generation(),
            under_way: self.begun.map(|begun| now.duration_since(begun)),
            waiting: self.unbegun(),
        }
    }

    /// Says that a worker does not get on, if somebody waits for it.
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
